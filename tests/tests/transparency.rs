//! What spotsim does not fake passes as it is, byte for byte, in both directions.

use tests::{Lab, Response, Running, Spotsim, Upstream, Via, get, run};

/// Paths whose answers must be the same as without spotsim.
const PASSED: [&str; 12] = [
    "/latest/meta-data/placement/",
    "/latest/meta-data/instance-id",
    "/latest/meta-data/placement/availability-zone/",
    "/2021-03-23/meta-data/placement/region",
    "//latest/meta-data/instance-id",
    "/latest/meta-data/iam/security-credentials/",
    "/latest/meta-data/iam/security-credentials/upstream-role",
    "/latest/dynamic/instance-identity/document",
    "/latest/user-data",
    "/latest/meta-data/no-such-item",
    "/latest/api/token",
    "/latest/meta-data/tests/duplicates",
];

const FAKED: &str = "/latest/meta-data/spot/instance-action";

fn request(method: &str, path: &str, headers: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nHost: 169.254.169.254\r\n{headers}\r\n").into_bytes()
}

/// A workload, and spotsim attached to it. That its sockets of every kind are led to spotsim is
/// made sure of here: else the same answers would prove nothing.
fn intercepted(lab: &Lab) -> (Running, Spotsim) {
    let workload = lab.workload_process();
    let spotsim = Spotsim::attach(lab, &[]);
    let token = format!("X-aws-ec2-metadata-token: {}\r\n", lab.outside().token());
    for via in Via::ALL {
        let response = lab.inside().send(via, &request("GET", FAKED, &token));
        assert_eq!(response.text(), spotsim.armed.instance_action(), "{via:?}");
    }
    (workload, spotsim)
}

/// Sends the same request inside and beside the target; the answers must be the same bytes.
fn same_inside_and_outside(lab: &Lab, via: Via, request: &[u8]) -> Response {
    let direct = lab.outside().send(via, request);
    let through = lab.inside().send(via, request);
    assert_eq!(through, direct, "{} over {via:?}", request.escape_ascii());
    through
}

fn answers_are_the_same(lab: Option<Lab>) {
    let Some(lab) = lab else { return };
    let _upstream = Upstream::start(&lab, &[]);
    let (_workload, _spotsim) = intercepted(&lab);
    for via in Via::ALL {
        for path in PASSED {
            let response = same_inside_and_outside(&lab, via, &get(path));
            assert_eq!(response.peer, via.peer());
            same_inside_and_outside(&lab, via, &request("HEAD", path, ""));
        }
    }
}

#[test]
fn answers_are_the_same_on_the_nodes_network() {
    answers_are_the_same(Lab::new());
}

#[test]
fn answers_are_the_same_in_a_pod() {
    answers_are_the_same(Lab::with_pod());
}

#[test]
fn a_reason_phrase_of_the_upstreams_own_arrives() {
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &[]);
    let (_workload, _spotsim) = intercepted(&lab);
    let response = same_inside_and_outside(&lab, Via::V4, &get("/latest/meta-data/tests/reason"));
    assert_eq!(response.status_line(), "HTTP/1.1 200 Quite All Right");
}

#[test]
fn lines_of_one_header_keep_their_order() {
    let Some(lab) = Lab::new() else { return };
    let upstream = Upstream::start(&lab, &[]);
    let (_workload, _spotsim) = intercepted(&lab);
    let dup = |head: &str| -> Vec<String> {
        let lines = head.lines().filter(|line| line.starts_with("X-Dup"));
        lines.map(str::to_owned).collect()
    };
    // Another header stands between them, which HTTP lets a recipient move (RFC 9110, 5.3).
    let headers = "X-Dup: 1\r\nX-Between: 2\r\nX-Dup: 3\r\n";
    let sent = request("GET", "/latest/meta-data/tests/interleaved", headers);
    for place in [lab.inside(), lab.outside()] {
        let answer = place.send(Via::V4, &sent);
        assert_eq!(dup(&answer.head()), ["X-Dup: one", "X-Dup: two"]);
        assert_eq!(answer.header("X-Between").as_deref(), Some("1"));
        let came = String::from_utf8(upstream.seen().pop().unwrap().head).unwrap();
        assert_eq!(dup(&came), ["X-Dup: 1", "X-Dup: 3"]);
        assert!(came.contains("\r\nX-Between: 2\r\n"), "{came}");
    }
}

#[test]
fn an_answer_in_http_1_0_arrives() {
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &["--http10"]);
    let (_workload, _spotsim) = intercepted(&lab);
    for path in PASSED {
        let response = same_inside_and_outside(&lab, Via::V4, &get(path));
        assert!(
            response.status_line().starts_with("HTTP/1.0 "),
            "{response:?}"
        );
    }
}

