//! `spotsim run`: a command's own way is not changed, and nothing is left.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{
    Armed, Lab, Place, Running, Spotsim, Upstream, attach_args, is_running, patient, run,
    spotsim_binary, wait_until,
};

const NOTICE: &str = "http://169.254.169.254/latest/meta-data/spot/instance-action";

/// `run` with the synthetic upstream, unless the options name another.
fn run_args<'a>(options: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["run"];
    if !options.contains(&"--upstream") {
        args.extend(["--upstream", "synthetic"]);
    }
    args.extend(options);
    args.push("--");
    args.extend(command);
    args
}

fn spotsim_run(lab: &Lab, options: &[&str], command: &[&str]) -> Command {
    Spotsim::command(lab, &run_args(options, command))
}

fn shell(lab: &Lab, script: &str) -> Command {
    spotsim_run(lab, &[], &["sh", "-c", script])
}

/// The cgroup v2 directory that a line of /proc/PID/cgroup names.
fn directory(lab: &Lab, path: &str) -> PathBuf {
    let top = lab.root.directory().parent().unwrap();
    top.join(path.trim().trim_start_matches("0::/"))
}

fn armed(stderr: &str) -> Armed {
    let line = stderr.lines().find(|line| line.starts_with("armed: "));
    Armed::parse(line.unwrap_or_else(|| panic!("not armed: {stderr}")))
}

#[test]
fn the_commands_exit_code_is_returned() {
    let Some(lab) = Lab::new() else { return };
    for (script, code) in [
        ("exit 7", 7),
        ("exit 0", 0),
        ("exit 255", 255),
        ("kill -TERM $$", 128 + 15),
        ("kill -KILL $$", 128 + 9),
    ] {
        let finished = run(shell(&lab, script), b"");
        assert_eq!(finished.code, code, "{script}: {}", finished.stderr);
        assert_eq!(finished.text(), "", "{script}");
    }
}

#[test]
fn a_command_that_cannot_be_executed() {
    let Some(lab) = Lab::new() else { return };
    let file = lab.directory.join("not-a-program");
    fs::write(&file, "text").unwrap();
    for (command, reason) in [
        ("no-such-command", "No such file or directory"),
        (file.to_str().unwrap(), "Permission denied"),
    ] {
        let finished = run(spotsim_run(&lab, &[], &[command]), b"");
        assert_eq!(finished.code, 127, "{}", finished.stderr);
        let stderr = &finished.stderr;
        assert!(stderr.contains("spotsim: error: "), "{stderr}");
        assert!(
            stderr.contains(command) && stderr.contains(reason),
            "{stderr}"
        );
        assert_eq!(lab.daemon.children(), [""; 0]);
    }
}

#[test]
fn a_stagger_is_refused() {
    let Some(lab) = Lab::new() else { return };
    let finished = run(spotsim_run(&lab, &["--stagger", "1s"], &["true"]), b"");
    let error = "spotsim: error: --stagger is between targets, and run has one alone\n";
    assert_eq!((finished.code, finished.stderr.as_str()), (2, error));
}

#[test]
fn the_command_sees_the_notice() {
    let Some(lab) = Lab::new() else { return };
    for (action, host) in [
        ("stop", "169.254.169.254"),
        ("terminate", "[fd00:ec2::254]"),
    ] {
        let url = NOTICE.replace("169.254.169.254", host);
        let finished = run(
            spotsim_run(&lab, &["--action", action], &["curl", "-sS", &url]),
            b"",
        );
        let text = finished.expect("curl");
        let armed = armed(&finished.stderr);
        assert_eq!(armed.action, action);
        assert_eq!(text, armed.instance_action());
    }
}

#[test]
fn only_the_command_sees_it() {
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &[]);
    let script = format!("curl -s {NOTICE}; echo; read line");
    let command = spotsim_run(&lab, &["--upstream", "real"], &["sh", "-c", &script]);
    let mut running = Running::start(command);
    running.stdout_line("terminate", 0);
    assert_eq!(
        lab.outside()
            .get("/latest/meta-data/spot/instance-action")
            .status(),
        404
    );
    running.write(b"\n");
    assert_eq!(running.finish().code, 0);
}

