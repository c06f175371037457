//! Whether this host can do it, and what to change where it cannot.
//!
//! [`checks`] looks at everything, [`preflight`] only at what costs next to nothing: what is
//! left shows when the kernel half is loaded. No check sends a packet or changes anything.

use std::{fmt, fs, io, os::unix::net::UnixDatagram};

use nix::sys::utsname::uname;

use crate::{
    ec2,
    intercept::{self, Probe},
    netns::{self, CgroupNamespace, Namespace},
    sock_diag,
    target::{
        cgroup2_mount,
        cri::{Runtime, RuntimeError},
    },
};

/// The oldest kernel: before it, one use of the v1 controllers `net_cls` or `net_prio` made
/// the programs of every cgroup but the root stop silently (kernel commit 8520e224f547), and
/// a namespace had no cookie (`SO_NETNS_COOKIE`).
const OLDEST_KERNEL: Version = Version(5, 15);

/// The inode numbers of a machine's first user and pid namespaces
/// (`include/uapi/linux/nsfs.h`).
const FIRST_USER_NAMESPACE: &str = "user:[4026531837]";
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at, in a word or two.
    pub name: &'static str,
    /// What it means for an interception.
    pub outcome: Outcome,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// What a check means for an interception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is in its way.
    Ok,
    /// It works, with a limit that the detail states.
    Warn,
    /// It does not work.
    Fail,
}

/// Why this host cannot intercept anything.
#[derive(Debug)]
pub struct Refusal {
    reasons: Vec<Check>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot intercept anything on this host: ")?;
        let Self { reasons } = self;
        for (index, reason) in reasons.iter().enumerate() {
            let Check { detail, remedy, .. } = reason;
            let between = if index == 0 { "" } else { "; also: " };
            write!(f, "{between}{detail}")?;
            if let Some(remedy) = remedy {
                write!(f, "; {remedy}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            outcome: Outcome::Ok,
            detail: detail.into(),
            remedy: None,
        }
    }

    fn warn(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Warn,
            remedy: Some(remedy.into()),
            ..Self::ok(name, detail)
        }
    }

    fn fail(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Fail,
            ..Self::warn(name, detail, remedy)
        }
    }
}

/// Refuses a host that cannot intercept, as far as a few small files in `/proc` tell (well
/// under a millisecond).
///
/// Who makes a cgroup of its own and intercepts that needs no more than this.
pub fn preflight() -> Result<(), Refusal> {
    refuse([capabilities(), kernel(), cgroup_mount()])
}

/// As [`preflight`], for one who intercepts what others run: their cgroups need a path.
pub fn preflight_for_others() -> Result<(), Refusal> {
    refuse([capabilities(), kernel(), cgroup_namespace(), cgroup_mount()])
}

fn refuse(checks: impl IntoIterator<Item = Check>) -> Result<(), Refusal> {
    let failed = |check: &Check| check.outcome == Outcome::Fail;
    let reasons: Vec<_> = checks.into_iter().filter(failed).collect();
    if reasons.is_empty() {
        Ok(())
    } else {
        Err(Refusal { reasons })
    }
}

/// Looks at everything that an interception needs. The container runtime was asked already.
pub fn checks(asked: Result<Runtime, RuntimeError>) -> Vec<Check> {
    let mut checks = vec![capabilities(), kernel(), cgroup_mount(), cgroup_namespace()];
    checks.extend(programs());
    checks.extend([
        processes(),
        btf(),
        jit(),
        network_namespaces(),
        namespace_cookie(),
        destroy(),
        judge_runtime(asked.as_ref().map(Runtime::name)),
        upstream(),
    ]);
    checks
}

fn capabilities() -> Check {
    const NAME: &str = "capabilities";
    let status = fs::read_to_string("/proc/self/status");
    let Some(effective) = status.ok().as_deref().and_then(effective_capabilities) else {
        return Check::warn(NAME, "not to be read in /proc/self/status", "mount /proc");
    };
    let namespace = fs::read_link("/proc/self/ns/user");
    if namespace.is_ok_and(|link| link.as_os_str() != FIRST_USER_NAMESPACE) {
        return Check::fail(
            NAME,
            "this is a user namespace, and what is allowed in there does not cover eBPF",
            "run it as the host's root (in Kubernetes: no `hostUsers: false`)",
        );
    }
    judge_capabilities(effective)
}

/// The numbers of the capabilities that are named here (`include/uapi/linux/capability.h`).
const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

