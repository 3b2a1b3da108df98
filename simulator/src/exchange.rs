//! The exchange: products, books, portfolios and funding as one deterministic state machine.
//!
//! No I/O and no clock: every command is given the time, and all randomness comes from the seed, so the same
//! commands at the same times give the same exchange. The server around it holds the lock and the sockets.

pub mod behaviour;
mod cancel;
mod conditional;
pub mod edit;
mod execute;
pub mod funding;
pub mod history;
pub mod journal;
mod liquidation;
pub mod margin;
mod market;
pub mod order;
pub mod participants;
mod place;
pub mod portfolio;
pub mod preview;
pub mod product;
mod replay;
pub mod session;
mod settings;
mod settle;
#[cfg(test)]
mod tests;
pub mod transfer;
mod wallet;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rust_decimal::Decimal;
use uuid::Uuid;

use behaviour::Behaviour;
use book::{OrderNumber, Side};
pub use exchange_matching::fees::FeeRates;
pub use exchange_matching::{book, rejection, rules};
use journal::{Journal, JournalEvent, Kind};
pub use market::Market;
use order::Order;
use participants::Participants;
pub use place::{NewOrder, Placed};
use portfolio::{Balance, Portfolio};
use product::Listing;
use session::Calendar;
pub use settings::{Retention, Settings};

/// The moment a command takes effect: the exchange's time, and this host's clocks for the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    pub time: Timestamp,
    pub monotonic_ns: u64,
    pub boottime_ns: u64,
}

/// Something a client may be told about.
#[derive(Debug, Clone)]
pub enum Notice {
    /// An order of this portfolio changed.
    Order {
        portfolio: Uuid,
        order: OrderNumber,
    },
    Trade(Trade),
}

/// A public trade; `taker` is the side that arrived.
#[derive(Debug, Clone)]
pub struct Trade {
    pub id: u64,
    pub market: usize,
    pub price: Decimal,
    pub size: Decimal,
    pub taker: Side,
    pub time: Timestamp,
}

#[derive(Debug)]
pub struct Exchange {
    pub settings: Settings,
    pub markets: Vec<Market>,
    pub portfolios: BTreeMap<Uuid, Portfolio>,
    orders: BTreeMap<OrderNumber, Order>,
    numbers: HashMap<Uuid, OrderNumber>,
    next_number: OrderNumber,
    next_trade: u64,
    cancels: BTreeSet<(Timestamp, OrderNumber)>,
    /// Accepted edits, by when they happen.
    edits: BTreeMap<(Timestamp, OrderNumber), edit::Change>,
    expiries: BTreeSet<(Timestamp, OrderNumber)>,
    /// Next slices of TWAP orders.
    slices: BTreeSet<(Timestamp, OrderNumber)>,
    /// Stops and brackets that wait for their price.
    conditionals: BTreeSet<OrderNumber>,
    pub calendar: Calendar,
    started: Timestamp,
    pub journal: Journal,
    notices: Vec<Notice>,
    rng: ChaCha8Rng,
    participants: Participants,
    pub behaviour: Behaviour,
    /// How often a behaviour that is switched on took effect, by the kind of its fault.
    pub behaviour_struck: BTreeMap<&'static str, u64>,
    /// Whether the participants stand still: no price moves and nobody but clients trades. Time goes on.
    pub frozen: bool,
    /// All fees ever charged, in quote currency.
    pub fees_collected: Decimal,
}