#[test]
fn stdin_and_stdout_pass_unchanged() {
    let Some(lab) = Lab::new() else { return };
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(1_000_000).collect();
    let finished = run(spotsim_run(&lab, &[], &["cat"]), &bytes);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert!(
        finished.stdout == bytes,
        "{} bytes came back",
        finished.stdout.len()
    );
    let finished = run(shell(&lab, "echo to stderr >&2"), b"");
    assert!(
        finished.stderr.lines().any(|line| line == "to stderr"),
        "{}",
        finished.stderr
    );
    armed(&finished.stderr);
}

#[test]
fn arguments_and_environment_pass_unchanged() {
    let Some(lab) = Lab::new() else { return };
    let command = ["printf", "<%s>", "--for", "-v", "", "a b", "--", "$HOME"];
    let mut command = spotsim_run(&lab, &[], &command);
    command.env("SOME_VARIABLE", "its value");
    assert_eq!(
        run(command, b"").expect("printf"),
        "<--for><-v><><a b><--><$HOME>"
    );
    let mut command = shell(&lab, "echo $SOME_VARIABLE; pwd");
    command.env("SOME_VARIABLE", "its value");
    let directory = lab.directory.display();
    assert_eq!(
        run(command, b"").expect("sh"),
        format!("its value\n{directory}\n")
    );
}

#[test]
fn a_signal_reaches_the_command_first() {
    let Some(lab) = Lab::new() else { return };
    for (name, signal) in [
        ("INT", Signal::SIGINT),
        ("TERM", Signal::SIGTERM),
        ("HUP", Signal::SIGHUP),
    ] {
        // It takes its time to end, and still sees the notice meanwhile.
        let script = format!(
            "trap 'sleep 0.3; curl -sS {NOTICE}; echo; echo got {name}; exit 9' {name}
             echo ready; while :; do sleep 0.05; done"
        );
        let mut running = Running::start(shell(&lab, &script));
        running.stdout_line("ready", 0);
        running.signal(signal);
        let finished = running.finish();
        assert_eq!(finished.code, 9, "{name}: {}", finished.stderr);
        let expected = format!(
            "ready\n{}\ngot {name}\n",
            armed(&finished.stderr).instance_action()
        );
        assert_eq!(finished.text(), expected);
    }
}

#[test]
fn the_command_starts_with_no_signal_blocked_or_ignored() {
    let Some(lab) = Lab::new() else { return };
    let read = ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"];
    let finished = run(spotsim_run(&lab, &[], &read), b"");
    let direct = run(lab.outside().command_line(read), b"");
    assert_eq!(
        standard(&finished.expect("grep")),
        standard(&direct.expect("grep"))
    );
}

/// Signal masks without the real-time signals, two of which are the C library's own.
fn standard(masks: &str) -> Vec<u64> {
    let masks = masks.lines().map(|line| line.split_once('\t').unwrap().1);
    masks
        .map(|mask| u64::from_str_radix(mask, 16).unwrap() & 0x7fff_ffff)
        .collect()
}

#[test]
fn a_signal_that_the_command_does_not_handle_ends_it() {
    let Some(lab) = Lab::new() else { return };
    let mut running = Running::start(shell(&lab, "echo ready; exec sleep 600"));
    running.stdout_line("ready", 0);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.finish().code, 128 + 15);
}

#[test]
fn an_isolated_command_has_loopback_only() {
    let Some(lab) = Lab::new() else { return };
    let upstream = Upstream::start(&lab, &[]);
    let script = format!(
        "ip -o link | cut -d: -f2; ip route show table all dev lo type local | wc -l
         curl -sS {NOTICE}; echo
         curl -sS -g 'http://[fd00:ec2::254]/latest/meta-data/instance-life-cycle'; echo
         curl -s --max-time 2 http://10.11.12.13/; echo $?"
    );
    let finished = run(
        spotsim_run(&lab, &["--isolate"], &["sh", "-c", &script]),
        b"",
    );
    let text = finished.expect("the command");
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(lines[0], "lo", "{text}\n{}", finished.stderr);
    assert_ne!(lines[1], "0", "lo is up: {text}");
    assert_eq!(lines[2], armed(&finished.stderr).instance_action());
    assert_eq!(lines[3], "spot");
    assert_eq!(lines[4], "7", "curl could not connect elsewhere: {text}");
    assert_eq!(upstream.seen(), [], "the namespace around it has an IMDS");
}

