//! SIGTERM, SIGKILL.

use std::time::{Duration, Instant};

use tests::{Lab, Running, is_running};

use super::{attach, effect, shell, ticker, ticks};

const POLITE: &str = r#"trap "echo got; exit 7" TERM; echo up; while :; do sleep 0.05; done"#;
const STUBBORN: &str = r#"trap "echo got" TERM; echo up; while :; do sleep 0.05; done"#;

#[test]
fn who_ends_in_time_ends_by_itself_and_the_others_after_the_grace() {
    let Some(lab) = Lab::bare() else { return };
    let inner = lab.target.child("inner");
    let beneath = lab.inside().in_cgroup(inner.directory());
    let [polite, stubborn] = [POLITE, STUBBORN].map(|script| shell(&lab.inside(), script));
    let deep = shell(&beneath, POLITE);
    let beside = ticker(&lab.outside());
    let mut spotsim = attach(&lab, "term", &["--grace", "1s"]);
    let mut stubborn = stubborn;
    stubborn.stdout_line("got", 0);
    let got = Instant::now();
    assert!(is_running(stubborn.pid() as i32));
    for polite in [polite, deep] {
        let polite = polite.finish();
        assert_eq!(polite.code, 7, "{}", polite.text());
    }
    let stubborn = stubborn.finish();
    assert_eq!(stubborn.code, 128 + 9, "{}", stubborn.text());
    assert_eq!(stubborn.text().matches("got").count(), 1, "told once");
    let grace = got.elapsed();
    // On a busy machine it is seen a while later that it was told.
    assert!(grace > Duration::from_millis(500), "{grace:?}");
    assert!(grace < Duration::from_secs(5), "{grace:?}");
    effect(&lab, "done");
    spotsim.stderr_line("SIGKILL after the grace, to ", 0);
    assert_eq!(lab.target.processes(), [0; 0]);
    assert!(ticks(&beside));
}

/// A handler of SIGTERM may need others to end well.
#[test]
fn what_a_handler_starts_goes_on() {
    let Some(lab) = Lab::bare() else { return };
    let script = r#"trap 'sh -c "echo cleaning; sleep 0.5; echo clean"; exit 3' TERM
        echo up; while :; do sleep 0.01; done"#;
    let handlers: Vec<Running> = (0..8).map(|_| shell(&lab.inside(), script)).collect();
    let _spotsim = attach(&lab, "term", &["--grace", "15s"]);
    for handler in handlers {
        let handler = handler.finish();
        assert_eq!(handler.code, 3, "{}{}", handler.text(), handler.stderr);
        assert!(
            handler.text().ends_with("cleaning\nclean\n"),
            "{}",
            handler.text()
        );
    }
    effect(&lab, "done");
}

/// Makes processes as fast as it can, some hundreds at a time, and ignores SIGTERM.
const BREEDER: &str =
    r#"trap "" TERM; echo up; while :; do (sleep 0.02; sleep 3) & sleep 0.005; done"#;

#[test]
fn those_that_are_being_made_do_not_escape() {
    for effect_name in ["kill", "term"] {
        let Some(lab) = Lab::bare() else { return };
        let breeders: Vec<Running> = (0..2).map(|_| shell(&lab.inside(), BREEDER)).collect();
        let beside = ticker(&lab.outside());
        let more: &[&str] = match effect_name {
            "term" => &["--grace", "500ms"],
            _ => &[],
        };
        let _spotsim = attach(&lab, effect_name, more);
        effect(&lab, "done");
        assert_eq!(lab.target.processes(), [0; 0]);
        for breeder in breeders {
            assert_eq!(breeder.finish().code, 128 + 9);
        }
        assert!(ticks(&beside));
    }
}

#[test]
fn kill_leaves_no_time() {
    let Some(lab) = Lab::bare() else { return };
    let polite = shell(&lab.inside(), POLITE);
    let beside = ticker(&lab.outside());
    let _spotsim = attach(&lab, "kill", &[]);
    let polite = polite.finish();
    assert_eq!((polite.code, polite.text().as_str()), (128 + 9, "up\n"));
    effect(&lab, "done");
    assert!(ticks(&beside));
}

/// Frozen by somebody else, it does not hear SIGTERM; SIGKILL it does.
#[test]
fn a_frozen_target_is_ended_too() {
    let Some(lab) = Lab::bare() else { return };
    let polite = shell(&lab.inside(), POLITE);
    super::write(&lab.target, "cgroup.freeze", "1");
    let _spotsim = attach(&lab, "term", &["--grace", "500ms"]);
    assert_eq!(polite.finish().code, 128 + 9);
    effect(&lab, "done");
}

#[test]
fn without_an_effect_nothing_happens_at_the_deadline() {
    let Some(lab) = Lab::bare() else { return };
    let inside = ticker(&lab.inside());
    let args = ["--upstream", "synthetic", "--lead", "1s"];
    let args = tests::attach_args(lab.target.directory(), &args);
    let mut spotsim = Running::start(super::command(&lab, &args));
    spotsim.stdout_line("armed: ", 0);
    std::thread::sleep(Duration::from_millis(2_500));
    assert!(ticks(&inside));
}