fn judge_capabilities(effective: u64) -> Check {
    const NAME: &str = "capabilities";
    let has = |number: u32| effective >> number & 1 == 1;
    // setns(2) needs CAP_SYS_ADMIN in any case, and for bpf(2) that includes CAP_BPF and
    // CAP_NET_ADMIN. The namespaces of other users' processes are open to CAP_SYS_PTRACE, and
    // what their clients ask is passed on in their name.
    let missing: Vec<_> = [
        (CAP_SYS_ADMIN, "CAP_SYS_ADMIN"),
        (CAP_SYS_PTRACE, "CAP_SYS_PTRACE"),
        (CAP_SETUID, "CAP_SETUID"),
        (CAP_SETGID, "CAP_SETGID"),
        (CAP_NET_ADMIN, "CAP_NET_ADMIN"),
        (CAP_BPF, "CAP_BPF"),
    ]
    .into_iter()
    .filter(|&(number, _)| !(has(number) || number == CAP_BPF && has(CAP_SYS_ADMIN)))
    .map(|(_, name)| name)
    .collect();
    if [CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_SETUID, CAP_SETGID]
        .into_iter()
        .all(has)
    {
        return if has(CAP_NET_ADMIN) {
            Check::ok(
                NAME,
                "CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_NET_ADMIN, CAP_SETUID, CAP_SETGID",
            )
        } else {
            Check::warn(
                NAME,
                "no CAP_NET_ADMIN: connections to IMDS that are open already will not be cut",
                "run it as root or grant CAP_NET_ADMIN",
            )
        };
    }
    Check::fail(
        NAME,
        format!("this process lacks {}", missing.join(", ")),
        "run it as root (sudo); in a container, add these capabilities",
    )
}

/// The effective capabilities in a `/proc/PID/status` ([proc_pid_status(5)][1]): bit N is
/// capability number N.
///
/// [1]: https://man7.org/linux/man-pages/man5/proc_pid_status.5.html
fn effective_capabilities(status: &str) -> Option<u64> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

fn kernel() -> Check {
    match uname() {
        Ok(name) => judge_kernel(&name.release().to_string_lossy()),
        Err(error) => judge_kernel(&error.to_string()),
    }
}

fn judge_kernel(release: &str) -> Check {
    const NAME: &str = "kernel";
    match Version::of_release(release) {
        Some(version) if version >= OLDEST_KERNEL => Check::ok(
            NAME,
            format!("{release} ({OLDEST_KERNEL} or newer is needed)"),
        ),
        Some(_) => Check::fail(
            NAME,
            format!("kernel {release} is too old"),
            format!("boot {OLDEST_KERNEL} or newer"),
        ),
        None => Check::warn(
            NAME,
            format!("the release `{release}` begins with no version"),
            format!("make sure that it is {OLDEST_KERNEL} or newer"),
        ),
    }
}

/// Major and minor version of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

