//! What `watch` shows on a terminal, as lines for a width and a height.

use std::collections::VecDeque;

use jiff::Timestamp;

use super::{
    super::{
        list::serves,
        table::{announced, brief, countdown, plain, time},
    },
    by, milliseconds,
    terminal::Line,
};
use crate::{
    control::{Message, Serves, Status, TargetStatus},
    journal::{Caller, Connect, Request, Sent},
};

/// As many rows as the largest terminal shows.
const MOST_ROWS: usize = 1_000;

/// What is there to be seen.
pub struct Screen {
    status: Status,
    /// Oldest first.
    rows: VecDeque<Row>,
    lost: u64,
}

/// The cells of a row, in the order of [`HEADING`].
type Row = [String; 8];

const HEADING: [&str; 8] = [
    "TIME", "PID", "COMMAND", "WHERE", "WHAT", "STATUS", "BY", "LATENCY",
];

/// How wide the columns are. WHERE and WHAT share what the others leave.
const WIDTHS: [usize; 8] = [8, 7, 10, 0, 0, 6, 8, 8];
const WHERE: usize = 3;
const WHAT: usize = 4;
const BY: usize = 6;
const LATENCY: usize = 7;

/// From this width on there is room for a target's name, and below that none for who answered
/// and how fast.
const WIDE: usize = 110;
const NARROW: usize = 72;

impl Screen {
    pub fn new(status: Status) -> Self {
        Self {
            status,
            rows: VecDeque::new(),
            lost: 0,
        }
    }

    pub fn add(&mut self, message: Message) {
        let Self { status, rows, lost } = self;
        let row = match message {
            Message::Status(new) => {
                *status = *new;
                return;
            }
            Message::Lost { count } => {
                *lost += count;
                return;
            }
            // What is announced is seen above.
            Message::Announced { .. } | Message::End { .. } => return,
            Message::Counts(counts) => {
                status.counts = counts;
                return;
            }
            Message::Connect(connect) => of_connect(&connect),
            Message::Request(request) => of_request(&request),
        };
        if rows.len() == MOST_ROWS {
            rows.pop_front();
        }
        rows.push_back(row);
    }

    /// Lines of at most `width` characters, at most `height` of them.
    pub fn lines(&self, now: Timestamp, width: usize, height: usize) -> Vec<Line> {
        let Self { rows, .. } = self;
        let mut lines = self.head(now, height / 3);
        lines.push(Line::default());
        let widths = widths(width);
        lines.push(Line {
            text: cells(&HEADING.map(str::to_owned), widths),
            strong: true,
        });
        let room = height.saturating_sub(lines.len());
        let latest = rows.iter().skip(rows.len().saturating_sub(room));
        lines.extend(latest.map(|row| Line {
            text: cells(row, widths),
            strong: false,
        }));
        lines.truncate(height);
        for line in &mut lines {
            line.text = head_of(&line.text, width);
        }
        lines
    }

    /// What is above the rows, with at most so many items.
    fn head(&self, now: Timestamp, most: usize) -> Vec<Line> {
        let Self { status, lost, .. } = self;
        let mut lines = Vec::new();
        let mut say = |name: &str, text: String| {
            lines.push(Line {
                text: format!("{name:10} {}", plain(&text)),
                strong: false,
            });
        };
        let Status {
            id,
            verb,
            pid,
            upstream,
            counts,
            ..
        } = status;
        say(
            "spotsim",
            format!("{id}: {verb}, pid {pid}, upstream {upstream}"),
        );
        say("serves", serves(&status.serves));
        let mut requests = format!(
            "{}: {} faked, {} passed, {} unanswered; {} connects missed",
            counts.requests, counts.faked, counts.passed, counts.unanswered, counts.missed_connects
        );
        if *lost > 0 {
            requests += &format!("; {lost} not shown");
        }
        say("requests", requests);
        if status.own_clocks
            && let Serves::Targets(targets) = &status.serves
        {
            say("announced", announced(status, now));
            for target in targets.iter().take(most) {
                say("", format!("{}: {}", target.name, clock(target, now)));
            }
            if targets.len() > most {
                say("", format!("and {} more", targets.len() - most));
            }
            return lines;
        }
        let visible = status.visible(now);
        let mut name = "announced";
        for item in visible.iter().take(most) {
            say(name, format!("{}  {}", item.path, brief(&item.value)));
            name = "";
        }
        if visible.len() > most {
            say(name, format!("and {} more", visible.len() - most));
        } else if status.held {
            say(name, "nothing: held until `spotsim trigger`".to_owned());
        } else if visible.is_empty() {
            say(name, "nothing".to_owned());
        }
        if let Some(next) = status.to_come(now).next() {
            let what = match &next.value {
                Some(_) => &next.path,
                None => &format!("{} is taken back", next.path),
            };
            say("next", format!("{}: {what}", countdown(next.at, now)));
        }
        if let Some(deadline) = status.deadline {
            let left = countdown(deadline, now);
            say("deadline", format!("{left} ({})", time(deadline)));
        }
        lines
    }
}

