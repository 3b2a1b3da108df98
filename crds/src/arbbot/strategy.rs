//! `spec.strategy`: what a bot trades, and how its orders are placed.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decimal::DecimalString;
use crate::duration::DurationString;

/// What a bot trades. Exactly one of its fields is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Strategy {
    /// Long spot, short perpetual-style future, delta neutral: earns the funding that longs pay.
    pub funding_carry: FundingCarry,
}

/// Long spot, short perpetual-style future, delta neutral.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FundingCarry {
    /// Spot product of the long leg, for example BTC-USD. Immutable.
    #[schemars(regex(pattern = r"^[A-Z0-9]{2,10}-[A-Z0-9]{2,10}$"), length(max = 21))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("strategy.fundingCarry.spotProduct is immutable: create another ArbBot"))]
    pub spot_product: String,
    /// Futures product of the short leg, for example BIP-20DEC30-CDE. Immutable. INTX perpetuals ended on Advanced
    /// Trade on 1 October 2026.
    #[schemars(regex(pattern = r"^[A-Z0-9]{2,10}-([0-9]{1,2}[A-Z]{3}[0-9]{2}-CDE|PERP-INTX)$"), length(max = 40))]
    // The pattern lets it pass so that the refusal can say why.
    #[x_kube(validation = Rule::new("!self.endsWith('-INTX')")
        .message("INTX perpetuals over Advanced Trade ended on 1 October 2026: choose a US perpetual-style future, for example BIP-20DEC30-CDE"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("strategy.fundingCarry.futureProduct is immutable: create another ArbBot"))]
    pub future_product: String,
    /// Notional of each leg that the bot builds up to, in quote currency, cut to whole contracts. Hot.
    pub target_notional: DecimalString,
    /// How its orders are placed. Hot.
    #[serde(default)]
    #[x_kube(validation = Rule::new("duration(self.maxRest) >= duration('5s') && duration(self.maxRest) <= duration('10m')")
        .message("strategy.fundingCarry.orders.maxRest must be between 5s and 10m: it bounds how long an order outlives its bot"))]
    #[x_kube(validation = Rule::new("duration(self.legTimeout) >= duration('1s')")
        .message("strategy.fundingCarry.orders.legTimeout must be at least 1s"))]
    pub orders: Orders,
}

/// How a strategy's orders are placed. Both legs rest post-only at the touch first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Orders {
    /// How long one leg may stay ahead of the other before the difference is taken from the book; also how long a
    /// halted bot may trim an imbalance. Default 20s.
    pub leg_timeout: DurationString,
    /// Longest life of a resting order: it expires by itself at the exchange and is renewed while the bot lives.
    /// Default 120s.
    pub max_rest: DurationString,
}

impl Default for Orders {
    fn default() -> Self {
        let seconds = |s| DurationString(std::time::Duration::from_secs(s));
        Self { leg_timeout: seconds(20), max_rest: seconds(120) }
    }
}
