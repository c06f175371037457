//! The services of AWS, as moto's server plays them.

use std::ffi::OsString;

use crate::{Running, Scratch, programs::moto, run};

/// A running `moto_server` on loopback. It starts with nothing in it.
#[derive(Debug)]
pub struct Moto {
    _process: Running,
    pub endpoint: String,
}

/// What an AWS sink finds in its environment: no IMDS is asked for anything.
pub fn aws_environment(endpoint: &str) -> Vec<(&'static str, String)> {
    let fixed = [
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "us-east-1"),
        // For boto3, which does not know the other.
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    let mut environment = fixed.map(|(name, value)| (name, value.to_owned())).to_vec();
    environment.push(("AWS_ENDPOINT_URL", endpoint.to_owned()));
    environment
}

impl Moto {
    pub fn start(scratch: &Scratch) -> Self {
        let mut command = scratch.command(moto("moto_server"));
        command.args(["-H", "127.0.0.1", "-p", "0"]);
        let mut process = Running::start(command);
        let line = process.stderr_line("Running on ", 0);
        let (_, endpoint) = line.split_once("Running on ").unwrap();
        Self {
            _process: process,
            endpoint: endpoint.trim().to_owned(),
        }
    }

    pub fn environment(&self) -> Vec<(&'static str, String)> {
        aws_environment(&self.endpoint)
    }

    /// Has boto3 do something with it: `clients/python/aws_services.py`. Returns what it prints.
    pub fn ask(&self, scratch: &Scratch, arguments: &[&str]) -> String {
        let script = crate::python_script("aws_services.py");
        let mut command = scratch.command(moto("python"));
        command
            .envs(self.environment())
            .arg(script)
            .args(arguments.iter().map(OsString::from));
        run(command, b"").expect("boto3")
    }
}
