//! Everything that configures a network namespace, to be compared.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use crate::{NetNs, wait_until};

/// Routes, rules, addresses, links, firewalls and sysctls, by the name of the view.
pub type Configuration = BTreeMap<String, String>;

impl NetNs {
    /// How it is configured now, with the sysctls of the whole machine.
    pub fn configuration(&self) -> Configuration {
        let mut views = BTreeMap::new();
        for view in [
            "-4 route show table all",
            "-6 route show table all",
            "-4 rule",
            "-6 rule",
            "address",
            "-details link",
            "neighbour show nud permanent",
        ] {
            views.insert(format!("ip {view}"), settled(&self.ip(view)));
        }
        for firewall in [
            &["nft", "list", "ruleset"][..],
            &["iptables-save"],
            &["ip6tables-save"],
        ] {
            let output = self.enter(|| Command::new(firewall[0]).args(&firewall[1..]).output());
            // What is not installed has set no rule either.
            if let Ok(output) = output {
                views.insert(
                    firewall.join(" "),
                    String::from_utf8_lossy(&output.stdout).into_owned(),
                );
            }
        }
        for table in ["ip_tables_names", "ip6_tables_names"] {
            let names = self.enter(|| fs::read_to_string(format!("/proc/thread-self/net/{table}")));
            views.insert(table.to_owned(), names.unwrap_or_default());
        }
        // `net` is the namespace's, everything else the machine's.
        self.enter(|| sysctls(Path::new("/proc/sys"), &mut views));
        assert!(views.len() > 200, "only {} views", views.len());
        views
    }

    /// A new link's own address has its routes when the kernel knows that nobody else has it.
    pub fn wait_until_settled(&self) {
        wait_until("each link has its own address", || {
            let links = self.ip("-o link show up");
            let links = links.lines().filter(|link| !link.contains(": lo:"));
            let settled = self.ip("-6 -o address show scope link -tentative");
            (settled.lines().count() >= links.count()).then_some(())
        });
    }
}

/// Without the seconds that an address or route still has to live.
fn settled(view: &str) -> String {
    let seconds = regex::Regex::new(r"(expires|valid_lft|preferred_lft) \d+sec").unwrap();
    seconds.replace_all(view, "$1").into_owned()
}

fn sysctls(directory: &Path, views: &mut Configuration) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sysctls(&path, views);
        } else if !counts(&path) {
            // Some can only be written.
            if let Ok(value) = fs::read(&path) {
                let value = String::from_utf8_lossy(&value).into_owned();
                views.insert(path.display().to_string(), value);
            }
        }
    }
}

/// Is it one that the kernel changes by itself as the machine goes on?
fn counts(path: &Path) -> bool {
    const COUNTERS: [&str; 10] = [
        "/proc/sys/fs/dentry-state",
        "/proc/sys/fs/file-nr",
        "/proc/sys/fs/inode-nr",
        "/proc/sys/fs/inode-state",
        "/proc/sys/fs/aio-nr",
        "/proc/sys/fs/quota",
        "/proc/sys/kernel/ns_last_pid",
        // Lowered when the profiler's interrupts take long.
        "/proc/sys/kernel/perf_event_max_sample_rate",
        "/proc/sys/kernel/pty/nr",
        "/proc/sys/kernel/random",
    ];
    let name = path.file_name().unwrap().to_string_lossy();
    name.contains("count")
        || name.ends_with("stats")
        || COUNTERS.iter().any(|counter| path.starts_with(counter))
}
