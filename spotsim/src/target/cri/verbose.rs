//! What a runtime tells of a sandbox or container beyond CRI's fields.
//!
//! CRI leaves that to the runtime. containerd and CRI-O put one JSON document under the key
//! `info`, with the process and the OCI runtime's configuration; cri-dockerd has none.

use std::collections::HashMap;

use serde_json::Value;

/// The first process, as the runtime's own pid namespace numbers it, by the `info` of a verbose
/// status. What is not understood is not there.
pub fn pid(info: &HashMap<String, String>) -> Option<u32> {
    let document: Value = serde_json::from_str(info.get("info")?).ok()?;
    let pid = i32::try_from(document.get("pid")?.as_i64()?).ok()?;
    // A process that ended is told as 0.
    u32::try_from(pid).ok().filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(document: &str) -> Option<u32> {
        pid(&[("info".to_owned(), document.to_owned())].into())
    }

    /// A pod's sandbox in containerd 1.6.20, and 1.7.24 has the same keys; without what has
    /// nothing to do with namespaces and cgroups.
    const CONTAINERD: &str = r#"{
        "cniResult": {"Interfaces": {"eth0": {
            "IPConfigs": [{"Gateway": "10.244.0.1", "IP": "10.244.0.2"}],
            "Mac": "3e:62:f8:a9:97:a5",
            "Sandbox": "/var/run/netns/cni-f0da7344"
        }}},
        "config": {
            "hostname": "web-0",
            "linux": {
                "cgroup_parent": "/kubepods/besteffort/poda34b3ae2",
                "security_context": {"namespace_options": {"pid": 1}}
            },
            "metadata": {"name": "web-0", "namespace": "shop", "uid": "a34b3ae2"}
        },
        "image": "registry.k8s.io/pause:3.6",
        "netNamespaceClosed": false,
        "pid": 2936,
        "processStatus": "running",
        "runtimeHandler": "",
        "runtimeOptions": {"binary_name": "/usr/sbin/runc"},
        "runtimeSpec": {
            "hostname": "web-0",
            "linux": {
                "cgroupsPath": "/kubepods/besteffort/poda34b3ae2/2b19016f",
                "namespaces": [
                    {"type": "pid"},
                    {"type": "ipc"},
                    {"type": "uts"},
                    {"type": "mount"},
                    {"path": "/var/run/netns/cni-f0da7344", "type": "network"}
                ],
                "resources": {"cpu": {"shares": 2}}
            },
            "ociVersion": "1.0.2-dev"
        },
        "runtimeType": "io.containerd.runc.v2",
        "snapshotKey": "2b19016f",
        "snapshotter": "native"
    }"#;

    #[test]
    fn of_containerd() {
        assert_eq!(told(CONTAINERD), Some(2936));
        let stopped = CONTAINERD.replace("\"pid\": 2936", "\"pid\": 0");
        assert_eq!(told(&stopped), None);
    }

    /// A pod's sandbox in CRI-O, whose configuration of pods is not in it.
    const CRI_O: &str = r#"{
        "image": "registry.k8s.io/pause:3.9",
        "pid": 5123,
        "runtimeSpec": {
            "ociVersion": "1.1.0-rc.1",
            "hostname": "web-0",
            "linux": {
                "cgroupsPath": "kubepods-besteffort-pod8f7e.slice:crio:4d5e",
                "namespaces": [
                    {"type": "pid"},
                    {"type": "network", "path": "/var/run/netns/f6b3-web"}
                ]
            }
        }
    }"#;

    #[test]
    fn of_cri_o() {
        assert_eq!(told(CRI_O), Some(5123));
    }

    #[test]
    fn of_a_runtime_that_tells_nothing() {
        assert_eq!(pid(&HashMap::new()), None);
        let deep = "[".repeat(100_000);
        for nothing in [
            "", "{}", "null", "[]", "{", "\"info\"", "\u{1b}", "{}{}", &deep,
        ] {
            assert_eq!(told(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn what_is_not_understood_is_not_there() {
        for number in [
            "0",
            "-1",
            "1.5",
            "\"17\"",
            "2147483648",
            "1e99",
            "null",
            "[17]",
        ] {
            assert_eq!(told(&format!(r#"{{"pid": {number}}}"#)), None, "{number}");
        }
        assert_eq!(told(r#"{"pid": 2147483647}"#), Some(2_147_483_647));
    }

    proptest! {
        #[test]
        fn whatever_number_a_runtime_tells_is_read(number in any::<i64>()) {
            let process = i32::try_from(number).ok().filter(|number| *number > 0);
            let process = process.and_then(|number| u32::try_from(number).ok());
            prop_assert_eq!(told(&format!(r#"{{"pid": {number}}}"#)), process);
        }

        #[test]
        fn whatever_is_no_json_tells_nothing(text in ".{0,200}") {
            if serde_json::from_str::<Value>(&text).is_err() {
                prop_assert_eq!(told(&text), None);
            }
        }
    }
}
