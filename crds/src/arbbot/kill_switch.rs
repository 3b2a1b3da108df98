//! `spec.killSwitch`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumString};

use crate::decimal::DecimalString;
use crate::duration::DurationString;

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
    /// Furthest limit price of a flattening order from the mid price, in basis points; widened by as much with every
    /// attempt that fills nothing, as are trims and exits that take. Default "50".
    pub slippage_bps: DecimalString,
    /// After this long the rest is closed at market; counted from when the action became Flatten. Default 2m.
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
