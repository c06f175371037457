//! Runs a program inside a cgroup and a network namespace: joins both, then becomes it.
//!
//! `inside [--cgroup DIRECTORY] [--net FILE] [--stay] -- PROGRAM ARGS…`
//!
//! The pid stays the same, so the caller's child *is* the program. The program dies with the
//! thread that started it, unless `--stay` is given.

use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::process::CommandExt as _,
    process::Command,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::{prctl::set_pdeathsig, signal::Signal},
};

fn main() {
    let mut args = std::env::args_os().skip(1);
    let mut value = |option: &str| -> OsString {
        args.next()
            .unwrap_or_else(|| panic!("{option} lacks its value"))
    };
    let mut stay = false;
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
            Some("--stay") => stay = true,
            Some("--") => break,
            _ => panic!("unknown option {}", option.display()),
        }
    }
    if !stay {
        set_pdeathsig(Signal::SIGKILL).expect("cannot set the parent death signal");
    }
    let program = value("--");
    let error = Command::new(&program).args(args).exec();
    panic!("cannot execute {}: {error}", program.display());
}
