//! The clocks of the running exchange; the only place that reads them.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::exchange::Now;

/// Exchange time, and how far clients see it wrong.
#[derive(Debug)]
pub struct Clock {
    source: Source,
    /// Milliseconds that the time shown to clients is ahead (the fault `clock_skew`).
    skew_ms: AtomicI64,
}

#[derive(Debug)]
enum Source {
    /// The wall clock, running `speed` times as fast from the start.
    Real { start: Timestamp, start_monotonic_ns: u64, speed: u32 },
    /// tokio's clock: in a current-thread runtime with `start_paused` time jumps to the next timer whenever
    /// everybody waits, so that a day passes in seconds and the same way each time.
    Virtual { start: Timestamp, origin: Instant },
}

impl Clock {
    /// `speed` exchange seconds pass per real second.
    pub fn real(speed: u32) -> Self {
        let source = Source::Real {
            start: Timestamp::now(),
            start_monotonic_ns: nanoseconds(ClockId::Monotonic),
            speed: speed.max(1),
        };
        Self { source, skew_ms: AtomicI64::new(0) }
    }

    /// A clock that shows `start` now and then follows tokio's; call it inside the runtime.
    pub fn driven_by_tokio(start: Timestamp) -> Self {
        Self { source: Source::Virtual { start, origin: Instant::now() }, skew_ms: AtomicI64::new(0) }
    }

    pub fn now(&self) -> Now {
        match self.source {
            Source::Real { start, start_monotonic_ns, speed } => {
                let monotonic_ns = nanoseconds(ClockId::Monotonic);
                let elapsed = monotonic_ns.saturating_sub(start_monotonic_ns).saturating_mul(u64::from(speed));
                Now { time: after(start, elapsed), monotonic_ns, boottime_ns: nanoseconds(ClockId::Boottime) }
            }
            Source::Virtual { start, origin } => {
                let elapsed = u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
                Now { time: after(start, elapsed), monotonic_ns: elapsed, boottime_ns: elapsed }
            }
        }
    }

    /// The time that clients are shown: the exchange's, and the skew.
    pub fn shown(&self) -> Timestamp {
        self.skewed(self.now().time)
    }

    /// Unix seconds that tokens are checked at. With a real clock it is the unaccelerated one: clients sign with
    /// theirs, which `speed` does not touch.
    pub fn token_time(&self) -> i64 {
        let time = match self.source {
            Source::Real { .. } => Timestamp::now(),
            Source::Virtual { .. } => self.now().time,
        };
        self.skewed(time).as_second()
    }

    /// Shows clients a time that is `milliseconds` ahead; 0 ends it.
    pub fn set_skew(&self, milliseconds: i64) {
        self.skew_ms.store(milliseconds, Ordering::Relaxed);
    }

    fn skewed(&self, time: Timestamp) -> Timestamp {
        let skew = SignedDuration::from_millis(self.skew_ms.load(Ordering::Relaxed));
        time.checked_add(skew).unwrap_or(time)
    }
}

fn after(start: Timestamp, nanoseconds: u64) -> Timestamp {
    let elapsed = SignedDuration::from_nanos(i64::try_from(nanoseconds).unwrap_or(i64::MAX));
    start.checked_add(elapsed).unwrap_or(Timestamp::MAX)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
