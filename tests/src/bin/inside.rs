//! Runs a program inside a cgroup and a network namespace: joins both, then becomes it.
//!
//! `inside [--cgroup DIRECTORY] [--net FILE] [--bind SOURCE TARGET]… [--stay] -- PROGRAM ARGS…`
//!
//! With `--bind` it has a mount namespace of its own, where one directory is mounted over
//! another.
//!
//! The pid stays the same, so the caller's child *is* the program. The program dies with the
//! thread that started it, unless `--stay` is given.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    os::unix::process::CommandExt as _,
    process::Command,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::{prctl::set_pdeathsig, signal::Signal},
};

fn main() {
    let mut args = std::env::args_os().skip(1);
    let mut value = |option: &str| -> OsString {
        args.next()
            .unwrap_or_else(|| panic!("{option} lacks its value"))
    };
    let (mut stay, mut binds) = (false, Vec::new());
    loop {
        let option = value("the command line");
        match option.to_str() {
            Some("--cgroup") => {
                let procs = std::path::Path::new(&value("--cgroup")).join("cgroup.procs");
                fs::write(&procs, std::process::id().to_string())
                    .unwrap_or_else(|error| panic!("cannot join {}: {error}", procs.display()));
            }
            Some("--net") => {
                let path = value("--net");
                let file = File::open(&path)
                    .unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()));
                setns(file, CloneFlags::CLONE_NEWNET)
                    .unwrap_or_else(|error| panic!("cannot enter {}: {error}", path.display()));
            }
            Some("--bind") => binds.push((value("--bind"), value("--bind"))),
            Some("--stay") => stay = true,
            Some("--") => break,
            _ => panic!("unknown option {}", option.display()),
        }
    }
    if !stay {
        set_pdeathsig(Signal::SIGKILL).expect("cannot set the parent death signal");
    }
    if !binds.is_empty() {
        hide_mounts();
    }
    for (source, target) in binds {
        bind(&source, &target);
    }
    let program = value("--");
    let error = Command::new(&program).args(args).exec();
    panic!("cannot execute {}: {error}", program.display());
}

/// From now on, what is mounted is seen from here alone.
fn hide_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).expect("cannot make a mount namespace");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&OsStr>, "/", None::<&OsStr>, private, None::<&OsStr>)
        .expect("cannot make mounts private");
}

fn bind(source: &OsStr, target: &OsStr) {
    mount(
        Some(source),
        target,
        None::<&OsStr>,
        MsFlags::MS_BIND,
        None::<&OsStr>,
    )
    .unwrap_or_else(|error| panic!("cannot mount over {}: {error}", target.display()));
}
