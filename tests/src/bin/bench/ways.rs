//! The ways on which a client's request comes to an answer: directly, through spotsim, and those
//! of today. Each has a client of its own; the same server stands at the end of all.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use tests::{Cgroup, Lab, NetNs, Place, Running, attach_args, in_run_dir, spotsim_binary};

use crate::{
    client::{Client, IMDS},
    relay,
};

/// A way, by the name that it has in tables.
pub struct Way {
    pub name: &'static str,
    pub client: Client,
}

pub const DIRECT: &str = "direct";
pub const FAKED: &str = "spotsim, faked";
pub const CHECKED: &str = "spotsim, faked, IMDS asked for its verdict";
pub const PASSED: &str = "spotsim, passed through";
pub const POD_DIRECT: &str = "direct, from a pod";
pub const POD_PASSED: &str = "spotsim, passed through, from a pod";
pub const SOCAT: &str = "lo alias + socat, backlog=1024";
pub const SOCAT_DEFAULT: &str = "lo alias + socat as it comes";
pub const RELAY: &str = "lo alias + a relay that only copies";
pub const DNAT: &str = "nft DNAT";

/// What is asked for: something of about the same size on each way.
const NOTICE: [&str; 2] = ["/latest/meta-data/spot/instance-action", "terminate"];
const INSTANCE: [&str; 2] = ["/latest/meta-data/instance-id", "i-"];

/// Where the server is when something leads to it.
const BEHIND: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8_080);

/// All ways, ready.
pub struct Ways {
    pub ways: Vec<Way>,
    // Dropped before the lab, which is ours for its processor time.
    _running: Vec<Running>,
    _namespaces: Vec<NetNs>,
    _cgroups: Vec<Cgroup>,
    root: Cgroup,
    _lab: Lab,
}

impl Ways {
    /// `None` where nothing can be measured, with the reason printed.
    pub fn new() -> Option<Self> {
        let lab = Lab::new()?;
        let (mut ways, mut running, mut namespaces) = (vec![], vec![], vec![]);
        let root = lab.root.child("measured");
        let mut add = |name, place: &Place, [path, expected]: [&str; 2]| {
            let client = Client::start(place, path, expected);
            ways.push(Way { name, client });
        };

        let outside = lab.place(&lab.node, &root);
        let inside = ["faked", "passed", "pod"].map(|name| root.child(name));
        running.push(serve(&outside, IMDS));
        running.push(attach(&lab, &outside, &inside[0], "synthetic"));
        running.push(attach(&lab, &outside, &inside[1], "real"));
        let [faked, passed] = [&inside[0], &inside[1]].map(|cgroup| lab.place(&lab.node, cgroup));
        let pod = NetNs::new();
        lab.node.connect_pod(&pod);
        let in_pod = lab.place(&pod, &inside[2]);
        running.push(in_pod.sleeper());
        running.push(attach(&lab, &outside, &inside[2], "real"));
        add(DIRECT, &outside, INSTANCE);
        add(FAKED, &faked, NOTICE);
        add(CHECKED, &passed, NOTICE);
        add(PASSED, &passed, INSTANCE);
        add(POD_DIRECT, &lab.place(&pod, &root), INSTANCE);
        add(POD_PASSED, &in_pod, INSTANCE);
        namespaces.push(pod);

        let mut elsewhere = |lead: &dyn Fn(&NetNs, &Place) -> Option<Running>| {
            let net = NetNs::new();
            net.hold_imds_addresses();
            let place = lab.place(&net, &root);
            running.push(serve(&place, &BEHIND.to_string()));
            running.extend(lead(&net, &place));
            namespaces.push(net);
            place
        };
        let [listen, forward] = ["TCP4-LISTEN:80,fork,reuseaddr", &format!("TCP4:{BEHIND}")];
        let socat = |more: &'static str| {
            move |net: &NetNs, place: &Place| {
                let listen = format!("{listen}{more}");
                let socat = Running::start(place.command_line(["socat", &listen, forward]));
                listens(net);
                Some(socat)
            }
        };
        let relay = |net: &NetNs, place: &Place| {
            let mut relay = place.command(env::current_exe().expect("this program"));
            relay.args([relay::ARGUMENT, IMDS, &BEHIND.to_string()]);
            let relay = Running::start(relay);
            listens(net);
            Some(relay)
        };
        add(SOCAT, &elsewhere(&socat(",backlog=1024")), INSTANCE);
        add(SOCAT_DEFAULT, &elsewhere(&socat("")), INSTANCE);
        add(RELAY, &elsewhere(&relay), INSTANCE);
        let nft = |_: &NetNs, place: &Place| {
            let ruleset = format!(
                "table ip imds {{
                    chain output {{
                        type nat hook output priority -100
                        ip daddr 169.254.169.254 tcp dport 80 dnat to {BEHIND}
                    }}
                }}"
            );
            tests::run(place.command_line(["nft", &ruleset]), b"").expect("nft");
            None
        };
        add(DNAT, &elsewhere(&nft), INSTANCE);
        Some(Self {
            ways,
            _running: running,
            _namespaces: namespaces,
            _cgroups: inside.into(),
            root,
            _lab: lab,
        })
    }

    /// In which order a round takes them: there and back, so that none always comes after the same
    /// one.
    pub fn order(&self, round: usize) -> Vec<usize> {
        let there = 0..self.ways.len();
        match round % 2 {
            0 => there.collect(),
            _ => there.rev().collect(),
        }
    }

    /// Processor time so far of everybody on these ways.
    pub fn processor_time(&self) -> Duration {
        let stat = self.root.directory().join("cpu.stat");
        let stat = fs::read_to_string(stat).expect("a cgroup counts its processor time");
        let used = stat
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec "));
        Duration::from_micros(used.and_then(|used| used.parse().ok()).expect("a number"))
    }
}

/// An instance that nothing happens to.
fn serve(place: &Place, listen: &str) -> Running {
    let args = ["serve", "--hold", "--listen", listen, "--run-dir", "run"];
    ready(place, &args.map(str::to_owned), "serving: ")
}

/// The targets' notice is there from the start.
fn attach(lab: &Lab, place: &Place, target: &Cgroup, upstream: &str) -> Running {
    let options = [
        "--upstream",
        upstream,
        "--notice-after",
        "0s",
        "--lead",
        "1h",
    ];
    let args = attach_args(target.directory(), &options);
    ready(place, &in_run_dir(lab, &args), "armed: ")
}

fn ready(place: &Place, args: &[String], line: &str) -> Running {
    let mut command = place.command(spotsim_binary());
    command.args(args);
    let mut running = Running::start(command);
    running.stdout_line(line, 0);
    running
}

fn listens(net: &NetNs) {
    tests::wait_until("somebody listens", || {
        net.listeners()
            .iter()
            .any(|address| address.port() == 80)
            .then_some(())
    });
}
