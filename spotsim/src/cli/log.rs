//! The log, on standard error, and what else is said while clients are served.
//!
//! Lines are written by a thread of their own. A terminal that is held with Ctrl-S, or a pipe
//! that nobody reads, blocks whoever writes to it; that must never be one who answers clients.
//! What such a reader leaves no room for is dropped, and counted.

use std::{
    io::{self, Write as _},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use env_logger::Target;
use log::LevelFilter;

/// Lines that may wait for a slow reader.
const WAITING: usize = 4_096;

/// At the end, so long for what still waits.
const LAST_WORDS: Duration = Duration::from_secs(1);

static LINES: OnceLock<SyncSender<Line>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

enum Line {
    Text(Vec<u8>),
    /// For standard output.
    Result(Vec<u8>),
    /// The last line of the terminal from now on, below whatever is written. None if empty.
    Live(String),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

/// Starts to log what is of `level` or graver, or what `RUST_LOG` names.
pub fn start(level: LevelFilter) -> io::Result<()> {
    let (lines, waiting) = sync_channel(WAITING);
    thread::Builder::new()
        .name("log".into())
        .spawn(move || write_out(&waiting))?;
    env_logger::Builder::new()
        .filter_module("spotsim", level)
        .parse_default_env()
        .format_target(false)
        .target(Target::Pipe(Box::new(Queue(lines.clone()))))
        .init();
    // Started once in a process.
    let _ = LINES.set(lines);
    Ok(())
}

/// Prints a line to standard output in the same way.
pub fn print(line: String) {
    send(Line::Result(format!("{line}\n").into()));
}

/// Prints a line to standard error in the same way, whatever the level.
pub fn say(line: String) {
    send(Line::Text(format!("{line}\n").into()));
}

/// Keeps a line below the log, if that goes to a terminal, until another one comes. It must fit in
/// the terminal's width.
pub fn keep(line: String) {
    send(Line::Live(line));
}

fn send(line: Line) {
    if LINES
        .get()
        .is_none_or(|lines| lines.try_send(line).is_err())
    {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits until what was logged so far is written, but not for ever.
pub fn finish() {
    if let Some(lines) = LINES.get() {
        let (done, written) = sync_channel(1);
        if lines.try_send(Line::Flush(done)).is_ok() {
            let _ = written.recv_timeout(LAST_WORDS);
        }
    }
}

fn write_out(lines: &Receiver<Line>) {
    let mut stderr = io::stderr();
    let mut live = String::new();
    for line in lines {
        if !live.is_empty() {
            let _ = write!(stderr, "\r\x1b[K");
        }
        // If nobody can be told, nobody needs to know.
        let _ = match line {
            Line::Text(text) => stderr.write_all(&text),
            Line::Result(text) => io::stdout().write_all(&text),
            Line::Live(line) => {
                live = line;
                Ok(())
            }
            Line::Flush(done) => done.send(()).map_err(io::Error::other),
        };
        let dropped = DROPPED.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let _ = writeln!(
                stderr,
                "{dropped} lines of this log were dropped: it was not read"
            );
        }
        let _ = write!(stderr, "{live}");
    }
}

/// Where env_logger writes to, one line at a time.
struct Queue(SyncSender<Line>);

impl io::Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Self(lines) = self;
        if lines.try_send(Line::Text(line.to_vec())).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
