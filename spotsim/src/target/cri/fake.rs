//! A container runtime for tests: HTTP/2 on a unix socket, which answers as it is told.

use std::{
    convert::Infallible,
    fs,
    path::{Path, PathBuf},
    pin::Pin,
    process,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Request, Response,
    body::{Body, Bytes, Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{
    io::AsyncWriteExt as _,
    net::{UnixListener, UnixStream},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::{JoinHandle, JoinSet},
};

use super::message::StatusRequest;

/// What it answers to a path and the message that came.
type Answer = dyn Fn(&str, &[u8]) -> Reply + Send + Sync;

/// An answer, which can go on after it has begun.
pub struct Reply {
    first: Option<Frame<Bytes>>,
    rest: UnboundedReceiver<Frame<Bytes>>,
    /// Whoever could tell more, but does not.
    _open: Option<Teller>,
}

/// Tells what is in a [`Reply::stream`].
pub struct Teller(UnboundedSender<Frame<Bytes>>);

/// A directory that is removed again, with a socket in it.
pub struct Place {
    directory: PathBuf,
    pub socket: PathBuf,
}

/// It runs until this is dropped; then its connections break.
pub struct Fake {
    task: JoinHandle<()>,
    connections: Arc<AtomicU32>,
}

impl Place {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("spotsim-cri-{}-{next}", process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        Self {
            socket: directory.join("runtime.sock"),
            directory,
        }
    }

    /// A socket somewhere beneath this directory.
    pub fn beneath(&self, path: &str) -> Self {
        let socket = self.directory.join(path);
        let directory = socket.parent().unwrap().to_owned();
        fs::create_dir_all(&directory).unwrap();
        Self { directory, socket }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn given(&self) -> &str {
        self.socket.to_str().unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Reply {
    pub fn message(message: &impl Message) -> Self {
        let (teller, reply) = Self::stream();
        teller.tell(message);
        teller.end(0, "");
        reply
    }

    pub fn status(code: u32, message: &str) -> Self {
        let (teller, reply) = Self::stream();
        teller.end(code, message);
        reply
    }

    /// None, ever.
    pub fn never() -> Self {
        let (teller, reply) = Self::stream();
        Self {
            _open: Some(teller),
            ..reply
        }
    }

    /// One that has not ended yet; nothing is sent before the teller tells something.
    pub fn stream() -> (Teller, Self) {
        let (teller, frames) = unbounded_channel();
        let reply = Self {
            first: None,
            rest: frames,
            _open: None,
        };
        (Teller(teller), reply)
    }
}

impl Teller {
    pub fn tell(&self, message: &impl Message) {
        let _ = self.0.send(Frame::data(framed(message).into()));
    }

    /// Tells the first half of a message.
    pub fn half(&self, message: &impl Message) {
        let mut framed = framed(message);
        framed.truncate(framed.len() / 2);
        let _ = self.0.send(Frame::data(framed.into()));
    }

    pub fn end(&self, code: u32, message: &str) {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", code.into());
        // What is no letter of a header is sent as %XX.
        let message = message.replace('\n', "%0A");
        trailers.insert("grpc-message", message.parse().unwrap());
        let _ = self.0.send(Frame::trailers(trailers));
    }
}

/// A message as gRPC sends it: not compressed, and its length before it.
fn framed(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap();
    [&[0], &length.to_be_bytes()[..], &message].concat()
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Self { first, rest, .. } = self.get_mut();
        match first.take() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => rest.poll_recv(context).map(|frame| frame.map(Ok)),
        }
    }
}

impl Fake {
    /// One that speaks gRPC.
    pub fn start(
        place: &Place,
        answer: impl Fn(&str, &[u8]) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let answer: Arc<Answer> = Arc::new(answer);
        Self::accept(place, move |stream| {
            let answer = answer.clone();
            let service = service_fn(move |request| respond(answer.clone(), request));
            let connection = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            async move {
                let _ = connection.await;
            }
        })
    }

    /// One with a web page instead, of this status.
    pub fn page(place: &Place, status: u16) -> Self {
        Self::accept(place, move |stream| {
            let service = service_fn(move |_| async move {
                let page = Full::new(Bytes::from_static(b"<html>no runtime</html>"));
                let response = Response::builder().status(status);
                Ok::<_, Infallible>(
                    response
                        .header("content-type", "text/html")
                        .body(page)
                        .unwrap(),
                )
            });
            let connection = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            async move {
                let _ = connection.await;
            }
        })
    }

    /// One that says the same bytes to everybody, then closes the connection or not.
    pub fn saying(place: &Place, bytes: &'static [u8], closes: bool) -> Self {
        Self::accept(place, move |mut stream| async move {
            let _ = stream.write_all(bytes).await;
            if !closes {
                std::future::pending::<()>().await;
            }
        })
    }

    fn accept<F>(place: &Place, serve: impl Fn(UnixStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let _ = fs::remove_file(&place.socket);
        let listener = UnixListener::bind(&place.socket).unwrap();
        let connections = Arc::new(AtomicU32::new(0));
        let counted = connections.clone();
        let task = tokio::spawn(async move {
            // Aborted with this task.
            let mut served = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                served.spawn(serve(stream));
            }
        });
        Self { task, connections }
    }

    /// Returns when nobody listens any more.
    pub async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    /// Of which sandbox or container the status is asked.
    pub fn id(question: &[u8]) -> String {
        StatusRequest::decode(question).unwrap().id
    }

    /// How many there were.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn respond(
    answer: Arc<Answer>,
    request: Request<Incoming>,
) -> Result<Response<Reply>, hyper::Error> {
    assert_eq!(request.uri().authority().unwrap(), "localhost");
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    // Before the message stand whether it is compressed and its length.
    let reply = answer(&path, body.get(5..).unwrap_or_default());
    Ok(begin(reply).await)
}

/// Like a server in Go, sends the headers with the first message. An error comes as headers alone.
async fn begin(mut reply: Reply) -> Response<Reply> {
    let first = reply.rest.recv().await;
    let mut response = Response::builder().header("content-type", "application/grpc");
    match first.map(Frame::into_trailers) {
        Some(Ok(trailers)) => response.headers_mut().unwrap().extend(trailers),
        Some(Err(data)) => reply.first = Some(data),
        None => {}
    }
    response.body(reply).unwrap()
}
