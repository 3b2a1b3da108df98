//! Backoff of each ArbBot by itself: doubled with every failure in a row, jittered, reset by a success.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use arbbot_crds::ArbBot;
use kube::runtime::reflector::ObjectRef;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(60);

/// Failures in a row of each ArbBot.
#[derive(Default)]
pub struct Backoff {
    failures: Mutex<HashMap<ObjectRef<ArbBot>, u32>>,
}

impl Backoff {
    /// Forgets the failures: the reconcile succeeded, or the bot is gone.
    pub fn reset(&self, bot: &ObjectRef<ArbBot>) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(bot);
    }

    /// Counts a failure and says how long to wait. `jitter` is in 0..1.
    pub fn next(&self, bot: ObjectRef<ArbBot>, jitter: f64) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(bot).or_insert(0);
        let delay = delay(*count, jitter);
        *count = count.saturating_add(1);
        delay
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
        let bot = ObjectRef::new("a").within("n");
        let waits: Vec<_> = (0..12).map(|_| backoff.next(bot.clone(), 1.0)).collect();
        assert_eq!(waits[..3], [200, 400, 800].map(Duration::from_millis));
        assert_eq!(waits[11], LONGEST);
        backoff.reset(&bot);
        assert_eq!(backoff.next(bot, 1.0), FIRST);
    }

    #[test]
    fn bots_do_not_share_a_backoff_and_jitter_only_shortens() {
        let backoff = Backoff::default();
        backoff.next(ObjectRef::new("a").within("n"), 1.0);
        assert_eq!(backoff.next(ObjectRef::new("b").within("n"), 0.0), FIRST / 2);
    }
}
