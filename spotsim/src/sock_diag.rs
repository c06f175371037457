//! The kernel's table of TCP sockets, through `NETLINK_SOCK_DIAG` ([sock_diag(7)][1]): whose
//! socket is at the other end of a connection, and an end to connections that are older than
//! an interception.
//!
//! The kernel answers while the request is being sent. So everything here is done when the
//! call returns, and nothing ever waits.
//!
//! [1]: https://man7.org/linux/man-pages/man7/sock_diag.7.html

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::ControlFlow,
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator,
    Parseable as _, parse_i32, parse_u64,
};
use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, IPPROTO_TCP, SOCK_DIAG_BY_FAMILY, SockDiagDestroy, SockDiagMessage,
    inet::{
        ExtensionFlags, InetRequest, InetResponseBuffer, InetResponseHeader, SocketId, StateFlags,
    },
};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send,
    socket,
};
use spotsim_common::{IMDS_PORT, IMDS_V4, IMDS_V6};

/// The attribute with the cgroup of a socket, a `u64`, since Linux 5.7
/// (`include/uapi/linux/inet_diag.h`).
const INET_DIAG_CGROUP_ID: u16 = 21;

/// The attribute with a `struct tcp_info` (the same file).
const INET_DIAG_INFO: u16 = 2;

/// The type of a [`Dump`], and of the answers to one (the same file).
const TCPDIAG_GETSOCK: u16 = 18;

/// A cookie that matches every socket (`INET_DIAG_NOCOOKIE`, twice).
const ANY_COOKIE: [u8; 8] = [0xff; 8];

/// The index of `lo`, the same in every network namespace (`LOOPBACK_IFINDEX` in the kernel's
/// `include/net/flow.h`).
const LOOPBACK_INDEX: u32 = 1;

/// A netlink header, and the longest request: a [`Dump`].
const REQUEST_LENGTH: usize = 16 + Dump::LENGTH;

/// The kernel puts no more than two pages of 4 KiB into an answer, unless it is asked with a
/// longer buffer. A longer one shortens dumps.
const BUFFER_LENGTH: usize = 16 * 1024;

/// Sockets whose owner can still send a request: those that need to be cut off. What is half
/// closed from this side (`FIN_WAIT…`) can only receive what was asked for before.
const CAN_SEND: StateFlags = StateFlags::ESTABLISHED
    .union(StateFlags::SYN_SENT)
    .union(StateFlags::CLOSE_WAIT);

/// While something comes over a connection, more may follow. It is taken for quiet when nothing did
/// for longer than TCP waits before it sends something again (`TCP_RTO_MIN` in the kernel's
/// `include/net/tcp.h`, 200 ms).
pub const QUIET: Duration = Duration::from_millis(250);

/// Of two things that happened within so long the kernel's clock, which ticks every 1 to 10 ms,
/// does not tell which was first.
pub const TICKS: Duration = Duration::from_millis(20);

/// A view of the TCP sockets of one network namespace: the one that the calling thread was in
/// when it opened this, wherever it is used.
#[derive(Debug)]
pub struct SockDiag {
    socket: OwnedFd,
    /// Number of the latest request. Answers bear the number of theirs, so that what is left
    /// of a request that failed can never be taken for the answer to a later one.
    sequence: u32,
    buffer: Vec<u8>,
}

/// What became of connections to IMDS that were there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub destroyed: usize,
    /// These wait for an answer, and should be looked at again.
    pub waiting: usize,
}

/// Why connections to IMDS that were there before could not be destroyed.
#[derive(Debug)]
pub enum DestroyError {
    /// The kernel was built without `CONFIG_INET_DIAG_DESTROY`.
    Unsupported,
    /// So many connections remain because the kernel does not tell whose they are.
    Unattributed(usize),
    /// The kernel answered otherwise; `EPERM` without `CAP_NET_ADMIN`.
    Io(io::Error),
}

impl fmt::Display for DestroyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported => f.write_str(
                "cannot cut connections to IMDS that were open before: this kernel has no \
                 CONFIG_INET_DIAG_DESTROY; they show the real IMDS until they end, or restart \
                 the workload",
            ),
            Self::Unattributed(count) => write!(
                f,
                "did not cut {count} connections to IMDS that were open before: this kernel does \
                 not tell the cgroup of a socket; they show the real IMDS until they end, or \
                 restart the workload"
            ),
            Self::Io(source) => write!(
                f,
                "cannot cut connections to IMDS that were open before: {source}; they show the \
                 real IMDS until they end"
            ),
        }
    }
}

