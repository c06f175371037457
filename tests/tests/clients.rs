//! Real IMDS clients, with no configuration at all: those in the target see the notice, the
//! same ones beside it see what IMDS says.

use serde_json::Value;
use tests::{Finished, Lab, Place, Spotsim, Upstream, helper, node, python, run, say};

const NOTICE: &str = "/latest/meta-data/spot/instance-action";

/// One client: its command at a place, and how it shows what it saw.
struct Client {
    name: &'static str,
    read: fn(&Place) -> Value,
    /// The requests that reach IMDS when it looks for a notice beside the target.
    asks: &'static [&'static str],
}

const CURL: Client = Client {
    name: "curl",
    read: |place| {
        let script = r#"
            token=$(curl -sf -X PUT http://169.254.169.254/latest/api/token \
                -H 'X-aws-ec2-metadata-token-ttl-seconds: 60') || exit
            curl -s -w '\n%{http_code} %{remote_ip} %{remote_port}\n' \
                -H "X-aws-ec2-metadata-token: $token" \
                http://169.254.169.254/latest/meta-data/spot/instance-action"#;
        let text = run(place.command_line(["sh", "-c", script]), b"").expect("curl");
        let (body, facts) = text.trim_end().rsplit_once('\n').unwrap();
        let facts: Vec<&str> = facts.split(' ').collect();
        assert_eq!(
            facts[1..],
            ["169.254.169.254", "80"],
            "the peer that curl shows"
        );
        seen(facts[0].parse().unwrap(), body)
    },
    asks: &[
        "PUT /latest/api/token",
        "GET /latest/meta-data/spot/instance-action",
    ],
};

const BOTOCORE: Client = Client {
    name: "botocore",
    read: |place| {
        let found = json(&run(place.command_line(python("botocore_imds.py")), b""));
        assert_eq!(found["token"], true, "{found}");
        assert_eq!(found["access_key"], "ASIAUPSTREAMEXAMPLE0", "{found}");
        assert_eq!(found["region"], "eu-central-1", "{found}");
        found
    },
    asks: &[
        "PUT /latest/api/token",
        "GET /latest/meta-data/spot/instance-action",
        "PUT /latest/api/token",
        "GET /latest/meta-data/iam/security-credentials/",
        "GET /latest/meta-data/iam/security-credentials/upstream-role",
        "PUT /latest/api/token",
        "GET /latest/meta-data/placement/availability-zone/",
    ],
};

const EC2_METADATA: Client = Client {
    name: "ec2-metadata",
    read: |place| {
        json(&run(
            place.command_line(python("ec2_metadata_imds.py")),
            b"",
        ))
    },
    asks: &[
        "PUT /latest/api/token",
        "GET /latest/meta-data/spot/instance-action",
    ],
};

const METADATA_SERVICE: Client = Client {
    name: "@aws-sdk/ec2-metadata-service",
    read: |place| json(&run(place.command_line(node("metadata-service.mjs")), b"")),
    asks: &[
        "PUT /latest/api/token",
        "GET //latest/meta-data/spot/instance-action",
    ],
};

const AWS_CONFIG: Client = Client {
    name: "aws-config",
    read: |place| {
        let mut command = place.command(helper("aws-imds"));
        command.arg(NOTICE);
        let found = json(&run(command, b""));
        let status = found["status"]
            .as_u64()
            .unwrap_or_else(|| panic!("{found}"));
        seen(status, found["body"].as_str().unwrap_or_default())
    },
    asks: &[
        "PUT /latest/api/token",
        "GET /latest/meta-data/spot/instance-action",
    ],
};

/// What every client's answer is brought to: its status, and the notice's members.
fn seen(status: u64, body: &str) -> Value {
    let mut found: Value = match status {
        200 => serde_json::from_str(body).unwrap_or_else(|error| panic!("{body:?}: {error}")),
        _ => serde_json::json!({}),
    };
    found["status"] = status.into();
    found
}

fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.expect("the client")).unwrap()
}

/// Lets a client look inside and beside the target of an armed spotsim.
fn sees_the_notice_only_inside(lab: Option<Lab>, client: &Client) {
    let Some(lab) = lab else { return };
    let Client { name, read, asks } = client;
    let upstream = Upstream::start(&lab, &[]);
    let _workload = lab.workload_process();
    let spotsim = Spotsim::attach(&lab, &[]);

    let inside = read(&lab.inside());
    assert_eq!(
        inside["status"],
        200,
        "{name}: {inside}\n{}",
        spotsim.stderr()
    );
    assert_eq!(inside["action"], "terminate", "{name}: {inside}");
    assert_eq!(
        inside["time"],
        spotsim.armed.deadline.as_str(),
        "{name}: {inside}"
    );

    let before = upstream.seen().len();
    let beside = read(&lab.outside());
    assert_eq!(
        beside["status"],
        404,
        "{name}: {beside}\n{}",
        spotsim.stderr()
    );
    let asked = upstream.seen().split_off(before);
    let asked: Vec<String> = asked.iter().map(tests::Seen::request).collect();
    assert_eq!(asked, *asks, "{name}: its own requests, straight to IMDS");
    say(&format!("{name}: inside {inside}, beside {beside}"));
}

#[test]
fn curl() {
    sees_the_notice_only_inside(Lab::new(), &CURL);
}

#[test]
fn botocore() {
    sees_the_notice_only_inside(Lab::new(), &BOTOCORE);
}

#[test]
fn ec2_metadata() {
    sees_the_notice_only_inside(Lab::new(), &EC2_METADATA);
}

#[test]
fn aws_sdk_for_javascript() {
    sees_the_notice_only_inside(Lab::new(), &METADATA_SERVICE);
}

#[test]
fn aws_sdk_for_rust() {
    sees_the_notice_only_inside(Lab::new(), &AWS_CONFIG);
}

#[test]
fn all_of_them_in_a_pod() {
    for client in [
        &CURL,
        &BOTOCORE,
        &EC2_METADATA,
        &METADATA_SERVICE,
        &AWS_CONFIG,
    ] {
        sees_the_notice_only_inside(Lab::with_pod(), client);
    }
}
