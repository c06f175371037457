//! The network of a target, cut by its cgroup.

use std::{path::PathBuf, thread::sleep, time::Duration};

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{Lab, Place, Running, run, wait_until, workspace};

use super::{attach, effect, spotsim};

const INSIDE: &str = "4001";
const OUTSIDE: &str = "4002";

fn python(place: &Place, args: &[&str]) -> std::process::Command {
    let script: PathBuf = workspace().join("tests/tests/deadline/network.py");
    let mut command = place.command("python3");
    command.arg(script).args(args);
    command
}

fn serve(place: &Place, port: &str) -> Running {
    let mut server = Running::start(python(place, &["serve", port]));
    server.stdout_line("up", 0);
    server
}

#[derive(Debug, PartialEq, Eq)]
enum Reached {
    Cut,
    Partly,
    Open,
}
use Reached::{Cut, Open};

/// How many of these answered over TCP and UDP.
fn reaches(place: &Place, hosts: &[&str], port: &str) -> Reached {
    let mut args = vec!["probe"];
    for host in hosts {
        args.extend([host, port]);
    }
    let answers = run(python(place, &args), b"").expect("probe");
    let answers: Value = serde_json::from_str(&answers).unwrap();
    let answers = answers.as_object().unwrap();
    assert_eq!(answers.len(), 2 * hosts.len(), "{answers:?}");
    let reached = answers.values().filter(|answer| **answer == true).count();
    match reached {
        0 => Cut,
        all if all == answers.len() => Open,
        _ => Reached::Partly,
    }
}

/// An open connection, on which something is said from time to time.
struct Held(Running);

impl Held {
    fn open(place: &Place, host: &str, port: &str) -> Self {
        let mut running = Running::start(python(place, &["hold", host, port]));
        running.stdout_line("up", 0);
        Self(running)
    }

    fn says(&mut self) -> String {
        let Self(running) = self;
        let from = running.stdout().len();
        running.write(b"\n");
        running.stdout_line("", from)
    }
}

/// Who reaches whom: from inside out, from outside in, and outside among themselves.
fn all_ways(lab: &Lab, hosts: &[&str]) -> [Reached; 3] {
    [
        reaches(&lab.inside(), hosts, OUTSIDE),
        reaches(&lab.outside(), hosts, INSIDE),
        reaches(&lab.outside(), hosts, OUTSIDE),
    ]
}

const LOOPBACK: [&str; 2] = ["127.0.0.1", "::1"];

#[test]
fn it_is_cut_in_both_directions_until_spotsim_ends() {
    let Some(lab) = Lab::bare() else { return };
    let _inside = serve(&lab.inside(), INSIDE);
    let _outside = serve(&lab.outside(), OUTSIDE);
    let mut held = Vec::new();
    for host in LOOPBACK {
        held.push(Held::open(&lab.inside(), host, OUTSIDE));
        held.push(Held::open(&lab.outside(), host, INSIDE));
    }
    for how in [Signal::SIGTERM, Signal::SIGKILL] {
        let attached = attach(&lab, "cut", &["--lead", "4s"]);
        assert_eq!(
            all_ways(&lab, &LOOPBACK),
            [Open, Open, Open],
            "before the deadline"
        );
        for one in &mut held {
            assert_eq!(one.says(), "echo", "before the deadline");
        }
        effect(&lab, "done");
        for one in &mut held {
            assert_eq!(one.says(), "stalled");
        }
        assert_eq!(all_ways(&lab, &LOOPBACK), [Cut, Cut, Open]);
        attached.signal(how);
        attached.finish();
        assert_eq!(all_ways(&lab, &LOOPBACK), [Open, Open, Open], "after {how}");
        for one in &mut held {
            // What was sent meanwhile is sent again at growing intervals.
            wait_until("the connection goes on", || {
                (one.says() == "echo").then_some(())
            });
        }
    }
}

