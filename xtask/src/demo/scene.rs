//! What the demo shows, and checks while it does.

use std::{
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;

use super::{
    curl::{Outcome, Request},
    spotsim::Spotsim,
};
use crate::{
    alone::{Interrupted, only_lo},
    cgroup::Cgroup,
    shell,
};

const INSTANCE_ID: &str = "/latest/meta-data/instance-id";
const INSTANCE_ACTION: &str = "/latest/meta-data/spot/instance-action";

/// The notice comes 4 s after arming; this is when we stop to wait for it.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(12);

pub fn play(spotsim: &Path, interrupted: &Interrupted) -> Result<()> {
    only_lo()?;
    let start = Instant::now();
    shell::run(Command::new("ip").args(["link", "set", "lo", "up"]))?;

    let cgroup = Cgroup::create("demo")?;
    shell::announce(&format!("mkdir {}", cgroup.dir().display()));
    let (spotsim, armed) = Spotsim::attach(spotsim, &cgroup)?;
    say(&armed);

    title("In that cgroup (echo $$ > cgroup.procs; exec curl …):");
    let token = get_token(&cgroup)?;
    let instance_id = Request::get(INSTANCE_ID, &token);
    let (status, id) = ask(&instance_id, &cgroup)?;
    ensure!(
        status == "200 OK" && id.starts_with("i-"),
        "that is no instance id"
    );
    let instance_action = Request::get(INSTANCE_ACTION, &token);
    wait_for_notice(&instance_action, &cgroup, interrupted)?;

    title("The same command beside that cgroup, in the same network namespace:");
    shell::announce(instance_action.shown());
    no_connection(instance_action.beside()?)?;

    title("After Ctrl-C nothing is left:");
    shell::announce(&format!("kill -INT {}", spotsim.pid()));
    let status = spotsim.interrupt()?;
    say(&format!("spotsim: {status}"));
    ensure!(
        status.success(),
        "spotsim should have ended with exit code 0"
    );
    shell::announce("curl …, in the cgroup again");
    no_connection(instance_action.inside(&cgroup)?)?;
    shell::announce(&format!("rmdir {}", cgroup.dir().display()));
    cgroup.remove()?;
    interrupted.check()?;
    println!(
        "\nAll as it should be, in {:.0} s.",
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

/// `PUT /latest/api/token`, in the cgroup.
fn get_token(cgroup: &Cgroup) -> Result<String> {
    let request = Request::token();
    shell::announce(request.shown());
    let (status, token) = answer(request.inside(cgroup)?)?;
    let beginning: String = token.chars().take(24).collect();
    say(&format!("{status}  TOKEN={beginning}…"));
    ensure!(status == "200 OK" && !token.is_empty(), "that is no token");
    Ok(token)
}

/// Prints the request, makes it in the cgroup, and prints the answer.
fn ask(request: &Request, cgroup: &Cgroup) -> Result<(String, String)> {
    shell::announce(request.shown());
    let (status, body) = answer(request.inside(cgroup)?)?;
    say(&format!("{status}  {body}"));
    Ok((status, body))
}

/// Asks every second, as a termination handler does: first 404, then the notice.
fn wait_for_notice(request: &Request, cgroup: &Cgroup, interrupted: &Interrupted) -> Result<()> {
    shell::announce(request.shown());
    let start = Instant::now();
    let mut before = 0;
    while start.elapsed() < NOTICE_TIMEOUT {
        let now = Timestamp::now();
        let (status, body) = answer(request.inside(cgroup)?)?;
        let time = now.strftime("%H:%M:%S");
        match status.split(' ').next() {
            Some("404") => {
                say(&format!("{time}  {status}"));
                before += 1;
            }
            Some("200") => {
                let deadline = deadline(&body)?;
                let left = deadline.as_second() - now.as_second();
                say(&format!(
                    "{time}  {status}  {body}  <- {left} s to the deadline"
                ));
                ensure!(before > 0, "the notice came too early: no 404 was seen");
                ensure!(
                    (110..=121).contains(&left),
                    "the deadline is not in two minutes"
                );
                return Ok(());
            }
            _ => bail!("unexpected answer: {status}"),
        }
        interrupted.check()?;
        thread::sleep(Duration::from_secs(1));
    }
    bail!("no notice came within {NOTICE_TIMEOUT:?}");
}

/// The time in the notice, which must be one to terminate.
fn deadline(notice: &str) -> Result<Timestamp> {
    let notice: serde_json::Value =
        serde_json::from_str(notice).context("the notice is not JSON")?;
    ensure!(
        notice["action"] == "terminate",
        "the notice is not one to terminate"
    );
    notice["time"]
        .as_str()
        .context("the notice has no time")?
        .parse()
        .context("the notice's time is none")
}

fn answer(outcome: Outcome) -> Result<(String, String)> {
    match outcome {
        Outcome::Answer { status, body } => Ok((status, body)),
        Outcome::NoConnection(reason) => bail!("no answer: {reason}"),
    }
}

fn no_connection(outcome: Outcome) -> Result<()> {
    match outcome {
        Outcome::NoConnection(reason) => {
            say(&reason);
            Ok(())
        }
        Outcome::Answer { status, .. } => bail!("there should be no answer, but it is {status}"),
    }
}

fn title(text: &str) {
    println!("\n{text}");
}

/// What a command printed, beneath it.
fn say(text: &str) {
    println!("  {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_of_a_notice() {
        let notice = r#"{"action": "terminate", "time": "2026-11-21T09:02:00Z"}"#;
        assert_eq!(
            deadline(notice).unwrap().to_string(),
            "2026-11-21T09:02:00Z"
        );
        assert!(deadline(&notice.replace("terminate", "stop")).is_err());
        assert!(deadline(&notice.replace("09:02", "soon")).is_err());
        assert!(deadline("").is_err());
    }

    #[test]
    fn an_answer_where_there_should_be_none_is_an_error() {
        let found = || Outcome::Answer {
            status: "200 OK".to_owned(),
            body: String::new(),
        };
        assert!(no_connection(found()).is_err());
        assert!(answer(found()).is_ok());
        let refused = || Outcome::NoConnection("curl: (7)".to_owned());
        assert!(no_connection(refused()).is_ok());
        assert!(answer(refused()).is_err());
    }
}
