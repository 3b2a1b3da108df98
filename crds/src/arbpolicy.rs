//! `ArbPolicy`: one patch for every bot of a desk.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::core::{ParseExpressionError, Selector, SelectorExt};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::arbbot::{ArbBot, KillAction, Mode};
use crate::limits::LimitCeilings;

/// ArbPolicy restricts every ArbBot of its namespace that its selector matches. The most restrictive of a bot's spec
/// and all its policies wins.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "arbbot.io",
    version = "v1alpha1",
    kind = "ArbPolicy",
    plural = "arbpolicies",
    doc = "ArbPolicy restricts every ArbBot of its namespace that its selector matches. The most restrictive of a bot's spec and all its policies wins.",
    namespaced,
    status = "ArbPolicyStatus",
    derive = "PartialEq",
    shortname = "abp",
    // Not "arbbot": kubectl expands a category before it looks for a singular name, and
    // `kubectl get arbbot NAME` would mean both kinds.
    category = "arb",
    printcolumn = r#"{"name":"Mode","type":"string","jsonPath":".spec.mode"}"#,
    printcolumn = r#"{"name":"Engaged","type":"boolean","description":"Whether its kill switch is engaged","jsonPath":".spec.killSwitch.engaged"}"#,
    printcolumn = r#"{"name":"Matched","type":"integer","description":"Bots that it selects","jsonPath":".status.bots.matched"}"#,
    printcolumn = r#"{"name":"Acknowledged","type":"integer","description":"Of these, bots that obey its present generation","jsonPath":".status.bots.acknowledged"}"#,
    printcolumn = r#"{"name":"Halted","type":"integer","description":"Of these, bots whose halt the exchange has confirmed","jsonPath":".status.bots.halted"}"#,
    printcolumn = r#"{"name":"Flat","type":"integer","description":"Of these, bots without order and position","jsonPath":".status.bots.flat"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","priority":1,"jsonPath":".spec.killSwitch.reason"}"#,
    printcolumn = r#"{"name":"Status","type":"string","priority":1,"description":"Why Ready is what it is","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ArbPolicySpec {
    /// Which bots of the namespace, by their labels. Absent: every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,

    /// Mode that the bots may not exceed. Default Active: no restriction.
    #[serde(default)]
    pub mode: Mode,

    /// Kill switch for all of the bots. Latched on each bot until `release` names the incident.
    #[serde(default)]
    pub kill_switch: PolicyKillSwitch,

    /// Ceilings on the bots' limits.
    #[serde(default)]
    pub risk: PolicyRisk,
}

/// Status of an ArbPolicy: what its bots say, counted by the operator. `kubectl wait` on a desk reads the conditions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArbPolicyStatus {
    /// metadata.generation that was counted; -1 before the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = -1))]
    pub observed_generation: Option<i64>,
    /// ControlApplied, Halted and Flat: True when it is so for every bot that the policy selects, and it selects at
    /// least one. Ready, Reconciling and Stalled as kstatus reads them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// How many bots.
    #[serde(default)]
    pub bots: PolicyBots,
}

/// How many of a policy's bots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyBots {
    /// Selected by the policy.
    #[schemars(range(min = 0), extend("format" = "int32"))]
    pub matched: u32,
    /// Of these, obey its present generation by their own word.
    #[schemars(range(min = 0), extend("format" = "int32"))]
    pub acknowledged: u32,
    /// Of these, are halted: the exchange has confirmed that no order works.
    #[schemars(range(min = 0), extend("format" = "int32"))]
    pub halted: u32,
    /// Of these, have neither order nor position.
    #[schemars(range(min = 0), extend("format" = "int32"))]
    pub flat: u32,
}

/// The kill switch of a policy. `engaged: true` alone is a valid kill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyKillSwitch {
    /// true engages the kill on every bot. Setting it back to false does not release it. Default false.
    pub engaged: bool,
    /// Why, for the record. Default "unspecified".
    #[schemars(length(max = 256))]
    pub reason: String,
    /// Flatten closes the positions after the orders are cancelled; CancelOrders keeps them. Default Flatten.
    pub action: KillAction,
    /// Id of the policy's own incident to release on all its bots. Takes effect when `engaged` is false and the kill
    /// has finished.
    #[schemars(length(max = 64))]
    pub release: String,
}

impl Default for PolicyKillSwitch {
    fn default() -> Self {
        Self { engaged: false, reason: "unspecified".to_owned(), action: KillAction::default(), release: String::new() }
    }
}

/// Ceilings of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyRisk {
    /// Ceilings on the bots' limits; an absent field sets none.
    pub limits: LimitCeilings,
}

impl ArbPolicy {
    /// Whether the policy applies to the bot.
    ///
    /// # Errors
    /// The selector cannot be read. The caller treats such a policy as matching: a restriction that nobody can read
    /// must not be ignored.
    pub fn selects(&self, bot: &ArbBot) -> Result<bool, ParseExpressionError> {
        let Some(selector) = &self.spec.selector else { return Ok(true) };
        let selector: Selector = selector.clone().try_into()?;
        Ok(selector.matches(bot.metadata.labels.as_ref().unwrap_or(&std::collections::BTreeMap::new())))
    }
}
