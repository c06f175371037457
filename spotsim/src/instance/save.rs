//! Writes what a real IMDS says of its instance to a file that describes one.

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::{
    crawl::{Crawled, PASSING, SECRET, WITHIN, crawl},
    seconds,
};
use crate::document::{self, Format};

/// What is said of scheduled events in place of those that passed: that there is none. A path
/// that is missing would be an error for aws-node-termination-handler.
const NO_EVENTS: [&str; 2] = [
    "meta-data/events/maintenance/history",
    "meta-data/events/maintenance/scheduled",
];

/// What was saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// How many documents.
    pub documents: usize,
    /// Documents that could not be kept, with the reason: `PATH: it is not text`.
    pub left_out: Vec<String>,
}

/// Asks the IMDS at `imds` for everything but secrets and passing state, and writes a file that
/// [`Instance::read`](super::Instance::read) takes: TOML or YAML, by its extension. `now` is for
/// its heading.
///
/// The file is for its owner alone (0600), appears only when it is complete, and never replaces
/// another. It is an error if the IMDS takes more than two minutes.
pub async fn save(imds: SocketAddr, path: &Path, now: Timestamp) -> Result<Saved> {
    save_within(WITHIN, imds, path, now).await
}

async fn save_within(
    within: Duration,
    imds: SocketAddr,
    path: &Path,
    now: Timestamp,
) -> Result<Saved> {
    let format = Format::of(path)?;
    let file = document::shown(path);
    ensure!(
        format != Format::Json,
        "cannot save an instance as {file}: JSON has no comments; use .yaml or .toml"
    );
    // Before a real IMDS is asked a few hundred times for nothing. What is made here is taken
    // away at once: whoever interrupts the crawl is left with nothing.
    let is_there = is_there(path).with_context(|| format!("cannot write {file}"))?;
    ensure!(!is_there, "{file} exists; it is not replaced");
    Unfinished::beside(path).with_context(|| format!("cannot write {file}"))?;
    let crawled = crawl(imds, within)
        .await
        .with_context(|| format!("cannot save the instance of {imds}"))?;
    let text = text(&crawled, imds, format, now);
    ensure!(
        text.len() <= document::LONGEST,
        "cannot write {file}: it would be longer than {} KiB, and could not be read",
        document::LONGEST / 1024
    );
    write(path, &text).with_context(|| format!("cannot write {file}"))?;
    Ok(Saved {
        documents: crawled.documents.len(),
        left_out: crawled.odd.iter().map(left_out).collect(),
    })
}

fn left_out((path, why): &(String, String)) -> String {
    format!("{}: {why}", path.escape_default())
}

/// Whether there is anything of this name, be it a link that leads nowhere.
fn is_there(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The text of the file.
fn text(crawled: &Crawled, imds: SocketAddr, format: Format, now: Timestamp) -> String {
    let Crawled {
        documents,
        role,
        odd,
    } = crawled;
    let mut text = heading(imds, odd, now);
    let (is, indent) = match format {
        Format::Toml => (" =", ""),
        _ => (":", "  "),
    };
    let _ = writeln!(text, "base{is} \"none\"");
    if let Some(role) = role {
        let _ = writeln!(text, "role{is} {}", quoted(role));
    }
    let no_events = NO_EVENTS.map(|path| (path, "[]"));
    let all = documents
        .iter()
        .map(|(path, value)| (path.as_str(), value.as_str()))
        .chain(no_events);
    for root in ["meta-data", "dynamic"] {
        let mut entries: Vec<_> = all
            .clone()
            .filter_map(|(path, value)| Some((path.strip_prefix(root)?.strip_prefix('/')?, value)))
            .collect();
        if entries.is_empty() {
            continue;
        }
        entries.sort_unstable();
        let _ = match format {
            Format::Toml => writeln!(text, "\n[{root}]"),
            _ => writeln!(text, "{root}:"),
        };
        for (path, value) in entries {
            let _ = writeln!(text, "{indent}{}{is} {}", quoted(path), quoted(value));
        }
    }
    text
}

/// The comment at the top.
fn heading(imds: SocketAddr, odd: &[(String, String)], now: Timestamp) -> String {
    let mut text = format!(
        "# What the IMDS at {imds} said of its instance at {}, saved by spotsim.\n\
         # Use it with --instance.\n\
         # Left out, since it is secret or proves who asks: user-data, {}.\n\
         # (The credentials of the role are made up when they are asked for.)\n\
         # Left out, since it passes: {}.\n",
        seconds(now),
        SECRET.join(", "),
        PASSING.join(", "),
    );
    for odd in odd {
        let _ = writeln!(text, "# Left out: {}.", left_out(odd));
    }
    text
}

/// A string in double quotes that means the same in YAML and in TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            // What neither has to take as it is, or might take for the end of a line.
            '\0'..='\x1f'
            | '\x7f'..='\u{9f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(letter));
            }
            _ => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// Writes a file beside the place where it is to be, and moves it there.
