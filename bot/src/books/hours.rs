//! The hours of which funding is to be accrued, each once. Pure.
//!
//! The exchange shows the rate of the hour that ended last. An hour in which the session was closed throughout has none,
//! though the exchange may go on showing the rate of the hour before.

use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;

use super::calendar::{HOUR, last_hour};
use crate::exchange::FutureDetails;

/// Where the session stands near the turn of an hour says nothing of the hour: clocks differ, and what was read may be
/// some seconds old.
const NEAR_THE_TURN: SignedDuration = SignedDuration::from_secs(120);
/// Orders and their fills of the hour are known after so long.
const KNOWN_AFTER: SignedDuration = SignedDuration::from_secs(15);
/// How long a rate is waited for.
const PATIENCE: SignedDuration = SignedDuration::from_mins(30);

/// What an hour brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    Observed {
        rate: Decimal,
        mark: Decimal,
    },
    /// Nobody saw it.
    Missing,
    /// There is none.
    Closed,
}

/// The hours that are still to be accrued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours {
    /// End of the next one.
    next: Timestamp,
    /// By the end of an hour: whether the session was seen open in it.
    sessions: BTreeMap<Timestamp, bool>,
}

impl Hours {
    /// The hours that end after a moment.
    #[must_use]
    pub fn after(at: Timestamp) -> Self {
        Self { next: later(last_hour(at)), sessions: BTreeMap::new() }
    }

    /// End of the next hour to be accrued.
    #[must_use]
    pub fn next(&self) -> Timestamp {
        self.next
    }

    /// Notes whether the session is open.
    pub fn observe(&mut self, at: Timestamp, session_open: bool) {
        let begin = last_hour(at);
        let end = later(begin);
        if at.duration_since(begin) < NEAR_THE_TURN || end.duration_since(at) < NEAR_THE_TURN {
            return;
        }
        *self.sessions.entry(end).or_default() |= session_open;
        self.sessions = self.sessions.split_off(&self.next);
    }

    /// What the next hour brings, once that is known.
    #[must_use]
    pub fn due(&self, now: Timestamp, seen: &FutureDetails) -> Option<Rate> {
        let waited = now.duration_since(self.next);
        if waited < KNOWN_AFTER {
            return None;
        }
        if self.is_closed(seen) {
            return Some(Rate::Closed);
        }
        match (seen.terms.funding_time, seen.mark) {
            (Some(time), Some(mark)) if time == self.next => {
                Some(Rate::Observed { rate: seen.terms.funding_rate, mark })
            }
            (Some(time), _) if time > self.next => Some(Rate::Missing),
            _ => (waited >= PATIENCE).then_some(Rate::Missing),
        }
    }

    /// Goes on to the hour after.
    pub fn done(&mut self) {
        self.next = later(self.next);
    }

    fn is_closed(&self, seen: &FutureDetails) -> bool {
        match self.sessions.get(&self.next) {
            Some(open) => !open,
            // Nobody looked in that hour; a session that began at its end says that it was closed before.
            None => seen.session_open && seen.opened_at == Some(self.next),
        }
    }
}

fn later(hour: Timestamp) -> Timestamp {
    hour.checked_add(HOUR).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use rust_decimal::dec;

    use super::*;
    use crate::exchange::CarryTerms;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn showing(time: &str) -> FutureDetails {
        let terms = CarryTerms { funding_time: Some(at(time)), funding_rate: dec!(0.00002), ..CarryTerms::default() };
        FutureDetails { mark: Some(dec!(70000)), ..FutureDetails::in_session(true, terms) }
    }

    const OBSERVED: Rate = Rate::Observed { rate: dec!(0.00002), mark: dec!(70000) };

    #[test]
    fn an_hour_has_the_rate_that_is_shown_for_it_and_only_that() {
        let hours = Hours::after(at("2026-11-20T10:20:00Z"));
        let seen = showing("2026-11-20T11:00:00Z");
        assert_eq!(hours.due(at("2026-11-20T11:00:10Z"), &seen), None, "its last fills may be on their way");
        assert_eq!(hours.due(at("2026-11-20T11:00:20Z"), &seen), Some(OBSERVED));
        let old = showing("2026-11-20T10:00:00Z");
        assert_eq!(hours.due(at("2026-11-20T11:29:00Z"), &old), None);
        assert_eq!(hours.due(at("2026-11-20T11:30:00Z"), &old), Some(Rate::Missing));
        let next = showing("2026-11-20T12:00:00Z");
        assert_eq!(hours.due(at("2026-11-20T12:00:01Z"), &next), Some(Rate::Missing));
    }

    /// Shown by mutation: with `Rate::Closed` never returned this fails, and so does the lockstep test over a Friday.
    #[test]
    fn a_closed_hour_has_none_although_a_rate_is_shown() {
        let mut hours = Hours::after(at("2026-11-20T22:00:00Z"));
        let seen = showing("2026-11-20T23:00:00Z");
        for minute in 0..60 {
            // What is read at the turn is still, or already, that of another hour.
            hours.observe(at(&format!("2026-11-20T22:{minute:02}:00Z")), minute == 0 || minute == 59);
        }
        assert_eq!(hours.due(at("2026-11-20T23:00:20Z"), &seen), Some(Rate::Closed));
        hours.done();
        hours.observe(at("2026-11-20T23:10:00Z"), true);
        hours.observe(at("2026-11-20T23:40:00Z"), false);
        assert_eq!(hours.due(at("2026-11-21T00:00:20Z"), &showing("2026-11-21T00:00:00Z")), Some(OBSERVED));
    }

    #[test]
    fn a_bot_that_did_not_look_knows_a_closed_hour_by_the_session_that_began_after_it() {
        let hours = Hours::after(at("2026-11-20T22:30:00Z"));
        let mut seen = showing("2026-11-20T23:00:00Z");
        seen.opened_at = Some(at("2026-11-20T23:00:00Z"));
        assert_eq!(hours.due(at("2026-11-20T23:00:20Z"), &seen), Some(Rate::Closed));
        seen.opened_at = Some(at("2026-11-13T23:00:00Z"));
        assert_eq!(hours.due(at("2026-11-20T23:00:20Z"), &seen), Some(OBSERVED));
    }
}
