//! JSON Web Tokens, one for every request.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Header;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::key::{ApiKey, SignError, hex};
use crate::clock::Clock;
use crate::randomness::Randomness;

/// Life of a token that nothing else bounds (Coinbase's SDK).
pub const TOKEN_LIFE: Duration = Duration::from_secs(120);

/// What a token claims (Coinbase's SDK, jwt_generator.py).
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Claims {
    sub: String,
    iss: String,
    nbf: i64,
    exp: i64,
    /// `METHOD host/path`, without scheme and query; absent for WebSockets.
    #[serde(skip_serializing_if = "Option::is_none")]
    uri: Option<String>,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error("a token cannot be encoded: {0}")]
    Encode(#[from] serde_json::Error),
    #[error("the time in which the order may be sent is over")]
    Late,
}

/// The venue's time: CLOCK_BOOTTIME, which never steps, plus an offset measured at the venue. A step of the machine's
/// clock therefore neither invalidates our tokens nor prolongs their life.
#[derive(Debug)]
pub struct VenueClock {
    clock: Clock,
    /// Venue time minus CLOCK_BOOTTIME, in milliseconds.
    offset_ms: AtomicI64,
}

impl VenueClock {
    /// Starts with the machine's idea of the time.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let offset_ms = clock.now().as_millisecond() - millis(clock.boottime());
        Self { clock, offset_ms: AtomicI64::new(offset_ms) }
    }

    /// Notes that the venue's clock showed `shown` between two readings of [`Self::boottime`].
    pub fn measured(&self, shown: Timestamp, asked: Duration, answered: Duration) {
        let middle = asked.saturating_add(answered.saturating_sub(asked) / 2);
        self.offset_ms.store(shown.as_millisecond() - millis(middle), Ordering::Relaxed);
    }

    /// CLOCK_BOOTTIME.
    #[must_use]
    pub fn boottime(&self) -> Duration {
        self.clock.boottime()
    }

    /// Venue time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.at(self.boottime())
    }

    /// Venue time at a reading of [`Self::boottime`].
    #[must_use]
    pub fn at(&self, boottime: Duration) -> Timestamp {
        let ms = self.offset_ms.load(Ordering::Relaxed).saturating_add(millis(boottime));
        Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
    }

    /// A time of the machine's clock in venue time.
    #[must_use]
    pub fn of(&self, local: Timestamp) -> Timestamp {
        // By the time that this process goes by: a step of the machine's clock moves no end of an order.
        local.checked_sub(self.clock.now().duration_since(self.now())).unwrap_or(local)
    }

    /// How far the machine's clock is ahead of the venue's.
    #[must_use]
    pub fn skew(&self) -> SignedDuration {
        self.clock.machine().duration_since(self.now())
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Makes tokens of one key.
#[derive(Debug)]
pub struct Signer {
    key: ApiKey,
    randomness: Randomness,
}

impl Signer {
    #[must_use]
    pub fn new(key: ApiKey, randomness: Randomness) -> Self {
        Self { key, randomness }
    }

    #[must_use]
    pub fn key(&self) -> &ApiKey {
        &self.key
    }

    /// A token that is valid from now until `expires` at the latest, in venue time. `uri` is `METHOD host/path` for
    /// REST and None for WebSockets.
    ///
    /// # Errors
    /// `expires` is past, or the key cannot sign.
    pub fn token(&self, uri: Option<String>, now: Timestamp, expires: Timestamp) -> Result<String, TokenError> {
        // Seconds, rounded down: a token may live shorter than allowed, never longer.
        let nbf = now.as_second();
        let longest = nbf.saturating_add_unsigned(TOKEN_LIFE.as_secs());
        let exp = expires.as_second().min(longest);
        if exp <= nbf {
            return Err(TokenError::Late);
        }
        let nonce = self.randomness.bytes::<32>();
        let header = Header {
            kid: Some(self.key.name().to_owned()),
            nonce: Some(hex(&nonce)),
            ..Header::new(self.key.algorithm())
        };
        let claims = Claims { sub: self.key.name().to_owned(), iss: "cdp".to_owned(), nbf, exp, uri };
        let [header, claims] =
            [serde_json::to_vec(&header)?, serde_json::to_vec(&claims)?].map(|part| URL_SAFE_NO_PAD.encode(part));
        let message = format!("{header}.{claims}");
        let signature = self.key.sign(message.as_bytes())?;
        Ok(format!("{message}.{signature}"))
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn signer() -> Signer {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("name"), "organizations/a/apiKeys/b").unwrap();
        std::fs::write(dir.path().join("privateKey"), STANDARD.encode([9; 32])).unwrap();
        Signer::new(ApiKey::load(dir.path()).unwrap(), Randomness::seeded(1))
    }

    fn part(token: &str, index: usize) -> serde_json::Value {
        let part = token.split('.').nth(index).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_token_claims_what_coinbase_asks_for() {
        let uri = "POST api.coinbase.com/api/v3/brokerage/orders";
        let token = signer().token(Some(uri.to_owned()), at(1000), at(5000)).unwrap();
        let header = part(&token, 0);
        assert_eq!((&header["alg"], &header["typ"]), (&"EdDSA".into(), &"JWT".into()));
        assert_eq!(header["kid"], "organizations/a/apiKeys/b");
        assert_eq!(header["nonce"].as_str().unwrap().len(), 64);
        let claims: Claims = serde_json::from_value(part(&token, 1)).unwrap();
        let sub = "organizations/a/apiKeys/b".to_owned();
        let expected = Claims { sub, iss: "cdp".to_owned(), nbf: 1000, exp: 1120, uri: Some(uri.to_owned()) };
        assert_eq!(claims, expected);
    }

    #[test]
    fn every_token_has_its_own_nonce_and_a_websocket_token_has_no_uri() {
        let signer = signer();
        let tokens = [(); 2].map(|()| signer.token(None, at(1000), at(1020)).unwrap());
        assert_ne!(part(&tokens[0], 0)["nonce"], part(&tokens[1], 0)["nonce"]);
        assert!(part(&tokens[0], 1).get("uri").is_none());
    }

    #[test]
    fn a_token_never_outlives_its_deadline() {
        let signer = signer();
        let expires = Timestamp::from_millisecond(1_020_900).unwrap();
        assert_eq!(part(&signer.token(None, at(1000), expires).unwrap(), 1)["exp"], 1020);
        assert!(matches!(signer.token(None, at(1000), at(1000)), Err(TokenError::Late)));
        assert!(matches!(signer.token(None, at(1000), at(900)), Err(TokenError::Late)));
    }

    #[test]
    fn venue_time_is_what_the_venue_showed_half_way_through_the_call() {
        let clock = Clock::manual();
        let venue = VenueClock::new(clock.clone());
        let asked = venue.boottime();
        clock.advance(Duration::from_secs(2));
        venue.measured(at(100_000), asked, venue.boottime());
        assert_eq!(venue.now(), at(100_001));
        clock.advance(Duration::from_secs(5));
        assert_eq!(venue.now(), at(100_006));
        assert_eq!(venue.of(at(10)), at(100_009));
        assert_eq!(venue.skew(), SignedDuration::from_secs(-99_999));
    }
}
