//! The time of a drain: since when, how much of `drainTimeout` has counted, and what it waits for (SAFETY §5).
//!
//! The orders of a drain are the strategy's ([`crate::strategy::funding_carry::drain`]); this page only says how far it
//! is. Time counts only while orders could be sent: session open, entry not halted, in contact.

use std::time::Duration;

use arbbot_crds::arbbot::OnDrainTimeout;
use arbbot_crds::control::{Duty, Entry, Restriction};
use arbbot_crds::status::{DrainPhase, DrainStatus};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a drain that an earlier process began has left at least: how long nobody closed anything, no status says.
const LEFT_AFTER_A_RESTART: Duration = Duration::from_secs(60);

/// Who demands a drain, and who holds it up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// Source of the drain, for example `spec.mode` or `ArbPolicy/desk`.
    pub source: String,
    /// Source that holds entry Halted meanwhile.
    pub halted_by: Option<String>,
}

impl Demand {
    /// The demand in these restrictions, if any of them demands a drain.
    #[must_use]
    pub fn of(restrictions: &[Restriction]) -> Option<Self> {
        let drain = restrictions.iter().find(|restriction| restriction.duty == Duty::Drain)?;
        let halt = restrictions.iter().find(|restriction| restriction.entry == Entry::Halted);
        Some(Self { source: drain.source.clone(), halted_by: halt.map(|halt| halt.source.clone()) })
    }
}

/// What a drain may take, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    pub timeout: Duration,
    pub on_timeout: OnDrainTimeout,
}

/// A drain under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    pub demand: Demand,
    started_at: Timestamp,
    /// What had counted when it last began to count.
    counted: Duration,
    /// Since when it counts, on CLOCK_BOOTTIME and on the wall clock; None: the time stands still.
    counting: Option<(Duration, Timestamp)>,
    /// The deadline that an earlier process wrote, until this one counts: status must not forget it meanwhile.
    promised: Option<Timestamp>,
}

/// A drain, for status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainView {
    pub demand: Demand,
    pub started_at: Timestamp,
    pub phase: DrainPhase,
    /// When `onDrainTimeout` applies; None while the time stands still and once it is over.
    pub deadline: Option<Timestamp>,
}

impl Drain {
    /// A drain that begins now.
    #[must_use]
    pub fn begin(demand: Demand, now: Timestamp) -> Self {
        Self { demand, started_at: now, counted: Duration::ZERO, counting: None, promised: None }
    }

    /// A drain that an earlier process began and described in status. Its deadline goes on to count, and one that was
    /// over has a little time again, because status may describe an earlier drain; where the time stood still, status
    /// does not say how much had counted, and it counts anew.
    #[must_use]
    pub fn resumed(demand: Demand, before: &DrainStatus, timeout: Duration, now: Timestamp) -> Self {
        let left = match (before.phase, &before.deadline) {
            (DrainPhase::TimedOut, _) => LEFT_AFTER_A_RESTART.min(timeout),
            (_, Some(deadline)) => Duration::try_from(deadline.0.duration_since(now))
                .unwrap_or_default()
                .clamp(LEFT_AFTER_A_RESTART.min(timeout), timeout),
            (_, None) => timeout,
        };
        let promised = before.deadline.as_ref().map(|deadline| deadline.0);
        Self { counted: timeout - left, started_at: before.started_at.0, promised, ..Self::begin(demand, now) }
    }

    /// The same drain under another demand: it goes on.
    #[must_use]
    pub fn demanded(self, demand: Demand) -> Self {
        Self { demand, ..self }
    }

    /// Lets the time run or stand still from now on.
    pub fn count(&mut self, counts: bool, boot: Duration, wall: Timestamp) {
        match (counts, self.counting) {
            (true, None) => {
                self.counting = Some((boot, wall));
                self.promised = None;
            }
            (false, Some(_)) => {
                self.counted = self.elapsed(boot);
                self.counting = None;
            }
            _ => {}
        }
    }

    /// What has counted so far.
    fn elapsed(&self, boot: Duration) -> Duration {
        self.counted + self.counting.map_or(Duration::ZERO, |(since, _)| boot.saturating_sub(since))
    }

    /// Whether it has taken longer than it may.
    #[must_use]
    pub fn is_over(&self, terms: Terms, boot: Duration) -> bool {
        self.elapsed(boot) >= terms.timeout
    }

    /// Whether what is left is to be closed as a kill does.
    #[must_use]
    pub fn escalates(&self, terms: Terms, boot: Duration) -> bool {
        terms.on_timeout == OnDrainTimeout::Flatten && self.is_over(terms, boot)
    }

