//! Backoff of each object by itself: doubled with every failure in a row, jittered, reset by a success.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::cache::store::Key;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(60);

/// Failures in a row of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failures {
    pub in_a_row: u32,
    /// Reason of the last one, from a closed list.
    pub reason: &'static str,
}

/// Kind and key of an object: a bot and a policy may have the same name.
pub type Object = (&'static str, Key);

/// Failures in a row of each object that fails.
#[derive(Default)]
pub struct Backoff(Mutex<HashMap<Object, Failures>>);

impl Backoff {
    fn failures(&self) -> MutexGuard<'_, HashMap<Object, Failures>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the failures: the reconcile succeeded, or the object is gone.
    pub fn reset(&self, kind: &'static str, key: &Key) {
        self.failures().remove(&(kind, key.clone()));
    }

    /// Forgets all failures.
    pub fn clear(&self) {
        self.failures().clear();
    }

    /// Counts a failure and says how long to wait. `jitter` is in 0..1.
    pub fn next(&self, kind: &'static str, key: &Key, reason: &'static str, jitter: f64) -> Duration {
        let mut failures = self.failures();
        let failures = failures.entry((kind, key.clone())).or_insert(Failures { in_a_row: 0, reason });
        let delay = delay(failures.in_a_row, jitter);
        *failures = Failures { in_a_row: failures.in_a_row.saturating_add(1), reason };
        delay
    }

    /// The objects that fail, the worst first, at most `limit`, and how many there are.
    #[must_use]
    pub fn worst(&self, limit: usize) -> (Vec<(Object, Failures)>, usize) {
        let mut all: Vec<_> = self.failures().iter().map(|(key, failures)| (key.clone(), failures.clone())).collect();
        let count = all.len();
        all.sort_by(|(a, x), (b, y)| y.in_a_row.cmp(&x.in_a_row).then_with(|| a.cmp(b)));
        all.truncate(limit);
        (all, count)
    }
}

/// Wait after `failures` earlier failures: between half and the whole of the doubled wait.
fn delay(failures: u32, jitter: f64) -> Duration {
    let whole = FIRST.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST);
    whole.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_a_minute_and_a_success_resets_it() {
        let backoff = Backoff::default();
        let bot = Key::from("n/a");
        let waits: Vec<_> = (0..12).map(|_| backoff.next("ArbBot", &bot, "ApplyFailed", 1.0)).collect();
        assert_eq!(waits[..3], [200, 400, 800].map(Duration::from_millis));
        assert_eq!(waits[11], LONGEST);
        backoff.reset("ArbBot", &bot);
        assert_eq!(backoff.next("ArbBot", &bot, "ApplyFailed", 1.0), FIRST);
    }

    #[test]
    fn objects_do_not_share_a_backoff_and_jitter_only_shortens() {
        let backoff = Backoff::default();
        backoff.next("ArbBot", &"n/a".into(), "ApplyFailed", 1.0);
        assert_eq!(backoff.next("ArbBot", &"n/b".into(), "ApplyFailed", 0.0), FIRST / 2);
        assert_eq!(backoff.next("ArbPolicy", &"n/a".into(), "ApplyFailed", 0.0), FIRST / 2, "of the same name");
    }

    #[test]
    fn the_worst_are_shown_first() {
        let backoff = Backoff::default();
        for key in ["n/a", "n/b", "n/b"] {
            backoff.next("ArbBot", &key.into(), "ApplyFailed", 1.0);
        }
        let (worst, count) = backoff.worst(1);
        assert_eq!((&*worst[0].0.1, worst[0].1.in_a_row, count), ("n/b", 2, 2));
    }
}
