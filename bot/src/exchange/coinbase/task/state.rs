//! What the session task remembers between two looks.

use std::time::Duration;

use arbbot_crds::arbbot::{ActiveKey, Endpoint};
use arbbot_crds::conditions::Reason;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::super::session::Session;

/// Refusals in a row, and the time from the first to the last, that let the other key take over.
const REFUSALS: u32 = 5;
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// What a session was opened with: which key, and a hash of its files and of the authority's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs {
    pub key: ActiveKey,
    pub hash: [u8; 32],
}

/// The session in use.
#[derive(Debug)]
pub struct Open {
    pub session: Session,
    pub endpoint: Endpoint,
    pub inputs: Inputs,
}

/// That the other key than the one that the spec names is in use.
#[derive(Debug)]
pub struct FailedOver {
    pub from: ActiveKey,
    /// Of the refused key: once it changes, that key is tried again.
    pub hash: [u8; 32],
    pub why: String,
}

/// Refusals in a row, each of a fresh token.
#[derive(Debug, Default)]
pub struct Refusals(Option<(Duration, u32)>);

impl Refusals {
    pub fn count(&mut self, now: Duration) {
        let (first, count) = self.0.unwrap_or((now, 0));
        self.0 = Some((first, count.saturating_add(1)));
    }

    pub fn clear(&mut self) {
        self.0 = None;
    }

    pub fn are_enough(&self, now: Duration) -> bool {
        self.0.is_some_and(|(first, count)| count >= REFUSALS && now >= first + REFUSED_FOR)
    }
}

/// What the session task remembers.
#[derive(Debug, Default)]
pub struct State {
    pub open: Option<Open>,
    /// What was last wanted: a change is tried at once.
    pub tried: Option<(Inputs, Vec<Endpoint>)>,
    pub attempts: u32,
    /// Not before this (CLOCK_BOOTTIME).
    pub retry_at: Duration,
    /// When the key in use may try other endpoints again, while the wanted one cannot be used.
    pub leave_at: Duration,
    /// When an endpoint before the one in use is tried again.
    pub prefer_at: Duration,
    pub checked_at: Duration,
    pub refusals: Refusals,
    pub failed_over: Option<FailedOver>,
    pub problem: Option<(Reason, String)>,
    pub unfit: Option<(Reason, String)>,
    pub fingerprint: String,
    pub verified_at: Option<Time>,
}

impl State {
    /// What was wanted is in use.
    pub fn solved(&mut self) {
        (self.problem, self.attempts, self.retry_at) = (None, 0, Duration::ZERO);
    }

    /// Ends a fail-over once the spec names another key, or the refused key's files have changed.
    pub fn end_failover(&mut self, active: ActiveKey, refused_key: Option<&Inputs>) {
        let over = self.failed_over.as_ref().is_some_and(|failed_over| {
            failed_over.from != active || refused_key.is_none_or(|now| now.hash != failed_over.hash)
        });
        if over {
            self.failed_over = None;
        }
    }
}

pub fn other(key: ActiveKey) -> ActiveKey {
    match key {
        ActiveKey::Primary => ActiveKey::Backup,
        ActiveKey::Backup => ActiveKey::Primary,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_refusals_over_ten_seconds_are_enough_and_fewer_or_faster_ones_are_not() {
        let second = Duration::from_secs(1);
        let after = |times: &[u32]| {
            let mut refusals = Refusals::default();
            times.iter().for_each(|at| refusals.count(second * *at));
            refusals.are_enough(second * *times.last().unwrap())
        };
        assert!(after(&[100, 103, 105, 108, 110]));
        assert!(!after(&[100, 101, 102, 103, 104, 105, 109]));
        assert!(!after(&[100, 105, 110, 120]));
    }
}
