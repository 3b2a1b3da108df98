//! Conditions: the types, their closed lists of reasons, and the one function that sets them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use strum::{Display, EnumIter, EnumString};

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

/// Reasons of conditions and Events: a closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Display, EnumString, EnumIter)]
pub enum Reason {
    // ControlApplied
    /// The bot obeys this generation.
    Applied,
    /// The bot has not yet read its ArbBot and every ArbPolicy since it started.
    Starting,
    /// The bot has lost contact with the API server.
    ContactLost,
    /// A policy's selector cannot be read; the policy is obeyed.
    SelectorUnreadable,

    // Trading, Halted, Flat
    /// Entry is open.
    EntryOpen,
    /// The mode of the spec or of a policy restricts the bot.
    ModeRestricts,
    /// A kill switch is engaged or latched.
    KillSwitchEngaged,
    /// The bot is being deleted.
    Deleting,
    /// The exchange confirmed that no order of this bot works.
    NoOrdersWorking,
    /// Orders of this bot work or may work.
    OrdersWorking,
    /// The exchange confirmed that there is no position.
    NoPosition,
    /// There is a position.
    PositionOpen,
    /// The futures session is closed; the position is closed when it opens.
    FuturesSessionClosed,
    /// The exchange has not yet confirmed it.
    NotConfirmed,
    /// Another pod holds the Lease, or its end is not proven yet.
    LeaseNotHeld,
    /// Another ArbBot holds the claim on this account and product.
    AccountShared,
    /// The operator has not yet granted the claim on the account and product.
    ClaimPending,

    // WithinRiskLimits
    /// Inside every limit.
    WithinLimits,
    /// A limit is exceeded; nothing raises a leg until it no longer is.
    LimitExceeded,
    /// A limit is smaller than one contract; the bot cannot enter.
    LimitBelowOneContract,

    // CredentialsValid
    /// key_permissions accepted the key.
    KeyAccepted,
    /// The exchange refused the key.
    KeyRefused,
    /// The key may transfer funds; a trading bot must not hold such a key.
    KeyMayTransfer,
    /// The key may not trade.
    KeyMayNotTrade,
    /// The key belongs to another portfolio.
    PortfolioMismatch,
    /// The files of the key cannot be read.
    KeyUnreadable,
    /// The Secret does not exist or lacks a key.
    SecretMissing,

    // ExchangeConnected
    /// REST and both WebSockets work.
    Connected,
    /// The exchange cannot be reached.
    ExchangeUnreachable,
    /// The certificate of the exchange is not signed by the configured authority.
    CertificateUntrusted,
    /// A WebSocket is down.
    WebSocketDown,
    /// The exchange does not offer the product for trading.
    ProductUnavailable,

    // PositionsReconciled
    /// The exchange shows what the ledger expects.
    Reconciled,
    /// The exchange shows less than the bot owns.
    PositionDeficit,
    /// The exchange shows more than the bot owns; what is not proven ours is never touched.
    PositionExcess,
    /// An order that this bot may have sent is neither proven placed nor proven not placed.
    OrdersUnknown,

    // Ready, Reconciling, Stalled
    /// Children exist, the pod is up and this generation is acknowledged.
    Available,
    /// The children are being created or changed.
    Progressing,
    /// The pod is not ready.
    PodNotReady,
    /// The pod cannot start: its image cannot be pulled, or a Secret or ConfigMap is missing.
    PodCannotStart,
    /// The bot has not yet acknowledged this generation.
    NotAcknowledged,
    /// The spec is not valid; the message names the field.
    InvalidSpec,
    /// A child of that name belongs to somebody else.
    ChildNotOurs,
    /// A child could not be written.
    ApplyFailed,
    /// The finalizer waits for the position to be closed.
    DeletionWaitsForFlat,
    /// A deletion or a drain waits because something holds the bot Halted; the message names the source and both ways
    /// out.
    DeletionBlockedByHalted,
    /// The position is being closed maker-first.
    Draining,
    /// The drain has taken longer than `drainTimeout` and what is left is held.
    DrainTimedOut,
    /// Drained and scaled to zero, as the mode Stopped demands.
    Stopped,
    /// The annotation arbbot.io/paused keeps the operator from changing the bot's children; safety goes on.
    ReconciliationPaused,
    /// The operator may not do what it must in the bot's namespace.
    Forbidden,
    /// The installed CustomResourceDefinition is older than the operator.
    CrdOutdated,
    /// Nothing is to be done.
    UpToDate,

    // ArbPolicy
    /// It is so for every bot that the policy selects.
    AllBots,
    /// It is not yet so for every bot that the policy selects; the message names some that are missing.
    SomeBots,
    /// The policy selects no bot.
    NoBots,
    /// The policy's selector cannot be read; every bot of the namespace obeys the policy.
    SelectorInvalid,

    // Events only
    /// Something was loosened; the message names the field, both values and the field manager.
    Loosened,
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
