//! Accounts, futures positions and the futures balance.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Deserialize;

use super::{amount, nullable, parse_decimal};

/// An account: what is there of one currency.
#[derive(Deserialize)]
pub struct Account {
    pub currency: String,
    available_balance: Amount,
    #[serde(default, deserialize_with = "nullable")]
    hold: Amount,
}

impl Account {
    /// What is available and what is held.
    pub fn total(&self) -> Decimal {
        self.available_balance.value + self.hold.value
    }
}

#[derive(Default, Deserialize)]
struct Amount {
    #[serde(deserialize_with = "amount")]
    value: Decimal,
}

/// GET /cfm/positions.
#[derive(Deserialize)]
pub struct Positions {
    #[serde(default, deserialize_with = "nullable")]
    positions: Vec<Position>,
}

#[derive(Deserialize)]
struct Position {
    product_id: String,
    #[serde(default, deserialize_with = "nullable")]
    side: String,
    #[serde(deserialize_with = "amount")]
    number_of_contracts: Decimal,
}

impl Positions {
    /// Signed contracts by product.
    pub fn contracts(self) -> Result<BTreeMap<String, Decimal>, String> {
        let signed = |position: Position| {
            let contracts = position.number_of_contracts.abs();
            match position.side.as_str() {
                "LONG" => Ok((position.product_id, contracts)),
                "SHORT" => Ok((position.product_id, -contracts)),
                _ if contracts.is_zero() => Ok((position.product_id, contracts)),
                side => Err(format!("the position in {} has the side {side:?}", position.product_id)),
            }
        };
        self.positions.into_iter().map(signed).collect()
    }
}

/// GET /cfm/balance_summary.
#[derive(Deserialize)]
pub struct BalanceSummary {
    balance_summary: Balance,
}

#[derive(Deserialize)]
struct Balance {
    total_usd_balance: Amount,
    unrealized_pnl: Amount,
}

impl BalanceSummary {
    /// What stands behind the futures: all USD (the venue moves spot cash to futures by itself) and the unrealised
    /// profit or loss. Not `available_margin`: it moves with every resting order.
    pub fn collateral(&self) -> Decimal {
        self.balance_summary.total_usd_balance.value + self.balance_summary.unrealized_pnl.value
    }
}

/// GET /transaction_summary.
#[derive(Deserialize)]
pub struct TransactionSummary {
    fee_tier: FeeTier,
}

#[derive(Deserialize)]
struct FeeTier {
    maker_fee_rate: String,
    taker_fee_rate: String,
}

impl TransactionSummary {
    /// Maker and taker fee as fractions of value. An empty one is not zero: whether a trade pays hangs on it.
    pub fn maker_and_taker(&self) -> Result<(Decimal, Decimal), String> {
        let FeeTier { maker_fee_rate, taker_fee_rate } = &self.fee_tier;
        let fee = |name: &str, text: &str| match parse_decimal(text)? {
            fee if !text.is_empty() && fee.abs() < Decimal::ONE => Ok(fee),
            _ => Err(format!("{name} is {:?}, not a fraction of value", arbbot_crds::conditions::shorten(text, 40))),
        };
        Ok((fee("maker_fee_rate", maker_fee_rate)?, fee("taker_fee_rate", taker_fee_rate)?))
    }
}
