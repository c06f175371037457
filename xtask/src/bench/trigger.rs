//! From a trigger to its being visible.
//!
//! A client polls without a pause, each time over a new connection, in the target cgroup. Beside
//! it triggers are sent over the control socket, each with a deadline of its own, by which the
//! answers tell which trigger they show.

use std::{
    env,
    fs::{self, DirBuilder},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    os::unix::{fs::DirBuilderExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    alone::{Interrupted, only_lo},
    cgroup::Cgroup,
    shell,
};

const TRIGGERS: u32 = 1_000;

/// The promise: from trigger's sending to the end of the first answer that shows it.
const P99_UNDER: Duration = Duration::from_millis(5);

const REQUEST: &[u8] = b"GET /latest/meta-data/spot/instance-action HTTP/1.1\r\n\
    Host: 169.254.169.254\r\n\r\n";

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was measured.
pub struct Measured {
    triggers: u64,
    p50: Duration,
    p99: Duration,
    max: Duration,
    /// How often the first request after a trigger's return showed it.
    first: u64,
}

impl Measured {
    /// Times in milliseconds.
    pub fn json(&self) -> Value {
        let Self {
            triggers,
            p50,
            p99,
            max,
            first,
        } = self;
        json!({
            "triggers": triggers,
            "p50_ms": milliseconds(*p50),
            "p99_ms": milliseconds(*p99),
            "max_ms": milliseconds(*max),
            "first_request_sees_it": first,
        })
    }

    /// Reads what [`Measured::json`] wrote.
    pub fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).context("the measurement is not JSON")?;
        let count = |name: &str| value[name].as_u64().with_context(|| format!("no {name}"));
        let time = |name: &str| {
            let time = value[name].as_f64().with_context(|| format!("no {name}"));
            time.map(|time| Duration::from_secs_f64(time / 1e3))
        };
        Ok(Self {
            triggers: count("triggers")?,
            p50: time("p50_ms")?,
            p99: time("p99_ms")?,
            max: time("max_ms")?,
            first: count("first_request_sees_it")?,
        })
    }

    pub fn table(&self) -> String {
        let Self {
            triggers,
            p50,
            p99,
            max,
            first,
        } = self;
        let [p50, p99, max] = [p50, p99, max].map(|time| format!("{:.2} ms", milliseconds(*time)));
        format!(
            "\n{:44}  {:>8}  {:>8}  {:>8}\n{:44}  {p50:>8}  {p99:>8}  {max:>8}\n\
             the first request after trigger's return showed it {first} times of {triggers}\n",
            format!("{triggers} triggers"),
            "p50",
            "p99",
            "max",
            "from sending to the first answer that shows it",
        )
    }

    /// Whether the promises are kept.
    pub fn check(&self) -> Result<()> {
        let Self {
            triggers,
            p99,
            first,
            ..
        } = self;
        ensure!(
            *p99 < P99_UNDER,
            "p99 of trigger to visible is {p99:?}, not under {P99_UNDER:?}"
        );
        ensure!(
            first == triggers,
            "{first} of {triggers} first requests saw the trigger, not all"
        );
        Ok(())
    }

    fn of(mut times: Vec<Duration>, first: u64) -> Self {
        times.sort_unstable();
        let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize];
        Self {
            triggers: times.len() as u64,
            p50: at(0.5),
            p99: at(0.99),
            max: at(1.0),
            first,
        }
    }
}

