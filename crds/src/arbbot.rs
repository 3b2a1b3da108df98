//! `ArbBot`: one arbitrage bot on one account.
//!
//! No CEL rule sits on a node that contains `mode`, `killSwitch` or `risk`, and `killSwitch` and `risk` have none
//! themselves: nothing may refuse a patch that engages a kill or tightens a limit. The rule on the root looks only at
//! the name, and only when the object is created.

mod paper;
mod strategy;
mod venue;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, EnvVar, LocalObjectReference, ResourceRequirements, Toleration, TopologySpreadConstraint,
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumString};

use crate::decimal::DecimalString;
use crate::duration::DurationString;
use crate::limits::RiskLimits;
use crate::status::ArbBotStatus;
pub use paper::{Paper, PaperFees};
pub use strategy::{FundingCarry, Orders, Strategy};
pub use venue::{CaBundle, Coinbase, ConfigMapKeyRef, Endpoint, Venue};

/// ArbBot is one arbitrage bot: it trades one pair of products on one account of one venue.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "arbbot.io",
    version = "v1alpha1",
    kind = "ArbBot",
    doc = "ArbBot is one arbitrage bot: it trades one pair of products on one account of one venue.",
    namespaced,
    status = "ArbBotStatus",
    derive = "PartialEq",
    shortname = "ab",
    // Not "arbbot": kubectl expands a category before it looks for a singular name, and
    // `kubectl get arbbot NAME` would mean both kinds.
    category = "arb",
    // Looked at when an object is created, never again: it must not refuse a kill of one that an earlier schema let in.
    validation = Rule::new("oldSelf.hasValue() || self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && !(self.metadata.name in ['operator', 'operator-leader'])")
        .message("metadata.name must be at most 40 lower-case letters, digits or '-', start with a letter and end with a letter or digit, and not be 'operator' or 'operator-leader': create the bot under another name").optional_old_self(true),
    // Execution and what it needs have no smaller node in common; what is given cannot be taken away again.
    validation = Rule::new("oldSelf.hasValue() || self.spec.execution != 'Live' || has(self.spec.credentials.secretRef) && has(self.spec.venue.coinbase.portfolio)")
        .message("spec.execution Live needs spec.credentials.secretRef and spec.venue.coinbase.portfolio; to try a bot without a key set spec.execution to Paper").optional_old_self(true),
    printcolumn = r#"{"name":"Execution","type":"string","description":"Live, or Paper: orders are simulated","jsonPath":".spec.execution"}"#,
    printcolumn = r#"{"name":"Mode","type":"string","description":"What the spec asks for","jsonPath":".spec.mode"}"#,
    printcolumn = r#"{"name":"Effective","type":"string","description":"What the bot obeys, by its own word","jsonPath":".status.bot.effectiveMode"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Halted","type":"string","description":"Entry closed and no order works at the exchange","jsonPath":".status.conditions[?(@.type==\"Halted\")].status"}"#,
    printcolumn = r#"{"name":"Flat","type":"string","description":"No order and no position","jsonPath":".status.conditions[?(@.type==\"Flat\")].status"}"#,
    printcolumn = r#"{"name":"P&L","type":"string","description":"Quote currency, fees included, funding excluded","jsonPath":".status.bot.pnl.totalQuote"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","priority":1,"description":"Why Ready is what it is","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Incident","type":"string","priority":1,"description":"Open latch of a kill","jsonPath":".status.killSwitch.incidents[*].id"}"#,
    printcolumn = r#"{"name":"Contracts","type":"string","priority":1,"description":"Futures position","jsonPath":".status.bot.position.futureContracts"}"#,
    printcolumn = r#"{"name":"Spot","type":"string","priority":1,"description":"Spot position in base currency","jsonPath":".status.bot.position.spotBase"}"#,
    printcolumn = r#"{"name":"Leverage","type":"string","priority":1,"jsonPath":".status.bot.position.leverage"}"#,
    printcolumn = r#"{"name":"Key","type":"string","priority":1,"description":"Fingerprint of the API key in use","jsonPath":".status.credentials.fingerprint"}"#,
    printcolumn = r#"{"name":"Node","type":"string","priority":1,"jsonPath":".status.bot.node"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ArbBotSpec {
    /// Incident field. Active trades; ReduceOnly lets nothing raise a leg; Halted closes entry, cancels every resting
    /// order and keeps the position; Stopped closes the position maker-first, then ends the pod. Hot. Default Active.
    #[serde(default)]
    pub mode: Mode,

    /// Incident field. The kill switch: cancels every order and, by default, flattens the position. Latched until
    /// `release` names the incident. Hot.
    #[serde(default)]
    pub kill_switch: KillSwitch,

    /// Limits on what the bot may risk. Hot.
    #[serde(default)]
    pub risk: Risk,

    /// How orders are executed. Live sends them to the venue's account. Paper fills them in the bot itself, against the
    /// venue's public market data, and needs neither a key nor a portfolio. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("execution is immutable: create another ArbBot"))]
    pub execution: Execution,

    /// The paper account of `execution: Paper`; Live does not look at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paper: Option<Paper>,

    /// The exchange and the account there.
    pub venue: Venue,

    /// What the bot trades.
    pub strategy: Strategy,

    /// The API key of the account. Required when `execution` is Live; Paper does not look at it.
    #[serde(default)]
    #[x_kube(validation = Rule::new("!has(oldSelf.secretRef) || has(self.secretRef)")
        .message("credentials.secretRef cannot be removed: name another Secret, or delete the ArbBot"))]
    #[x_kube(validation = Rule::new("has(self.backupSecretRef) || (!has(self.active) || self.active == 'Primary') && (!has(self.failover) || self.failover == 'Never')")
        .message("credentials.active Backup and credentials.failover OnRefused need credentials.backupSecretRef"))]
    pub credentials: Credentials,

    /// Container image. Default: the operator's own release. Cold: a rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,

    /// Level of the bot's log. Hot. Default info.
    #[serde(default)]
    pub log_level: LogLevel,

    /// What the bot does, and when, once it has lost contact with the API server. Hot.
    #[serde(default)]
    #[x_kube(validation = Rule::new("duration(self.lease) >= duration('1s') && duration(self.lease) < duration(self.stale) && duration(self.stale) < duration(self.lost)")
        .message("controlTimeouts must keep the order 1s <= lease < stale < lost, for example lease: 30s, stale: 60s, lost: 5m"))]
    pub control_timeouts: ControlTimeouts,

    /// Where the bot keeps its durable record.
    #[serde(default)]
    pub ledger: Ledger,

    /// CPU and memory of the bot's container. Cold: a rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Further properties of the bot's pod. Cold: a rollout.
    #[serde(default)]
    pub pod_template: PodTemplate,

    /// How long a drain may take, under `mode: Stopped` or a deletion. While the futures session is closed the time
    /// stands still. Hot. Default 10m.
    #[serde(default = "drain_timeout")]
    pub drain_timeout: DurationString,

    /// What a drain does that takes longer than `drainTimeout`: Hold keeps the bot up with what is left, ReduceOnly;
    /// Flatten closes the rest as a kill does. Hot. Default Hold.
    #[serde(default)]
    pub on_drain_timeout: OnDrainTimeout,

    /// What happens to an open position when the ArbBot is deleted: Drain closes it maker-first within `drainTimeout`,
    /// Flatten closes it as a kill does, Orphan cancels the orders and leaves it. May be patched during the deletion.
    /// Hot. Default Drain.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// Account of a bot on paper: each has its own.
