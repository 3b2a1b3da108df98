//! Portfolios: balances with holds, futures positions, and the orders that belong to them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use jiff::Timestamp;
use rust_decimal::Decimal;
use uuid::Uuid;

use super::book::{OrderNumber, Side};
pub use exchange_matching::position::Position;

/// Owner of money, positions and orders. A Coinbase API key is bound to exactly one.
#[derive(Debug)]
pub struct Portfolio {
    pub id: Uuid,
    pub name: String,
    /// A simulated participant: unlimited credit, no history, never journaled.
    pub participant: bool,
    pub created: Timestamp,
    pub balances: BTreeMap<String, Balance>,
    /// The part of the USD balance that is in the futures wallet.
    pub futures_usd: Decimal,
    /// Futures positions by market index; a flat one is removed once its accruals are settled.
    pub positions: BTreeMap<usize, Position>,
    /// Orders that are not terminal.
    pub open: BTreeSet<OrderNumber>,
    /// Every order kept, oldest first.
    pub history: VecDeque<OrderNumber>,
    /// Order of each client_order_id, as long as the order is kept.
    pub client_order_ids: HashMap<String, Uuid>,
    pub fills: VecDeque<Fill>,
    /// Traded value and fees paid, in quote currency.
    pub volume: Decimal,
    pub fees: Decimal,
    /// It pays intraday margin in the intraday window, and not the overnight rate all day.
    pub intraday_margin: bool,
    /// Its futures are being closed because the equity fell below the maintenance margin.
    pub liquidating: bool,
    /// The request to move money from futures to spot that is still to come.
    pub sweep: Option<Sweep>,
    /// The portfolio whose key created this one; itself for those that exist from the start.
    pub creator: Uuid,
}

/// A request to move USD from the futures wallet to the spot wallet.
#[derive(Debug, Clone)]
pub struct Sweep {
    pub id: Uuid,
    /// Absent to sweep all.
    pub amount: Option<Decimal>,
    pub scheduled: Timestamp,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance {
    pub total: Decimal,
    /// Reserved by working spot orders.
    pub hold: Decimal,
}

/// One execution, as `/orders/historical/fills` reports it.
#[derive(Debug, Clone)]
pub struct Fill {
    pub trade_id: u64,
    pub order: Uuid,
    pub market: usize,
    pub side: Side,
    pub price: Decimal,
    pub size: Decimal,
    pub commission: Decimal,
    pub maker: bool,
    pub time: Timestamp,
}

impl Portfolio {
    pub fn new(id: Uuid, name: String, participant: bool, created: Timestamp) -> Self {
        Self {
            id,
            name,
            participant,
            created,
            balances: BTreeMap::new(),
            futures_usd: Decimal::ZERO,
            positions: BTreeMap::new(),
            open: BTreeSet::new(),
            history: VecDeque::new(),
            client_order_ids: HashMap::new(),
            fills: VecDeque::new(),
            volume: Decimal::ZERO,
            fees: Decimal::ZERO,
            intraday_margin: true,
            liquidating: false,
            sweep: None,
            creator: id,
        }
    }

    pub fn balance(&self, currency: &str) -> Balance {
        self.balances.get(currency).copied().unwrap_or_default()
    }

    pub fn balance_mut(&mut self, currency: &str) -> &mut Balance {
        if !self.balances.contains_key(currency) {
            self.balances.insert(currency.to_owned(), Balance::default());
        }
        // The key was inserted above; `or_default` is only the infallible way to say so.
        self.balances.entry(currency.to_owned()).or_default()
    }

    /// Pays USD into the futures wallet; negative: out of it.
    pub fn pay_futures(&mut self, amount: Decimal) {
        self.balance_mut("USD").total += amount;
        if !self.participant {
            self.futures_usd += amount;
        }
    }

    /// Signed contracts of a market.
    pub fn contracts(&self, market: usize) -> Decimal {
        self.positions.get(&market).map_or(Decimal::ZERO, |p| p.contracts)
    }
}
