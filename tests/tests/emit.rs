//! Events reach those who listen elsewhere than at IMDS, and nobody waits for them.

use std::{
    fs,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::{
    Hook, Lab, Moto, Reply, Running, Scratch, Serve, Spotsim, aws_environment, get_from, moto,
    python, python_script, run, wait_until,
};

const ACTION: &str = "/latest/meta-data/spot/instance-action";
const ID: &str = "/latest/meta-data/instance-id";
const WARNING: &str = "EC2 Spot Instance Interruption Warning";

/// What `spotsim status` says of the sinks.
fn deliveries(scratch: &Scratch) -> Vec<Value> {
    let run_dir = scratch.directory().join("run");
    let run_dir = run_dir.to_str().unwrap();
    let status = scratch.spotsim(&["status", "--json", "--run-dir", run_dir]);
    let status: Value = serde_json::from_str(&status.expect("status")).unwrap();
    status["deliveries"].as_array().unwrap().clone()
}

/// Waits until the only sink has delivered so many.
fn delivered(scratch: &Scratch, count: u64) -> Value {
    wait_until("an event is delivered", || {
        let delivery = deliveries(scratch).swap_remove(0);
        (delivery["delivered"] == count && delivery["pending"] == 0).then_some(delivery)
    })
}

/// Waits until the only sink has failed once.
fn failing(scratch: &Scratch) -> Value {
    wait_until("an attempt fails", || {
        let delivery = deliveries(scratch).swap_remove(0);
        delivery.get("error").is_some().then_some(delivery)
    })
}

/// Checks that this is the warning of the instance that a served IMDS describes.
fn is_warning(event: &Value, serve: &Serve) {
    assert_eq!(event["detail-type"], WARNING, "{event}");
    assert_eq!(event["source"], "aws.ec2");
    let id = serve.get(ID).text();
    let action: Value = serde_json::from_str(&serve.get(ACTION).text()).unwrap();
    let detail = json!({ "instance-id": id, "instance-action": action["action"] });
    assert_eq!(event["detail"], detail);
    let document = serve.get("/latest/dynamic/instance-identity/document");
    let document: Value = serde_json::from_str(&document.text()).unwrap();
    assert_eq!(event["account"], document["accountId"]);
    assert_eq!(event["region"], document["region"]);
}

#[test]
fn a_webhook_is_tried_again_until_it_succeeds() {
    let scratch = Scratch::new();
    let replies = [
        Reply::Status(500, "no"),
        Reply::Reset,
        Reply::Hang,
        Reply::Status(200, "ok"),
    ];
    let hook = Hook::start(&replies);
    let sink = format!("webhook:{}", hook.url("/services/T0/B0/secret?key=secret"));
    let serve = scratch.serve(&["-vv", "--emit", &sink]);
    let failing = failing(&scratch);
    assert_eq!(failing["delivered"], 0);
    assert_eq!(failing["pending"], 1);
    let delivery = delivered(&scratch, 1);
    assert_eq!(delivery["failed"], 0);
    assert_eq!(delivery.get("error"), None);

    let came = hook.came();
    assert_eq!(came.len(), 4, "delivered once");
    let pauses: Vec<_> = came.windows(2).map(|two| two[1] - two[0]).collect();
    // Half of 0.2 s at least, then of 0.4 s; one that hangs is given up after 10 s.
    let least = [100, 200, 10_000].map(Duration::from_millis);
    for (pause, least) in pauses.iter().zip(least) {
        assert!(*pause >= least, "{pauses:?}");
        assert!(*pause < least + Duration::from_secs(5), "{pauses:?}");
    }
    let posted = hook.posted();
    for posted in &posted {
        assert_eq!(posted.method, "POST");
        assert_eq!(posted.path, "/services/T0/B0/secret?key=secret");
        assert_eq!(posted.header("content-type"), Some("application/json"));
        assert_eq!(posted.header("host"), Some(&*hook.address.to_string()));
        is_warning(&posted.json(), &serve);
    }
    let ids: Vec<_> = posted
        .iter()
        .map(|posted| posted.json()["id"].clone())
        .collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "one event: {ids:?}");
    // Whoever knows the path may post.
    assert_eq!(delivery["sink"], format!("webhook:http://{}", hook.address));
    let log = serve.stderr();
    assert!(log.contains("it answered 500"), "{log}");
    assert!(!log.contains("secret"), "{log}");
    let warned = log.lines().filter(|line| line.contains("is not delivered"));
    assert_eq!(warned.count(), 1, "once for all attempts: {log}");
}

