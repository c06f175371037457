//! Targets and namespaces that come and go, and interceptions beside and within each other.

use std::{
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use tests::{
    Cgroup, Lab, NetNs, Place, Running, Spotsim, Upstream, Via, client, get, patient, run,
    wait_until,
};

const NOTICE: &str = "/latest/meta-data/spot/instance-action";

fn notice_at(place: &Place) -> String {
    place.get(NOTICE).text()
}

#[test]
fn it_ends_by_itself_when_its_target_is_removed() {
    let Some(mut lab) = Lab::with_pod() else {
        return;
    };
    let _upstream = Upstream::start(&lab, &[]);
    let workload = lab.workload_process();
    let spotsim = Spotsim::attach(&lab, &[]);
    assert_eq!(notice_at(&lab.inside()), spotsim.armed.instance_action());
    assert_eq!(
        lab.workload().listeners().len(),
        2,
        "one listener for each family"
    );

    workload.stop();
    let target = std::mem::replace(&mut lab.target, lab.root.child("another"));
    target.remove();
    let finished = spotsim.into_process().finish_within(Duration::from_secs(5));
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert_eq!(lab.workload().listeners(), []);
}

#[test]
fn other_targets_go_on() {
    let Some(lab) = Lab::with_pod() else { return };
    let _upstream = Upstream::start(&lab, &[]);
    let (one, other) = (lab.root.child("one"), lab.root.child("other"));
    let one_place = lab.place(lab.workload(), &one);
    let other_place = lab.place(&lab.node, &other);
    let workload = one_place.sleeper();
    let _other_workload = other_place.sleeper();

    let path = other.path();
    let more = ["--cgroup", path.to_str().unwrap(), "--upstream", "real"];
    let mut spotsim = Spotsim::attach_to(&lab, &one, &more);
    for place in [&one_place, &other_place] {
        assert_eq!(
            notice_at(place),
            spotsim.armed.instance_action(),
            "{}",
            spotsim.armed.line
        );
    }
    workload.stop();
    one.remove();
    wait_until(
        "the listeners in the namespace of the target that is gone are closed",
        || lab.workload().listeners().is_empty().then_some(()),
    );
    assert_eq!(notice_at(&other_place), spotsim.armed.instance_action());
    assert!(!spotsim.has_ended());
    spotsim.signal(Signal::SIGINT);
    assert_eq!(spotsim.into_process().finish().code, 0);
}

#[test]
fn ctrl_c_ends_it_at_once() {
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &[]);
    let _workload = lab.workload_process();
    let spotsim = Spotsim::attach(&lab, &[]);
    assert_eq!(notice_at(&lab.inside()), spotsim.armed.instance_action());
    spotsim.signal(Signal::SIGINT);
    let finished = spotsim.into_process().finish_within(Duration::from_secs(3));
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert_eq!(
        finished.text().lines().count(),
        1,
        "one line on stdout: {}",
        finished.text()
    );
    assert_eq!(lab.inside().get(NOTICE).status(), 404);
}

#[test]
fn it_detaches_by_itself_after_the_time_given() {
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &[]);
    let _workload = lab.workload_process();
    let given = patient(Duration::from_secs(1)).max(Duration::from_secs(3));
    let began = Instant::now();
    let spotsim = Spotsim::attach(&lab, &["--for", &format!("{}s", given.as_secs())]);
    assert_eq!(lab.inside().get(NOTICE).status(), 200);
    let finished = spotsim.into_process().finish_within(Duration::from_secs(8));
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert!(began.elapsed() > given, "{:?}", began.elapsed());
    assert_eq!(lab.inside().get(NOTICE).status(), 404);
}

