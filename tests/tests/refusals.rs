//! What spotsim refuses: with the right exit code, the reason and what to do, and before it has
//! changed anything.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
    sync::Mutex,
};

use serde_json::Value;
use tests::{Finished, Lab, Running, Spotsim, attach_args, run, spotsim_binary};

/// The tests here look at all cgroups of the machine.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The cgroups at the top of the hierarchy.
fn cgroups(lab: &Lab) -> BTreeSet<String> {
    let top = lab.root.directory().parent().unwrap();
    let entries = fs::read_dir(top).unwrap().map(|entry| entry.unwrap());
    let directories = entries.filter(|entry| entry.path().is_dir());
    directories
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect()
}

/// Runs spotsim with arguments that it must refuse.
fn refused(lab: &Lab, command: Command, code: i32, words: &[&str]) -> Finished {
    let name = format!("{:?}", command.get_args().collect::<Vec<_>>());
    let before = cgroups(lab);
    let finished = run(command, b"");
    let Finished { stderr, .. } = &finished;
    assert_eq!(finished.code, code, "{name}: {}{stderr}", finished.text());
    assert_eq!(finished.text(), "", "{name}");
    for word in words {
        assert!(
            stderr.contains(word),
            "{name}: {word:?} is not in: {stderr}"
        );
    }
    assert_eq!(cgroups(lab), before, "{name}: a cgroup is left");
    for cgroup in [&lab.target, &lab.beside, &lab.daemon] {
        assert_eq!(cgroup.children(), [""; 0], "{name}: a cgroup is left");
        assert_eq!(cgroup.processes(), [0; 0], "{name}: a process is left");
    }
    finished
}

fn attach(lab: &Lab, cgroup: &str, more: &[&str]) -> Command {
    Spotsim::command(lab, &attach_args(cgroup.as_ref(), more))
}

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const HOST: i32 = 3;

/// What `doctor` looks at.
const CHECKS: [&str; 16] = [
    "capabilities",
    "kernel",
    "cgroup v2",
    "cgroup namespace",
    "program type",
    "ring buffer",
    "helper",
    "kernel half",
    "processes",
    "BTF",
    "JIT",
    "network namespaces",
    "namespace cookie",
    "open connections",
    "container runtime",
    "upstream",
];

#[test]
fn a_cgroup_that_is_not_there() {
    let _alone = alone();
    let Some(lab) = Lab::bare() else { return };
    let gone = lab.target.directory().join("gone");
    let gone = gone.to_str().unwrap();
    refused(
        &lab,
        attach(&lab, gone, &[]),
        FAILED,
        &["spotsim: error: ", gone],
    );
    refused(
        &lab,
        attach(&lab, "/no/such/cgroup", &[]),
        FAILED,
        &["error: ", "/no/such/cgroup"],
    );
    // A file is none, nor is a directory of another filesystem.
    let procs = lab.target.directory().join("cgroup.procs");
    refused(
        &lab,
        attach(&lab, procs.to_str().unwrap(), &[]),
        FAILED,
        &["cgroup.procs"],
    );
    refused(
        &lab,
        attach(&lab, "/proc/self", &[]),
        FAILED,
        &["/proc/self"],
    );
    refused(&lab, attach(&lab, "", &[]), FAILED, &["error: "]);
}

#[test]
fn one_bad_cgroup_among_good_ones() {
    let _alone = alone();
    let Some(lab) = Lab::bare() else { return };
    let good = lab.target.directory().to_str().unwrap();
    let command = attach(&lab, good, &["--cgroup", "/no/such/cgroup"]);
    refused(&lab, command, FAILED, &["/no/such/cgroup"]);
}

#[test]
fn a_cgroup_of_version_1() {
    let _alone = alone();
    let Some(lab) = Lab::bare() else { return };
    // In a mount namespace of its own: a machine need not have any.
    let name = format!("none,name=spotsim-tests-{}", std::process::id());
    let script = r#"mkdir v1 && mount -t cgroup -o "$0" none v1 && exec "$@""#;
    let v1 = lab.directory.join("v1");
    let mut command = lab.daemon_place().command("unshare");
    command
        .args(["--mount", "sh", "-c", script, &name])
        .arg(spotsim_binary())
        .args(attach_args(&v1, &[]));
    refused(&lab, command, FAILED, &[v1.to_str().unwrap(), "v1", "v2"]);
}

