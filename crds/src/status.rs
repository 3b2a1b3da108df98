//! Status of an ArbBot. The bot and the operator each write their own part by server-side apply.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumString};

use crate::arbbot::{ActiveKey, Execution, KillAction, Mode};
use crate::guards::GuardStatus;
use crate::limits::RiskLimits;

/// Status of an ArbBot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArbBotStatus {
    /// metadata.generation that the operator has last reconciled; -1 before the first time. Operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = -1))]
    pub observed_generation: Option<i64>,
    /// Bot: ControlApplied Trading Halted Flat WithinRiskLimits CredentialsValid ExchangeConnected
    /// PositionsReconciled CollateralSufficient. Operator: Ready Reconciling Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// What the bot says of itself. Bot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bot: Option<BotStatus>,
    /// Every open latch of a kill. Bot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_switch: Option<KillSwitchStatus>,
    /// The API key in use. Bot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialsStatus>,
    /// What spec and policies amount to. Operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<EffectiveStatus>,
    /// Which account and product this bot alone may trade. Operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimStatus>,
    /// The last ten incidents, newest first, also after they are released. Operator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub incidents: Vec<IncidentHistory>,
}

/// What a bot obeys, as people read it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema, Display, EnumString,
)]
pub enum EffectiveMode {
    /// Entry is open.
    Active,
    /// Nothing raises a leg.
    ReduceOnly,
    /// Nothing raises a leg, and the position is closed maker-first.
    Drain,
    /// Entry closed, orders cancelled, position kept.
    Halted,
    /// Entry closed, orders cancelled, position closed.
    Flatten,
}

/// What the bot says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BotStatus {
    /// metadata.generation of the ArbBot that the bot obeys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_generation: Option<i64>,
    /// Policies that the bot obeys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub applied_policies: Vec<AppliedPolicy>,
    /// What the bot obeys: the most restrictive of spec, policies, latches and loss of contact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_mode: Option<EffectiveMode>,
    /// How orders are executed: on Paper none ever leaves the bot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<Execution>,
    /// 0 safe, 1 a guard warns, 2 nothing may raise a leg, 3 halted, 4 killed (docs/guards.md).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4), extend("format" = "int32"))]
    pub risk_level: Option<u8>,
    /// Every guard that warns or has tripped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub guards: Vec<GuardStatus>,
    /// Orders of this bot that work, or may work, at the exchange.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("format" = "int32"))]
    pub open_orders: Option<u32>,
    /// What the bot owns: the sum of the fills of its own orders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<PositionStatus>,
    /// Profit and loss since the first order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pnl: Option<PnlStatus>,
    /// Portfolio that the API key belongs to, as key_permissions shows it; "paper" for a paper account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// State of each connection to the exchange.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<LinksStatus>,
    /// The drain under way: under `mode: Stopped` of spec or policy, or a deletion with `deletionPolicy: Drain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainStatus>,
    /// The Lease that makes one pod the trader: this one, or the one that it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseStatus>,
    /// Head of the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<LedgerStatus>,
    /// When the first order of this bot was created; its order history is read from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owned_since: Option<Time>,
    /// uid of the pod that wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// Node that the pod runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Version of the bot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// A drain under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainStatus {
    /// When it began.
    pub started_at: Time,
    /// How far it is.
    pub phase: DrainPhase,
    /// When `onDrainTimeout` applies. Absent while the time stands still, because the futures session is closed or
    /// something holds the bot Halted, and once the drain has finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
}

/// How far a drain is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema, Display, EnumString,
)]
pub enum DrainPhase {
    /// Another source holds the bot Halted; the drain waits for its end.
    HeldByHalt,
    /// The futures session is closed; the drain waits for its opening.
    FuturesSessionClosed,
    /// The position is being closed maker-first.
    ClosingPosition,
    /// `drainTimeout` is over; what is left is held, or closed as a kill does, as `onDrainTimeout` says.
    TimedOut,
    /// No order and no position, confirmed by the exchange.
    Finished,
}

/// A policy that a bot obeys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppliedPolicy {
    /// Name of the ArbPolicy.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its metadata.generation.
    pub generation: i64,
}

/// What a bot owns. Decimals are strings and may be negative.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PositionStatus {
    /// Contracts of the futures leg; negative is short.
    pub future_contracts: String,
    /// Base currency of the spot leg.
    pub spot_base: String,
    /// Notional of the larger leg, in quote currency, at the mid price.
    pub notional_quote: String,
    /// Notional of the futures leg divided by the futures collateral.
    pub leverage: String,
    /// Spot below the venue's smallest order: it cannot be sold and counts as flat.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dust: String,
}

