//! spotsim gives a workload no IMDS, and so no node credentials, that it did not have.

use tests::{Finished, Lab, NetNs, Place, Spotsim, Upstream, Via, client, get, run};

const NOTICE: &str = "/latest/meta-data/spot/instance-action";
const CREDENTIALS: &str = "/latest/meta-data/iam/security-credentials/upstream-role";

/// A lab whose workload cannot reach the node, where IMDS is.
fn without_a_route(build: fn(&Lab) -> NetNs) -> Option<Lab> {
    let mut lab = Lab::new()?;
    lab.pod = Some(build(&lab));
    Some(lab)
}

fn only_loopback(_: &Lab) -> NetNs {
    NetNs::new()
}

/// As a network policy or a `DROP` rule for IMDS acts: there is a network, but no such route.
fn a_network_without_that_route(lab: &Lab) -> NetNs {
    let pod = NetNs::new();
    lab.node.connect_pod(&pod);
    pod.ip("route add unreachable 169.254.169.254/32
            -6 route add unreachable fd00:ec2::254/128");
    pod
}

fn gains_nothing(lab: Option<Lab>) {
    let Some(lab) = lab else { return };
    let upstream = Upstream::start(&lab, &[]);
    let _workload = lab.workload_process();

    // The node has an IMDS with credentials to give; the workload has none.
    let node = lab.place(&lab.node, &lab.beside);
    assert_eq!(node.get(CREDENTIALS).status(), 200);
    let before = upstream.seen().len();
    assert_eq!(lab.inside().try_send(Via::V4, &get(CREDENTIALS)).code, 1);

    let spotsim = Spotsim::attach(&lab, &[]);
    for via in Via::ALL {
        let finished = lab.inside().try_send(via, &get(NOTICE));
        let answer = finished.text();
        assert!(
            answer.ends_with(&spotsim.armed.instance_action()),
            "the notice needs no IMDS ({via:?}): {answer:?} {}\n{}",
            finished.stderr,
            spotsim.stderr()
        );
        let put = "PUT /latest/api/token HTTP/1.1\r\nHost: 169.254.169.254\r\n\
                   X-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n";
        for request in [
            get(CREDENTIALS),
            get("/latest/user-data"),
            put.as_bytes().to_vec(),
        ] {
            let finished = lab.inside().try_send(via, &request);
            assert_eq!(finished.text(), "", "{via:?}: {}", request.escape_ascii());
        }
    }
    assert_eq!(
        upstream.seen().len(),
        before,
        "nothing was asked on its behalf"
    );

    // Nor with a client that insists.
    let url = format!("http://169.254.169.254{CREDENTIALS}");
    let curl = [
        "curl",
        "-s",
        "--max-time",
        "2",
        "--retry",
        "2",
        "--retry-all-errors",
        &url,
    ];
    assert_ne!(run(lab.inside().command_line(curl), b"").code, 0);
    assert_eq!(upstream.seen().len(), before);
}

#[test]
fn a_workload_without_a_network_gains_nothing() {
    gains_nothing(without_a_route(only_loopback));
}

#[test]
fn a_workload_without_that_route_gains_nothing() {
    gains_nothing(without_a_route(a_network_without_that_route));
}

/// curl's body of a path, as root or as nobody.
fn curl(place: &Place, user: &str, host: &str, path: &str) -> Finished {
    let url = format!("http://{host}{path}");
    let setpriv = [
        "setpriv",
        "--reuid",
        user,
        "--regid",
        user,
        "--clear-groups",
    ];
    let curl = ["curl", "-sS", "-f", "--max-time", "5", &url];
    run(place.command_line([&setpriv[..], &curl].concat()), b"")
}

/// As `iptables -m owner` does, a routing rule can keep one user of a namespace from IMDS.
fn a_user_who_is_kept_out_gains_nothing(verdict: &str) {
    const ROOT: &str = "0";
    const NOBODY: &str = "65534";
    const HOSTS: [&str; 2] = ["169.254.169.254", "[fd00:ec2::254]"];
    let Some(lab) = Lab::with_pod() else { return };
    let upstream = Upstream::start(&lab, &[]);
    let rule = format!("rule add prio 10 uidrange {NOBODY}-{NOBODY} to");
    lab.workload().ip(&format!(
        "{rule} 169.254.169.254 {verdict}
         -6 {rule} fd00:ec2::254 {verdict}"
    ));
    let _workload = lab.workload_process();
    let spotsim = Spotsim::attach(&lab, &[]);
    for host in HOSTS {
        let direct = curl(&lab.outside(), NOBODY, host, CREDENTIALS);
        assert_eq!((direct.code, direct.text().as_str()), (7, ""), "{host}");
        let before = upstream.seen().len();
        let notice = curl(&lab.inside(), NOBODY, host, NOTICE).expect("the notice");
        assert_eq!(notice, spotsim.armed.instance_action(), "{host}");
        let through = curl(&lab.inside(), NOBODY, host, CREDENTIALS);
        assert_eq!(through.text(), "", "{host}");
        // Refused, an empty reply, or a reset.
        assert!([7, 52, 56].contains(&through.code), "{}", through.stderr);
        assert_eq!(upstream.seen().len(), before, "nothing was asked for it");

        let root = curl(&lab.inside(), ROOT, host, CREDENTIALS).expect("root");
        assert!(root.contains("SecretAccessKey"), "{root}");
    }
}

#[test]
fn a_user_without_a_route_gains_nothing() {
    a_user_who_is_kept_out_gains_nothing("unreachable");
}

#[test]
fn a_user_who_is_prohibited_gains_nothing() {
    a_user_who_is_kept_out_gains_nothing("prohibit");
}

/// Else whoever is kept from IMDS would find another way to it on loopback.
#[test]
fn who_dials_the_listener_is_reset() {
    let Some(lab) = Lab::with_pod() else { return };
    let upstream = Upstream::start(&lab, &[]);
    let _workload = lab.workload_process();
    let _spotsim = Spotsim::attach(&lab, &[]);
    let listeners = lab.workload().listeners();
    assert_eq!(listeners.len(), 2, "{listeners:?}");
    for listener in listeners {
        for path in [CREDENTIALS, NOTICE] {
            let mut command = lab.outside().command(client());
            command.args(["raw", &listener.to_string()]);
            let finished = run(command, &get(path));
            assert_eq!(finished.text(), "", "{listener}");
            assert!(
                finished.stderr.contains("Connection reset"),
                "{listener}: {}",
                finished.stderr
            );
        }
    }
    assert_eq!(upstream.seen(), [], "nothing was asked on its behalf");
}