#[test]
fn redirections_are_not_followed() {
    let scratch = Scratch::new();
    let elsewhere = Hook::start(&[Reply::Status(200, "")]);
    let hook = Hook::start(&[Reply::Redirect(307, elsewhere.url("/"))]);
    let _serve = scratch.serve(&["--emit", &format!("webhook:{}", hook.url("/"))]);
    let delivery = failing(&scratch);
    let error = delivery["error"].as_str().unwrap();
    assert!(
        error.contains("307") && error.contains("not followed"),
        "{error}"
    );
    assert_eq!(elsewhere.came().len(), 0);
}

#[test]
fn a_template_makes_the_body() {
    let scratch = Scratch::new();
    let hook = Hook::start(&[Reply::Status(200, "ok")]);
    let url = hook.url("/").replace("http://", "http://us%3Aer:pass@");
    let template = r#"{"text": "{detail-type}: {detail.instance-id}", "n": 1}"#;
    let sink = format!("webhook:{url}");
    let serve = scratch.serve(&["--emit", &sink, "--emit-template", template]);
    let delivery = delivered(&scratch, 1);
    let id = serve.get(ID).text();
    let posted = &hook.posted()[0];
    assert_eq!(
        posted.json(),
        json!({ "text": format!("{WARNING}: {id}"), "n": 1 })
    );
    // `us:er:pass` in base64.
    assert_eq!(
        posted.header("authorization"),
        Some("Basic dXM6ZXI6cGFzcw==")
    );
    assert!(!delivery.to_string().contains("pass"), "{delivery}");
}

#[test]
fn a_webhook_over_tls_must_be_who_it_says() {
    let scratch = Scratch::new();
    let certificate = scratch.directory().join("certificate.pem");
    let mut command = scratch.command(moto("python"));
    command
        .arg(python_script("https_hook.py"))
        .arg(&certificate);
    let mut server = Running::start(command);
    let line = server.stdout_line("listening at ", 0);
    let port = line.split_once(" at ").unwrap().1.trim();
    let trusted = [("SSL_CERT_FILE", certificate.display().to_string())];
    let sink = format!("webhook:https://localhost:{port}/path");
    {
        let serve = scratch.serve_with(&trusted, &["--emit", &sink]);
        delivered(&scratch, 1);
        let body = server.stdout_line("detail-type", 0);
        is_warning(&serde_json::from_str(&body).unwrap(), &serve);
    }
    {
        let _serve = scratch.serve(&["--emit", &sink]);
        let error = failing(&scratch)["error"].as_str().unwrap().to_owned();
        assert!(error.contains("certificate"), "{error}");
    }
    assert_eq!(server.stdout().matches("detail-type").count(), 1);
}

#[test]
fn a_queue_gets_the_event() {
    let scratch = Scratch::new();
    let moto = Moto::start(&scratch);
    for name in ["queue", "queue.fifo"] {
        let url = moto.ask(&scratch, &["queue", name]).trim().to_owned();
        let sink = format!("sqs:{url}");
        let mut environment = moto.environment();
        if name == "queue" {
            // Then it is where its URL says.
            environment.retain(|(name, _)| *name != "AWS_ENDPOINT_URL");
        }
        let serve = scratch.serve_with(&environment, &["--emit", &sink]);
        delivered(&scratch, 1);
        let messages = moto.ask(&scratch, &["receive", &url]);
        let message: Value = serde_json::from_str(&messages).unwrap();
        let event: Value = serde_json::from_str(message["Body"].as_str().unwrap()).unwrap();
        is_warning(&event, &serve);
        let attributes = &message["Attributes"];
        if name == "queue" {
            assert_eq!(attributes.get("MessageGroupId"), None);
        } else {
            assert_eq!(attributes["MessageGroupId"], event["detail"]["instance-id"]);
            assert_eq!(attributes["MessageDeduplicationId"], event["id"]);
        }
    }
}