/// Profit and loss, in quote currency.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PnlStatus {
    /// Cash of all fills, less fees, plus funding, plus the position at the mid price.
    pub total_quote: String,
    /// Fees paid.
    pub fees_quote: String,
}

/// State of each connection to the exchange: Up or Down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LinksStatus {
    /// Name of the endpoint in use.
    pub endpoint: String,
    pub rest: LinkState,
    pub market_web_socket: LinkState,
    pub user_web_socket: LinkState,
}

/// State of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display)]
pub enum LinkState {
    #[default]
    Down,
    Up,
}

/// The Lease that makes one pod the trader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseStatus {
    /// uid of the pod that held it last.
    pub holder: String,
    /// Counts the holders; part of every order id.
    pub epoch: i64,
}

/// Head of the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerStatus {
    /// Number of entries.
    pub entries: i64,
    /// Hash of the last entry, chained over all before it.
    pub head: String,
}

/// Every open latch of a kill.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KillSwitchStatus {
    /// Open incidents. An incident leaves the list when it is released.
    #[serde(default)]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub incidents: Vec<IncidentStatus>,
}

/// One engagement of one kill switch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IncidentStatus {
    /// Id to put into `release`.
    pub id: String,
    /// Which object's kill switch, ArbBot/<name> or ArbPolicy/<name>, or which guard of the bot: guard/<name>.
    pub source: String,
    /// How far the kill is.
    pub phase: IncidentPhase,
    /// What it does.
    pub action: KillAction,
    /// Why, as the source says it.
    #[serde(default)]
    pub reason: String,
    /// When the bot closed its gate.
    pub engaged_at: Time,
    /// When the exchange first confirmed that no order works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orders_cancelled_at: Option<Time>,
    /// When the exchange first confirmed that the bot is flat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flat_at: Option<Time>,
}

/// How far a kill is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema, Display, EnumString,
)]
pub enum IncidentPhase {
    /// Orders are being cancelled.
    CancellingOrders,
    /// The position is being closed.
    Flattening,
    /// Everything is done once; the exchange is asked a second time.
    Confirming,
    /// The exchange has confirmed twice. The latch stays until it is released.
    Finished,
}

/// The API key in use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CredentialsStatus {
    /// Which key is in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<ActiveKey>,
    /// First 12 hex digits of the SHA-256 of the key's name. Nothing of the private key is in it.
    pub fingerprint: String,
    /// When the exchange first accepted it; `spec.credentials.maxAge` counts from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified_at: Option<Time>,
    /// Fingerprint of a key that is wanted but not in use; `lastError` says why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pending: String,
    /// Why a key that is wanted is not in use.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_error: String,
}

/// What spec and policies amount to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveStatus {
    /// Most restrictive mode of spec and policies.
    pub mode: Mode,
    /// Smallest of each limit.
    pub limits: RiskLimits,
    /// Who restricts the bot, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub sources: Vec<EffectiveSource>,
}

/// One source of a restriction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveSource {
    /// For example `spec.mode` or `ArbPolicy/desk-halt`.
    pub name: String,
    /// What it demands, and why.
    pub message: String,
}

/// One incident, from its beginning to its release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IncidentHistory {
    /// Id of the incident.
    pub id: String,
    /// KillSwitch, or Guard for a trip that ends by hand.
    pub kind: IncidentKind,
    /// Which object's kill switch, ArbBot/<name> or ArbPolicy/<name>, or which guard: guard/<name>.
    pub source: String,
    /// Why, as the source says it.
    #[serde(default)]
    pub reason: String,
    /// When the bot closed its gate.
    pub started_at: Time,
    /// When the exchange had confirmed what the kill demands: no order works, and flat where it flattens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contained_at: Option<Time>,
    /// When its latch was released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<Time>,
}

/// What kind of incident it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, Display)]
pub enum IncidentKind {
    /// A kill switch was engaged.
    #[default]
    KillSwitch,
    /// A guard tripped whose release is Manual.
    Guard,
}

/// Which account and product one bot alone may trade.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimStatus {
    /// Portfolio of the account.
    pub account: String,
    /// Futures product.
    pub product: String,
    /// Whether this bot holds the claim. Without it the bot does not trade.
    pub granted: bool,
}
