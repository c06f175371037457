//! Child processes, and waits that end.

use std::{
    env,
    ffi::OsString,
    io::{Read, Write as _},
    os::unix::process::ExitStatusExt as _,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, OnceLock},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Longer than anything here takes on a busy machine.
pub(crate) fn patience() -> Duration {
    patient(Duration::from_secs(20))
}

/// A limit for what takes this long at most, and `SPOTSIM_PATIENCE` times as long on a machine
/// that is so much slower, as an emulated one is. There it is also looked for something less often.
pub fn patient(limit: Duration) -> Duration {
    static TIMES: OnceLock<u32> = OnceLock::new();
    let times = TIMES.get_or_init(|| match env::var("SPOTSIM_PATIENCE") {
        Ok(times) => times.parse().expect("SPOTSIM_PATIENCE is a number"),
        Err(_) => 1,
    });
    limit * *times
}

/// What a child process is given of this one's environment: where programs are, and where one that
/// was built to measure its coverage writes that.
pub(crate) fn kept_environment() -> impl Iterator<Item = (&'static str, OsString)> {
    let kept = |name| Some((name, env::var_os(name)?));
    ["PATH", "LLVM_PROFILE_FILE"].into_iter().filter_map(kept)
}

/// A child process whose output is collected. It is killed when dropped.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Collected,
    stderr: Collected,
}

/// How a process ended and what it printed.
#[derive(Debug)]
pub struct Finished {
    /// Exit code, or 128 + the signal that ended it, as a shell shows it.
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

/// Output so far, filled in by a thread of its own until the pipe is closed.
#[derive(Clone, Debug, Default)]
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    ended: Arc<Mutex<bool>>,
}

impl Collected {
    fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let collected = Self::default();
        let Self { bytes, ended } = collected.clone();
        thread::spawn(move || {
            let mut chunk = [0; 65_536];
            while let Ok(length @ 1..) = pipe.read(&mut chunk) {
                bytes.lock().unwrap().extend_from_slice(&chunk[..length]);
            }
            *ended.lock().unwrap() = true;
        });
        collected
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }
}

impl Running {
    /// Starts a command with pipes for its stdin, stdout and stderr.
    pub fn start(mut command: Command) -> Self {
        let name = name(&command);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        Self {
            name,
            stdin: child.stdin.take(),
            stdout: Collected::of(child.stdout.take().unwrap()),
            stderr: Collected::of(child.stderr.take().unwrap()),
            child,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed to stdout so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has printed to stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Writes to its stdin, which stays open.
    pub fn write(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        stdin.write_all(bytes).and_then(|()| stdin.flush()).unwrap();
    }

    /// Ends its stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).unwrap();
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) {
        // An error means that it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Has it ended?
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until its stdout holds a whole line with `text` past the first `from` bytes, and
    /// returns the line.
    pub fn stdout_line(&mut self, text: &str, from: usize) -> String {
        self.line(|running| running.stdout.text(), text, from)
    }

    /// As [`Running::stdout_line`], on stderr.
    pub fn stderr_line(&mut self, text: &str, from: usize) -> String {
        self.line(|running| running.stderr.text(), text, from)
    }

    fn line(&mut self, output: fn(&Self) -> String, text: &str, from: usize) -> String {
        let deadline = Instant::now() + patience();
        loop {
            // Before the output is read: what it printed last must not be missed.
            let ended = self.has_ended();
            let printed = output(self);
            let new = &printed[from..];
            let whole = &new[..new.rfind('\n').map_or(0, |end| end + 1)];
            if let Some(line) = whole.lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            if ended || Instant::now() > deadline {
                let why = if ended { "ended" } else { "timed out" };
                self.give_up(&format!("{why} while a line with {text:?} was awaited"));
            }
            thread::sleep(patient(Duration::from_millis(2)));
        }
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Finished {
        self.stdin = None;
        let status = self.wait_for_end(patience());
        self.finished(status)
    }

    /// Ends it and returns what it printed.
    pub fn stop(mut self) -> Finished {
        let _ = self.child.kill();
        let status = self.child.wait().unwrap();
        self.finished(status)
    }

    /// Waits for its end, for so long at most on a machine that is not slow.
    pub fn finish_within(mut self, limit: Duration) -> Finished {
        self.stdin = None;
        let status = self.wait_for_end(patient(limit));
        self.finished(status)
    }

    fn wait_for_end(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > deadline {
                self.give_up(&format!("still runs after {limit:?}"));
            }
            thread::sleep(patient(Duration::from_millis(2)));
        }
    }

    fn finished(&self, status: ExitStatus) -> Finished {
        // A grandchild may hold the pipes for ever; what was printed before the end is here soon.
        let deadline = Instant::now() + Duration::from_secs(1);
        let ended = |pipe: &Collected| *pipe.ended.lock().unwrap();
        while !(ended(&self.stdout) && ended(&self.stderr)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        let code = status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap());
        let stdout = self.stdout.bytes.lock().unwrap().clone();
        Finished {
            code,
            stdout,
            stderr: self.stderr(),
        }
    }

    fn give_up(&self, what: &str) -> ! {
        panic!(
            "{}: {what}\n--- stdout\n{}--- stderr\n{}---",
            self.name,
            self.stdout(),
            self.stderr()
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            crate::say(&format!("{}\n--- stderr\n{}---", self.name, self.stderr()));
        }
    }
}

impl Finished {
    /// What it printed to stdout, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Its stdout, if it succeeded; panics if it did not.
    pub fn expect(&self, what: &str) -> String {
        assert_eq!(self.code, 0, "{what}: {}\n{}", self.text(), self.stderr);
        self.text()
    }
}

/// A command as a message shows it: without the place where it runs.
fn name(command: &Command) -> String {
    let words = command.get_args().skip_while(|word| *word != "--").skip(1);
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    if words.is_empty() {
        format!("{command:?}")
    } else {
        words.join(" ")
    }
}

/// Runs a command with `input` on its stdin.
pub fn run(command: Command, input: &[u8]) -> Finished {
    let mut running = Running::start(command);
    if let Some(mut stdin) = running.stdin.take() {
        let input = input.to_vec();
        // Beside the reading: both sides may fill their pipes.
        thread::spawn(move || {
            // It may end without having read it all.
            let _ = stdin.write_all(&input);
        });
    }
    running.finish()
}

/// Does a process still run? One that has ended, and waits for its parent to notice, does not.
pub fn is_running(pid: i32) -> bool {
    // The name, in parentheses, may hold anything; the state follows it.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, fields)| &fields[..1]);
    state.is_some_and(|state| !["Z", "X"].contains(&state))
}

/// Waits until `condition` gives a value; panics with what was awaited when that takes too long.
pub fn wait_until<T>(awaited: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "timed out: {awaited}");
        thread::sleep(patient(Duration::from_millis(5)));
    }
}
