//! Clocks, injected so that a test can set them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// CLOCK_BOOTTIME of a virtual machine at its start: up for a day, so that "a minute ago" is never before the boot.
const UP_FOR: Duration = Duration::from_secs(86_400);

/// The clocks of the program, or clocks of a test.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    System,
    /// Moved by hand.
    Manual(Arc<AtomicI64>),
    /// Follows tokio's clock.
    Tokio { start: Timestamp, origin: Instant },
}

impl Clock {
    /// The machine's clocks.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// Clocks that stand at zero until they are moved.
    #[must_use]
    pub fn manual() -> Self {
        Self(Source::Manual(Arc::default()))
    }

    /// Clocks that show `start` now and then follow tokio's: in a current-thread runtime whose time is paused, a day
    /// passes in seconds and the same way each time. Call it inside the runtime.
    #[must_use]
    pub fn driven_by_tokio(start: Timestamp) -> Self {
        Self(Source::Tokio { start, origin: Instant::now() })
    }

    /// Whether time may jump while something outside the runtime, a disk say, is waited for.
    #[must_use]
    pub fn is_driven_by_tokio(&self) -> bool {
        matches!(self.0, Source::Tokio { .. })
    }

    /// Moves manual clocks; does nothing to others.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(manual) = &self.0 {
            manual.fetch_add(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }

    /// CLOCK_BOOTTIME: runs during suspend, never steps. For every timeout that guards money.
    #[must_use]
    pub fn boottime(&self) -> Duration {
        self.read(ClockId::Boottime)
    }

    /// CLOCK_MONOTONIC in nanoseconds: comparable between the processes of one host.
    #[must_use]
    pub fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.read(ClockId::Monotonic).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Wall-clock time, for records and for the venue.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let virtual_time = |start: Timestamp, since| start.checked_add(since).unwrap_or(Timestamp::MAX);
        match &self.0 {
            Source::System => Timestamp::now(),
            Source::Manual(_) => virtual_time(Timestamp::UNIX_EPOCH, self.boottime()),
            Source::Tokio { start, origin } => virtual_time(*start, origin.elapsed()),
        }
    }

    fn read(&self, id: ClockId) -> Duration {
        match &self.0 {
            Source::System => {
                let time = clock_gettime(id);
                Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
            }
            Source::Manual(manual) => Duration::from_nanos(manual.load(Ordering::SeqCst).unsigned_abs()),
            Source::Tokio { origin, .. } => UP_FOR.saturating_add(origin.elapsed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn clocks_that_tokio_drives_advance_together() {
        let start: Timestamp = "2026-11-16T00:00:00Z".parse().unwrap();
        let clock = Clock::driven_by_tokio(start);
        let (boot, monotonic) = (clock.boottime(), clock.monotonic_ns());
        assert_eq!(clock.now(), start);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(clock.boottime() - boot, Duration::from_secs(3600));
        assert_eq!(clock.monotonic_ns() - monotonic, 3_600_000_000_000);
        assert_eq!(clock.now(), start + k8s_openapi::jiff::SignedDuration::from_hours(1));
    }
}