impl std::error::Error for DestroyError {}

impl From<io::Error> for DestroyError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => Self::Unsupported,
            _ => Self::Io(error),
        }
    }
}

impl SockDiag {
    /// Opens the view of the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// `ErrorKind::Unsupported` if the kernel has no sock_diag for TCP.
    pub fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkSockDiag,
        )
        .map_err(|errno| match errno {
            nix::Error::EPROTONOSUPPORT => io::ErrorKind::Unsupported.into(),
            _ => io::Error::from(errno),
        })?;
        // From now on only the kernel is heard.
        connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let mut this = Self {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER_LENGTH],
        };
        this.find_handler()?;
        Ok(this)
    }

    /// The cookie, as `bpf_get_socket_cookie` gives it, of the TCP socket whose own address is
    /// `local` and whose peer is `peer`. For addresses of loopback also if it is bound to `lo`.
    ///
    /// `None` if there is none. One that was closed is found while the kernel remembers it
    /// (`TIME_WAIT`), under the cookie that it had.
    pub fn cookie_of(&mut self, local: SocketAddr, peer: SocketAddr) -> io::Result<Option<u64>> {
        let found = self.find(local, peer)?;
        Ok(found.map(|InetResponseHeader { socket_id, .. }| cookie(&socket_id)))
    }

    /// Whether some process has that socket open still, though it may have sent its last word
    /// (`shutdown(SHUT_WR)`). What the kernel keeps of a closed one has no inode any more.
    pub fn is_open(&mut self, local: SocketAddr, peer: SocketAddr) -> io::Result<bool> {
        let found = self.find(local, peer)?;
        Ok(found.is_some_and(|InetResponseHeader { inode, .. }| inode != 0))
    }

    /// The TCP socket between these addresses.
    fn find(
        &mut self,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> io::Result<Option<InetResponseHeader>> {
        // A v4-mapped socket is found by its IPv4 addresses, like one of AF_INET
        // (`inet_diag_find_one_icsk` in net/ipv4/inet_diag.c).
        let (local_ip, peer_ip) = (local.ip().to_canonical(), peer.ip().to_canonical());
        let wanted = SocketId {
            source_port: local.port(),
            destination_port: peer.port(),
            source_address: local_ip,
            destination_address: peer_ip,
            // A device that is named is found by those bound to it and those bound to none;
            // no device, only by the latter.
            interface_id: if local_ip.is_loopback() {
                LOOPBACK_INDEX
            } else {
                0
            },
            cookie: ANY_COOKIE,
        };
        let request = SockDiagMessage::InetRequest(exactly(wanted));
        let sequence = self.send(NLM_F_REQUEST, request)?;
        let found = self.receive(sequence, |answer| match answer {
            Answer::Socket(payload) => {
                let header = InetResponseHeader::parse(payload).map_err(malformed)?;
                Ok(ControlFlow::Break(Some(header)))
            }
            Answer::End => Ok(ControlFlow::Break(None)),
        });
        let found = match found {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            other => other?,
        };
        // Where there is no such connection, the kernel answers with a listener there.
        let is_pair = |InetResponseHeader { socket_id: id, .. }: &_| {
            id.source_port == local.port()
                && id.destination_port == peer.port()
                && id.source_address.to_canonical() == local_ip
                && id.destination_address.to_canonical() == peer_ip
        };
        Ok(found.filter(is_pair))
    }

    /// Destroys the TCP connections to IMDS of those sockets for whose cgroup id (the inode
    /// number of its directory) `is_target` holds. Their owners see `ECONNABORTED`, and a new
    /// connection is made the usual way. One that waits for an answer, or was not `quiet` for so
    /// long, is spared and counted.
    ///
    /// A socket belongs to the cgroup that its owner was in when it made the socket, the one
    /// that decides which programs a connection meets.
    pub fn destroy_imds_connections(
        &mut self,
        is_target: impl Fn(u64) -> bool,
        quiet: Duration,
    ) -> Result<Cut, DestroyError> {
        let mut targets = Vec::new();
        let mut unattributed = 0;
        let (mut destroyed, mut waiting) = (0, 0);
        self.each_to_imds(|id, cgroup, traffic| match cgroup {
            Some(cgroup) if !is_target(cgroup) => {}
            Some(_) if traffic.waits(quiet) => waiting += 1,
            Some(_) => targets.push(id),
            None => unattributed += 1,
        })?;
        for id in targets {
            match self.destroy(id) {
                Ok(()) => destroyed += 1,
                // It ended by itself meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if unattributed > 0 {
            return Err(DestroyError::Unattributed(unattributed));
        }
        Ok(Cut { destroyed, waiting })
    }

    /// Hands every connection to IMDS to `found`, with the cgroup id of its socket and what
    /// went over it.
    fn each_to_imds(
        &mut self,
        mut found: impl FnMut(SocketId, Option<u64>, Traffic),
    ) -> io::Result<()> {
        let request = Dump {
            states: CAN_SEND,
            peer_port: IMDS_PORT,
        };
        let sequence = self.send(NLM_F_REQUEST | NLM_F_DUMP, request)?;
        self.receive(sequence, |answer| {
            let Answer::Socket(payload) = answer else {
                return Ok(ControlFlow::Break(()));
            };
            let InetResponseHeader { socket_id, .. } =
                InetResponseHeader::parse(payload).map_err(malformed)?;
            if is_imds(&socket_id) {
                found(socket_id, cgroup_id(payload)?, Traffic::of(payload)?);
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Destroys the one socket with these addresses and this cookie.
    fn destroy(&mut self, id: SocketId) -> io::Result<()> {
        let request = SockDiagDestroy::new(SockDiagMessage::InetRequest(exactly(id)));
        let sequence = self.send(NLM_F_REQUEST | NLM_F_ACK, request)?;
        self.receive(sequence, |_| Ok(ControlFlow::Break(())))
    }

    /// Makes sure that the kernel has sock_diag for TCP, which is a module in many. It is
    /// loaded now, instead of during the first question.
    fn find_handler(&mut self) -> io::Result<()> {
        let nothing = InetRequest {
            states: StateFlags::empty(),
            ..exactly(SocketId::new_v4())
        };
        let request = SockDiagMessage::InetRequest(nothing);
        let sequence = self.send(NLM_F_REQUEST | NLM_F_DUMP, request)?;
        self.receive(sequence, |answer| match answer {
            Answer::Socket(_) => Ok(ControlFlow::Continue(())),
            Answer::End => Ok(ControlFlow::Break(())),
        })
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT) => io::ErrorKind::Unsupported.into(),
            _ => error,
        })
    }

    /// Sends a request, which the kernel answers meanwhile, and returns its number.
    fn send<M>(&mut self, flags: u16, message: M) -> io::Result<u32>
    where
        M: NetlinkSerializable + Into<NetlinkPayload<M>>,
    {
        let Self {
            socket, sequence, ..
        } = self;
        *sequence = sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = *sequence;
        let mut message = NetlinkMessage::new(header, message.into());
        message.finalize();
        let mut bytes = [0; REQUEST_LENGTH];
        let bytes = &mut bytes[..message.buffer_len()];
        message.serialize(bytes);
        send(socket.as_raw_fd(), bytes, MsgFlags::empty())?;
        Ok(*sequence)
    }

    /// Hands the answers to request `sequence` to `each`, until that breaks off.
    fn receive<T>(
        &mut self,
        sequence: u32,
        mut each: impl FnMut(Answer<'_>) -> io::Result<ControlFlow<T>>,
    ) -> io::Result<T> {
        let Self { socket, buffer, .. } = self;
        loop {
            let length = recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC)?;
            let mut rest = buffer
                .get(..length)
                .ok_or_else(|| malformed(format!("{length} bytes at once").into()))?;
            while !rest.is_empty() {
                let message = NetlinkBuffer::new_checked(rest).map_err(malformed)?;
                let next = (message.length() as usize).next_multiple_of(4);
                rest = rest.get(next..).unwrap_or_default();
                if message.sequence_number() != sequence {
                    continue;
                }
                if let Some(answer) = Answer::from_message(&message)?
                    && let ControlFlow::Break(value) = each(answer)?
                {
                    return Ok(value);
                }
            }
        }
    }
}

/// Whether this kernel can destroy TCP sockets (`CONFIG_INET_DIAG_DESTROY`). Needs no
/// privileges: it is asked to destroy a socket that cannot exist.
pub fn destroy_supported() -> io::Result<bool> {
    let mut sock_diag = match SockDiag::open() {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(false),
        other => other?,
    };
    // No connection has port 0, and no socket the cookie 0.
    let nowhere = SocketId {
        source_address: Ipv4Addr::LOCALHOST.into(),
        destination_address: Ipv4Addr::LOCALHOST.into(),
        ..SocketId::new_v4()
    };
    match sock_diag.destroy(nowhere) {
        Ok(()) => Ok(true),
        // It was looked for.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What the kernel says to a request.
enum Answer<'a> {
    /// A `struct inet_diag_msg` with its attributes.
    Socket(&'a [u8]),
    /// Done, or the end of a dump.
    End,
}

impl<'a> Answer<'a> {
    /// `None` for what says nothing; an error that the kernel answers is an `Err`.
    fn from_message(message: &NetlinkBuffer<&'a [u8]>) -> io::Result<Option<Self>> {
        match message.message_type() {
            SOCK_DIAG_BY_FAMILY | TCPDIAG_GETSOCK => Ok(Some(Self::Socket(message.payload()))),
            // Both begin with a negative error number or 0.
            NLMSG_ERROR | NLMSG_DONE => {
                let code = message.payload().first_chunk::<4>();
                let code = code.ok_or_else(|| malformed("no error number".into()))?;
                match parse_i32(code).map_err(malformed)? {
                    0 => Ok(Some(Self::End)),
                    code => Err(io::Error::from_raw_os_error(-code)),
                }
            }
            _ => Ok(None),
        }
    }
}

fn exactly(id: SocketId) -> InetRequest {
    InetRequest {
        family: match id.source_address {
            IpAddr::V4(_) => AF_INET,
            IpAddr::V6(_) => AF_INET6,
        },
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id: id,
    }
}

/// A request for all TCP sockets in one of these states whose peer has this port; the kernel
/// compares no addresses.
///
/// In the form that is older than sock_diag's (`struct inet_diag_req` in
/// `include/uapi/linux/inet_diag.h`), which alone asks for both families at once. For each dump the
/// kernel walks through its whole table, which it has for all network namespaces together.
struct Dump {
    states: StateFlags,
    peer_port: u16,
}

impl Dump {
    const LENGTH: usize = 60;
}

impl NetlinkSerializable for Dump {
    fn message_type(&self) -> u16 {
        TCPDIAG_GETSOCK
    }

    fn buffer_len(&self) -> usize {
        Self::LENGTH
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let Self { states, peer_port } = self;
        buffer.fill(0);
        buffer[3] = ExtensionFlags::INFO.bits();
        buffer[6..8].copy_from_slice(&peer_port.to_be_bytes());
        buffer[52..56].copy_from_slice(&states.bits().to_ne_bytes());
    }
}

impl From<Dump> for NetlinkPayload<Dump> {
    fn from(dump: Dump) -> Self {
        Self::InnerMessage(dump)
    }
}

fn is_imds(id: &SocketId) -> bool {
    let address = id.destination_address.to_canonical();
    id.destination_port == IMDS_PORT && (address == IMDS_V4 || address == IMDS_V6)
}

/// The kernel gives a cookie as two `u32`, the lower half first.
fn cookie(id: &SocketId) -> u64 {
    let [a, b, c, d, e, f, g, h] = id.cookie;
    let (low, high) = (
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
    );
    u64::from(high) << 32 | u64::from(low)
}

/// One of the attributes that follow a `struct inet_diag_msg`.
fn attribute(payload: &[u8], kind: u16) -> io::Result<Option<Vec<u8>>> {
    let attributes = payload
        .get(size_of::<InetResponseBuffer>()..)
        .unwrap_or_default();
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute.map_err(malformed)?;
        if attribute.kind() == kind {
            return Ok(Some(attribute.value().to_vec()));
        }
    }
    Ok(None)
}

fn cgroup_id(payload: &[u8]) -> io::Result<Option<u64>> {
    let value = attribute(payload, INET_DIAG_CGROUP_ID)?;
    value
        .map(|id| parse_u64(&id).map_err(malformed))
        .transpose()
}

/// What went over a connection, from its `struct tcp_info` (`include/uapi/linux/tcp.h`).
#[derive(Clone, Copy, Debug, Default)]
struct Traffic {
    /// Milliseconds since the last data was sent, and received.
    sent: u32,
    received: u32,
    bytes_received: u64,
}

impl Traffic {
    fn of(payload: &[u8]) -> io::Result<Self> {
        let info = attribute(payload, INET_DIAG_INFO)?.unwrap_or_default();
        let word = |at: usize| {
            info.get(at..)?
                .first_chunk()
                .map(|&word| u32::from_ne_bytes(word))
        };
        let long = |at: usize| {
            info.get(at..)?
                .first_chunk()
                .map(|&long| u64::from_ne_bytes(long))
        };
        Ok(Self {
            sent: word(44).unwrap_or_default(),
            received: word(52).unwrap_or_default(),
            bytes_received: long(128).unwrap_or(1),
        })
    }

    /// Whether something is to come: no answer came yet, none since the last data was sent, or one
    /// may still be arriving.
    fn waits(self, quiet: Duration) -> bool {
        let Self {
            sent,
            received,
            bytes_received,
        } = self;
        let received_ago = Duration::from_millis(received.into());
        bytes_received == 0 || sent < received || received_ago < quiet
    }
}

fn malformed(error: DecodeError) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("unexpected answer from sock_diag: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{HashMap, HashSet},
        net::{Ipv6Addr, TcpListener, TcpStream},
        os::fd::AsFd,
    };

    use nix::sys::{
        socket::{setsockopt, sockopt::BindToDevice},
        stat::fstat,
    };

    use super::*;

    /// The cookie of a connected socket of this process, found in a dump by its inode.
    fn own_cookie(socket: &impl AsFd) -> u64 {
        let inode = fstat(socket).unwrap().st_ino;
        let mut sock_diag = SockDiag::open().unwrap();
        let mut cookies = HashSet::new();
        let request = Dump {
            states: CAN_SEND,
            peer_port: 0,
        };
        let sequence = sock_diag.send(NLM_F_REQUEST | NLM_F_DUMP, request).unwrap();
        let dumped = sock_diag.receive(sequence, |answer| {
            let Answer::Socket(payload) = answer else {
                return Ok(ControlFlow::Break(()));
            };
            let header = InetResponseHeader::parse(payload).map_err(malformed)?;
            if u64::from(header.inode) == inode {
                cookies.insert(cookie(&header.socket_id));
            }
            Ok(ControlFlow::Continue(()))
        });
        dumped.unwrap();
        assert_eq!(cookies.len(), 1, "sockets with inode {inode}");
        cookies.into_iter().next().unwrap()
    }

    /// Both ends of a connection to a listener at `ip`.
    fn pair(ip: impl Into<IpAddr>) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((ip.into(), 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        (client, server)
    }

    fn assert_both_ends_are_found((client, server): (TcpStream, TcpStream)) {
        let mut sock_diag = SockDiag::open().unwrap();
        let (near, far) = (server.local_addr().unwrap(), server.peer_addr().unwrap());
        for _ in 0..2 {
            let found = sock_diag.cookie_of(far, near).unwrap();
            assert_eq!(found, Some(own_cookie(&client)));
        }
        let found = sock_diag.cookie_of(near, far).unwrap();
        assert_eq!(found, Some(own_cookie(&server)));
        assert_ne!(own_cookie(&client), own_cookie(&server));
    }

    #[test]
    fn both_ends_are_found_over_ipv4() {
        assert_both_ends_are_found(pair(Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn both_ends_are_found_over_ipv6() {
        assert_both_ends_are_found(pair(Ipv6Addr::LOCALHOST));
    }

    /// An AF_INET6 client of an AF_INET listener.
    #[test]
    fn both_ends_are_found_over_ipv4_mapped() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port)).unwrap();
        assert!(client.local_addr().unwrap().is_ipv6());
        let (server, _) = listener.accept().unwrap();
        assert_both_ends_are_found((client, server));
    }

    /// As the kernel half leaves clients that were bound to another device.
    #[test]
    fn both_ends_are_found_if_bound_to_loopback() {
        for ip in [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            Ipv6Addr::LOCALHOST.into(),
        ] {
            let (client, server) = pair(ip);
            setsockopt(&client, BindToDevice, &"lo".into()).unwrap();
            assert_both_ends_are_found((client, server));
        }
    }

    #[test]
    fn an_unknown_pair_is_none() {
        let mut sock_diag = SockDiag::open().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        assert_eq!(sock_diag.cookie_of(nobody, address).unwrap(), None);
        // The kernel would answer this one with the listener.
        assert_eq!(sock_diag.cookie_of(address, nobody).unwrap(), None);
        let (client, server) = pair(Ipv6Addr::LOCALHOST);
        let (near, far) = (server.local_addr().unwrap(), server.peer_addr().unwrap());
        assert_eq!(sock_diag.cookie_of(far, nobody).unwrap(), None);
        assert!(sock_diag.cookie_of(far, near).unwrap().is_some());
        drop(client);
    }

    #[test]
    fn a_closed_client_keeps_its_cookie_for_a_while() {
        let mut sock_diag = SockDiag::open().unwrap();
        let (client, server) = pair(Ipv4Addr::LOCALHOST);
        let (near, far) = (server.local_addr().unwrap(), server.peer_addr().unwrap());
        let cookie = own_cookie(&client);
        drop(client);
        assert_eq!(sock_diag.cookie_of(far, near).unwrap(), Some(cookie));
    }

    #[test]
    fn what_is_left_of_an_earlier_request_is_passed_over() {
        let mut sock_diag = SockDiag::open().unwrap();
        let (stale, _server) = pair(Ipv4Addr::LOCALHOST);
        let (client, server) = pair(Ipv4Addr::LOCALHOST);
        let id = SocketId {
            source_port: stale.local_addr().unwrap().port(),
            destination_port: stale.peer_addr().unwrap().port(),
            source_address: Ipv4Addr::LOCALHOST.into(),
            destination_address: Ipv4Addr::LOCALHOST.into(),
            cookie: ANY_COOKIE,
            ..SocketId::new_v4()
        };
        let request = SockDiagMessage::InetRequest(exactly(id));
        sock_diag.send(NLM_F_REQUEST, request).unwrap();
        let (near, far) = (server.local_addr().unwrap(), server.peer_addr().unwrap());
        let found = sock_diag.cookie_of(far, near).unwrap();
        assert_eq!(found, Some(own_cookie(&client)));
    }

    /// A dump longer than one buffer, of both families, with the cgroup of each socket.
    #[test]
    fn dumps_are_read_to_their_end() {
        let mut sock_diag = SockDiag::open().unwrap();
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let peer_port = listener.local_addr().unwrap().port();
        let loopbacks = [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            Ipv6Addr::LOCALHOST.into(),
            Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(),
        ];
        let mut streams = Vec::new();
        for ip in loopbacks.into_iter().cycle().take(600) {
            streams.push(TcpStream::connect((ip, peer_port)).unwrap());
            streams.push(listener.accept().unwrap().0);
        }
        let request = Dump {
            states: CAN_SEND,
            peer_port,
        };
        let sequence = sock_diag.send(NLM_F_REQUEST | NLM_F_DUMP, request).unwrap();
        let mut clients = HashMap::<u8, usize>::new();
        let dumped = sock_diag.receive(sequence, |answer| {
            let Answer::Socket(payload) = answer else {
                return Ok(ControlFlow::Break(()));
            };
            let header = InetResponseHeader::parse(payload).map_err(malformed)?;
            assert_eq!(header.socket_id.destination_port, peer_port);
            assert!(!is_imds(&header.socket_id));
            assert!(cgroup_id(payload)?.is_some_and(|id| id > 0));
            *clients.entry(header.family).or_default() += 1;
            Ok(ControlFlow::Continue(()))
        });
        dumped.unwrap();
        assert_eq!(clients, HashMap::from([(AF_INET, 200), (AF_INET6, 400)]));
    }

    #[test]
    fn what_waits_is_told_by_its_traffic() {
        for (sent, received, bytes_received, waits) in [
            // Nothing was asked yet, or is not answered.
            (0, 0, 0, true),
            (5_000, 5_000, 0, true),
            (5_000, 8_000, 100, true),
            // An answer is arriving.
            (900, 0, 100, true),
            (900, 249, 100, true),
            // All of it has come.
            (900, 250, 100, false),
            (5_000, 5_000, 100, false),
        ] {
            let traffic = Traffic {
                sent,
                received,
                bytes_received,
            };
            assert_eq!(traffic.waits(QUIET), waits, "{traffic:?}");
        }
    }

    #[test]
    fn imds_is_known_in_every_family() {
        let to = |ip: IpAddr, port| SocketId {
            destination_address: ip,
            destination_port: port,
            ..SocketId::new_v6()
        };
        assert!(is_imds(&to(IMDS_V4.into(), 80)));
        assert!(is_imds(&to(IMDS_V6.into(), 80)));
        assert!(is_imds(&to(IMDS_V4.to_ipv6_mapped().into(), 80)));
        assert!(!is_imds(&to(IMDS_V4.into(), 8080)));
        assert!(!is_imds(&to(Ipv4Addr::LOCALHOST.into(), 80)));
    }

    #[test]
    fn asking_for_destroy_support_destroys_nothing() {
        let (client, server) = pair(Ipv4Addr::LOCALHOST);
        destroy_supported().unwrap();
        assert_both_ends_are_found((client, server));
    }
}