/// The times of a target with a clock of its own.
fn clock(target: &TargetStatus, now: Timestamp) -> String {
    let TargetStatus {
        timeline,
        notice,
        deadline,
        ..
    } = target;
    let (Some(notice), Some(deadline)) = (notice, deadline) else {
        return timeline.clone();
    };
    let notice = countdown(*notice, now);
    format!("notice {notice}, deadline {}", countdown(*deadline, now))
}

fn of_connect(connect: &Connect) -> Row {
    let Connect {
        time,
        caller,
        verdict,
    } = connect;
    let what = match verdict {
        Sent::Redirected => "connect",
        Sent::Missed => "connect MISSED",
        Sent::Bound => "connect MISSED (bound to a device)",
    };
    row(
        *time,
        Some(caller),
        what.to_owned(),
        [""; 3].map(str::to_owned),
    )
}

fn of_request(request: &Request) -> Row {
    let Request {
        time,
        caller,
        method,
        path,
        status,
        latency_us,
        ..
    } = request;
    let status = status.map_or_else(|| "-".to_owned(), |status| status.to_string());
    let answer = [status, by(request.by).to_owned(), milliseconds(*latency_us)];
    row(*time, caller.as_ref(), format!("{method} {path}"), answer)
}

fn row(time: Timestamp, caller: Option<&Caller>, what: String, answer: [String; 3]) -> Row {
    let [status, by, latency] = answer;
    let time = time.strftime("%H:%M:%S").to_string();
    let (pid, command, place) = match caller {
        Some(caller) => (
            caller.pid.to_string(),
            plain(&caller.command),
            plain(caller.place()),
        ),
        None => ("-".to_owned(), "-".to_owned(), "-".to_owned()),
    };
    [time, pid, command, place, plain(&what), status, by, latency]
}

/// A column that is not worth its room has the width 0.
fn widths(width: usize) -> [usize; 8] {
    let mut widths = WIDTHS;
    if width < NARROW {
        widths[BY] = 0;
        widths[LATENCY] = 0;
    }
    let taken: usize = widths
        .iter()
        .filter(|width| **width > 0)
        .map(|width| width + 1)
        .sum();
    let rest = width.saturating_sub(taken);
    if width >= WIDE {
        widths[WHERE] = rest / 3;
        widths[WHAT] = rest - widths[WHERE] - 1;
    } else {
        widths[WHAT] = rest.max(12);
    }
    widths
}

/// Cells as wide as their columns.
fn cells(row: &Row, widths: [usize; 8]) -> String {
    let mut line = String::new();
    let columns = row.iter().zip(widths).enumerate();
    for (column, (cell, width)) in columns.filter(|(_, (_, width))| *width > 0) {
        let cell = match column {
            // Their ends differ, not their beginnings.
            WHERE => tail_of(cell, width),
            WHAT => what(cell, width),
            _ => head_of(cell, width),
        };
        line += &match HEADING[column] {
            "PID" | "LATENCY" => format!("{cell:>width$} "),
            _ => format!("{cell:width$} "),
        };
    }
    line.truncate(line.trim_end().len());
    line
}

/// A method in full, and the end of its path.
fn what(cell: &str, width: usize) -> String {
    match cell.split_once(' ') {
        Some((method, path)) if path.starts_with('/') => {
            let room = width.saturating_sub(method.len() + 1);
            head_of(&format!("{method} {}", tail_of(path, room)), width)
        }
        _ => head_of(cell, width),
    }
}

fn head_of(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let head = text.chars().take(width.saturating_sub(1));
    head.chain(['…']).take(width).collect()
}

