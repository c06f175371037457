//! The first process of a virtual machine in which the tests run: makes it a system, runs the
//! programs of its plan one after the other, says how that went, and powers off.
//!
//! `cargo xtask vm` makes the initial root: `/modules` to be loaded in the order of their names,
//! `/plan` with a test program and its arguments a line, and the programs in `/tests/deps`.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::{
        reboot::{RebootMode, reboot},
        wait::{WaitStatus, wait},
    },
};

/// What is mounted where, and with which options.
const MOUNTS: [(&str, &str, Option<&str>); 8] = [
    ("proc", "/proc", None),
    ("sysfs", "/sys", None),
    ("devtmpfs", "/dev", None),
    ("devpts", "/dev/pts", Some("ptmxmode=0666")),
    ("tmpfs", "/tmp", None),
    ("tmpfs", "/run", None),
    ("bpf", "/sys/fs/bpf", None),
    // The unified hierarchy, and no other.
    ("cgroup2", "/sys/fs/cgroup", None),
];

/// `MODULE_INIT_COMPRESSED_FILE` of `include/uapi/linux/module.h`, which nix does not know.
const COMPRESSED: ModuleInitFlags = ModuleInitFlags::from_bits_retain(4);

/// What the tests are told by their environment: nothing may be skipped, and an emulated machine
/// is slow.
const ENVIRONMENT: [(&str, &str); 6] = [
    ("PATH", "/bin"),
    ("RUST_BACKTRACE", "0"),
    // Most of the time they wait.
    ("RUST_TEST_THREADS", "6"),
    ("SPOTSIM_BIN", "/bin/spotsim"),
    ("SPOTSIM_PATIENCE", "5"),
    ("SPOTSIM_REQUIRE_BPF", "1"),
];

/// After that something hangs, and will not end.
const LONGEST: Duration = Duration::from_secs(540);

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("init: this mounts and powers off: it is for virtual machines");
        return ExitCode::FAILURE;
    }
    thread::spawn(|| {
        thread::sleep(LONGEST);
        println!("init: gave up after {LONGEST:?}");
        power_off();
    });
    // A panic of the first process would be one of the kernel.
    match thread::spawn(work).join() {
        Ok(0) => println!("init: all programs succeeded"),
        Ok(failed) => println!("init: {failed} programs failed"),
        Err(_) => println!("init: gave up"),
    }
    power_off()
}

fn power_off() -> ! {
    let error = reboot(RebootMode::RB_POWER_OFF).unwrap_err();
    panic!("cannot power off: {error}");
}

/// How many programs failed.
#[expect(
    clippy::zombie_processes,
    reason = "what stays attached stays until the power is off"
)]
fn work() -> usize {
    for (kind, target, options) in MOUNTS {
        fs::create_dir_all(target).unwrap();
        let none = None::<&str>;
        mount(none, target, Some(kind), MsFlags::empty(), options)
            .unwrap_or_else(|error| panic!("cannot mount {kind} at {target}: {error}"));
    }
    for module in modules() {
        load(&module).unwrap_or_else(|error| panic!("cannot load {}: {error}", module.display()));
    }
    assert!(run(Command::new("ip").args(["link", "set", "lo", "up"])));
    let _stays = stay_attached();
    let plan = fs::read_to_string("/plan").unwrap();
    plan.lines().filter(|line| !succeeds(line)).count()
}

/// Has a spotsim stay attached, to a cgroup in which nobody is.
///
/// With the first program of a kind the kernel puts a breakpoint where the hook is called, to
/// rewrite the instruction there, and again when the last one is gone (`static_branch_inc` in
/// kernel/bpf/cgroup.c). The emulator at times runs into it when the kernel knows of none any
/// more (`Oops: int3`).
fn stay_attached() -> Child {
    fs::create_dir("/sys/fs/cgroup/stays").unwrap();
    let mut spotsim = Command::new("/bin/spotsim");
    spotsim
        .args(["attach", "--cgroup", "/stays", "--run-dir", "/run/stays"])
        .args(["--hold", "--upstream", "none"])
        .stdout(Stdio::piped());
    let mut spotsim = spotsim.spawn().unwrap();
    // Nothing, where the kernel is refused.
    let mut armed = String::new();
    let mut stdout = BufReader::new(spotsim.stdout.take().unwrap());
    stdout.read_line(&mut armed).unwrap();
    print!("init: {armed}");
    spotsim
}

fn modules() -> Vec<PathBuf> {
    let entries = fs::read_dir("/modules").unwrap();
    let mut modules: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    modules.sort();
    modules
}

fn load(module: &PathBuf) -> nix::Result<()> {
    let file = File::open(module).unwrap();
    let compressed = module.extension().is_some_and(|kind| kind != "ko");
    let flags = if compressed {
        COMPRESSED
    } else {
        ModuleInitFlags::empty()
    };
    finit_module(file, c"", flags)
}

/// Runs a line of the plan.
fn succeeds(line: &str) -> bool {
    println!("init: {line}");
    let began = Instant::now();
    let mut words = line.split(' ');
    let name = words.next().unwrap();
    let mut program = Command::new(format!("/tests/deps/{name}"));
    let succeeded = run(program.args(words));
    let outcome = if succeeded { "succeeded" } else { "failed" };
    println!(
        "init: {name} {outcome} after {:.1} s",
        began.elapsed().as_secs_f64()
    );
    succeeded
}

/// Runs a program to its end, and is the parent of all who lose theirs meanwhile.
#[expect(clippy::zombie_processes, reason = "it is waited for with all others")]
fn run(program: &mut Command) -> bool {
    let child = program.env_clear().envs(ENVIRONMENT).spawn();
    let child = child.unwrap_or_else(|error| panic!("cannot run {program:?}: {error}"));
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() as u32 == child.id() => {
                return code == 0;
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() as u32 == child.id() => {
                println!("init: {program:?} was ended by {signal}");
                return false;
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => panic!("cannot wait for {program:?}: {error}"),
        }
    }
}
