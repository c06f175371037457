//! The tests' own IMDS, run as a process in a lab.

use std::{fs, path::PathBuf};

use serde_json::Value;

use crate::{Lab, NetNs, Running, helper};

/// A running upstream (`src/bin/upstream`).
#[derive(Debug)]
pub struct Upstream {
    _process: Running,
    log: PathBuf,
}

/// One request as it reached the upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// `IP:PORT` of the client's socket.
    pub peer: String,
    /// Which connection of the upstream it came on.
    pub connection: u64,
    /// Request line and headers, byte for byte.
    pub head: Vec<u8>,
}

impl Upstream {
    /// The addresses of IMDS.
    pub const IMDS: [&str; 2] = ["169.254.169.254:80", "[fd00:ec2::254]:80"];

    /// Starts it on the lab's node, on the IMDS addresses.
    pub fn start(lab: &Lab, options: &[&str]) -> Self {
        Self::start_at(lab, &lab.node, "upstream", &Self::IMDS, options)
    }

    /// Starts it in a namespace of choice on addresses of choice; `name` is its log's.
    pub fn start_at(
        lab: &Lab,
        net: &NetNs,
        name: &str,
        addresses: &[&str],
        options: &[&str],
    ) -> Self {
        let log = lab.directory.join(format!("{name}.log"));
        let mut command = lab.place(net, &lab.root).command(helper("upstream"));
        command.arg("--log").arg(&log).args(options);
        for address in addresses {
            command.args(["--listen", address]);
        }
        let mut process = Running::start(command);
        process.stdout_line("listening", 0);
        Self {
            _process: process,
            log,
        }
    }

    /// Every request so far, in the order of their arrival.
    pub fn seen(&self) -> Vec<Seen> {
        let log = fs::read_to_string(&self.log).unwrap();
        // The last line may be in the middle of being written.
        let whole = &log[..log.rfind('\n').map_or(0, |end| end + 1)];
        whole.lines().map(Seen::parse).collect()
    }

    /// Ends it: its addresses refuse connections from now on.
    pub fn stop(self) {}
}

impl Seen {
    fn parse(line: &str) -> Self {
        let line: Value = serde_json::from_str(line).unwrap();
        let head = line["head"].as_str().unwrap();
        Self {
            peer: line["peer"].as_str().unwrap().to_owned(),
            connection: line["connection"].as_u64().unwrap(),
            head: head
                .chars()
                .map(|character| u8::try_from(character).unwrap())
                .collect(),
        }
    }

    /// The request line without its version: `GET /latest/user-data`.
    pub fn request(&self) -> String {
        let head = String::from_utf8_lossy(&self.head);
        let line = head.lines().next().unwrap_or_default();
        line.rsplit_once(' ')
            .map_or(line, |(request, _)| request)
            .to_owned()
    }
}
