//! Limits of a bot, and the ceilings that a policy puts on them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decimal::DecimalString;

/// Limits that bind every order that raises exposure. No limit ever denies an order that lowers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RiskLimits {
    /// Largest notional of one leg, working and unknown orders included, in quote currency. Hot. Default "25000".
    pub max_position_notional: DecimalString,
    /// Largest notional of one order, in quote currency; larger exits are cut into slices of this size. Hot. Default "5000".
    pub max_order_notional: DecimalString,
    /// Largest notional of the futures leg divided by the futures collateral. Hot. Default "1.6".
    pub max_leverage: DecimalString,
    /// Largest steady difference between the legs, in quote currency; at least one contract. Hot. Default "1500".
    pub max_delta_notional: DecimalString,
    /// Largest difference between the legs while legging in, in quote currency; at least one contract. Hot. Default "5000".
    pub max_leg_imbalance_notional: DecimalString,
    /// Most orders that may work at the exchange at once. Hot. Default 10.
    #[schemars(range(min = 0, max = 1000), extend("format" = "int32"))]
    pub max_open_orders: u32,
    /// Most orders that may be sent in any minute. Hot. Default 60.
    #[schemars(range(min = 0, max = 6000), extend("format" = "int32"))]
    pub max_orders_per_minute: u32,
    /// Furthest limit price from the mid price on the wrong side of it, in basis points. What lowers a leg begins here and
    /// goes killSwitch.slippageBps further with every attempt that fills nothing. Hot. Default "30".
    pub max_slippage_bps: DecimalString,
}

impl Default for RiskLimits {
    fn default() -> Self {
        Self {
            max_position_notional: 25_000.into(),
            max_order_notional: 5_000.into(),
            max_leverage: DecimalString(rust_decimal::Decimal::new(16, 1)),
            max_delta_notional: 1_500.into(),
            max_leg_imbalance_notional: 5_000.into(),
            max_open_orders: 10,
            max_orders_per_minute: 60,
            max_slippage_bps: 30.into(),
        }
    }
}

impl RiskLimits {
    /// These limits under the ceilings of a policy: the smaller value of each.
    #[must_use]
    pub fn under(&self, ceilings: &LimitCeilings) -> Self {
        // Destructured without `..`: a new limit does not compile until it is joined here.
        let LimitCeilings {
            max_position_notional,
            max_order_notional,
            max_leverage,
            max_delta_notional,
            max_leg_imbalance_notional,
            max_open_orders,
            max_orders_per_minute,
            max_slippage_bps,
        } = ceilings;
        Self {
            max_position_notional: lower(self.max_position_notional, *max_position_notional),
            max_order_notional: lower(self.max_order_notional, *max_order_notional),
            max_leverage: lower(self.max_leverage, *max_leverage),
            max_delta_notional: lower(self.max_delta_notional, *max_delta_notional),
            max_leg_imbalance_notional: lower(self.max_leg_imbalance_notional, *max_leg_imbalance_notional),
            max_open_orders: lower(self.max_open_orders, *max_open_orders),
            max_orders_per_minute: lower(self.max_orders_per_minute, *max_orders_per_minute),
            max_slippage_bps: lower(self.max_slippage_bps, *max_slippage_bps),
        }
    }

    /// The first limit that is lower here than it was `before`, by its field.
    #[must_use]
    pub fn lowered_since(&self, before: &Self) -> Option<&'static str> {
        // Destructured without `..`: a new limit does not compile until it is compared here.
        let Self {
            max_position_notional,
            max_order_notional,
            max_leverage,
            max_delta_notional,
            max_leg_imbalance_notional,
            max_open_orders,
            max_orders_per_minute,
            max_slippage_bps,
        } = self;
        [
            ("maxPositionNotional", *max_position_notional < before.max_position_notional),
            ("maxOrderNotional", *max_order_notional < before.max_order_notional),
            ("maxLeverage", *max_leverage < before.max_leverage),
            ("maxDeltaNotional", *max_delta_notional < before.max_delta_notional),
            ("maxLegImbalanceNotional", *max_leg_imbalance_notional < before.max_leg_imbalance_notional),
            ("maxOpenOrders", *max_open_orders < before.max_open_orders),
            ("maxOrdersPerMinute", *max_orders_per_minute < before.max_orders_per_minute),
            ("maxSlippageBps", *max_slippage_bps < before.max_slippage_bps),
        ]
        .into_iter()
        .find_map(|(limit, is_lower)| is_lower.then_some(limit))
    }
}

fn lower<T: Ord>(own: T, ceiling: Option<T>) -> T {
    match ceiling {
        Some(ceiling) => own.min(ceiling),
        None => own,
    }
}

/// Ceilings on the limits of every bot that a policy selects; an absent field sets none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitCeilings {
    /// Ceiling on `maxPositionNotional`, in quote currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_position_notional: Option<DecimalString>,
    /// Ceiling on `maxOrderNotional`, in quote currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_order_notional: Option<DecimalString>,
    /// Ceiling on `maxLeverage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_leverage: Option<DecimalString>,
    /// Ceiling on `maxDeltaNotional`, in quote currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_delta_notional: Option<DecimalString>,
    /// Ceiling on `maxLegImbalanceNotional`, in quote currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_leg_imbalance_notional: Option<DecimalString>,
    /// Ceiling on `maxOpenOrders`.
    #[schemars(range(min = 0, max = 1000), extend("format" = "int32"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_open_orders: Option<u32>,
    /// Ceiling on `maxOrdersPerMinute`.
    #[schemars(range(min = 0, max = 6000), extend("format" = "int32"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_orders_per_minute: Option<u32>,
    /// Ceiling on `maxSlippageBps`, in basis points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_slippage_bps: Option<DecimalString>,
}
