//! What goes wrong with a runtime, in words that somebody can act on.

use std::{
    error::Error,
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tonic::{Code, Status};

use crate::document::{printable, shown};

/// Of what a runtime says, so many letters are told.
const LONGEST: usize = 300;

/// Why a runtime did not answer what it was asked.
#[derive(Debug)]
pub enum RuntimeError {
    /// The endpoint that was given cannot be one.
    Endpoint { given: String, why: &'static str },
    /// None was given, and none of the known sockets leads to a runtime: what is with each.
    NoneFound(Vec<Self>),
    /// There is no such socket.
    Absent { socket: PathBuf },
    /// Nobody answers there, or not in time. A runtime that is started again will.
    Unavailable { socket: PathBuf, why: String },
    /// The socket is another user's.
    Denied { socket: PathBuf },
    /// Whoever answers there does not speak CRI v1.
    NotCri { socket: PathBuf, why: String },
    /// It tells nothing of one sandbox or container in time: what it asks about that one hangs.
    Silent {
        socket: PathBuf,
        /// See [`RuntimeError::Failed`].
        call: &'static str,
        within: Duration,
    },
    /// The runtime says that it cannot.
    Failed {
        socket: PathBuf,
        /// CRI's name of what it was asked for.
        call: &'static str,
        why: String,
    },
}

/// Why a call has no answer.
pub enum Unanswered {
    /// There was none within that time.
    Late(Duration),
    /// The runtime's own words, or those of the transport.
    Status(Status),
}

impl RuntimeError {
    /// That of a call to one who has answered before: a transport that fails is down.
    pub(super) fn of(socket: &Path, path: &'static str, unanswered: Unanswered) -> Self {
        let why = match unanswered {
            Unanswered::Late(within) => format!("no answer within {within:?}"),
            Unanswered::Status(status) if is_ours(&status) => {
                return Self::of_transport(socket, &status);
            }
            Unanswered::Status(status) if status.code() == Code::Unavailable => said(&status),
            Unanswered::Status(status) => {
                return Self::Failed {
                    socket: socket.to_owned(),
                    call: name(path),
                    why: said(&status),
                };
            }
        };
        Self::unavailable(socket, why)
    }

    /// That of a question about one sandbox or container.
    pub(super) fn of_one(socket: &Path, path: &'static str, unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Late(within) => Self::Silent {
                socket: socket.to_owned(),
                call: name(path),
                within,
            },
            unanswered => Self::of(socket, path, unanswered),
        }
    }

    /// That of the first call: whoever is there may be no runtime. `words` are the first of a
    /// server that does not speak HTTP/2.
    pub(super) fn of_first(
        socket: &Path,
        path: &'static str,
        unanswered: Unanswered,
        words: Option<Vec<u8>>,
    ) -> Self {
        let not_cri = |why| Self::NotCri {
            socket: socket.to_owned(),
            why,
        };
        if let Some(words) = words {
            let words = brief(&String::from_utf8_lossy(&words));
            return not_cri(format!(
                "it does not speak gRPC, its first words are \"{words}\""
            ));
        }
        match unanswered {
            // tonic's words for an answer that is no gRPC as well as a server's for a service
            // that it does not have.
            Unanswered::Status(status)
                if matches!(status.code(), Code::Unimplemented | Code::Internal) =>
            {
                not_cri(said(&status))
            }
            unanswered => Self::of(socket, path, unanswered),
        }
    }

    fn of_transport(socket: &Path, status: &Status) -> Self {
        let why = match io_error(status).map(io::Error::kind) {
            Some(io::ErrorKind::PermissionDenied) => {
                return Self::Denied {
                    socket: socket.to_owned(),
                };
            }
            Some(io::ErrorKind::NotFound) => {
                return Self::Absent {
                    socket: socket.to_owned(),
                };
            }
            Some(io::ErrorKind::ConnectionRefused) => "nobody listens there".to_owned(),
            // What connect says when as many wait as may.
            Some(io::ErrorKind::WouldBlock) => "it accepts no connections".to_owned(),
            _ => format!("the connection to it broke ({})", cause(status)),
        };
        Self::unavailable(socket, why)
    }

    /// Where that is, and what is wrong there.
    fn in_a_list(&self) -> String {
        match self {
            Self::Absent { socket } => format!("{} (there is no such socket)", shown(socket)),
            Self::Unavailable { socket, why }
            | Self::NotCri { socket, why }
            | Self::Failed { socket, why, .. } => format!("{} ({why})", shown(socket)),
            Self::Denied { socket } => format!("{} (permission denied)", shown(socket)),
            Self::Endpoint { .. } | Self::NoneFound(_) | Self::Silent { .. } => self.to_string(),
        }
    }

    fn unavailable(socket: &Path, why: String) -> Self {
        Self::Unavailable {
            socket: socket.to_owned(),
            why,
        }
    }
}

/// CRI's name of what is asked for there.
fn name(path: &'static str) -> &'static str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether a status was made here, since the transport failed. What comes from a server has no
/// source.
fn is_ours(status: &Status) -> bool {
    status.source().is_some()
}

fn io_error(status: &Status) -> Option<&io::Error> {
    sources(status).find_map(|source| source.downcast_ref())
}

/// The innermost error: those around it say "transport error".
fn cause(status: &Status) -> String {
    let innermost = sources(status).last();
    brief(&innermost.map_or_else(|| status.message().to_owned(), |cause| cause.to_string()))
}

fn sources(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(status.source(), |&error| error.source())
}

/// What a server says, or at least how gRPC calls it.
fn said(status: &Status) -> String {
    match status.message() {
        "" => brief(status.code().description()),
        message => brief(message),
    }
}

/// Somebody else's words in one line that is not too long.
pub fn brief(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => printable(&text[..end]) + "…",
        None => printable(text),
    }
}

impl fmt::Display for RuntimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint { given, why } => {
                write!(f, "cannot use the runtime endpoint {}: {why}", brief(given))
            }
            Self::NoneFound(tried) => {
                let tried: Vec<_> = tried.iter().map(Self::in_a_list).collect();
                let tried = tried.join(", ");
                write!(
                    f,
                    "no container runtime found: tried {tried}; name its socket with --runtime-endpoint"
                )
            }
            Self::Absent { socket } => write!(
                f,
                "no container runtime answers at {}: there is no such socket",
                shown(socket)
            ),
            Self::Unavailable { socket, why } => {
                write!(
                    f,
                    "no container runtime answers at {}: {why}",
                    shown(socket)
                )
            }
            Self::Denied { socket } => write!(
                f,
                "may not connect to {}: permission denied, it takes root",
                shown(socket)
            ),
            Self::NotCri { socket, why } => {
                write!(f, "no CRI v1 is spoken at {}: {why}", shown(socket))
            }
            Self::Silent {
                socket,
                call,
                within,
            } => write!(
                f,
                "the container runtime at {} gave no answer to {call} within {within:?}",
                shown(socket)
            ),
            Self::Failed { socket, call, why } => write!(
                f,
                "the container runtime at {} failed in {call}: {why}",
                shown(socket)
            ),
        }
    }
}

impl Error for RuntimeError {}
