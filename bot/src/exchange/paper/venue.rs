//! The paper venue: what an exchange does with orders, deterministic and without I/O. The rules and the matching are
//! those of `exchange-matching`; the market is the real one, and nothing that is done here moves it.

mod check;

use std::collections::BTreeMap;

use exchange_matching::book::Match;
use exchange_matching::position::FUNDING_SETTLEMENT_HOURS;
use exchange_matching::rejection::Rejection;
use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;

use super::account::{Account, FeeSchedule, PaperFill, PaperOrder, Status};
use super::market::Market;
use super::store::Book;
use crate::exchange::{Fill, Holdings, MarketEvent, NewOrder, OrderKind, OrderState, Placed, Product, Side, Touch};

const HOUR_SECONDS: i64 = 3600;

/// The venue of one account.
#[derive(Debug)]
pub struct Venue {
    pub fees: FeeSchedule,
    markets: BTreeMap<String, Market>,
    account: Account,
    /// Every order, oldest first.
    orders: BTreeMap<u64, PaperOrder>,
    by_client_id: BTreeMap<String, u64>,
    /// The time of what happens.
    now: Timestamp,
    /// Orders that changed since the last look, in order; None: nothing did.
    changed: Option<Vec<u64>>,
}

/// What an order asks for.
struct Wanted {
    limit: Option<Decimal>,
    post_only: bool,
    rests: bool,
    expires_at: Option<Timestamp>,
    closes: bool,
}

impl Wanted {
    fn of(kind: &OrderKind) -> Self {
        let takes = Self { limit: None, post_only: false, rests: false, expires_at: None, closes: false };
        match *kind {
            OrderKind::PostOnly { limit_price, expires_at } => Self {
                limit: Some(limit_price),
                post_only: true,
                rests: true,
                expires_at: Some(expires_at),
                closes: false,
            },
            OrderKind::GoodTillCancelled { limit_price, post_only } => {
                Self { limit: Some(limit_price), post_only, rests: true, ..takes }
            }
            OrderKind::ImmediateOrCancel { limit_price } => Self { limit: Some(limit_price), ..takes },
            OrderKind::Market => takes,
            OrderKind::ClosePosition => Self { closes: true, ..takes },
        }
    }
}

impl Venue {
    pub fn new(products: [String; 2], book: Book, fees: FeeSchedule) -> Self {
        let by_client_id = book.orders.values().map(|order| (order.client_order_id.clone(), order.number)).collect();
        let markets = products.map(|id| (id, Market::default())).into();
        Self {
            fees,
            markets,
            account: book.account,
            orders: book.orders,
            by_client_id,
            now: Timestamp::UNIX_EPOCH,
            changed: None,
        }
    }

    pub fn account(&self) -> &Account {
        &self.account
    }

    pub fn order(&self, number: u64) -> Option<&PaperOrder> {
        self.orders.get(&number)
    }

    /// Orders that changed since the last call; None: nothing did, the account neither.
    pub fn take_changes(&mut self) -> Option<Vec<u64>> {
        self.changed.take()
    }

    fn note(&mut self, number: u64) {
        let changed = self.changed.get_or_insert_default();
        if !changed.contains(&number) {
            changed.push(number);
        }
    }

    /// A product's rules and state, and the funding that became known.
    pub fn list(&mut self, product: Product, now: Timestamp) {
        self.advance(now);
        let id = product.id.clone();
        let Some(market) = self.markets.get_mut(&id) else { return };
        let terms = product.future.as_ref().map(|future| &future.terms);
        let funding = terms.and_then(|terms| Some((terms.funding_time?, terms.funding_rate)));
        market.list(product);
        self.cross(&id);
        if let Some((until, rate)) = funding {
            self.accrue(&id, until, rate);
        }
    }

    /// Accrues the funding of the hour that ended at `until`, once; at the venue's hours it is paid.
    fn accrue(&mut self, id: &str, until: Timestamp, rate: Decimal) {
        let Some(before) = self.account.funded_until.get(id).copied() else {
            // This hour had ended before the account was watched.
            self.account.funded_until.insert(id.to_owned(), until);
            self.changed.get_or_insert_default();
            return;
        };
        let market = self.markets.get(id).and_then(|market| Some((market.rules()?, market.mark()?)));
        let Some((rules, mark)) = market.filter(|_| before < until) else { return };
        let per_contract = rules.value(Decimal::ONE, mark) * rate;
        self.account.funded_until.insert(id.to_owned(), until);
        self.changed.get_or_insert_default();
        if until.duration_since(before).as_secs() > HOUR_SECONDS {
            tracing::warn!(product = id, %before, %until, "funding of the hours between was not seen; it is not booked");
        }
        let Some(position) = self.account.positions.get_mut(id) else { return };
        position.accrue_funding(per_contract);
        let hour = until.as_second().div_euclid(HOUR_SECONDS).rem_euclid(24);
        if FUNDING_SETTLEMENT_HOURS.contains(&hour) {
            let paid = position.settle_funding();
            self.account.cash += paid;
            tracing::info!(product = id, %paid, "funding is paid");
        }
    }

