//! What spotsim holds for a pod, it holds no longer than the pod lives.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use tests::{Node, Running, Upstream, patient, wait_until};

use super::{attach, sees};

/// What a process holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    /// How many descriptors of each kind: files by their path, anonymous ones by their kind.
    descriptors: BTreeMap<String, usize>,
    threads: usize,
    /// The cgroup directories that it watches, by their inodes: those of this node's pods.
    watches: BTreeSet<u64>,
}

impl Held {
    fn by(process: &Running, pods: &BTreeSet<u64>) -> Self {
        let proc = PathBuf::from(format!("/proc/{}", process.pid()));
        let mut descriptors = BTreeMap::new();
        let mut watches = BTreeSet::new();
        for entry in fs::read_dir(proc.join("fd")).unwrap().flatten() {
            // Closed in the meantime.
            let Ok(link) = fs::read_link(entry.path()) else {
                continue;
            };
            let link = link.display().to_string();
            let name = match link.split_once(":[") {
                Some((kind @ ("socket" | "pipe"), _)) => kind.to_owned(),
                _ => link,
            };
            *descriptors.entry(name).or_default() += 1;
            let info = proc.join("fdinfo").join(entry.file_name());
            let info = fs::read_to_string(info).unwrap_or_default();
            watches.extend(info.lines().filter_map(watched));
        }
        watches.retain(|inode| pods.contains(inode));
        let threads = fs::read_dir(proc.join("task")).unwrap().count();
        Self {
            descriptors,
            threads,
            watches,
        }
    }

    fn count(&self, kind: &str) -> usize {
        self.descriptors.get(kind).copied().unwrap_or_default()
    }
}

/// What a process holds once that is so; if that takes too long, what it holds then.
fn once(process: &Running, pods: &BTreeSet<u64>, is_so: impl Fn(&Held) -> bool) -> Held {
    let deadline = Instant::now() + patient(Duration::from_secs(20));
    loop {
        let held = Held::by(process, pods);
        if is_so(&held) || Instant::now() > deadline {
            return held;
        }
        sleep(Duration::from_millis(10));
    }
}

/// The inode of a watch: `inotify wd:1 ino:9e7e sdev:800013 mask:800afce …`, in hexadecimal.
fn watched(line: &str) -> Option<u64> {
    let inode = line.strip_prefix("inotify ")?.split("ino:").nth(1)?;
    u64::from_str_radix(inode.split(' ').next()?, 16).ok()
}

/// The inodes of a directory and all beneath it.
fn inodes(directory: &Path) -> BTreeSet<u64> {
    let mut found = BTreeSet::from([fs::metadata(directory).unwrap().ino()]);
    for entry in fs::read_dir(directory).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.append(&mut inodes(&entry.path()));
        }
    }
    found
}

/// A pod on the node's network is there from the beginning, for the node's namespace is kept
/// once a pod was seen in it: what becomes a container's process is in it first.
#[test]
fn a_pod_that_ends_leaves_nothing() {
    let Some(node) = Node::start() else { return };
    let _upstream = Upstream::start(&node.lab, &[]);
    let web = |name: &str| node.pod(name).label("app", "web");
    let stays = web("web-0").host_network().start();
    let mut spotsim = attach(&node, &["--selector", "app=web"]);
    let mut pods = inodes(node.kubepods().directory());
    // What is beneath it is watched a moment after it is armed, and what is open to be read is
    // closed again another moment later.
    let own = inodes(&stays.cgroup_directory());
    let mut alone = wait_until("the watches, and nothing else", || {
        let held = Held::by(&spotsim, &pods);
        sleep(Duration::from_millis(50));
        let same = Held::by(&spotsim, &pods) == held;
        (same && own.is_subset(&held.watches)).then_some(held)
    });
    assert_eq!(alone.count("anon_inode:bpf_link"), 4, "{alone:?}");
    // From the first request on that leaves from another namespace there is a thread which makes
    // such sockets. It stays, and keeps the namespace that it returns to.
    alone.threads += 1;
    let home = stays.network().display().to_string();
    *alone.descriptors.get_mut(&home).unwrap() += 1;
    for _ in 0..4 {
        let from = spotsim.stderr().len();
        let two = ["web-1", "web-2"].map(|name| web(name).start());
        for pod in &two {
            wait_until("the notice", || sees(pod).then_some(()));
        }
        pods.append(&mut inodes(node.kubepods().directory()));
        let networks = two.each_ref().map(|pod| pod.network());
        let of_three = |held: &Held| {
            let mut networks = networks.iter().map(|path| path.display().to_string());
            held.count("anon_inode:bpf_link") == 12
                && held.watches.len() > alone.watches.len()
                && networks.all(|network| held.count(&network) == 1)
        };
        let three = once(&spotsim, &pods, of_three);
        assert!(of_three(&three), "{networks:?} in {three:?}");
        for pod in two {
            let name = format!("pod default/{}", pod.name());
            pod.remove();
            spotsim.stderr_line(&name, from);
        }
        assert_eq!(once(&spotsim, &pods, |held| *held == alone), alone);
    }
    assert!(sees(&stays));
}
