//! `spec.controlTimeouts`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::DurationString;

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
