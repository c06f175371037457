//! The IMDS behind us, for all that is not faked.

use std::{
    fmt,
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::{
    Request, Response, Uri,
    body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use log::debug;
use spotsim_common::{IMDS_PORT, IMDS_V4, IMDS_V6};
use tokio::{net::TcpStream, time::sleep};

use super::{MOST_HELD, Place, body::Body, synthetic::Synthetic, wire};
use crate::{
    instance::{Identity, Instance},
    netns::{Namespace, Owner},
};

/// Between two tries to get a socket, when spotsim is short of what it takes.
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// Where requests go that are not answered with a fake.
#[derive(Clone)]
pub enum Upstream {
    /// The real IMDS, over the family by which the client came.
    Real,
    /// Another server that plays IMDS.
    Server(SocketAddr),
    /// Ourselves: a small instance that exists nowhere.
    Synthetic(Arc<Synthetic>),
    /// Nobody: 404 for everything.
    Nothing,
}

/// Why a client gets no answer. Its connection is reset: without spotsim it would not have
/// been made.
#[derive(Debug)]
pub enum NoAnswer {
    /// No connection to the upstream.
    Unreachable(io::Error),
    /// The upstream's answer was not HTTP, or broke off.
    Broken(hyper::Error),
    /// The upstream's answer broke off, or was too long to be combined with what is announced.
    Unfit(Box<dyn std::error::Error + Send + Sync>),
    /// The client did not wait for it, or spotsim ended.
    Abandoned,
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => write!(f, "the upstream cannot be reached: {error}"),
            Self::Broken(error) => write!(f, "the upstream's answer: {error}"),
            Self::Unfit(error) => write!(f, "the upstream's answer cannot be used: {error}"),
            Self::Abandoned => f.write_str("it was given up before"),
        }
    }
}

impl std::error::Error for NoAnswer {}

/// Whence a request came, and whence it goes on.
#[derive(Clone, Copy)]
pub struct Origin<'a> {
    pub place: &'a Place,
    /// Whose client asked.
    pub owner: Owner,
    /// The address at which it was taken for IMDS.
    pub listener: IpAddr,
}

impl Upstream {
    /// Reads `http://HOST[:PORT]`. A name is looked up now, here; the address is dialled later
    /// from inside each workload's namespace.
    pub fn parse_url(url: &str) -> Result<Self, String> {
        let bad = |why: String| format!("{why}; use http://HOST[:PORT]");
        let uri: Uri = url.parse().map_err(|error| bad(format!("{error}")))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some(other) => return Err(bad(format!("IMDS is plain http, not {other}"))),
            None => return Err(bad("not a URL".to_owned())),
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err(bad(format!("{} cannot be kept", uri.path())));
        }
        let authority = uri.authority().filter(|a| !a.as_str().contains('@'));
        let authority = authority.ok_or_else(|| bad("a user cannot be given".to_owned()))?;
        let host = authority.host().trim_matches(['[', ']']);
        let port = match authority.port() {
            None if authority.as_str().ends_with(':') => return Err(bad("no port".to_owned())),
            None if authority.as_str() != authority.host() => {
                return Err(bad("not a port".to_owned()));
            }
            None => IMDS_PORT,
            Some(port) => port.as_u16(),
        };
        let address = (host, port)
            .to_socket_addrs()
            .map_err(|error| format!("cannot look up {host}: {error}"))?
            .next();
        address
            .map(Self::Server)
            .ok_or_else(|| format!("{host} has no address"))
    }

    /// Where it is, if it is a server; the real one over IPv4.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Real => Some((IMDS_V4, IMDS_PORT).into()),
            Self::Server(address) => Some(*address),
            Self::Synthetic(_) | Self::Nothing => None,
        }
    }

    /// Which instance it describes, as seen from a namespace, or from spotsim's own. Where there
    /// is no IMDS at all, it is one that is made up.
    pub async fn identity(&self, from: Option<&Namespace>) -> anyhow::Result<Identity> {
        let now = Timestamp::now();
        match self {
            Self::Synthetic(synthetic) => Identity::of(synthetic.instance(), now),
            Self::Nothing => Identity::of(&Instance::synthetic(now), now),
            Self::Server(address) => Identity::ask(*address, from).await,
            Self::Real => Identity::ask((IMDS_V4, IMDS_PORT).into(), from).await,
        }
    }

    /// Whether it may have credentials for whoever can reach it, as IMDS and the services beside
    /// it do: at a link-local address, or in the range that AWS has for them in IPv6.
    pub fn is_trusting(&self) -> bool {
        self.address()
            .is_some_and(|address| match address.ip().to_canonical() {
                IpAddr::V4(ip) => ip.is_link_local(),
                IpAddr::V6(ip) => {
                    ip.segments()[..2] == IMDS_V6.segments()[..2] || ip.is_unicast_link_local()
                }
            })
    }

    /// Answers a request as IMDS would without us.
    pub async fn answer(
        &self,
        from: Origin<'_>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, NoAnswer> {
        match self {
            Self::Synthetic(synthetic) => Ok(synthetic.answer(&request).map(Body::from)),
            Self::Nothing => Ok(wire::not_found(None).map(Body::from)),
            Self::Server(address) => forward(from, *address, request).await,
            Self::Real => {
                let imds = match from.listener {
                    IpAddr::V4(_) => IpAddr::V4(IMDS_V4),
                    IpAddr::V6(_) => IpAddr::V6(IMDS_V6),
                };
                forward(from, (imds, IMDS_PORT).into(), request).await
            }
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Real => f.write_str("real"),
            Self::Server(address) => write!(f, "http://{address}"),
            Self::Synthetic(_) => f.write_str("synthetic"),
            Self::Nothing => f.write_str("none"),
        }
    }
}

