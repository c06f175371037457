//! Starting a command in its place: a cgroup, a namespace, a user.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, PipeReader, PipeWriter, Read as _, Write as _, pipe},
    process::Stdio,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::{
        resource::{Resource, getrlimit, rlim_t, setrlimit},
        signal::SigSet,
    },
    unistd::{Gid, Uid, User, getgrouplist, setgid, setgroups, setuid},
};
use tokio::process::{Child, Command};

use crate::{netns::Namespace, target::Cgroup};

/// A command that is ready to be started in its place.
pub struct Launch {
    command: Command,
    /// Which step the forked child came to.
    steps: Option<PipeReader>,
}

/// Why a command did not start.
pub enum StartError {
    /// Everything is in place, but it cannot be executed.
    NotExecuted(io::Error),
    /// It cannot be put in its place.
    NotPlaced(&'static str, io::Error),
}

/// What the forked child does before it executes the command.
const STEPS: [&str; 4] = [
    "enter the command's cgroup",
    "enter the command's network namespace",
    "restore the command's limits and signals",
    "become the user who called sudo",
];

impl Launch {
    pub fn prepare(command: &[OsString]) -> Result<Self> {
        let (program, arguments) = command.split_first().context("no command")?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::inherit())
            .stdout(Stdio::inherit())
            .stderr(Stdio::inherit());
        Ok(Self {
            command,
            steps: None,
        })
    }

    /// Makes the command start in the cgroup and namespace, as the user who called sudo.
    pub fn enter(
        &mut self,
        cgroup: &Cgroup,
        namespace: Option<&Namespace>,
        blocked: SigSet,
    ) -> Result<()> {
        let Self { command, steps } = self;
        let (reader, writer) = pipe().context("cannot make a pipe")?;
        *steps = Some(reader);
        let place = Place {
            steps: writer,
            processes: OpenOptions::new()
                .write(true)
                .open(cgroup.directory().join("cgroup.procs"))
                .context("cannot open the command's cgroup")?,
            namespace: namespace.map(Namespace::try_clone).transpose()?,
            files: getrlimit(Resource::RLIMIT_NOFILE)?,
            blocked,
            user: Invoker::of_sudo()?,
        };
        if let Some(Invoker { user, .. }) = &place.user {
            command
                .env("HOME", &user.dir)
                .env("SHELL", &user.shell)
                .env("USER", &user.name)
                .env("LOGNAME", &user.name);
        }
        // SAFETY: between fork and exec only system calls are made; everything that takes
        // memory was made above.
        unsafe { command.pre_exec(move || place.enter()) };
        Ok(())
    }

    pub fn start(self) -> Result<Child, StartError> {
        let Self { mut command, steps } = self;
        command.spawn().map_err(|error| {
            // Closes our end of the pipe, so that reading it ends.
            drop(command);
            let mut reached = Vec::new();
            if let Some(mut steps) = steps {
                // What cannot be read was not reached.
                let _ = steps.read_to_end(&mut reached);
            }
            let last = reached.last().map_or(0, |&step| usize::from(step));
            match STEPS.get(last) {
                Some(step) => StartError::NotPlaced(step, error),
                None => StartError::NotExecuted(error),
            }
        })
    }
}

/// Where the command is to run. Entered by the forked child.
struct Place {
    steps: PipeWriter,
    processes: File,
    namespace: Option<Namespace>,
    /// As it was before links needed more.
    files: (rlim_t, rlim_t),
    /// As it was before signals were taken over.
    blocked: SigSet,
    user: Option<Invoker>,
}

impl Place {
    /// Async-signal-safe: system calls only.
    fn enter(&self) -> io::Result<()> {
        let Self {
            steps,
            processes,
            namespace,
            files: (soft, hard),
            blocked,
            user,
        } = self;
        let step = |number: u8| (&*steps).write_all(&[number]);
        step(0)?;
        // "0" is whoever writes it.
        (&*processes).write_all(b"0")?;
        step(1)?;
        if let Some(namespace) = namespace {
            namespace.enter()?;
        }
        step(2)?;
        setrlimit(Resource::RLIMIT_NOFILE, *soft, *hard)?;
        blocked.thread_set_mask()?;
        step(3)?;
        if let Some(Invoker { user, groups }) = user {
            setgroups(groups)?;
            setgid(user.gid)?;
            setuid(user.uid)?;
        }
        step(STEPS.len() as u8)
    }
}

/// The user who called sudo.
struct Invoker {
    user: User,
    groups: Vec<Gid>,
}

impl Invoker {
    fn of_sudo() -> Result<Option<Self>> {
        let Some(uid) = std::env::var_os("SUDO_UID") else {
            return Ok(None);
        };
        let uid = uid.to_str().and_then(|uid| uid.parse().ok());
        let uid = Uid::from_raw(
            uid.context("SUDO_UID is not a number: unset it to run the command as root")?,
        );
        if uid.is_root() {
            return Ok(None);
        }
        let user = User::from_uid(uid)?.with_context(|| {
            format!(
                "there is no user {uid}, whom SUDO_UID names: unset it to run the command as root"
            )
        })?;
        let name = std::ffi::CString::new(user.name.as_str())?;
        let groups = getgrouplist(&name, user.gid)?;
        Ok(Some(Self { user, groups }))
    }
}
