//! Conditions: the types, their closed lists of reasons, and the one function that sets them.

pub mod reference;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use strum::{Display, EnumIter, EnumMessage, EnumString};

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

/// Reasons of conditions and Events: a closed list. The message of each is what a person does next; docs/conditions.md is
/// made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Display, EnumString, EnumIter, EnumMessage)]
pub enum Reason {
    // ControlApplied
    /// The bot obeys this generation.
    #[strum(message = "Nothing.")]
    Applied,
    /// The bot has not yet read its ArbBot and every ArbPolicy since it started.
    #[strum(message = "Wait; after a minute read the log of the pod: `kubectl logs deployment/arbbot-<bot>`.")]
    Starting,
    /// The bot has lost contact with the API server.
    #[strum(
        message = "Look at the pod, its node and the API server. Resting orders expire by themselves at the exchange."
    )]
    ContactLost,
    /// A policy's selector cannot be read; the policy is obeyed.
    #[strum(message = "Mend `spec.selector` of the ArbPolicy in the message.")]
    SelectorUnreadable,

    // Trading, Halted, Flat
    /// Entry is open.
    #[strum(message = "Nothing.")]
    EntryOpen,
    /// The mode of the spec or of a policy restricts the bot.
    #[strum(
        message = "`status.effective.sources` names who restricts; set the mode there back when you want to trade."
    )]
    ModeRestricts,
    /// Nothing halts the bot, but entry is closed for another reason than a mode.
    #[strum(message = "See `Trading`: its reason and message name the cause.")]
    EntryClosed,
    /// A kill switch is engaged or latched.
    #[strum(
        message = "Once finished: `engaged: false` and `release: <incident id>` on the source in the message (docs/kill-switch.md)."
    )]
    KillSwitchEngaged,
    /// The bot is being deleted.
    #[strum(message = "Nothing; `Ready` says what the deletion waits for.")]
    Deleting,
    /// The exchange confirmed that no order of this bot works.
    #[strum(message = "Nothing.")]
    NoOrdersWorking,
    /// Orders of this bot work or may work.
    #[strum(message = "Wait for the cancels; if it stays, look at `ExchangeConnected`.")]
    OrdersWorking,
    /// The exchange confirmed that there is no position.
    #[strum(message = "Nothing.")]
    NoPosition,
    /// There is a position.
    #[strum(message = "Nothing, unless you want to be flat: kill, `mode: Stopped` or delete.")]
    PositionOpen,
    /// The futures session is closed; the position is closed when it opens.
    #[strum(message = "Wait for the opening in the message; what needs the future goes on then by itself.")]
    FuturesSessionClosed,
    /// The exchange has not yet confirmed it.
    #[strum(message = "Wait a few seconds; if it stays, look at `ExchangeConnected`.")]
    NotConfirmed,
    /// Another pod holds the Lease, or its end is not proven yet.
    #[strum(message = "Wait: the message says who holds the Lease and until when.")]
    LeaseNotHeld,
    /// Another ArbBot holds the claim on this account and product.
    #[strum(
        message = "Delete one of the two bots. Portfolio and products cannot be changed: create the bot again with others."
    )]
    AccountShared,
    /// The operator has not yet granted the claim on the account and product.
    #[strum(message = "Look whether the operator runs: `kubectl -n arbbot-system get deployments`.")]
    ClaimPending,

    // WithinRiskLimits
    /// Inside every limit.
    #[strum(message = "Nothing.")]
    WithinLimits,
    /// A limit is exceeded; nothing raises a leg until it no longer is.
    #[strum(message = "Raise the limit in the message, or let the position be reduced.")]
    LimitExceeded,
    /// A limit is smaller than one contract; the bot cannot enter.
    #[strum(message = "Raise the limit in the message to at least one contract.")]
    LimitBelowOneContract,

    // CredentialsValid
    /// key_permissions accepted the key.
    #[strum(message = "Nothing.")]
    KeyAccepted,
    /// The bot trades on paper and uses no key.
    #[strum(message = "Nothing: no order leaves the bot.")]
    OnPaper,
    /// The key in use is older than `spec.credentials.maxAge`.
    #[strum(message = "Create a new key and put it into the Secret; the bot changes to it by itself.")]
    KeyOld,
    /// The exchange refused the other key; this one is used instead.
    #[strum(message = "Put a new key into the Secret of the refused one; the bot changes back to it by itself.")]
    KeyFailedOver,
    /// The exchange refused the key.
    #[strum(message = "Put a valid key into the Secret of `spec.credentials.secretRef`.")]
    KeyRefused,
    /// The key may transfer funds; a trading bot must not hold such a key.
    #[strum(message = "Create a key without the permission \"transfer\" and put it into the Secret.")]
    KeyMayTransfer,
    /// The key may not trade.
    #[strum(message = "Create a key with the permissions \"view\" and \"trade\" and put it into the Secret.")]
    KeyMayNotTrade,
    /// The key belongs to another portfolio.
    #[strum(message = "Use a key of `spec.venue.coinbase.portfolio`, or create a bot for the portfolio of this key.")]
    PortfolioMismatch,
    /// The files of the key cannot be read.
    #[strum(message = "Put the key file as Coinbase gave it into the Secret: `name` and `privateKey`.")]
    KeyUnreadable,
    /// The Secret does not exist or lacks a key.
    #[strum(message = "Create the Secret in the message with the keys `name` and `privateKey`.")]
    SecretMissing,

    // ExchangeConnected
    /// REST and both WebSockets work.
    #[strum(message = "Nothing.")]
    Connected,
    /// The exchange cannot be reached.
    #[strum(message = "Check `spec.venue.coinbase.endpoints`, DNS, egress rules and the status page of the exchange.")]
    ExchangeUnreachable,
    /// The certificate of the exchange is not signed by the configured authority.
    #[strum(message = "Check `spec.venue.coinbase.caBundle`; somebody may be between the bot and the exchange.")]
    CertificateUntrusted,
    /// A WebSocket is down.
    #[strum(message = "Nothing: it reconnects by itself; if it stays, check egress rules for WebSockets.")]
    WebSocketDown,
    /// The exchange does not offer the product for trading.
    #[strum(message = "Check the products in `spec.strategy.fundingCarry` and whether the account may trade them.")]
    ProductUnavailable,

    // PositionsReconciled
    /// The exchange shows what the ledger expects.
    #[strum(message = "Nothing.")]
    Reconciled,
    /// The exchange shows less than the bot owns.
    #[strum(message = "Find out who traded on the account. Nothing is sold that is not proven to be the bot's.")]
    PositionDeficit,
    /// The exchange shows more than the bot owns; what is not proven ours is never touched.
    #[strum(message = "Find out who traded on the account. What is not the bot's is never touched.")]
    PositionExcess,
    /// An order that this bot may have sent is neither proven placed nor proven not placed.
    #[strum(
        message = "Wait: the order is proven placed or not placed after its token has expired and two complete listings."
    )]
    OrdersUnknown,

    // Ready, Reconciling, Stalled
    /// Children exist, the pod is up and this generation is acknowledged.
    #[strum(message = "Nothing.")]
    Available,
    /// The children are being created or changed.
    #[strum(message = "Wait.")]
    Progressing,
    /// The pod is not ready.
    #[strum(message = "The message says what the pod says; `kubectl describe pod` and `kubectl logs` tell more.")]
    PodNotReady,
    /// The pod cannot start: its image cannot be pulled, or a Secret or ConfigMap is missing.
    #[strum(message = "Mend what the message names: image, Secret, ConfigMap, quota or policy of the namespace.")]
    PodCannotStart,
    /// The bot has not yet acknowledged this generation.
    #[strum(message = "Wait; if it stays, the bot does not hear: look at its pod and `ControlApplied`.")]
    NotAcknowledged,
    /// The spec is not valid; the message names the field.
    #[strum(message = "Change the field in the message.")]
    InvalidSpec,
    /// A child of that name belongs to somebody else.
    #[strum(message = "Delete or rename the object in the message, or create the bot under another name.")]
    ChildNotOurs,
    /// A child could not be written.
    #[strum(message = "The message is what the API server said; it is tried again.")]
    ApplyFailed,
    /// The finalizer waits for the position to be closed.
    #[strum(message = "Let the bot reach the exchange, or keep the position: `deletionPolicy: Orphan`.")]
    DeletionWaitsForFlat,
    /// A deletion or a drain waits because something holds the bot Halted; the message names the source and both ways
    /// out.
    #[strum(message = "Release the halt that the message names, or set `deletionPolicy` to Flatten or Orphan.")]
    DeletionBlockedByHalted,
    /// The position is being closed maker-first.
    #[strum(message = "Wait; `status.bot.drain` shows the step. Faster: `onDrainTimeout: Flatten`, or a kill.")]
    Draining,
    /// The drain has taken longer than `drainTimeout` and what is left is held.
    #[strum(message = "Set `onDrainTimeout: Flatten`, engage the kill switch, or set `mode` back.")]
    DrainTimedOut,
    /// Drained and scaled to zero, as the mode Stopped demands.
    #[strum(message = "Nothing. `mode: Active` starts it again.")]
    Stopped,
    /// The annotation arbbot.io/paused keeps the operator from changing the bot's children; safety goes on.
    #[strum(message = "Remove the annotation: `kubectl annotate arbbot <bot> arbbot.io/paused-`.")]
    ReconciliationPaused,
    /// The annotation arbbot.io/paused has another value than "true": nothing is paused.
    #[strum(message = "To pause: `kubectl annotate arbbot <bot> arbbot.io/paused=true --overwrite`.")]
    PauseIgnored,
    /// The operator may not do what it must in the bot's namespace.
    #[strum(message = "Grant the operator what the message names in this namespace (chart value `watchNamespaces`).")]
    Forbidden,
    /// The installed CustomResourceDefinition is older than the operator.
    #[strum(
        message = "Update the CustomResourceDefinitions: `helm upgrade`, or `kubectl apply --server-side -f crds/`."
    )]
    CrdOutdated,
    /// Nothing is to be done.
    #[strum(message = "Nothing.")]
    UpToDate,

    // ArbPolicy
    /// It is so for every bot that the policy selects.
    #[strum(message = "Nothing.")]
    AllBots,
    /// It is not yet so for every bot that the policy selects; the message names some that are missing.
    #[strum(message = "Look at the bots in the message; wait if they are at it.")]
    SomeBots,
    /// The policy selects no bot.
    #[strum(message = "Check `spec.selector` and the labels of the bots: `kubectl get arbbots --show-labels`.")]
    NoBots,
    /// The policy's selector cannot be read; every bot of the namespace obeys the policy.
    #[strum(message = "Mend `spec.selector`.")]
    SelectorInvalid,

    // Events only
    /// A `release` names no open kill of its object: it releases nothing.
    #[strum(
        message = "Copy the id from `status.killSwitch.incidents` of the bot, and set it on the object that it is of."
    )]
    ReleaseUnknown,
    /// Something was loosened; the message names the field, both values and the field manager.
    #[strum(message = "Check that the change was meant; the message names the field manager.")]
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
