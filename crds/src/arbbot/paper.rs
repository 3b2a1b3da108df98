//! `spec.paper`: the account of a bot that trades on paper.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decimal::DecimalString;

/// A paper account. It lives in the bot's ledger directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Paper {
    /// What the account is opened with, in quote currency; spot and futures share it. Immutable. Default "100000".
    #[serde(default = "balance")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("paper.balance is immutable: create another ArbBot"))]
    pub balance: DecimalString,
    /// What a fill costs. Hot.
    #[serde(default)]
    pub fees: PaperFees,
}

fn balance() -> DecimalString {
    100_000.into()
}

impl Default for Paper {
    fn default() -> Self {
        Self { balance: balance(), fees: PaperFees::default() }
    }
}

/// Fees of a paper account, each in basis points of the value filled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PaperFees {
    /// Spot, resting. Default "40": Coinbase's entry tier.
    pub spot_maker_bps: DecimalString,
    /// Spot, taking. Default "60": Coinbase's entry tier.
    pub spot_taker_bps: DecimalString,
    /// Future, resting. Default "6.5": 5 of the broker and about 1.5 of the exchange.
    pub future_maker_bps: DecimalString,
    /// Future, taking. Default "6.5".
    pub future_taker_bps: DecimalString,
}

impl Default for PaperFees {
    fn default() -> Self {
        let future = DecimalString(rust_decimal::dec!(6.5));
        Self {
            spot_maker_bps: 40.into(),
            spot_taker_bps: 60.into(),
            future_maker_bps: future,
            future_taker_bps: future,
        }
    }
}
