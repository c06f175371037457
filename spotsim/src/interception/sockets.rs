//! The sockets that an interception needs in a namespace.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    ops::RangeInclusive,
};

use log::debug;
use tokio::net::TcpSocket;

use crate::{
    descriptors::below_links,
    netns::{self, Namespace},
    sock_diag::SockDiag,
};

/// A host may route this range of its loopback ports to Kubernetes services.
const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;

/// What is opened inside a namespace.
pub struct Sockets {
    /// The namespace's.
    pub cookie: u64,
    /// Bound to `127.0.0.1`.
    pub v4: TcpSocket,
    /// Bound to `::1`; `None` where the namespace has none.
    pub v6: Option<TcpSocket>,
    pub sock_diag: SockDiag,
}

impl Sockets {
    /// Opens them all, in each of these namespaces.
    ///
    /// # Errors
    ///
    /// For each: if `lo` is down or has no `127.0.0.1`; `ErrorKind::Unsupported` if the kernel has
    /// no sock_diag.
    pub fn open(namespaces: &[Namespace]) -> io::Result<Vec<io::Result<Self>>> {
        let opened = netns::run_in_each(namespaces, Self::open_here)?;
        Ok(opened.into_iter().map(|here| here?).collect())
    }

    fn open_here() -> io::Result<Self> {
        let v4 = bind(Ipv4Addr::LOCALHOST.into())?;
        loopback_is_up()?;
        Ok(Self {
            cookie: netns::cookie(&v4)?,
            v4,
            v6: loopback6()?,
            sock_diag: SockDiag::open()?,
        })
    }
}

/// Makes sure that what is redirected to loopback arrives there. To connect a UDP socket looks
/// for a route and sends nothing.
fn loopback_is_up() -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket
        .connect(socket.local_addr()?)
        .map_err(|_| io::Error::other("it is down; bring it up with `ip link set lo up`"))
}

/// A socket on `::1` of a namespace, to be opened when it has one after all.
pub fn open_loopback6(namespace: &Namespace) -> io::Result<Option<TcpSocket>> {
    namespace.run(loopback6)?
}

fn loopback6() -> io::Result<Option<TcpSocket>> {
    match bind(Ipv6Addr::LOCALHOST.into()) {
        // There is one; what there is not, for now, is a descriptor.
        Err(error) if error.kind() == io::ErrorKind::QuotaExceeded => Err(error),
        Err(error) => {
            debug!("no IPv6 loopback in the namespace: {error}");
            Ok(None)
        }
        Ok(socket) => Ok(Some(socket)),
    }
}

/// A socket on a loopback port of the kernel's choice, outside of [`NODE_PORTS`] if it has any.
fn bind(loopback: IpAddr) -> io::Result<TcpSocket> {
    const TRIES: usize = 64;
    // Kept until a good one is found, so that none comes twice.
    let mut refused = Vec::new();
    loop {
        let socket = match loopback {
            IpAddr::V4(_) => TcpSocket::new_v4()?,
            IpAddr::V6(_) => TcpSocket::new_v6()?,
        };
        below_links(&socket)?;
        match socket.bind(SocketAddr::new(loopback, 0)) {
            Ok(()) => {}
            Err(error) => return refused.pop().ok_or(error),
        }
        if !NODE_PORTS.contains(&socket.local_addr()?.port()) || refused.len() == TRIES {
            return Ok(socket);
        }
        refused.push(socket);
    }
}
