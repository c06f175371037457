//! Which connections are for IMDS, and where they go instead.
//!
//! The hooks see addresses as the kernel keeps them: 32-bit words in network byte order. The
//! functions here take them like that, because a conversion in the kernel half would be paid
//! on every `connect` of every process in a target.

use crate::{IMDS_PORT, IMDS_V4, IMDS_V6};

/// `IPPROTO_TCP`. UDP sockets pass the same hooks (glibc's `getaddrinfo` connects some).
const TCP: u32 = 6;

/// An IPv4 address as `bpf_sock_addr.user_ip4` holds it.
type Ip4 = u32;
/// An IPv6 address as `bpf_sock_addr.user_ip6` holds it.
type Ip6 = [u32; 4];

const IMDS_V4_BE: Ip4 = ip4(IMDS_V4.octets());
const IMDS_V6_BE: Ip6 = ip6(IMDS_V6.octets());
const IMDS_PORT_BE: u16 = IMDS_PORT.to_be();

const LOOPBACK_V4_BE: Ip4 = ip4([127, 0, 0, 1]);
const LOOPBACK_V6_BE: Ip6 = [0, 0, 0, 1_u32.to_be()];

/// Third word of `::ffff:a.b.c.d`; the first two are zero and the fourth is the IPv4 address.
const MAPPED_BE: u32 = 0xffff_u32.to_be();

/// The way by which a socket reaches IMDS. It says which loopback listener stands in, and in
/// which form the address is written back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// An IPv4 socket to `169.254.169.254`.
    V4,
    /// An IPv6 socket to `::ffff:169.254.169.254`: IPv4 on the wire, but only the `connect6`
    /// hook sees it (`tcp_v6_connect` calls `tcp_v4_connect` past the IPv4 hook).
    V4Mapped,
    /// An IPv6 socket to `fd00:ec2::254`.
    V6,
}

/// The ports of the responder's loopback listeners in one network namespace; 0 is "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// On `127.0.0.1`.
    pub v4_be: u16,
    /// On `::1`.
    pub v6_be: u16,
}

impl Ports {
    /// The ports as one map value.
    pub const fn to_bits(self) -> u32 {
        let Self { v4_be, v6_be } = self;
        (v4_be as u32) << 16 | v6_be as u32
    }

    /// The inverse of [`Ports::to_bits`].
    pub const fn from_bits(bits: u32) -> Self {
        Self {
            v4_be: (bits >> 16) as u16,
            v6_be: bits as u16,
        }
    }

    const fn behind(self, door: Door) -> u16 {
        match door {
            Door::V4 | Door::V4Mapped => self.v4_be,
            Door::V6 => self.v6_be,
        }
    }
}

/// What becomes of a connection to IMDS. Everything else passes without a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Rewrite the destination to loopback and this port.
    Redirect { port_be: u16 },
    /// No listener in the caller's namespace: let it pass to the real IMDS, and report it.
    Miss,
}

/// Is this IPv4 destination IMDS?
#[inline(always)]
pub const fn door4(protocol: u32, ip_be: Ip4, port_be: u16) -> Option<Door> {
    if ip_be == IMDS_V4_BE && port_be == IMDS_PORT_BE && protocol == TCP {
        Some(Door::V4)
    } else {
        None
    }
}

/// Is this IPv6 destination IMDS?
#[inline(always)]
pub const fn door6(protocol: u32, ip_be: Ip6, port_be: u16) -> Option<Door> {
    if port_be != IMDS_PORT_BE || protocol != TCP {
        None
    } else if same6(ip_be, IMDS_V6_BE) {
        Some(Door::V6)
    } else if same6(ip_be, mapped(IMDS_V4_BE)) {
        Some(Door::V4Mapped)
    } else {
        None
    }
}

/// Where a connection through `door` goes, given the listeners in the caller's namespace.
#[inline(always)]
pub const fn decide(door: Door, ports: Option<Ports>) -> Decision {
    match ports {
        Some(ports) if ports.behind(door) != 0 => Decision::Redirect {
            port_be: ports.behind(door),
        },
        _ => Decision::Miss,
    }
}

