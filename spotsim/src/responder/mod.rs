//! The HTTP half: takes what the kernel half sends here, answers the faked paths, and passes
//! everything else to the upstream as if we were not there. The only place that names hyper's
//! server.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    process::abort,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::panicking,
    time::{Duration, Instant},
};

use hyper::{
    Method, Request, Response,
    body::Incoming,
    header::{CONNECTION, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use log::{debug, warn};
use nix::sys::socket::{
    setsockopt,
    sockopt::{Linger, SndBuf},
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpSocket, TcpStream},
    time::sleep,
};

mod announce;
mod answer;
mod body;
mod clients;
mod exchange;
mod path;
mod spare;
mod synthetic;
mod token;
mod upstream;
mod wire;

pub use answer::Responder;
pub use clients::{Clients, Room};
pub use exchange::{Exchange, Outcome};
pub use synthetic::{Mode, Synthetic};
pub use upstream::{NoAnswer, Upstream};

use crate::{
    descriptors,
    netns::{Namespace, Owner},
};
use body::Body;
use spare::Spares;

/// Of a listener's connections so many may wait to be accepted. A crowd that connects at once must
/// not have to try again after a second, as the kernel would let it.
pub const BACKLOG: u32 = 4_096;

/// A connection that has not sent a whole request head by then is closed.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// The longest request head, in bytes, the empty line at its end included. It has no more than
/// 100 headers besides: hyper's default, and the only number for which it needs no heap.
const LONGEST_HEAD: usize = 64 * 1024;

/// So much of a request and of an answer is held on their way, in bytes, at each of the places
/// that hold some.
const MOST_HELD: usize = LONGEST_HEAD;

/// While a connection lasts, so often is it made sure that its client is still there.
const STILL_THERE: Duration = Duration::from_secs(1);

/// One of whom nothing is known is looked for again so often, after 1 ms, 2 ms, 4 ms and so on: for
/// a quarter of a second in all.
const LOOKS_AGAIN: u32 = 8;

/// For how long a request may go on after [`serve`] was told to end.
const LAST_REQUESTS: Duration = Duration::from_secs(1);

/// Connections that were redirected just before the programs were detached arrive within
/// this time, on a busy machine too.
const STRAGGLERS: Duration = Duration::from_millis(100);

/// One listener has at most so many connections, and fewer where descriptors are few.
const MOST_AT_ONE: usize = 2_048;

/// For the connections of all listeners: descriptors are the whole process's.
static ROOM: LazyLock<Room> = LazyLock::new(|| {
    let at_all = descriptors::connections();
    Room::new(at_all, (at_all / 2).clamp(16, MOST_AT_ONE))
});

/// A network namespace with clients in it.
pub struct Place {
    /// Requests that are passed on leave from here.
    pub namespace: Namespace,
    /// Sockets that were made there already.
    spares: Spares,
    /// Knows the clients.
    pub witness: Box<dyn Witness>,
}

impl Place {
    pub fn new(namespace: Namespace, witness: Box<dyn Witness>) -> Self {
        Self {
            namespace,
            spares: Spares::default(),
            witness,
        }
    }

    /// A socket that leaves from here, as this owner's.
    async fn socket(&self, owner: Owner, v6: bool) -> io::Result<TcpSocket> {
        let Self {
            namespace, spares, ..
        } = self;
        spares.socket(namespace, owner, v6).await
    }

    /// Closes what was made for requests that did not come. To be called now and then.
    pub fn rest(&self) {
        self.spares.rest();
    }
}

/// Knows who asks, and is told what for.
pub trait Witness: Send + Sync {
    /// Who connected to `listener`; `None` for one who was not sent here by the kernel half and
    /// has no business here.
    fn arrived(&self, listener: SocketAddr, client: SocketAddr) -> Option<Visitor>;

    /// Whether the client still waits for its answer.
    fn waits(&self, listener: SocketAddr, client: SocketAddr) -> bool;

    /// The client's request was answered, or will not be.
    fn answered(&self, visitor: Visitor, exchange: &Exchange<'_>);
}

/// A client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visitor {
    /// Tells its socket from every other: the socket's cookie.
    pub cookie: u64,
    /// Whose it is. What is asked of the upstream on its behalf is asked as this user.
    pub owner: Owner,
    /// Which target it belongs to, by the id of that one's cgroup. `None` where there are none.
    pub target: Option<u64>,
}

/// Ends the process if it is dropped by a panic: a listener that is gone must not have a hook that
/// leads to it, and the kernel detaches a process that ends.
struct Vital;

impl Drop for Vital {
    fn drop(&mut self) {
        if panicking() {
            abort();
        }
    }
}

/// Serves the clients of one listener until `end`; then those that are connected already, for
/// a moment longer. A panic over one client costs that one its connection; any other, which would
/// end the listener, ends the process.
pub async fn serve(
    listener: TcpListener,
    place: Arc<Place>,
    responder: Arc<Responder>,
    end: impl Future<Output = ()>,
) {
    let mut clients = Clients::of(&ROOM);
    let _vital = Vital;
    accept(&listener, &place, &responder, &mut clients, end).await;
    let stragglers = sleep(STRAGGLERS);
    accept(&listener, &place, &responder, &mut clients, stragglers).await;
    drop(listener);
    clients.finish(LAST_REQUESTS).await;
}

/// Accepts connections until `end`.
async fn accept(
    listener: &TcpListener,
    place: &Arc<Place>,
    responder: &Arc<Responder>,
    clients: &mut Clients,
    end: impl Future<Output = ()>,
) {
    let mut end = pin!(end);
    let mut failing = false;
    loop {
        let room = clients.room();
        let accepted = tokio::select! {
            () = &mut end => return,
            accepted = async { room.await; listener.accept().await } => accepted,
            () = clients.one_over() => continue,
        };
        let local =
            accepted.and_then(|(stream, client)| Ok((stream, client, listener.local_addr()?)));
        match local {
            Ok((stream, client, listener)) => {
                failing = false;
                let ends = Ends { listener, client };
                let admitted = catch_unwind(AssertUnwindSafe(|| {
                    admit(stream, ends, place, responder, clients);
                }));
                if admitted.is_err() {
                    warn!("a fault in spotsim: the connection from {client} is reset");
                }
            }
            Err(error) => {
                // Out of descriptors, most likely. It may go on, and is said once.
                if !failing {
                    warn!("cannot accept connections: {error}");
                }
                failing = true;
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug)]
struct Ends {
    listener: SocketAddr,
    client: SocketAddr,
}

/// Lets a client in that was sent here.
fn admit(
    stream: TcpStream,
    ends: Ends,
    place: &Arc<Place>,
    responder: &Arc<Responder>,
    clients: &mut Clients,
) {
    // Whatever ends a connection but an answer, its client is to see an error and not an empty
    // answer.
    if let Err(error) = stream.set_zero_linger() {
        return debug!("client gone before its request: {error}");
    }
    let visitor = place.witness.arrived(ends.listener, ends.client);
    let (place, responder) = (Arc::clone(place), Arc::clone(responder));
    clients.admit(async move |asked| {
        let visitor = match visitor {
            Some(visitor) => visitor,
            None => match late(&place, ends).await {
                Some(visitor) => visitor,
                None => return debug!("{} came by itself, and is reset", ends.client),
            },
        };
        let conversation = Conversation {
            ends,
            visitor,
            place: &place,
            responder: &responder,
            asked: &asked,
        };
        conversation.hold(stream).await;
    });
}

/// One who seemed to have come by himself. What the kernel half says of him can come after him: the
/// kernel hands its reports over in their order, and the one before may be by a processor that was
/// stopped in the middle of it.
async fn late(place: &Place, Ends { listener, client }: Ends) -> Option<Visitor> {
    for look in 0..LOOKS_AGAIN {
        sleep(Duration::from_millis(1 << look)).await;
        let visitor = place.witness.arrived(listener, client);
        if visitor.is_some() {
            return visitor;
        }
    }
    None
}

/// One connection, which has one request.
#[derive(Clone, Copy)]
struct Conversation<'a> {
    ends: Ends,
    visitor: Visitor,
    place: &'a Place,
    responder: &'a Responder,
    asked: &'a AtomicBool,
}

impl Conversation<'_> {
    /// Answers the request and closes the connection.
    async fn hold(self, stream: TcpStream) {
        // Our answers are short; none should wait for a full segment.
        if let Err(error) = stream.set_nodelay(true) {
            return debug!("client gone before its request: {error}");
        }
        // What a client does not read stays with the upstream. By itself the kernel would take
        // megabytes of it, and keep them when this connection is long over.
        let _ = setsockopt(&stream, SndBuf, &MOST_HELD);
        // Boxed, because the connection must be taken apart again at its end.
        let service = service_fn(|request| Box::pin(self.attend(request)));
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_header_size(LONGEST_HEAD)
            .max_buf_size(MOST_HELD)
            .keep_alive(false)
            // A client may send its last word (`nc -N`) and wait for the answer.
            .half_close(true)
            .auto_date_header(false)
            .preserve_header_case(true)
            .title_case_headers(true)
            .serve_connection(TokioIo::new(stream), service);
        let outcome = tokio::select! {
            outcome = poll_fn(|cx| connection.poll_without_shutdown(cx)) => outcome,
            () = self.gone() => return,
        };
        let mut stream = connection.into_parts().io.into_inner();
        if let Err(error) = outcome {
            debug!("connection from {}: {error}", self.ends.client);
            // hyper itself answers a head that it cannot take.
            let answered = error.is_parse() || self.asked.load(Ordering::Relaxed);
            if error.is_user() || !answered {
                return;
            }
        }
        // A client that is gone needs no farewell.
        let linger = libc::linger {
            l_onoff: 0,
            l_linger: 0,
        };
        let _ = setsockopt(&stream, Linger, &linger);
        let _ = stream.shutdown().await;
    }

    /// Returns when the client has gone. The connection does not tell: its end looks the same as
    /// that of a client that sent its last word.
    async fn gone(self) {
        let Ends { listener, client } = self.ends;
        loop {
            sleep(STILL_THERE).await;
            if !self.place.witness.waits(listener, client) {
                return;
            }
        }
    }

    /// Answers a request and tells the witness.
    async fn attend(self, request: Request<Incoming>) -> Result<Response<Body>, NoAnswer> {
        let Self {
            ends: Ends { listener, .. },
            visitor,
            place,
            responder,
            asked,
        } = self;
        asked.store(true, Ordering::Relaxed);
        let mut pending = Pending::new(&request, visitor, place);
        let answer = responder.answer(request, listener, visitor, place).await;
        pending.tell(match &answer {
            Ok((_, true)) => Outcome::Faked,
            Ok((answer, false)) => Outcome::Passed(answer.status()),
            Err(reason) => Outcome::NoAnswer(reason),
        });
        let (mut answer, _) = answer?;
        // As the real service does: then each poll is a new connection, and to attach and to
        // detach take effect at the next request.
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(CONNECTION, close);
        Ok(answer)
    }
}

/// A request of which the witness has not been told. It is told in any case, even if the
/// connection breaks off.
struct Pending<'a> {
    visitor: Visitor,
    place: &'a Place,
    method: Method,
    path: String,
    began: Instant,
    told: bool,
}

impl<'a> Pending<'a> {
    fn new(request: &Request<Incoming>, visitor: Visitor, place: &'a Place) -> Self {
        Self {
            visitor,
            place,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            began: Instant::now(),
            told: false,
        }
    }

    fn tell(&mut self, outcome: Outcome<'_>) {
        let Self {
            visitor,
            place,
            method,
            path,
            began,
            told,
        } = self;
        let exchange = Exchange {
            method,
            path,
            outcome,
            elapsed: began.elapsed(),
        };
        place.witness.answered(*visitor, &exchange);
        *told = true;
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.told {
            self.tell(Outcome::NoAnswer(&NoAnswer::Abandoned));
        }
    }
}
