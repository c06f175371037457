//! What a server says first. tonic tells only that the connection broke.

use std::{io, path::Path, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};

/// How a client begins ([RFC 9113, 3.4][1]): a text, then settings, here none.
///
/// [1]: https://www.rfc-editor.org/rfc/rfc9113.html#section-3.4
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Length, type, flags and stream of a frame.
const FRAME_HEAD: usize = 9;

/// The type of the frame that must be a server's first, and its stream.
const SETTINGS: (u8, [u8; 4]) = (4, [0; 4]);

/// The first words of a server that does not speak HTTP/2; `None` if it does, or says nothing
/// within that time.
pub async fn other_than_http2(socket: &Path, within: Duration) -> Option<Vec<u8>> {
    let words = timeout(within, first_words(socket)).await.ok()?.ok()?;
    (!words.is_empty() && !is_settings(&words)).then_some(words)
}

async fn first_words(socket: &Path) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).await?;
    // One who closed the connection may have said something before.
    let _ = stream.write_all(PREFACE).await;
    let mut words = Vec::new();
    while words.len() < FRAME_HEAD && matches!(stream.read_buf(&mut words).await, Ok(1..)) {}
    words.truncate(64);
    Ok(words)
}

fn is_settings(words: &[u8]) -> bool {
    match words {
        [_, _, _, kind, _, stream @ ..] => *kind == SETTINGS.0 && stream.starts_with(&SETTINGS.1),
        _ => false,
    }
}