/// The loopback address that a `connect4` through [`Door::V4`] is rewritten to.
///
/// Exactly `127.0.0.1`: a service mesh's redirect rules leave that address alone and may
/// capture others of 127/8.
pub const fn loopback4() -> Ip4 {
    LOOPBACK_V4_BE
}

/// The loopback address that a `connect6` through `door` is rewritten to.
#[inline(always)]
pub const fn loopback6(door: Door) -> Ip6 {
    match door {
        Door::V4 | Door::V4Mapped => mapped(LOOPBACK_V4_BE),
        Door::V6 => LOOPBACK_V6_BE,
    }
}

/// Could this IPv4 peer be our listener? If so, its port decides.
#[inline(always)]
pub const fn stand_in4(ip_be: Ip4) -> Option<Door> {
    if ip_be == LOOPBACK_V4_BE {
        Some(Door::V4)
    } else {
        None
    }
}

/// Could this IPv6 peer be our listener? If so, its port decides.
#[inline(always)]
pub const fn stand_in6(ip_be: Ip6) -> Option<Door> {
    if same6(ip_be, LOOPBACK_V6_BE) {
        Some(Door::V6)
    } else if same6(ip_be, mapped(LOOPBACK_V4_BE)) {
        Some(Door::V4Mapped)
    } else {
        None
    }
}

/// Is `port_be` our listener's behind `door`? Then `getpeername` shows IMDS instead. Stateless:
/// nothing is kept for a socket, so nothing can leak or go stale.
#[inline(always)]
pub const fn is_listener(door: Door, port_be: u16, ports: Option<Ports>) -> bool {
    match decide(door, ports) {
        Decision::Redirect { port_be: ours } => ours == port_be,
        Decision::Miss => false,
    }
}

/// The IMDS address that `getpeername4` shows.
pub const fn imds4() -> Ip4 {
    IMDS_V4_BE
}

/// The IMDS address that `getpeername6` shows for a connection through `door`.
#[inline(always)]
pub const fn imds6(door: Door) -> Ip6 {
    match door {
        Door::V4 | Door::V4Mapped => mapped(IMDS_V4_BE),
        Door::V6 => IMDS_V6_BE,
    }
}

/// The IMDS port in network byte order.
pub const fn imds_port() -> u16 {
    IMDS_PORT_BE
}

const fn mapped(v4_be: Ip4) -> Ip6 {
    [0, 0, MAPPED_BE, v4_be]
}

/// Word by word: an array comparison becomes a `memcmp` call, which BPF does not have.
#[inline(always)]
const fn same6(a: Ip6, b: Ip6) -> bool {
    a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3]
}

const fn ip4(octets: [u8; 4]) -> Ip4 {
    u32::from_ne_bytes(octets)
}

