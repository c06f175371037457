//! The log, on standard error, and what else is said while clients are served.
//!
//! Lines are written by a thread of their own. A terminal that is held with Ctrl-S, or a pipe
//! that nobody reads, blocks whoever writes to it; that must never be one who answers clients.
//! What such a reader leaves no room for is dropped, and counted.

use std::{
    io::{self, Write as _},
    iter::once,
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

/// After something was written, so long without looking: those who say more meanwhile need not wake
/// this thread, which would be the largest part of what a line costs them.
const PAUSE: Duration = Duration::from_millis(1);

/// So many bytes are written at once: what a pipe takes whole, so that the lines of others who write
/// to it come between ours and not into them (`PIPE_BUF`, pipe(7)).
const AT_ONCE: usize = 4_096;

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
    let mut live = String::new();
    // For standard error, not written yet.
    let mut text = Vec::new();
    while let Ok(first) = lines.recv() {
        if !live.is_empty() {
            text.extend(b"\r\x1b[K");
        }
        for line in once(first).chain(lines.try_iter()) {
            match line {
                Line::Text(line) => {
                    if text.len() + line.len() > AT_ONCE {
                        write(&mut text);
                    }
                    text.extend(line);
                }
                Line::Result(line) => {
                    write(&mut text);
                    // If nobody can be told, nobody needs to know.
                    let _ = io::stdout().write_all(&line);
                }
                Line::Live(line) => live = line,
                Line::Flush(done) => {
                    write(&mut text);
                    let _ = done.send(());
                }
            }
        }
        let dropped = DROPPED.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let line = format!("{dropped} lines of this log were dropped: it was not read\n");
            text.extend(line.into_bytes());
        }
        text.extend(live.as_bytes());
        write(&mut text);
        thread::sleep(PAUSE);
    }
}

/// Writes it to standard error, and empties it.
fn write(text: &mut Vec<u8>) {
    let _ = io::stderr().write_all(text);
    text.clear();
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