pub const PAPER_ACCOUNT: &str = "paper";

impl ArbBotSpec {
    /// The account that the bot trades: its portfolio, or on paper [`PAPER_ACCOUNT`].
    #[must_use]
    pub fn account(&self) -> &str {
        match self.execution {
            Execution::Live => self.venue.coinbase.portfolio.as_deref().unwrap_or_default(),
            Execution::Paper => PAPER_ACCOUNT,
        }
    }

    /// What Live execution needs and the spec lacks: the field.
    #[must_use]
    pub fn lacks_for_live(&self) -> Option<&'static str> {
        match self.execution {
            Execution::Paper => None,
            Execution::Live if self.venue.coinbase.portfolio.is_none() => Some("venue.coinbase.portfolio"),
            Execution::Live if self.credentials.secret_ref.is_none() => Some("credentials.secretRef"),
            Execution::Live => None,
        }
    }
}

/// Mode of a bot, from the least to the most restrictive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, Display)]
pub enum Mode {
    #[default]
    Active,
    ReduceOnly,
    Halted,
    /// Drains maker-first until flat, then scales to zero. Under another source's Halted it waits.
    Stopped,
}

/// The kill switch of a bot. `engaged: true` alone is a valid kill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KillSwitch {
    /// true engages the kill. Setting it back to false does not release it. Default false.
    pub engaged: bool,
    /// Why, for the record: shown in status and Events. Default "unspecified".
    #[schemars(length(max = 256))]
    pub reason: String,
    /// Flatten closes the position after the orders are cancelled; CancelOrders keeps it. The action of a running kill
    /// may rise to Flatten, never fall. Default Flatten.
    pub action: KillAction,
    /// Id of the incident to release, from status.killSwitch.incidents[].id. Takes effect when `engaged` is false and
    /// the kill has finished.
    #[schemars(length(max = 64))]
    pub release: String,
    /// Furthest limit price of a flattening order from the mid price, in basis points; widened with every attempt.
    /// Default "50".
    pub slippage_bps: DecimalString,
    /// After this long the rest is closed at market. Default 2m.
    pub deadline: DurationString,
}

impl Default for KillSwitch {
    fn default() -> Self {
        Self {
            engaged: false,
            reason: "unspecified".to_owned(),
            action: KillAction::default(),
            release: String::new(),
            slippage_bps: 50.into(),
            deadline: DurationString(std::time::Duration::from_secs(120)),
        }
    }
}

