//! The container runtime of this node, asked for its pods.
//!
//! Runtimes speak CRI v1, which is gRPC, over a unix socket: containerd since 1.6, CRI-O since
//! 1.20, cri-dockerd. Only what reads is asked for. Nothing here needs the API server, and
//! nothing changes the runtime.

mod endpoint;
mod error;
mod events;
#[cfg(test)]
pub(super) mod fake;
mod greeting;
pub(super) mod message;
mod pod;
mod verbose;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hyper::{Uri, http::uri::PathAndQuery};
use prost::Message;
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};
use tonic::{
    Code, Request, Status, Streaming,
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

pub use error::RuntimeError;
pub use events::Events;
pub use pod::{Container, ContainerDetail, ContainerState, Network, Pod, Sandbox};

use error::{Unanswered, brief};
use message::{
    ContainerStatusResponse, Empty, ListContainersResponse, ListPodSandboxResponse,
    PodSandboxStatusResponse, StatusRequest, VersionRequest, VersionResponse, path,
};

/// The longest answer, in bytes: what the kubelet takes, and what containerd and CRI-O send at
/// most unless they are told otherwise.
const LONGEST_ANSWER: usize = 16 * 1024 * 1024;

const LIMITS: Limits = Limits {
    first: Duration::from_secs(5),
    call: Duration::from_secs(10),
    status: Duration::from_secs(1),
};

/// A runtime with many sandboxes is asked of so many at once.
const MOST_AT_ONCE: usize = 32;

/// Of one who answers, but not in v1.
const ALPHA: &str =
    "this runtime has v1alpha2 only (containerd has v1 since 1.6, CRI-O since 1.20)";

/// One who does not answer by then hangs.
#[derive(Clone, Copy)]
struct Limits {
    /// The first question, which takes no work. Each known socket is waited for so long.
    first: Duration,
    /// Any other. A list of hundreds of pods takes a busy runtime a second.
    call: Duration,
    /// What is known of one sandbox or container. containerd asks its shim, which may hang.
    status: Duration,
}

/// The container runtime of this node.
///
/// It survives the runtime: while that is down, calls fail with [`RuntimeError::Unavailable`],
/// and once it is up again they succeed, over a new connection. Clones share one.
#[derive(Clone)]
pub struct Runtime {
    channel: Channel,
    limits: Limits,
    shared: Arc<Shared>,
}

struct Shared {
    socket: PathBuf,
    /// As it calls itself.
    runtime_name: String,
    /// What it is, which version, and where.
    name: String,
    /// Questions that may be asked about one sandbox or container.
    statuses: Semaphore,
}

impl Runtime {
    /// Connects to the runtime, which must answer in CRI v1. Must be called in a tokio runtime.
    ///
    /// `given` is `unix:///PATH` or a path, taken as it is. Without one, the known sockets
    /// beneath `host_root` are tried in their order, and the first that answers is taken: a
    /// containerd that Docker brought along has its CRI switched off.
    ///
    /// # Errors
    ///
    /// Any; one that does not answer within 5 s is [`RuntimeError::Unavailable`].
    pub async fn connect(given: Option<&str>, host_root: &Path) -> Result<Self, RuntimeError> {
        if let Some(given) = given {
            return Self::at(endpoint::socket(given)?, LIMITS).await;
        }
        let mut tried = Vec::new();
        for socket in endpoint::known(host_root) {
            match Self::at(socket, LIMITS).await {
                Ok(runtime) => return Ok(runtime),
                Err(error) => tried.push(error),
            }
        }
        Err(RuntimeError::NoneFound(tried))
    }

    async fn at(socket: PathBuf, limits: Limits) -> Result<Self, RuntimeError> {
        let channel = channel(&socket)?;
        match version(&channel, path::VERSION, limits).await {
            Ok(version) => Ok(Self {
                channel,
                limits,
                shared: Arc::new(Shared::new(socket, &version)),
            }),
            Err(unanswered) => Err(refusal(&channel, socket, unanswered, limits).await),
        }
    }

    /// What it is, which version, and where: `containerd 1.6.20 at /run/containerd/containerd.sock`.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The sandboxes of all pods, also those that are not ready; a pod can have several.
    pub async fn pods(&self) -> Result<Vec<Pod>, RuntimeError> {
        let list: ListPodSandboxResponse = self.ask(path::PODS, Empty {}).await?;
        Ok(list.items.into_iter().filter_map(Pod::of).collect())
    }

    /// All containers, also those that ended.
    pub async fn containers(&self) -> Result<Vec<Container>, RuntimeError> {
        let list: ListContainersResponse = self.ask(path::CONTAINERS, Empty {}).await?;
        Ok(list.containers.into_iter().map(Container::of).collect())
    }

    /// The sandbox of this ID; `None` if it is gone. containerd asks the sandbox's shim, for a
    /// millisecond or two; several can be asked for at once.
    ///
    /// # Errors
    ///
    /// One of which nothing is told within a second is [`RuntimeError::Silent`].
    pub async fn sandbox(&self, id: &str) -> Result<Option<Sandbox>, RuntimeError> {
        let status: Option<PodSandboxStatusResponse> = self.status(path::POD, id).await?;
        Ok(status.and_then(Sandbox::of))
    }

    /// The container of this ID; `None` if it is gone. Otherwise like [`Runtime::sandbox`].
    pub async fn container(&self, id: &str) -> Result<Option<ContainerDetail>, RuntimeError> {
        let status: Option<ContainerStatusResponse> = self.status(path::CONTAINER, id).await?;
        Ok(status.and_then(ContainerDetail::of))
    }

    /// What happens from now on. Asks when the first is waited for.
    pub fn events(&self) -> Events {
        Events::new(self.clone())
    }

    async fn status<A>(&self, at: &'static str, id: &str) -> Result<Option<A>, RuntimeError>
    where
        A: Message + Default + 'static,
    {
        let question = StatusRequest {
            id: id.to_owned(),
            verbose: true,
        };
        let Shared {
            socket, statuses, ..
        } = &*self.shared;
        // It is never closed.
        let _turn = statuses.acquire().await;
        let answer = unary(self.channel.clone(), at, question, self.limits.status);
        match answer.await {
            Err(Unanswered::Status(status)) if status.code() == Code::NotFound => Ok(None),
            Err(unanswered) => Err(RuntimeError::of_one(socket, at, unanswered)),
            Ok(answer) => Ok(Some(answer)),
        }
    }

    async fn ask<Q, A>(&self, at: &'static str, question: Q) -> Result<A, RuntimeError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let answer = unary(self.channel.clone(), at, question, self.limits.call).await;
        answer.map_err(|unanswered| RuntimeError::of(&self.shared.socket, at, unanswered))
    }

    async fn stream<Q, A>(&self, at: &'static str, question: Q) -> Result<Streaming<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut client = client(self.channel.clone()).await?;
        let answer = client.server_streaming(
            Request::new(question),
            PathAndQuery::from_static(at),
            ProstCodec::default(),
        );
        Ok(answer.await?.into_inner())
    }
}

impl Shared {
    fn new(socket: PathBuf, version: &VersionResponse) -> Self {
        let VersionResponse {
            runtime_name,
            runtime_version,
            ..
        } = version;
        let name = format!(
            "{} {} at {}",
            brief(runtime_name),
            brief(runtime_version),
            crate::document::shown(&socket)
        );
        Self {
            socket,
            runtime_name: runtime_name.clone(),
            name,
            statuses: Semaphore::new(MOST_AT_ONCE),
        }
    }
}

/// Asks all of these at once, and returns the answers in their order.
pub async fn at_once<A: Send + 'static>(
    questions: impl IntoIterator<Item = impl Future<Output = A> + Send + 'static>,
) -> Vec<A> {
    let mut asked = JoinSet::new();
    for (turn, question) in questions.into_iter().enumerate() {
        asked.spawn(async move { (turn, question.await) });
    }
    let mut answers = asked.join_all().await;
    answers.sort_unstable_by_key(|(turn, _)| *turn);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// Connects when it is first used, and again after the connection broke.
fn channel(socket: &Path) -> Result<Channel, RuntimeError> {
    let refused = |why| RuntimeError::Endpoint {
        given: socket.display().to_string(),
        why,
    };
    let path = socket.to_str().ok_or_else(|| refused("it is not UTF-8"))?;
    let endpoint = Endpoint::from_shared(format!("unix://{path}"));
    let endpoint = endpoint.map_err(|_| refused("it is not a path"))?;
    // The name of a host is required. Servers in Go refuse one that could not be.
    Ok(endpoint
        .origin(Uri::from_static("http://localhost"))
        .connect_lazy())
}

async fn version(
    channel: &Channel,
    at: &'static str,
    limits: Limits,
) -> Result<VersionResponse, Unanswered> {
    let version = "v1".to_owned();
    unary(
        channel.clone(),
        at,
        VersionRequest { version },
        limits.first,
    )
    .await
}

/// Why the first question has no answer.
async fn refusal(
    channel: &Channel,
    socket: PathBuf,
    unanswered: Unanswered,
    limits: Limits,
) -> RuntimeError {
    let words = match unanswered {
        // Who said nothing so far is not waited for once more.
        Unanswered::Late(_) => None,
        Unanswered::Status(_) => greeting::other_than_http2(&socket, limits.first).await,
    };
    let error = RuntimeError::of_first(&socket, path::VERSION, unanswered, words);
    let before = version(channel, path::VERSION_ALPHA, limits);
    match error {
        RuntimeError::NotCri { .. } if before.await.is_ok() => RuntimeError::NotCri {
            socket,
            why: ALPHA.to_owned(),
        },
        error => error,
    }
}

async fn unary<Q, A>(
    channel: Channel,
    at: &'static str,
    question: Q,
    within: Duration,
) -> Result<A, Unanswered>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    // From connecting to the last byte.
    let answer = timeout(within, async {
        let mut client = client(channel).await?;
        let at = PathAndQuery::from_static(at);
        let answer = client.unary(Request::new(question), at, ProstCodec::default());
        Ok(answer.await?.into_inner())
    });
    match answer.await {
        Ok(answer) => answer.map_err(Unanswered::Status),
        Err(_) => Err(Unanswered::Late(within)),
    }
}

async fn client(channel: Channel) -> Result<Grpc<Channel>, Status> {
    let mut client = Grpc::new(channel).max_decoding_message_size(LONGEST_ANSWER);
    let ready = client.ready().await;
    ready.map_err(|error| Status::from_error(error.into()))?;
    Ok(client)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use nix::unistd::{Uid, setfsuid};

    use super::{
        fake::{Fake, Place, Reply},
        message::{ListPodSandboxResponse, PodSandbox, PodSandboxMetadata},
        *,
    };

    /// For one that answers nothing but the first question, or not even that.
    const QUICK: Limits = Limits {
        first: Duration::from_millis(300),
        call: Duration::from_millis(300),
        status: Duration::from_millis(300),
    };

    const UNIMPLEMENTED: u32 = 12;

    fn version(name: &str, version: &str) -> Reply {
        Reply::message(&VersionResponse {
            runtime_name: name.to_owned(),
            runtime_version: version.to_owned(),
            runtime_api_version: "v1".to_owned(),
        })
    }

    fn named(id: &str) -> PodSandbox {
        PodSandbox {
            id: id.to_owned(),
            metadata: Some(PodSandboxMetadata {
                name: "web".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// A runtime with these pods.
    fn of_pods(place: &Place, items: Vec<PodSandbox>) -> Fake {
        let pods = ListPodSandboxResponse { items };
        Fake::start(place, move |at, _| match at {
            path::VERSION => version("containerd", "1.6.20"),
            path::PODS => Reply::message(&pods),
            _ => Reply::status(UNIMPLEMENTED, "unknown method"),
        })
    }

    async fn refused(place: &Place) -> RuntimeError {
        refused_within(place, LIMITS).await
    }

    async fn refused_within(place: &Place, limits: Limits) -> RuntimeError {
        let Err(error) = Runtime::at(place.socket.clone(), limits).await else {
            panic!("that is a runtime");
        };
        let text = error.to_string();
        assert!(!text.contains('\n') && text.len() < 700, "{text}");
        error
    }

    #[tokio::test]
    async fn it_says_what_it_is_and_which_pods_it_has() {
        let place = Place::new();
        let _fake = of_pods(&place, vec![named("a"), named("b")]);
        let runtime = Runtime::connect(Some(place.given()), Path::new("/"));
        let runtime = runtime.await.unwrap();
        let name = format!("containerd 1.6.20 at {}", place.given());
        assert_eq!(runtime.name(), name);
        let pods = runtime.pods().await.unwrap();
        assert_eq!(
            pods.iter().map(|pod| &*pod.id).collect::<Vec<_>>(),
            ["a", "b"]
        );
    }

    #[tokio::test]
    async fn a_list_longer_than_grpc_takes_by_default() {
        let place = Place::new();
        let mut pod = named("a");
        pod.labels
            .insert("long".to_owned(), "x".repeat(5 * 1024 * 1024));
        let _fake = of_pods(&place, vec![pod.clone(), pod]);
        let runtime = Runtime::at(place.socket.clone(), LIMITS).await.unwrap();
        assert_eq!(runtime.pods().await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn an_answer_that_is_too_long_fails() {
        let place = Place::new();
        let mut pod = named("a");
        pod.labels
            .insert("long".to_owned(), "x".repeat(LONGEST_ANSWER));
        let _fake = of_pods(&place, vec![pod]);
        let runtime = Runtime::at(place.socket.clone(), LIMITS).await.unwrap();
        let error = runtime.pods().await.unwrap_err();
        assert!(matches!(error, RuntimeError::Failed { .. }), "{error}");
        assert!(error.to_string().contains("ListPodSandbox"), "{error}");
    }

    #[tokio::test]
    async fn no_socket() {
        let place = Place::new();
        let error = refused(&place).await;
        assert!(matches!(error, RuntimeError::Absent { .. }), "{error:?}");
        let expected = format!(
            "no container runtime answers at {}: there is no such socket",
            place.given()
        );
        assert_eq!(error.to_string(), expected);
    }

    #[tokio::test]
    async fn a_socket_that_nobody_listens_on() {
        let place = Place::new();
        Fake::saying(&place, b"", false).stop().await;
        assert!(place.socket.exists());
        let error = refused(&place).await;
        assert!(
            matches!(error, RuntimeError::Unavailable { .. }),
            "{error:?}"
        );
        assert!(
            error.to_string().ends_with("nobody listens there"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn one_who_speaks_something_else() {
        for bytes in [
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".as_slice(),
            b"SSH-2.0-OpenSSH_9.2\r\n",
            &[0; 64],
            &[0xff; 64],
        ] {
            for closes in [false, true] {
                let place = Place::new();
                let _fake = Fake::saying(&place, bytes, closes);
                let error = refused(&place).await;
                assert!(matches!(error, RuntimeError::NotCri { .. }), "{error:?}");
                assert!(
                    error.to_string().contains("it does not speak gRPC"),
                    "{error}"
                );
            }
        }
    }

    #[tokio::test]
    async fn one_who_speaks_http2_and_not_cri() {
        let version = |_: &str, _: &[u8]| Reply::status(UNIMPLEMENTED, "unknown service x\ny");
        let place = Place::new();
        let _fake = Fake::start(&place, version);
        let error = refused(&place).await;
        let expected = format!(
            "no CRI v1 is spoken at {}: unknown service x\\ny",
            place.given()
        );
        assert_eq!(error.to_string(), expected);

        let place = Place::new();
        let _fake = Fake::page(&place, 404);
        let error = refused(&place).await;
        assert!(matches!(error, RuntimeError::NotCri { .. }), "{error:?}");
        let place = Place::new();
        let _fake = Fake::page(&place, 200);
        let error = refused(&place).await;
        assert!(matches!(error, RuntimeError::NotCri { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_runtime_of_the_version_before() {
        let place = Place::new();
        let _fake = Fake::start(&place, |at, _| match at {
            path::VERSION_ALPHA => version("containerd", "1.5.9"),
            _ => Reply::status(UNIMPLEMENTED, "unknown service runtime.v1.RuntimeService"),
        });
        let error = refused(&place).await;
        assert!(matches!(error, RuntimeError::NotCri { .. }), "{error:?}");
        assert!(error.to_string().contains("has v1alpha2 only"), "{error}");
    }

    #[tokio::test]
    async fn a_runtime_that_cannot_tell_its_version() {
        let place = Place::new();
        let _fake = Fake::start(&place, |_, _| {
            Reply::status(2, "is the docker daemon running?")
        });
        let error = refused(&place).await;
        assert!(matches!(error, RuntimeError::Failed { .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.ends_with("failed in Version: is the docker daemon running?"),
            "{text}"
        );
        // containerd while it starts.
        let _fake = Fake::start(&place, |_, _| {
            Reply::status(14, "server is not initialized yet")
        });
        let error = refused(&place).await;
        assert!(
            matches!(error, RuntimeError::Unavailable { .. }),
            "{error:?}"
        );
        assert!(
            error.to_string().ends_with("server is not initialized yet"),
            "{error}"
        );
    }

    #[test]
    fn a_socket_of_somebody_else() {
        let place = Place::new();
        // Root may connect to any. The user is this thread's alone.
        let nobody = Uid::from_raw(65_534);
        let error = std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                runtime.unwrap().block_on(async {
                    let _fake = Fake::saying(&place, b"", false);
                    let mode = std::fs::Permissions::from_mode(0o0);
                    std::fs::set_permissions(&place.socket, mode).unwrap();
                    setfsuid(nobody);
                    refused(&place).await
                })
            });
            other.join().unwrap()
        });
        assert!(matches!(error, RuntimeError::Denied { .. }), "{error:?}");
        let expected = format!(
            "may not connect to {}: permission denied, it takes root",
            place.given()
        );
        assert_eq!(error.to_string(), expected);
    }

    #[tokio::test]
    async fn one_whom_nobody_can_connect_to_any_more() {
        let place = Place::new();
        let listener = std::os::unix::net::UnixListener::bind(&place.socket).unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let _waits = std::os::unix::net::UnixStream::connect(&place.socket).unwrap();
        let error = refused(&place).await;
        assert!(
            matches!(error, RuntimeError::Unavailable { .. }),
            "{error:?}"
        );
        assert!(
            error.to_string().ends_with("it accepts no connections"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn the_first_known_socket_with_a_runtime_is_taken() {
        let root = Place::new();
        let Err(error) = Runtime::connect(None, root.directory()).await else {
            panic!("there is none");
        };
        let text = error.to_string();
        assert!(matches!(error, RuntimeError::NoneFound(_)), "{text}");
        for socket in endpoint::known(root.directory()) {
            assert!(
                text.contains(&format!("{} (there is no such socket", socket.display())),
                "{text}"
            );
        }
        assert!(
            text.ends_with("name its socket with --runtime-endpoint"),
            "{text}"
        );

        // That of Docker's containerd, with its CRI switched off, and that of cri-dockerd.
        let containerd = root.beneath("run/containerd/containerd.sock");
        let _containerd = Fake::start(&containerd, |_, _| {
            Reply::status(UNIMPLEMENTED, "unknown service")
        });
        let dockerd = root.beneath("run/cri-dockerd.sock");
        let _dockerd = Fake::start(&dockerd, |_, _| version("docker", "24.0.5"));
        let runtime = Runtime::connect(None, root.directory()).await.unwrap();
        assert_eq!(
            runtime.name(),
            format!("docker 24.0.5 at {}", dockerd.given())
        );
    }

    #[tokio::test]
    async fn a_call_that_gets_no_answer() {
        let place = Place::new();
        let _fake = Fake::start(&place, |at, _| match at {
            path::VERSION => version("cri-o", "1.28.1"),
            _ => Reply::never(),
        });
        let limits = Limits {
            first: LIMITS.first,
            ..QUICK
        };
        let runtime = Runtime::at(place.socket.clone(), limits).await.unwrap();
        let error = runtime.pods().await.unwrap_err();
        assert!(
            matches!(error, RuntimeError::Unavailable { .. }),
            "{error:?}"
        );
        assert!(
            error.to_string().ends_with("no answer within 300ms"),
            "{error}"
        );
        // What is asked of one sandbox says nothing of others.
        let error = runtime.sandbox("a").await.unwrap_err();
        assert!(matches!(error, RuntimeError::Silent { .. }), "{error:?}");
        let words = "gave no answer to PodSandboxStatus within 300ms";
        assert!(error.to_string().ends_with(words), "{error}");
    }

    #[tokio::test]
    async fn answers_come_in_the_order_of_the_questions() {
        let questions = (0..20u64).map(|turn| async move {
            tokio::time::sleep(Duration::from_millis(20 - turn)).await;
            turn
        });
        let answers = at_once(questions).await;
        assert_eq!(answers, (0..20).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_runtime_that_ends_and_comes_back() {
        let place = Place::new();
        let fake = of_pods(&place, vec![named("a")]);
        let runtime = Runtime::at(place.socket.clone(), LIMITS).await.unwrap();
        assert_eq!(runtime.pods().await.unwrap()[0].id, "a");
        fake.stop().await;
        for _ in 0..3 {
            let error = runtime.pods().await.unwrap_err();
            assert!(
                matches!(error, RuntimeError::Unavailable { .. }),
                "{error:?}"
            );
        }
        let _fake = of_pods(&place, vec![named("b")]);
        assert_eq!(runtime.pods().await.unwrap()[0].id, "b");
    }

    #[tokio::test]
    async fn one_that_breaks_off_in_an_answer_is_down() {
        let place = Place::new();
        let (teller, reply) = Reply::stream();
        let reply = std::sync::Mutex::new(Some(reply));
        let fake = Fake::start(&place, move |at, _| match at {
            path::VERSION => version("containerd", "1.7.24"),
            _ => reply.lock().unwrap().take().unwrap(),
        });
        let runtime = Runtime::at(place.socket.clone(), LIMITS).await.unwrap();
        teller.half(&ListPodSandboxResponse {
            items: vec![named("a")],
        });
        let (pods, ()) = tokio::join!(runtime.pods(), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            fake.stop().await;
        });
        let error = pods.unwrap_err();
        assert!(
            matches!(error, RuntimeError::Unavailable { .. }),
            "{error:?}"
        );
        assert!(
            error.to_string().contains("the connection to it broke"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn what_is_gone_is_none_and_what_fails_is_said() {
        let place = Place::new();
        let _fake = Fake::start(&place, |at, question| match at {
            path::VERSION => version("containerd", "1.6.20"),
            _ => {
                let question = StatusRequest::decode(question).unwrap();
                assert!(question.verbose);
                match &*question.id {
                    "gone" => Reply::status(5, "an error occurred: not found"),
                    "empty" => Reply::message(&Empty {}),
                    _ => Reply::status(13, &"x".repeat(2_000)),
                }
            }
        });
        let runtime = Runtime::at(place.socket.clone(), LIMITS).await.unwrap();
        for id in ["gone", "empty"] {
            assert_eq!(runtime.sandbox(id).await.unwrap(), None);
            assert_eq!(runtime.container(id).await.unwrap(), None);
        }
        let error = runtime.sandbox("a").await.unwrap_err();
        assert!(matches!(error, RuntimeError::Failed { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("failed in PodSandboxStatus: xxx"), "{text}");
        assert!(text.chars().count() < 500 && text.ends_with('…'), "{text}");
    }

    #[tokio::test]
    async fn a_runtime_of_an_odd_name() {
        let place = Place::new();
        let _fake = Fake::start(&place, |_, _| version(&"\n\u{1b}[31m".repeat(1_000), ""));
        let runtime = Runtime::at(place.socket.clone(), LIMITS).await.unwrap();
        let name = runtime.name();
        assert!(
            name.len() < 3_000 && !name.contains(char::is_control),
            "{name}"
        );
    }

    #[tokio::test]
    async fn one_who_closes_the_connection() {
        let place = Place::new();
        let _fake = Fake::saying(&place, b"", true);
        let error = refused(&place).await;
        assert!(
            matches!(error, RuntimeError::Unavailable { .. }),
            "{error:?}"
        );
        assert!(
            error.to_string().contains("the connection to it broke"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn one_who_hangs() {
        let place = Place::new();
        let fake = Fake::saying(&place, b"", false);
        let error = refused_within(&place, QUICK).await;
        assert_eq!(fake.connections(), 1, "it is waited for once");
        assert!(
            matches!(error, RuntimeError::Unavailable { .. }),
            "{error:?}"
        );
        assert!(
            error.to_string().ends_with("no answer within 300ms"),
            "{error}"
        );
    }
}