/// That nothing comes back does not tell whether anything arrived.
#[test]
fn no_packet_arrives_in_either_direction() {
    let Some(lab) = Lab::bare() else { return };
    let inside = serve(&lab.inside(), INSIDE);
    let outside = serve(&lab.outside(), OUTSIDE);
    let _attached = attach(&lab, "cut", &["--lead", "4s"]);
    let send = |place: &Place, host: &str, port: &str, text: &str| {
        run(python(place, &["send", host, port, text]), b"").expect("send");
    };
    for host in LOOPBACK {
        send(&lab.inside(), host, OUTSIDE, &format!("before {host}"));
        send(&lab.outside(), host, INSIDE, &format!("before {host}"));
    }
    let heard = |server: &Running, text: &str| {
        wait_until(text, || server.stdout().contains(text).then_some(()));
    };
    for server in [&inside, &outside] {
        for host in LOOPBACK {
            heard(server, &format!("before {host}"));
        }
    }
    effect(&lab, "done");
    for host in LOOPBACK {
        send(&lab.inside(), host, OUTSIDE, &format!("after {host}"));
        send(&lab.outside(), host, INSIDE, &format!("after {host}"));
        // One that arrives, after which the others would have.
        send(&lab.outside(), host, OUTSIDE, &format!("at last {host}"));
        heard(&outside, &format!("at last {host}"));
    }
    for server in [&inside, &outside] {
        let heard = server.stdout();
        assert!(!heard.contains("after"), "{heard}");
    }
}

/// From another network namespace, as a node sees a pod.
#[test]
fn a_pods_network_is_cut_and_the_nodes_is_not() {
    let Some(lab) = Lab::with_pod() else { return };
    let node = lab.place(&lab.node, &lab.beside);
    let _inside = serve(&lab.inside(), INSIDE);
    let _neighbour = serve(&lab.outside(), OUTSIDE);
    let _node = serve(&node, OUTSIDE);
    let [pod, host] = [["10.11.12.2", "fd0b::2"], ["10.11.12.1", "fd0b::1"]];
    let ways = || {
        [
            reaches(&node, &pod, INSIDE),
            reaches(&lab.inside(), &host, OUTSIDE),
            reaches(&node, &pod, OUTSIDE),
            reaches(&lab.outside(), &host, OUTSIDE),
        ]
    };
    // Neighbours are found over IPv6 after a moment.
    wait_until("the network", || {
        (ways() == [Open, Open, Open, Open]).then_some(())
    });
    let attached = attach(&lab, "cut", &[]);
    effect(&lab, "done");
    assert_eq!(ways(), [Cut, Cut, Open, Open]);
    spotsim(&lab, &["cancel", "it"]).expect("cancel");
    wait_until("the network is there again", || {
        (ways() == [Open, Open, Open, Open]).then_some(())
    });
    drop(attached);
}

/// The way to IMDS leads over loopback, and is cut with everything else; what the responder had
/// with its clients does not stay.
#[test]
fn its_imds_is_gone_and_costs_nothing() {
    let Some(lab) = Lab::new() else { return };
    let _workload = lab.workload_process();
    let attached = attach(&lab, "cut", &["--lead", "8s"]);
    let sockets = || tests::Held::by(attached.pid()).unwrap().sockets;
    let before = sockets();
    let path = "/latest/meta-data/spot/instance-action";
    assert_eq!(lab.inside().get(path).status(), 200);
    wait_until("the connection is over", || {
        (sockets() <= before).then_some(())
    });
    // Connections on which nothing is asked.
    let idle: Vec<Held> = (0..6)
        .map(|_| Held::open(&lab.inside(), "169.254.169.254", "80"))
        .collect();
    wait_until("the connections are there", || {
        (sockets() >= before + 6).then_some(())
    });
    effect(&lab, "done");
    let url = format!("http://169.254.169.254{path}");
    let args = ["curl", "-s", "--max-time", "1", &url];
    assert_eq!(
        run(lab.inside().command_line(args), b"").code,
        28,
        "curl's time-out"
    );
    wait_until("the connections are given up", || {
        (sockets() <= before).then_some(())
    });
    drop(idle);
}

/// At any moment: there is no cut without spotsim.
#[test]
fn killed_at_any_moment_it_leaves_no_cut() {
    let Some(lab) = Lab::bare() else { return };
    let _inside = serve(&lab.inside(), INSIDE);
    for round in 0..6 {
        let mut attached = attach(&lab, "cut", &[]);
        attached.stderr_line("the deadline of ", 0);
        sleep(Duration::from_micros(300 * round));
        attached.signal(Signal::SIGKILL);
        assert_eq!(attached.finish().code, 128 + 9);
        let reached = reaches(&lab.outside(), &LOOPBACK, INSIDE);
        assert_eq!(reached, Open, "round {round}");
    }
}
