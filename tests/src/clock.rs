//! The one clock of all measurements: `CLOCK_MONOTONIC` of this host, which the bot and the exchange report too.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Never negative on Linux.
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Milliseconds from `start` to `end`, negative if `end` is earlier.
#[allow(clippy::cast_precision_loss)] // 53 bits of nanoseconds are 104 days
pub fn milliseconds(start: u64, end: u64) -> f64 {
    if end >= start { (end - start) as f64 / 1e6 } else { -((start - end) as f64) / 1e6 }
}
