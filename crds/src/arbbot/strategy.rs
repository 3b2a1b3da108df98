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
    /// When it raises the position. Hot.
    #[serde(default)]
    #[x_kube(validation = Rule::new("duration(self.horizon) >= duration('24h') && duration(self.horizon) <= duration('8760h')")
        .message("strategy.fundingCarry.entry.horizon must be between 24h and 8760h (a year)"))]
    pub entry: EntryTerms,
    /// When it closes the position. Hot.
    #[serde(default)]
    #[x_kube(validation = Rule::new("duration(self.maxNegativeFunding) >= duration('1h') && duration(self.maxNegativeFunding) <= duration('168h')")
        .message("strategy.fundingCarry.exit.maxNegativeFunding must be between 1h and 168h (the week of funding that the bot looks back on)"))]
    #[x_kube(validation = Rule::new("duration(self.minHold) >= duration('0s') && duration(self.minHold) <= duration('720h')")
        .message("strategy.fundingCarry.exit.minHold must be between 0s and 720h (30 days)"))]
    pub exit: ExitTerms,
    /// The futures collateral that it needs. Hot.
    #[serde(default)]
    pub collateral: Collateral,
    /// How its orders are placed. Hot.
    #[serde(default)]
    #[x_kube(validation = Rule::new("duration(self.maxRest) >= duration('5s') && duration(self.maxRest) <= duration('10m')")
        .message("strategy.fundingCarry.orders.maxRest must be between 5s and 10m: it bounds how long an order outlives its bot"))]
    #[x_kube(validation = Rule::new("duration(self.legTimeout) >= duration('1s')")
        .message("strategy.fundingCarry.orders.legTimeout must be at least 1s"))]
    pub orders: Orders,
}

/// When funding carry raises its position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EntryTerms {
    /// Least edge, in basis points of notional: the funding expected over `horizon` less the cost of opening and closing
    /// both legs. Default "15".
    pub min_edge_bps: DecimalString,
    /// How long a position is expected to be held. Default 1080h.
    pub horizon: DurationString,
    /// Hours of funding, of the last 168, that the bot must have seen before it raises a position. The exchange shows only
    /// the last hour, so a new bot watches for this long; its ledger remembers what it saw. Default 24.
    #[schemars(range(min = 1, max = 168))]
    pub min_samples: u16,
}

impl Default for EntryTerms {
    fn default() -> Self {
        let horizon = DurationString(std::time::Duration::from_secs(1080 * 3600));
        Self { min_edge_bps: 15.into(), horizon, min_samples: 24 }
    }
}

/// When funding carry closes its position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExitTerms {
    /// So many hours in a row must have had negative funding, and the loss expected at their mean over a week (or
    /// `entry.horizon`, where that is shorter) must exceed the cost of closing both legs. Default 12h.
    pub max_negative_funding: DurationString,
    /// A position that was opened, from flat, less than this ago is not closed for negative funding. Nothing else waits
    /// for it: no kill, drain, mode, guard or limit. Default 24h.
    pub min_hold: DurationString,
}

impl Default for ExitTerms {
    fn default() -> Self {
        let hours = |h: u64| DurationString(std::time::Duration::from_secs(h * 3600));
        Self { max_negative_funding: hours(12), min_hold: hours(24) }
    }
}

/// The futures collateral that funding carry needs. The bot never moves any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Collateral {
    /// Collateral that is to be free once both legs stand, as a fraction of the futures notional: above the initial margin
    /// at the overnight rate. Where less is free nothing is entered; where less than nine tenths of it are, both legs are
    /// reduced together. Default "0.60".
    pub min_ratio: DecimalString,
}

impl Default for Collateral {
    fn default() -> Self {
        Self { min_ratio: DecimalString(rust_decimal::dec!(0.60)) }
    }
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
