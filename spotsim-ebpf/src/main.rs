//! The kernel half: a workload's way to IMDS leads to the responder in its own namespace.
//!
//! Four programs on the cgroup of a target (`BPF_PROG_TYPE_CGROUP_SOCK_ADDR`). What they
//! decide is in `spotsim_common::decide`; here it is read from and written to the context.
//! Every one of them returns 1, "proceed": nothing is ever refused.
//!
//! A context field is read and written one word at a time, because the verifier refuses a
//! pointer into the context that was moved before its use.

#![no_std]
#![no_main]

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, bpf_sock_addr},
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid,
        bpf_get_current_uid_gid, bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_ns,
        bpf_setsockopt,
    },
    macros::{cgroup_sock_addr, map},
    maps::{HashMap, PerCpuArray, RingBuf},
    programs::SockAddrContext,
};
use aya_log_ebpf::debug;
use spotsim_common::{
    decide::{self, Decision, Door, Ports},
    record::{ConnectRecord, Verdict},
};

/// The network namespaces that have a listener. Without preallocation an entry costs memory
/// only when it is there.
#[map]
static LISTENERS: HashMap<u64, u32> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// Room for 6,553 records. A connection whose record is lost is not served.
#[map]
static CONNECTS: RingBuf = RingBuf::with_byte_size(RING, 0);

/// In bytes. User space maps it twice, so it counts twice as its memory.
const RING: u32 = 512 * 1024;

#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// `include/uapi/linux/bpf.h`
const BPF_F_NO_PREALLOC: u32 = 1;
/// `include/uapi/asm-generic/socket.h`
const SOL_SOCKET: i32 = 1;
const SO_BINDTODEVICE: i32 = 25;

const PROCEED: i32 = 1;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    let addr = ctx.sock_addr;
    // SAFETY: the kernel passes a valid context; so in every program below.
    let (protocol, ip) = unsafe { ((*addr).protocol, (*addr).user_ip4) };
    if let Some(door) = decide::door4(protocol, ip, port(addr))
        && let Decision::Redirect { port_be } = judge(&ctx, door)
    {
        // SAFETY: both fields are writable from a connect4 program.
        unsafe {
            (*addr).user_ip4 = decide::loopback4();
            (*addr).user_port = u32::from(port_be);
        }
    }
    PROCEED
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    let addr = ctx.sock_addr;
    // SAFETY: as above.
    let protocol = unsafe { (*addr).protocol };
    if let Some(door) = decide::door6(protocol, ip6(addr), port(addr))
        && let Decision::Redirect { port_be } = judge(&ctx, door)
    {
        set6(addr, decide::loopback6(door), port_be);
    }
    PROCEED
}

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    let addr = ctx.sock_addr;
    // SAFETY: as above.
    let ip = unsafe { (*addr).user_ip4 };
    if let Some(door) = decide::stand_in4(ip)
        && decide::is_listener(door, port(addr), ports(netns_cookie(&ctx)))
    {
        // SAFETY: both fields are writable from a getpeername4 program.
        unsafe {
            (*addr).user_ip4 = decide::imds4();
            (*addr).user_port = u32::from(decide::imds_port());
        }
    }
    PROCEED
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    let addr = ctx.sock_addr;
    if let Some(door) = decide::stand_in6(ip6(addr))
        && decide::is_listener(door, port(addr), ports(netns_cookie(&ctx)))
    {
        set6(addr, decide::imds6(door), decide::imds_port());
    }
    PROCEED
}

/// Decides on a connection to IMDS, makes the socket fit to go there, and reports it.
#[inline(always)]
fn judge(ctx: &SockAddrContext, door: Door) -> Decision {
    let netns_cookie = netns_cookie(ctx);
    let (decision, verdict) = match decide::decide(door, ports(netns_cookie)) {
        Decision::Miss => (Decision::Miss, Verdict::Missed),
        redirect if can_reach_loopback(ctx) => (redirect, Verdict::Redirected),
        Decision::Redirect { .. } => (Decision::Miss, Verdict::Bound),
    };
    report(ctx, netns_cookie, verdict);
    decision
}

#[inline(always)]
fn ports(netns_cookie: u64) -> Option<Ports> {
    // SAFETY: values are replaced as a whole by user space; a torn read is not possible for
    // four aligned bytes.
    unsafe { LISTENERS.get(netns_cookie) }.map(|&bits| Ports::from_bits(bits))
}

