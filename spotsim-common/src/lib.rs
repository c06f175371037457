//! What the kernel half and the user half of spotsim must agree on.
//!
//! - [`decide`]: which connections go to IMDS, and where they go instead. Pure, so the
//!   host can test every case that the kernel half will meet.
//! - [`record`]: the record the kernel half leaves for each decision.
//!
//! Addresses and ports named `*_be` are in network byte order, as the kernel keeps them.

#![no_std]

use core::net::{Ipv4Addr, Ipv6Addr};

pub mod decide;
pub mod record;

/// IMDS over IPv4 ([AWS: retrieve instance metadata][1]).
///
/// [1]: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
pub const IMDS_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// IMDS over IPv6, on Nitro instances that have it enabled.
pub const IMDS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254);

/// IMDS listens on this port only.
pub const IMDS_PORT: u16 = 80;

/// Names by which the user half finds what the kernel half declares.
pub mod names {
    /// Hash map: network namespace cookie (`u64`) to [`Ports::to_bits`](crate::decide::Ports::to_bits).
    pub const LISTENERS: &str = "LISTENERS";
    /// Ring buffer of [`ConnectRecord`](crate::record::ConnectRecord).
    pub const CONNECTS: &str = "CONNECTS";
    /// Per-CPU array of one `u64`: records that found the ring buffer full.
    pub const LOST: &str = "LOST";

    pub const CONNECT4: &str = "connect4";
    pub const CONNECT6: &str = "connect6";
    pub const GETPEERNAME4: &str = "getpeername4";
    pub const GETPEERNAME6: &str = "getpeername6";

    pub const CUT_INGRESS: &str = "cut_ingress";
    pub const CUT_EGRESS: &str = "cut_egress";
}
