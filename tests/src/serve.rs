//! `spotsim serve` and what else needs no privilege, no lab and no IMDS: on loopback, in a
//! directory of its own.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    ops::Deref,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{
    Finished, Response, Running, get, helper,
    process::{kept_environment, patience},
    run, say, spotsim_binary,
};

/// A directory for the files of one test, in which spotsim is run.
#[derive(Debug)]
pub struct Scratch(PathBuf);

/// A running `spotsim serve`.
#[derive(Debug)]
pub struct Serve {
    process: Running,
    pub address: SocketAddr,
    /// What it said when it was ready.
    pub line: String,
}

impl Scratch {
    #[expect(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("spotsim-tests-scratch-{}-{count}", std::process::id());
        let directory = env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        Self(directory)
    }

    pub fn directory(&self) -> &Path {
        let Self(directory) = self;
        directory
    }

    /// Writes a file in it.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A command in it, with none of the caller's environment.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .env_clear()
            .envs(kept_environment())
            .env("HOME", self.directory())
            .current_dir(self.directory());
        command
    }

    /// Runs spotsim with arguments to its end.
    pub fn spotsim(&self, args: &[&str]) -> Finished {
        let mut command = self.command(spotsim_binary());
        command.args(args);
        run(command, b"")
    }

    /// Starts `spotsim serve` and waits until it is ready. Its upstream is the synthetic instance
    /// unless the options name another.
    pub fn serve(&self, options: &[&str]) -> Serve {
        self.serve_with(&[], options)
    }

    /// As [`Scratch::serve`], with this in its environment.
    pub fn serve_with(&self, environment: &[(&str, String)], options: &[&str]) -> Serve {
        let mut listen = vec![];
        if !options.contains(&"--listen") {
            listen = vec!["--listen", "127.0.0.1:0"];
        }
        let run_dir = self.directory().join("run");
        let mut command = self.command(spotsim_binary());
        command
            .args(["serve", "--run-dir"])
            .arg(run_dir)
            .args(listen)
            .args(options)
            .envs(environment.iter().map(|(name, value)| (name, value)));
        let mut process = Running::start(command);
        let line = process.stdout_line("serving: http://", 0);
        let (_, address) = line.split_once("http://").unwrap();
        let address = address.split(';').next().unwrap().parse().unwrap();
        Serve {
            process,
            address,
            line,
        }
    }

    /// Starts the tests' own IMDS on loopback with a recording: a tree of documents as JSON.
    pub fn recorded(&self, tree: &str) -> (Running, SocketAddr) {
        let mut command = self.command(helper("upstream"));
        command
            .args(["--listen", "127.0.0.1:0", "--recording"])
            .arg(self.write("recording.json", tree));
        let mut process = Running::start(command);
        let line = process.stdout_line("listening at ", 0);
        let (_, address) = line.split_once(" at ").unwrap();
        (process, address.parse().unwrap())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Self(directory) = self;
        if let Err(error) = fs::remove_dir_all(&*directory) {
            say(&format!("left behind: {}: {error}", directory.display()));
        }
    }
}

/// A GET of a path from a server on loopback.
pub fn get_from(address: SocketAddr, path: &str) -> Response {
    send_to(address, &get(path))
}

fn send_to(address: SocketAddr, request: &[u8]) -> Response {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(patience())).unwrap();
    stream.write_all(request).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    Response {
        peer: address.to_string(),
        bytes,
    }
}

impl Serve {
    /// The answer to a request.
    pub fn send(&self, request: &[u8]) -> Response {
        send_to(self.address, request)
    }

    /// A GET of a path, without a token.
    pub fn get(&self, path: &str) -> Response {
        self.send(&get(path))
    }
}

impl Deref for Serve {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.process
    }
}