fn tail_of(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let tail = text.chars().skip(length + 1 - width.max(1));
    ['…'].into_iter().chain(tail).take(width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Counts;

    fn target(cgroup: &str) -> serde_json::Value {
        serde_json::json!({
            "name": format!("cgroup {cgroup}"), "kind": "cgroup", "cgroup": cgroup,
            "timeline": "", "notice": null, "deadline": null, "next": null,
        })
    }

    fn status() -> Status {
        let status = serde_json::json!({
            "id": "drain", "verb": "attach", "pid": 4711, "version": "0.1.0",
            "started": "2026-01-01T00:00:00Z", "targets": [target("/a"), target("/b")], "own_clocks": false,
            "upstream": "real", "held": false, "timeline": "",
            "announced": [],
            "steps": [
                {"at": "2026-01-01T00:00:05Z", "path": "instance-life-cycle", "value": "spot"},
                {"at": "2026-01-01T00:00:10Z", "path": "spot/instance-action", "value": "{}"},
                {"at": "2026-01-01T00:02:10Z", "path": "spot/instance-action", "value": null},
            ],
            "next": null, "deadline": "2026-01-01T00:02:10Z",
            "counts": {
                "requests": 0, "faked": 0, "passed": 0, "unanswered": 0, "missed_connects": 0
            },
        });
        serde_json::from_value(status).unwrap()
    }

    fn request(command: &str, path: &str) -> Message {
        let request = serde_json::json!({
            "type": "request", "time": "2026-01-01T00:00:07.5Z",
            "caller": {
                "pid": 123, "command": command, "uid": 0, "cgroup": "/kubepods/pod1/container",
                "netns": 1, "family": "ipv4", "socket": 2,
            },
            "method": "GET", "path": path, "status": 200, "by": "spotsim", "latency_us": 1_540,
        });
        serde_json::from_value(request).unwrap()
    }

    fn shown(screen: &Screen, now: &str, width: usize, height: usize) -> Vec<String> {
        let lines = screen.lines(now.parse().unwrap(), width, height);
        lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn it_shows_what_is_announced_and_who_asks() {
        let mut screen = Screen::new(status());
        screen.add(request("curl", "/latest/meta-data/spot/instance-action"));
        screen.add(Message::Counts(Counts {
            requests: 1,
            faked: 1,
            ..Counts::default()
        }));
        let expected = "\
spotsim    drain: attach, pid 4711, upstream real
serves     /a,/b
requests   1: 1 faked, 0 passed, 0 unanswered; 0 connects missed
announced  instance-life-cycle  spot
next       in 3s: spot/instance-action
deadline   in 2m 3s (2026-01-01T00:02:10Z)

TIME         PID COMMAND    WHAT                        STATUS BY        LATENCY
00:00:07     123 curl       GET …a/spot/instance-action 200    spotsim    1.5 ms";
        let lines = shown(&screen, "2026-01-01T00:00:07.2Z", 80, 24);
        assert_eq!(lines.join("\n"), expected);
        let wide = shown(&screen, "2026-01-01T00:00:07.2Z", 120, 24);
        let cells: Vec<_> = wide[8].split_whitespace().collect();
        assert_eq!(cells.len(), 10, "{wide:?}");
        assert!(cells[3].ends_with("/pod1/container"), "{wide:?}");
        let lines = shown(&screen, "2026-01-01T00:02:11Z", 80, 24);
        assert_eq!(lines[3], "announced  instance-life-cycle  spot");
        assert_eq!(lines[4], "deadline   1s ago (2026-01-01T00:02:10Z)");
    }

    #[test]
    fn each_target_has_its_clock() {
        let mut status = status();
        status.own_clocks = true;
        let time = |text: &str| Some(text.parse().unwrap());
        let Serves::Targets(targets) = &mut status.serves else {
            panic!("it has targets");
        };
        targets[0].notice = time("2026-01-01T00:00:10Z");
        targets[0].deadline = time("2026-01-01T00:02:10Z");
        targets[1].timeline = "nothing announced".to_owned();
        let mut screen = Screen::new(status.clone());
        let lines = shown(&screen, "2026-01-01T00:00:07Z", 80, 24);
        let expected = [
            "announced  to each its own; first deadline in 2m 3s",
            "           cgroup /a: notice in 3s, deadline in 2m 3s",
            "           cgroup /b: nothing announced",
        ];
        assert_eq!(lines[3..6], expected);

        let cgroups = (0..100).map(|n| format!("/{n}"));
        let targets = cgroups.map(|path| serde_json::from_value(target(&path)).unwrap());
        status.serves = Serves::Targets(targets.collect());
        screen.add(Message::Status(Box::new(status)));
        let lines = shown(&screen, "2026-01-01T00:00:07Z", 80, 24);
        assert_eq!(lines[12], "           and 92 more");
        assert!(lines[14].starts_with("TIME "), "{lines:?}");
    }

    #[test]
    fn it_fits_every_terminal() {
        let mut screen = Screen::new(status());
        for n in 0..2_000 {
            screen.add(request(
                "a\u{1b}[2J-long-name",
                &format!("/latest/{}/{n}", "x".repeat(100)),
            ));
        }
        for width in (0..30).chain([79, 80, 120, 400]) {
            for height in (0..30).chain([100]) {
                let lines = shown(&screen, "2026-01-01T00:00:20Z", width, height);
                assert!(lines.len() <= height);
                for line in &lines {
                    assert!(line.chars().count() <= width, "{line:?}");
                    assert!(!line.contains(char::is_control), "{line:?}");
                }
                if height > 12 {
                    assert_eq!(lines.len(), height, "rows fill it");
                }
            }
        }
        let last = shown(&screen, "2026-01-01T00:00:20Z", 400, 20)
            .pop()
            .unwrap();
        assert!(last.contains("x/1999 "), "{last}");
    }
}