    /// Lets time pass: orders whose time is over expire.
    pub fn advance(&mut self, now: Timestamp) {
        self.now = now;
        let over = |order: &&PaperOrder| order.is_open() && order.expires_at.is_some_and(|at| at <= now);
        let expired: Vec<u64> = self.orders.values().filter(over).map(|order| order.number).collect();
        for number in expired {
            self.end(number, Status::Expired);
        }
    }

    /// Takes in what the market data tells, and fills what follows from it.
    pub fn hear(&mut self, event: MarketEvent, now: Timestamp) {
        self.advance(now);
        match event {
            MarketEvent::Lost => self.markets.values_mut().for_each(Market::lose),
            MarketEvent::Levels { product, snapshot, levels } => {
                let Some(market) = self.markets.get_mut(&product) else { return };
                if !market.set(snapshot, levels) {
                    return;
                }
                if snapshot {
                    self.queue_again(&product);
                }
                self.cross(&product);
            }
            MarketEvent::Trade { product, price, size, at } => {
                // A trade from before an order says nothing of it.
                let older = |order: &PaperOrder| at.is_none_or(|at| order.created_at <= at);
                let counts = self.open_orders(&product).all(older);
                let Some(market) = self.markets.get_mut(&product).filter(|market| counts && is_listed(market)) else {
                    return;
                };
                for matched in market.printed(price, size) {
                    self.fill(matched.maker, matched, true);
                }
            }
        }
    }

    /// After a gap nobody knows an order's place in the queue: it waits behind everything that is shown.
    fn queue_again(&mut self, product: &str) {
        let Some(market) = self.markets.get_mut(product) else { return };
        market.clear_queue();
        for order in self.orders.values().filter(|order| order.is_open() && order.product == product) {
            if let Some(price) = order.limit {
                market.rest(order.side(), price, order.number, order.remaining());
            }
        }
    }

    /// Fills the resting orders that the shown book has reached.
    fn cross(&mut self, product: &str) {
        let Some(market) = self.markets.get_mut(product).filter(|market| is_listed(market) && market.is_known()) else {
            return;
        };
        for matched in market.crossed() {
            self.fill(matched.maker, matched, true);
        }
    }

    /// Places an order. The same client_order_id again is the same order.
    pub fn place(&mut self, new: &NewOrder, now: Timestamp) -> Placed {
        self.advance(now);
        if let Some(known) = self.by_client_id.get(&new.client_order_id).and_then(|number| self.orders.get(number)) {
            return Placed::Accepted { order_id: known.order_id() };
        }
        let wanted = Wanted::of(&new.kind);
        if let Err(Rejection { reason, message }) = self.check(new, &wanted) {
            return Placed::Rejected { reason: reason.to_string(), message };
        }
        let number = self.orders.last_key_value().map_or(1, |(last, _)| last + 1);
        let order = PaperOrder {
            number,
            client_order_id: new.client_order_id.clone(),
            product: new.product.clone(),
            buy: new.side == Side::Buy,
            size: new.size,
            limit: wanted.limit,
            rests: wanted.rests,
            expires_at: wanted.expires_at,
            created_at: now,
            status: Status::Open,
            filled: Decimal::ZERO,
            filled_value: Decimal::ZERO,
            fees: Decimal::ZERO,
            fills: Vec::new(),
        };
        let order_id = order.order_id();
        self.orders.insert(number, order);
        self.by_client_id.insert(new.client_order_id.clone(), number);
        self.note(number);
        self.execute(number, new, &wanted);
        Placed::Accepted { order_id }
    }

    /// Matches an order, and rests or cancels what is left of it.
    fn execute(&mut self, number: u64, new: &NewOrder, wanted: &Wanted) {
        let Some(market) = self.markets.get_mut(&new.product) else { return };
        // The newer of two orders of one owner gives way.
        let meets_own = market.meets_own(new.side, wanted.limit);
        if !meets_own {
            for matched in market.take(new.side, wanted.limit, new.size) {
                self.fill(number, matched, false);
            }
        }
        let Some(order) = self.orders.get(&number).filter(|order| order.is_open()) else { return };
        match (wanted.limit, self.markets.get_mut(&new.product)) {
            (Some(price), Some(market)) if wanted.rests && !meets_own => {
                market.rest(new.side, price, number, order.remaining());
            }
            _ => self.end(number, Status::Cancelled),
        }
    }

