//! The exchange: products, books, portfolios and funding as one deterministic state machine.
//!
//! No I/O and no clock: every command is given the time, and all randomness comes from the seed, so the same
//! commands at the same times give the same exchange. The server around it holds the lock and the sockets.

pub mod behaviour;
pub mod book;
mod cancel;
mod conditional;
pub mod edit;
mod execute;
pub mod funding;
pub mod history;
pub mod journal;
mod liquidation;
pub mod margin;
pub mod order;
pub mod participants;
mod place;
pub mod portfolio;
pub mod preview;
pub mod product;
pub mod rejection;
pub mod replay;
pub mod session;
mod settle;
#[cfg(test)]
mod tests;
pub mod transfer;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rust_decimal::Decimal;
use rust_decimal::dec;
use uuid::Uuid;

use behaviour::Behaviour;
use book::{Book, OrderNumber, Side};
use funding::{Due, Funding};
use history::History;
use journal::{Journal, JournalEvent, Kind};
use order::Order;
use participants::Participants;
pub use place::{NewOrder, Placed};
use portfolio::{Balance, Portfolio};
use product::{Listing, Product};
use replay::Series;
use session::{Calendar, Span};

/// The moment a command takes effect: the exchange's time, and this host's clocks for the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    pub time: Timestamp,
    pub monotonic_ns: u64,
    pub boottime_ns: u64,
}

/// Fee per side as a fraction of value.
#[derive(Debug, Clone, Copy)]
pub struct FeeRates {
    pub maker: Decimal,
    pub taker: Decimal,
}

/// What is kept, so that a long run stays bounded in memory; the oldest goes first.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Events of the journal.
    pub journal: usize,
    /// Terminal orders, and fills, of each portfolio. With an order its client_order_id is forgotten.
    pub history: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self { journal: 200_000, history: 20_000 }
    }
}

/// What a seeded exchange starts with.
#[derive(Debug, Clone)]
pub struct Settings {
    pub seed: u64,
    pub spot_fees: FeeRates,
    pub future_fees: FeeRates,
    /// A repeated client_order_id is refused instead of answered with the old order.
    pub refuse_duplicates: bool,
    /// How long an accepted cancel takes to happen.
    pub cancel_delay: jiff::SignedDuration,
    pub retention: Retention,
    /// Funding rate per hour shown until the first hour has been measured.
    pub initial_funding_rate: Decimal,
    /// Futures are closed on Fridays from 17:00 to 18:00 in New York.
    pub weekly_break: bool,
    /// Prices and funding rates that the markets follow.
    pub replay: Option<Arc<Series>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 1,
            // Coinbase's 1–15 M$ tier: at the entry tier fees exceed six weeks of funding and nothing would trade.
            spot_fees: FeeRates { maker: dec!(0.0008), taker: dec!(0.0018) },
            future_fees: FeeRates { maker: dec!(0.0005), taker: dec!(0.0006) },
            refuse_duplicates: false,
            retention: Retention::default(),
            cancel_delay: jiff::SignedDuration::from_millis(5),
            initial_funding_rate: dec!(0.000032),
            weekly_break: true,
            replay: None,
        }
    }
}

/// One listed product with its book and prices.
#[derive(Debug)]
pub struct Market {
    /// Shared, so that replies can be written after the lock is released.
    pub product: Arc<Product>,
    pub book: Book,
    /// Spot index price of the base currency, in quote currency.
    pub index: Decimal,
    pub last_price: Decimal,
    /// Size and quote value traded since the start.
    pub volume: Decimal,
    pub volume_value: Decimal,
    pub low: Decimal,
    pub high: Decimal,
    /// Futures only.
    pub funding: Option<Funding>,
    /// While set and in the future, the session is closed until then (a fault).
    pub closed_until: Option<Timestamp>,
    /// The weekly break that is on or next; futures only.
    pub weekly_break: Option<Span>,
    /// Mark price of the last daily settlement.
    pub settlement_price: Decimal,
    /// Lowest and highest price since stops were last looked at.
    traded: Option<(Decimal, Decimal)>,
    /// Price of the recording that is replayed.
    recorded: Option<Decimal>,
    pub history: History,
}

impl Market {
    pub fn is_closed(&self, now: Timestamp) -> bool {
        self.reopens(now).is_some()
    }

    /// When a closed session opens; `None` while it is open.
    pub fn reopens(&self, now: Timestamp) -> Option<Timestamp> {
        let fault = self.closed_until.filter(|until| now < *until);
        let weekly = self.weekly_break.filter(|span| span.contains(now)).map(|span| span.end);
        fault.max(weekly)
    }

    /// Price that positions are valued at: the middle of the book, or the last trade while a side is empty.
    pub fn mark(&self) -> Decimal {
        self.book.mid().unwrap_or(self.last_price)
    }
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
            .map(|listing| Market {
                funding: listing.product.future.as_ref().map(|_| Funding::new(now.time, settings.initial_funding_rate)),
                product: Arc::new(listing.product),
                book: Book::default(),
                index: listing.start_price,
                last_price: listing.start_price,
                volume: Decimal::ZERO,
                volume_value: Decimal::ZERO,
                low: listing.start_price,
                high: listing.start_price,
                closed_until: None,
                weekly_break: None,
                settlement_price: listing.start_price,
                traded: None,
                recorded: None,
                history: History::default(),
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
        self.liquidate(now);
        self.run_triggers(now);
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

    /// Cancels and expiries that are still to come.
    pub fn timers(&self) -> usize {
        self.cancels.len() + self.expiries.len()
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

    fn run_funding(&mut self, index: usize, now: Now) {
        loop {
            let Some(due) = self.markets.get(index).and_then(|m| m.funding.as_ref()).map(|f| f.due(now.time)) else {
                return;
            };
            match due {
                Due::Nothing => return,
                Due::Sample => {
                    let premium = self.premium(index, now.time);
                    if let Some(funding) = self.markets[index].funding.as_mut() {
                        funding.sample(premium);
                    }
                }
                Due::Hour { settle } => self.end_funding_hour(index, settle),
            }
        }
    }

    /// (future − spot) / spot; `None` while the session is closed.
    fn premium(&self, index: usize, now: Timestamp) -> Option<Decimal> {
        let future = &self.markets[index];
        let terms = future.product.future.as_ref()?;
        let spot = self.markets.get(self.market_index(&terms.spot_product)?)?;
        if future.is_closed(now) {
            return None;
        }
        (future.mark() - spot.mark()).checked_div(spot.mark())
    }

    fn end_funding_hour(&mut self, index: usize, settle: bool) {
        let market = &mut self.markets[index];
        let per_contract = market
            .funding
            .as_mut()
            .and_then(Funding::end_hour)
            .map(|rate| market.product.value(Decimal::ONE, market.mark()) * rate);
        for portfolio in self.portfolios.values_mut() {
            let Some(position) = portfolio.positions.get_mut(&index) else { continue };
            position.funding_accrued -= position.contracts * per_contract.unwrap_or_default();
            if settle {
                let paid = std::mem::take(&mut position.funding_accrued);
                position.funding_settled += paid;
                portfolio.balance_mut("USD").total += paid;
            }
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
