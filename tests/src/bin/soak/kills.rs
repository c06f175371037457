//! Kills and arms under a client that connects in a tight loop.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    str::FromStr,
    time::{Duration, Instant},
};

use ::tests::{Interrupted, Lab, Running, Spotsim, Upstream, Via, get};
use fastrand::Rng;
use nix::sys::signal::Signal;

use crate::{
    client::{Failure, now},
    judge::Span,
};

/// So often each.
pub const TIMES: usize = 50;

/// What came of it.
#[derive(Debug, Default)]
pub struct Kills {
    pub arms: usize,
    pub kills: usize,
    /// Requests that were redirected, and those that were not.
    pub through: u64,
    pub direct: u64,
    /// Kills that cost a connect, and the most connects that one of them cost.
    pub costly: usize,
    pub most: usize,
    /// Requests that were in flight as spotsim died.
    pub in_flight: usize,
    /// Connections that were older than an arming, and cut.
    pub cut: usize,
    pub broken: Vec<String>,
}

/// A request that failed.
#[derive(Debug, PartialEq, Eq)]
struct Failed {
    span: Span,
    /// Whether it was connected.
    connected: bool,
    failure: Failure,
    why: String,
}

/// `soak dial`: asks until it is killed, without a pause and each time on a new connection, and
/// tells what failed at once, and twenty times a second how many did not.
pub fn dial() {
    let to: SocketAddr = Via::V4.peer().parse().unwrap();
    let (mut through, mut direct) = (0_u64, 0_u64);
    let mut told = Instant::now();
    loop {
        let began = now();
        let failed = |stage, error: &io::Error| {
            let failure = Failure::of(error).name();
            println!("failed {began} {} {stage} {failure} {error}", now());
        };
        match TcpStream::connect(to) {
            // Who is redirected is at home on loopback.
            Ok(stream) => match exchange(stream) {
                Ok(local) if local.ip().is_loopback() => through += 1,
                Ok(_) => direct += 1,
                Err(error) => failed("connected", &error),
            },
            Err(error) => failed("not-connected", &error),
        }
        if told.elapsed() > Duration::from_millis(50) {
            println!("answered {through} {direct}");
            told = Instant::now();
        }
    }
}

/// Asks for something that is passed on; what its own address was.
fn exchange(mut stream: TcpStream) -> io::Result<SocketAddr> {
    let local = stream.local_addr()?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(&get("/latest/meta-data/instance-id"))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    match answer.starts_with(b"HTTP/1.1 200 ") {
        true => Ok(local),
        false => Err(io::Error::other("no answer")),
    }
}

impl FromStr for Failed {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let rest = line.strip_prefix("failed ").ok_or(())?;
        let fields: Vec<_> = rest.splitn(5, ' ').collect();
        let [began, ended, stage, failure, why] = fields[..] else {
            return Err(());
        };
        Ok(Self {
            span: Span {
                from: began.parse().map_err(drop)?,
                to: Some(ended.parse().map_err(drop)?),
            },
            connected: stage == "connected",
            failure: Failure::named(failure).ok_or(())?,
            why: why.to_owned(),
        })
    }
}

/// Arms and kills so often, each time after a time of this seed's choice.
pub fn torture(lab: &Lab, seed: u64, asked: &Interrupted) -> Kills {
    let mut rng = Rng::with_seed(seed);
    let _upstream = Upstream::start(lab, &["--log", "/dev/null"]);
    let _workload = lab.workload_process();
    let mut command = lab.inside().command(std::env::current_exe().unwrap());
    command.arg("dial");
    let mut dialling = Running::start(command);
    dialling.stdout_line("answered", 0);

    let mut kills = Kills::default();
    let (mut armings, mut deaths) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        if asked.is_set() {
            break;
        }
        let from = now();
        let mut spotsim = Spotsim::attach(lab, &[]);
        let to = Some(now());
        armings.push(Span { from, to });
        kills.arms += 1;
        asked.sleep(Duration::from_micros(rng.u64(0..60_000)));
        let from = now();
        spotsim.signal(Signal::SIGKILL);
        spotsim.kill();
        let to = Some(now());
        deaths.push(Span { from, to });
        kills.kills += 1;
        asked.sleep(Duration::from_micros(rng.u64(0..30_000)));
    }
    let told = dialling.stop().text();
    // The last line may be cut short.
    let whole = &told[..told.rfind('\n').map_or(0, |end| end + 1)];
    kills.judge(whole, &armings, &deaths);
    kills
}

impl Kills {
    fn judge(&mut self, told: &str, armings: &[Span], deaths: &[Span]) {
        let mut cost = vec![0; deaths.len()];
        for line in told.lines() {
            if let Ok(failed) = line.parse::<Failed>() {
                let Failed {
                    span,
                    connected,
                    failure,
                    why,
                } = failed;
                let death = deaths.iter().position(|death| death.meets(span));
                let arming = armings.iter().any(|arming| arming.meets(span));
                match (death, connected, failure) {
                    (Some(death), false, Failure::Refused) => cost[death] += 1,
                    (Some(_), true, _) => self.in_flight += 1,
                    (None, true, Failure::Aborted) if arming => self.cut += 1,
                    _ => self.broken.push(format!(
                        "{} failed: {why}",
                        if connected { "a request" } else { "a connect" }
                    )),
                }
            } else if let Some(counts) = line.strip_prefix("answered ") {
                let mut counts = counts.split(' ').map(|count| count.parse().unwrap());
                (self.through, self.direct) = (counts.next().unwrap(), counts.next().unwrap());
            }
        }
        self.most = cost.iter().copied().max().unwrap_or_default();
        self.costly = cost.iter().filter(|cost| **cost > 0).count();
        for (kill, cost) in cost.iter().enumerate().filter(|(_, cost)| **cost > 1) {
            let kill = kill + 1;
            self.broken
                .push(format!("kill {kill} cost {cost} connects"));
        }
        // Or nothing was tried.
        for (count, what) in [
            (self.through, "redirected"),
            (self.direct, "not redirected"),
        ] {
            if count < deaths.len() as u64 {
                self.broken
                    .push(format!("only {count} requests were {what}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(told: &str) -> Kills {
        let span = |from, to| Span { from, to: Some(to) };
        let mut kills = Kills::default();
        let armings = [span(50, 60), span(150, 160)];
        kills.judge(told, &armings, &[span(100, 110), span(200, 210)]);
        kills
    }

    #[test]
    fn one_connect_a_kill_and_none_otherwise() {
        let kills = judged(
            "failed 45 51 connected aborted x\n\
             failed 95 101 not-connected refused x\n\
             failed 102 104 connected broken x\n\
             failed 209 215 not-connected refused x\n\
             answered 9 8\n",
        );
        assert_eq!(kills.broken, [""; 0]);
        assert_eq!((kills.through, kills.direct), (9, 8));
        assert_eq!((kills.costly, kills.most), (2, 1));
        assert_eq!((kills.in_flight, kills.cut), (1, 1));
        for told in [
            "failed 95 101 not-connected refused x\nfailed 103 104 not-connected refused x",
            "failed 55 56 not-connected refused x",
            "failed 55 56 connected broken x",
            "failed 120 121 connected aborted x",
            "failed 95 101 not-connected timed-out x",
        ] {
            assert!(
                !judged(&format!("{told}\nanswered 9 8\n")).broken.is_empty(),
                "{told}"
            );
        }
        for told in ["answered 1 8\n", "answered 9 0\n", ""] {
            assert!(!judged(told).broken.is_empty(), "{told:?}");
        }
    }
}
