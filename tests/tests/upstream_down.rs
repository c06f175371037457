//! When the upstream is slow, silent or gone: faked paths answer, the rest fails as it would
//! without spotsim.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tests::{
    Finished, Held, Lab, Place, Running, Spotsim, Upstream, Via, client, get, run, wait_until,
};

const NOTICE: &str = "/latest/meta-data/spot/instance-action";
const OTHER: &str = "/latest/meta-data/instance-id";
/// curl's exit code for `--max-time`.
const TIMED_OUT: i32 = 28;

fn attached(lab: &Lab, options: &[&str]) -> (Running, Spotsim) {
    (
        lab.workload_process(),
        Spotsim::attach_to(lab, &lab.target, options),
    )
}

/// curl, which prints the body, then the status.
fn curl(place: &Place, path: &str, seconds: &str) -> Finished {
    let url = format!("http://169.254.169.254{path}");
    let curl = [
        "curl",
        "-s",
        "--max-time",
        seconds,
        "-w",
        "\n%{http_code} %{time_total}",
        &url,
    ];
    run(place.command_line(curl), b"")
}

/// The notice is served within half a second: the best of three, because other tests are running.
fn notice_is_quick(lab: &Lab, spotsim: &Spotsim) {
    const QUICK: Duration = Duration::from_millis(500);
    let mut took = Vec::new();
    while took.len() < 3 && took.last().is_none_or(|&last| last >= QUICK) {
        took.push(time_of_the_notice(lab, spotsim));
    }
    assert!(took.iter().min() < Some(&QUICK), "the notice took {took:?}");
}

/// By curl's clock: from the start of its connect to the end of the answer.
fn time_of_the_notice(lab: &Lab, spotsim: &Spotsim) -> Duration {
    let finished = curl(&lab.inside(), NOTICE, "5");
    let text = finished.expect("the notice");
    let (body, facts) = text.rsplit_once('\n').unwrap();
    assert_eq!(body, spotsim.armed.instance_action());
    let (_, seconds) = facts.split_once(' ').unwrap();
    Duration::from_secs_f64(seconds.parse().unwrap())
}

#[test]
fn an_upstream_that_never_answers() {
    let Some(lab) = Lab::with_pod() else { return };
    let upstream = Upstream::start(&lab, &["--hang"]);
    let (_workload, spotsim) = attached(&lab, &["--upstream", "real"]);
    notice_is_quick(&lab, &spotsim);
    let before = upstream.seen().len();
    let finished = curl(&lab.inside(), OTHER, "2");
    assert_eq!(finished.code, TIMED_OUT, "{}", finished.text());
    assert!(finished.text().starts_with("\n000 "), "{}", finished.text());
    assert_eq!(upstream.seen().len(), before + 1, "it was asked, once");
    notice_is_quick(&lab, &spotsim);
}

#[test]
fn a_network_that_loses_everything() {
    let Some(lab) = Lab::with_pod() else { return };
    let (_workload, spotsim) = attached(&lab, &["--upstream", "real"]);
    // As with a hop limit of 1: packets leave, and nothing comes back.
    lab.workload()
        .ip("neighbour replace 10.11.12.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent");
    assert_eq!(curl(&lab.outside(), OTHER, "1").code, TIMED_OUT);
    notice_is_quick(&lab, &spotsim);
    assert_eq!(curl(&lab.inside(), OTHER, "1").code, TIMED_OUT);
}

#[test]
fn an_upstream_that_is_slow() {
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &["--delay-ms", "800"]);
    let (_workload, spotsim) = attached(&lab, &["--upstream", "real"]);
    notice_is_quick(&lab, &spotsim);
    let started = Instant::now();
    assert_eq!(
        lab.inside().get(OTHER).status(),
        200,
        "{}",
        spotsim.stderr()
    );
    assert!(started.elapsed() > Duration::from_millis(800));
}

#[test]
fn an_upstream_that_refuses_connections() {
    for lab in [Lab::new(), Lab::with_pod()] {
        let Some(lab) = lab else { return };
        let (_workload, spotsim) = attached(&lab, &["--upstream", "real"]);
        notice_is_quick(&lab, &spotsim);
        let finished = curl(&lab.inside(), OTHER, "5");
        // Refused, an empty reply, or a reset: no connection is worth an HTTP status.
        assert!(
            [7, 52, 56].contains(&finished.code),
            "{}: {}",
            finished.code,
            finished.text()
        );
        assert!(finished.text().starts_with("\n000 "), "{}", finished.text());
        for via in Via::ALL {
            assert_eq!(
                lab.inside().try_send(via, &get(OTHER)).text(),
                "",
                "{via:?}"
            );
        }
    }
}

