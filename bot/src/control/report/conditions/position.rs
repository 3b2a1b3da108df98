//! `Halted`, `Flat`, `WithinRiskLimits` and `PositionsReconciled`.

use arbbot_crds::conditions::{ConditionStatus, ConditionType, Reason};
use arbbot_crds::control::Entry;
use arbbot_crds::status::{DrainPhase, EffectiveMode};

use super::super::{Facts, SHUTDOWN, drain};
use super::trading::{difference, limit_reason, reason_of, strongest};
use super::{Said, has_stopped, say};
use crate::execution::engine::Reconciliation;
use crate::strategy::funding_carry::collateral::Shortage;

pub(super) fn halted(facts: Facts<'_>) -> Said {
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
            let orders: Vec<_> = facts.view.remaining.iter().map(ToString::to_string).collect();
            let message = format!("the gate is closed; orders are being cancelled: {}", orders.join(", "));
            (Reason::OrdersWorking, message)
        } else {
            let message = "the gate is closed; the exchange has not yet confirmed that no order works";
            (Reason::NotConfirmed, message.to_owned())
        };
        return say(type_, false, reason, message);
    }
    say(type_, true, Reason::NoOrdersWorking, "the gate is closed and the exchange shows no working order of this bot")
}

pub(super) const UNANSWERED: &str = "an order that closes has no answer from the exchange and may still be carried out: it counts as filled, and is not sent again, until the exchange's listings disprove it, at most 50 s after it was sent or when the exchange is back; everything else is closed meanwhile";

pub(super) fn flat(facts: Facts<'_>) -> Said {
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

pub(super) fn within_limits(facts: Facts<'_>) -> Said {
    let type_ = ConditionType::WithinRiskLimits;
    let guards = |restricts: bool| {
        let shown = facts.view.guards.shown.iter().filter(|guard| guard.restricts() == restricts);
        shown.map(|guard| guard.message.as_str()).collect::<Vec<_>>().join("; ")
    };
    let (tripped, warns) = (guards(true), guards(false));
    if !tripped.is_empty() {
        return say(type_, false, Reason::GuardTripped, tripped);
    }
    match &facts.view.limit_exceeded {
        Some(exceeded) => say(type_, false, limit_reason(facts.view), exceeded.message()),
        None if !facts.view.prices_fresh => {
            say(type_, ConditionStatus::Unknown, Reason::NotConfirmed, "without fresh prices it cannot be said")
        }
        None if !warns.is_empty() => say(type_, true, Reason::GuardWarns, format!("inside every limit; {warns}")),
        None => say(type_, true, Reason::WithinLimits, "inside every limit"),
    }
}

pub(super) fn reconciled(facts: Facts<'_>) -> Said {
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

/// Whether the engine already acts on the halt that is in force: before, its proofs are of another time.
pub(super) fn engine_follows(facts: Facts<'_>) -> bool {
    facts.view.mode == Some(facts.in_force.mode()) && facts.view.generation == facts.control.generation
}

pub(super) fn collateral(facts: Facts<'_>) -> Said {
    let type_ = ConditionType::CollateralSufficient;
    match &facts.view.carry.shortage {
        None => say(
            type_,
            ConditionStatus::Unknown,
            Reason::NotConfirmed,
            "without holdings and fresh prices it cannot be said",
        ),
        Some(None) => say(type_, true, Reason::CollateralEnough, "it carries the futures leg at overnight margin"),
        Some(Some(Shortage { of_position, missing_quote })) => {
            let what = match of_position {
                true => "it does not carry the position: both legs are reduced together",
                false => "it does not carry the next contract: nothing is entered",
            };
            let message =
                format!("{what}; for the whole targetNotional move {missing_quote} (quote currency) into the account");
            say(type_, false, Reason::CollateralShort, message)
        }
    }
}
