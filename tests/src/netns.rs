//! Network namespaces made for a test.

use std::{
    fs::{self, File},
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace with `lo` up. It ends with the last process in it.
#[derive(Debug)]
pub struct NetNs {
    pin: File,
}

impl NetNs {
    /// A new namespace, in which nothing but loopback can be reached.
    pub fn new() -> Self {
        let new = Self::without_loopback();
        new.ip("link set lo up");
        new
    }

    /// A new namespace whose `lo` is still down.
    pub fn without_loopback() -> Self {
        let pin = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self {
            pin: pin.join().unwrap(),
        }
    }

    /// That of a process.
    pub fn of_process(pid: i32) -> Self {
        Self {
            pin: File::open(format!("/proc/{pid}/ns/net")).unwrap(),
        }
    }

    /// A path by which other processes can open it, while this value lives.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.pin.as_raw_fd()).into()
    }

    /// What `/proc/PID/ns/net` of a process in it is a link to: `net:[4026531840]`.
    pub fn name(&self) -> PathBuf {
        self.enter(|| fs::read_link("/proc/thread-self/ns/net").unwrap())
    }

    /// Runs `ip` commands in it, one a line, and returns what they print.
    pub fn ip(&self, commands: &str) -> String {
        self.enter(|| commands.lines().map(|line| ip(line.trim())).collect())
    }

    /// Calls `inside` on a thread in it.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.pin, CloneFlags::CLONE_NEWNET).unwrap();
                inside()
            });
            thread.join().unwrap()
        })
    }

    /// The addresses that some TCP socket listens on in it.
    pub fn listeners(&self) -> Vec<SocketAddr> {
        self.enter(|| {
            let net = Path::new("/proc/thread-self/net");
            let tables = ["tcp", "tcp6"].map(|name| fs::read_to_string(net.join(name)).unwrap());
            let sockets = tables.iter().flat_map(|table| table.lines().skip(1));
            sockets.filter_map(listener).collect()
        })
    }

    /// Gives it both IMDS addresses, on `lo`.
    pub fn hold_imds_addresses(&self) {
        self.ip("addr add 169.254.169.254/32 dev lo
                 addr add fd00:ec2::254/128 dev lo nodad");
    }

    /// Joins it to a pod's namespace: `pod0` here and `eth0` there, with a route from there to
    /// every address here.
    pub fn connect_pod(&self, pod: &Self) {
        self.connect_pods([pod]);
    }

    /// As [`NetNs::connect_pod`], for several: `pod0`, `pod1`, … here.
    ///
    /// # Panics
    ///
    /// With more than 200 pods, for which there are no addresses.
    pub fn connect_pods<'a>(&self, pods: impl IntoIterator<Item = &'a Self>) {
        for (number, pod) in pods.into_iter().enumerate() {
            assert!(number < 200, "too many pods");
            let peer = pod.path();
            let peer = peer.display();
            let v4 = format!("10.11.{}", 12 + number);
            let v6 = format!("fd0b:0:0:{number:x}:");
            self.ip(&format!(
                "link add pod{number} type veth peer name eth0 netns {peer}
                 addr add {v4}.1/24 dev pod{number}
                 addr add {v6}:1/64 dev pod{number} nodad
                 link set pod{number} up"
            ));
            pod.ip(&format!(
                "addr add {v4}.2/24 dev eth0
                 addr add {v6}:2/64 dev eth0 nodad
                 link set eth0 up
                 route add default via {v4}.1
                 -6 route add default via {v6}:1"
            ));
        }
    }
}

impl Default for NetNs {
    fn default() -> Self {
        Self::new()
    }
}

/// The own address in a line of `/proc/net/tcp` or `tcp6`, if that socket listens.
fn listener(line: &str) -> Option<SocketAddr> {
    const TCP_LISTEN: &str = "0A";
    let fields: Vec<_> = line.split_whitespace().collect();
    if fields[3] != TCP_LISTEN {
        return None;
    }
    let (ip, port) = fields[1].split_once(':')?;
    // 32-bit words, each printed as a number of this machine's byte order.
    let words = (0..ip.len()).step_by(8).map(|at| &ip[at..at + 8]);
    let bytes: Vec<u8> = words
        .flat_map(|word| u32::from_str_radix(word, 16).unwrap().to_ne_bytes())
        .collect();
    let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes).unwrap()),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).unwrap()))
}

/// Runs `ip` in the calling thread's namespace.
fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}
