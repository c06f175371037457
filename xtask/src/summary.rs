//! Counting what many test programs report, while their output passes by unchanged.

use std::{
    fmt,
    io::{ErrorKind, Read, Write},
    ops::Add,
};

/// How many tests there were, by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    passed: u64,
    failed: u64,
    /// Tests that did not do their work: they were ignored, or said `skipped: REASON`.
    pub skipped: u64,
    /// The latter; the test harness takes them for passed.
    skipped_as_passed: u64,
}

impl Summary {
    /// Takes in a line of a test program's standard output.
    ///
    /// `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; …`
    pub fn result_line(&mut self, line: &str) {
        let Some(counts) = line
            .strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
            .map(|(_verdict, counts)| counts)
        else {
            return;
        };
        for count in counts.split("; ") {
            let Some((number, outcome)) = count.split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match outcome {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }

    /// Takes in a line of a test program's standard error.
    pub fn skip_line(&mut self, line: &str) {
        if line.starts_with("skipped: ") {
            self.skipped += 1;
            self.skipped_as_passed += 1;
        }
    }

    /// Whether there were tests, and each of them passed.
    pub fn is_complete(&self) -> bool {
        let Self {
            passed,
            failed,
            skipped,
            ..
        } = *self;
        passed > 0 && failed == 0 && skipped == 0
    }
}

impl Add for Summary {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
            skipped_as_passed: self.skipped_as_passed + other.skipped_as_passed,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let passed = self.passed.saturating_sub(self.skipped_as_passed);
        write!(
            f,
            "{passed} passed, {} failed, {} skipped",
            self.failed, self.skipped
        )
    }
}

/// Reads along with one stream.
pub struct Watch<'a> {
    summary: &'a mut Summary,
    take_in: fn(&mut Summary, &str),
    /// The line that has not ended yet.
    unfinished: Vec<u8>,
}

impl<'a> Watch<'a> {
    /// For standard output.
    pub fn results(summary: &'a mut Summary) -> Self {
        Self::new(summary, Summary::result_line)
    }

    /// For standard error.
    pub fn skips(summary: &'a mut Summary) -> Self {
        Self::new(summary, Summary::skip_line)
    }

    fn new(summary: &'a mut Summary, take_in: fn(&mut Summary, &str)) -> Self {
        Self {
            summary,
            take_in,
            unfinished: Vec::new(),
        }
    }

    /// Copies `from` to `to` as it comes, to its end. A reader that went away does not end
    /// the tests: they are counted on.
    pub fn copy(mut self, from: Option<impl Read>, mut to: impl Write) {
        let Some(mut from) = from else { return };
        let mut chunk = [0; 8192];
        loop {
            match from.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => {
                    let chunk = &chunk[..length];
                    let _ = to.write_all(chunk).and_then(|()| to.flush());
                    self.see(chunk);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.see(b"\n");
    }

    fn see(&mut self, chunk: &[u8]) {
        for part in chunk.split_inclusive(|&byte| byte == b'\n') {
            self.unfinished.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = String::from_utf8_lossy(&self.unfinished);
                (self.take_in)(self.summary, line.trim_end());
                self.unfinished.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STDOUT: &str = "\nrunning 3 tests\n\
        test a ... ok\n\
        test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.01s\n\
        \nrunning 2 tests\n\
        test result: FAILED. 40 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 12.30s\n\
        the test result: ok. 9 passed; 9 failed\n";
    const STDERR: &str = "   Compiling tests v0.1.0\n\
        skipped: not root\n\
        not skipped: at all\n\
        skipped: npm is missing";

    /// Hands out a few bytes at a time.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let length = 7.min(self.0.len()).min(into.len());
            into[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    #[test]
    fn both_streams_are_summed_up_and_copied_unchanged() {
        let (mut results, mut skips) = (Summary::default(), Summary::default());
        let (mut out, mut err) = (Vec::new(), Vec::new());
        Watch::results(&mut results).copy(Some(Trickle(STDOUT.as_bytes())), &mut out);
        Watch::skips(&mut skips).copy(Some(Trickle(STDERR.as_bytes())), &mut err);
        assert_eq!(out, STDOUT.as_bytes());
        assert_eq!(err, STDERR.as_bytes());
        assert_eq!(
            (results + skips).to_string(),
            "40 passed, 3 failed, 3 skipped"
        );
    }

    #[test]
    fn a_reader_that_went_away_does_not_stop_the_count() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut results = Summary::default();
        Watch::results(&mut results).copy(Some(STDOUT.as_bytes()), Closed);
        assert_eq!(results.to_string(), "42 passed, 3 failed, 1 skipped");
    }

    #[test]
    fn nothing_ran() {
        assert_eq!(
            Summary::default().to_string(),
            "0 passed, 0 failed, 0 skipped"
        );
    }
}