#[test]
fn a_cgroup_that_contains_spotsim() {
    let _alone = alone();
    let Some(lab) = Lab::bare() else { return };
    let [daemon, root] =
        [&lab.daemon, &lab.root].map(|cgroup| cgroup.directory().to_str().unwrap());
    for cgroup in ["/", daemon, root] {
        refused(&lab, attach(&lab, cgroup, &[]), FAILED, &["spotsim itself"]);
    }
}

/// A process of personality `UNAME26` is told that its kernel is a 2.6.
#[test]
fn a_kernel_that_is_too_old() {
    let _alone = alone();
    let Some(lab) = Lab::bare() else { return };
    let spotsim = spotsim_binary();
    let mut line = vec![
        "setarch".as_ref(),
        "--uname-2.6".as_ref(),
        spotsim.as_os_str(),
    ];
    let target = lab.target.directory();
    let words = ["kernel 2.6", "too old", "5.15 or newer"];
    for args in [attach_args(target, &[]), vec!["run", "--", "true"]] {
        line.truncate(3);
        line.extend(args.iter().map(|arg| std::ffi::OsStr::new(*arg)));
        refused(&lab, lab.daemon_place().command_line(&line), HOST, &words);
    }
}

#[test]
fn arguments_that_make_no_sense() {
    let _alone = alone();
    let Some(lab) = Lab::bare() else { return };
    let target = lab.target.directory().to_str().unwrap();
    for (option, value, words) in [
        ("--for", "soon", &["soon", "--for", "90s"][..]),
        ("--lead", "-2m", &["--lead"]),
        (
            "--notice-after",
            "2 lightyears",
            &["2 lightyears", "--notice-after", "90s"],
        ),
        ("--notice-after", "2", &["--notice-after", "90s"]),
        (
            "--action",
            "reboot",
            &["reboot", "terminate", "stop", "hibernate"],
        ),
        (
            "--upstream",
            "https://169.254.169.254",
            &["--upstream", "http://"],
        ),
        ("--upstream", "ftp://x", &["ftp://x", "http://"]),
        ("--upstream", "http://", &["--upstream", "http://"]),
        ("--upstream", "http://x:99999", &["http://x:99999"]),
        ("--upstream", "http://x/latest", &["http://x/latest"]),
        ("--upstream", "nobody", &["nobody", "synthetic"]),
    ] {
        let both = format!("{option}={value}");
        refused(&lab, attach(&lab, target, &[&both]), USAGE, words);
        refused(
            &lab,
            Spotsim::command(&lab, &["run", &both, "--", "true"]),
            USAGE,
            words,
        );
    }
    refused(
        &lab,
        Spotsim::command(&lab, &["attach"]),
        USAGE,
        &["--cgroup"],
    );
    refused(&lab, Spotsim::command(&lab, &["run"]), USAGE, &["COMMAND"]);
    refused(
        &lab,
        Spotsim::command(&lab, &["attach", "--pod", "x/y/z"]),
        USAGE,
        &["--pod"],
    );
}