const fn ip6(o: [u8; 16]) -> Ip6 {
    [
        u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
        u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
        u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
        u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
    ]
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const UDP: u32 = 17;

    fn v4(address: &str) -> Ip4 {
        ip4(address.parse::<Ipv4Addr>().unwrap().octets())
    }

    fn v6(address: &str) -> Ip6 {
        ip6(address.parse::<Ipv6Addr>().unwrap().octets())
    }

    const PORTS: Ports = Ports {
        v4_be: 40_000_u16.to_be(),
        v6_be: 40_001_u16.to_be(),
    };

    #[test]
    fn only_tcp_to_port_80_of_the_v4_address_is_imds() {
        let imds = v4("169.254.169.254");
        assert_eq!(door4(TCP, imds, 80_u16.to_be()), Some(Door::V4));
        assert_eq!(door4(UDP, imds, 80_u16.to_be()), None);
        assert_eq!(door4(TCP, imds, 443_u16.to_be()), None);
        assert_eq!(door4(TCP, imds, 80), None, "the port is in network order");
        for other in [
            "169.254.169.253",
            "169.254.170.2",
            "169.254.170.23",
            "169.254.169.123",
            "254.169.254.169",
            "127.0.0.1",
            "0.0.0.0",
        ] {
            assert_eq!(door4(TCP, v4(other), 80_u16.to_be()), None, "{other}");
        }
    }

    #[test]
    fn v6_and_v4_mapped_are_told_apart() {
        let port = 80_u16.to_be();
        assert_eq!(door6(TCP, v6("fd00:ec2::254"), port), Some(Door::V6));
        assert_eq!(
            door6(TCP, v6("::ffff:169.254.169.254"), port),
            Some(Door::V4Mapped)
        );
        assert_eq!(door6(UDP, v6("fd00:ec2::254"), port), None);
        assert_eq!(door6(TCP, v6("fd00:ec2::254"), 8080_u16.to_be()), None);
        for other in [
            "fd00:ec2::253",
            "fd00:ec2::23",
            "fd00:ec2:0:1::254",
            "fd00:ec2:0:0:1::254",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "::1",
            "::",
        ] {
            assert_eq!(door6(TCP, v6(other), port), None, "{other}");
        }
    }

    #[test]
    fn redirects_to_the_listener_of_the_same_family() {
        for (door, port_be) in [
            (Door::V4, PORTS.v4_be),
            (Door::V4Mapped, PORTS.v4_be),
            (Door::V6, PORTS.v6_be),
        ] {
            assert_eq!(decide(door, Some(PORTS)), Decision::Redirect { port_be });
        }
        assert_eq!(loopback4(), v4("127.0.0.1"));
        assert_eq!(loopback6(Door::V6), v6("::1"));
        assert_eq!(loopback6(Door::V4Mapped), v6("::ffff:127.0.0.1"));
    }

    #[test]
    fn passes_where_there_is_no_listener() {
        assert_eq!(decide(Door::V4, None), Decision::Miss);
        let no_v6 = Ports { v6_be: 0, ..PORTS };
        assert_eq!(decide(Door::V6, Some(no_v6)), Decision::Miss);
        let port_be = PORTS.v4_be;
        assert_eq!(
            decide(Door::V4, Some(no_v6)),
            Decision::Redirect { port_be }
        );
    }

    #[test]
    fn peer_names_are_restored_for_our_ports_only() {
        let shown = |door, port_be| is_listener(door, port_be, Some(PORTS));
        assert_eq!(stand_in4(v4("127.0.0.1")), Some(Door::V4));
        assert_eq!(stand_in4(v4("127.0.0.2")), None);
        assert_eq!(stand_in6(v6("::1")), Some(Door::V6));
        assert_eq!(stand_in6(v6("::ffff:127.0.0.1")), Some(Door::V4Mapped));
        assert_eq!(stand_in6(v6("::2")), None);

        assert!(shown(Door::V4, PORTS.v4_be));
        assert!(shown(Door::V4Mapped, PORTS.v4_be));
        assert!(shown(Door::V6, PORTS.v6_be));
        assert!(!shown(Door::V4, PORTS.v6_be));
        assert!(!shown(Door::V6, PORTS.v4_be));
        assert!(!is_listener(Door::V4, 0, Some(Ports { v4_be: 0, ..PORTS })));
        assert!(!is_listener(Door::V4, PORTS.v4_be, None));

        assert_eq!(imds4(), v4("169.254.169.254"));
        assert_eq!(imds6(Door::V6), v6("fd00:ec2::254"));
        assert_eq!(imds6(Door::V4Mapped), v6("::ffff:169.254.169.254"));
        assert_eq!(imds_port(), 80_u16.to_be());
    }

    #[test]
    fn ports_survive_the_map() {
        for ports in [
            PORTS,
            Ports { v4_be: 1, v6_be: 0 },
            Ports {
                v4_be: 0,
                v6_be: u16::MAX,
            },
        ] {
            assert_eq!(Ports::from_bits(ports.to_bits()), ports);
        }
    }
}
