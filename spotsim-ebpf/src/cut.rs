//! The kernel half of a cut: a cgroup's sockets send and receive nothing.
//!
//! Two programs on the cgroup of a target (`BPF_PROG_TYPE_CGROUP_SKB`), one for each direction.
//! They are an object of their own, which is loaded only where a target is to be cut.

#![no_std]
#![no_main]

use aya_ebpf::{macros::cgroup_skb, programs::SkBuffContext};

/// The packet is dropped; 1 would let it pass.
const DROP: i32 = 0;

#[cgroup_skb(ingress)]
pub fn cut_ingress(_: SkBuffContext) -> i32 {
    DROP
}

#[cgroup_skb(egress)]
pub fn cut_egress(_: SkBuffContext) -> i32 {
    DROP
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
