//! The lab itself: what the other tests take for granted.

use tests::{Lab, NetNs, Upstream, Via, get, is_running, run};

#[test]
fn the_upstream_acts_like_imds() {
    let Some(lab) = Lab::new() else { return };
    let upstream = Upstream::start(&lab, &[]);
    let place = lab.outside();

    let put = |ttl: &str, more: &str| {
        let request = format!(
            "PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: {ttl}\r\n{more}\r\n"
        );
        place.send(Via::V4, request.as_bytes())
    };
    let issued = put("60", "");
    assert_eq!(issued.status(), 200);
    assert_eq!(issued.body().len(), 56);
    assert_eq!(
        issued
            .header("x-aws-ec2-metadata-token-ttl-seconds")
            .unwrap(),
        "60"
    );
    for ttl in ["0", "21601", "", "soon"] {
        assert_eq!(put(ttl, "").status(), 400, "ttl {ttl:?}");
    }
    assert_eq!(put("60", "X-Forwarded-For: 10.0.0.1\r\n").status(), 403);

    let with = |header: &str| {
        let request = format!("GET /latest/meta-data/instance-id HTTP/1.1\r\n{header}\r\n");
        place.send(Via::V4, request.as_bytes())
    };
    let token = issued.text();
    let read = with(&format!("x-aws-ec2-metadata-token: {token}\r\n"));
    assert_eq!(read.status(), 200);
    let left: u64 = read
        .header("X-Aws-Ec2-Metadata-Token-Ttl-Seconds")
        .unwrap()
        .parse()
        .unwrap();
    assert!((50..=60).contains(&left), "{left} s left of 60");
    let refused = with("X-aws-ec2-metadata-token: stale\r\n");
    assert_eq!((refused.status(), refused.body()), (401, &b""[..]));
    let twice = format!("X-aws-ec2-metadata-token: stale\r\nX-aws-ec2-metadata-token: {token}\r\n");
    assert_eq!(with(&twice).status(), 200);
    assert_eq!(with("").status(), 200);

    let missing = place.get("/latest/meta-data/spot/instance-action");
    assert_eq!((missing.status(), missing.body().len()), (404, 339));
    let allowed = place.get("/latest/api/token");
    assert_eq!(
        (allowed.status(), allowed.header("Allow").unwrap().as_str()),
        (405, "OPTIONS, PUT")
    );
    assert_eq!(upstream.seen().len(), 12);
}

#[test]
fn tokens_can_be_required() {
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &["--require-v2"]);
    assert_eq!(
        lab.outside().get("/latest/meta-data/instance-id").status(),
        401
    );
}

#[test]
fn a_pod_reaches_the_nodes_imds_on_every_kind_of_socket() {
    let Some(lab) = Lab::with_pod() else { return };
    let upstream = Upstream::start(&lab, &[]);
    for via in Via::ALL {
        let response = lab
            .inside()
            .send(via, &get("/latest/meta-data/placement/region"));
        assert_eq!(response.text(), "eu-central-1");
        assert_eq!(response.peer, via.peer());
    }
    let peers = upstream
        .seen()
        .into_iter()
        .map(|seen| seen.peer)
        .collect::<Vec<_>>();
    assert!(peers[0].starts_with("10.11.12.2:"), "{peers:?}");
    assert!(peers[1].starts_with("[fd0b::2]:"), "{peers:?}");
    assert!(peers[2].starts_with("10.11.12.2:"), "{peers:?}");
}

#[test]
fn nothing_is_reached_from_a_namespace_with_only_loopback() {
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &[]);
    let alone = NetNs::new();
    let place = lab.place(&alone, &lab.beside);
    for via in Via::ALL {
        let finished = place.try_send(via, &get("/"));
        assert_eq!(finished.code, 1);
        assert!(
            finished.stderr.contains("unreachable"),
            "{}",
            finished.stderr
        );
    }
}

#[test]
fn a_process_runs_in_the_cgroup_it_was_put_in() {
    let Some(lab) = Lab::bare() else { return };
    let finished = run(lab.inside().command_line(["cat", "/proc/self/cgroup"]), b"");
    let path = format!("0::{}", lab.target.path().display());
    assert!(
        finished.text().lines().any(|line| line == path),
        "{}",
        finished.text()
    );
}

#[test]
fn a_dropped_lab_leaves_nothing() {
    let Some(lab) = Lab::new() else { return };
    let (directory, cgroup) = (lab.directory.clone(), lab.root.directory().to_owned());
    let orphaning = ["sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!"];
    let pid = run(lab.inside().command_line(orphaning), b"").expect("sh");
    let pid = pid.trim().parse().unwrap();
    assert!(is_running(pid));
    drop(lab);
    assert!(!is_running(pid), "{pid} is left");
    for path in [directory, cgroup] {
        assert!(!path.exists(), "{} is left", path.display());
    }
}
