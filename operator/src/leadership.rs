//! Whether this process leads, and until when. Leadership ends by itself: nobody has to be asked.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Time since the machine started, also while it was suspended: another leader may have come meanwhile.
fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A moment of the clock that leadership is measured by.
#[derive(Clone, Copy, Debug)]
pub struct Moment(Duration);

impl Moment {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self(now())
    }
}

/// Leadership of this process.
#[derive(Debug)]
pub struct Leadership {
    /// Microseconds on the clock of [`now`]. 0: not the leader.
    until: AtomicU64,
    leads: watch::Sender<bool>,
    /// Writes that are under way.
    writes: TaskTracker,
}

impl Leadership {
    /// Of a process that does not lead yet.
    #[must_use]
    pub fn none() -> Self {
        Self { until: AtomicU64::new(0), leads: watch::Sender::new(false), writes: TaskTracker::new() }
    }

    /// Of a process that is alone.
    #[must_use]
    pub fn always() -> Self {
        Self { until: AtomicU64::new(u64::MAX), leads: watch::Sender::new(true), writes: TaskTracker::new() }
    }

    /// Whether it leads at this moment.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.remaining().is_some()
    }

    /// The right to one write, to be held while it is under way. None: it does not lead, or is about to end.
    #[must_use]
    pub fn write(&self) -> Option<TaskTrackerToken> {
        // Counted before the question, so that the last wait misses none.
        let write = self.writes.token();
        (self.is_leader() && !self.writes.is_closed()).then_some(write)
    }

    /// From here on no write begins, although it still leads. Waits for those under way, and returns whether all of them
    /// have ended `within` this time.
    pub async fn finish_writes(&self, within: Duration) -> bool {
        self.writes.close();
        tokio::time::timeout(within, self.writes.wait()).await.is_ok()
    }

    /// How long it leads without another renewal. None: it does not.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        match self.until.load(Ordering::Acquire) {
            u64::MAX => Some(Duration::MAX),
            until => Duration::from_micros(until).checked_sub(now()).filter(|left| !left.is_zero()),
        }
    }

    /// It leads for this long from the moment at which the renewal was sent.
    pub fn extend(&self, sent: Moment, lasts: Duration) {
        self.until.store(micros(sent.0 + lasts), Ordering::Release);
        self.leads.send_if_modified(|leads| !std::mem::replace(leads, true));
    }

    /// It does not lead any more.
    pub fn end(&self) {
        self.until.store(0, Ordering::Release);
        self.leads.send_if_modified(|leads| std::mem::replace(leads, false));
    }

    /// Waits until it leads.
    pub async fn begun(&self) {
        let mut leads = self.leads.subscribe();
        // The sender is in `self`: the channel is never closed.
        let _ = leads.wait_for(|leads| *leads).await;
    }

    /// Waits until it does not lead any more, also if nobody says so.
    pub fn ended(&self) -> impl Future<Output = ()> + use<'_> {
        let mut leads = self.leads.subscribe();
        async move {
            while let Some(left) = self.remaining() {
                let left = left.min(Duration::from_secs(3600));
                tokio::select! {
                    () = tokio::time::sleep(left) => {}
                    _ = leads.wait_for(|leads| !*leads) => return,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn leadership_ends_by_itself_at_its_deadline() {
        let leadership = Leadership::none();
        leadership.extend(Moment::now(), Duration::from_millis(50));
        assert!(leadership.is_leader());
        tokio::time::timeout(Duration::from_secs(5), leadership.ended()).await.expect("it goes on for ever");
        assert!(!leadership.is_leader());
    }

    #[tokio::test]
    async fn the_last_write_is_waited_for_and_none_begins_after_it() {
        let leadership = Leadership::none();
        assert!(leadership.write().is_none(), "it does not lead");
        leadership.extend(Moment::now(), Duration::from_secs(60));
        let write = leadership.write().unwrap();
        assert!(!leadership.finish_writes(Duration::from_millis(20)).await, "one is under way");
        assert!(leadership.write().is_none() && leadership.is_leader());
        drop(write);
        assert!(leadership.finish_writes(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_renewal_counts_from_when_it_was_sent() {
        let leadership = Leadership::none();
        let sent = Moment::now();
        tokio::time::sleep(Duration::from_millis(30)).await;
        leadership.extend(sent, Duration::from_millis(20));
        assert!(!leadership.is_leader(), "the answer came after the deadline");
    }
}
