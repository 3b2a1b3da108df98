//! The clocks of the running exchange; the only place that reads them.

use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};

use crate::exchange::Now;

/// Exchange time: the wall clock, running `speed` times as fast from the start.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Timestamp,
    start_monotonic_ns: u64,
    speed: u32,
}

impl Clock {
    pub fn new(speed: u32) -> Self {
        Self { start: Timestamp::now(), start_monotonic_ns: nanoseconds(ClockId::Monotonic), speed: speed.max(1) }
    }

    pub fn now(&self) -> Now {
        let monotonic_ns = nanoseconds(ClockId::Monotonic);
        let elapsed = monotonic_ns.saturating_sub(self.start_monotonic_ns).saturating_mul(u64::from(self.speed));
        let elapsed = SignedDuration::from_nanos(i64::try_from(elapsed).unwrap_or(i64::MAX));
        let time = self.start.checked_add(elapsed).unwrap_or(Timestamp::MAX);
        Now { time, monotonic_ns, boottime_ns: nanoseconds(ClockId::Boottime) }
    }

    /// Unix seconds of the real clock: clients sign their tokens with theirs, which `speed` does not touch.
    pub fn token_time() -> i64 {
        Timestamp::now().as_second()
    }
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