#[test]
fn the_command_runs_as_who_called_sudo() {
    let Some(lab) = Lab::new() else { return };
    let script =
        "id -u; id -g; id -un; id -G; echo $HOME; awk '/^CapEff/ {print $2}' /proc/self/status";
    let mut command = shell(&lab, script);
    command
        .env("SUDO_UID", "65534")
        .env("SUDO_GID", "65534")
        .env("SUDO_USER", "nobody");
    let finished = run(command, b"");
    let text = finished.expect("id");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..4], ["65534", "65534", "nobody", "65534"], "{text}");
    assert_ne!(
        lines[4],
        lab.directory.to_str().unwrap(),
        "root's home is not theirs: {text}"
    );
    assert_eq!(lines[5], "0000000000000000", "{text}");
    assert_eq!(
        run(shell(&lab, "id -u"), b"").expect("id"),
        "0\n",
        "without sudo"
    );
}

#[test]
fn nothing_is_left() {
    let Some(lab) = Lab::new() else { return };
    let script = "cat /proc/self/cgroup | grep ^0::; echo $$
        sleep 600 >/dev/null 2>&1 & echo $!
        setsid sleep 600 >/dev/null 2>&1 & echo $!";
    let finished = run(shell(&lab, script), b"");
    assert_left_nothing(&lab, &finished.expect("sh"));
    assert_eq!(lab.daemon.children(), [""; 0]);
    assert_eq!(lab.daemon.processes(), [0; 0]);
}

/// Checks that the cgroup and the processes that a script named, one a line, are gone.
fn assert_left_nothing(lab: &Lab, named: &str) {
    let mut lines = named.lines();
    let cgroup = directory(lab, lines.next().unwrap());
    assert_ne!(
        cgroup,
        lab.daemon.directory(),
        "the command had a cgroup of its own"
    );
    wait_until("the command's cgroup is gone", || {
        (!cgroup.exists()).then_some(())
    });
    let mut pids = 0;
    for pid in lines {
        let pid = pid.parse().unwrap();
        assert!(!is_running(pid), "process {pid} is left");
        pids += 1;
    }
    assert!(pids > 1, "{named}");
}

#[test]
fn nothing_is_left_after_kill_9() {
    let Some(lab) = Lab::new() else { return };
    let script = "cat /proc/self/cgroup | grep ^0::; echo $$
        setsid sleep 600 & echo $!
        echo up; exec sleep 600";
    let mut running = Running::start(shell(&lab, script));
    running.stdout_line("up", 0);
    let named = running.stdout().replace("up\n", "");
    running.signal(Signal::SIGKILL);
    assert_eq!(running.finish().code, 128 + 9);
    assert_left_nothing(&lab, &named);
    wait_until("no process is left", || {
        lab.daemon.processes().is_empty().then_some(())
    });
    assert_eq!(lab.daemon.children(), [""; 0]);
}

#[test]
fn it_detaches_by_itself_while_the_command_goes_on() {
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &[]);
    let script = format!(
        "curl -s -o /dev/null -w '%{{http_code}}\\n' {NOTICE}
         read line
         curl -s -o /dev/null -w '%{{http_code}}\\n' {NOTICE}
         exit 5"
    );
    let given = patient(Duration::from_secs(1)).max(Duration::from_secs(3));
    let given = format!("{}s", given.as_secs());
    let options = ["-v", "--for", &given, "--upstream", "real"];
    let mut running = Running::start(spotsim_run(&lab, &options, &["sh", "-c", &script]));
    running.stderr_line("the command goes on without a notice", 0);
    running.write(b"\n");
    let finished = running.finish();
    assert_eq!(finished.text(), "200\n404\n", "{}", finished.stderr);
    assert_eq!(finished.code, 5);
}

#[test]
fn a_run_within_a_run_leaves_nothing_either() {
    let Some(lab) = Lab::new() else { return };
    let inner = spotsim_binary();
    let inner = inner.to_str().unwrap();
    let command = [
        inner,
        "run",
        "--upstream",
        "synthetic",
        "--action",
        "stop",
        "--",
        "curl",
        "-sS",
        NOTICE,
    ];
    let finished = run(spotsim_run(&lab, &["--action", "hibernate"], &command), b"");
    let notice = finished.expect("the inner run");
    assert!(notice.contains("\"stop\""), "the innermost wins: {notice}");
    assert_eq!(lab.daemon.children(), [""; 0]);
    assert!(Path::new(lab.daemon.directory()).exists());
}