/// Options that contradict each other, or say what there is not.
const NONSENSE: [(&[&str], &[&str]); 20] = [
    (&["--action", "reboot"], &["--action", "reboot"]),
    (&["--life-cycle", "reserved"], &["--life-cycle"]),
    (&["--after-deadline", "forget"], &["--after-deadline"]),
    (
        &["--scheduled", "system-rebot"],
        &["--scheduled", "unknown event code"],
    ),
    (
        &["--scheduled", "system-reboot@soon"],
        &["--scheduled", "NOT_BEFORE"],
    ),
    (
        &["--scheduled", "system-reboot@2h..1h"],
        &["--scheduled: not-after"],
    ),
    (
        &["--scheduled", "system-reboot,cancelled=1h"],
        &["--scheduled", "unknown key"],
    ),
    (
        &["--scheduled", "system-reboot,lingers=1h"],
        &["--scheduled: lingers"],
    ),
    (
        &["--scheduled", "instance-stop,appears=2h,canceled=1h"],
        &["--scheduled: canceled"],
    ),
    (
        &["--lifecycle-state", "Inservice"],
        &["--lifecycle-state", "unknown target lifecycle state"],
    ),
    (
        &[
            "--lifecycle-state",
            "InService",
            "--lifecycle-state",
            "Standby",
        ],
        &["--lifecycle-state: ", "Standby", "InService"],
    ),
    (
        &["--notice-after", "90s", "--deadline", "60s"],
        &["--deadline: ", "before the notice appears"],
    ),
    (
        &["--notice-after", "1969-12-31T23:00:00Z"],
        &["--notice-after: ", "1970"],
    ),
    (
        &["--lead", "2m", "--deadline", "3m"],
        &["--lead", "--deadline"],
    ),
    (&["--lead", "2m", "--lead", "3m"], &["--lead"]),
    (
        &["--action", "hibernate", "--after-deadline", "withdraw"],
        &["--after-deadline: "],
    ),
    (
        &[
            "--rebalance-after",
            "5m",
            "--lead",
            "2m",
            "--after-deadline",
            "withdraw",
        ],
        &["--rebalance-after: "],
    ),
    (
        &["--plan", "plan.yaml", "--action", "stop"],
        &["--plan", "--action"],
    ),
    (&["--hold", "--action", "stop"], &["--hold"]),
    (&["--hold", "--plan", "plan.yaml"], &["--hold"]),
];

/// Targets that are named in ways that make no sense, or contradict each other.
const NO_TARGETS: [(&[&str], &[&str]); 22] = [
    (&[], &["choose targets: --pod"]),
    (&["-n", "web"], &["choose targets: --pod"]),
    (&["--once"], &["choose targets: --pod"]),
    (&["--dry-run"], &["choose targets: --pod"]),
    (
        &["--cgroup", "/a", "-n", "web"],
        &["--namespace goes with --selector or --pod"],
    ),
    (&["--cgroup", "/a", "-A"], &["--selector"]),
    (
        &["-l", "a", "-A", "-n", "web"],
        &["--all-namespaces", "--namespace"],
    ),
    (
        &["--cgroup", "/a", "--seed", "3"],
        &["--seed goes with --select"],
    ),
    (&["-l", "a", "--wait", "--once"], &["--wait", "--once"]),
    (&["--cgroup", "/a", "--wait"], &["--wait is for --pod"]),
    (
        &["-l", "a", "--wait", "--select", "count(1)"],
        &["--wait is for --pod"],
    ),
    (&["--cgroup", "/a", "--json"], &["--dry-run"]),
    (
        &["-l", "a", "--select", "count(0)"],
        &["count(n) takes 1 to"],
    ),
    (
        &["-l", "a", "--select", "percent(101)"],
        &["percent(n) takes 1 to 100"],
    ),
    (&["-l", "a", "--select", "half"], &["write all, count(n)"]),
    (&["-l", "a=b,,c"], &["--selector", "not `,`, at column 5"]),
    (
        &["-l", "app in (a, b"],
        &["--selector", "not the end, at column 13"],
    ),
    (&["--pod", "a/b/c"], &["a/b/c", "NAMESPACE/NAME"]),
    (&["--pod", "/b"], &["NAMESPACE/NAME"]),
    (&["--pod", ""], &["NAMESPACE/NAME"]),
    (&["--pid", "-1"], &["-1"]),
    (&["--pid", "init"], &["--pid", "init"]),
];

#[test]
fn targets_that_make_no_sense() {
    let _alone = alone();
    let Some(lab) = Lab::bare() else { return };
    for (options, words) in NO_TARGETS {
        let command = Spotsim::command(&lab, &[&["attach"], options].concat());
        is_a_line(&refused(&lab, command, USAGE, words));
    }
}