/// A socket that is bound to a device cannot reach loopback: its packets leave by that device
/// and are lost. Binds it to `lo` instead; only to a client with `CAP_NET_RAW` does the kernel
/// allow that (`sock_bindtoindex_locked` in net/core/sock.c).
#[inline(always)]
fn can_reach_loopback(ctx: &SockAddrContext) -> bool {
    // SAFETY: `sk` is readable; null is excluded before its use, as the verifier demands.
    let bound = unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        !sk.is_null() && (*sk).bound_dev_if != 0
    };
    !bound || {
        let mut lo = *b"lo\0";
        // SAFETY: the option's value is a buffer of the length given.
        unsafe {
            bpf_setsockopt(
                ctx.as_ptr(),
                SOL_SOCKET,
                SO_BINDTODEVICE,
                lo.as_mut_ptr().cast(),
                lo.len() as i32,
            ) == 0
        }
    }
}

#[inline(always)]
fn report(ctx: &SockAddrContext, netns_cookie: u64, verdict: Verdict) {
    let pid_tgid = bpf_get_current_pid_tgid();
    let uid_gid = bpf_get_current_uid_gid();
    let record = ConnectRecord {
        // SAFETY: helpers without arguments.
        time_ns: unsafe { bpf_ktime_get_ns() },
        // SAFETY: as above.
        cgroup_id: unsafe { bpf_get_current_cgroup_id() },
        netns_cookie,
        // SAFETY: the context is the one we were called with.
        socket_cookie: unsafe { bpf_get_socket_cookie(ctx.as_ptr()) },
        tid: pid_tgid as u32,
        pid: (pid_tgid >> 32) as u32,
        uid: uid_gid as u32,
        gid: (uid_gid >> 32) as u32,
        // SAFETY: as above.
        family: unsafe { (*ctx.sock_addr).family } as u16,
        verdict: verdict as u8,
        padding: [0; 5],
        comm: bpf_get_current_comm().unwrap_or_default(),
    };
    // To wake user space costs 5 µs and more, most of a connect. Who was redirected arrives there
    // and is looked for; nothing else tells of who was not. But not everybody arrives, and the ring
    // must not fill up with those who do not.
    let wakeup = match verdict {
        Verdict::Redirected
            if CONNECTS.query(u64::from(BPF_RB_AVAIL_DATA)) < u64::from(RING / 4) =>
        {
            BPF_RB_NO_WAKEUP
        }
        _ => BPF_RB_FORCE_WAKEUP,
    };
    // In one go: while an entry is reserved and not submitted, all that come after it cannot be
    // read.
    if CONNECTS
        .output::<ConnectRecord>(&record, u64::from(wakeup))
        .is_err()
        && let Some(lost) = LOST.get_ptr_mut(0)
    {
        // SAFETY: a slot of this CPU's own; a connect does not move to another one here.
        unsafe { *lost += 1 };
    }
    debug!(
        ctx,
        "pid {} in netns {}: verdict {}",
        (pid_tgid >> 32) as u32,
        netns_cookie,
        verdict as u8
    );
}

#[inline(always)]
fn netns_cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the context is the one we were called with.
    unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }
}

/// The port, which the context keeps in network order in the low half of a word.
#[inline(always)]
fn port(addr: *mut bpf_sock_addr) -> u16 {
    // SAFETY: a valid context.
    unsafe { (*addr).user_port as u16 }
}

#[inline(always)]
fn ip6(addr: *mut bpf_sock_addr) -> [u32; 4] {
    // SAFETY: a valid context of an IPv6 program.
    unsafe {
        [
            (*addr).user_ip6[0],
            (*addr).user_ip6[1],
            (*addr).user_ip6[2],
            (*addr).user_ip6[3],
        ]
    }
}

#[inline(always)]
fn set6(addr: *mut bpf_sock_addr, ip: [u32; 4], port_be: u16) {
    // SAFETY: these fields are writable from connect6 and getpeername6 programs.
    unsafe {
        (*addr).user_ip6[0] = ip[0];
        (*addr).user_ip6[1] = ip[1];
        (*addr).user_ip6[2] = ip[2];
        (*addr).user_ip6[3] = ip[3];
        (*addr).user_port = u32::from(port_be);
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The kernel lends some helpers only to GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
