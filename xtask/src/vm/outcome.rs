//! What a guest's console tells of its tests.

use std::fmt::Write as _;

use anyhow::{Result, bail};

use crate::summary::Summary;

/// How many of a console's last lines show what went wrong.
const TAIL: usize = 60;

/// What `init` says last, if every program of its plan succeeded.
const SUCCESS: &str = "init: all programs succeeded";

/// Counts the tests, and fails if one did, or if init did not come to its end.
pub fn judge(console: &str) -> Result<Summary> {
    let mut summary = Summary::default();
    for line in console.lines() {
        // All comes on one stream.
        summary.result_line(line.trim_end());
        summary.skip_line(line.trim_end());
    }
    let succeeded = console.lines().any(|line| line.trim_end() == SUCCESS);
    if !succeeded {
        bail!("{}\n{summary}, and init did not succeed", tail(console));
    }
    if summary.is_complete() {
        Ok(summary)
    } else {
        bail!("{}\n{summary}, although init succeeded", tail(console))
    }
}

/// The last lines of a console, and the tests that failed.
pub fn tail(console: &str) -> String {
    let lines: Vec<_> = console.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL)..];
    let mut shown = "the guest's console ends:".to_owned();
    for line in last {
        let _ = write!(shown, "\n  {}", line.trim_end());
    }
    // They may be further up.
    for line in lines.iter().map(|line| line.trim_end()) {
        if line.starts_with("test ") && line.ends_with("FAILED") {
            let _ = write!(shown, "\n{line}");
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "\
        [    0.3] a kernel\r\n\
        init: notice\r\n\
        running 2 tests\r\n\
        test a ... ok\r\n\
        test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s\r\n\
        init: blocked\r\n\
        test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s\r\n\
        init: all programs succeeded\r\n\
        [   40.2] reboot: Power down\r\n";

    #[test]
    fn all_passed() {
        let summary = judge(CONSOLE).unwrap();
        assert_eq!(summary.to_string(), "7 passed, 0 failed, 0 skipped");
    }

    fn error(console: &str) -> String {
        judge(console).unwrap_err().to_string()
    }

    #[test]
    fn whatever_else_happened_is_a_failure() {
        let panic = CONSOLE.split_once("init: all").unwrap().0.to_owned() + "Kernel panic\r\n";
        let said = error(&panic);
        assert!(said.contains("\n  Kernel panic\n7 passed"), "{said}");
        assert!(said.ends_with("init did not succeed"), "{said}");
        assert!(error("").contains("0 passed"));

        let failed = CONSOLE.replace("ok. 5 passed; 0 failed", "FAILED. 4 passed; 1 failed");
        assert!(error(&failed).contains("6 passed, 1 failed, 0 skipped"));
        let named = CONSOLE.replace("test a ... ok", "test a ... FAILED");
        assert!(tail(&named).ends_with("\ntest a ... FAILED"));
        let skipped = CONSOLE.replace("init: blocked", "skipped: no reason");
        assert!(error(&skipped).contains("6 passed, 0 failed, 1 skipped"));
        let none = "init: all programs succeeded\r\n";
        assert!(error(none).contains("0 passed"), "none ran");
    }

    #[test]
    fn only_the_end_is_shown() {
        let console: String = (0..200).map(|line| format!("line {line}\n")).collect();
        let shown = tail(&console);
        assert!(shown.ends_with("\n  line 199"), "{shown}");
        assert_eq!(shown.lines().count(), 1 + TAIL);
    }
}
