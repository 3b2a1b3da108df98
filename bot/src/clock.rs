//! Clocks, injected so that a test can set them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// The clocks of the program, or clocks that a test moves by hand.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    manual: Option<Arc<AtomicI64>>,
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
        Self { manual: Some(Arc::new(AtomicI64::new(0))) }
    }

    /// Moves manual clocks; does nothing to the machine's.
    pub fn advance(&self, by: Duration) {
        if let Some(manual) = &self.manual {
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
        match &self.manual {
            Some(_) => Timestamp::UNIX_EPOCH.checked_add(self.boottime()).unwrap_or(Timestamp::MAX),
            None => Timestamp::now(),
        }
    }

    fn read(&self, id: ClockId) -> Duration {
        if let Some(manual) = &self.manual {
            return Duration::from_nanos(manual.load(Ordering::SeqCst).unsigned_abs());
        }
        let time = clock_gettime(id);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
    }
}
