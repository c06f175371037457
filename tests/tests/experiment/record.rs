//! The record: all of what happened, and valid whenever it is looked at.

use serde_json::{Value, json};

use super::{Group, changed, record, template};

fn states(record: &Value) -> Vec<String> {
    let transitions = record["transitions"].as_array().unwrap();
    let state = |it: &Value| {
        let action = it["action"].as_str().unwrap_or("-");
        let word = |key: &str| it[key].as_str().unwrap().to_owned();
        assert!(word("time").parse::<jiff::Timestamp>().is_ok());
        format!("{action} {} {}", word("from"), word("to"))
    };
    transitions.iter().map(state).collect()
}

#[test]
fn it_has_everything() {
    let Some(group) = Group::new(&["a", "b"]) else {
        return;
    };
    let text = changed("half-of-a-group.json", &[("PT2M", "PT2S")]);
    let file = group.lab.directory.join("record.json");
    let options = [
        "--allow-short",
        "--seed",
        "5",
        "--record",
        file.to_str().unwrap(),
    ];
    let finished = group.run("half.json", &text, &options).finish();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    let record = record(&file);
    let given: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(record["template"], given);
    assert_eq!(record["state"], "completed");
    assert_eq!(
        record["exit_reason"],
        "every action is over, and every deadline"
    );
    assert_eq!(record["seed"], 5);
    assert_eq!(
        record["actions"],
        json!({"interruptSpotInstances": "completed"})
    );
    let targets = &record["resolved_targets"]["SpotInstancesInASG"];
    assert_eq!(targets.as_array().unwrap().len(), 1);
    assert_eq!(targets[0]["kind"], "cgroup");
    let paths = group
        .cgroups
        .iter()
        .map(|cgroup| cgroup.path().display().to_string());
    let paths: Vec<_> = paths.collect();
    assert!(
        paths
            .iter()
            .any(|path| targets[0]["cgroup"] == path.as_str()),
        "{targets}"
    );
    assert_eq!(
        states(&record),
        [
            "- pending initiating",
            "- initiating running",
            "interruptSpotInstances pending initiating",
            "interruptSpotInstances initiating running",
            "interruptSpotInstances running completed",
            "- running completed",
        ]
    );
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let lasted = time(&record["end_time"]).duration_since(time(&record["start_time"]));
    assert!((2..10).contains(&lasted.as_secs()), "{lasted}");
    // Nothing is left beside it.
    let names = std::fs::read_dir(&group.lab.directory).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let beside: Vec<_> = names
        .filter(|name| name.starts_with("record.json"))
        .collect();
    assert_eq!(beside, ["record.json"]);
}

#[test]
fn it_outlives_who_writes_it() {
    let Some(group) = Group::new(&["a"]) else {
        return;
    };
    let file = group.lab.directory.join("record.json");
    let options = ["--record", file.to_str().unwrap()];
    let mut run = group.run("one.json", &template("one-of-a-tag.json"), &options);
    run.stdout_line("action interruptSpotInstance: completed", 0);
    run.kill();
    let record = record(&file);
    assert_eq!(record["state"], "running");
    assert_eq!(
        (&record["exit_reason"], &record["end_time"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(record["actions"]["interruptSpotInstance"], "completed");
}

#[test]
fn one_that_cannot_be_kept_is_said_before_anything_begins() {
    let Some(group) = Group::new(&["a"]) else {
        return;
    };
    let options = ["--record", "/nowhere/record.json"];
    let finished = group
        .run("one.json", &template("one-of-a-tag.json"), &options)
        .finish();
    assert_eq!((finished.code, finished.text().as_str()), (1, ""));
    let error = "spotsim: error: cannot write the record /nowhere/record.json: No such file";
    assert!(finished.stderr.contains(error), "{}", finished.stderr);
}

/// As root it could take the place of `/dev/null` for everybody.
#[test]
fn what_is_no_regular_file_is_left_as_it_is() {
    let Some(group) = Group::new(&["a"]) else {
        return;
    };
    let link = group.lab.directory.join("link");
    std::os::unix::fs::symlink("elsewhere", &link).unwrap();
    for there in [&link, &group.lab.directory] {
        let options = ["--record", there.to_str().unwrap()];
        let finished = group
            .run("one.json", &template("one-of-a-tag.json"), &options)
            .finish();
        assert_eq!((finished.code, finished.text().as_str()), (1, ""));
        let error = format!(
            "spotsim: error: cannot write the record {}: there is something that is no regular \
             file\n",
            there.display()
        );
        assert!(finished.stderr.ends_with(&error), "{}", finished.stderr);
    }
    assert!(link.is_symlink());
}
