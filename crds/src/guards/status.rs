//! Guards in status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumString};

use super::{GuardAction, GuardMetric};

/// A guard that warns or has tripped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GuardStatus {
    /// Name of the guard.
    pub name: String,
    /// What it watches.
    pub metric: GuardMetric,
    /// Whether it warns or has tripped.
    pub state: GuardState,
    /// What its trip does.
    pub action: GuardAction,
    /// The value when it began to warn, or tripped, in the metric's unit.
    pub value: String,
    /// The threshold that the value was beyond.
    pub threshold: String,
    /// Since when.
    pub since: Time,
    /// Incident of a trip that ends by hand: the id to put into `spec.killSwitch.release`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<String>,
}

/// How far a guard is.
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
pub enum GuardState {
    /// Nothing is wrong. Not shown in status.
    #[default]
    Good,
    /// Beyond `warnAt`.
    Warns,
    /// Beyond `tripAt`, or not yet released.
    Tripped,
}
