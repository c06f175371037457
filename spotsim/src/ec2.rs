//! Whether this machine is an EC2 instance, told by its firmware. No packet is ever sent to
//! find out.

use std::{fs, path::Path};

/// Whether the firmware or the hypervisor of this machine says that it is an EC2 instance
/// ([AWS: identify EC2 Linux instances][1]).
///
/// [1]: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/identify_ec2_instances.html
pub fn is_ec2() -> bool {
    says_ec2(Path::new("/sys"))
}

/// What a sysfs mounted at `sys` says.
fn says_ec2(sys: &Path) -> bool {
    let begins = |file: &str, with: &str| {
        let text = fs::read(sys.join(file)).unwrap_or_default();
        text.get(..with.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(with.as_bytes()))
    };
    // Nitro and bare metal; Xen has a vendor of its own there.
    begins("class/dmi/id/sys_vendor", "Amazon EC2") || begins("hypervisor/uuid", "ec2")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A sysfs with one file.
    struct Sysfs(PathBuf);

    impl Sysfs {
        fn with(name: &str, file: &str, text: &str) -> Self {
            let root = std::env::temp_dir().join(format!("spotsim-{name}-{}", std::process::id()));
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            Self(root)
        }
    }

    impl Drop for Sysfs {
        fn drop(&mut self) {
            let Self(root) = self;
            fs::remove_dir_all(root).unwrap();
        }
    }

    #[test]
    fn an_instance_is_known_by_its_firmware_or_its_hypervisor() {
        for (name, file, text) in [
            ("nitro", "class/dmi/id/sys_vendor", "Amazon EC2\n"),
            (
                "xen",
                "hypervisor/uuid",
                "ec2e1916-9099-7caf-fd21-012345abcdef\n",
            ),
            (
                "xen-upper",
                "hypervisor/uuid",
                "EC2E1916-9099-7CAF-FD21-012345ABCDEF\n",
            ),
        ] {
            let Sysfs(root) = &Sysfs::with(name, file, text);
            assert!(says_ec2(root), "{name}");
        }
    }

    #[test]
    fn another_machine_is_no_instance() {
        for (name, file, text) in [
            ("qemu", "class/dmi/id/sys_vendor", "QEMU\n"),
            ("empty", "class/dmi/id/sys_vendor", ""),
            (
                "other-xen",
                "hypervisor/uuid",
                "0ec2e191-9099-7caf-fd21-012345abcdef\n",
            ),
            ("elsewhere", "class/dmi/id/product_name", "Amazon EC2\n"),
        ] {
            let Sysfs(root) = &Sysfs::with(name, file, text);
            assert!(!says_ec2(root), "{name}");
        }
        assert!(!says_ec2(Path::new("/nowhere")));
    }
}