fn is_a_line(refused: &Finished) {
    let Finished { stderr, .. } = refused;
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

/// What is named and is not there, beside something that is: nothing is attached.
#[test]
fn targets_that_are_not_there() {
    let _alone = alone();
    let Some(lab) = Lab::bare() else { return };
    let target = lab.target.directory().to_str().unwrap();
    let nowhere = lab.directory.join("runtime.sock");
    let nowhere = nowhere.to_str().unwrap();
    let runtime = ["--runtime-endpoint", nowhere];
    let unit = format!("spotsim-tests-{}", std::process::id());
    let with_runtime: [&[&str]; 3] = [
        &["--pod", "default/web-0"],
        &["-l", "app=web", "--wait"],
        &["--container", "0123"],
    ];
    let with_runtime = with_runtime.map(|options| ([options, &runtime].concat(), nowhere));
    let without: [(&[&str], &str); 6] = [
        (&["--pid", "4194305"], "no such process: 4194305"),
        (&["--pid", "0"], "no such process: 0"),
        (&["--unit", &unit], "no running unit spotsim-tests-"),
        (&["--unit", "a~b", "--wait"], "`~` cannot be in it"),
        (&["--unit", "a.timer", "--wait"], "a timer starts others"),
        (&["--select", "count(2)"], "count(2): only one matches"),
    ];
    let without = without.map(|(options, words)| (options.to_vec(), words));
    for (options, words) in with_runtime.into_iter().chain(without) {
        for more in [&[][..], &["--dry-run"]] {
            let command = attach(&lab, target, &[&options[..], more].concat());
            is_a_line(&refused(
                &lab,
                command,
                FAILED,
                &["spotsim: error: ", words],
            ));
        }
    }
}

/// The same for all that announce something, before they look at anything else.
#[test]
fn announcements_that_make_no_sense() {
    let _alone = alone();
    let Some(lab) = Lab::bare() else { return };
    let target = lab.target.directory().to_str().unwrap();
    for (options, words) in NONSENSE {
        let verbs: [&[&str]; 4] = [
            &["attach", "--cgroup", target],
            &["run"],
            &["serve"],
            &["trigger"],
        ];
        for verb in verbs {
            let mut args = [verb, options].concat();
            if verb == ["run"] {
                args.extend(["--", "true"]);
            }
            let finished = refused(&lab, Spotsim::command(&lab, &args), USAGE, words);
            let is_a_line = finished.stderr.lines().count() == 1;
            assert!(is_a_line, "{args:?}: {}", finished.stderr);
        }
    }
}

/// Whoever can reach `serve` would have what is behind it: this machine's credentials.
#[test]
fn an_imds_for_the_network() {
    let _alone = alone();
    // Nothing can be reached from here, whatever is dialled.
    let Some(lab) = Lab::bare() else { return };
    for upstream in [
        "real",
        "http://169.254.169.254",
        "http://169.254.170.2",
        "http://169.254.170.23:80",
        "http://[fd00:ec2::254]",
        "http://[fd00:ec2::23]:80",
        "http://[::ffff:169.254.169.254]",
        "http://[fe80::1]",
    ] {
        for listen in ["0.0.0.0:0", "[::]:0", "10.0.0.1:1338", "[::ffff:0.0.0.0]:0"] {
            let args = ["serve", "--listen", listen, "--upstream", upstream];
            let words = ["spotsim: error: ", "credentials", "127.0.0.1", listen];
            let finished = refused(&lab, Spotsim::command(&lab, &args), USAGE, &words);
            let is_a_line = finished.stderr.lines().count() == 1;
            assert!(is_a_line, "{args:?}: {}", finished.stderr);
        }
    }
    // Neither is refused by itself.
    for (listen, upstream) in [
        ("127.0.0.1:0", "http://169.254.170.2"),
        ("[::1]:0", "real"),
        ("0.0.0.0:0", "synthetic"),
        ("[::]:0", "http://10.0.0.1:80"),
    ] {
        let args = ["serve", "--listen", listen, "--upstream", upstream];
        let mut serve = Running::start(Spotsim::command(&lab, &args));
        serve.stdout_line("serving: ", 0);
    }
}

/// spotsim as another user or with fewer capabilities, started by `setpriv`.
fn with_less(lab: &Lab, less: &[&str], args: &[&str]) -> Command {
    // Where the binary is built need not be open to everyone.
    let binary = lab.directory.join("spotsim");
    if !binary.exists() {
        fs::copy(spotsim_binary(), &binary).unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = lab.daemon_place().command("setpriv");
    command
        .args(less)
        .arg(binary)
        .args(args)
        .stdin(Stdio::null());
    command
}

#[test]
fn a_user_who_is_not_root() {
    let _alone = alone();
    let Some(lab) = Lab::bare() else { return };
    let target = lab.target.directory();
    let user = [
        "--reuid=65534",
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
    ];
    let words = ["spotsim: error: ", "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "root"];
    refused(
        &lab,
        with_less(&lab, &user, &attach_args(target, &[])),
        HOST,
        &words,
    );
    refused(
        &lab,
        with_less(&lab, &user, &["run", "--", "true"]),
        HOST,
        &words,
    );
    let doctor = run(with_less(&lab, &user, &["doctor"]), b"");
    assert_eq!(doctor.code, HOST, "{}", doctor.text());
    assert!(doctor.text().contains("CAP_SYS_ADMIN"), "{}", doctor.text());
    no_namespace_can_be_entered(with_less(&lab, &user, &["doctor", "--json"]));
}

/// Checks what a doctor without CAP_SYS_ADMIN says.
fn no_namespace_can_be_entered(doctor: Command) {
    let finished = run(doctor, b"");
    assert_eq!(finished.code, HOST, "{}", finished.stderr);
    let report = report(&finished.text());
    assert_eq!(report["attach"], false, "{report}");
    let checks = report["checks"].as_array().unwrap();
    let named = checks
        .iter()
        .find(|check| check["name"] == "network namespaces");
    let check = named.unwrap_or_else(|| panic!("{report}"));
    assert_eq!(check["outcome"], "fail", "{check}");
    assert!(check["remedy"].is_string(), "{check}");
}

/// What `doctor --json` printed: one line.
fn report(text: &str) -> Value {
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_root_who_lacks_a_capability() {
    let _alone = alone();
    let Some(lab) = Lab::bare() else { return };
    let target = lab.target.directory();
    let none = ["--inh-caps=-all", "--bounding-set=-all"];
    let words = ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"];
    refused(
        &lab,
        with_less(&lab, &none, &attach_args(target, &[])),
        HOST,
        &words,
    );
    let one = ["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"];
    let finished = refused(
        &lab,
        with_less(&lab, &one, &attach_args(target, &[])),
        HOST,
        &["CAP_SYS_ADMIN"],
    );
    assert!(
        !finished.stderr.contains("lacks CAP_NET_ADMIN"),
        "{}",
        finished.stderr
    );
    no_namespace_can_be_entered(with_less(&lab, &one, &["doctor", "--json"]));
}

/// It has every capability, and none that eBPF asks for.
#[test]
fn a_root_of_a_user_namespace() {
    let _alone = alone();
    let Some(lab) = Lab::bare() else { return };
    let spotsim = spotsim_binary();
    for args in [
        attach_args(lab.target.directory(), &[]),
        vec!["run", "--", "true"],
    ] {
        let mut command = lab.daemon_place().command("unshare");
        command
            .args(["--user", "--map-root-user"])
            .arg(&spotsim)
            .args(args);
        refused(&lab, command, HOST, &["spotsim: error: ", "user namespace"]);
    }
}

#[test]
fn a_doctor_who_finds_nothing_wrong() {
    let _alone = alone();
    let Some(lab) = Lab::bare() else { return };
    let doctor = run(Spotsim::command(&lab, &["doctor"]), b"");
    let text = doctor.expect("doctor");
    assert_eq!(text.lines().last(), Some("attach will work here"), "{text}");
    let json = run(Spotsim::command(&lab, &["doctor", "--json"]), b"").expect("doctor --json");
    let report = report(&json);
    assert_eq!(report["attach"], true, "{report}");
    let checks = report["checks"].as_array().unwrap();
    let names: Vec<&str> = checks
        .iter()
        .filter_map(|check| check["name"].as_str())
        .collect();
    assert_eq!(names, CHECKS);
    for check in checks {
        let outcome = check["outcome"].as_str().unwrap();
        assert!(["ok", "warn"].contains(&outcome), "{check}");
        assert_ne!(check["detail"], "", "{check}");
        assert_eq!(check["remedy"].is_null(), outcome == "ok", "{check}");
    }
}
