//! Where the runtime's socket is.

use std::{
    fs,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use super::RuntimeError;

/// Beneath the root, in the order in which [crictl][1] tries them. It has the last one in
/// `/var/run`, which is `/run`, but by a link that leads out of a root mounted elsewhere.
///
/// [1]: https://github.com/kubernetes-sigs/cri-tools/blob/master/docs/crictl.md
const KNOWN: [&str; 3] = [
    "run/containerd/containerd.sock",
    "run/crio/crio.sock",
    "run/cri-dockerd.sock",
];

/// Where runtimes have their sockets if nobody changed that.
pub fn known(host_root: &Path) -> Vec<PathBuf> {
    KNOWN.iter().map(|socket| host_root.join(socket)).collect()
}

/// The socket that an endpoint names: `unix:///run/…`, or a path.
pub fn socket(given: &str) -> Result<PathBuf, RuntimeError> {
    let refused = |why| RuntimeError::Endpoint {
        given: given.to_owned(),
        why,
    };
    let path = match given.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => path,
        Some(("unix", _)) => {
            return Err(refused(
                "its path must be absolute: three slashes, as in unix:///run/containerd/containerd.sock",
            ));
        }
        Some(_) => return Err(refused("only unix sockets are spoken to, as unix:///PATH")),
        None => given.strip_prefix("unix:").unwrap_or(given),
    };
    if path.is_empty() || path.contains('\0') {
        return Err(refused("it must be unix:///PATH or a path"));
    }
    let path = PathBuf::from(path);
    // What cannot be looked at fails to be connected to, with the reason.
    if fs::metadata(&path).is_ok_and(|found| !found.file_type().is_socket()) {
        return Err(refused("that is not a socket"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_or_a_path() {
        for given in [
            "unix:///no/such.sock",
            "unix:/no/such.sock",
            "/no/such.sock",
        ] {
            assert_eq!(socket(given).unwrap(), Path::new("/no/such.sock"));
        }
        assert_eq!(socket("such.sock").unwrap(), Path::new("such.sock"));
    }

    #[test]
    fn what_is_no_unix_socket_is_refused_with_the_reason() {
        for (given, why) in [
            ("tcp://127.0.0.1:1234", "only unix sockets"),
            ("npipe:////./pipe/containerd", "only unix sockets"),
            ("unix://run/containerd.sock", "three slashes"),
            ("unix://", "three slashes"),
            ("unix:", "or a path"),
            ("", "or a path"),
            ("a\0b", "or a path"),
            ("/", "not a socket"),
            ("unix:///dev/null", "not a socket"),
        ] {
            let error = socket(given).unwrap_err();
            assert!(matches!(error, RuntimeError::Endpoint { .. }), "{error:?}");
            let text = error.to_string();
            assert!(text.contains(why) && !text.contains('\0'), "{text}");
        }
    }

    #[test]
    fn the_known_sockets_are_beneath_the_root() {
        let first = &known(Path::new("/host"))[0];
        assert_eq!(first, Path::new("/host/run/containerd/containerd.sock"));
        let all: Vec<_> = known(Path::new("/"));
        assert_eq!(all[2], Path::new("/run/cri-dockerd.sock"));
    }
}
