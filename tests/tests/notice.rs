//! The notice itself: where it appears, when, and in what form.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use regex::Regex;
use tests::{
    Armed, Lab, Place, Response, Running, Spotsim, Upstream, Via, get, patient, wait_until,
};

const ACTION: &str = "/latest/meta-data/spot/instance-action";
const TIME: &str = "/latest/meta-data/spot/termination-time";

fn armed_lab(options: &[&str]) -> Option<(Lab, Upstream, Running, Spotsim)> {
    let lab = Lab::new()?;
    let upstream = Upstream::start(&lab, &[]);
    let workload = lab.workload_process();
    let spotsim = Spotsim::attach(&lab, options);
    Some((lab, upstream, workload, spotsim))
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Between the notice and the deadline, as the armed line gives both. The notice's fraction of
/// a second is not shown, and the deadline is rounded up.
fn lead(armed: &Armed) -> SignedDuration {
    time(&armed.deadline).duration_since(time(&armed.notice))
}

fn assert_lead(armed: &Armed, seconds: i64) {
    let lead = lead(armed).as_secs();
    assert!(
        (seconds..=seconds + 1).contains(&lead),
        "{lead} s, not {seconds} s: {}",
        armed.line
    );
}

/// Headers and body as the real service sends them for a text item.
fn assert_form(response: &Response, value: &str) {
    assert_eq!(
        response.text(),
        value,
        "byte for byte, without a line's end"
    );
    let shape = r"^HTTP/1\.1 200 OK\r
Content-Type: text/plain\r
Accept-Ranges: none\r
Last-Modified: [A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT\r
Content-Length: (\d+)\r
Date: [A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT\r
Server: EC2ws\r
Connection: close$";
    let head = response.head();
    let shape = Regex::new(shape).unwrap();
    let parts = shape
        .captures(&head)
        .unwrap_or_else(|| panic!("not as the service: {head}"));
    assert_eq!(parts[1], value.len().to_string());
}

#[test]
fn terminate() {
    let Some((lab, _upstream, _workload, spotsim)) = armed_lab(&[]) else {
        return;
    };
    let armed = &spotsim.armed;
    assert_eq!(armed.action, "terminate");
    assert_lead(armed, 120);
    let from_now = time(&armed.notice)
        .duration_since(Timestamp::now())
        .as_secs();
    assert!(
        (-5..=0).contains(&from_now),
        "the notice is there at once: {}",
        armed.line
    );

    let action = lab.inside().get(ACTION);
    let shape = r#"^\{"action": "terminate", "time": "\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"\}$"#;
    assert!(
        Regex::new(shape).unwrap().is_match(&action.text()),
        "{action:?}"
    );
    assert_form(&action, &armed.instance_action());
    assert_form(&lab.inside().get(TIME), &armed.deadline);
    assert_eq!(lab.outside().get(ACTION).status(), 404);
}

/// Only a termination has a `termination-time`.
fn has_no_termination_time(action: &str, lead: i64) {
    let Some((lab, _upstream, _workload, spotsim)) = armed_lab(&["--action", action]) else {
        return;
    };
    assert_eq!(spotsim.armed.action, action);
    assert_lead(&spotsim.armed, lead);
    assert_form(&lab.inside().get(ACTION), &spotsim.armed.instance_action());
    let time = lab.inside().get(TIME);
    assert_eq!((time.status(), time.body().len()), (404, 339), "{time:?}");
}

#[test]
fn stop() {
    has_no_termination_time("stop", 120);
}

#[test]
fn hibernate() {
    has_no_termination_time("hibernate", 0);
}

#[test]
fn the_lead_can_be_chosen() {
    for (lead, seconds) in [("90s", 90), ("1h30m", 5_400), ("0s", 0)] {
        let Some((lab, _upstream, _workload, spotsim)) = armed_lab(&["--lead", lead]) else {
            return;
        };
        assert_lead(&spotsim.armed, seconds);
        assert_eq!(lab.inside().get(TIME).text(), spotsim.armed.deadline);
    }
}

#[test]
fn it_appears_when_its_time_has_come() {
    let after = patient(Duration::from_secs(2));
    let options = ["--notice-after", &format!("{}s", after.as_secs())];
    let Some((lab, _upstream, _workload, spotsim)) = armed_lab(&options) else {
        return;
    };
    let started = Instant::now();
    let appears = time(&spotsim.armed.notice);
    assert_lead(&spotsim.armed, 120);
    let direct = lab.outside().get(ACTION);
    assert_eq!(
        lab.inside().get(ACTION),
        direct,
        "until then the upstream's 404"
    );
    assert_eq!(lab.inside().get(TIME).status(), 404);
    let mut missed = None;
    let (response, seen) = wait_until("the notice", || {
        let began = Timestamp::now();
        let response = lab.inside().get(ACTION);
        if response.status() == 200 {
            return Some((response, Timestamp::now()));
        }
        missed = Some(began);
        None
    });
    assert_form(&response, &spotsim.armed.instance_action());
    assert!(seen >= appears, "{seen} is before {appears}");
    // The armed line gives whole seconds; how long a request takes does not count.
    let late = missed.map(|missed| missed.duration_since(appears));
    let latest = SignedDuration::from_millis(1_500);
    assert!(late < Some(latest), "{late:?} after {appears}");
    let waited = started.elapsed();
    assert!(waited > after * 3 / 4, "already after {waited:?}");
}

#[test]
fn its_times_are_frozen() {
    let Some((lab, _upstream, _workload, spotsim)) = armed_lab(&[]) else {
        return;
    };
    let read = |path: &str| lab.inside().get(path).text();
    let (action, time) = (read(ACTION), read(TIME));
    sleep(Duration::from_millis(1_100));
    assert_eq!((read(ACTION), read(TIME)), (action.clone(), time.clone()));
    assert_eq!(time, spotsim.armed.deadline);
    assert!(
        action.contains(&format!("\"{time}\"")),
        "{action} and {time} agree"
    );
}

#[test]
fn it_stays_after_the_deadline() {
    let options = ["--lead", "0s", "--action", "hibernate"];
    let Some((lab, _upstream, _workload, spotsim)) = armed_lab(&options) else {
        return;
    };
    sleep(Duration::from_millis(1_100));
    assert!(time(&spotsim.armed.deadline) <= Timestamp::now());
    assert_eq!(
        lab.inside().get(ACTION).text(),
        spotsim.armed.instance_action()
    );
}

#[test]
fn it_is_at_every_path_by_which_clients_ask() {
    let Some((lab, _upstream, _workload, spotsim)) = armed_lab(&[]) else {
        return;
    };
    let place = lab.inside();
    for prefix in [
        "/latest/meta-data/spot",
        "//latest/meta-data/spot",
        "/latest//meta-data/spot",
        "/2021-07-15/meta-data/spot",
        "/2021-03-23/meta-data/spot",
        "/2016-11-15/meta-data/spot",
    ] {
        for end in ["", "/"] {
            for via in Via::ALL {
                let ask = |item: &str| place.send(via, &get(&format!("{prefix}/{item}{end}")));
                assert_form(&ask("instance-action"), &spotsim.armed.instance_action());
                assert_form(&ask("termination-time"), &spotsim.armed.deadline);
            }
        }
    }
}

#[test]
fn it_is_nowhere_else() {
    let Some((lab, _upstream, _workload, spotsim)) = armed_lab(&[]) else {
        return;
    };
    assert_eq!(
        lab.inside().get(ACTION).text(),
        spotsim.armed.instance_action()
    );
    for path in [
        "/latest/meta-data/spot/instance-actions",
        "/latest/meta-data/spot/instance-action/more",
        "/latest/meta-data/SPOT/instance-action",
        "/latest/spot/instance-action",
        "/latest/dynamic/spot/instance-action",
        "/meta-data/spot/instance-action",
        "/newest/meta-data/spot/instance-action",
        "/x/latest/meta-data/spot/instance-action",
        "/latest/meta-data/instance-action",
    ] {
        assert_eq!(lab.inside().get(path), lab.outside().get(path), "{path}");
    }
}

#[test]
fn tokens_are_served_like_the_service_does() {
    let Some((lab, _upstream, _workload, spotsim)) = armed_lab(&[]) else {
        return;
    };
    let with = |place: &Place, token: &str| {
        let request = format!(
            "GET {ACTION} HTTP/1.1\r\nHost: 169.254.169.254\r\nX-aws-ec2-metadata-token: {token}\r\n\r\n"
        );
        place.send(Via::V4, request.as_bytes())
    };
    for token in [lab.inside().token(), lab.outside().token()] {
        let response = with(&lab.inside(), &token);
        assert_eq!(response.text(), spotsim.armed.instance_action());
        assert_eq!(with(&lab.outside(), &token).status(), 404);
    }
    assert_eq!(with(&lab.inside(), "stale").status(), 401);
}

#[test]
fn the_synthetic_instance_knows_its_own_tokens() {
    let Some(lab) = Lab::new() else { return };
    let _workload = lab.workload_process();
    let spotsim = Spotsim::attach_to(&lab, &lab.target, &["--upstream", "synthetic"]);
    let place = lab.inside();
    let ask = |method: &str, path: &str, headers: &str| {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: 169.254.169.254\r\n{headers}\r\n");
        place.send(Via::V4, request.as_bytes())
    };
    let ttl = |seconds: &str| format!("X-aws-ec2-metadata-token-ttl-seconds: {seconds}\r\n");
    let issued = ask("PUT", "/latest/api/token", &ttl("60"));
    assert_eq!(
        (issued.status(), issued.body().len()),
        (200, 56),
        "{issued:?}"
    );
    assert_eq!(
        issued
            .header("X-Aws-Ec2-Metadata-Token-Ttl-Seconds")
            .as_deref(),
        Some("60")
    );
    for bad in ["0", "21601", "-1", "soon", ""] {
        assert_eq!(
            ask("PUT", "/latest/api/token", &ttl(bad)).status(),
            400,
            "{bad:?}"
        );
    }
    assert_eq!(ask("PUT", "/latest/api/token", "").status(), 400);
    let forwarded = format!("{}X-Forwarded-For: 10.0.0.1\r\n", ttl("60"));
    assert_eq!(ask("PUT", "/latest/api/token", &forwarded).status(), 403);
    assert_eq!(
        ask("PUT", "/2021-03-23/api/token", &ttl("60")).status(),
        403
    );
    let allowed = ask("GET", "/latest/api/token", "");
    assert_eq!(allowed.status_line(), "HTTP/1.1 405 Not Allowed");
    assert_eq!(allowed.header("Allow").as_deref(), Some("OPTIONS, PUT"));

    let token = format!("X-aws-ec2-metadata-token: {}\r\n", issued.text());
    for path in [ACTION, "/latest/meta-data/instance-id"] {
        let read = ask("GET", path, &token);
        assert_eq!(read.status(), 200, "{path}");
        let left = read.header("X-Aws-Ec2-Metadata-Token-Ttl-Seconds").unwrap();
        let left: u64 = left.parse().unwrap();
        assert!((50..=60).contains(&left), "{left} s left of 60");
        let refused = ask("GET", path, "X-aws-ec2-metadata-token: stale\r\n");
        assert_eq!(
            (refused.status(), refused.body()),
            (401, &b""[..]),
            "{path}"
        );
        let forwarded = format!("{token}X-Forwarded-For: 10.0.0.1\r\n");
        assert_eq!(ask("GET", path, &forwarded).status(), 403, "{path}");
    }
    assert_eq!(
        ask("GET", ACTION, "").text(),
        spotsim.armed.instance_action()
    );
    assert_eq!(
        ask("GET", "/latest/meta-data/instance-life-cycle", "").text(),
        "spot"
    );

    let text = |path: &str| ask("GET", path, "").text();
    let document = text("/latest/dynamic/instance-identity/document");
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    for (member, path) in [
        ("instanceId", "instance-id"),
        ("instanceType", "instance-type"),
        ("region", "placement/region"),
        ("availabilityZone", "placement/availability-zone"),
    ] {
        assert_eq!(
            document[member],
            text(&format!("/latest/meta-data/{path}")).as_str()
        );
    }
    let role = text("/latest/meta-data/iam/security-credentials/");
    let credentials = text(&format!(
        "/latest/meta-data/iam/security-credentials/{role}"
    ));
    let credentials: serde_json::Value = serde_json::from_str(&credentials).unwrap();
    assert_eq!(credentials["Code"], "Success");
    assert_eq!(credentials["Type"], "AWS-HMAC");
    let expiration = credentials["Expiration"].as_str().unwrap();
    assert!(time(expiration) > Timestamp::now(), "{expiration}");
    let missing = ask("GET", "/latest/meta-data/no-such-item", "");
    assert_eq!((missing.status(), missing.body().len()), (404, 339));
}