#[test]
fn requests_reach_the_upstream_as_they_were_sent() {
    let Some(lab) = Lab::with_pod() else { return };
    let upstream = Upstream::start(&lab, &[]);
    let (_workload, _spotsim) = intercepted(&lab);
    let token = lab.outside().token();
    let stale_and_fresh =
        format!("X-aws-ec2-metadata-token: stale\r\nX-aws-ec2-metadata-token: {token}\r\n");
    let requests = [
        request("GET", "/latest/meta-data/instance-id", &stale_and_fresh),
        request(
            "GET",
            "/latest/meta-data/instance-id",
            "x-ODD-Case: Kept\r\nA: 1\r\na: 2\r\nB: a, \"b\"\r\n",
        ),
        request(
            "GET",
            "//latest/meta-data//instance-id/?a=b&c=%2F%20",
            "Accept: */*\r\n",
        ),
        request(
            "GET",
            "/latest/meta-data/instance-id",
            "Connection: close\r\n",
        ),
        request(
            "GET",
            "/latest/meta-data/instance-id",
            "Connection: keep-alive\r\n",
        ),
        request(
            "GET",
            "/latest/meta-data/instance-id",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n",
        ),
        request(
            "PUT",
            "/latest/api/token",
            "X-aws-ec2-metadata-token-ttl-seconds: 60\r\nContent-Length: 0\r\n",
        ),
        request("PUT", "/latest/api/token", "X-Forwarded-For: 10.0.0.1\r\n"),
        request("GET", FAKED, &stale_and_fresh),
        b"GET /latest/meta-data/instance-id HTTP/1.0\r\n\r\n".to_vec(),
    ];
    let mut differences = Vec::new();
    for sent in requests {
        let before = upstream.seen().len();
        lab.inside().send(Via::V4, &sent);
        let seen = upstream.seen().split_off(before);
        assert_eq!(seen.len(), 1, "one request for one: {seen:?}");
        assert!(
            seen[0].peer.starts_with("10.11.12.2:"),
            "from the pod: {seen:?}"
        );
        if seen[0].head != sent {
            let [sent, came] = [&sent, &seen[0].head].map(|head| head.escape_ascii().to_string());
            differences.push(format!("sent {sent}\ncame {came}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn nothing_tells_the_upstream_that_a_proxy_stands_between() {
    let Some(lab) = Lab::new() else { return };
    let upstream = Upstream::start(&lab, &[]);
    let (_workload, _spotsim) = intercepted(&lab);
    let before = upstream.seen().len();
    for via in Via::ALL {
        for path in [FAKED, "/latest/meta-data/instance-id", "/latest/user-data"] {
            lab.inside().send(via, &get(path));
        }
    }
    lab.inside().token();
    let seen = upstream.seen().split_off(before);
    assert_eq!(seen.len(), 10, "{seen:?}");
    for seen in seen {
        let head = String::from_utf8(seen.head).unwrap().to_ascii_lowercase();
        for name in ["x-forwarded-for", "forwarded", "via", "x-real-ip"] {
            assert!(!head.contains(&format!("\r\n{name}:")), "{head}");
        }
    }
}

#[test]
fn refusals_of_the_upstream_pass_for_faked_paths_too() {
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &["--require-v2"]);
    let (_workload, spotsim) = intercepted(&lab);
    let refused = |method: &str, headers: &str, status: u16| {
        for path in [FAKED, "/2016-11-15/meta-data/spot/instance-action"] {
            let sent = request(method, path, headers);
            let response = same_inside_and_outside(&lab, Via::V4, &sent);
            assert_eq!(response.status(), status, "{response:?}");
        }
    };
    refused("GET", "", 401);
    refused("HEAD", "", 401);
    refused("GET", "X-aws-ec2-metadata-token: stale\r\n", 401);
    let forwarded = "X-aws-ec2-metadata-token: stale\r\nX-Forwarded-For: 10.0.0.1\r\n";
    refused("GET", forwarded, 403);
    refused("PUT", "X-aws-ec2-metadata-token-ttl-seconds: 60\r\n", 403);
    refused("POST", "Content-Length: 0\r\n", 405);
    refused("DELETE", "", 405);

    // None of which was for want of the notice.
    let header = format!("X-aws-ec2-metadata-token: {}\r\n", lab.inside().token());
    let response = lab.inside().send(Via::V4, &request("GET", FAKED, &header));
    assert_eq!(response.text(), spotsim.armed.instance_action());
}

#[test]
fn a_head_of_a_faked_path_is_its_get_without_the_body() {
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &[]);
    let (_workload, _spotsim) = intercepted(&lab);
    let whole = lab.inside().get(FAKED);
    let head = lab.inside().send(Via::V4, &request("HEAD", FAKED, ""));
    assert_eq!(head.head(), whole.head());
    assert_eq!(head.body(), b"");
    assert_eq!(whole.status(), 200);
}

#[test]
fn tokens_live_on_after_spotsim() {
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &["--require-v2"]);
    let before = lab.inside().token();
    let (_workload, spotsim) = intercepted(&lab);
    let during = lab.inside().token();
    let read = |token: &str| {
        let header = format!("X-aws-ec2-metadata-token: {token}\r\n");
        lab.inside()
            .send(
                Via::V4,
                &request("GET", "/latest/meta-data/instance-id", &header),
            )
            .status()
    };
    assert_eq!((read(&before), read(&during)), (200, 200), "while attached");
    spotsim.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(spotsim.into_process().finish().code, 0);
    assert_eq!((read(&before), read(&during)), (200, 200), "after it");
    assert_eq!(read("never issued"), 401);
}

/// A socket bound to a device would wait for ever once it was led to loopback.
fn a_client_bound_to_a_device_is_answered(lab: Option<Lab>, device: &str) {
    let Some(lab) = lab else { return };
    let _upstream = Upstream::start(&lab, &[]);
    let (_workload, spotsim) = intercepted(&lab);
    for host in ["169.254.169.254", "[fd00:ec2::254]"] {
        let url = format!("http://{host}{FAKED}");
        let curl = [
            "curl",
            "-sS",
            "--max-time",
            "5",
            "--interface",
            device,
            &url,
        ];
        let text = run(lab.inside().command_line(curl), b"").expect(host);
        assert_eq!(text, spotsim.armed.instance_action(), "{host}");
    }
}

#[test]
fn a_client_bound_to_a_pods_device_is_answered() {
    a_client_bound_to_a_device_is_answered(Lab::with_pod(), "eth0");
}

#[test]
fn a_client_bound_to_loopback_is_answered() {
    a_client_bound_to_a_device_is_answered(Lab::new(), "lo");
}

/// To bind such a socket to loopback instead takes a capability that this client lacks. It must
/// not be led to where it never arrives.
#[test]
fn a_client_bound_to_a_device_for_good_reaches_imds() {
    let Some(lab) = Lab::with_pod() else { return };
    let upstream = Upstream::start(&lab, &[]);
    let (_workload, mut spotsim) = intercepted(&lab);
    let unprivileged = [
        "setpriv",
        "--reuid",
        "65534",
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
    ];
    for (host, peer) in [
        ("169.254.169.254", "10.11.12.2:"),
        ("[fd00:ec2::254]", "[fd0b::2]:"),
    ] {
        let url = format!("http://{host}{FAKED}");
        let curl = ["curl", "-sS", "--max-time", "5", "--interface", "eth0"];
        let status = ["-o", "/dev/null", "-w", "%{http_code}", &url];
        let line = [&unprivileged[..], &curl, &status].concat();
        let before = (upstream.seen().len(), spotsim.stderr().len());
        let status = run(lab.inside().command_line(line), b"").expect(host);
        assert_eq!(status, "404", "{host}: {}", spotsim.stderr());
        let seen = upstream.seen().split_off(before.0);
        assert_eq!(seen.len(), 1, "{host}: {seen:?}");
        assert!(seen[0].peer.starts_with(peer), "{seen:?}");
        let line = spotsim.stderr_line("missed: curl[", before.1);
        assert!(line.contains("bound to a device"), "{line}");
    }
}

/// `nc -N` does so, for one.
#[test]
fn a_client_that_sent_its_last_word_is_answered() {
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &["--delay-ms", "100"]);
    let (_workload, spotsim) = intercepted(&lab);
    for via in Via::ALL {
        for path in ["/latest/meta-data/instance-id", "/latest/user-data"] {
            let whole = lab.outside().send(via, &get(path));
            let through = lab.inside().send_and_half_close(via, &get(path));
            assert_eq!(through, whole, "{path} over {via:?}");
        }
        let faked = lab.inside().send_and_half_close(via, &get(FAKED));
        assert_eq!(faked.text(), spotsim.armed.instance_action(), "{via:?}");
        let ttl = "X-aws-ec2-metadata-token-ttl-seconds: 60\r\n";
        let put = request("PUT", "/latest/api/token", ttl);
        let token = lab.inside().send_and_half_close(via, &put);
        assert_eq!((token.status(), token.body().len()), (200, 56), "{token:?}");
    }
}
