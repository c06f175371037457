//! The workload: curl, as a real client of IMDSv2 would ask.

use std::{env, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{cgroup::Cgroup, shell};

const IMDS: &str = "169.254.169.254";

/// A request, to be made from inside the cgroup or beside it.
#[derive(Clone)]
pub struct Request {
    args: Vec<String>,
    /// The command line, with `$TOKEN` for the token.
    shown: String,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Answer {
        /// `200 OK`
        status: String,
        body: String,
    },
    /// Nobody was there to ask; curl's words.
    NoConnection(String),
}

impl Request {
    pub fn token() -> Self {
        Self::new(
            "/latest/api/token",
            &["-X", "PUT", "-H"],
            "X-aws-ec2-metadata-token-ttl-seconds: 60",
            "'X-aws-ec2-metadata-token-ttl-seconds: 60'",
        )
    }

    pub fn get(path: &str, token: &str) -> Self {
        Self::new(
            path,
            &["-H"],
            &format!("X-aws-ec2-metadata-token: {token}"),
            "\"X-aws-ec2-metadata-token: $TOKEN\"",
        )
    }

    fn new(path: &str, options: &[&str], header: &str, header_shown: &str) -> Self {
        let url = format!("{IMDS}{path}");
        // -i: the status line and headers before the body; -m: seconds to wait at most.
        let mut words = vec!["-sSi", "-m2"];
        words.extend(options);
        let line = |header: &str| format!("curl {} {header} {url}", words.join(" "));
        Self {
            shown: line(header_shown),
            args: words
                .iter()
                .copied()
                .chain([header, &url])
                .map(str::to_owned)
                .collect(),
        }
    }

    /// The command line for people.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Makes the request from a process that joined the cgroup before it became curl.
    pub fn inside(&self, cgroup: &Cgroup) -> Result<Outcome> {
        let mut sh = Command::new("sh");
        sh.args(["-c", r#"echo $$ > "$0" && exec curl "$@""#])
            .arg(cgroup.procs())
            .args(&self.args);
        outcome(&mut sh)
    }

    /// Makes the same request from the cgroup that we are in.
    pub fn beside(&self) -> Result<Outcome> {
        outcome(Command::new("curl").args(&self.args))
    }
}

/// Runs curl without our environment, which may name a proxy or a configuration of curl's.
fn outcome(command: &mut Command) -> Result<Outcome> {
    let path = env::var_os("PATH").unwrap_or_default();
    let output = command
        .env_clear()
        .env("PATH", path)
        .output()
        .map_err(|error| shell::cannot_start(command, &error))?;
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match output.status.code() {
        Some(0) => answer(&String::from_utf8_lossy(&output.stdout)),
        // EXIT STATUS in curl(1): could not connect
        Some(7) => Ok(Outcome::NoConnection(stderr)),
        _ => bail!("curl failed ({}): {stderr}", output.status),
    }
}

/// Takes a response apart as `curl -i` prints it.
fn answer(response: &str) -> Result<Outcome> {
    let (head, body) = response
        .split_once("\r\n\r\n")
        .context("curl printed no HTTP response")?;
    let status = head
        .lines()
        .next()
        .and_then(|line| line.split_once(' '))
        .context("curl printed no status line")?
        .1;
    Ok(Outcome::Answer {
        status: status.trim().to_owned(),
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_taken_apart() {
        let found = answer("HTTP/1.1 200 OK\r\nServer: EC2ws\r\n\r\n{\"a\":\n\"b\"}").unwrap();
        assert_eq!(
            found,
            Outcome::Answer {
                status: "200 OK".to_owned(),
                body: "{\"a\":\n\"b\"}".to_owned()
            }
        );
        assert!(answer("HTTP/1.1 200 OK\r\n").is_err());
        assert!(answer("").is_err());
    }

    #[test]
    fn what_is_shown_is_what_is_run_but_for_the_token() {
        let request = Request::get("/latest/x", "AQAE==");
        assert_eq!(
            request.shown(),
            "curl -sSi -m2 -H \"X-aws-ec2-metadata-token: $TOKEN\" 169.254.169.254/latest/x"
        );
        assert_eq!(
            request.args,
            [
                "-sSi",
                "-m2",
                "-H",
                "X-aws-ec2-metadata-token: AQAE==",
                "169.254.169.254/latest/x"
            ]
        );
    }
}