impl Exchange {
    pub fn new(settings: Settings, listings: Vec<Listing>, now: Now) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(settings.seed);
        let markets: Vec<Market> = listings
            .into_iter()
            .map(|listing| {
                let rate = settings.first_funding_rate(&listing.product.id);
                Market::new(listing, rate, now.time)
            })
            .collect();
        let participants = Participants::new(&markets);
        let journal_capacity = settings.retention.journal;
        let mut exchange = Self {
            settings,
            markets,
            portfolios: BTreeMap::new(),
            orders: BTreeMap::new(),
            numbers: HashMap::new(),
            next_number: 1,
            next_trade: 1,
            cancels: BTreeSet::new(),
            edits: BTreeMap::new(),
            expiries: BTreeSet::new(),
            slices: BTreeSet::new(),
            conditionals: BTreeSet::new(),
            calendar: Calendar::new(now.time),
            started: now.time,
            journal: Journal::new(journal_capacity),
            notices: Vec::new(),
            rng,
            participants,
            behaviour: Behaviour::default(),
            behaviour_struck: BTreeMap::new(),
            frozen: false,
            fees_collected: Decimal::ZERO,
        };
        for (id, name) in exchange.participants.portfolios() {
            exchange.portfolios.insert(id, Portfolio::new(id, name.to_owned(), true, now.time));
        }
        exchange.follow_calendar(now);
        exchange.trade_participants(now);
        exchange
    }

    /// Opens a portfolio with a deposit in quote currency.
    pub fn open_portfolio(&mut self, now: Now, id: Uuid, name: &str, usd: Decimal) {
        let mut portfolio = Portfolio::new(id, name.to_owned(), false, now.time);
        for market in &self.markets {
            portfolio.balance_mut(&market.product.base);
        }
        portfolio.balances.insert("USD".into(), Balance { total: usd, hold: Decimal::ZERO });
        self.portfolios.insert(id, portfolio);
    }

    /// One step of the world: due cancels and expiries, funding, then the participants trade.
    pub fn tick(&mut self, now: Now) {
        self.advance(now);
        if !self.frozen {
            self.trade_participants(now);
        }
        self.empty_closed_sessions(now);
        self.liquidate(now);
        self.run_triggers(now);
        self.fund_futures();
    }

    /// Does what has become due, without letting anybody trade.
    pub fn advance(&mut self, now: Now) {
        self.follow_calendar(now);
        self.run_timers(now);
        for index in 0..self.markets.len() {
            self.run_funding(index, now);
        }
        if self.calendar.take_settlement(now.time).is_some() {
            self.settle_variation();
        }
        self.run_sweeps(now);
        self.fund_futures();
    }

    fn follow_calendar(&mut self, now: Now) {
        self.calendar.advance(now.time);
        let weekly_break = Some(self.calendar.weekly_break).filter(|_| self.settings.weekly_break);
        for market in self.markets.iter_mut().filter(|m| m.product.is_future()) {
            market.weekly_break = weekly_break;
        }
    }

    pub fn market_index(&self, product_id: &str) -> Option<usize> {
        self.markets.iter().position(|m| m.product.id == product_id)
    }

    pub fn order(&self, id: Uuid) -> Option<&Order> {
        self.orders.get(self.numbers.get(&id)?)
    }

    pub fn order_by_number(&self, number: OrderNumber) -> Option<&Order> {
        self.orders.get(&number)
    }

    /// Orders kept, of clients and participants.
    pub fn orders_kept(&self) -> usize {
        self.orders.len()
    }

    /// Cancels, edits and expiries that are still to come.
    pub fn timers(&self) -> usize {
        self.cancels.len() + self.edits.len() + self.expiries.len()
    }

    /// Orders of a portfolio that the exchange still keeps, newest first.
    pub fn orders_of(&self, portfolio: Uuid) -> impl Iterator<Item = &Order> {
        let history = self.portfolios.get(&portfolio).map(|p| p.history.iter().rev());
        history.into_iter().flatten().filter_map(|n| self.orders.get(n))
    }

    /// Orders of a portfolio that are not terminal, oldest first.
    pub fn open_orders_of(&self, portfolio: Uuid) -> impl Iterator<Item = &Order> {
        let open = self.portfolios.get(&portfolio).map(|p| p.open.iter());
        open.into_iter().flatten().filter_map(|n| self.orders.get(n))
    }

    /// Signed position of a portfolio in a market: contracts, or base units for spot.
    pub fn position(&self, portfolio: Uuid, market: usize) -> Decimal {
        let (Some(owner), Some(m)) = (self.portfolios.get(&portfolio), self.markets.get(market)) else {
            return Decimal::ZERO;
        };
        if m.product.is_future() { owner.contracts(market) } else { owner.balance(&m.product.base).total }
    }

    /// What happened since the last call, oldest first.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Closes a futures session until a time (cancels stay possible), or opens it.
    pub fn close_session(&mut self, market: usize, until: Option<Timestamp>) {
        if let Some(market) = self.markets.get_mut(market) {
            market.closed_until = until;
        }
    }

    fn record(&mut self, now: Now, kind: Kind, number: OrderNumber, reason: &str) {
        let Some(order) = self.orders.get(&number) else { return };
        let event = self.journal_event(kind, order, reason);
        let (portfolio, visible) = (order.portfolio, self.is_client(order.portfolio));
        if visible {
            self.journal.push(now, event);
            self.notices.push(Notice::Order { portfolio, order: number });
        }
    }

    fn journal_event(&self, kind: Kind, order: &Order, reason: &str) -> JournalEvent {
        JournalEvent {
            seq: 0,
            monotonic_ns: 0,
            boottime_ns: 0,
            time: order.last_update,
            portfolio: order.portfolio,
            kind,
            order_id: Some(order.id),
            client_order_id: order.client_order_id.clone(),
            product_id: self.markets[order.market].product.id.clone(),
            side: order.side,
            size: order.size,
            price: order.terms.limit_price,
            filled: order.filled_size.normalize(),
            position: self.position(order.portfolio, order.market).normalize(),
            open_orders: self.portfolios.get(&order.portfolio).map_or(0, |p| p.open.len()),
            reason: reason.to_owned(),
        }
    }

    fn is_client(&self, portfolio: Uuid) -> bool {
        self.portfolios.get(&portfolio).is_some_and(|p| !p.participant)
    }

    /// From the seed.
    pub fn new_uuid(&mut self) -> Uuid {
        let mut bytes = [0u8; 16];
        self.rng.fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}
