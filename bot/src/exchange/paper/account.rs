//! Money, positions and orders of a paper account. Every amount that a fill moves is in here.

use std::collections::BTreeMap;

use exchange_matching::fees::FeeRates;
use exchange_matching::position::Position;
use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::exchange::{Fill, Liquidity, OrderState, OrderStatus, Side};

/// What fills cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeeSchedule {
    pub spot: FeeRates,
    pub future: FeeRates,
}

/// Money and positions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// What it was opened with, in quote currency.
    pub opened_with: Decimal,
    /// Quote currency: spot and futures share it.
    pub cash: Decimal,
    /// Base currency by currency.
    pub base: BTreeMap<String, Decimal>,
    /// Futures positions by product.
    pub positions: BTreeMap<String, Position>,
    /// All fees so far.
    pub fees: Decimal,
    /// Until when funding has accrued, by product.
    pub funded_until: BTreeMap<String, Timestamp>,
}

impl Account {
    /// A new account.
    pub fn opened_with(balance: Decimal) -> Self {
        Self { opened_with: balance, cash: balance, ..Self::default() }
    }

    /// Signed contracts of a product.
    pub fn contracts(&self, product: &str) -> Decimal {
        self.positions.get(product).map_or(Decimal::ZERO, |position| position.contracts)
    }

    /// Balance of a base currency.
    pub fn base_of(&self, currency: &str) -> Decimal {
        self.base.get(currency).copied().unwrap_or_default()
    }

    /// Books a spot fill of `size` worth `value`.
    pub fn fill_spot(&mut self, currency: &str, side: Side, size: Decimal, value: Decimal, fee: Decimal) {
        *self.base.entry(currency.to_owned()).or_default() += side.sign() * size;
        self.cash -= side.sign() * value + fee;
        self.fees += fee;
    }

    /// Books a futures fill of `size` contracts worth `value`.
    pub fn fill_future(&mut self, product: &str, side: Side, size: Decimal, value: Decimal, fee: Decimal) {
        let position = self.positions.entry(product.to_owned()).or_default();
        let realized = position.apply(matching_side(side), size, value);
        position.daily_realized_pnl += realized;
        position.fees += fee;
        self.cash += realized - fee;
        self.fees += fee;
    }
}

/// The side in the words of the shared crate.
pub fn matching_side(side: Side) -> exchange_matching::book::Side {
    match side {
        Side::Buy => exchange_matching::book::Side::Buy,
        Side::Sell => exchange_matching::book::Side::Sell,
    }
}

/// An order of the account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaperOrder {
    /// Rises with every order: price-time priority, and the id.
    pub number: u64,
    pub client_order_id: String,
    pub product: String,
    pub buy: bool,
    pub size: Decimal,
    /// None: at the market.
    pub limit: Option<Decimal>,
    /// Whether what does not match at once rests.
    pub rests: bool,
    pub expires_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub status: Status,
    pub filled: Decimal,
    /// Σ size × price of what is filled.
    pub filled_value: Decimal,
    pub fees: Decimal,
    /// Oldest first.
    #[serde(default)]
    pub fills: Vec<PaperFill>,
}

/// One execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaperFill {
    pub price: Decimal,
    pub size: Decimal,
    pub fee: Decimal,
    pub maker: bool,
    pub at: Timestamp,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    Open,
    Filled,
    Cancelled,
    Expired,
}

impl PaperOrder {
    pub fn side(&self) -> Side {
        if self.buy { Side::Buy } else { Side::Sell }
    }

    pub fn remaining(&self) -> Decimal {
        self.size - self.filled
    }

    pub fn is_open(&self) -> bool {
        self.status == Status::Open
    }

    pub fn order_id(&self) -> String {
        format!("paper-{}", self.number)
    }

    /// Its executions, as an exchange shows them.
    pub fn shown_fills(&self) -> impl Iterator<Item = Fill> {
        self.fills.iter().enumerate().map(|(n, fill)| Fill {
            order_id: self.order_id(),
            trade_id: format!("{}-{}", self.order_id(), n + 1),
            product: self.product.clone(),
            side: self.side(),
            size: fill.size,
            price: fill.price,
            fee_quote: fill.fee,
            liquidity: if fill.maker { Liquidity::Maker } else { Liquidity::Taker },
            at: fill.at,
        })
    }

    /// As an exchange shows it.
    pub fn shown(&self) -> OrderState {
        OrderState {
            order_id: self.order_id(),
            client_order_id: self.client_order_id.clone(),
            product: self.product.clone(),
            side: self.side(),
            status: match self.status {
                Status::Open => OrderStatus::Open,
                Status::Filled => OrderStatus::Filled,
                Status::Cancelled => OrderStatus::Cancelled,
                Status::Expired => OrderStatus::Expired,
            },
            filled: self.filled,
            average_price: self.filled_value.checked_div(self.filled).unwrap_or_default(),
            fees_quote: self.fees,
            size: Some(self.size),
            created_at: Some(self.created_at),
        }
    }
}
