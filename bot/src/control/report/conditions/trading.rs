//! `Trading`: whether entry is open, and otherwise what closes it and what a person does about it.

use arbbot_crds::arbbot::Execution;
use arbbot_crds::conditions::{ConditionType, Reason};
use arbbot_crds::control::{Duty, Entry, GUARD_SOURCE, Restriction};
use arbbot_crds::incident::IncidentId;
use arbbot_crds::status::IncidentStatus;

use super::super::{Claim, Facts, SHUTDOWN, drain};
use super::{Said, say};
use crate::control::lease::Standing;
use crate::control::ledger::SOURCE as LEDGER;
use crate::execution::clock_check::SOURCE as CLOCK;
use crate::execution::engine::{ACCOUNT, DRAIN_TIMEOUT, Reconciliation, View};
use crate::ledger::ProblemKind;
use crate::risk::gate::Contact;
use crate::strategy::funding_carry::edge::Stance;

pub(super) fn trading(facts: Facts<'_>) -> Said {
    let type_ = ConditionType::Trading;
    if let Some(Standing::Waiting { why, .. }) = &facts.control.standing {
        return say(type_, false, Reason::LeaseNotHeld, why.clone());
    }
    if facts.control.generation.is_none() {
        return say(type_, false, Reason::Starting, "the bot has not yet read its ArbBot and every ArbPolicy");
    }
    if facts.contact() > Contact::Fresh {
        return say(
            type_,
            false,
            Reason::ContactLost,
            "contact with the API server, or with the control file, is lost: nothing raises a leg",
        );
    }
    if facts.in_force.entry == Entry::Active && facts.in_force.duty == Duty::Hold {
        return say(type_, true, strategy_reason(facts.view.carry.stance), open(facts));
    }
    let (reason, why) = strongest(facts).map_or((Reason::Starting, "starting".to_owned()), |restriction| {
        let why = match (&facts.session.problem, restriction.source.as_str()) {
            (Some((_, problem)), "exchange") => problem,
            _ => &restriction.why,
        };
        let reason = reason_of(facts, restriction);
        let drain = facts.drain_message().map_or_else(String::new, |(_, message)| format!("; {message}"));
        let message = format!("{}: {why}{drain}", restriction.source);
        (reason, if reason == Reason::KillSwitchEngaged { message + &how_to_release(facts) } else { message })
    });
    say(type_, false, reason, why)
}

/// That entry is open, and what the strategy makes of it.
fn open(facts: Facts<'_>) -> String {
    let open = match facts.session.execution {
        Some(Execution::Paper) => "entry is open, on paper: no order leaves the bot",
        _ => "entry is open",
    };
    match facts.view.carry.why.as_str() {
        "" => open.to_owned(),
        why => format!("{open}; {why}"),
    }
}

fn strategy_reason(stance: Stance) -> Reason {
    match stance {
        Stance::Enter => Reason::EntryOpen,
        Stance::Wait => Reason::NoEdge,
        Stance::Exit => Reason::NegativeFunding,
    }
}

/// The restriction that a person should hear of.
pub(super) fn strongest<'a>(facts: Facts<'a>) -> Option<&'a Restriction> {
    facts.restrictions.iter().max_by_key(|r| {
        // What stops this process hides nothing that outlives it.
        (r.source != SHUTDOWN, r.entry, r.duty, priority(&r.source))
    })
}

/// What frees the open latches, and why what is in the spec does not.
pub(super) fn how_to_release(facts: Facts<'_>) -> String {
    let on = |incident: &IncidentStatus| match facts.control.orphaned.contains(&incident.id) {
        true => format!("{} on this ArbBot ({} is gone)", incident.id, incident.source),
        false if incident.source.starts_with(GUARD_SOURCE) => {
            format!("{} on this ArbBot ({})", incident.id, incident.source)
        }
        false => format!("{} on {}", incident.id, incident.source),
    };
    let open: Vec<_> = facts.control.incidents.iter().map(on).collect();
    if open.is_empty() {
        return String::new();
    }
    let release = &facts.control.release;
    let known = release.parse::<IncidentId>().is_ok_and(|release| {
        facts.control.incidents.iter().any(|open| open.id.parse().is_ok_and(|open| release.releases(&open)))
    });
    let wrong = if release.is_empty() || known { String::new() } else { format!("; release {release:?} names none") };
    format!("; to release, once finished: engaged false and release {}{wrong}", open.join(", "))
}

/// Which of two equally strong restrictions a person should hear of.
pub(super) fn priority(source: &str) -> u8 {
    match source {
        "starting" => 6,
        "claim" | ACCOUNT => 5,
        "exchange" => 3,
        "product" => 4,
        "reconciliation" | "limits" | "session" => 2,
        _ => 4,
    }
}

pub(super) fn reason_of(facts: Facts<'_>, restriction: &Restriction) -> Reason {
    match restriction.source.as_str() {
        _ if restriction.duty == Duty::Drain => {
            facts.drain_message().map_or(Reason::Draining, |(p, _)| drain::reason(p))
        }
        DRAIN_TIMEOUT => Reason::DrainTimedOut,
        "starting" => Reason::Starting,
        "claim" if facts.control.claim == Claim::Refused => Reason::AccountShared,
        "claim" => Reason::ClaimPending,
        ACCOUNT => Reason::AccountShared,
        "credentials" => facts.session.unfit.as_ref().map_or(Reason::KeyRefused, |(reason, _)| *reason),
        CLOCK => Reason::ClockSkewed,
        source if source.starts_with(LEDGER) => ledger_reason(source),
        "exchange" => facts.session.problem.as_ref().map_or(Reason::ExchangeUnreachable, |(reason, _)| *reason),
        "reconciliation" => difference(facts.view).unwrap_or(Reason::NotConfirmed),
        "limits" => limit_reason(facts.view),
        "product" => Reason::ProductUnavailable,
        "session" => Reason::FuturesSessionClosed,
        "deletion" => Reason::Deleting,
        "spec.killSwitch" => Reason::KillSwitchEngaged,
        source if source.starts_with("incident/") => Reason::KillSwitchEngaged,
        source if source.starts_with(GUARD_SOURCE) => Reason::GuardTripped,
        _ if facts.flattens() => Reason::KillSwitchEngaged,
        _ => Reason::ModeRestricts,
    }
}

fn ledger_reason(source: &str) -> Reason {
    match source.strip_prefix(LEDGER).and_then(|kind| kind.parse().ok()) {
        Some(ProblemKind::Unwritable) => Reason::LedgerUnwritable,
        Some(ProblemKind::Damaged) => Reason::LedgerDamaged,
        Some(ProblemKind::Lost) => Reason::LedgerLost,
        None => Reason::LedgerRebuilding,
    }
}

/// How the exchange differs from what the bot owns, if it does.
pub(super) fn difference(view: &View) -> Option<Reason> {
    match view.reconciliation {
        Reconciliation::Differs(_) if view.has_deficit => Some(Reason::PositionDeficit),
        Reconciliation::Differs(_) => Some(Reason::PositionExcess),
        Reconciliation::Pending | Reconciliation::Matches => None,
    }
}

pub(super) fn limit_reason(view: &View) -> Reason {
    match &view.limit_exceeded {
        Some(exceeded) if exceeded.below_one_contract => Reason::LimitBelowOneContract,
        _ => Reason::LimitExceeded,
    }
}
