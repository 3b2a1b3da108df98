//! Conditions: the types, their closed lists of reasons, and the one function that sets them.

mod reason;
pub mod reference;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use strum::{Display, EnumIter, EnumString};

pub use reason::Reason;

/// Types of conditions on an ArbBot, and who writes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Display, EnumString, EnumIter)]
pub enum ConditionType {
    /// Bot. True: this generation of the spec and every matching policy are in force.
    ControlApplied,
    /// Bot. True: entry is open and the strategy may raise the position.
    Trading,
    /// Bot. True: the gate is closed and the exchange confirmed that no order of this bot works.
    Halted,
    /// Bot. True: no order and no position, confirmed by the exchange.
    Flat,
    /// Bot. True: the position and the working orders are inside every limit.
    WithinRiskLimits,
    /// Bot. True: the API key may trade, may not transfer, and belongs to the portfolio.
    CredentialsValid,
    /// Bot. True: REST and both WebSockets work.
    ExchangeConnected,
    /// Bot. True: the exchange shows the orders and positions that the ledger expects.
    PositionsReconciled,
    /// Bot. True: the collateral carries the futures leg at overnight margin, with enough to spare.
    CollateralSufficient,
    /// Operator. True: the children exist, the pod is up and this generation is acknowledged.
    Ready,
    /// Operator. True: the operator is still working towards the spec.
    Reconciling,
    /// Operator. True: nothing will improve until a person acts.
    Stalled,
}

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, EnumString)]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

impl From<bool> for ConditionStatus {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// Longest message that fits a condition and an Event.
const MESSAGE_BYTES: usize = 1024;

/// Sets a condition. `lastTransitionTime` moves only when the status changes.
pub fn set_condition(
    conditions: &mut Vec<Condition>,
    type_: ConditionType,
    status: ConditionStatus,
    reason: Reason,
    message: &str,
    generation: Option<i64>,
    now: &Time,
) {
    debug_assert!(
        type_.reasons().contains(&reason),
        "{type_} has no reason {reason}: add it to conditions/reference.rs"
    );
    let type_ = type_.to_string();
    let status = status.to_string();
    let old = conditions.iter().position(|condition| condition.type_ == type_);
    let last_transition_time = old
        .and_then(|i| conditions.get(i))
        .filter(|condition| condition.status == status)
        .map_or_else(|| now.clone(), |condition| condition.last_transition_time.clone());
    let condition = Condition {
        last_transition_time,
        message: shorten(message, MESSAGE_BYTES).to_owned(),
        observed_generation: generation,
        reason: reason.to_string(),
        status,
        type_,
    };
    match old.and_then(|i| conditions.get_mut(i)) {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}

/// The condition of this type, if it is there.
#[must_use]
pub fn find(conditions: &[Condition], type_: ConditionType) -> Option<&Condition> {
    let type_ = type_.to_string();
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition of this type is there and True.
#[must_use]
pub fn is_true(conditions: &[Condition], type_: ConditionType) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == "True")
}

/// The first `max` bytes of a text, cut between characters.
#[must_use]
pub fn shorten(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        serde_json::from_value(serde_json::json!(format!("2026-01-01T00:00:{second:02}Z"))).unwrap()
    }

    #[test]
    fn the_transition_time_moves_only_when_the_status_changes() {
        let mut conditions = Vec::new();
        let mut set = |status, reason, now| {
            set_condition(&mut conditions, ConditionType::Flat, status, reason, "m", Some(1), &at(now));
            conditions[0].last_transition_time.clone()
        };
        assert_eq!(set(ConditionStatus::False, Reason::PositionOpen, 1), at(1));
        assert_eq!(set(ConditionStatus::False, Reason::FuturesSessionClosed, 2), at(1));
        assert_eq!(set(ConditionStatus::True, Reason::NoPosition, 3), at(3));
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        assert_eq!(shorten("aéb", 2), "a");
        assert_eq!(shorten("abc", 10), "abc");
    }
}
