//! Session tokens of the synthetic instance.
//!
//! A token carries its own expiry under a keyed hash, so that none has to be remembered and
//! a client that fetches a new one for each request (botocore does) costs nothing. It guards
//! nothing but a made-up instance; what counts is that it obeys the real rules.

use std::{
    hash::{BuildHasher as _, RandomState},
    ops::RangeInclusive,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use jiff::{SignedDuration, Timestamp};

/// The life of a token that can be asked for, in seconds: up to six hours.
pub const TTL: RangeInclusive<u32> = 1..=21_600;

/// The first bytes of a token; real ones begin with `AQAEA` as well.
const PREFIX: [u8; 4] = [1, 0, 4, 0];

/// Bytes of a token before it is written in base64, which makes 56 characters of them.
const LENGTH: usize = 40;

/// Issues tokens and judges them.
pub struct Tokens {
    keys: [RandomState; 2],
    nonces: RandomState,
}

impl Tokens {
    /// An authority with a key of its own: it knows only what it issued itself.
    pub fn new() -> Self {
        Self {
            keys: [RandomState::new(), RandomState::new()],
            nonces: RandomState::new(),
        }
    }

    /// A token that lives for `ttl` seconds from `now`.
    pub fn issue(&self, ttl: u32, now: Timestamp) -> String {
        let Self { nonces, .. } = self;
        let expires = now + SignedDuration::from_secs(i64::from(ttl));
        let mut token = [0; LENGTH];
        token[..4].copy_from_slice(&PREFIX);
        token[4..12].copy_from_slice(&nonces.hash_one(now).to_be_bytes());
        token[12..24].copy_from_slice(&expires.as_nanosecond().to_be_bytes()[4..]);
        let seal = self.seal(&token[..24]);
        token[24..].copy_from_slice(&seal);
        URL_SAFE.encode(token)
    }

    /// What is left of a token, in whole seconds; `None` if it was not issued here or is over.
    pub fn remaining(&self, token: &[u8], now: Timestamp) -> Option<u32> {
        let token: [u8; LENGTH] = URL_SAFE.decode(token).ok()?.try_into().ok()?;
        let (signed, seal) = token.split_at(24);
        if seal != self.seal(signed) {
            return None;
        }
        let mut expires = [0; 16];
        expires[4..].copy_from_slice(&signed[12..]);
        let expires = Timestamp::from_nanosecond(i128::from_be_bytes(expires)).ok()?;
        let left = expires.duration_since(now);
        left.is_positive()
            .then(|| u32::try_from(left.as_secs()).unwrap_or(u32::MAX))
    }

    fn seal(&self, signed: &[u8]) -> [u8; 16] {
        let Self { keys, .. } = self;
        let mut seal = [0; 16];
        for (half, key) in seal.chunks_exact_mut(8).zip(keys) {
            half.copy_from_slice(&key.hash_one(signed).to_be_bytes());
        }
        seal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00.5Z".parse().unwrap()
    }

    #[test]
    fn a_token_looks_like_a_real_one() {
        let tokens = Tokens::new();
        let token = tokens.issue(21_600, now());
        assert_eq!(token.len(), 56);
        assert!(
            token.starts_with("AQAEA") && token.ends_with("=="),
            "{token}"
        );
    }

    #[test]
    fn a_token_lives_as_long_as_was_asked() {
        let tokens = Tokens::new();
        let token = tokens.issue(60, now());
        let left = |after| {
            let then = now() + SignedDuration::from_millis(after);
            tokens.remaining(token.as_bytes(), then)
        };
        assert_eq!(left(0), Some(60));
        assert_eq!(left(1), Some(59));
        assert_eq!(left(59_999), Some(0));
        assert_eq!(left(60_000), None);
    }

    #[test]
    fn only_what_was_issued_here_is_known() {
        let tokens = Tokens::new();
        let token = tokens.issue(60, now());
        assert_eq!(Tokens::new().remaining(token.as_bytes(), now()), None);
        for at in 0..54 {
            let mut forged = token.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(tokens.remaining(&forged, now()), None, "changed at {at}");
        }
        for garbage in [&b""[..], b"nonsense", b"\xff\xfe", &[b'A'; 4096]] {
            assert_eq!(tokens.remaining(garbage, now()), None);
        }
    }
}
