//! What spotsim reads from a real container runtime.

use std::{path::Path, time::Duration};

use spotsim::target::cri::{ContainerState, Events, Network, Runtime, RuntimeError};
use tests::Node;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

/// Where spotsim's half runs. It has threads of its own, since the node's calls block.
fn asynchronous() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap()
}

async fn connect(node: &Node) -> Runtime {
    let endpoint = node.endpoint();
    let runtime = Runtime::connect(Some(&endpoint), Path::new("/")).await;
    runtime.unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn pods_and_their_containers() {
    let Some(node) = Node::start() else { return };
    let web = node.pod("web-0").namespace("shop").label("app", "web");
    let web = web.start();
    let agent = node.pod("agent").host_network().start();
    let sidecar = web.container("sidecar", &["pause"]);
    let tokio = asynchronous();
    let runtime = tokio.block_on(connect(&node));
    assert!(
        runtime.name().starts_with("containerd 1."),
        "{}",
        runtime.name()
    );

    let mut pods = tokio.block_on(runtime.pods()).unwrap();
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    let names: Vec<_> = pods
        .iter()
        .map(|pod| (&*pod.namespace, &*pod.name))
        .collect();
    assert_eq!(names, [("default", "agent"), ("shop", "web-0")]);
    let listed = &pods[1];
    assert_eq!((&*listed.id, &*listed.uid), (web.sandbox_id(), web.uid()));
    assert_eq!(listed.labels.get("app").map(|app| &**app), Some("web"));
    assert!(listed.ready && listed.runtime_handler.is_empty());

    let sandbox = tokio
        .block_on(runtime.sandbox(web.sandbox_id()))
        .unwrap()
        .unwrap();
    assert_eq!(sandbox.pid, Some(web.sandbox_pid() as u32));
    assert_eq!((sandbox.ready, sandbox.network), (true, Network::Pod));

    let sandbox = tokio
        .block_on(runtime.sandbox(agent.sandbox_id()))
        .unwrap()
        .unwrap();
    assert_eq!(sandbox.network, Network::Node);

    let containers = tokio.block_on(runtime.containers()).unwrap();
    let of_web = containers
        .iter()
        .filter(|one| one.sandbox == web.sandbox_id());
    let mut of_web: Vec<_> = of_web
        .map(|one| (&*one.name, &*one.id, one.state))
        .collect();
    of_web.sort_unstable_by_key(|one| one.0);
    let running = ContainerState::Running;
    assert_eq!(
        of_web,
        [
            ("main", web.main.id(), running),
            ("sidecar", sidecar.id(), running)
        ]
    );
    let detail = tokio
        .block_on(runtime.container(sidecar.id()))
        .unwrap()
        .unwrap();
    assert_eq!(detail.pid, Some(sidecar.pid() as u32));
    let age = jiff::Timestamp::now().duration_since(detail.started_at.unwrap());
    assert!(age.as_secs() < 60 && !age.is_negative(), "{age}");
}

#[test]
fn what_ended_and_what_is_gone() {
    let Some(node) = Node::start() else { return };
    let pod = node.pod("web-0").start();
    let (sandbox, container) = (pod.sandbox_id().to_owned(), pod.main.id().to_owned());
    let tokio = asynchronous();
    let runtime = tokio.block_on(connect(&node));
    pod.stop();
    assert!(!tokio.block_on(runtime.pods()).unwrap()[0].ready);
    let ended = tokio.block_on(runtime.sandbox(&sandbox)).unwrap().unwrap();
    assert_eq!((ended.ready, ended.pid), (false, None));
    let ended = tokio
        .block_on(runtime.container(&container))
        .unwrap()
        .unwrap();
    assert!(ended.pid.is_none() && ended.started_at.is_some());
    let containers = tokio.block_on(runtime.containers()).unwrap();
    let states: Vec<_> = containers.iter().map(|one| one.state).collect();
    assert_eq!(states, [ContainerState::Exited]);

    pod.remove();
    assert_eq!(tokio.block_on(runtime.pods()).unwrap(), []);
    assert_eq!(tokio.block_on(runtime.sandbox(&sandbox)).unwrap(), None);
    assert_eq!(tokio.block_on(runtime.container(&container)).unwrap(), None);
}

/// Asks for events, of which there are none yet.
async fn listen(runtime: &Runtime) -> Events {
    let mut events = runtime.events();
    let early = timeout(Duration::from_millis(500), events.next()).await;
    assert!(early.is_err(), "{early:?}");
    events
}

async fn next(events: &mut Events) -> Result<bool, RuntimeError> {
    timeout(SOON, events.next())
        .await
        .expect("an event, in time")
}

#[test]
fn every_listener_hears_what_happens() {
    let Some(node) = Node::start() else { return };
    let tokio = asynchronous();
    let runtime = tokio.block_on(connect(&node));
    let mut both = [0; 2].map(|_| tokio.block_on(listen(&runtime)));

    let pod = node.pod("web-0").start();
    // What is run in a container, such as a probe, is no event of it.
    pod.exec(&["get", "/"]);
    pod.main.kill();
    for events in &mut both {
        // Two starts and an end.
        for _ in 0..3 {
            assert!(tokio.block_on(next(events)).unwrap());
        }
        let more =
            tokio.block_on(async { timeout(Duration::from_millis(500), events.next()).await });
        assert!(more.is_err(), "{more:?}");
    }
}

#[test]
fn it_survives_the_runtime() {
    let Some(node) = Node::start() else { return };
    let pod = node.pod("web-0").start();
    let tokio = asynchronous();
    let runtime = tokio.block_on(connect(&node));
    let mut events = tokio.block_on(listen(&runtime));

    node.kill_containerd();
    let error = tokio.block_on(next(&mut events)).unwrap_err();
    assert!(
        matches!(error, RuntimeError::Unavailable { .. }),
        "{error:?}"
    );
    let expected = format!(
        "no container runtime answers at {}: nobody listens there",
        node.socket().display()
    );
    for _ in 0..2 {
        let error = tokio.block_on(runtime.pods()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let endpoint = node.endpoint();
    let new = tokio.block_on(Runtime::connect(Some(&endpoint), Path::new("/")));
    assert_eq!(new.map(|_| ()).unwrap_err().to_string(), expected);

    node.restart_containerd();
    let pods = tokio.block_on(runtime.pods()).unwrap();
    let ids: Vec<_> = pods.iter().map(|pod| &*pod.id).collect();
    assert_eq!(ids, [pod.sandbox_id()]);
    let sandbox = tokio.block_on(runtime.sandbox(pod.sandbox_id())).unwrap();
    assert_eq!(sandbox.unwrap().pid, Some(pod.sandbox_pid() as u32));
    tokio.block_on(async {
        let early = timeout(Duration::from_millis(500), events.next()).await;
        assert!(early.is_err(), "{early:?}");
    });
    pod.main.kill();
    assert!(tokio.block_on(next(&mut events)).unwrap());
}