#[test]
fn a_bus_gets_the_event_with_a_source_of_the_users() {
    let scratch = Scratch::new();
    let moto = Moto::start(&scratch);
    let url = moto.ask(&scratch, &["queue", "queue"]).trim().to_owned();
    for (bus, source) in [("default", "spotsim"), ("mine", "my.tests")] {
        moto.ask(&scratch, &["route", bus, source, &url]);
        let sink = format!("eventbridge:{bus}");
        let mut options = vec!["--emit", &sink];
        if source != "spotsim" {
            options.extend(["--emit-source", source]);
        }
        let serve = scratch.serve_with(&moto.environment(), &options);
        delivered(&scratch, 1);
        let messages = moto.ask(&scratch, &["receive", &url]);
        let message: Value = serde_json::from_str(&messages).expect(&messages);
        let mut event: Value = serde_json::from_str(message["Body"].as_str().unwrap()).unwrap();
        assert_eq!(event["source"], source);
        // What EventBridge puts in the envelope is its own.
        let document = serve.get("/latest/dynamic/instance-identity/document");
        let document: Value = serde_json::from_str(&document.text()).unwrap();
        event["source"] = "aws.ec2".into();
        event["account"] = document["accountId"].clone();
        event["region"] = document["region"].clone();
        is_warning(&event, &serve);
        let resource = event["resources"][0].as_str().unwrap();
        assert!(resource.starts_with("arn:aws:ec2:"), "{resource}");
    }
}

#[test]
fn an_entry_that_a_bus_refuses_is_sent_again() {
    let scratch = Scratch::new();
    let refused = r#"{"FailedEntryCount": 1, "Entries": [{"ErrorCode": "ThrottlingException", "ErrorMessage": "later"}]}"#;
    let taken = r#"{"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]}"#;
    let hook = Hook::start(&[
        Reply::Status(200, refused),
        Reply::Status(200, refused),
        Reply::Status(200, taken),
    ]);
    let environment = aws_environment(&hook.url(""));
    let serve = scratch.serve_with(&environment, &["--emit", "eventbridge:default"]);
    delivered(&scratch, 1);
    assert_eq!(hook.posted().len(), 3);
    let log = serve.stderr();
    assert!(log.contains("ThrottlingException: later"), "{log}");
}

