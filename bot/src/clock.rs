//! Clocks, injected so that a test can set them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// CLOCK_BOOTTIME of a virtual machine at its start: up for a day, so that "a minute ago" is never before the boot.
const UP_FOR: Duration = Duration::from_secs(86_400);

/// A step of the machine's clock by more than this is not believed until the exchange shows the same time.
pub const BELIEVED: SignedDuration = SignedDuration::from_secs(30);

/// The clocks of the program, or clocks of a test.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
    /// Wall-clock time less CLOCK_BOOTTIME as last believed, in nanoseconds.
    believed: Arc<AtomicI64>,
    /// By how much a test has set the machine's clock, in nanoseconds.
    stepped: Arc<AtomicI64>,
}

#[derive(Clone, Debug)]
enum Source {
    System,
    /// Moved by hand.
    Manual(Arc<AtomicI64>),
    /// Follows tokio's clock.
    Tokio {
        start: Timestamp,
        origin: Instant,
    },
}

impl Clock {
    /// The machine's clocks.
    #[must_use]
    pub fn system() -> Self {
        Self::of(Source::System)
    }

    /// Clocks that stand at zero until they are moved.
    #[must_use]
    pub fn manual() -> Self {
        Self::of(Source::Manual(Arc::default()))
    }

    /// Clocks that show `start` now and then follow tokio's: in a current-thread runtime whose time is paused, a day
    /// passes in seconds and the same way each time. Call it inside the runtime.
    #[must_use]
    pub fn driven_by_tokio(start: Timestamp) -> Self {
        Self::of(Source::Tokio { start, origin: Instant::now() })
    }

    /// Whether time may jump while something outside the runtime, a disk say, is waited for.
    #[must_use]
    pub fn is_driven_by_tokio(&self) -> bool {
        matches!(self.source, Source::Tokio { .. })
    }

    /// Moves manual clocks; does nothing to others.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(manual) = &self.source {
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

    /// Wall-clock time, for records and for the venue. It follows the machine's clock, but not where that steps by more
    /// than [`BELIEVED`]: then it goes on as CLOCK_BOOTTIME does until [`Self::believe_the_machine`], so that no end of an
    /// order, no hour of funding and no window of a guard moves with it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let (boot, machine) = (self.boottime(), self.machine());
        let steady = self.steady(boot);
        if machine.duration_since(steady).abs() > BELIEVED {
            return steady;
        }
        self.believe(boot, machine);
        machine
    }

    /// The machine's wall clock, whatever it shows.
    #[must_use]
    pub fn machine(&self) -> Timestamp {
        let virtual_time = |start: Timestamp, since: Duration| {
            let stepped = SignedDuration::from_nanos(self.stepped.load(Ordering::SeqCst));
            start.checked_add(since).and_then(|time| time.checked_add(stepped)).unwrap_or(Timestamp::MAX)
        };
        match &self.source {
            Source::System => Timestamp::now(),
            Source::Manual(_) => virtual_time(Timestamp::UNIX_EPOCH, self.boottime()),
            Source::Tokio { start, origin } => virtual_time(*start, origin.elapsed()),
        }
    }

    /// How far the machine's clock is ahead of [`Self::now`]: a step that is not believed.
    #[must_use]
    pub fn unbelieved(&self) -> SignedDuration {
        self.machine().duration_since(self.now())
    }

    /// Takes the machine's clock as it is: the exchange's shows the same.
    pub fn believe_the_machine(&self) {
        self.believe(self.boottime(), self.machine());
    }

    /// Sets the machine's clock of a test, relative to what it shows; does nothing to the real one.
    pub fn step(&self, by: SignedDuration) {
        let nanos = i64::try_from(by.as_nanos()).unwrap_or_default();
        self.stepped.fetch_add(nanos, Ordering::SeqCst);
    }

    fn of(source: Source) -> Self {
        let clock = Self { source, believed: Arc::default(), stepped: Arc::default() };
        clock.believe_the_machine();
        clock
    }

    fn believe(&self, boot: Duration, machine: Timestamp) {
        let since = machine.as_nanosecond() - i128::try_from(boot.as_nanos()).unwrap_or_default();
        self.believed.store(i64::try_from(since).unwrap_or_default(), Ordering::SeqCst);
    }

    fn steady(&self, boot: Duration) -> Timestamp {
        let since = i128::from(self.believed.load(Ordering::SeqCst));
        Timestamp::from_nanosecond(since.saturating_add_unsigned(boot.as_nanos())).unwrap_or(Timestamp::MAX)
    }

    fn read(&self, id: ClockId) -> Duration {
        match &self.source {
            Source::System => {
                let time = clock_gettime(id);
                Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
            }
            Source::Manual(manual) => Duration::from_nanos(manual.load(Ordering::SeqCst).unsigned_abs()),
            Source::Tokio { origin, .. } => UP_FOR.saturating_add(origin.elapsed()),
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_moves_no_time_until_it_is_believed() {
        let clock = Clock::manual();
        clock.advance(Duration::from_secs(10_000));
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        for hours in [1, -1] {
            let step = SignedDuration::from_hours(hours);
            let before = clock.now();
            clock.step(step);
            clock.advance(Duration::from_secs(7));
            assert_eq!(clock.now(), before + SignedDuration::from_secs(7));
            assert_eq!(clock.unbelieved(), step);
            // It is set right again; what is small is followed at once.
            clock.step(-step + SignedDuration::from_secs(2));
            assert_eq!(clock.now(), before + SignedDuration::from_secs(9));
        }
        let clock = Clock::manual();
        clock.advance(Duration::from_secs(10_000));
        clock.step(SignedDuration::from_hours(1));
        assert_eq!(clock.now(), at(10_000));
        clock.believe_the_machine();
        assert_eq!((clock.now(), clock.unbelieved()), (at(13_600), SignedDuration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn clocks_that_tokio_drives_advance_together() {
        let start: Timestamp = "2026-11-16T00:00:00Z".parse().unwrap();
        let clock = Clock::driven_by_tokio(start);
        let (boot, monotonic) = (clock.boottime(), clock.monotonic_ns());
        assert_eq!(clock.now(), start);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(clock.boottime() - boot, Duration::from_secs(3600));
        assert_eq!(clock.monotonic_ns() - monotonic, 3_600_000_000_000);
        assert_eq!(clock.now(), start + SignedDuration::from_hours(1));
    }
}
