//! A terminal that is drawn upon, and then is as it was.

use std::{
    io::{self, Write as _},
    thread,
    time::Duration,
};

use crossterm::{
    QueueableCommand as _,
    cursor::{Hide, MoveTo, Show},
    event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
    execute,
    style::{Attribute, Print, SetAttribute},
    terminal::{
        BeginSynchronizedUpdate, Clear, ClearType, DisableLineWrap, EnableLineWrap,
        EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
        enable_raw_mode, size,
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

/// However much happens, it is drawn no more often than this.
const SOON: Duration = Duration::from_millis(50);

/// Countdowns tick.
const TICK: Duration = Duration::from_secs(1);

/// A line to be drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    pub text: String,
    /// Whether it stands out.
    pub strong: bool,
}

/// The terminal, while it is ours.
pub struct Terminal {
    drawn: Option<Instant>,
    /// Its size then.
    size: (u16, u16),
    due: Instant,
    keys: mpsc::Receiver<Key>,
}

enum Key {
    Quit,
    /// The terminal has another size.
    Resized,
}

impl Terminal {
    pub fn enter() -> io::Result<Self> {
        enable_raw_mode()?;
        // From here on to drop it restores everything.
        let terminal = Self {
            drawn: None,
            size: (0, 0),
            due: Instant::now(),
            keys: keys(),
        };
        execute!(io::stdout(), EnterAlternateScreen, Hide, DisableLineWrap)?;
        Ok(terminal)
    }

    /// Something has changed.
    pub fn outdated(&mut self) {
        let Self { drawn, due, .. } = self;
        let soon = drawn.map_or_else(Instant::now, |drawn| drawn + SOON);
        *due = (*due).min(soon);
    }

    /// Waits until it is to be drawn; `false` if instead somebody wants to see no more.
    pub async fn due(&mut self) -> bool {
        loop {
            let Self { due, keys, .. } = self;
            let key = tokio::select! {
                () = sleep_until(*due) => return true,
                Some(key) = keys.recv() => key,
            };
            match key {
                Key::Quit => return false,
                Key::Resized => self.outdated(),
            }
        }
    }

    /// Draws what is made for its width and height.
    pub fn draw(&mut self, lines: impl FnOnce(usize, usize) -> Vec<Line>) -> io::Result<()> {
        let (width, height) = size()?;
        let lines = lines(width.into(), height.into());
        let mut out = io::BufWriter::new(io::stdout().lock());
        // Written over what is there, so that nothing flickers.
        out.queue(BeginSynchronizedUpdate)?;
        if self.size != (width, height) {
            // Terminals differ in what they make of what was there.
            out.queue(MoveTo(0, 0))?;
            out.queue(Clear(ClearType::FromCursorDown))?;
            self.size = (width, height);
        }
        for (row, line) in (0..height).zip(&lines) {
            out.queue(MoveTo(0, row))?;
            if line.strong {
                out.queue(SetAttribute(Attribute::Reverse))?;
            }
            out.queue(Print(&line.text))?;
            out.queue(SetAttribute(Attribute::Reset))?;
            // After a full line the cursor is still on its last character.
            if line.text.chars().count() < width.into() {
                out.queue(Clear(ClearType::UntilNewLine))?;
            }
        }
        if lines.len() < height.into() {
            out.queue(MoveTo(0, lines.len() as u16))?;
            out.queue(Clear(ClearType::FromCursorDown))?;
        }
        out.queue(EndSynchronizedUpdate)?;
        out.flush()?;
        let now = Instant::now();
        self.drawn = Some(now);
        self.due = now + TICK;
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // There is nothing left to do about one that cannot be restored.
        let _ = execute!(io::stdout(), EnableLineWrap, Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

/// Reads keys on a thread, which ends with the process.
fn keys() -> mpsc::Receiver<Key> {
    let (sender, keys) = mpsc::channel(16);
    thread::spawn(move || {
        // Without a terminal to read from there are signals.
        while let Ok(event) = event::read() {
            let key = match event {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
                    match key.code {
                        KeyCode::Char('c') if ctrl => Key::Quit,
                        KeyCode::Char('q' | 'Q') => Key::Quit,
                        _ => continue,
                    }
                }
                Event::Resize(..) => Key::Resized,
                _ => continue,
            };
            if sender.blocking_send(key).is_err() {
                return;
            }
        }
    });
    keys
}
