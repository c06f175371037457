//! A relay that does nothing but copy: what is passed on by any program takes that long at least.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
};

/// What the first argument is then; the others are the addresses to listen on and to lead to.
pub const ARGUMENT: &str = "relay";

/// More than there are clients, so that none waits for another.
const THREADS: usize = 80;

pub fn main(listen: &str, to: &str) {
    let listener = TcpListener::bind(listen).expect("the address is free");
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let accepted = listener.accept();
                    // The client sees that, and counts it.
                    let _ = accepted.and_then(|(client, _)| copy(client, to));
                }
            });
        }
    });
}

/// One request, which comes in one piece, and its answer.
fn copy(mut client: TcpStream, to: &str) -> io::Result<()> {
    let mut buffer = [0; 16 * 1_024];
    let mut server = TcpStream::connect(to)?;
    let length = client.read(&mut buffer)?;
    server.write_all(&buffer[..length])?;
    loop {
        match server.read(&mut buffer)? {
            0 => return Ok(()),
            length => client.write_all(&buffer[..length])?,
        }
    }
}