fn write(path: &Path, text: &str) -> Result<()> {
    let (unfinished, mut file) = Unfinished::beside(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let Unfinished(beside) = &unfinished;
    renameat2(
        AT_FDCWD,
        beside,
        AT_FDCWD,
        path,
        RenameFlags::RENAME_NOREPLACE,
    )
    .map_err(io::Error::from)?;
    Ok(())
}

/// A file that is removed unless it was moved away.
struct Unfinished(PathBuf);

impl Unfinished {
    fn beside(path: &Path) -> Result<(Self, File)> {
        let Some(name) = path.file_name() else {
            bail!("it is not a file");
        };
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}", std::process::id()));
        let beside = path.with_file_name(hidden);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        Ok((Self(beside), file))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Self(path) = self;
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        os::unix::fs::PermissionsExt as _,
        sync::{Arc, Mutex},
        time::{Duration, Instant},
    };

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::instance::{Found, Instance};

    /// A small IMDS: paths under `/latest/` with their bodies.
    struct Imds {
        /// What `PUT /latest/api/token` is answered with.
        token: u16,
        /// What a path is answered with that is not among them.
        other: u16,
        bodies: BTreeMap<&'static str, Vec<u8>>,
        /// What some paths are answered with instead of 200: 0 is silence, 1 no HTTP.
        statuses: BTreeMap<&'static str, u16>,
        /// How long each answer takes.
        delay: Duration,
        /// Each request's method and path, and whether it had the token.
        asked: Mutex<Vec<(String, bool)>>,
    }

    impl Imds {
        fn new(bodies: &[(&'static str, &str)]) -> Self {
            let bodies = bodies.iter();
            Self {
                token: 200,
                other: 404,
                bodies: bodies
                    .map(|(path, body)| (*path, body.as_bytes().to_vec()))
                    .collect(),
                statuses: BTreeMap::new(),
                delay: Duration::ZERO,
                asked: Mutex::default(),
            }
        }

        async fn start(self) -> (Arc<Self>, SocketAddr) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let this = Arc::new(self);
            let server = Arc::clone(&this);
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let server = Arc::clone(&server);
                    tokio::spawn(async move { server.serve(stream).await });
                }
            });
            (this, address)
        }

        async fn serve(&self, mut stream: TcpStream) {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let words: Vec<_> = head.split(' ').collect();
            let request = format!("{} {}", words[0], words[1]);
            let has = |header: &str| head.to_lowercase().contains(&format!("\r\n{header}\r\n"));
            let (status, body) = if request == "PUT /latest/api/token" {
                assert!(has("x-aws-ec2-metadata-token-ttl-seconds: 21600"), "{head}");
                (self.token, &b"TOKEN"[..])
            } else {
                let path = words[1].strip_prefix("/latest/").unwrap();
                match (self.statuses.get(path), self.bodies.get(path)) {
                    (Some(status), _) => (*status, &b"odd"[..]),
                    (None, Some(body)) => (200, &body[..]),
                    (None, None) => (self.other, &b"deeper/"[..]),
                }
            };
            let token = has("x-aws-ec2-metadata-token: token");
            self.asked.lock().unwrap().push((request, token));
            tokio::time::sleep(self.delay).await;
            if status == 0 {
                return tokio::time::sleep(Duration::from_secs(5)).await;
            }
            if status == 1 {
                let _ = stream.write_all(b"nonsense\r\n\r\n").await;
                return;
            }
            let head = format!(
                "HTTP/1.1 {status} Some Reason\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            // A body that is too long is not read to its end.
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(body).await;
        }

        fn asked(&self) -> Vec<(String, bool)> {
            self.asked.lock().unwrap().clone()
        }
    }

    /// A directory that is removed at the end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let name = format!("spotsim-save-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn names(&self) -> Vec<OsString> {
            let Self(path) = self;
            let entries = fs::read_dir(path).unwrap();
            entries.map(|entry| entry.unwrap().file_name()).collect()
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let Self(path) = self;
            fs::remove_dir_all(path).unwrap();
        }
    }

    fn now() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn text(instance: &Instance, key: &str) -> String {
        match instance.get(key, now()) {
            Some(Found::Document(document)) => String::from_utf8(document.body).unwrap(),
            other => panic!("{key}: {other:?}"),
        }
    }

    fn listing(instance: &Instance, key: &str) -> Vec<String> {
        match instance.get(key, now()) {
            Some(Found::Listing(names)) => names,
            other => panic!("{key}: {other:?}"),
        }
    }

    const ODD_TEXT: &str = " \"quoted\" \\ back\n\ttab\r\nnull \0 bell \u{7} del \u{7f} nel \u{85} \
                            ls \u{2028} bom \u{feff} ümläut 🦀 #no: comment\n";

    fn tree() -> Imds {
        let mut imds = Imds::new(&[
            (
                "meta-data/",
                "ami-id\nautoscaling/\nboth\nboth/\nevents/\ngone\niam/\nidentity-credentials/\n\
                 instance-id\nlong\nodd?name\nplacement/\npublic-keys/\nraw\nspot/\ntext",
            ),
            ("meta-data/ami-id", ""),
            ("meta-data/both", "x"),
            ("meta-data/both/", "below"),
            ("meta-data/both/below", "y"),
            ("meta-data/iam/", "info\nsecurity-credentials/"),
            ("meta-data/iam/info", "{}"),
            ("meta-data/iam/security-credentials/", "their-role"),
            ("meta-data/instance-id", "i-1"),
            ("meta-data/placement/", "availability-zone\nregion"),
            ("meta-data/placement/availability-zone", "0123"),
            ("meta-data/placement/region", "true"),
            ("meta-data/public-keys/", "0=my key\n1=b=c"),
            ("meta-data/public-keys/0/", "openssh-key"),
            ("meta-data/public-keys/0/openssh-key", "ssh-rsa A my key\n"),
            ("meta-data/public-keys/1/", "openssh-key"),
            ("meta-data/public-keys/1/openssh-key", "ssh-rsa B"),
            ("meta-data/text", ODD_TEXT),
            ("dynamic/", "instance-identity/"),
            (
                "dynamic/instance-identity/",
                "document\npkcs7\nrsa2048\nsignature",
            ),
            ("dynamic/instance-identity/document", "{\n  \"a\" : 1\n}"),
        ]);
        imds.bodies.insert("meta-data/raw", vec![0xff]);
        imds.bodies.insert("meta-data/long", vec![b'x'; 65 * 1024]);
        imds
    }

    #[test]
    fn what_a_reader_might_take_for_something_else_is_escaped() {
        let odd = "a\u{85}b\u{2028}c\u{feff}d\0\u{7f}";
        assert_eq!(quoted(odd), r#""a\u0085b\u2028c\uFEFFd\u0000\u007F""#);
        assert_eq!(quoted("ü \"\\\n"), r#""ü \"\\\n""#);
    }

    #[tokio::test]
    async fn what_is_saved_can_be_replayed() {
        let directory = Directory::new("replay");
        for name in ["instance.yaml", "instance.toml"] {
            let (imds, address) = tree().start().await;
            let path = directory.0.join(name);
            let saved = save(address, &path, now()).await.unwrap();
            assert_eq!(
                saved.left_out,
                [
                    "meta-data/both: it is a directory as well",
                    "meta-data/long: it is longer than 64 KiB",
                    "meta-data/odd?name: its name cannot be in a request's path",
                    "meta-data/raw: it is not text",
                ]
            );
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);

            let instance = Instance::read(&path, now()).unwrap();
            let mut same = 0;
            for key in instance.keys() {
                if let Some(body) = imds.bodies.get(key) {
                    assert_eq!(text(&instance, key).as_bytes(), body, "{name}: {key}");
                    same += 1;
                }
            }
            assert_eq!((same, saved.documents), (10, 10));
            let keys = "meta-data/public-keys";
            assert_eq!(listing(&instance, keys), ["0=my key", "1=b=c"]);
            let roles = "meta-data/iam/security-credentials";
            assert_eq!(listing(&instance, roles), ["their-role"]);
            for path in NO_EVENTS {
                assert_eq!(text(&instance, path), "[]");
            }
            assert_eq!(instance.keys().count(), 10 + 1 + NO_EVENTS.len());

            let written = fs::read_to_string(&path).unwrap();
            assert!(
                written.starts_with("# What the IMDS at 127.0.0.1:"),
                "{written}"
            );
            for said in [
                "2026-03-01T12:00:00Z",
                "user-data",
                "meta-data/spot",
                "raw: it is not",
            ] {
                let comments = written.lines().filter(|line| line.starts_with('#'));
                assert_eq!(
                    comments.filter(|line| line.contains(said)).count(),
                    1,
                    "{said}"
                );
            }
        }
    }

    #[tokio::test]
    async fn secrets_and_passing_state_are_not_asked_for() {
        let directory = Directory::new("secrets");
        let (imds, address) = tree().start().await;
        save(address, &directory.0.join("instance.yaml"), now())
            .await
            .unwrap();
        let asked = imds.asked();
        assert_eq!(asked[0].0, "PUT /latest/api/token");
        assert!(asked[1..].iter().all(|(_, token)| *token), "{asked:?}");
        for word in [
            "role",
            "pkcs7",
            "rsa2048",
            "signature",
            "spot",
            "events",
            "autoscaling",
        ] {
            let found = asked.iter().find(|(request, _)| request.contains(word));
            assert_eq!(found, None, "{word}");
        }
        for word in ["identity-credentials", "user-data"] {
            let found = asked.iter().find(|(request, _)| request.contains(word));
            assert_eq!(found, None, "{word}");
        }
    }

    #[tokio::test]
    async fn an_imds_without_tokens_is_asked_without() {
        for status in [403, 404, 405] {
            let directory = Directory::new(&format!("v1-{status}"));
            let (imds, address) = Imds {
                token: status,
                ..tree()
            }
            .start()
            .await;
            save(address, &directory.0.join("instance.toml"), now())
                .await
                .unwrap();
            assert!(imds.asked().iter().all(|(_, token)| !token), "{status}");
        }
    }

    /// The error of an attempt that must leave nothing behind.
    async fn failure(name: &str, imds: Imds) -> String {
        let directory = Directory::new(name);
        let (_, address) = imds.start().await;
        let saved = save(address, &directory.0.join("instance.yaml"), now()).await;
        assert!(directory.names().is_empty(), "{:?}", directory.names());
        format!("{:#}", saved.unwrap_err())
    }

    #[tokio::test]
    async fn a_failure_leaves_nothing_behind() {
        let error = failure(
            "token",
            Imds {
                token: 400,
                ..tree()
            },
        )
        .await;
        assert!(
            error.ends_with("PUT /latest/api/token: 400 Bad Request"),
            "{error}"
        );
        for (name, imds, expected) in [
            (
                "absent",
                Imds::new(&[]),
                "GET /latest/meta-data/: 404 Not Found",
            ),
            (
                "empty",
                Imds::new(&[("meta-data/", ""), ("dynamic/", "a b")]),
                "the IMDS has no document that can be kept",
            ),
            (
                "listing",
                with(&[("meta-data/", &"x\n".repeat(40_000))]),
                "GET /latest/meta-data/: it is longer than 64 KiB",
            ),
        ] {
            let error = failure(name, imds).await;
            assert!(error.ends_with(expected), "{error}");
        }
        let mut refused = tree();
        refused.statuses.insert("meta-data/", 401);
        let error = failure("refused", refused).await;
        assert!(
            error.ends_with("GET /latest/meta-data/: 401 Unauthorized"),
            "{error}"
        );
        // Whatever is asked for, there is a directory in it.
        let endless = Imds {
            other: 200,
            ..Imds::new(&[])
        };
        let error = failure("endless", endless).await;
        assert!(
            error.ends_with("too many directories within each other"),
            "{error}"
        );
    }

    /// The small IMDS, with some bodies more or others.
    fn with(bodies: &[(&'static str, &str)]) -> Imds {
        let mut imds = tree();
        let bodies = bodies.iter();
        imds.bodies
            .extend(bodies.map(|(path, body)| (*path, body.as_bytes().to_vec())));
        imds
    }

    /// What is left out, each once, of an IMDS of which the rest is kept.
    async fn left_out_of(name: &str, imds: Imds) -> (Vec<String>, Arc<Imds>, Instance) {
        let directory = Directory::new(name);
        let (imds, address) = imds.start().await;
        let path = directory.0.join("instance.yaml");
        let mut saved = save(address, &path, now()).await.unwrap();
        saved.left_out.sort_unstable();
        let written = fs::read_to_string(&path).unwrap();
        for document in &saved.left_out {
            assert!(written.contains(&format!("# Left out: {document}.\n")));
        }
        let instance = Instance::read(&path, now()).unwrap();
        (saved.left_out, imds, instance)
    }

    #[tokio::test]
    async fn odd_names_are_left_out_and_named() {
        let listing = "ami-id\n.\n..\na b\nbell\u{7}\nhash#\nper%63ent\nquestion?\nümläut\n../\n";
        let imds = with(&[("meta-data/", listing)]);
        let (left_out, imds, instance) = left_out_of("names", imds).await;
        let why = "its name cannot be in a request's path";
        let expected = [
            "..",
            "..",
            ".",
            "\\u{fc}ml\\u{e4}ut",
            "a b",
            "bell\\u{7}",
            "hash#",
            "per%63ent",
            "question?",
        ];
        assert_eq!(
            left_out,
            expected.map(|name| format!("meta-data/{name}: {why}"))
        );
        assert_eq!(text(&instance, "meta-data/ami-id"), "");
        let asked = imds.asked();
        let odd = |path: &str| path.contains(['%', '#', '?', ' ', '\u{7}']) || path.contains("..");
        let asked = asked.iter().map(|(request, _)| &request[4..]);
        assert_eq!(asked.filter(|path| odd(path)).count(), 0);
    }

    #[tokio::test]
    async fn a_role_with_an_odd_name_is_left_out_and_named() {
        let roles = "meta-data/iam/security-credentials/";
        let (left_out, _, instance) = left_out_of("role", with(&[(roles, "their role\n")])).await;
        let expected = format!("{roles}their role: its name cannot be in a request's path");
        assert!(left_out.contains(&expected), "{left_out:?}");
        assert!(!instance.keys().any(|key| key.starts_with(roles)));
    }

    #[tokio::test]
    async fn a_document_without_a_good_answer_is_left_out_and_named() {
        let mut imds = tree();
        imds.statuses.extend([
            ("meta-data/ami-id", 403),
            ("meta-data/iam/", 401),
            ("meta-data/instance-id", 500),
            ("meta-data/placement/region", 1),
            ("meta-data/text", 0),
            ("dynamic/", 503),
        ]);
        let (left_out, _, instance) = left_out_of("statuses", imds).await;
        for expected in [
            "meta-data/ami-id: it was answered with 403 Forbidden",
            "meta-data/iam: it was answered with 401 Unauthorized",
            "meta-data/instance-id: it was answered with 500 Internal Server Error",
            "meta-data/placement/region: GET /latest/meta-data/placement/region at ",
            "meta-data/text: GET /latest/meta-data/text at ",
            "dynamic: it was answered with 503 Service Unavailable",
        ] {
            assert!(
                left_out.iter().any(|line| line.starts_with(expected)),
                "{expected}: {left_out:?}"
            );
        }
        assert_eq!(left_out.len(), 6 + 4);
        let zone = "meta-data/placement/availability-zone";
        assert_eq!(text(&instance, zone), "0123");
    }

    #[tokio::test]
    async fn secrets_are_left_out_however_they_are_spelled() {
        let listing = "USER-DATA\nSecurity-Credentials/\nami-id\nuser-data/\nother/\n";
        let imds = with(&[
            ("meta-data/", listing),
            (
                "meta-data/other/",
                "Identity-Credentials/\nInstance-Identity/",
            ),
            ("meta-data/other/Instance-Identity/", "document\nsecret"),
            ("meta-data/other/Instance-Identity/document", "{}"),
            (
                "dynamic/instance-identity/",
                "Document\nPKCS7\ndocument\nsecret\nsignature",
            ),
        ]);
        let (left_out, imds, _) = left_out_of("spelled", imds).await;
        let expected = [
            "dynamic/instance-identity/Document",
            "dynamic/instance-identity/PKCS7",
            "dynamic/instance-identity/secret",
            "meta-data/Security-Credentials",
            "meta-data/USER-DATA",
            "meta-data/other/Identity-Credentials",
            "meta-data/other/Instance-Identity/secret",
            "meta-data/user-data",
        ];
        assert_eq!(
            left_out,
            expected.map(|path| format!("{path}: by its name it is secret"))
        );
        for (request, _) in imds.asked() {
            let (_, path) = request.split_once(" /latest/").unwrap();
            let is = |secret: &&str| path.trim_end_matches('/').starts_with(secret);
            assert!(!expected.iter().any(is), "{request}");
        }
    }

    #[tokio::test]
    async fn an_imds_that_takes_too_long_is_given_up() {
        let slow = Imds {
            delay: Duration::from_millis(200),
            ..tree()
        };
        let directory = Directory::new("slow");
        let (_, address) = slow.start().await;
        let path = directory.0.join("instance.yaml");
        let saved = save_within(Duration::from_secs(1), address, &path, now()).await;
        let error = format!("{:#}", saved.unwrap_err());
        assert!(
            error.ends_with("the IMDS has not told everything within 1s"),
            "{error}"
        );
        assert!(directory.names().is_empty(), "{:?}", directory.names());
    }

    #[tokio::test]
    async fn what_could_not_be_read_again_is_not_written() {
        let listing: String = (0..20).map(|number| format!("n{number}\n")).collect();
        let mut imds = Imds::new(&[("meta-data/", &listing)]);
        for name in listing.lines() {
            let path = format!("meta-data/{name}").leak();
            imds.bodies.insert(path, vec![1; 10 * 1024]);
        }
        let error = failure("much", imds).await;
        assert!(
            error.contains("it would be longer than 1024 KiB"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_place_that_cannot_be_written_is_noticed_before_anything_is_asked() {
        let directory = Directory::new("place");
        let (imds, address) = tree().start().await;
        let Directory(path) = &directory;
        std::os::unix::fs::symlink("nowhere", path.join("link.yaml")).unwrap();
        fs::write(path.join("file"), "").unwrap();
        for (name, expected) in [
            ("link.yaml", "exists; it is not replaced"),
            ("missing/instance.yaml", "No such file or directory"),
            ("file/instance.yaml", "Not a directory"),
            (&format!("{}.yaml", "x".repeat(300)), "File name too long"),
        ] {
            let saved = save(address, &path.join(name), now()).await;
            let error = format!("{:#}", saved.unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
        // Nobody, root included, makes files there.
        let error = save(address, Path::new("/proc/instance.yaml"), now()).await;
        assert!(error.is_err());
        assert!(imds.asked().is_empty(), "{:?}", imds.asked());
        let mut names = directory.names();
        names.sort_unstable();
        assert_eq!(names, ["file", "link.yaml"]);
    }

    #[tokio::test]
    async fn an_imds_that_is_silent_is_given_up() {
        let start = Instant::now();
        let error = failure("silent", Imds { token: 0, ..tree() }).await;
        assert!(error.contains("no answer within 2 s"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(4));
    }

    #[tokio::test]
    async fn a_file_that_is_there_stays_as_it_is() {
        let directory = Directory::new("there");
        let (imds, address) = tree().start().await;
        let path = directory.0.join("instance.yaml");
        fs::write(&path, "mine").unwrap();
        let error = save(address, &path, now()).await.unwrap_err().to_string();
        assert!(error.ends_with("exists; it is not replaced"), "{error}");
        // One that appears meanwhile, too.
        let error = format!("{:#}", write(&path, "theirs").unwrap_err());
        assert!(error.contains("File exists"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        assert_eq!(directory.names(), ["instance.yaml"]);
        let json = directory.0.join("instance.json");
        let error = save(address, &json, now()).await.unwrap_err().to_string();
        assert!(error.contains("use .yaml or .toml"), "{error}");
        assert!(imds.asked().is_empty(), "nothing is asked for nothing");
    }
}
