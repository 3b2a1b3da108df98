//! Proof by the exchange that no order works and that the bot is flat.
//!
//! A full snapshot that began after the gate closed proves it once; a second one at least two seconds later confirms
//! it. Anything that appears in between starts the proof again.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

/// Least time between the two snapshots (SAFETY §3).
const APART: Duration = Duration::from_secs(2);

/// A fact that the exchange has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// When the first snapshot that shows it began, on CLOCK_BOOTTIME, and on the wall clock.
    pub first: Option<(Duration, Timestamp)>,
    /// Whether a later snapshot confirmed it.
    pub confirmed: bool,
}

impl Shown {
    fn see(&mut self, holds: bool, started: Duration, wall: Timestamp) {
        match (holds, self.first) {
            (false, _) => *self = Self::default(),
            (true, None) => self.first = Some((started, wall)),
            (true, Some((first, _))) => self.confirmed |= started >= first + APART,
        }
    }
}

/// What the exchange has proven since the gate last closed further.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Snapshots that began before this do not count.
    since: Duration,
    /// No order of the bot works. The saga's own orders take at once or end; they never work.
    pub orders_gone: Shown,
    /// No order and no position.
    pub flat: Shown,
}

impl Proof {
    /// Starts again: the gate closed further, or a new incident began.
    pub fn restart(&mut self, now: Duration) {
        *self = Self { since: now, ..Self::default() };
    }

    /// Takes a full snapshot into account.
    pub fn snapshot(&mut self, started: Duration, wall: Timestamp, orders_gone: bool, flat: bool) {
        if started < self.since {
            return;
        }
        self.orders_gone.see(orders_gone, started, wall);
        self.flat.see(orders_gone && flat, started, wall);
    }

    /// An order was sent or changed, or a fill arrived: what was proven may no longer hold. `rests`: it may work.
    pub fn broken(&mut self, rests: bool) {
        self.flat = Shown::default();
        if rests {
            self.orders_gone = Shown::default();
        }
    }

    /// When the next snapshot would confirm what the last one showed.
    #[must_use]
    pub fn confirm_at(&self, flat_wanted: bool) -> Option<Duration> {
        let shown = if flat_wanted { &self.flat } else { &self.orders_gone };
        shown.first.filter(|_| !shown.confirmed).map(|(first, _)| first + APART)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(proof: &mut Proof, second: u64, gone: bool, flat: bool) {
        proof.snapshot(Duration::from_secs(second), Timestamp::UNIX_EPOCH, gone, flat);
    }

    #[test]
    fn one_snapshot_shows_and_a_second_two_seconds_later_confirms() {
        let mut proof = Proof::default();
        snapshot(&mut proof, 10, true, true);
        assert!(proof.orders_gone.first.is_some() && !proof.flat.confirmed);
        snapshot(&mut proof, 11, true, true);
        assert!(!proof.flat.confirmed, "one second is not two");
        snapshot(&mut proof, 12, true, true);
        assert!(proof.flat.confirmed && proof.orders_gone.confirmed);
    }

    #[test]
    fn a_snapshot_from_before_the_gate_closed_proves_nothing() {
        let mut proof = Proof::default();
        proof.restart(Duration::from_secs(10));
        snapshot(&mut proof, 9, true, true);
        assert_eq!(proof.orders_gone, Shown::default());
    }

    #[test]
    fn a_late_fill_starts_the_proof_again() {
        let mut proof = Proof::default();
        snapshot(&mut proof, 10, true, true);
        snapshot(&mut proof, 11, true, false);
        assert!(proof.orders_gone.first.is_some() && proof.flat.first.is_none());
        snapshot(&mut proof, 12, true, true);
        assert!(!proof.flat.confirmed);
    }
}
