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

impl Bucket {
    fn new(per_second: u32, now: Instant) -> Self {
        Self { interval: Duration::from_secs(1) / per_second.max(1), full_at: now }
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
        let reserved = (per_second / 5).max(1);
        let normal = per_second.saturating_sub(reserved);
        Self { normal: Bucket::new(normal, now), reserved: Bucket::new(reserved, now) }
    }
}

/// The budget. Shared by every call of one client.
#[derive(Debug)]
pub struct Budget(Mutex<Buckets>);

impl Budget {
    /// A full budget.
    pub fn new(per_second: u32) -> Self {
        Self(Mutex::new(Buckets::new(per_second, Instant::now())))
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

    proptest! {
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