#[test]
fn an_upstream_that_comes_back() {
    let Some(lab) = Lab::new() else { return };
    let upstream = Upstream::start(&lab, &[]);
    let (_workload, spotsim) = attached(&lab, &["--upstream", "real"]);
    assert_eq!(lab.inside().get(OTHER).status(), 200);
    upstream.stop();
    notice_is_quick(&lab, &spotsim);
    assert_eq!(
        curl(&lab.inside(), OTHER, "5").text().split(' ').next(),
        Some("\n000")
    );
    let _upstream = Upstream::start(&lab, &[]);
    assert_eq!(lab.inside().get(OTHER).status(), 200);
}

#[test]
fn none() {
    let Some(lab) = Lab::new() else { return };
    let upstream = Upstream::start(&lab, &[]);
    let (_workload, spotsim) = attached(&lab, &["--upstream", "none"]);
    notice_is_quick(&lab, &spotsim);
    for path in [
        OTHER,
        "/",
        "/latest/user-data",
        "/latest/meta-data/iam/security-credentials/",
    ] {
        let response = lab.inside().get(path);
        assert_eq!(
            (response.status(), response.body().len()),
            (404, 339),
            "{path}"
        );
    }
    let put = b"PUT /latest/api/token HTTP/1.1\r\nHost: 169.254.169.254\r\n\
                X-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n";
    assert_ne!(lab.inside().send(Via::V4, put).status(), 200);
    assert_eq!(upstream.seen(), [], "nobody was asked");
}

#[test]
fn a_url_is_dialled_from_the_workloads_namespace() {
    let Some(lab) = Lab::with_pod() else { return };
    let start = |net, name| Upstream::start_at(&lab, net, name, &["127.0.0.1:8181"], &[]);
    let nodes = start(&lab.node, "node");
    let pods = start(lab.workload(), "pod");
    for url in ["http://127.0.0.1:8181", "http://localhost:8181"] {
        let (_workload, spotsim) = attached(&lab, &["--upstream", url]);
        let before = pods.seen().len();
        assert_eq!(
            lab.inside().get(OTHER).text(),
            "i-0a1b2c3d4e5f60718",
            "{url}"
        );
        assert_eq!(pods.seen().len(), before + 1, "{url}: {}", spotsim.stderr());
        notice_is_quick(&lab, &spotsim);
    }
    assert_eq!(
        nodes.seen(),
        [],
        "the node's namespace is not the workload's"
    );
}

/// How many sockets a process has: what else it has open for a moment does not count.
fn sockets(process: &Running) -> usize {
    Held::by(process.pid()).unwrap().sockets
}

#[test]
fn clients_that_give_up_cost_nothing_any_more() {
    const CLIENTS: usize = 50;
    let Some(lab) = Lab::with_pod() else { return };
    let upstream = Upstream::start(&lab, &["--hang"]);
    let (_workload, spotsim) = attached(&lab, &["--upstream", "real"]);
    let before = sockets(&spotsim);

    let request = String::from_utf8(get(OTHER)).unwrap();
    let mut command = lab.inside().command(client());
    command.args(["idle", "v4", &CLIENTS.to_string(), &request]);
    let mut clients = Running::start(command);
    wait_until("the requests arrive", || {
        (upstream.seen().len() == CLIENTS).then_some(())
    });
    assert!(
        sockets(&spotsim) >= before + 2 * CLIENTS,
        "two connections for each"
    );
    let who = format!("client[{}] of user 0 in ", clients.pid());
    clients.close_stdin();
    clients.finish();
    let gone = Instant::now();
    wait_until("the connections are closed", || {
        (sockets(&spotsim) <= before).then_some(())
    });
    assert!(
        gone.elapsed() < Duration::from_secs(5),
        "{:?}",
        gone.elapsed()
    );
    let what = format!(": GET {OTHER}: no answer, ");
    wait_until("each is said", || {
        let stderr = spotsim.stderr();
        let lines = stderr.lines();
        let told = lines.filter(|line| line.contains(&who) && line.contains(&what));
        (told.count() == CLIENTS).then_some(())
    });
}

#[test]
fn an_end_while_the_upstream_hangs() {
    let Some(lab) = Lab::new() else { return };
    let upstream = Upstream::start(&lab, &["--hang"]);
    let (_workload, spotsim) = attached(&lab, &["--upstream", "real"]);
    let mut waiting = Running::start(lab.inside().raw_client(Via::V4));
    waiting.write(&get(OTHER));
    waiting.close_stdin();
    wait_until("the request arrives", || {
        (!upstream.seen().is_empty()).then_some(())
    });
    spotsim.signal(Signal::SIGTERM);
    let finished = spotsim.into_process().finish_within(Duration::from_secs(3));
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    // An empty answer would pass for one.
    let client = waiting.finish();
    assert_eq!((client.code, client.text().as_str()), (1, ""));
    assert!(
        client.stderr.contains("receive: Connection reset"),
        "{}",
        client.stderr
    );
}
