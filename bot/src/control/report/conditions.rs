//! What each of the bot's conditions says. Pure.

use arbbot_crds::arbbot::Execution;
use arbbot_crds::conditions::{ConditionStatus, ConditionType, Reason};
use arbbot_crds::control::{Duty, Entry, Restriction};
use arbbot_crds::incident::IncidentId;
use arbbot_crds::status::{DrainPhase, EffectiveMode, IncidentStatus};

use super::{Claim, Facts, SHUTDOWN, drain};
use crate::control::lease::Standing;
use crate::exchange::Link;
use crate::execution::engine::{DRAIN_TIMEOUT, NOT_YET_CONNECTED, Reconciliation, View};
use crate::risk::gate::Contact;

/// One condition before it is set.
type Said = (ConditionType, ConditionStatus, Reason, String);

pub(super) fn said(facts: Facts<'_>) -> Vec<Said> {
    vec![
        control_applied(facts),
        trading(facts),
        halted(facts),
        flat(facts),
        within_limits(facts),
        credentials(facts),
        connected(facts),
        reconciled(facts),
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
    } else {
        say(type_, true, Reason::Applied, "spec and policies are in force at the gate")
    }
}

fn trading(facts: Facts<'_>) -> Said {
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
        let message = match facts.session.execution {
            Some(Execution::Paper) => "entry is open, on paper: no order leaves the bot",
            _ => "entry is open",
        };
        return say(type_, true, Reason::EntryOpen, message);
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

/// The restriction that a person should hear of.
fn strongest<'a>(facts: Facts<'a>) -> Option<&'a Restriction> {
    facts.restrictions.iter().max_by_key(|r| {
        // What stops this process hides nothing that outlives it.
        (r.source != SHUTDOWN, r.entry, r.duty, priority(&r.source))
    })
}

