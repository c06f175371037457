//! The three ways in which a client meets spotsim, and the recording by itself.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tests::{Lab, Place, Running, Spotsim, Upstream, Via, spotsim_binary};

use super::case::{Group, Service};

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Somebody who answers, and runs for as long as this lives.
pub trait World {
    /// The whole answer to a request.
    fn send(&self, request: &[u8]) -> Vec<u8>;
}

/// Starts a world in which a group's events are announced.
pub trait Worlds {
    fn start(&self, group: &Group) -> Box<dyn World + '_>;
}

impl Service {
    fn imds(self) -> &'static str {
        match self {
            Self::V1V2 => "v1v2",
            Self::V2 => "v2",
            Self::Off => "off",
        }
    }
}

/// `spotsim serve`, without any privilege: in a directory of its own, as a user who may nothing.
pub struct Serves {
    directory: PathBuf,
    binary: PathBuf,
    is_root: bool,
}

/// The user and group `nobody`.
const NOBODY: u32 = 65_534;

impl Serves {
    pub fn new(name: &str) -> Self {
        let name = format!("spotsim-tests-{name}-{}", std::process::id());
        let directory = env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        // The build's directory may be one that only its owner can enter.
        let binary = directory.join("spotsim");
        fs::copy(spotsim_binary(), &binary).unwrap();
        let serves = Self {
            directory,
            binary,
            is_root: nix::unistd::geteuid().is_root(),
        };
        let runtime = serves.runtime();
        fs::create_dir(&runtime).unwrap();
        if serves.is_root {
            chown(&runtime, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        serves
    }

    /// As `XDG_RUNTIME_DIR`: for the control socket.
    fn runtime(&self) -> PathBuf {
        self.directory.join("runtime")
    }
}

impl Drop for Serves {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.directory).unwrap();
    }
}

struct Serve {
    address: SocketAddr,
    _process: Running,
}

impl Worlds for Serves {
    fn start(&self, group: &Group) -> Box<dyn World + '_> {
        let instance = written(&self.directory, group);
        let mut command = Command::new(&self.binary);
        command
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--upstream",
                "synthetic",
            ])
            .args(["--imds", group.service.imds(), "--instance"])
            .arg(instance)
            .args(group.options())
            .current_dir(&self.directory)
            .env_clear()
            .env("XDG_RUNTIME_DIR", self.runtime());
        if self.is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut process = Running::start(command);
        let line = process.stdout_line("serving: http://", 0);
        let address = line.split("http://").nth(1).unwrap();
        let address = address.split(';').next().unwrap().parse().unwrap();
        Box::new(Serve {
            address,
            _process: process,
        })
    }
}

impl World for Serve {
    fn send(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }
}

/// `spotsim attach` with the synthetic instance behind it.
pub struct Synthetic(pub Lab);

/// `spotsim attach` with the recording behind it.
pub struct Recorded(pub Lab);

/// The recording, without spotsim.
pub struct Itself(pub Lab);

/// What a client meets at a place; the rest only has to live.
struct Met {
    place: Place,
    _workload: Option<Running>,
    _spotsim: Option<Running>,
    _upstream: Option<Upstream>,
}

impl World for Met {
    fn send(&self, request: &[u8]) -> Vec<u8> {
        self.place.send(Via::V4, request).bytes
    }
}

impl Worlds for Synthetic {
    fn start(&self, group: &Group) -> Box<dyn World + '_> {
        let Self(lab) = self;
        let workload = lab.workload_process();
        let instance = written(&lab.directory, group);
        let mut options = vec!["--upstream", "synthetic", "--imds", group.service.imds()];
        options.extend(["--instance", instance.to_str().unwrap()]);
        options.extend(group.options());
        Box::new(Met {
            place: lab.inside(),
            _workload: Some(workload),
            _spotsim: Some(Spotsim::announce(lab, &options)),
            _upstream: None,
        })
    }
}

impl Worlds for Recorded {
    fn start(&self, group: &Group) -> Box<dyn World + '_> {
        let Self(lab) = self;
        let upstream = recording(lab, group);
        let workload = lab.workload_process();
        let mut options = vec!["--upstream", "real"];
        options.extend(group.options());
        Box::new(Met {
            place: lab.inside(),
            _workload: Some(workload),
            _spotsim: Some(Spotsim::announce(lab, &options)),
            _upstream: Some(upstream),
        })
    }
}

impl Worlds for Itself {
    fn start(&self, group: &Group) -> Box<dyn World + '_> {
        let Self(lab) = self;
        Box::new(Met {
            place: lab.outside(),
            _workload: None,
            _spotsim: None,
            _upstream: Some(recording(lab, group)),
        })
    }
}

fn recording(lab: &Lab, group: &Group) -> Upstream {
    let file = written(&lab.directory, group);
    let mut options = vec!["--recording", file.to_str().unwrap()];
    options.extend(match group.service {
        Service::V1V2 => None,
        Service::V2 => Some("--require-v2"),
        Service::Off => Some("--off"),
    });
    Upstream::start(lab, &options)
}

fn written(directory: &Path, group: &Group) -> PathBuf {
    let file = directory.join("instance.json");
    fs::write(&file, group.instance()).unwrap();
    file
}
