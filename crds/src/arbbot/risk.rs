//! `spec.risk`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::RiskLimits;

/// Limits on what a bot may risk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Risk {
    /// Limits that bind every order that raises exposure.
    pub limits: RiskLimits,
}
