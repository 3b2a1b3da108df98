//! The bot's share of the venue's rate limit, a part of which is kept for cancels and closes.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Who may use the part that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    Normal,
    /// Cancels, closes and whatever else lowers a risk: they must never wait behind quotes.
    Reserved,
}

/// So many calls per second, with bursts of up to one second's worth (the "generic cell rate algorithm").
#[derive(Clone, Copy, Debug)]
struct Bucket {
    interval: Duration,
    /// When the bucket would be full again.
    full_at: Instant,
}

fn interval(per_second: u32) -> Duration {
    Duration::from_secs(1) / per_second.max(1)
}

impl Bucket {
    fn new(per_second: u32, now: Instant) -> Self {
        Self { interval: interval(per_second), full_at: now }
    }

    /// Takes a token, or says when there is one.
    fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let full_at = self.full_at.max(now) + self.interval;
        match full_at.checked_sub(Duration::from_secs(1)) {
            Some(earliest) if earliest > now => Err(earliest),
            _ => {
                self.full_at = full_at;
                Ok(())
            }
        }
    }
}

#[derive(Debug)]
struct Buckets {
    normal: Bucket,
    reserved: Bucket,
}

impl Buckets {
    /// A fifth, at least one call per second, is kept.
    fn new(per_second: u32, now: Instant) -> Self {
        let (normal, reserved) = shares(per_second);
        Self { normal: Bucket::new(normal, now), reserved: Bucket::new(reserved, now) }
    }
}

fn shares(per_second: u32) -> (u32, u32) {
    let reserved = (per_second / 5).max(1);
    (per_second.saturating_sub(reserved), reserved)
}

/// The budget. Shared by every client of the account: a change of key or endpoint brings no second one.
#[derive(Debug)]
pub struct Budget(Mutex<Buckets>);

impl Budget {
    /// A full budget.
    pub fn new(per_second: u32) -> Self {
        Self(Mutex::new(Buckets::new(per_second, Instant::now())))
    }

    /// Changes the rate; what is used up stays used up.
    pub fn set_rate(&self, per_second: u32) {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (normal, reserved) = shares(per_second);
        (buckets.normal.interval, buckets.reserved.interval) = (interval(normal), interval(reserved));
    }

    /// The venue says that the user's budget is exhausted: quotes wait a second, cancels keep their part.
    pub fn exhausted(&self) {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = Instant::now() + Duration::from_secs(2);
        buckets.normal.full_at = buckets.normal.full_at.max(full_at);
    }

    /// Waits until a call may be made. The caller bounds the wait.
    pub async fn acquire(&self, priority: Priority) {
        while let Err(at) = self.take(priority, Instant::now()) {
            sleep_until(at).await;
        }
    }

    /// Whether a call may be made now.
    pub fn try_acquire(&self, priority: Priority) -> bool {
        self.take(priority, Instant::now()).is_ok()
    }

    fn take(&self, priority: Priority, now: Instant) -> Result<(), Instant> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match priority {
            Priority::Normal => buckets.normal.take(now),
            Priority::Reserved => {
                let Err(reserved) = buckets.reserved.take(now) else { return Ok(()) };
                buckets.normal.take(now).map_err(|normal| normal.min(reserved))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(budget: &Budget, priority: Priority, now: Instant) -> usize {
        std::iter::repeat_with(|| budget.take(priority, now)).take_while(Result::is_ok).count()
    }

    #[test]
    fn quotes_leave_a_fifth_to_cancels() {
        let (budget, now) = (Budget::new(10), Instant::now());
        assert_eq!(taken(&budget, Priority::Normal, now), 8);
        assert_eq!(taken(&budget, Priority::Reserved, now), 2);
    }

    #[test]
    fn cancels_may_use_everything() {
        let (budget, now) = (Budget::new(10), Instant::now());
        assert_eq!(taken(&budget, Priority::Reserved, now), 10);
        assert_eq!(taken(&budget, Priority::Normal, now), 0);
    }

    #[test]
    fn the_smallest_budget_keeps_one_call_per_second() {
        let (budget, now) = (Budget::new(2), Instant::now());
        assert_eq!(taken(&budget, Priority::Normal, now), 1);
        assert_eq!(taken(&budget, Priority::Reserved, now), 1);
    }

    #[test]
    fn a_call_is_told_when_its_turn_comes() {
        let (budget, now) = (Budget::new(5), Instant::now());
        assert_eq!(taken(&budget, Priority::Normal, now), 4);
        let turn = budget.take(Priority::Normal, now).unwrap_err();
        assert!(turn > now && turn <= now + Duration::from_millis(250));
        assert_eq!(taken(&budget, Priority::Normal, turn), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_exhausted_budget_makes_quotes_wait_and_lets_cancels_through() {
        let budget = Budget::new(10);
        budget.exhausted();
        assert!(!budget.try_acquire(Priority::Normal));
        assert!(budget.try_acquire(Priority::Reserved));
        let began = Instant::now();
        budget.acquire(Priority::Normal).await;
        let waited = began.elapsed();
        assert!(waited >= Duration::from_secs(1) && waited < Duration::from_millis(1300), "{waited:?}");
    }

    #[test]
    fn another_rate_gives_no_new_burst() {
        let (budget, now) = (Budget::new(10), Instant::now());
        taken(&budget, Priority::Reserved, now);
        budget.set_rate(30);
        assert_eq!(taken(&budget, Priority::Reserved, now), 0);
        assert!(taken(&budget, Priority::Normal, now + Duration::from_secs(1)) > 8);
    }

    proptest! {
        /// Invariant 14: however many quotes are sent, and whatever the venue says of the budget, a cancel that follows
        /// the last one by a second goes at once. Proven by mutation: cancels taking from the part of quotes.
        #[test]
        fn a_cancel_never_waits_behind_quotes(
            per_second in 2u32..=30, steps in prop::collection::vec((0u64..1500, 0usize..40, any::<bool>()), 1..60),
        ) {
            let budget = Budget::new(per_second);
            let mut now = Instant::now();
            let mut cancelled_at = None;
            for (milliseconds, quotes, exhausted) in steps {
                now += Duration::from_millis(milliseconds);
                for _ in 0..quotes {
                    budget.take(Priority::Normal, now).ok();
                }
                if exhausted {
                    budget.exhausted();
                }
                let cancelled = budget.take(Priority::Reserved, now).is_ok();
                let rested = cancelled_at.is_none_or(|at| now >= at + Duration::from_secs(1));
                prop_assert!(cancelled || !rested, "a cancel waits");
                cancelled_at = if cancelled { Some(now) } else { cancelled_at };
            }
        }

        #[test]
        fn calls_never_exceed_a_full_budget_plus_what_flows_in(per_second in 2u32..=30, steps in prop::collection::vec(0u64..300, 1..60)) {
            let budget = Budget::new(per_second);
            let start = Instant::now();
            let (mut now, mut calls) = (start, 0u64);
            for step in steps {
                now += Duration::from_millis(step);
                calls += taken(&budget, Priority::Reserved, now) as u64;
                let allowed = u64::from(per_second) + (now - start).as_millis() as u64 * u64::from(per_second) / 1000;
                prop_assert!(calls <= allowed, "{calls} calls, {allowed} allowed");
            }
        }
    }
}
