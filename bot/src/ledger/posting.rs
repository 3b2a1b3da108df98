//! What the books hold beside the orders: each record is posted once and never changed. Pure.
//!
//! Amounts are in quote currency, sizes in the product's own unit, times those of the exchange.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::record::text;
use crate::exchange::{Fill, Liquidity, Side};

/// One execution of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FillRecord {
    /// The exchange's ids: together they name the fill.
    pub order_id: String,
    pub trade_id: String,
    pub client_order_id: String,
    pub product: String,
    #[serde(with = "text")]
    pub side: Side,
    pub size: Decimal,
    /// Base currency in one unit of size: 1 for spot, the contract size for a future.
    pub unit_base: Decimal,
    pub price: Decimal,
    pub fee_quote: Decimal,
    #[serde(with = "text")]
    pub liquidity: Liquidity,
    pub at: Timestamp,
}

impl FillRecord {
    /// The record of what the exchange shows of an order of this bot.
    #[must_use]
    pub fn new(fill: Fill, client_order_id: String, unit_base: Decimal) -> Self {
        let Fill { order_id, trade_id, product, side, size, price, fee_quote, liquidity, at } = fill;
        Self { order_id, trade_id, client_order_id, product, side, size, unit_base, price, fee_quote, liquidity, at }
    }

    /// Size with its sign: negative for a sale.
    #[must_use]
    pub fn signed(&self) -> Decimal {
        self.side.sign() * self.size
    }

    /// Quote currency that it is worth, without sign.
    #[must_use]
    pub fn value_quote(&self) -> Decimal {
        self.size * self.unit_base * self.price
    }
}

/// Prices at the moment an order was decided on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionRecord {
    pub client_order_id: String,
    /// Middle of the best prices.
    pub mid: Decimal,
    /// Price that was expected: the limit price of an order that rests, the other side's best price of one that takes.
    pub expected_price: Decimal,
}

/// Where the rate of an hour comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::EnumString, Serialize, Deserialize)]
pub enum Quality {
    /// The exchange showed it.
    Observed,
    /// Nobody saw it: the amount is zero until the settlement tells.
    Missing,
}

/// Funding of one hour in which a position was held: an estimate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FundingRecord {
    pub product: String,
    /// End of the hour.
    pub hour: Timestamp,
    /// Contracts held then, negative for a short.
    pub contracts: Decimal,
    /// Base currency in a contract.
    pub unit_base: Decimal,
    /// Price of the future, as near to the end of the hour as it was seen.
    pub mark: Decimal,
    /// Rate of the hour, as a fraction of value.
    pub rate: Decimal,
    pub quality: Quality,
    /// What the hour brings: −contracts × contract size × mark × rate, so a short receives while the rate is positive.
    pub accrued_quote: Decimal,
}

impl FundingRecord {
    /// The funding of an hour whose rate was seen.
    #[must_use]
    pub fn observed(
        product: String,
        hour: Timestamp,
        contracts: Decimal,
        unit_base: Decimal,
        mark: Decimal,
        rate: Decimal,
    ) -> Self {
        let accrued_quote = -contracts * unit_base * mark * rate;
        Self { product, hour, contracts, unit_base, mark, rate, quality: Quality::Observed, accrued_quote }
    }

    /// The funding of an hour whose rate nobody saw.
    #[must_use]
    pub fn missing(product: String, hour: Timestamp, contracts: Decimal, unit_base: Decimal) -> Self {
        let (mark, rate, accrued_quote) = (Decimal::ZERO, Decimal::ZERO, Decimal::ZERO);
        Self { product, hour, contracts, unit_base, mark, rate, quality: Quality::Missing, accrued_quote }
    }
}

/// Funding that was paid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettlementRecord {
    pub product: String,
    /// The exchange pays what accrued up to here.
    pub window_end: Timestamp,
    /// End of the window that was booked before; None: this is the first.
    pub since: Option<Timestamp>,
    /// What was estimated for the hours after `since` up to `window_end`.
    pub accrued_quote: Decimal,
    /// What the balance moved by that no fill, fee or variation margin explains.
    pub settled_quote: Decimal,
    pub booked_at: Timestamp,
}

impl SettlementRecord {
    /// What was paid beyond the estimate: the drift.
    #[must_use]
    pub fn adjustment_quote(&self) -> Decimal {
        self.settled_quote - self.accrued_quote
    }
}

/// A daily settlement of a position: its gain or loss up to the price is paid out, and it goes on from there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariationRecord {
    pub product: String,
    pub at: Timestamp,
    pub price: Decimal,
    /// Contracts held then, as far as was known.
    pub contracts: Decimal,
}

/// Money that came or went without this bot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRecord {
    pub at: Timestamp,
    pub quote: Decimal,
}

/// What the bot had made at a moment: owned only, so deposits and withdrawals are not in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EquityRecord {
    pub at: Timestamp,
    /// Cash, funding and the position at the middle prices of this moment.
    pub equity_quote: Decimal,
    /// What the fills brought in, fees paid.
    pub cash_quote: Decimal,
    /// Funding settled, and accrued since.
    pub funding_quote: Decimal,
    pub fees_quote: Decimal,
    pub spot_base: Decimal,
    pub spot_mid: Decimal,
    pub contracts: Decimal,
    pub future_mid: Decimal,
}