/// Started by a shell script whose `"$@"` is the command line of spotsim.
fn by_script(place: &Place, script: &str, args: &[&str]) -> Command {
    let mut command = place.command_line(["sh", "-c", script, "sh"]);
    command.arg(spotsim_binary()).args(args);
    command
}

/// The state of a process as `/proc/PID/stat` shows it: T for a stopped one.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[test]
fn it_stops_and_continues_with_its_command() {
    let Some(lab) = Lab::bare() else { return };
    let mut command = shell(&lab, "echo $$; exec sleep 600");
    // SIGTSTP stops none in a process group that is orphaned; this test's own might be.
    command.process_group(0);
    let mut running = Running::start(command);
    let pid = running.stdout_line("", 0).parse().unwrap();
    let both = [running.pid(), pid];
    for _ in 0..2 {
        running.signal(Signal::SIGTSTP);
        wait_until("spotsim and its command are stopped", || {
            both.iter()
                .all(|&pid| state(pid) == Some('T'))
                .then_some(())
        });
        running.signal(Signal::SIGCONT);
        wait_until("spotsim and its command go on", || {
            both.iter()
                .all(|&pid| state(pid).is_some_and(|state| state != 'T'))
                .then_some(())
        });
    }
    running.signal(Signal::SIGTERM);
    assert_eq!(running.finish().code, 128 + 15);
}

#[test]
fn an_attach_that_ignores_sighup_goes_on() {
    let Some(lab) = Lab::bare() else { return };
    let _workload = lab.workload_process();
    let args = attach_args(lab.target.directory(), &["--upstream", "synthetic"]);
    let script = r#"trap "" HUP; exec "$@""#;
    let mut running = Running::start(by_script(&lab.daemon_place(), script, &args));
    running.stdout_line("armed: ", 0);
    running.signal(Signal::SIGHUP);
    sleep(Duration::from_millis(300));
    assert!(!running.has_ended(), "{}", running.stderr());
    let notice = lab.inside().get("/latest/meta-data/spot/instance-action");
    assert_eq!(notice.status(), 200);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.finish().code, 0);
}

/// The process that removes the command's cgroup.
fn guard(lab: &Lab) -> Pid {
    let is_guard = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|&byte| byte == 0).nth(1) == Some(b"guard")
    };
    let found = || lab.daemon.processes().into_iter().find(is_guard);
    Pid::from_raw(wait_until("a guard", found))
}

#[test]
fn nothing_is_left_when_the_guard_was_killed() {
    let Some(lab) = Lab::bare() else { return };
    let script = "setsid sleep 600 >/dev/null 2>&1 & echo up; read line; exit 7";
    let mut running = Running::start(shell(&lab, script));
    running.stdout_line("up", 0);
    kill(guard(&lab), Signal::SIGKILL).unwrap();
    running.write(b"\n");
    let finished = running.finish();
    assert_eq!(finished.code, 7, "{}", finished.stderr);
    assert_eq!(lab.daemon.children(), [""; 0]);
    assert_eq!(lab.daemon.processes(), [0; 0]);
}

#[test]
fn a_threaded_cgroup_of_the_command_is_removed() {
    let Some(lab) = Lab::bare() else { return };
    let top = lab.root.directory().parent().unwrap();
    let script = format!(
        "cgroup={}$(sed -n 's/^0:://p' /proc/self/cgroup)
         mkdir $cgroup/threads && echo threaded > $cgroup/threads/cgroup.type && exit 7",
        top.display()
    );
    let running = Running::start(shell(&lab, &script));
    let finished = running.finish_within(Duration::from_secs(3));
    assert_eq!(finished.code, 7, "{}", finished.stderr);
    assert_eq!(lab.daemon.children(), [""; 0]);
}

