//! What status says of a drain under way.

use arbbot_crds::conditions::Reason;
use arbbot_crds::status::{DrainPhase, DrainStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::execution::drain::DrainView;

/// `status.bot.drain`.
pub(super) fn status(drain: &DrainView) -> DrainStatus {
    DrainStatus { started_at: Time(drain.started_at), phase: drain.phase, deadline: drain.deadline.map(Time) }
}

/// The reason of a condition that is False because of the drain.
pub(super) fn reason(phase: DrainPhase) -> Reason {
    match phase {
        DrainPhase::HeldByHalt | DrainPhase::Finished => Reason::ModeRestricts,
        DrainPhase::FuturesSessionClosed => Reason::FuturesSessionClosed,
        DrainPhase::ClosingPosition => Reason::Draining,
        DrainPhase::TimedOut => Reason::DrainTimedOut,
    }
}

/// How far it is, and what a person can do. `reopens`: when a closed session opens; `flattens`: what is left is being
/// closed as a kill does.
pub(super) fn message(drain: &DrainView, reopens: Option<Timestamp>, flattens: bool) -> String {
    match drain.phase {
        DrainPhase::HeldByHalt => {
            let halted_by = drain.demand.halted_by.as_deref().unwrap_or("another source");
            let policy =
                if drain.demand.source == "deletion" { " or set deletionPolicy to Flatten or Orphan" } else { "" };
            format!(
                "the drain waits, because {halted_by} holds the bot Halted: end that{policy}, or engage the kill switch \
                 to close the position at once"
            )
        }
        DrainPhase::FuturesSessionClosed => {
            let when = reopens.map_or_else(|| "when it opens".to_owned(), |at| format!("at {at}"));
            format!("the futures session is closed; the drain goes on {when}")
        }
        DrainPhase::ClosingPosition => {
            let until = drain.deadline.map_or_else(String::new, |at| format!("; onDrainTimeout applies at {at:.0}"));
            format!("the position is being closed maker-first{until}")
        }
        DrainPhase::TimedOut if flattens => {
            "the drain took longer than drainTimeout: what is left is being closed as a kill does".to_owned()
        }
        DrainPhase::TimedOut => "the drain took longer than drainTimeout and goes on maker-first without an end: set \
             onDrainTimeout to Flatten or engage the kill switch to close the rest at once, or raise drainTimeout"
            .to_owned(),
        DrainPhase::Finished => "the drain has finished: no order and no position is left".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execution::drain::Demand;

    fn drain(phase: DrainPhase, source: &str) -> DrainView {
        let demand = Demand { source: source.into(), halted_by: Some("ArbPolicy/desk".into()) };
        DrainView { demand, started_at: Timestamp::UNIX_EPOCH, phase, deadline: Some(Timestamp::UNIX_EPOCH) }
    }

    #[test]
    fn a_drain_that_waits_names_who_holds_it_and_both_ways_out() {
        let deleted = message(&drain(DrainPhase::HeldByHalt, "deletion"), None, false);
        for part in ["ArbPolicy/desk", "deletionPolicy", "kill switch"] {
            assert!(deleted.contains(part), "{deleted}");
        }
        assert!(!message(&drain(DrainPhase::HeldByHalt, "spec.mode"), None, false).contains("deletionPolicy"));
    }

    #[test]
    fn a_deadline_is_shown_in_whole_seconds() {
        let words = message(&drain(DrainPhase::ClosingPosition, "spec.mode"), None, false);
        assert!(words.ends_with("1970-01-01T00:00:00Z"), "{words}");
    }
}
