//! Where the cgroup v2 hierarchy is mounted.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// The directory where the whole cgroup v2 hierarchy is mounted, the first if there are
/// several. On a hybrid host, which has v1 as well, it is not `/sys/fs/cgroup`.
///
/// `None` if this process sees no such mount. One of a part of the hierarchy, as containers
/// have it, does not count: under it no path as in `/proc/PID/cgroup` leads anywhere. What is
/// whole depends on the reader's cgroup namespace, so who is in a container has to be in the
/// host's, and the host's mount in the container.
///
/// It is looked for until it is found: a node's table has thousands of mounts, and this one stays.
///
/// The host's own, behind `/proc/1/root`, is left alone: resolving a path there ends in this
/// process's own root, since to [readlink(2)][1] that link is just `/`.
///
/// [1]: https://man7.org/linux/man-pages/man2/readlink.2.html
pub fn cgroup2_mount() -> io::Result<Option<PathBuf>> {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(Some(found.clone()));
    }
    let found = find(&fs::read("/proc/self/mountinfo")?);
    Ok(found.map(|found| FOUND.get_or_init(|| found).clone()))
}

/// Looks through a `/proc/PID/mountinfo` ([proc_pid_mountinfo(5)][1]). What is no line of that
/// format is passed over.
///
/// [1]: https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
fn find(mountinfo: &[u8]) -> Option<PathBuf> {
    mountinfo
        .split(|&byte| byte == b'\n')
        .filter_map(mount)
        .find(|(kind, root, _)| *kind == b"cgroup2" && root == Path::new("/"))
        .map(|(_, _, directory)| directory)
}

/// File system type, root within the file system, and mount point of a line.
fn mount(line: &[u8]) -> Option<(&[u8], PathBuf, PathBuf)> {
    let mut fields = line.split(|&byte| byte == b' ');
    let root = unescape(fields.nth(3)?);
    let directory = unescape(fields.next()?);
    // Any number of optional fields lies between the options and the hyphen.
    let kind = fields.skip_while(|&field| field != b"-").nth(1)?;
    Some((kind, root, directory))
}

/// Space, tab, newline and backslash stand there as a backslash with three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = |digits: &[u8]| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok();
        let escaped = (byte == b'\\')
            .then(|| after.split_at_checked(3))
            .flatten()
            .and_then(|(digits, after)| Some((octal(digits)?, after)));
        let (byte, after) = escaped.unwrap_or((byte, after));
        path.push(byte);
        rest = after;
    }
    PathBuf::from(OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unified_host() {
        let mountinfo = b"\
            24 30 0:22 / /proc rw,nosuid shared:12 - proc proc rw\n\
            29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 master:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(find(mountinfo), Some("/sys/fs/cgroup".into()));
    }

    #[test]
    fn a_hybrid_host() {
        let mountinfo = b"\
            31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n\
            52 31 0:38 / /run/cilium/cgroupv2 rw,relatime - cgroup2 none rw\n";
        assert_eq!(find(mountinfo), Some("/sys/fs/cgroup/unified".into()));
    }

    #[test]
    fn a_host_with_v1_only() {
        let mountinfo =
            b"35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";
        assert_eq!(find(mountinfo), None);
        assert_eq!(find(b""), None);
    }

    #[test]
    fn a_part_is_not_the_whole() {
        let part = b"29 23 0:26 /docker/ab /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        assert_eq!(find(part), None);
        let whole = b"30 23 0:26 / /host/cgroup ro - cgroup2 cgroup rw\n";
        let both = [part.as_slice(), whole].concat();
        assert_eq!(find(&both), Some("/host/cgroup".into()));
    }

    #[test]
    fn escapes_in_paths() {
        let mountinfo = b"29 23 0:26 / /mnt/my\\040c\\134group\\ rw - cgroup2 cgroup2 rw\n";
        assert_eq!(find(mountinfo), Some("/mnt/my c\\group\\".into()));
        assert_eq!(unescape(b"a\\0"), Path::new("a\\0"));
        assert_eq!(unescape(b"\\011\\999"), Path::new("\t\\999"));
    }

    #[test]
    fn what_is_no_mount_is_passed_over() {
        for line in [
            "",
            "-",
            "29 23 0:26 /",
            "29 23 0:26 / /a rw",
            "29 23 0:26 / /a rw -",
        ] {
            assert_eq!(find(line.as_bytes()), None, "{line}");
        }
    }
}