#[test]
fn a_function_is_invoked_with_the_event() {
    let scratch = Scratch::new();
    let hook = Hook::start(&[Reply::Status(202, "")]);
    let environment = aws_environment(&hook.url(""));
    let arn = "arn:aws:lambda:eu-west-3:123456789012:function:drain:live";
    for (number, (function, path, region)) in [
        ("drain", "drain", "us-east-1"),
        (
            arn,
            "arn%3Aaws%3Alambda%3Aeu-west-3%3A123456789012%3Afunction%3Adrain%3Alive",
            "eu-west-3",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let sink = format!("lambda:{function}");
        let serve = scratch.serve_with(&environment, &["--emit", &sink]);
        delivered(&scratch, 1);
        let posted = hook.posted();
        assert_eq!(posted.len(), number + 1);
        let posted = &posted[number];
        assert_eq!(posted.method, "POST");
        assert_eq!(
            posted.path,
            format!("/2015-03-31/functions/{path}/invocations")
        );
        assert_eq!(posted.header("x-amz-invocation-type"), Some("Event"));
        let authorization = posted.header("authorization").unwrap();
        let signed = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/";
        assert!(authorization.starts_with(signed), "{authorization}");
        let scope = format!("/{region}/lambda/aws4_request");
        assert!(authorization.contains(&scope), "{authorization}");
        is_warning(&posted.json(), &serve);
    }
}

#[test]
fn what_aws_answers_is_told() {
    let scratch = Scratch::new();
    let reason = r#"{"Type": "User", "message": "Function not found: drain"}"#;
    let hook = Hook::start(&[Reply::Status(404, reason)]);
    let environment = aws_environment(&hook.url(""));
    let _serve = scratch.serve_with(&environment, &["--emit", "lambda:drain"]);
    let delivery = failing(&scratch);
    let error = delivery["error"].as_str().unwrap();
    assert!(error.contains("Function not found: drain"), "{error}");
}

#[test]
fn without_region_or_credentials_nothing_starts() {
    let scratch = Scratch::new();
    for (missing, expected) in [
        (
            &["AWS_REGION", "AWS_DEFAULT_REGION"][..],
            "no AWS region is known; set AWS_REGION",
        ),
        (
            &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"],
            "no AWS credentials are found",
        ),
    ] {
        let mut environment = aws_environment("http://127.0.0.1:9");
        environment.retain(|(name, _)| !missing.contains(name));
        let mut command = scratch.command(tests::spotsim_binary());
        command
            .envs(environment)
            .args(["serve", "--listen", "127.0.0.1:0", "--run-dir"])
            .arg(scratch.directory().join("run"))
            .args(["--emit", "lambda:drain"]);
        let start = Instant::now();
        let finished = run(command, b"");
        assert!(start.elapsed() < Duration::from_secs(10));
        assert_eq!(finished.code, 1, "{}", finished.stderr);
        assert_eq!(finished.text(), "");
        assert!(
            finished.stderr.contains("cannot emit to lambda:drain"),
            "{}",
            finished.stderr
        );
        assert!(finished.stderr.contains(expected), "{}", finished.stderr);
        assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    }
}

#[test]
fn a_lambda_handler_runs_locally_and_posts_to_slack() {
    let scratch = Scratch::new();
    let slack = Hook::start(&[Reply::Status(200, "ok")]);
    let [python, runner] = python("lambda_runner.py").map(|word| word.into_string().unwrap());
    let handler = python_script("slack_handler.py");
    let sink = format!("exec:{python} {runner} {}", handler.display());
    let environment = [("SLACK_WEBHOOK_URL", slack.url("/services/T0/B0/X"))];
    let options = [
        "--rebalance-after",
        "0s",
        "--notice-after",
        "0s",
        "--emit",
        &sink,
    ];
    let serve = scratch.serve_with(&environment, &options);
    delivered(&scratch, 2);
    let posted = slack.posted();
    assert_eq!(posted.len(), 1, "it leaves recommendations alone");
    assert_eq!(posted[0].path, "/services/T0/B0/X");
    let id = serve.get(ID).text();
    let region = serve.get("/latest/meta-data/placement/region").text();
    assert_eq!(
        posted[0].json(),
        json!({ "text": format!("{id} in {region}: terminate") })
    );
    // What it printed is not taken for a result of spotsim.
    assert!(
        serve.stderr().contains(r#"{"statusCode": 200}"#),
        "{}",
        serve.stderr()
    );
    assert!(!serve.stdout().contains("statusCode"));
}

#[test]
fn sinks_that_hang_delay_nothing_that_imds_shows() {
    let scratch = Scratch::new();
    let hook = Hook::start(&[Reply::Hang]);
    let hanging = format!("webhook:{}", hook.url("/"));
    let options = [
        "--emit",
        &hanging,
        "--emit",
        "webhook:http://127.0.0.1:9/",
        "--emit",
        "exec:exec sleep 600",
        "--emit",
        "stdout",
        "--notice-after",
        "1s",
        "--rebalance-after",
        "0s",
    ];
    let serve = scratch.serve(&options);
    let mut slowest = Duration::ZERO;
    let mut missed = None;
    wait_until("the notice is seen", || {
        let (start, began) = (Instant::now(), jiff::Timestamp::now());
        let response = get_from(serve.address, ACTION);
        slowest = slowest.max(start.elapsed());
        if response.status() == 200 {
            return Some(());
        }
        missed = Some(began);
        None
    });
    let armed: jiff::Timestamp = {
        let (_, line) = serve
            .line
            .split_once("notice (terminate) at ")
            .expect(&serve.line);
        line.split(',').next().unwrap().parse().unwrap()
    };
    // The time is in whole seconds, rounded down; how long a request takes does not count.
    let late = missed.map(|missed| missed.duration_since(armed));
    let latest = jiff::SignedDuration::from_millis(1_500);
    assert!(late < Some(latest), "{late:?}");
    // Whoever waited for a sink that hangs would wait for most of the 10 s that it has.
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    let deliveries = wait_until("events are there", || {
        let deliveries = deliveries(&scratch);
        (deliveries[3]["delivered"] == 2).then_some(deliveries)
    });
    let sinks = deliveries
        .iter()
        .map(|delivery| delivery["pending"].as_u64().unwrap());
    assert_eq!(sinks.collect::<Vec<_>>(), [2, 2, 2, 0]);
    let lines = serve.stdout();
    let events: Vec<Value> = lines
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    assert_eq!(events.len(), 2, "{lines}");
    is_warning(&events[1], &serve);

    let start = Instant::now();
    serve.signal(Signal::SIGTERM);
    wait_until("it ends", || get_ended(serve.pid()).then_some(()));
    let log = serve.stderr();
    assert!(log.contains("for up to 5s, 6 events are still"), "{log}");
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
}

/// Has a process ended, though its parent has not noticed yet?
fn get_ended(pid: u32) -> bool {
    !tests::is_running(pid.try_into().unwrap())
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    let scratch = Scratch::new();
    for (options, expected) in [
        (&["--emit", "slack"][..], "use stdout, file:PATH"),
        (&["--emit", "sqs:queue"], "http:// or https://"),
        (&["--emit-source", "mine"], "--emit <SINK>"),
        (
            &["--emit", "eventbridge:b", "--emit-source", "aws.ec2"],
            "for AWS itself",
        ),
        (
            &["--emit", "stdout", "--emit-source", "mine"],
            "add --emit eventbridge:BUS",
        ),
        (
            &["--emit", "stdout", "--emit-template", "{}"],
            "add --emit webhook:URL",
        ),
        (
            &["--emit", "webhook:http://h", "--emit-template", "{"],
            "a template is JSON",
        ),
        (
            &["--emit", "webhook:http://h", "--emit-template", r#""{x}""#],
            "no field \"x\"",
        ),
    ] {
        let mut arguments = vec!["serve", "--listen", "127.0.0.1:0"];
        arguments.extend(options);
        let finished = scratch.spotsim(&arguments);
        assert_eq!(finished.code, 2, "{options:?}: {}", finished.stderr);
        assert!(
            finished.stderr.contains(expected),
            "{options:?}: {}",
            finished.stderr
        );
    }
}

#[test]
fn a_file_is_appended_to_while_a_command_runs() {
    let Some(lab) = Lab::bare() else { return };
    let file = lab.directory.join("events.jsonl");
    let sink = format!("file:{}", file.display());
    let hook = Hook::start_in(&lab.node, &[Reply::Status(204, "")]);
    let webhook = format!("webhook:{}", hook.url("/"));
    for count in 1..=2 {
        let arguments = [
            "run",
            "--upstream",
            "synthetic",
            "--emit",
            &sink,
            "--emit",
            &webhook,
            "--",
            "sh",
            "-c",
            "sleep 1",
        ];
        run(Spotsim::command(&lab, &arguments), b"").expect("run");
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text.lines().count(), count, "{text}");
        let event: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(event["detail-type"], WARNING);
        assert_eq!(hook.posted().len(), count);
        assert_eq!(hook.posted()[count - 1].json(), event);
    }
}

#[test]
fn a_target_sees_its_notice_whatever_becomes_of_the_event() {
    let Some(lab) = Lab::bare() else { return };
    let _workload = lab.workload_process();
    let hook = Hook::start_in(&lab.node, &[Reply::Hang]);
    let webhook = format!("webhook:{}", hook.url("/"));
    let options = [
        "--upstream",
        "synthetic",
        "--notice-after",
        "1s",
        "--emit",
        &webhook,
        "--emit",
        "webhook:http://192.0.2.1/",
        "--emit",
        "exec:exec sleep 600",
        "--id",
        "it",
    ];
    let spotsim = Spotsim::attach_to(&lab, &lab.target, &options);
    let notice: jiff::Timestamp = spotsim.armed.notice.parse().unwrap();
    let place = lab.inside();
    let seen = wait_until("the notice is seen", || {
        let response = place.get(ACTION);
        (response.status() == 200).then(jiff::Timestamp::now)
    });
    assert!(seen.duration_since(notice) < jiff::SignedDuration::from_millis(2_000));
    assert_eq!(place.get(ACTION).text(), spotsim.armed.instance_action());
    let status = run(Spotsim::command(&lab, &["status", "it"]), b"").expect("status");
    let lines: Vec<_> = status
        .lines()
        .filter(|line| line.starts_with("events "))
        .collect();
    assert_eq!(lines.len(), 3, "{status}");
    for line in lines {
        assert!(
            line.contains("0 delivered, 0 failed, 1 pending"),
            "{status}"
        );
    }
}