impl Version {
    /// Reads what `uname -r` shows; what follows the minor version is the distribution's.
    fn of_release(release: &str) -> Option<Self> {
        let (major, rest) = release.split_once('.')?;
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        Some(Self(major.parse().ok()?, rest[..digits].parse().ok()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(major, minor) = self;
        write!(f, "{major}.{minor}")
    }
}

fn cgroup_mount() -> Check {
    const NAME: &str = "cgroup v2";
    let mount = match cgroup2_mount() {
        Ok(Some(mount)) => mount,
        Ok(None) => {
            return Check::fail(
                NAME,
                "the cgroup v2 hierarchy is not mounted here, or only a part of it",
                "boot with systemd.unified_cgroup_hierarchy=1; in a container, share the host's \
                 processes (hostPID: true) and mount its /sys/fs/cgroup, at any place and \
                 read-only if you like",
            );
        }
        Err(error) => {
            let detail = format!("no mount to be found in /proc/self/mountinfo: {error}");
            return Check::fail(NAME, detail, "mount /proc");
        }
    };
    let place = format!("mounted at {}", mount.display());
    if fs::read_to_string("/proc/self/cgroup").is_ok_and(|cgroups| is_hybrid(&cgroups)) {
        Check::warn(
            NAME,
            format!("{place}, beside v1 hierarchies (hybrid): only what is in v2 can be a target"),
            "choose targets whose `0::` line in /proc/PID/cgroup is not just `/`",
        )
    } else {
        Check::ok(NAME, place)
    }
}

/// Whether v1 hierarchies have lines in a `/proc/PID/cgroup` that has one of v2.
fn is_hybrid(cgroups: &str) -> bool {
    cgroups.lines().any(|line| !line.starts_with("0::"))
}

fn cgroup_namespace() -> Check {
    // On a thread of its own: to look changes nothing.
    let entered = netns::on_thread(netns::enter_hosts_cgroup_namespace);
    judge_cgroup_namespace(entered.flatten())
}

fn judge_cgroup_namespace(entered: io::Result<CgroupNamespace>) -> Check {
    const NAME: &str = "cgroup namespace";
    match entered {
        Ok(CgroupNamespace::First) => Check::ok(NAME, "the host's"),
        Ok(CgroupNamespace::Nested) => Check::warn(
            NAME,
            "not the machine's first: cgroups outside it have no path here",
            SHARE_PROCESSES,
        ),
        Err(error) => Check::fail(
            NAME,
            format!("that of a container; the host's cannot be entered: {error}"),
            "see capabilities; with all of them, AppArmor, SELinux or seccomp forbids it: use \
             `privileged: true` or an unconfined profile",
        ),
    }
}

fn programs() -> [Check; 4] {
    const FORBIDDEN: &str =
        "see capabilities; with all of them, allow bpf(2) in the seccomp profile";
    let Probe {
        program,
        ring_buffer,
        netns_cookie_helper,
        load,
    } = intercept::probe();
    let judge = |name, result: io::Result<()>, detail: &str, remedy: &str| match result {
        Ok(()) => Check::ok(name, detail),
        Err(error) => {
            let forbidden = error.kind() == io::ErrorKind::PermissionDenied;
            let remedy = if forbidden { FORBIDDEN } else { remedy };
            Check::fail(name, format!("{detail}: {error}"), remedy)
        }
    };
    [
        judge(
            "program type",
            program,
            "cgroup_sock_addr",
            "use a kernel with CONFIG_CGROUP_BPF and CONFIG_BPF_SYSCALL",
        ),
        judge(
            "ring buffer",
            ring_buffer,
            "ringbuf map",
            "boot Linux 5.8 or newer",
        ),
        judge(
            "helper",
            netns_cookie_helper,
            "bpf_get_netns_cookie",
            "boot Linux 5.7 or newer",
        ),
        judge(
            "kernel half",
            load,
            "connect4, connect6, getpeername4, getpeername6 load",
            "report this with the kernel's release",
        ),
    ]
}

fn btf() -> Check {
    const PATH: &str = "/sys/kernel/btf/vmlinux";
    let state = match fs::metadata(PATH) {
        Ok(_) => "there",
        Err(_) => "not there",
    };
    Check::ok("BTF", format!("{PATH} is {state}; it is not needed"))
}

fn jit() -> Check {
    const NAME: &str = "JIT";
    const PATH: &str = "/proc/sys/net/core/bpf_jit_enable";
    match fs::read_to_string(PATH).as_deref().map(str::trim) {
        Ok("0") => Check::warn(
            NAME,
            "off: each connect of a target is interpreted, which takes longer",
            "sysctl net.core.bpf_jit_enable=1",
        ),
        Ok(_) => Check::ok(NAME, "on"),
        // Only the host's network namespace has the file.
        Err(_) => Check::ok(NAME, format!("cannot be seen from here ({PATH})")),
    }
}

/// What shows the host's processes, and by its process 1 the way to its cgroup namespace.
const SHARE_PROCESSES: &str = "in a container, share the host's processes (hostPID: true, docker \
                               run --pid=host); a node that is a container itself (kind) has no \
                               more than this";

fn processes() -> Check {
    const NAME: &str = "processes";
    match fs::read_link("/proc/self/ns/pid") {
        Ok(link) if link.as_os_str() == FIRST_PID_NAMESPACE => Check::ok(NAME, "all are seen"),
        Ok(link) => Check::warn(
            NAME,
            format!(
                "{}, not the host's: what runs outside it is not seen, and cannot be a target",
                link.display()
            ),
            SHARE_PROCESSES,
        ),
        Err(error) => Check::warn(
            NAME,
            format!("cannot tell whether all are seen: {error}"),
            "mount /proc",
        ),
    }
}

fn network_namespaces() -> Check {
    const NAME: &str = "network namespaces";
    match Namespace::current().and_then(|namespace| namespace.run(|| ())) {
        Ok(()) => Check::ok(NAME, "can be entered"),
        Err(error) => Check::fail(
            NAME,
            format!("cannot be entered: {error}"),
            "see capabilities; with all of them, allow setns(2) in the seccomp profile",
        ),
    }
}

fn namespace_cookie() -> Check {
    const NAME: &str = "namespace cookie";
    match UnixDatagram::unbound().and_then(|socket| netns::cookie(&socket)) {
        Ok(_) => Check::ok(NAME, "SO_NETNS_COOKIE"),
        Err(error) => Check::fail(
            NAME,
            format!("no SO_NETNS_COOKIE: {error}"),
            format!("boot {OLDEST_KERNEL} or newer"),
        ),
    }
}

fn destroy() -> Check {
    judge_destroy(sock_diag::destroy_supported())
}

fn judge_destroy(supported: io::Result<bool>) -> Check {
    const NAME: &str = "open connections";
    const REMEDY: &str =
        "restart the workload after attaching, or use a kernel with CONFIG_INET_DIAG_DESTROY";
    const LIMIT: &str = "connections to IMDS that are open already cannot be cut";
    match supported {
        Ok(true) => Check::ok(NAME, "the kernel can cut them (sock_diag destroy)"),
        Ok(false) => Check::warn(NAME, format!("{LIMIT}: no sock_diag destroy"), REMEDY),
        Err(error) => Check::warn(NAME, format!("{LIMIT}: sock_diag: {error}"), REMEDY),
    }
}

/// Judges the answer of the container runtime: what it calls itself. None is needed for an
/// interception as such.
fn judge_runtime(asked: Result<&str, &RuntimeError>) -> Check {
    const NAME: &str = "container runtime";
    const WITHOUT: &str = "pods cannot be chosen by name or label";
    let absent = |error: &RuntimeError| match error {
        RuntimeError::Absent { socket } => Some(socket.display().to_string()),
        _ => None,
    };
    match asked {
        Ok(name) => Check::ok(NAME, name),
        Err(RuntimeError::NoneFound(tried)) if tried.iter().all(|one| absent(one).is_some()) => {
            // Most machines have none, and miss nothing.
            let places: Vec<_> = tried.iter().filter_map(absent).collect();
            Check::ok(NAME, format!("none at {}: {WITHOUT}", places.join(", ")))
        }
        Err(error) => Check::warn(
            NAME,
            format!("{WITHOUT}: {error}"),
            "run it as root; if the runtime does not run, start it",
        ),
    }
}

fn upstream() -> Check {
    let detail = if ec2::is_ec2() {
        "an EC2 instance: `--upstream auto` is `real`"
    } else {
        "not EC2: `--upstream auto` is `synthetic`"
    };
    Check::ok("upstream", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_begin_with_a_version() {
        for (release, version) in [
            ("5.15.0-1051-aws", Version(5, 15)),
            ("6.1.0-18-cloud-amd64", Version(6, 1)),
            ("4.14.355-276.639.amzn2.x86_64", Version(4, 14)),
            ("6.12", Version(6, 12)),
            ("6.12-rc3", Version(6, 12)),
            ("6.18.44", Version(6, 18)),
            ("10.0.1", Version(10, 0)),
        ] {
            assert_eq!(Version::of_release(release), Some(version), "{release}");
        }
        for release in ["", "6", "six.one", "6.", "6.x", "v6.1"] {
            assert_eq!(Version::of_release(release), None, "{release}");
        }
    }

    #[test]
    fn old_kernels_are_refused() {
        for (release, outcome) in [
            ("5.10.0-30-cloud-amd64", Outcome::Fail),
            ("5.14.21", Outcome::Fail),
            ("4.20.0", Outcome::Fail),
            ("5.15.0", Outcome::Ok),
            ("6.1.0", Outcome::Ok),
            ("strange", Outcome::Warn),
        ] {
            assert_eq!(judge_kernel(release).outcome, outcome, "{release}");
        }
    }

    #[test]
    fn effective_capabilities_are_found() {
        let status = "Name:\tspotsim\nCapPrm:\t0000000000000001\nCapEff:\t000001fffeffffff\n";
        assert_eq!(effective_capabilities(status), Some(0x1ff_feff_ffff));
        assert_eq!(effective_capabilities("CapPrm:\t0000000000000001\n"), None);
        assert_eq!(effective_capabilities("CapEff:\tall\n"), None);
    }

    #[test]
    fn missing_capabilities_are_named() {
        let only = |numbers: &[u32]| {
            numbers
                .iter()
                .fold(0, |mask, number| mask | 1_u64 << number)
        };
        let nothing = judge_capabilities(0);
        assert_eq!(nothing.outcome, Outcome::Fail);
        let all = "CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_SETUID, CAP_SETGID, CAP_NET_ADMIN, CAP_BPF";
        assert!(nothing.detail.ends_with(all), "{}", nothing.detail);

        let no_ptrace = judge_capabilities(only(&[
            CAP_SYS_ADMIN,
            CAP_SETUID,
            CAP_SETGID,
            CAP_NET_ADMIN,
        ]));
        assert_eq!(no_ptrace.outcome, Outcome::Fail);
        assert!(
            no_ptrace.detail.ends_with("lacks CAP_SYS_PTRACE"),
            "{}",
            no_ptrace.detail
        );

        let no_setns = judge_capabilities(only(&[
            CAP_SYS_PTRACE,
            CAP_SETUID,
            CAP_SETGID,
            CAP_NET_ADMIN,
            CAP_BPF,
        ]));
        assert_eq!(no_setns.outcome, Outcome::Fail);
        assert!(
            no_setns.detail.ends_with("lacks CAP_SYS_ADMIN"),
            "{}",
            no_setns.detail
        );
    }

    #[test]
    fn the_fewest_capabilities_are_enough() {
        let least = 1 << CAP_SYS_ADMIN | 1 << CAP_SYS_PTRACE | 1 << CAP_SETUID | 1 << CAP_SETGID;
        assert_eq!(judge_capabilities(least).outcome, Outcome::Warn);
        let with_destroy = least | 1 << CAP_NET_ADMIN;
        assert_eq!(judge_capabilities(with_destroy).outcome, Outcome::Ok);
    }

    #[test]
    fn a_hybrid_host_has_lines_of_v1() {
        assert!(is_hybrid("9:name=systemd:/\n4:memory:/a\n0::/a\n"));
        assert!(!is_hybrid("0::/system.slice/ssh.service\n"));
    }

    #[test]
    fn no_destroy_is_a_limit_and_no_failure() {
        assert_eq!(judge_destroy(Ok(true)).outcome, Outcome::Ok);
        assert_eq!(judge_destroy(Ok(false)).outcome, Outcome::Warn);
        let error = io::Error::from_raw_os_error(libc::EPERM);
        assert_eq!(judge_destroy(Err(error)).outcome, Outcome::Warn);
    }

    #[test]
    fn a_cgroup_namespace_that_cannot_be_left_is_a_failure() {
        use CgroupNamespace::{First, Nested};
        assert_eq!(judge_cgroup_namespace(Ok(First)).outcome, Outcome::Ok);
        let nested = judge_cgroup_namespace(Ok(Nested));
        assert_eq!(nested.outcome, Outcome::Warn);
        assert!(nested.remedy.unwrap().contains("hostPID: true"));
        let error = io::Error::from_raw_os_error(libc::EACCES);
        let failed = judge_cgroup_namespace(Err(error));
        assert_eq!(failed.outcome, Outcome::Fail);
        assert!(failed.detail.contains("Permission denied"), "{failed:?}");
    }

    #[test]
    fn no_runtime_is_no_failure() {
        let absent = |path: &str| RuntimeError::Absent {
            socket: path.into(),
        };
        let none = RuntimeError::NoneFound(vec![absent("/a"), absent("/b")]);
        let none = judge_runtime(Err(&none));
        assert_eq!(none.outcome, Outcome::Ok);
        let expected = "none at /a, /b: pods cannot be chosen by name or label";
        assert_eq!(none.detail, expected);

        let denied = RuntimeError::Denied {
            socket: "/b".into(),
        };
        let denied = RuntimeError::NoneFound(vec![absent("/a"), denied]);
        let denied = judge_runtime(Err(&denied));
        assert_eq!(denied.outcome, Outcome::Warn);
        let expected = "pods cannot be chosen by name or label: no container runtime found: tried \
                        /a (there is no such socket), /b (permission denied)";
        assert!(denied.detail.starts_with(expected), "{}", denied.detail);

        // One that was named is expected to be there.
        assert_eq!(judge_runtime(Err(&absent("/a"))).outcome, Outcome::Warn);

        let there = judge_runtime(Ok("containerd 1.6.20 at /c"));
        assert_eq!(there.outcome, Outcome::Ok);
        assert_eq!(there.detail, "containerd 1.6.20 at /c");
    }

    #[test]
    fn a_refusal_says_every_reason_and_what_to_do() {
        let refusal = Refusal {
            reasons: vec![
                judge_capabilities(!(1 << CAP_SYS_PTRACE)),
                judge_kernel("5.10.0"),
            ],
        };
        assert_eq!(
            refusal.to_string(),
            "cannot intercept anything on this host: this process lacks CAP_SYS_PTRACE; run it \
             as root (sudo); in a container, add these capabilities; also: kernel 5.10.0 is too \
             old; boot 5.15 or newer"
        );
    }
}