/// What frees the open latches, and why what is in the spec does not.
fn how_to_release(facts: Facts<'_>) -> String {
    let on = |incident: &IncidentStatus| match facts.control.orphaned.contains(&incident.id) {
        true => format!("{} on this ArbBot ({} is gone)", incident.id, incident.source),
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
fn priority(source: &str) -> u8 {
    match source {
        "starting" => 6,
        "claim" => 5,
        "exchange" => 3,
        "product" => 4,
        "reconciliation" | "limits" | "session" => 2,
        _ => 4,
    }
}

fn reason_of(facts: Facts<'_>, restriction: &Restriction) -> Reason {
    match restriction.source.as_str() {
        _ if restriction.duty == Duty::Drain => {
            facts.drain_message().map_or(Reason::Draining, |(p, _)| drain::reason(p))
        }
        DRAIN_TIMEOUT => Reason::DrainTimedOut,
        "starting" => Reason::Starting,
        "claim" if facts.control.claim == Claim::Refused => Reason::AccountShared,
        "claim" => Reason::ClaimPending,
        "credentials" => facts.session.unfit.as_ref().map_or(Reason::KeyRefused, |(reason, _)| *reason),
        "exchange" => facts.session.problem.as_ref().map_or(Reason::ExchangeUnreachable, |(reason, _)| *reason),
        "reconciliation" => difference(facts.view).unwrap_or(Reason::NotConfirmed),
        "limits" => limit_reason(facts.view),
        "product" => Reason::ProductUnavailable,
        "session" => Reason::FuturesSessionClosed,
        "deletion" => Reason::Deleting,
        "spec.killSwitch" => Reason::KillSwitchEngaged,
        source if source.starts_with("incident/") => Reason::KillSwitchEngaged,
        _ if facts.flattens() => Reason::KillSwitchEngaged,
        _ => Reason::ModeRestricts,
    }
}

/// How the exchange differs from what the bot owns, if it does.
fn difference(view: &View) -> Option<Reason> {
    match view.reconciliation {
        Reconciliation::Differs(_) if view.has_deficit => Some(Reason::PositionDeficit),
        Reconciliation::Differs(_) => Some(Reason::PositionExcess),
        Reconciliation::Pending | Reconciliation::Matches => None,
    }
}

fn limit_reason(view: &View) -> Reason {
    match &view.limit_exceeded {
        Some((_, figures)) if figures.contains("less than one contract") => Reason::LimitBelowOneContract,
        _ => Reason::LimitExceeded,
    }
}

/// Whether the engine already acts on the halt that is in force: before, its proofs are of another time.
fn engine_follows(facts: Facts<'_>) -> bool {
    facts.view.mode == Some(facts.in_force.mode()) && facts.view.generation == facts.control.generation
}

fn halted(facts: Facts<'_>) -> Said {
    let type_ = ConditionType::Halted;
    let lasting = facts.lasting();
    if lasting.entry < Entry::Halted {
        let mode = lasting.mode();
        let restriction = strongest(facts).filter(|restriction| restriction.source != SHUTDOWN);
        let (reason, why) = match (mode, facts.drain_message(), restriction) {
            (EffectiveMode::Active, ..) => (Reason::EntryOpen, String::new()),
            (EffectiveMode::Drain, Some((phase, _)), _) if phase != DrainPhase::Finished => {
                (Reason::Draining, String::new())
            }
            _ if has_stopped(facts) => (Reason::Stopped, ": it has drained and stopped".to_owned()),
            (_, _, Some(restriction)) if reason_of(facts, restriction) != Reason::ModeRestricts => {
                (Reason::EntryClosed, format!(", because of {}: see Trading", restriction.source))
            }
            _ => (Reason::ModeRestricts, String::new()),
        };
        return say(type_, false, reason, format!("the bot is {mode}{why}"));
    }
    if !engine_follows(facts) || facts.view.proof.orders_gone.first.is_none() {
        let (reason, message) = if facts.view.open_orders > 0 {
            (Reason::OrdersWorking, "the gate is closed; orders are being cancelled")
        } else {
            (Reason::NotConfirmed, "the gate is closed; the exchange has not yet confirmed that no order works")
        };
        return say(type_, false, reason, message);
    }
    say(type_, true, Reason::NoOrdersWorking, "the gate is closed and the exchange shows no working order of this bot")
}

const UNANSWERED: &str = "an order that closes has no answer from the exchange and may still be carried out: it counts as filled, and is not sent again, until the exchange's listings disprove it, at most 50 s after it was sent or when the exchange is back; everything else is closed meanwhile";

fn flat(facts: Facts<'_>) -> Said {
    let type_ = ConditionType::Flat;
    let view = facts.view;
    if engine_follows(facts) && view.proof.flat.confirmed {
        return say(
            type_,
            true,
            Reason::NoPosition,
            "the exchange has shown twice: no order and no position of this bot",
        );
    }
    if !view.seen_exchange {
        return say(type_, ConditionStatus::Unknown, Reason::NotConfirmed, "the exchange has not yet been read");
    }
    match (view.session_closed, view.is_flat) {
        (Some(reopens), false) if facts.flattens() => {
            let when = reopens.map_or("when it opens".to_owned(), |at| format!("at {at}"));
            say(
                type_,
                false,
                Reason::FuturesSessionClosed,
                format!("the futures session is closed; closing goes on {when}"),
            )
        }
        (_, false) => match facts.drain_message() {
            Some((DrainPhase::HeldByHalt, message)) => say(type_, false, Reason::PositionOpen, message),
            Some((phase, message)) => say(type_, false, drain::reason(phase), message),
            None if facts.flattens() && view.unknown_orders > 0 => say(type_, false, Reason::OrdersUnknown, UNANSWERED),
            None => say(type_, false, Reason::PositionOpen, "there is a position"),
        },
        (_, true) if view.open_orders > 0 => say(type_, false, Reason::OrdersWorking, "orders work at the exchange"),
        (_, true) => say(type_, false, Reason::NotConfirmed, "the exchange has not yet shown it twice"),
    }
}

fn within_limits(facts: Facts<'_>) -> Said {
    let type_ = ConditionType::WithinRiskLimits;
    match &facts.view.limit_exceeded {
        // The figures move with the market; the name of the limit is what a person acts on.
        Some((limit, _)) => {
            let message =
                format!("spec.risk.limits.{limit} is exceeded or too small: raise it, or reduce the position");
            say(type_, false, limit_reason(facts.view), message)
        }
        None if !facts.view.prices_fresh => {
            say(type_, ConditionStatus::Unknown, Reason::NotConfirmed, "without fresh prices it cannot be said")
        }
        None => say(type_, true, Reason::WithinLimits, "inside every limit"),
    }
}

fn credentials(facts: Facts<'_>) -> Said {
    let type_ = ConditionType::CredentialsValid;
    let session = facts.session;
    if session.execution == Some(Execution::Paper) {
        let message = "the bot trades on paper: it uses no key, and fills its orders itself against public market data";
        return say(type_, true, Reason::OnPaper, message);
    }
    if let Some((reason, why)) = &session.unfit {
        return say(type_, false, *reason, why.clone());
    }
    match (&session.problem, session.open) {
        (Some((reason, why)), true) if is_about_key(*reason) => {
            say(type_, true, *reason, format!("the earlier key stays in use: {why}"))
        }
        (Some((reason, why)), false) if is_about_key(*reason) => say(type_, false, *reason, why.clone()),
        (Some((reason, why)), false) => say(type_, ConditionStatus::Unknown, *reason, why.clone()),
        (None, false) => say(type_, ConditionStatus::Unknown, Reason::Starting, "the key has not yet been checked"),
        (_, true) => match &session.failed_over {
            Some(why) => say(type_, true, Reason::KeyFailedOver, why.clone()),
            None if session.is_old => {
                let message = "the key in use is older than spec.credentials.maxAge: put a new one into its Secret";
                say(type_, true, Reason::KeyOld, message)
            }
            None => say(type_, true, Reason::KeyAccepted, "the exchange accepted the key"),
        },
    }
}

fn is_about_key(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::KeyRefused
            | Reason::KeyMayTransfer
            | Reason::KeyMayNotTrade
            | Reason::PortfolioMismatch
            | Reason::KeyUnreadable
            | Reason::SecretMissing
    )
}

/// Whether this is the last word of a bot that has drained.
fn has_stopped(facts: Facts<'_>) -> bool {
    let stops = facts.restrictions.iter().any(|restriction| restriction.source == SHUTDOWN);
    stops && facts.drain_message().is_some_and(|(phase, _)| phase == DrainPhase::Finished)
}

fn connected(facts: Facts<'_>) -> Said {
    let type_ = ConditionType::ExchangeConnected;
    if has_stopped(facts) {
        return say(type_, false, Reason::Stopped, "the bot has drained and stopped: it connects again when it starts");
    }
    if !facts.session.open {
        let (reason, why) = facts
            .session
            .problem
            .clone()
            .unwrap_or((Reason::Starting, "the exchange has not yet been reached".to_owned()));
        return say(type_, false, reason, why);
    }
    if let Some(why) = &facts.view.product_unavailable {
        return say(type_, false, Reason::ProductUnavailable, why.clone());
    }
    match facts.view.links.iter().find_map(|(link, down)| Some((*link, down.as_ref()?))) {
        None if !facts.session.without_expiry.is_empty() => {
            let products = facts.session.without_expiry.join(" and ");
            let message = format!(
                "REST and both WebSockets work; on {products} the exchange refuses orders that expire by themselves: \
                 should this bot die, cancel its resting orders there"
            );
            say(type_, true, Reason::Connected, message)
        }
        None if facts.session.execution == Some(Execution::Paper) => {
            let message = "REST and the WebSocket of the public market data work; the account is on paper";
            say(type_, true, Reason::Connected, message)
        }
        None => say(type_, true, Reason::Connected, "REST and both WebSockets work"),
        Some((_, cause)) if !facts.view.seen_exchange && cause == NOT_YET_CONNECTED => {
            say(type_, false, Reason::Starting, "the connections to the exchange are being opened")
        }
        Some((Link::Rest, cause)) => say(type_, false, Reason::ExchangeUnreachable, cause.clone()),
        Some((link, cause)) => say(type_, false, Reason::WebSocketDown, format!("{link}: {cause}")),
    }
}

fn reconciled(facts: Facts<'_>) -> Said {
    let type_ = ConditionType::PositionsReconciled;
    match &facts.view.reconciliation {
        Reconciliation::Pending => {
            say(type_, ConditionStatus::Unknown, Reason::NotConfirmed, "the exchange has not yet been compared")
        }
        Reconciliation::Differs(why) => {
            let reason = difference(facts.view).unwrap_or(Reason::PositionExcess);
            let message = format!("{why}: find out who traded on the account; nothing is sold that is not proven ours");
            say(type_, false, reason, message)
        }
        Reconciliation::Matches if facts.view.unknown_orders > 0 => {
            say(type_, false, Reason::OrdersUnknown, "an order is neither proven placed nor proven not placed")
        }
        Reconciliation::Matches => say(type_, true, Reason::Reconciled, "the exchange shows what the bot owns"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::control::fixtures;
    use crate::control::report::ControlFacts;
    use crate::exchange::SessionFacts;
    use crate::execution::drain::{Demand, DrainView};
    use arbbot_crds::arbbot::{KillAction, Mode};
    use arbbot_crds::control::effective;
    use arbbot_crds::limits::RiskLimits;
    use arbbot_crds::status::{IncidentPhase, LedgerStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    struct Case {
        control: ControlFacts,
        view: View,
        restrictions: Vec<Restriction>,
    }

    impl Case {
        /// A bot that is connected and trades, under these restrictions.
        fn new(restrictions: Vec<Restriction>) -> Self {
            let control = effective(&RiskLimits::default(), restrictions.iter());
            let mut view = fixtures::view(&Clock::manual(), &control);
            view.links.iter_mut().for_each(|(_, down)| *down = None);
            (view.seen_exchange, view.reconciliation) = (true, Reconciliation::Matches);
            (view.generation, view.mode) = (Some(1), Some(control.mode()));
            Self { control: ControlFacts { generation: Some(1), ..ControlFacts::default() }, view, restrictions }
        }

        fn says(&self, type_: ConditionType) -> (String, Reason, String) {
            let in_force = effective(&RiskLimits::default(), self.restrictions.iter());
            let session = SessionFacts { open: true, ..SessionFacts::default() };
            let facts = Facts {
                control: &self.control,
                session: &session,
                view: &self.view,
                in_force: &in_force,
                contact: Contact::Fresh,
                restrictions: &self.restrictions,
                ledger: &LedgerStatus::default(),
                pod_uid: "p",
                node: "n",
            };
            let (_, status, reason, message) = said(facts).into_iter().find(|said| said.0 == type_).unwrap();
            assert!(type_.reasons().contains(&reason), "{type_} {reason}");
            (status.to_string(), reason, message)
        }
    }

    fn closed(source: &str) -> Restriction {
        Restriction::entry(source, Entry::ReduceOnly, "why")
    }

    #[test]
    fn entry_that_reconciliation_holds_closed_does_not_point_to_a_mode() {
        let mut case = Case::new(vec![closed("reconciliation")]);
        let (_, reason, message) = case.says(ConditionType::Halted);
        assert_eq!(reason, Reason::EntryClosed);
        assert_eq!(message, "the bot is ReduceOnly, because of reconciliation: see Trading");
        assert_eq!(case.says(ConditionType::Trading).1, Reason::NotConfirmed);
        case.view.reconciliation = Reconciliation::Differs("F: 1, 2".to_owned());
        assert_eq!(case.says(ConditionType::Trading).1, Reason::PositionExcess);
        case.view.has_deficit = true;
        assert_eq!(case.says(ConditionType::Trading).1, Reason::PositionDeficit);
        let by_mode = Case::new(vec![Restriction::mode("spec.mode", Mode::ReduceOnly, "spec")]);
        assert_eq!(by_mode.says(ConditionType::Halted).1, Reason::ModeRestricts);
    }

    #[test]
    fn the_last_word_of_a_drained_bot_says_that_it_has_stopped() {
        let mut case = Case::new(vec![Restriction::mode("spec.mode", Mode::Stopped, "spec")]);
        let demand = Demand { source: "spec.mode".into(), halted_by: None };
        let drain =
            |phase| DrainView { demand: demand.clone(), started_at: Timestamp::UNIX_EPOCH, phase, deadline: None };
        case.view.drain = Some(drain(DrainPhase::Finished));
        assert_eq!(case.says(ConditionType::ExchangeConnected).0, "True", "it still runs");
        case.restrictions.push(Restriction::entry(SHUTDOWN, Entry::Halted, "stopping"));
        let (status, reason, _) = case.says(ConditionType::ExchangeConnected);
        assert_eq!((status.as_str(), reason), ("False", Reason::Stopped));
        let (status, reason, message) = case.says(ConditionType::Halted);
        assert_eq!((status.as_str(), reason), ("False", Reason::Stopped), "{message}");
        case.view.drain = Some(drain(DrainPhase::ClosingPosition));
        assert_eq!(case.says(ConditionType::ExchangeConnected).0, "True", "another pod goes on");
    }

    #[test]
    fn a_latch_whose_policy_is_gone_is_released_on_the_bot() {
        let incident = IncidentStatus {
            id: "99999999-2".into(),
            source: "ArbPolicy/desk".into(),
            phase: IncidentPhase::Finished,
            action: KillAction::Flatten,
            reason: String::new(),
            engaged_at: Time(Timestamp::UNIX_EPOCH),
            orders_cancelled_at: None,
            flat_at: None,
        };
        let mut case = Case::new(vec![Restriction::kill("incident/99999999-2", KillAction::Flatten, "drill")]);
        case.control.incidents = vec![incident];
        let message = case.says(ConditionType::Trading).2;
        assert!(message.ends_with("release 99999999-2 on ArbPolicy/desk"), "{message}");
        case.control.orphaned = vec!["99999999-2".into()];
        let message = case.says(ConditionType::Trading).2;
        assert!(message.ends_with("release 99999999-2 on this ArbBot (ArbPolicy/desk is gone)"), "{message}");
    }
}