/// What a kill does, from the least to the most.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    EnumString,
)]
pub enum KillAction {
    CancelOrders,
    #[default]
    Flatten,
}

/// Limits on what a bot may risk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Risk {
    /// Limits that bind every order that raises exposure.
    pub limits: RiskLimits,
}

/// How orders are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display)]
pub enum Execution {
    /// Orders are filled by the bot itself against public market data. No order ever leaves it.
    Paper,
    /// Orders are sent to the venue's account.
    Live,
}

/// The API key of the account, and another of the same portfolio to change to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// Secret in the bot's namespace with the keys `name` and `privateKey` of the key file that Coinbase lets you
    /// download. Required when `execution` is Live. Its content is hot, the reference is cold.
    // Absent, but never null: a rule asks whether it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretRef")]
    pub secret_ref: Option<SecretRef>,
    /// Secret with a second key of the same portfolio, in the same form. Its content is hot, the reference is cold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_secret_ref: Option<SecretRef>,
    /// Incident field. Which of the two keys is used; the other is verified before the change. Hot. Default Primary.
    #[serde(default)]
    pub active: ActiveKey,
    /// What happens when the exchange refuses the key in use. Hot. Default Never.
    #[serde(default)]
    pub failover: KeyFailover,
    /// Age of the key in use from which the condition CredentialsValid reminds of changing it. Hot. Default 720h.
    #[serde(default = "max_key_age")]
    pub max_age: DurationString,
}

impl Default for Credentials {
    fn default() -> Self {
        Self {
            secret_ref: None,
            backup_secret_ref: None,
            active: ActiveKey::default(),
            failover: KeyFailover::default(),
            max_age: max_key_age(),
        }
    }
}

fn max_key_age() -> DurationString {
    DurationString(std::time::Duration::from_secs(720 * 3600))
}

/// Which of the two API keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display)]
pub enum ActiveKey {
    /// The key of `secretRef`.
    #[default]
    Primary,
    /// The key of `backupSecretRef`.
    Backup,
}

/// What happens when the exchange refuses the API key in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display)]
pub enum KeyFailover {
    /// A person decides.
    #[default]
    Never,
    /// After five refusals within at least 10 s the other key is used, if the exchange accepts it for the same portfolio
    /// and it may not transfer. The refused key is used again once its Secret changes.
    OnRefused,
}

/// A Secret in the bot's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Level of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// What the bot does once it has lost contact with the API server (SAFETY §4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ControlTimeouts {
    /// Without contact for this long nothing raises a leg any more. The Lease is renewed three times as often. Default 30s.
    pub lease: DurationString,
    /// Without contact for this long working orders are cancelled and only reducing orders are sent. Default 60s.
    pub stale: DurationString,
    /// Without contact for this long only cancels are sent, and another pod may take over. Default 5m.
    pub lost: DurationString,
}

impl Default for ControlTimeouts {
    fn default() -> Self {
        let seconds = |s| DurationString(std::time::Duration::from_secs(s));
        Self { lease: seconds(30), stale: seconds(60), lost: seconds(300) }
    }
}

/// Where a bot keeps its durable record. Its kind is immutable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Ledger {
    /// SQLite on a PersistentVolumeClaim, which outlives the bot.
    pub sqlite: Sqlite,
}

/// SQLite on a PersistentVolumeClaim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sqlite {
    /// Size of the claim. Immutable. Default 1Gi.
    #[serde(default = "ledger_size")]
    #[schemars(regex(pattern = r"^[1-9][0-9]{0,5}(Mi|Gi|Ti)$"), length(max = 12))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("ledger.sqlite.size is immutable: resize the PersistentVolumeClaim itself"))]
    pub size: String,
    /// StorageClass of the claim. Default: the cluster's. Read only when the claim is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

fn ledger_size() -> String {
    "1Gi".to_owned()
}

impl Default for Sqlite {
    fn default() -> Self {
        Self { size: ledger_size(), storage_class_name: None }
    }
}

/// Further properties of a bot's pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodTemplate {
    /// Labels added to the pod. Those of the operator win.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub labels: BTreeMap<String, String>,
    /// Annotations added to the pod.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub annotations: BTreeMap<String, String>,
    /// Nodes that the pod may run on.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pod tolerates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// Where the pod prefers or needs to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// How pods spread over the cluster.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// PriorityClass of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Secrets to pull the image with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Environment variables added to the container. Those of the operator win.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub env: Vec<EnvVar>,
}

/// What happens to an open position when the ArbBot is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display)]
pub enum DeletionPolicy {
    #[default]
    Drain,
    Flatten,
    Orphan,
}

/// What a drain does that takes longer than `drainTimeout`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display)]
pub enum OnDrainTimeout {
    #[default]
    Hold,
    Flatten,
}

const fn drain_timeout() -> DurationString {
    DurationString(std::time::Duration::from_secs(600))
}
