//! `spec.risk`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decimal::DecimalString;
use crate::guards::Guards;
use crate::limits::RiskLimits;

/// Limits on what a bot may risk, and what is watched all the time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Risk {
    /// Capital that stands behind the bot, in quote currency: what percentages of a loss are of. Hot. Default "25000".
    pub capital: DecimalString,
    /// Limits that bind every order that raises exposure.
    pub limits: RiskLimits,
    /// What is watched all the time, and what happens from which value on. The guards of docs/guards.md are in force
    /// unless one here has the same name. Hot. Default none.
    #[serde(skip_serializing_if = "Guards::is_empty")]
    pub guards: Guards,
}

impl Default for Risk {
    fn default() -> Self {
        Self { capital: 25_000.into(), limits: RiskLimits::default(), guards: Guards::default() }
    }
}
