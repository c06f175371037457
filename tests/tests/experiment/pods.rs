//! Pods as instances: their labels are tags.

use serde_json::Value;
use tests::{Node, Pod, Running, Spotsim, Upstream};

use super::{NOTICE, changed, record, told};

/// `spotsim experiment run` on a node, among all of its pods.
fn run(node: &Node, name: &str, text: &str, options: &[&str]) -> Running {
    let file = node.lab.directory.join(name);
    std::fs::write(&file, text).unwrap();
    let endpoint = node.endpoint();
    let mut args = vec!["experiment", "run", file.to_str().unwrap()];
    args.extend(["--runtime-endpoint", &endpoint, "--upstream", "real"]);
    args.extend(options);
    Running::start(Spotsim::command(&node.lab, &args))
}

fn who_sees<'a>(pods: &[&'a Pod]) -> Vec<&'a str> {
    let seeing = pods.iter().filter(|pod| pod.get(NOTICE).status() == 200);
    seeing.map(|pod| pod.name()).collect()
}

#[test]
fn one_of_a_label_is_interrupted() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let web = |name: &str, namespace: &str| {
        node.pod(name)
            .namespace(namespace)
            .label("app", "web")
            .start()
    };
    let pods = [
        web("web-0", "default"),
        web("web-1", "default"),
        web("web-2", "shop"),
        node.pod("db-0").label("app", "db").start(),
        node.pod("bare").start(),
    ];
    let pods = pods.each_ref();
    let text = changed("one-of-a-tag.json", &[("PT2M", "PT8S")]);
    let file = node.lab.directory.join("record.json");
    let options = ["--allow-short", "--record", file.to_str().unwrap()];
    let mut run = run(&node, "one.json", &text, &options);
    run.stdout_line("action interruptSpotInstance: completed", 0);
    let chosen = who_sees(&pods);
    assert_eq!(chosen.len(), 1, "{chosen:?}");
    assert!(chosen[0].starts_with("web-"), "{chosen:?}");
    let finished = run.finish();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    let record = record(&file);
    let target = &record["resolved_targets"]["oneSpotInstance"][0];
    assert_eq!(target["pod"], chosen[0]);
    assert_eq!(target["labels"]["app"], "web");
    assert!(
        target["arn"]
            .as_str()
            .unwrap()
            .starts_with("arn:aws:ec2:eu-central-1:"),
        "{target}"
    );
    assert_eq!(who_sees(&pods), [""; 0]);
}

#[test]
fn one_tier_comes_after_the_other() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let tier = |name: &str, tier: &str| {
        node.pod(name)
            .label("tier", tier)
            .label("fis-ready", "true")
            .start()
    };
    let pods = [
        tier("web-0", "web"),
        tier("batch-0", "batch"),
        tier("batch-1", "batch"),
        node.pod("web-unready").label("tier", "web").start(),
    ];
    let pods = pods.each_ref();
    let short = [("PT3M", "PT20S"), ("PT1M", "PT8S"), ("PT2M", "PT12S")];
    let text = changed("two-in-turn.yaml", &short);
    let mut run = run(&node, "two.yaml", &text, &["--allow-short"]);
    run.stdout_line("action settle: running", 0);
    assert_eq!(who_sees(&pods), ["web-0"]);
    run.stdout_line("action interrupt-batch: completed", 0);
    assert_eq!(who_sees(&pods), ["web-0", "batch-0", "batch-1"]);
    let finished = run.finish();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    let warned = |what: &str| {
        let place = format!("Resources.SpotInterruptions.Properties.{what}");
        assert!(
            finished.stderr.contains(&place),
            "{place}: {}",
            finished.stderr
        );
    };
    warned("StopConditions[0]: the alarm is not watched here; --stop-if COMMAND is the stop");
    warned("LogConfiguration: no log is delivered here; --record FILE keeps a record");
    assert_eq!(
        told(&finished.text())
            .iter()
            .filter(|line| !line.ends_with("initiating"))
            .collect::<Vec<_>>(),
        [
            "experiment: running",
            "action interrupt-web: running",
            "action interrupt-web: completed",
            "action settle: running",
            "action settle: completed",
            "action interrupt-batch: running",
            "action interrupt-batch: completed",
            "experiment: completed",
        ]
    );
}

#[test]
fn skip_all_shows_the_targets() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let web = |name: &str| node.pod(name).label("app", "web").start();
    let pods = [web("web-0"), web("web-1"), web("web-2")];
    let text = changed("one-of-a-tag.json", &[("COUNT(1)", "ALL")]);
    let rows = |options: &[&str]| -> Vec<Value> {
        let skip = ["--actions-mode", "skip-all", "--json"];
        let finished = run(&node, "one.json", &text, &[&skip, options].concat()).finish();
        assert_eq!(finished.code, 0, "{}", finished.stderr);
        // Nothing else is on standard output.
        serde_json::from_str(&finished.text()).unwrap()
    };
    let all = rows(&[]);
    let names: Vec<_> = all
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "pod default/web-0",
            "pod default/web-1",
            "pod default/web-2"
        ]
    );
    assert!(all.iter().all(|row| row["target"] == "oneSpotInstance"));
    // Of those alone that are named.
    let some = rows(&["--pod", "default/web-1"]);
    assert_eq!((some.len(), &some[0]["pod"]), (1, &Value::from("web-1")));
    assert_eq!(who_sees(&pods.each_ref()), [""; 0]);
}
