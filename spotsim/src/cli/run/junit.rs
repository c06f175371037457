//! The verdict of a run for a CI server, as JUnit's reports have it ([the usual schema][1]).
//!
//! [1]: https://github.com/testmoapp/junitxml

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs::File,
    io::{Seek as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;

use super::course::{Course, Verdict};

/// A report with one test case.
#[derive(Debug)]
pub struct Junit {
    path: PathBuf,
    file: File,
    name: String,
}

impl Junit {
    /// Begins a report on a command. Until it is written it says that there was no end: what an
    /// earlier run left must not be taken for this one's.
    pub fn create(path: &Path, command: &[OsString]) -> Result<Self> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
        let mut junit = Self {
            path: path.to_owned(),
            file,
            name: words.join(" "),
        };
        let unfinished = Verdict::Error("spotsim was killed before the end".to_owned());
        junit.write(&Course::default(), &unfinished)?;
        Ok(junit)
    }

    /// Writes what became of it.
    pub fn write(&mut self, course: &Course, verdict: &Verdict) -> Result<()> {
        let Self { path, file, name } = self;
        let report = report(name, course, verdict, Timestamp::now());
        file.rewind()
            .and_then(|()| file.set_len(0))
            .and_then(|()| file.write_all(report.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

fn report(name: &str, course: &Course, verdict: &Verdict, now: Timestamp) -> String {
    let (failures, errors, element) = match verdict {
        Verdict::Passed => (0, 0, None),
        Verdict::Failed(why) => (1, 0, Some(("failure", why))),
        Verdict::Error(why) => (0, 1, Some(("error", why))),
    };
    let started = course.started.map_or(now, |(at, _)| at);
    // Without a zone, as the schema has it: UTC.
    let timestamp = started.strftime("%Y-%m-%dT%H:%M:%S");
    let time = format!("{:.3}", course.took().as_secs_f64());
    let counts =
        format!(r#"tests="1" failures="{failures}" errors="{errors}" skipped="0" time="{time}""#);
    let mut report = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuites {counts}>\n  \
         <testsuite name=\"spotsim run\" {counts} timestamp=\"{timestamp}\">\n"
    );
    let times = [("notice", course.notice), ("deadline", course.deadline)];
    let times = times.into_iter().filter_map(|(name, at)| Some((name, at?)));
    let times: String = times
        .map(|(name, at)| format!("      <property name=\"{name}\" value=\"{at}\"/>\n"))
        .collect();
    if !times.is_empty() {
        let _ = write!(report, "    <properties>\n{times}    </properties>\n");
    }
    let _ = write!(
        report,
        "    <testcase classname=\"spotsim.run\" name=\"{}\" time=\"{time}\"",
        escaped(name)
    );
    let _ = match element {
        None => writeln!(report, "/>"),
        Some((element, why)) => {
            let why = escaped(why);
            writeln!(
                report,
                ">\n      <{element} message=\"{why}\" type=\"{element}\">{why}</{element}>\n    \
                 </testcase>"
            )
        }
    };
    report + "  </testsuite>\n</testsuites>\n"
}

/// As it can stand in an attribute or between tags. What no XML document may contain ([2.2][1]),
/// not even as a reference, is shown as Rust would write it.
///
/// [1]: https://www.w3.org/TR/xml/#charsets
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            // As they are, they would become spaces in an attribute.
            '\t' | '\n' | '\r' => {
                let _ = write!(escaped, "&#{};", u32::from(letter));
            }
            '\u{fffe}' | '\u{ffff}' => escaped.extend(letter.escape_unicode()),
            letter if letter.is_control() => escaped.extend(letter.escape_default()),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_cannot_hold_is_escaped() {
        let text = "a<b>&\"c\"\t\n\u{1}\u{1b}[0m\u{ffff}é\u{1f600}";
        let expected = "a&lt;b&gt;&amp;&quot;c&quot;&#9;&#10;\\u{1}\\u{1b}[0m\\u{ffff}é\u{1f600}";
        assert_eq!(escaped(text), expected);
    }

    #[test]
    fn a_report_on_what_failed() {
        let course = Course {
            notice: Some("2026-12-01T10:00:00Z".parse().unwrap()),
            ..Course::default()
        };
        let now = "2026-12-01T09:59:59.5Z".parse().unwrap();
        let verdict = Verdict::Failed("it & all".to_owned());
        let expected = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="1" failures="1" errors="0" skipped="0" time="0.000">
  <testsuite name="spotsim run" tests="1" failures="1" errors="0" skipped="0" time="0.000" timestamp="2026-12-01T09:59:59">
    <properties>
      <property name="notice" value="2026-12-01T10:00:00Z"/>
    </properties>
    <testcase classname="spotsim.run" name="sh -c &lt;x&gt;" time="0.000">
      <failure message="it &amp; all" type="failure">it &amp; all</failure>
    </testcase>
  </testsuite>
</testsuites>
"#;
        assert_eq!(report("sh -c <x>", &course, &verdict, now), expected);
    }
}