#[test]
fn a_namespace_that_appears_later_is_covered() {
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &[]);
    let _workload = lab.workload_process();
    let mut spotsim = Spotsim::attach(&lab, &[]);
    let every = patient(Duration::from_millis(100)).as_millis().to_string();
    for round in 0..3 {
        let from = spotsim.stderr().len();
        let later = NetNs::new();
        later.hold_imds_addresses();
        let name = format!("later-{round}");
        let _upstream = Upstream::start_at(&lab, &later, &name, &Upstream::IMDS, &[]);
        // As a container does, it starts below the target.
        let container = lab.target.child(&name);
        let mut command = lab.place(&later, &container).command(client());
        command.args(["poll", "v4", NOTICE, &every]);
        let poller = Running::start(command);
        wait_until("a poll in the new namespace that sees the notice", || {
            poller.stdout().contains("\"status\":200").then_some(())
        });
        let polls = poller.stop().text();
        let missed = polls
            .lines()
            .filter(|poll| !poll.contains("\"status\":200"))
            .count();
        assert!(missed <= 1, "{polls}");
        if missed > 0 {
            // It is reported by name, once for each namespace.
            spotsim.stderr_line("missed: client[", from);
        }
    }
}

#[test]
fn a_namespace_that_its_process_makes_itself_is_covered() {
    let Some(lab) = Lab::new() else { return };
    let _workload = lab.workload_process();
    let spotsim = Spotsim::attach_to(&lab, &lab.target, &["--upstream", "synthetic"]);
    let script = format!(
        "ip link set lo up
         for i in 1 2 3 4 5 6 7 8 9 10; do
             curl -s --max-time 2 http://169.254.169.254{NOTICE} && exit
             sleep 0.1
         done
         exit 1"
    );
    let command = ["unshare", "--net", "sh", "-c", &script];
    let text = run(lab.inside().command_line(command), b"").expect("curl");
    assert_eq!(
        text,
        spotsim.armed.instance_action(),
        "{}",
        spotsim.stderr()
    );
}

/// Whoever got past spotsim, because it did not know the namespace yet, is answered by IMDS.
#[test]
fn a_missed_request_is_answered() {
    let Some(lab) = Lab::new() else { return };
    let _workload = lab.workload_process();
    let mut spotsim = Spotsim::attach(&lab, &[]);
    for round in 0..5 {
        // Most rounds are a race, which it may win each time. Held up, it loses the last.
        if round == 4 {
            spotsim.signal(Signal::SIGSTOP);
        }
        let later = NetNs::new();
        later.hold_imds_addresses();
        let name = format!("later-{round}");
        let slow = ["--delay-ms", "50"];
        let _upstream = Upstream::start_at(&lab, &later, &name, &Upstream::IMDS, &slow);
        // A cgroup that has processes raises no event when one more joins.
        let place = lab.place(&later, &lab.target);
        let finished = place.try_send(Via::V4, &get("/latest/meta-data/instance-id"));
        assert!(
            finished.text().starts_with("HTTP/1.1 200 OK\r\n"),
            "{}: {}{}",
            finished.text(),
            finished.stderr,
            spotsim.stderr()
        );
    }
    spotsim.signal(Signal::SIGCONT);
    spotsim.stderr_line("missed: client[", 0);
}

/// The notice is seen over this family, after one request that went past at most.
fn is_covered_after_a_miss(lab: &Lab, spotsim: &Spotsim, via: Via) {
    // Its connection may be cut when its answer was read and its end was not.
    let mut past = Running::start(lab.inside().raw_client(via));
    past.write(&get(NOTICE));
    past.close_stdin();
    past.finish();
    wait_until("a listener for each family", || {
        (lab.workload().listeners().len() == 2).then_some(())
    });
    assert_eq!(
        lab.inside().send(via, &get(NOTICE)).text(),
        spotsim.armed.instance_action(),
        "{via:?}: {}",
        spotsim.stderr()
    );
}

