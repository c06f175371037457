//! spotsim in a terminal: Ctrl-C is the command's, and Ctrl-Z leaves nobody without an IMDS.

use std::time::Duration;

use tests::{Lab, Running, attach_args, in_run_dir, patient, spotsim_binary, wait_until};

const CTRL_C: &[u8] = b"\x03";
const CTRL_Z: &[u8] = b"\x1a";

/// A shell script in a terminal of its own: what is written to the process is typed, and what it
/// prints is what the terminal shows. It ends with the script's exit code.
fn terminal(lab: &Lab, script: &str) -> Running {
    let line = ["script", "-q", "-e", "-c", script, "/dev/null"];
    Running::start(lab.daemon_place().command_line(line))
}

/// The words of a spotsim command line, for a script.
fn spotsim(lab: &Lab, args: &[&str]) -> String {
    let mut words = vec![spotsim_binary().to_str().unwrap().to_owned()];
    words.extend(in_run_dir(lab, args));
    words
        .iter()
        .map(|word| format!("'{word}' "))
        .collect::<String>()
}

fn spotsim_run(lab: &Lab, command: &[&str]) -> String {
    let args = ["run", "--upstream", "synthetic", "--"];
    spotsim(lab, &[&args, command].concat())
}

/// Seconds in which a key is pressed while a command still runs.
fn a_while() -> u64 {
    patient(Duration::from_secs(1)).as_secs().max(2)
}

#[test]
fn ctrl_c_reaches_the_command_once() {
    let Some(lab) = Lab::bare() else { return };
    // The shell waits for its background process, which says that it is ready when it ignores
    // SIGINT, and hears each signal.
    let command = format!(
        r#"trap "echo got" INT; sh -c "echo ready; exec sleep {}" &
        while ! wait $!; do :; done; exit 5"#,
        a_while()
    );
    let script = format!("exec {}", spotsim_run(&lab, &["sh", "-c", &command]));
    let mut terminal = terminal(&lab, &script);
    terminal.stdout_line("ready", 0);
    terminal.write(CTRL_C);
    terminal.stdout_line("got", 0);
    let finished = terminal.finish();
    assert_eq!(finished.code, 5, "{}", finished.text());
    assert_eq!(
        finished.text().matches("got").count(),
        1,
        "{}",
        finished.text()
    );
    assert_eq!(lab.daemon.children(), [""; 0]);
}

/// The terminal does not reach it there, as a shell would not either.
#[test]
fn ctrl_c_ends_a_command_in_a_process_group_of_its_own() {
    let Some(lab) = Lab::bare() else { return };
    let command = ["timeout", "600", "sh", "-c", "echo ready; exec sleep 600"];
    let mut terminal = terminal(&lab, &format!("exec {}", spotsim_run(&lab, &command)));
    terminal.stdout_line("ready", 0);
    terminal.write(CTRL_C);
    let finished = terminal.finish();
    assert_eq!(finished.code, 128 + 2, "{}", finished.text());
    assert_eq!(lab.daemon.children(), [""; 0]);
}

#[test]
fn ctrl_z_suspends_a_run_until_fg() {
    let Some(lab) = Lab::bare() else { return };
    let command = format!("echo ready; sleep {}; exit 5", a_while());
    let run = spotsim_run(&lab, &["sh", "-c", &command]);
    let script = format!("set -m; {run}; echo suspended; fg; echo ended with $?");
    let mut terminal = terminal(&lab, &script);
    terminal.stdout_line("ready", 0);
    terminal.write(CTRL_Z);
    terminal.stdout_line("suspended", 0);
    terminal.stdout_line("ended with 5", 0);
    terminal.finish().expect("the shell");
    assert_eq!(lab.daemon.children(), [""; 0]);
}

#[test]
fn ctrl_z_does_not_suspend_an_attach() {
    let Some(lab) = Lab::bare() else { return };
    let _workload = lab.workload_process();
    let options = ["--upstream", "synthetic"];
    let attach = spotsim(&lab, &attach_args(lab.target.directory(), &options));
    // With job control, as an interactive shell has it: without, nothing suspends.
    let mut terminal = terminal(&lab, &format!("set -m; {attach}; echo ended with $?"));
    terminal.stdout_line("armed: ", 0);
    terminal.write(CTRL_Z);
    wait_until("the terminal has taken the key", || {
        terminal.stdout().contains("^Z").then_some(())
    });
    for path in ["spot/instance-action", "instance-life-cycle"] {
        let path = format!("/latest/meta-data/{path}");
        assert_eq!(lab.inside().get(&path).status(), 200, "{path}");
    }
    terminal.write(CTRL_C);
    terminal.stdout_line("ended with 0", 0);
}