/// One record of the books.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Posting {
    Fill(FillRecord),
    Decision(DecisionRecord),
    Funding(FundingRecord),
    Settlement(SettlementRecord),
    Variation(VariationRecord),
    Flow(FlowRecord),
    Equity(EquityRecord),
}

/// Everything that was posted, each kind in the order of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    pub fills: Vec<FillRecord>,
    pub decisions: BTreeMap<String, DecisionRecord>,
    pub funding: Vec<FundingRecord>,
    pub settlements: Vec<SettlementRecord>,
    pub variation: Vec<VariationRecord>,
    pub flows: Vec<FlowRecord>,
    pub equity: Vec<EquityRecord>,
}

impl Books {
    /// Signed sum of the fills of a product, in its own unit.
    #[must_use]
    pub fn position(&self, product: &str) -> Decimal {
        self.fills.iter().filter(|fill| fill.product == product).map(FillRecord::signed).sum()
    }

    /// What trading brought in: the fills, less fees, and the funding that was paid. Exact.
    #[must_use]
    pub fn cash_quote(&self) -> Decimal {
        let fills = self.fills.iter().map(|fill| fill.side.sign() * fill.value_quote());
        self.settled_quote() - fills.sum::<Decimal>() - self.fees_quote()
    }

    /// Fees paid.
    #[must_use]
    pub fn fees_quote(&self) -> Decimal {
        self.fills.iter().map(|fill| fill.fee_quote).sum()
    }

    /// Funding that was paid.
    #[must_use]
    pub fn settled_quote(&self) -> Decimal {
        self.settlements.iter().map(|settlement| settlement.settled_quote).sum()
    }

    /// Funding that was estimated and is not yet paid.
    #[must_use]
    pub fn accrued_quote(&self) -> Decimal {
        let until = self.settlements.last().map(|settlement| settlement.window_end);
        let open = self.funding.iter().filter(|hour| until.is_none_or(|until| hour.hour > until));
        open.map(|hour| hour.accrued_quote).sum()
    }

    /// Brings every kind into the order of time.
    pub(super) fn sort(&mut self) {
        self.fills.sort_by_cached_key(fill_order);
        self.funding.sort_by_key(|hour| hour.hour);
        self.settlements.sort_by_key(|settlement| settlement.window_end);
        self.variation.sort_by_key(|variation| variation.at);
        self.flows.sort_by_key(|flow| flow.at);
        self.equity.sort_by_key(|equity| equity.at);
    }
}

/// Order of fills: their time, and within it the exchange's numbering. A shorter number is a lower one.
#[must_use]
pub fn fill_order(fill: &FillRecord) -> (Timestamp, usize, String) {
    (fill.at, fill.trade_id.len(), fill.trade_id.clone())
}

/// The postings of a chain, by what names each: the first one stays.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Posted(BTreeMap<(&'static str, String, String), Posting>);

impl Posted {
    pub fn take(&mut self, postings: Vec<Posting>) {
        for posting in postings {
            self.0.entry(posting.key()).or_insert(posting);
        }
    }

    /// The table and key of the first posting that only one of the two has, or that differs.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let keys = self.0.keys().chain(other.0.keys());
        let differs = |key: &&(&str, String, String)| self.0.get(*key) != other.0.get(*key);
        keys.into_iter().find(differs).map(|(table, a, b)| format!("{table} {a} {b}").trim_end().to_owned())
    }
}

impl From<Books> for Posted {
    fn from(books: Books) -> Self {
        let Books { fills, decisions, funding, settlements, variation, flows, equity } = books;
        let mut posted = Self::default();
        posted.take(fills.into_iter().map(Posting::Fill).collect());
        posted.take(decisions.into_values().map(Posting::Decision).collect());
        posted.take(funding.into_iter().map(Posting::Funding).collect());
        posted.take(settlements.into_iter().map(Posting::Settlement).collect());
        posted.take(variation.into_iter().map(Posting::Variation).collect());
        posted.take(flows.into_iter().map(Posting::Flow).collect());
        posted.take(equity.into_iter().map(Posting::Equity).collect());
        posted
    }
}

impl Posting {
    /// Its table, and what names it there.
    fn key(&self) -> (&'static str, String, String) {
        match self {
            Self::Fill(fill) => ("fill", fill.order_id.clone(), fill.trade_id.clone()),
            Self::Decision(decision) => ("decision", decision.client_order_id.clone(), String::new()),
            Self::Funding(hour) => ("funding", hour.product.clone(), hour.hour.to_string()),
            Self::Settlement(settlement) => {
                ("settlement", settlement.product.clone(), settlement.window_end.to_string())
            }
            Self::Variation(variation) => ("variation", variation.product.clone(), variation.at.to_string()),
            Self::Flow(flow) => ("flow", flow.at.to_string(), String::new()),
            Self::Equity(equity) => ("equity", equity.at.to_string(), String::new()),
        }
    }
}