#[test]
fn a_loopback_that_comes_up_later() {
    let Some(mut lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &[]);
    let mut spotsim = Spotsim::attach(&lab, &[]);
    let pod = NetNs::without_loopback();
    lab.node.connect_pod(&pod);
    lab.pod = Some(pod);
    let _workload = lab.workload_process();
    for via in Via::ALL {
        let response = lab.inside().send(via, &get(NOTICE));
        assert_eq!(response.status(), 404, "it has no loopback to lead to");
    }
    spotsim.stderr_line("cannot listen", 0);
    lab.workload().ip("link set lo up");
    for via in Via::ALL {
        is_covered_after_a_miss(&lab, &spotsim, via);
    }
}

#[test]
fn an_ipv6_loopback_that_comes_up_later() {
    let Some(lab) = Lab::with_pod() else { return };
    let _upstream = Upstream::start(&lab, &[]);
    lab.workload().ip("-6 addr del ::1/128 dev lo");
    let _workload = lab.workload_process();
    let mut spotsim = Spotsim::attach(&lab, &[]);
    assert_eq!(notice_at(&lab.inside()), spotsim.armed.instance_action());
    // Its connection may be cut when its answer was read and its end was not.
    let past = lab.inside().try_send(Via::V6, &get(NOTICE));
    assert!(past.text().starts_with("HTTP/1.1 404 "), "{past:?}");
    spotsim.stderr_line("missed: client[", 0);
    lab.workload().ip("-6 addr add ::1/128 dev lo nodad");
    is_covered_after_a_miss(&lab, &spotsim, Via::V6);
    assert_eq!(notice_at(&lab.inside()), spotsim.armed.instance_action());
}

#[test]
fn a_target_that_is_empty_at_first() {
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &[]);
    let spotsim = Spotsim::attach(&lab, &[]);
    let mut workload = lab.workload_process();
    wait_until("the notice", || {
        (lab.inside().get(NOTICE).text() == spotsim.armed.instance_action()).then_some(())
    });
    assert!(!workload.has_ended());
}

/// What starts after a while without any process is most likely in the namespace of the former.
#[test]
fn a_target_that_is_empty_for_a_while() {
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &[]);
    let workload = lab.workload_process();
    let spotsim = Spotsim::attach(&lab, &[]);
    assert_eq!(notice_at(&lab.inside()), spotsim.armed.instance_action());
    workload.stop();
    // Another namespace would have lost its listener after 10 s.
    thread::sleep(Duration::from_secs(12));
    assert_eq!(
        notice_at(&lab.inside()),
        spotsim.armed.instance_action(),
        "{}",
        spotsim.stderr()
    );
}

#[test]
fn two_interceptions_in_one_namespace_do_not_mix() {
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &[]);
    let places: [(Cgroup, &str); 3] = [
        (lab.root.child("a"), "terminate"),
        (lab.root.child("b"), "stop"),
        (lab.root.child("c"), "hibernate"),
    ];
    let running: Vec<_> = places
        .iter()
        .map(|(cgroup, action)| {
            let workload = lab.place(&lab.node, cgroup).sleeper();
            let options = ["--action", *action, "--upstream", "real"];
            (workload, Spotsim::attach_to(&lab, cgroup, &options))
        })
        .collect();
    let check = |which: &[usize]| {
        for &index in which {
            let (cgroup, action) = &places[index];
            let spotsim = &running[index].1;
            for via in Via::ALL {
                let response = lab.place(&lab.node, cgroup).send(via, &get(NOTICE));
                assert_eq!(response.text(), spotsim.armed.instance_action(), "{action}");
                assert_eq!(response.peer, via.peer());
            }
        }
    };
    check(&[0, 1, 2]);
    assert_eq!(lab.outside().get(NOTICE).status(), 404);
    // The end of one leaves the others as they are.
    running[1].1.signal(Signal::SIGTERM);
    wait_until("the notice for b is gone", || {
        (lab.place(&lab.node, &places[1].0).get(NOTICE).status() == 404).then_some(())
    });
    check(&[0, 2]);
}

