//! Templates that are refused: one line with the path in it, exit code 2, and nothing happens.

use tests::{Finished, Scratch, run, spotsim_binary};

use super::{changed, template};

fn spotsim(scratch: &Scratch, args: &[&str]) -> Finished {
    let mut command = scratch.command(spotsim_binary());
    command.args(args);
    run(command, b"")
}

/// What is said of a file by both verbs.
fn refused(scratch: &Scratch, name: &str, text: &str) -> String {
    let file = scratch.write(name, text);
    let file = file.to_str().unwrap();
    let errors = ["validate", "run"].map(|verb| {
        let finished = spotsim(scratch, &["experiment", verb, file]);
        assert_eq!(finished.code, 2, "{verb} {name}: {}", finished.stderr);
        assert_eq!(finished.text(), "", "{verb} {name}");
        let start = format!("spotsim: error: {file}: ");
        let error = finished.stderr.strip_prefix(&start);
        let error = error.and_then(|error| error.strip_suffix('\n'));
        let error = error.unwrap_or_else(|| panic!("{verb} {name}: {}", finished.stderr));
        assert!(!error.contains('\n'), "{error}");
        error.to_owned()
    });
    assert_eq!(errors[0], errors[1]);
    errors[0].clone()
}

#[test]
fn an_error_names_the_path() {
    let scratch = Scratch::new();
    let action = "actions.interruptSpotInstances";
    let target = "targets.SpotInstancesInASG";
    let duration = format!("{action}.parameters.durationBeforeInterruption");
    for (from, to, path) in [
        (
            "\"SpotInstances\": \"SpotInstancesInASG\"",
            "\"SpotInstances\": \"x\"",
            format!("{action}.targets.SpotInstances"),
        ),
        (
            "aws:ec2:send-spot-instance-interruptions",
            "aws:ec2:reboot-instances",
            format!("{action}.actionId"),
        ),
        ("PERCENT(50)", "COUNT(0)", format!("{target}.selectionMode")),
        ("PT2M", "PT1M", duration.clone()),
        ("PT2M", "20m", duration.clone()),
        ("PT2M", "PT16M", duration),
        (
            "\"filters\"",
            "\"resourceArns\": [\"arn:aws:ec2:r:1:instance/i-1\"], \"filters\"",
            target.to_owned(),
        ),
        (
            "\"actionId\"",
            "\"startAfter\": [\"interruptSpotInstances\"], \"actionId\"",
            format!("{action}.startAfter"),
        ),
    ] {
        let text = changed("half-of-a-group.json", &[(from, to)]);
        let error = refused(&scratch, "bad.json", &text);
        assert!(error.starts_with(&format!("{path}: ")), "{error}");
    }
}

#[test]
fn a_cycle_is_named() {
    let scratch = Scratch::new();
    let text = changed(
        "two-in-turn.yaml",
        &[(
            "StartAfter: [interrupt-web]",
            "StartAfter: [interrupt-batch]",
        )],
    );
    assert_eq!(
        refused(&scratch, "cycle.yaml", &text),
        "Resources.SpotInterruptions.Properties.Actions.settle.StartAfter: each waits for the \
         next, for ever: settle -> interrupt-batch -> settle"
    );
}

#[test]
fn what_is_no_template_is_refused() {
    let scratch = Scratch::new();
    let finished = spotsim(&scratch, &["experiment", "run", "/nowhere/x.json"]);
    assert_eq!(finished.code, 2);
    assert!(
        finished
            .stderr
            .starts_with("spotsim: error: cannot read /nowhere/x.json: ")
    );
    for (name, text, error) in [
        ("text.json", "{", "1:1: EOF while parsing an object"),
        ("twice.yaml", "actions: {}\nactions: {}\n", "2:1: duplicate"),
        ("list.json", "[]", "must be a map, not a list"),
        ("empty.yaml", "", "must be a map, not null"),
        (
            "other.json",
            "{\"experiment\": {}}",
            "this is an experiment: ",
        ),
        (
            "no-actions.json",
            "{\"description\": \"x\", \"roleArn\": \"x\"}",
            "actions: is required",
        ),
    ] {
        let file = scratch.write(name, text);
        let finished = spotsim(
            &scratch,
            &["experiment", "validate", file.to_str().unwrap()],
        );
        assert_eq!(finished.code, 2, "{name}: {}", finished.stderr);
        let place = format!("{}:", file.display());
        let (_, said) = finished
            .stderr
            .split_once(&place)
            .unwrap_or_else(|| panic!("{}", finished.stderr));
        assert!(said.trim_start().starts_with(error), "{name}: {said}");
    }
}

#[test]
fn a_good_one_is_rehearsed() {
    let scratch = Scratch::new();
    let file = scratch.write("two.yaml", &template("two-in-turn.yaml"));
    let finished = spotsim(
        &scratch,
        &["experiment", "validate", file.to_str().unwrap()],
    );
    let text = finished.expect("validate");
    assert!(
        text.starts_with("AFTER  WHAT\n+0s    experiment: running\n"),
        "{text}"
    );
    assert!(text.ends_with("+4m    experiment: completed\n"), "{text}");
    assert_eq!(
        finished.stderr.matches("WARN").count(),
        2,
        "{}",
        finished.stderr
    );
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let scratch = Scratch::new();
    let file = scratch.write("one.json", &template("one-of-a-tag.json"));
    let file = file.to_str().unwrap();
    for (options, error) in [
        (&["--json"][..], "--json goes with --actions-mode skip-all"),
        (
            &["--actions-mode", "none"],
            "invalid value 'none' for '--actions-mode",
        ),
        (
            &["--namespace", "a"],
            "--namespace goes with --selector or --pod",
        ),
        (
            &["--resource", "X"],
            "there are no Resources, and so no \"X\" (--resource)",
        ),
        (&["--select", "all"], "unexpected argument '--select'"),
    ] {
        let finished = spotsim(&scratch, &[&["experiment", "run", file], options].concat());
        assert_eq!(finished.code, 2, "{options:?}: {}", finished.stderr);
        assert!(
            finished.stderr.contains(error),
            "{options:?}: {}",
            finished.stderr
        );
    }
}
