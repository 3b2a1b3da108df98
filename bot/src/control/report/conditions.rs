//! What each of the bot's conditions says. Pure.

mod exchange;
mod position;
mod trading;

#[cfg(test)]
mod tests;

use arbbot_crds::conditions::{ConditionStatus, ConditionType, Reason};
use arbbot_crds::status::DrainPhase;

use super::{Facts, SHUTDOWN};
use crate::control::lease::Standing;

/// One condition before it is set.
type Said = (ConditionType, ConditionStatus, Reason, String);

pub(super) fn said(facts: Facts<'_>) -> Vec<Said> {
    vec![
        control_applied(facts),
        trading::trading(facts),
        position::halted(facts),
        position::flat(facts),
        position::within_limits(facts),
        exchange::credentials(facts),
        exchange::connected(facts),
        position::reconciled(facts),
        position::collateral(facts),
    ]
}

fn say(type_: ConditionType, status: impl Into<ConditionStatus>, reason: Reason, message: impl Into<String>) -> Said {
    (type_, status.into(), reason, message.into())
}

fn control_applied(facts: Facts<'_>) -> Said {
    let type_ = ConditionType::ControlApplied;
    let unreadable = &facts.control.unreadable_policies;
    if facts.control.generation.is_none() {
        say(type_, false, Reason::Starting, "the bot has not yet read its ArbBot and every ArbPolicy")
    } else if let Some(Standing::Waiting { why, .. }) = &facts.control.standing {
        say(type_, true, Reason::LeaseNotHeld, format!("in force, but this pod is not the trader: {why}"))
    } else if !facts.control.unreadable.is_empty() {
        let fields = facts.control.unreadable.join("; ");
        let message = format!(
            "{fields}. What can be read is in force and everything else as it was before; nothing is loosened or released until it is mended"
        );
        say(type_, false, Reason::InvalidSpec, message)
    } else if !unreadable.is_empty() {
        let names = unreadable.join(", ");
        let message = format!("in force; the selector of ArbPolicy {names} cannot be read, so it is obeyed: mend it");
        say(type_, true, Reason::SelectorUnreadable, message)
    } else if facts.control.is_release_refused {
        let message =
            "in force but for the release: the ledger does not take it, so the incident stays open; it is tried again";
        say(type_, false, Reason::LedgerUnwritable, message)
    } else if !facts.view.guards.problems.is_empty() {
        let problems = facts.view.guards.problems.join("; ");
        say(type_, false, Reason::GuardInvalid, format!("{problems}. Everything else is in force"))
    } else {
        say(type_, true, Reason::Applied, "spec and policies are in force at the gate")
    }
}

/// Whether this is the last word of a bot that has drained.
fn has_stopped(facts: Facts<'_>) -> bool {
    let stops = facts.restrictions.iter().any(|restriction| restriction.source == SHUTDOWN);
    stops && facts.drain_message().is_some_and(|(phase, _)| phase == DrainPhase::Finished)
}
