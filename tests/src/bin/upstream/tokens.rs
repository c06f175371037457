//! The token authority: tokens of 56 characters with a time to live.

use std::{
    collections::HashMap,
    fs::File,
    io::Read as _,
    sync::Mutex,
    time::{Duration, Instant},
};

#[derive(Default)]
pub struct Tokens(Mutex<HashMap<String, Instant>>);

/// The characters of base64url.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Tokens {
    /// A new token, if the time to live is one the service accepts: 1 s to 6 h.
    pub fn issue(&self, ttl_seconds: &str) -> Option<String> {
        let ttl: u64 = ttl_seconds.parse().ok()?;
        if !(1..=21_600).contains(&ttl) {
            return None;
        }
        let mut random = [0; 49];
        File::open("/dev/urandom")
            .unwrap()
            .read_exact(&mut random)
            .unwrap();
        let random = random.map(|byte| char::from(ALPHABET[usize::from(byte % 64)]));
        let token = format!("AQAEA{}==", String::from_iter(random));
        let expiry = Instant::now() + Duration::from_secs(ttl);
        self.0.lock().unwrap().insert(token.clone(), expiry);
        Some(token)
    }

    /// Whole seconds until the token expires; none if it has, or was never issued.
    pub fn remaining(&self, token: &str) -> Option<u64> {
        let expiry = *self.0.lock().unwrap().get(token)?;
        let left = expiry.checked_duration_since(Instant::now())?;
        Some(left.as_secs())
    }
}