    /// Books a fill of an order.
    fn fill(&mut self, number: u64, matched: Match, maker: bool) {
        let Some(order) = self.orders.get_mut(&number) else { return };
        let Some(rules) = self.markets.get(&order.product).and_then(Market::rules) else { return };
        let value = rules.value(matched.size, matched.price);
        let (id, side) = (order.product.clone(), order.side());
        let rates = if rules.is_future() { self.fees.future } else { self.fees.spot };
        let fee = rates.of(value, maker);
        order.filled += matched.size;
        order.filled_value += matched.size * matched.price;
        order.fees += fee;
        let at = self.now;
        order.fills.push(PaperFill { price: matched.price, size: matched.size, fee, maker, at });
        if order.filled == order.size {
            order.status = Status::Filled;
        }
        if rules.is_future() {
            self.account.fill_future(&id, side, matched.size, value, fee);
        } else {
            self.account.fill_spot(&rules.base, side, matched.size, value, fee);
        }
        self.note(number);
    }

    /// Ends an order that is not filled.
    fn end(&mut self, number: u64, status: Status) {
        let Some(order) = self.orders.get_mut(&number) else { return };
        order.status = status;
        let (id, side, limit) = (order.product.clone(), order.side(), order.limit);
        let others_here = self.open_orders(&id).any(|other| other.side() == side && other.limit == limit);
        if let (Some(market), Some(price)) = (self.markets.get_mut(&id), limit) {
            market.remove(side, price, number, others_here);
        }
        self.note(number);
    }

    /// Cancels an order, at once.
    ///
    /// # Errors
    /// There is nothing to cancel; why, in the venue's words.
    pub fn cancel(&mut self, order_id: &str) -> Result<(), String> {
        let order = self.find(order_id).ok_or("UNKNOWN_CANCEL_ORDER")?;
        match order.status {
            Status::Open => {
                let number = order.number;
                self.end(number, Status::Cancelled);
                Ok(())
            }
            Status::Filled => Err("ORDER_IS_FULLY_FILLED".to_owned()),
            Status::Cancelled | Status::Expired => Err("COMMANDER_REJECTED_CANCEL_ORDER".to_owned()),
        }
    }

    fn find(&self, order_id: &str) -> Option<&PaperOrder> {
        let number = order_id.strip_prefix("paper-")?.parse().ok()?;
        self.orders.get(&number)
    }

    pub fn order_by_id(&self, order_id: &str) -> Option<OrderState> {
        self.find(order_id).map(PaperOrder::shown)
    }

    /// Every order of the products created since then.
    pub fn orders_since(&self, products: &[String], since: Option<Timestamp>) -> Vec<OrderState> {
        let wanted = |order: &&PaperOrder| {
            products.contains(&order.product) && since.is_none_or(|since| order.created_at >= since)
        };
        self.orders.values().filter(wanted).map(PaperOrder::shown).collect()
    }

    /// Every execution of these orders.
    pub fn fills(&self, order_ids: &[String]) -> Vec<Fill> {
        order_ids.iter().filter_map(|id| self.find(id)).flat_map(PaperOrder::shown_fills).collect()
    }

    pub fn holdings(&self) -> Holdings {
        let mut balances = self.account.base.clone();
        let quote = self.markets.values().find_map(Market::rules).map_or("USD", |rules| &rules.quote);
        balances.insert(quote.to_owned(), self.account.cash);
        let contracts = self.account.positions.iter().map(|(id, position)| (id.clone(), position.contracts)).collect();
        Holdings { contracts, balances, futures_collateral_quote: self.account.cash + self.unrealized() }
    }

    /// The best prices with the account's own orders among them.
    pub fn with_own_orders(&self, product: &str, touch: Touch) -> Touch {
        self.markets.get(product).map_or(touch, |market| market.with_own(touch))
    }

    fn open_orders<'a>(&'a self, product: &'a str) -> impl Iterator<Item = &'a PaperOrder> {
        self.orders.values().filter(move |order| order.is_open() && order.product == product)
    }
}

/// Whether the product is known and trades.
fn is_listed(market: &Market) -> bool {
    market.rules().is_some() && is_open(market)
}

/// Whether the session of a future is open; spot always is.
fn is_open(market: &Market) -> bool {
    let future = market.product.as_ref().and_then(|product| product.future.as_ref());
    future.is_none_or(|future| future.session_open)
}
