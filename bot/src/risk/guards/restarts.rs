//! How often a guard may end the process. Pure.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Restarts by guards in any hour, at most: what a restart does not mend, another will not mend either.
pub const MOST: usize = 3;
/// The hour.
pub const WITHIN: SignedDuration = SignedDuration::from_hours(1);

/// When guards have restarted this bot, across its processes.
#[derive(Clone, Debug, Default)]
pub struct Restarts(Vec<Timestamp>);

impl Restarts {
    /// Those that the ledger remembers.
    #[must_use]
    pub fn recovered(times: Vec<Timestamp>) -> Self {
        Self(times)
    }

    /// Counts a restart, if one more is allowed now.
    pub fn take(&mut self, now: Timestamp) -> bool {
        // One that lies in the future, after a step of the clock, counts.
        self.0.retain(|at| now.duration_since(*at) < WITHIN);
        let allowed = self.0.len() < MOST;
        if allowed {
            self.0.push(now);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fourth_restart_within_an_hour_does_not_happen_in_a_new_process_either() {
        let at = |minute: i64| Timestamp::from_second(60 * minute).unwrap();
        let mut restarts = Restarts::default();
        assert!([0, 10, 20].into_iter().all(|minute| restarts.take(at(minute))));
        let mut next = Restarts::recovered(restarts.0.clone());
        assert!(!next.take(at(59)));
        assert!(next.take(at(60)));
        assert!(!next.take(at(61)));
    }
}