#[test]
fn two_at_a_time_do_not_disturb_each_other() {
    let Some(lab) = Lab::bare() else { return };
    let script = format!("echo up; read line; curl -sS {NOTICE}");
    // Then each spotsim is process 1.
    let own_pids = r#"exec unshare --pid --fork --kill-child --mount-proc "$@""#;
    for start in [r#"exec "$@""#, own_pids] {
        let running = ["stop", "hibernate"].map(|action| {
            let args = run_args(&["--action", action], &["sh", "-c", &script]);
            let mut running = Running::start(by_script(&lab.daemon_place(), start, &args));
            running.stdout_line("up", 0);
            running
        });
        for mut running in running {
            running.write(b"\n");
            let finished = running.finish();
            let text = finished.expect("the command");
            assert_eq!(
                text,
                format!("up\n{}", armed(&finished.stderr).instance_action())
            );
        }
        assert_eq!(lab.daemon.children(), [""; 0], "{start}");
    }
}

/// Below a cgroup with threaded children, none can hold processes.
#[test]
fn a_command_that_cannot_be_put_in_its_place() {
    let Some(lab) = Lab::bare() else { return };
    let domain = lab.daemon.child("domain");
    let threads = domain.child("threads");
    fs::write(threads.directory().join("cgroup.type"), "threaded").unwrap();
    let mut command = lab.place(&lab.node, &domain).command(spotsim_binary());
    command.args(run_args(&[], &["echo", "executed"]));
    let finished = run(command, b"");
    let stderr = &finished.stderr;
    assert_eq!(finished.code, 1, "{stderr}");
    assert_eq!(finished.text(), "");
    assert!(stderr.contains("cgroup: "), "{stderr}");
    assert!(!stderr.contains("cannot execute"), "{stderr}");
    assert_eq!(domain.children(), ["threads"]);
    assert_eq!(domain.processes(), [0; 0]);
}

/// spotsim with an output, by its descriptor, that is full and that nobody reads.
fn with_full(output: u8, lab: &Lab, args: &[&str]) -> Command {
    // Opened for both, the pipe has its reader.
    let script = format!(
        r#"mkfifo full; exec 3<>full
        dd if=/dev/zero of=full bs=4096 oflag=nonblock 2>/dev/null
        exec "$@" {output}>&3 3>&-"#
    );
    by_script(&lab.daemon_place(), &script, args)
}

#[test]
fn a_full_stderr_does_not_hold_up_the_command() {
    let Some(lab) = Lab::bare() else { return };
    let script = format!("curl -sS {NOTICE}; exit 7");
    let command = with_full(2, &lab, &run_args(&["-vvv"], &["sh", "-c", &script]));
    let finished = Running::start(command).finish_within(Duration::from_secs(10));
    assert_eq!(finished.code, 7);
    let text = finished.text();
    assert!(text.starts_with(r#"{"action": "terminate""#), "{text}");
    assert_eq!(lab.daemon.children(), [""; 0]);
}

#[test]
fn a_full_stdout_does_not_hold_up_an_attach() {
    let Some(lab) = Lab::new() else { return };
    let _upstream = Upstream::start(&lab, &[]);
    let _workload = lab.workload_process();
    let args = attach_args(lab.target.directory(), &["--upstream", "real"]);
    let running = Running::start(with_full(1, &lab, &args));
    wait_until("the notice", || {
        let notice = lab.inside().get("/latest/meta-data/spot/instance-action");
        (notice.status() == 200).then_some(())
    });
    running.signal(Signal::SIGTERM);
    let finished = running.finish_within(Duration::from_secs(3));
    assert_eq!(finished.code, 0, "{}", finished.stderr);
}

#[test]
fn an_early_signal_leaves_nothing() {
    let Some(lab) = Lab::bare() else { return };
    for delay in 0..20 {
        let running = Running::start(spotsim_run(&lab, &[], &["sleep", "600"]));
        sleep(Duration::from_millis(5 * delay));
        running.signal(Signal::SIGINT);
        let finished = running.finish();
        // spotsim or its command, whichever it met: neither lives on.
        assert_eq!(finished.code, 128 + 2, "{}", finished.stderr);
        // The guard of one that the signal killed is a moment later.
        wait_until("no process and no cgroup is left", || {
            (lab.daemon.processes().is_empty() && lab.daemon.children().is_empty()).then_some(())
        });
    }
}
