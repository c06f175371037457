//! On a terminal one line is kept up to date, below what happened.

use tests::{Running, in_run_dir, spotsim_binary, wait_until};

use super::{Group, INSTANCE, changed};

/// `spotsim experiment run` of one cgroup, on a terminal.
fn on_a_terminal(group: &Group, text: &str, options: &[&str]) -> Running {
    let file = group.write("one.json", text);
    let instance = group.write("instance.yaml", INSTANCE);
    let cgroup = group.cgroups[0].path();
    let args = [
        "experiment",
        "run",
        file.to_str().unwrap(),
        "--allow-short",
        "--instance",
        instance.to_str().unwrap(),
        "--cgroup",
        cgroup.to_str().unwrap(),
    ];
    let words = in_run_dir(&group.lab, &[&args[..], options].concat());
    let words: String = words.iter().map(|word| format!("'{word}' ")).collect();
    let script = format!("stty cols 120; exec {} {words}", spotsim_binary().display());
    let line = ["script", "-q", "-e", "-c", &script, "/dev/null"];
    Running::start(group.lab.daemon_place().command_line(line))
}

#[test]
fn a_line_counts_down() {
    let Some(group) = Group::new(&["a"]) else {
        return;
    };
    let text = changed("one-of-a-tag.json", &[("PT2M", "PT6S")]);
    let terminal = on_a_terminal(&group, &text, &[]);
    for seconds in [4, 3, 2] {
        let live =
            format!("experiment running; deadline of action interruptSpotInstance in {seconds}s");
        wait_until(&live, || terminal.stdout().contains(&live).then_some(()));
    }
    let finished = terminal.finish();
    let text = finished.text();
    assert_eq!(finished.code, 0, "{text}");
    // What happened is whole lines, whatever was below them.
    let last = text.trim_end().rsplit("\x1b[K").next().unwrap();
    assert!(last.contains("  experiment: completed"), "{text:?}");
}

#[test]
fn it_is_stopped_while_it_asks() {
    let Some(group) = Group::new(&["a"]) else {
        return;
    };
    let text = changed("one-of-a-tag.json", &[]);
    let mut terminal = on_a_terminal(&group, &text, &["--at-deadline", "freeze"]);
    wait_until("the question", || {
        terminal.stdout().contains("Go on? [y/N] ").then_some(())
    });
    terminal.write(b"\x03");
    let finished = terminal.finish();
    assert_eq!(finished.code, 1, "{}", finished.text());
    assert!(
        finished.text().contains("experiment: stopped\r\n"),
        "{:?}",
        finished.text()
    );
}