    /// How far it is. `proven`: the exchange has shown twice that nothing is left; `waits_for_session`: contracts are
    /// left and the session is closed.
    #[must_use]
    pub fn view(&self, terms: Terms, proven: bool, waits_for_session: bool, boot: Duration) -> DrainView {
        let phase = if proven {
            DrainPhase::Finished
        } else if self.escalates(terms, boot) {
            DrainPhase::TimedOut
        } else if self.demand.halted_by.is_some() {
            DrainPhase::HeldByHalt
        } else if self.is_over(terms, boot) {
            DrainPhase::TimedOut
        } else if waits_for_session {
            DrainPhase::FuturesSessionClosed
        } else {
            DrainPhase::ClosingPosition
        };
        let left = terms.timeout.saturating_sub(self.counted);
        let counted_to = self.counting.and_then(|(_, wall)| wall.checked_add(left).ok());
        let deadline = counted_to.or(self.promised).filter(|_| phase == DrainPhase::ClosingPosition);
        DrainView { demand: self.demand.clone(), started_at: self.started_at, phase, deadline }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use proptest::prelude::*;

    use super::*;

    const HOLD: Terms = Terms { timeout: Duration::from_secs(600), on_timeout: OnDrainTimeout::Hold };

    fn demand() -> Demand {
        Demand { source: "spec.mode".into(), halted_by: None }
    }

    fn at(second: u64) -> (Duration, Timestamp) {
        (Duration::from_secs(second), Timestamp::from_second(second.cast_signed()).unwrap())
    }

    fn run(drain: &mut Drain, counts: bool, second: u64) {
        let (boot, wall) = at(second);
        drain.count(counts, boot, wall);
    }

    #[test]
    fn the_deadline_moves_by_as_long_as_the_time_stood_still() {
        let mut drain = Drain::begin(demand(), at(1000).1);
        run(&mut drain, true, 1000);
        assert_eq!(drain.view(HOLD, false, false, at(1000).0).deadline, Some(at(1600).1));
        run(&mut drain, false, 1100);
        assert_eq!(drain.view(HOLD, false, true, at(5000).0).deadline, None);
        assert!(!drain.is_over(HOLD, at(5000).0), "a closed session does not count");
        run(&mut drain, true, 5000);
        let view = drain.view(HOLD, false, false, at(5001).0);
        assert_eq!((view.phase, view.deadline), (DrainPhase::ClosingPosition, Some(at(5500).1)));
        assert_eq!(drain.view(HOLD, false, false, at(5500).0).phase, DrainPhase::TimedOut);
        assert_eq!(view.started_at, at(1000).1);
    }

    #[test]
    fn a_longer_timeout_ends_a_timeout() {
        let mut drain = Drain::begin(demand(), at(0).1);
        run(&mut drain, true, 0);
        assert!(drain.is_over(HOLD, at(601).0));
        assert!(!drain.is_over(Terms { timeout: Duration::from_secs(1200), ..HOLD }, at(601).0));
    }

    #[test]
    fn a_halt_is_named_before_a_timeout_that_only_holds_and_after_one_that_flattens() {
        let mut drain = Drain::begin(Demand { halted_by: Some("ArbPolicy/desk".into()), ..demand() }, at(0).1);
        drain.counted = HOLD.timeout;
        assert_eq!(drain.view(HOLD, false, false, at(1).0).phase, DrainPhase::HeldByHalt);
        let flatten = Terms { on_timeout: OnDrainTimeout::Flatten, ..HOLD };
        assert_eq!(drain.view(flatten, false, false, at(1).0).phase, DrainPhase::TimedOut);
        assert_eq!(drain.view(flatten, true, false, at(1).0).phase, DrainPhase::Finished);
    }

    fn status(phase: DrainPhase, deadline: Option<u64>) -> DrainStatus {
        DrainStatus { started_at: Time(at(1000).1), phase, deadline: deadline.map(|second| Time(at(second).1)) }
    }

    #[test]
    fn a_restart_keeps_the_beginning_and_the_deadline() {
        let before = status(DrainPhase::ClosingPosition, Some(1600));
        let mut drain = Drain::resumed(demand(), &before, HOLD.timeout, at(1200).1);
        assert_eq!(drain.view(HOLD, false, false, at(1200).0).deadline, Some(at(1600).1), "before it counts, too");
        run(&mut drain, true, 1200);
        let view = drain.view(HOLD, false, false, at(1200).0);
        assert_eq!((view.started_at, view.deadline), (at(1000).1, Some(at(1600).1)));
        let mut over = Drain::resumed(demand(), &status(DrainPhase::TimedOut, None), HOLD.timeout, at(1200).1);
        run(&mut over, true, 1200);
        assert!(!over.is_over(HOLD, at(1259).0), "it may have been an earlier drain");
        assert!(over.is_over(HOLD, at(1260).0));
    }

    #[test]
    fn a_deadline_that_passed_while_no_pod_ran_leaves_a_minute_to_close_maker_first() {
        let before = status(DrainPhase::ClosingPosition, Some(1600));
        let mut drain = Drain::resumed(demand(), &before, HOLD.timeout, at(9000).1);
        run(&mut drain, true, 9000);
        assert_eq!(drain.view(HOLD, false, false, at(9000).0).deadline, Some(at(9060).1));
    }

    proptest! {
        /// SAFETY §5: only time in which orders could be sent counts, however often it stops and goes on.
        #[test]
        fn exactly_the_time_that_counts_counts(pieces in prop::collection::vec((any::<bool>(), 0u64..100), 0..30)) {
            let mut drain = Drain::begin(demand(), at(0).1);
            let (mut now, mut counted) = (0, 0);
            for (counts, seconds) in pieces {
                run(&mut drain, counts, now);
                now += seconds;
                counted += if counts { seconds } else { 0 };
            }
            prop_assert_eq!(drain.elapsed(at(now).0), Duration::from_secs(counted));
        }
    }
}