#[test]
fn the_innermost_of_nested_interceptions_wins() {
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &[]);
    let inner = lab.target.child("inner");
    let inner_place = lab.place(&lab.node, &inner);
    let _workloads = [lab.workload_process(), inner_place.sleeper()];
    let outer_spotsim = Spotsim::attach(&lab, &["--action", "terminate"]);
    let outer = outer_spotsim.armed.instance_action();
    assert_eq!(
        notice_at(&inner_place),
        outer,
        "what is below a target belongs to it"
    );

    let options = ["--action", "stop", "--upstream", "real"];
    let inner_spotsim = Spotsim::attach_to(&lab, &inner, &options);
    for via in Via::ALL {
        let response = inner_place.send(via, &get(NOTICE));
        assert_eq!(
            response.text(),
            inner_spotsim.armed.instance_action(),
            "{via:?}"
        );
        assert_eq!(response.peer, via.peer());
        assert_eq!(
            lab.inside().send(via, &get(NOTICE)).text(),
            outer,
            "{via:?}"
        );
    }
    inner_spotsim.signal(Signal::SIGINT);
    assert_eq!(inner_spotsim.into_process().finish().code, 0);
    assert_eq!(notice_at(&inner_place), outer);
}

/// At the most that it can say, the kernel half included.
#[test]
fn it_tells_no_secrets() {
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &[]);
    let _workload = lab.workload_process();
    let mut spotsim = Spotsim::attach(&lab, &["-vv"]);
    let script = r#"
        token=$(curl -s -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' \
            http://169.254.169.254/latest/api/token)
        curl -s -H "X-aws-ec2-metadata-token: $token" \
            http://169.254.169.254/latest/meta-data/iam/security-credentials/upstream-role
        curl -s -o /dev/null "http://169.254.169.254/latest/meta-data/instance-id?q=hidden"
        echo; echo "$token""#;
    let told = run(lab.inside().command_line(["sh", "-c", script]), b"").expect("curl");
    let (credentials, token) = told.trim_end().rsplit_once('\n').unwrap();
    let credentials: serde_json::Value = serde_json::from_str(credentials).unwrap();
    spotsim.stderr_line("security-credentials/upstream-role: passed, 200", 0);
    spotsim.stderr_line("instance-id: passed", 0);
    let said = spotsim.stderr();
    assert!(
        said.contains(": verdict 1"),
        "the kernel half's own log: {said}"
    );
    assert!(token.len() > 20, "{token}");
    let secrets = ["SecretAccessKey", "Token", "AccessKeyId"].map(|key| &credentials[key]);
    for secret in secrets
        .map(|secret| secret.as_str().unwrap())
        .into_iter()
        .chain([token, "hidden"])
    {
        assert!(!said.contains(secret), "{secret} in: {said}");
    }
}

#[test]
fn it_says_who_asked_for_what() {
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &[]);
    let _workload = lab.workload_process();
    let mut spotsim = Spotsim::attach(&lab, &[]);
    lab.outside().get("/latest/meta-data/instance-id");
    let script = format!("echo $$; exec curl -s -o /dev/null http://169.254.169.254{NOTICE}");
    let curl = [
        "setpriv",
        "--reuid",
        "65534",
        "--clear-groups",
        "sh",
        "-c",
        &script,
    ];
    let pid = run(lab.inside().command_line(curl), b"").expect("curl");
    let line = spotsim.stderr_line(NOTICE, 0);
    let target = lab.target.path();
    let who = format!(
        "curl[{}] of user 65534 in {}: ",
        pid.trim(),
        target.display()
    );
    let what = format!("GET {NOTICE}: faked");
    for words in [&who, &what] {
        assert!(line.contains(words), "{words:?} is not in {line:?}");
    }
    assert!(
        !spotsim.stderr().contains("instance-id"),
        "{}",
        spotsim.stderr()
    );
}
