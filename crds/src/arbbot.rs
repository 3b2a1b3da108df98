//! `ArbBot`: one arbitrage bot on one account.
//!
//! No CEL rule sits on a node that contains `mode`, `killSwitch` or `risk`, and `killSwitch` and `risk` have none
//! themselves: nothing may refuse a patch that engages a kill or tightens a limit. The rule on the root looks only at
//! the name, and only when the object is created.

mod control_timeouts;
mod credentials;
mod kill_switch;
mod ledger;
mod paper;
mod pod_template;
mod risk;
mod strategy;
mod venue;

use k8s_openapi::api::core::v1::ResourceRequirements;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::Display;

use crate::duration::DurationString;
use crate::status::ArbBotStatus;
pub use control_timeouts::ControlTimeouts;
pub use credentials::{ActiveKey, Credentials, KeyFailover, SecretRef};
pub use kill_switch::{KillAction, KillSwitch};
pub use ledger::{Ledger, Postgres, Sqlite};
pub use paper::{Paper, PaperFees};
pub use pod_template::PodTemplate;
pub use risk::Risk;
pub use strategy::{Collateral, EntryTerms, ExitTerms, FundingCarry, Orders, Strategy};
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
    printcolumn = r#"{"name":"P&L","type":"string","description":"Quote currency, fees and funding included","jsonPath":".status.bot.pnl.totalQuote"}"#,
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

    /// Where the bot keeps its durable record: `sqlite`, the default, or `postgres`.
    #[serde(default)]
    #[x_kube(validation = Rule::new("!(has(self.sqlite) && has(self.postgres))")
        .message("ledger is one of sqlite and postgres"))]
    #[x_kube(validation = Rule::new("has(self.postgres) == has(oldSelf.postgres)")
        .message("ledger: its kind is immutable, create another ArbBot (a backup of this ledger can be restored there)"))]
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

    /// Ids of the products of its legs: spot, then future.
    #[must_use]
    pub fn products(&self) -> [String; 2] {
        let carry = &self.strategy.funding_carry;
        [carry.spot_product.clone(), carry.future_product.clone()]
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

/// How orders are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display)]
pub enum Execution {
    /// Orders are filled by the bot itself against public market data. No order ever leaves it.
    Paper,
    /// Orders are sent to the venue's account.
    Live,
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
