//! What spotsim makes of the kernel that it is on: it works, or refuses it.
//!
//! On a kernel that is refused, no other test can pass.

use std::process::Command;

use nix::sys::utsname::uname;
use serde_json::Value;
use tests::{Lab, Running, Spotsim, attach_args, run};

/// As README.md says.
const OLDEST: [u32; 2] = [5, 15];

/// `uname -r`, and whether it is too old.
fn kernel() -> (String, bool) {
    let release = uname().unwrap().release().to_str().unwrap().to_owned();
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    let version = [(); 2].map(|()| numbers.next().unwrap().parse::<u32>().unwrap());
    (release, version < OLDEST)
}

fn attach(lab: &Lab) -> Command {
    let options = ["--upstream", "synthetic", "--id", "one"];
    Spotsim::command(lab, &attach_args(lab.target.directory(), &options))
}

#[test]
fn it_attaches_unless_the_kernel_is_too_old() {
    let Some(lab) = Lab::bare() else { return };
    let _workload = lab.workload_process();
    let (release, is_too_old) = kernel();
    if !is_too_old {
        Running::start(attach(&lab)).stdout_line("armed: ", 0);
        return;
    }
    let before = aya::programs::loaded_programs().count();
    let refused = run(attach(&lab), b"");
    assert_eq!((refused.code, refused.text().as_str()), (3, ""));
    let reason = format!("kernel {release} is too old; boot 5.15 or newer");
    assert!(refused.stderr.contains(&reason), "{}", refused.stderr);
    assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
    assert_eq!(aya::programs::loaded_programs().count(), before);
    assert_eq!(lab.node.listeners(), []);
    assert!(!lab.run_dir().exists());
    assert_eq!(lab.target.children(), [""; 0]);
}

#[test]
fn the_doctor_says_whether_the_kernel_is_too_old() {
    let Some(lab) = Lab::bare() else { return };
    let (release, is_too_old) = kernel();
    let doctor = run(Spotsim::command(&lab, &["doctor", "--json"]), b"");
    let told: Value = serde_json::from_str(&doctor.text()).unwrap();
    assert_eq!(told["attach"], !is_too_old, "{told:#}");
    assert_eq!(doctor.code, if is_too_old { 3 } else { 0 });
    let checks = told["checks"].as_array().unwrap();
    let check = |name: &str| {
        let check = checks.iter().find(|check| check["name"] == name).unwrap();
        let text = |field: &str| check[field].as_str().unwrap_or_default().to_owned();
        [text("outcome"), text("detail"), text("remedy")]
    };
    let [outcome, detail, remedy] = check("kernel");
    let [cookie, lacks, instead] = check("namespace cookie");
    if is_too_old {
        assert_eq!((outcome.as_str(), cookie.as_str()), ("fail", "fail"));
        assert_eq!(detail, format!("kernel {release} is too old"));
        assert!(lacks.starts_with("no SO_NETNS_COOKIE: "), "{lacks}");
        for remedy in [remedy, instead] {
            assert_eq!(remedy, "boot 5.15 or newer");
        }
    } else {
        assert_eq!((outcome.as_str(), cookie.as_str()), ("ok", "ok"));
        assert_eq!(detail, format!("{release} (5.15 or newer is needed)"));
    }
}
