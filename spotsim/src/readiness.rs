//! Waiting in the runtime for a descriptor to become readable.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// `source`, to be awaited. Must be called in a tokio runtime.
pub fn readable<T: AsFd + AsRawFd>(source: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: a type that is `AsFd` owns or borrows its descriptor, so that it stays open and
    // the same as long as `source` is there, which `AsyncFd` holds.
    let registered = unsafe { AsyncFd::register_with_interest(source, Interest::READABLE) };
    Ok(registered?)
}