/// In milliseconds, to the microsecond.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// Measures in this network namespace. This process is its own polling client: it joins the
/// target cgroup.
pub fn measure(spotsim: &Path, interrupted: &Interrupted) -> Result<Measured> {
    only_lo()?;
    shell::read(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    let cgroup = Cgroup::create("bench")?;
    let armed = Armed::start(spotsim, &cgroup)?;
    let home = Member::join(&cgroup)?;
    let over = AtomicBool::new(false);
    let (answers, seen) = mpsc::channel();
    let measured = thread::scope(|scope| {
        scope.spawn(|| poll(&over, &answers));
        let measured = triggers(&armed, &seen, interrupted);
        over.store(true, Ordering::Relaxed);
        measured
    });
    drop(home);
    drop(armed);
    cgroup.remove()?;
    measured
}

/// An answer, and when it had come to its end.
type Seen = (Instant, Result<String>);

fn poll(over: &AtomicBool, answers: &mpsc::Sender<Seen>) {
    while !over.load(Ordering::Relaxed) {
        let answer = ask();
        let failed = answer.is_err();
        if answers.send((Instant::now(), answer)).is_err() || failed {
            return;
        }
    }
}

fn triggers(
    armed: &Armed,
    seen: &mpsc::Receiver<Seen>,
    interrupted: &Interrupted,
) -> Result<Measured> {
    let deadlines: Timestamp = "2099-01-01T00:00:00Z".parse()?;
    let (mut times, mut first) = (Vec::new(), 0);
    for number in 0..TRIGGERS {
        interrupted.check()?;
        // At every phase of the poller's requests.
        thread::sleep(Duration::from_micros(u64::from(number * 37 % 2_000)));
        let deadline = deadlines + SignedDuration::from_secs(i64::from(number));
        let sent = Instant::now();
        armed.trigger(deadline)?;
        let shown = ask()?.contains(&deadline.to_string());
        first += u64::from(shown);
        times.push(first_to_show(seen, deadline)?.duration_since(sent));
    }
    Ok(Measured::of(times, first))
}

fn first_to_show(seen: &mpsc::Receiver<Seen>, deadline: Timestamp) -> Result<Instant> {
    let deadline = deadline.to_string();
    loop {
        let (at, answer) = seen
            .recv_timeout(PATIENCE)
            .context("the polling client has no more answers")?;
        if answer?.contains(&deadline) {
            return Ok(at);
        }
    }
}

/// Asks IMDS for a notice, as this cgroup is led to it.
fn ask() -> Result<String> {
    let answer = || {
        let mut stream = TcpStream::connect(("169.254.169.254", 80))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(REQUEST)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    answer().context("no answer from spotsim")
}

/// This process in the cgroup, until it is dropped: then it is back where it was.
struct Member {
    before: PathBuf,
}

impl Member {
    fn join(cgroup: &Cgroup) -> Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").context("cannot read our cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let own = own.context("we are in no cgroup v2")?;
        let root = cgroup.dir().parent().context("the cgroup has no parent")?;
        let before = root.join(own).join("cgroup.procs");
        enter(&cgroup.procs())?;
        Ok(Self { before })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Err(error) = enter(&self.before) {
            // Printing must not panic here, where we may be unwinding.
            let _ = writeln!(std::io::stderr(), "{error:#}");
        }
    }
}

fn enter(procs: &Path) -> Result<()> {
    fs::write(procs, process::id().to_string())
        .with_context(|| format!("cannot join {}", procs.display()))
}

/// A spotsim that announces nothing until it is told to, and its control socket.
struct Armed {
    child: Child,
    directory: PathBuf,
}

impl Armed {
    fn start(spotsim: &Path, cgroup: &Cgroup) -> Result<Self> {
        let name = format!("spotsim-bench-{}", process::id());
        let directory = env::temp_dir().join(name);
        // spotsim takes none that others can enter.
        DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let mut command = Command::new(spotsim);
        command
            .args([
                "attach",
                "--cgroup",
                &cgroup.path(),
                "--hold",
                "--id",
                "bench",
            ])
            .args(["--upstream", "synthetic", "--run-dir"])
            .arg(&directory)
            // Should we be killed, this is when spotsim goes by itself.
            .args(["--for", "2m"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let child = command
            .spawn()
            .map_err(|error| shell::cannot_start(&command, &error))?;
        let mut armed = Self { child, directory };
        let stdout = armed.child.stdout.take().context("spotsim has no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .context("cannot read spotsim's output")?;
        if !line.starts_with("armed: ") {
            bail!("spotsim did not arm: it printed {line:?}");
        }
        Ok(armed)
    }

    /// Announces a notice with this deadline; returns when spotsim says that it does.
    fn trigger(&self, deadline: Timestamp) -> Result<()> {
        let plan = format!(r#"{{"notice": {{"deadline": "{deadline}"}}}}"#);
        let request = format!(
            "POST /trigger HTTP/1.1\r\nHost: spotsim\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{plan}",
            plan.len()
        );
        let answer = || {
            let mut stream = UnixStream::connect(self.directory.join("bench.sock"))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            std::io::Result::Ok(answer)
        };
        let answer = answer().context("no answer from the control socket")?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "trigger: {answer}");
        Ok(())
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(times: &[u64], first: u64) -> Measured {
        let times = times.iter().copied().map(Duration::from_micros);
        Measured::of(times.collect(), first)
    }

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times: Vec<_> = (0..=1_000).rev().collect();
        let Measured { p50, p99, max, .. } = measured(&times, 1_001);
        assert_eq!(p50, Duration::from_micros(500));
        assert_eq!(p99, Duration::from_micros(990));
        assert_eq!(max, Duration::from_micros(1_000));
    }

    #[test]
    fn what_is_written_can_be_read() {
        let written = measured(&[1_234, 5_678], 2).json();
        let read = Measured::parse(&written.to_string()).unwrap();
        assert_eq!(read.json(), written);
        assert!(Measured::parse("{}").is_err());
        assert!(read.table().contains(" 5.68 ms"), "{}", read.table());
    }

    #[test]
    fn a_promise_that_is_not_kept_is_an_error() {
        measured(&[1_000; 100], 100).check().unwrap();
        measured(&[1_000; 100], 99).check().unwrap_err();
        measured(&[5_000; 100], 100).check().unwrap_err();
    }
}
