//! An HTTP server that answers as it is told, for what posts to one.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use crate::NetNs;

/// What a connection gets.
#[derive(Clone, Debug)]
pub enum Reply {
    /// This status, with this body.
    Status(u16, &'static str),
    /// This status, and a `Location` elsewhere.
    Redirect(u16, String),
    /// A reset, before the request was read.
    Reset,
    /// Nothing.
    Hang,
}

/// A request that was read.
#[derive(Clone, Debug)]
pub struct Posted {
    pub at: Instant,
    pub method: String,
    /// With its query.
    pub path: String,
    /// With their names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// The server. It ends with the test program.
#[derive(Debug)]
pub struct Hook {
    pub address: SocketAddr,
    posted: Arc<Mutex<Vec<Posted>>>,
    /// When connections came, those without a request too.
    came: Arc<Mutex<Vec<Instant>>>,
}

impl Hook {
    /// Starts one on loopback. The last of the replies is for all that come after it.
    pub fn start(replies: &[Reply]) -> Self {
        Self::serve(TcpListener::bind("127.0.0.1:0").unwrap(), replies)
    }

    /// Starts one on the loopback of a namespace.
    pub fn start_in(namespace: &NetNs, replies: &[Reply]) -> Self {
        let listener = namespace.enter(|| TcpListener::bind("127.0.0.1:0").unwrap());
        Self::serve(listener, replies)
    }

    fn serve(listener: TcpListener, replies: &[Reply]) -> Self {
        let hook = Self {
            address: listener.local_addr().unwrap(),
            posted: Arc::default(),
            came: Arc::default(),
        };
        let (posted, came) = (Arc::clone(&hook.posted), Arc::clone(&hook.came));
        let replies = replies.to_vec();
        thread::spawn(move || {
            for (count, stream) in listener.incoming().enumerate() {
                came.lock().unwrap().push(Instant::now());
                let reply = replies[count.min(replies.len() - 1)].clone();
                let posted = Arc::clone(&posted);
                thread::spawn(move || {
                    // Whoever posts may be gone.
                    let _ = answer(&stream.unwrap(), &reply, &posted);
                });
            }
        });
        hook
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Each request that was read, in the order of their arrival.
    pub fn posted(&self) -> Vec<Posted> {
        self.posted.lock().unwrap().clone()
    }

    /// When each connection came.
    pub fn came(&self) -> Vec<Instant> {
        self.came.lock().unwrap().clone()
    }
}

impl Posted {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(other, _)| other == name)?;
        Some(value)
    }

    /// The body, which must be JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn answer(mut stream: &TcpStream, reply: &Reply, posted: &Mutex<Vec<Posted>>) -> io::Result<()> {
    if let Reply::Reset = reply {
        // To close it with something unread resets it.
        stream.peek(&mut [0])?;
        return Ok(());
    }
    let request = read(stream)?;
    posted.lock().unwrap().push(request);
    let (status, more, body) = match reply {
        Reply::Status(status, body) => (status, String::new(), *body),
        Reply::Redirect(status, location) => (status, format!("Location: {location}\r\n"), ""),
        Reply::Reset => unreachable!(),
        Reply::Hang => {
            // Until the other side gives up.
            stream.read_to_end(&mut Vec::new())?;
            return Ok(());
        }
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{more}\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

fn read(stream: &TcpStream) -> io::Result<Posted> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Posted {
        at: Instant::now(),
        method,
        path,
        headers,
        body: String::from_utf8(body).unwrap(),
    })
}
