//! A program that does nothing: what it costs is the least that any program on this hook costs.
//!
//! No workload ever sees it. The benchmark measures it beside `connect4`.

#![no_std]
#![no_main]

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

/// The connection goes on; 0 would refuse it.
const PROCEED: i32 = 1;

#[cgroup_sock_addr(connect4)]
pub fn empty(_: SockAddrContext) -> i32 {
    PROCEED
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
