//! The reasons of conditions and Events, and what a person does about each.

use strum::{Display, EnumIter, EnumMessage, EnumString};

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

    /// A guard of the spec cannot be used and is ignored; everything else is in force.
    #[strum(message = "Mend the guard in the message (docs/guards.md).")]
    GuardInvalid,

    // Trading, Halted, Flat
    /// Entry is open.
    #[strum(message = "Nothing.")]
    EntryOpen,
    /// Entry is open, and the strategy raises nothing: what it would earn does not pay for the costs, or it cannot say yet.
    #[strum(
        message = "Nothing: the message says what is missing, and it enters by itself. `spec.strategy.fundingCarry.entry` sets the terms."
    )]
    NoEdge,
    /// Entry is open, and the strategy closes its position because funding has been negative for too long.
    #[strum(message = "Nothing: it closes maker-first. `spec.strategy.fundingCarry.exit` sets the terms.")]
    NegativeFunding,
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
    /// Another bot trades, or another ArbBot holds the claim on, this account and product.
    #[strum(
        message = "Stop or delete one of the two bots. Portfolio and products cannot be changed: create the bot again with others."
    )]
    AccountShared,
    /// The operator has not yet granted the claim on the account and product.
    #[strum(message = "Look whether the operator runs: `kubectl -n arbbot-system get deployments`.")]
    ClaimPending,

    /// The disk of the ledger, or its database server, does not take what is written: nothing is sent but what a kill and a repair need.
    #[strum(
        message = "Make room on the volume in the message, or enlarge it (docs/operations.md#when-the-ledger-fails), or see to the database server (docs/ledger.md#when-the-database-is-away-slow-or-wrong); the bot goes on by itself."
    )]
    LedgerUnwritable,
    /// A page of the ledger cannot be read.
    #[strum(
        message = "Restart the pod: it keeps the file and rebuilds from the exchange's history; or restore a backup first (docs/operations.md#when-the-ledger-fails)."
    )]
    LedgerDamaged,
    /// The ledger's file is gone, or another one is in its place; in PostgreSQL, another process has the ledger, the
    /// server has lost entries, or a later epoch has written there.
    #[strum(
        message = "Restart the pod: it rebuilds from the exchange's history; or restore a backup first (docs/operations.md#when-the-ledger-fails). In PostgreSQL, do what the message says (docs/ledger.md#when-the-database-is-away-slow-or-wrong)."
    )]
    LedgerLost,
    /// The ledger does not continue what status anchored, or was begun anew; it is being rebuilt from the exchange's
    /// history.
    #[strum(message = "Wait: entry opens when orders, fills and positions match. Find out what became of the volume.")]
    LedgerRebuilding,
    /// The machine's clock differs from the exchange's by more than 30 s.
    #[strum(message = "Set the node's clock right (NTP); entry opens by itself.")]
    ClockSkewed,

    // WithinRiskLimits
    /// Inside every limit.
    #[strum(message = "Nothing.")]
    WithinLimits,
    /// A limit is exceeded; nothing raises a leg until it no longer is.
    #[strum(message = "Raise the limit in the message, or lower targetNotional: the bot sells nothing for a limit.")]
    LimitExceeded,
    /// A limit is smaller than one contract; the bot cannot enter.
    #[strum(message = "Raise the limit in the message to at least one contract.")]
    LimitBelowOneContract,

    /// A guard has tripped; its action is in force until it ends.
    #[strum(
        message = "The message names guard, value, threshold and what ends it (docs/guards.md); find the cause first."
    )]
    GuardTripped,
    /// Inside every limit, but a guard warns.
    #[strum(message = "Look at the figure in the message before it trips (docs/guards.md).")]
    GuardWarns,

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

    // CollateralSufficient
    /// The collateral carries the futures leg at overnight margin, with `collateral.minRatio` to spare.
    #[strum(message = "Nothing.")]
    CollateralEnough,
    /// The collateral does not carry both legs, or not the next contract; the message says how much is missing.
    #[strum(
        message = "Move the amount in the message into the account, or lower `targetNotional`. The bot never moves collateral: it waits, and reduces both legs together before the exchange does."
    )]
    CollateralShort,

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
    /// A `release` names no open incident of its object: it releases nothing.
    #[strum(
        message = "Copy the id from `status.killSwitch.incidents` of the bot, and set it on the object that it is of."
    )]
    ReleaseUnknown,
    /// Something was loosened; the message names the field, both values and the field manager.
    #[strum(message = "Check that the change was meant; the message names the field manager.")]
    Loosened,
}