/// Sends a request on as it came, over a connection of its own out of the caller's namespace,
/// so that whatever keeps the caller from its IMDS (hop limit, routes, policies, rules for its
/// user) keeps us.
///
/// There is no limit of time: it ends when the client gives up. Nor does it fail because spotsim
/// is short of descriptors or memory for a moment: without us, the client would need none of ours.
async fn forward(
    from: Origin<'_>,
    upstream: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, NoAnswer> {
    let Origin { place, owner, .. } = from;
    let connect = async {
        let socket = loop {
            match place.socket(owner, upstream.is_ipv6()).await {
                Err(error) if is_shortage(&error) => sleep(TRY_AGAIN).await,
                outcome => break outcome?,
            }
        };
        let stream = socket.connect(upstream).await?;
        stream.set_nodelay(true)?;
        io::Result::Ok(stream)
    };
    let stream = connect.await.map_err(NoAnswer::Unreachable)?;
    let (mut sender, connection) = http1::Builder::new()
        .preserve_header_case(true)
        .max_buf_size(MOST_HELD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(NoAnswer::Broken)?;
    let mut link = Link(Some(Box::pin(connection)));
    let mut answer = pin!(sender.send_request(request));
    let answer = poll_fn(|cx| {
        link.drive(cx);
        answer.as_mut().poll(cx)
    });
    let answer = answer.await.map_err(NoAnswer::Broken)?;
    Ok(answer.map(|body| Body::from(Passed { body, link })))
}

/// A connection to the upstream, until it is over. It goes on while it is driven: by whoever waits
/// for the answer, and then by the answer's body. So a request is one task from its beginning to
/// its end, and the connection ends with it.
struct Link(Option<Pin<Box<Connection>>>);

type Connection = http1::Connection<TokioIo<TcpStream>, Incoming>;

impl Link {
    fn drive(&mut self, cx: &mut Context<'_>) {
        let Self(connection) = self;
        if let Some(going) = connection
            && let Poll::Ready(outcome) = going.as_mut().poll(cx)
        {
            *connection = None;
            if let Err(error) = outcome {
                debug!("connection to the upstream: {error}");
            }
        }
    }
}

/// The body of the upstream's answer, as it comes.
pub struct Passed {
    body: Incoming,
    link: Link,
}

impl HttpBody for Passed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Self { body, link } = self.get_mut();
        link.drive(cx);
        Pin::new(body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whether an error of making a thread or a socket is one that passes.
fn is_shortage(error: &io::Error) -> bool {
    const SHORTAGES: [i32; 5] = [
        libc::EAGAIN,
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOBUFS,
        libc::ENOMEM,
    ];
    error
        .raw_os_error()
        .is_some_and(|errno| SHORTAGES.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Result<String, String> {
        Upstream::parse_url(url).map(|upstream| upstream.to_string())
    }

    #[test]
    fn an_http_url_names_a_server() {
        for (url, expected) in [
            ("http://127.0.0.1:1338", "http://127.0.0.1:1338"),
            ("http://10.0.0.5/", "http://10.0.0.5:80"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://[fd00:ec2::254]", "http://[fd00:ec2::254]:80"),
        ] {
            assert_eq!(parsed(url).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn services_of_the_link_trust_who_reaches_them() {
        for (url, trusting) in [
            ("http://169.254.169.254", true),
            ("http://169.254.170.2:80", true),
            ("http://[::ffff:169.254.170.23]", true),
            ("http://[fd00:ec2::23]", true),
            ("http://127.0.0.1:1338", false),
            ("http://10.0.0.5", false),
        ] {
            assert_eq!(Upstream::parse_url(url).unwrap().is_trusting(), trusting);
        }
        assert!(Upstream::Real.is_trusting());
        assert!(!Upstream::Nothing.is_trusting());
    }

    #[test]
    fn what_could_not_be_honoured_is_refused() {
        for (url, reason) in [
            ("https://127.0.0.1", "plain http, not https"),
            ("ftp://127.0.0.1", "plain http, not ftp"),
            ("127.0.0.1:1338", "use http://"),
            ("synthetisch", "not a URL"),
            ("http://127.0.0.1/latest", "/latest cannot be kept"),
            ("http://127.0.0.1/?a=b", "cannot be kept"),
            ("http://user:secret@127.0.0.1", "a user cannot be given"),
            ("http://127.0.0.1:99999", "not a port"),
            ("http://", "use http://"),
        ] {
            let error = parsed(url).unwrap_err();
            assert!(error.contains(reason), "{url}: {error}");
        }
    }
}
