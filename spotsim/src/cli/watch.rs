//! `spotsim watch`: connects and requests as they happen.

use std::{
    io::{self, IsTerminal as _, Write as _},
    os::fd::AsFd as _,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use jiff::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::time::sleep;

use self::{screen::Screen, terminal::Terminal};
use super::{
    Exit,
    list::serves,
    options::Which,
    print, runtime,
    stop::Stop,
    table::{brief, plain},
};
use crate::{
    control::{Client, Message, Reason, Watching},
    journal::{By, Caller, Sent},
};

mod screen;
mod terminal;

/// So often is it looked whether anybody reads.
const LOOK_FOR_READER: Duration = Duration::from_millis(250);

#[derive(Args)]
pub struct Watch {
    /// One JSON object a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    which: Which,
}

/// Why it is no longer watched.
enum Over {
    /// It has ended.
    Ended(Reason),
    /// Whoever watches has seen enough.
    Enough,
}

impl Watch {
    pub fn run(self) -> Result<Exit> {
        let Self { json, which } = self;
        let client = which.find()?;
        runtime()?.block_on(async {
            let over = if json {
                copy(client.watch().await?).await?
            } else if io::stdout().is_terminal() {
                draw(&client).await?
            } else {
                write(client.watch().await?).await?
            };
            if let Over::Ended(reason) = over {
                let id = plain(client.id().as_str());
                let _ = writeln!(io::stderr(), "{id} has ended: {reason}");
            }
            Ok(Exit::Done)
        })
    }
}

/// The next message, and its line.
async fn next(watching: &mut Watching) -> Result<(Message, Vec<u8>)> {
    let Some(line) = watching.line().await? else {
        bail!("{}: the connection to it broke", watching.id());
    };
    let message = serde_json::from_slice(&line);
    let message = message.with_context(|| format!("{}: not a message", watching.id()))?;
    Ok((message, line))
}

/// The next message, unless nobody reads any more what becomes of it.
async fn next_for_reader(watching: &mut Watching) -> Result<Option<(Message, Vec<u8>)>> {
    tokio::select! {
        next = next(watching) => next.map(Some),
        () = reader_gone() => Ok(None),
    }
}

/// Waits until whoever reads standard output is gone. Else that would be noticed at the next
/// line only, which may never come.
async fn reader_gone() {
    loop {
        sleep(LOOK_FOR_READER).await;
        let stdout = io::stdout();
        // Errors are told without being asked for, and the end of a pipe's reader is one.
        let mut polled = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
        let told = poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
        if told {
            return;
        }
    }
}

/// Prints each line as it is.
async fn copy(mut watching: Watching) -> Result<Over> {
    loop {
        let Some((message, line)) = next_for_reader(&mut watching).await? else {
            return Ok(Over::Enough);
        };
        if !print(line)? {
            return Ok(Over::Enough);
        }
        if let Message::End { reason } = message {
            return Ok(Over::Ended(reason));
        }
    }
}

/// Prints a line of text for each.
async fn write(mut watching: Watching) -> Result<Over> {
    loop {
        let Some((message, _)) = next_for_reader(&mut watching).await? else {
            return Ok(Over::Enough);
        };
        if let Message::End { reason } = message {
            return Ok(Over::Ended(reason));
        }
        let Some(text) = text(&message) else { continue };
        if !print(text + "\n")? {
            return Ok(Over::Enough);
        }
    }
}

/// `None` of what the other lines say already.
fn text(message: &Message) -> Option<String> {
    Some(match message {
        Message::Status(status) => plain(&format!(
            "{} {} {}: {}; upstream {}; {}",
            stamp(Timestamp::now()),
            status.verb,
            status.id,
            serves(&status.serves),
            status.upstream,
            status.timeline
        )),
        Message::Connect(connect) => plain(&format!(
            "{} {}: {}",
            stamp(connect.time),
            who(Some(&connect.caller)),
            sent(connect.verdict)
        )),
        Message::Request(request) => {
            let status = request.status.map(|status| format!("{status} by "));
            plain(&format!(
                "{} {}: {} {}: {}{} ({})",
                stamp(request.time),
                who(request.caller.as_ref()),
                request.method,
                request.path,
                status.unwrap_or_else(|| "answered by ".to_owned()),
                by(request.by),
                milliseconds(request.latency_us)
            ))
        }
        Message::Announced { target, change } => {
            let value = match &change.value {
                Some(value) => format!("is {}", brief(value)),
                None => "is taken back".to_owned(),
            };
            let target = target.as_ref().map(|target| format!("{target}: "));
            plain(&format!(
                "{} {}{} {value}",
                stamp(change.at),
                target.unwrap_or_default(),
                change.path
            ))
        }
        Message::Counts(_) => return None,
        Message::Lost { count } => format!("{count} lines were lost: they were not read in time"),
        Message::End { reason } => format!("ended: {reason}"),
    })
}

fn stamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

fn who(caller: Option<&Caller>) -> String {
    match caller {
        Some(caller) => {
            let Caller {
                pid, command, uid, ..
            } = caller;
            format!("{command}[{pid}] of user {uid} in {}", caller.place())
        }
        None => "somebody".to_owned(),
    }
}

fn sent(verdict: Sent) -> &'static str {
    match verdict {
        Sent::Redirected => "connect",
        Sent::Missed => "connect, missed: its network namespace had no listener",
        Sent::Bound => "connect, missed: its socket is bound to a device",
    }
}

fn by(by: By) -> &'static str {
    match by {
        By::Spotsim => "spotsim",
        By::Upstream => "upstream",
        By::Nobody => "nobody",
    }
}

fn milliseconds(microseconds: u64) -> String {
    match microseconds {
        ..1_000 => format!("{:.2} ms", microseconds as f64 / 1e3),
        1_000..100_000 => format!("{:.1} ms", microseconds as f64 / 1e3),
        100_000.. => format!("{:.1} s", microseconds as f64 / 1e6),
    }
}

/// Shows it on the terminal, which is as it was afterwards.
async fn draw(client: &Client) -> Result<Over> {
    let mut stop = Stop::new()?;
    let mut watching = client.watch().await?;
    let (first, _) = next(&mut watching).await?;
    let Message::Status(status) = first else {
        bail!("{}: its first line is not its status", client.id());
    };
    let mut screen = Screen::new(*status);
    let mut terminal = Terminal::enter().context("cannot take the terminal over")?;
    loop {
        tokio::select! {
            message = next(&mut watching) => match message?.0 {
                Message::End { reason } => return Ok(Over::Ended(reason)),
                message => {
                    screen.add(message);
                    terminal.outdated();
                }
            },
            due = terminal.due() => {
                if !due {
                    return Ok(Over::Enough);
                }
                let now = Timestamp::now();
                terminal.draw(|width, height| screen.lines(now, width, height))?;
            }
            () = stop.asked() => return Ok(Over::Enough),
        }
    }
}
