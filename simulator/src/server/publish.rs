//! What changed on the exchange goes out to those who listen, each channel at its own pace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rust_decimal::Decimal;
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use super::faults::kind::FaultKind;
use super::hub::Topic;
use super::shapes::{futures, market_data, user};
use super::tape::Tape;
use super::{App, State, shown};
use crate::exchange::book::Side;
use crate::exchange::history::Past;
use crate::exchange::{Notice, Now};

/// Trades of this long share a message of market_trades.
const TRADES: Duration = Duration::from_millis(250);
/// Candles and futures balances that changed are sent this often.
const CHANGES: Duration = Duration::from_secs(1);
/// ticker_batch and status are sent this often.
const BATCH: Duration = Duration::from_secs(5);

/// What the channels with a pace of their own remember.
#[derive(Debug, Default)]
pub struct Feeds {
    /// By market.
    pub tapes: Vec<Tape>,
    /// The futures balances last sent.
    balances: BTreeMap<Uuid, String>,
    /// The bid that a fault shows above the best offer, by market.
    crossing: BTreeMap<usize, Decimal>,
    /// Markets whose book is shown empty.
    emptied: BTreeSet<usize>,
}

impl Feeds {
    pub fn new(markets: usize) -> Self {
        Self { tapes: (0..markets).map(|_| Tape::default()).collect(), ..Self::default() }
    }
}

impl State {
    /// Sends order updates and tickers and remembers trades; book changes wait for the next step of the markets.
    pub(super) fn publish(&mut self) {
        let (mut orders, mut seen) = (Vec::new(), BTreeSet::new());
        let mut traded = Vec::new();
        for notice in self.exchange.take_notices() {
            match notice {
                // Its state is cumulative, so once is enough.
                Notice::Order { portfolio, order } if seen.insert(order) => orders.push((portfolio, order)),
                Notice::Order { .. } => {}
                Notice::Trade(trade) => {
                    let heard = self.hub.is_heard(Topic::MarketTrades(trade.market));
                    self.feeds.tapes[trade.market].record(&trade, heard);
                    if !traded.contains(&trade.market) {
                        traded.push(trade.market);
                    }
                }
            }
        }
        for (portfolio, number) in orders {
            let Some(market) = self.exchange.order_by_number(number).map(|order| order.market) else { continue };
            for topic in [Topic::User(portfolio, None), Topic::User(portfolio, Some(market))] {
                self.hub.publish(topic, "user", || user::update(&self.exchange, portfolio, number));
            }
        }
        for market in traded {
            let (exchange, shown) = (&self.exchange, &self.shown);
            let book = shown.book(exchange, market);
            let events = || market_data::ticker(&exchange.markets[market], book, "update");
            self.hub.publish(Topic::Ticker(market), "ticker", events);
        }
    }

    pub(super) fn publish_books(&mut self, now: Now) {
        for index in 0..self.exchange.markets.len() {
            let product = self.exchange.markets[index].product.clone();
            if self.faults.is_on(&FaultKind::StaleBook {}, Some(&product.id), now.time) {
                continue; // the changes are kept, and sent when it ends
            }
            let mut changes = self.exchange.markets[index].book.take_changes();
            let emptied = self.is_emptied(index, now);
            let was_emptied = self.feeds.emptied.contains(&index);
            if emptied != was_emptied {
                changes = shown::levels(&self.exchange.markets[index].book, emptied);
            } else if emptied {
                changes.clear();
            }
            let _ = if emptied { self.feeds.emptied.insert(index) } else { self.feeds.emptied.remove(&index) };
            let crossed = !emptied && self.faults.is_on(&FaultKind::CrossedBook {}, Some(&product.id), now.time);
            self.cross_book(index, crossed, &mut changes);
            if changes.is_empty() {
                continue;
            }
            let events = || market_data::level2(&product.id, "update", &changes, now.time);
            self.hub.publish(Topic::Level2(index), "l2_data", events);
        }
    }

    /// Adds the bid of the fault `crossed_book` above the best offer, or takes it back.
    fn cross_book(&mut self, index: usize, crossed: bool, changes: &mut Vec<(Side, Decimal, Decimal)>) {
        let market = &self.exchange.markets[index];
        let wanted = shown::crossing_bid(market).filter(|_| crossed);
        let shown = self.feeds.crossing.get(&index).copied();
        if wanted == shown {
            return;
        }
        if let Some(price) = shown {
            changes.push((Side::Buy, price, market.book.size_at(Side::Buy, price)));
            self.feeds.crossing.remove(&index);
        }
        if let Some(price) = wanted {
            changes.push((Side::Buy, price, market.product.base_min_size));
            self.feeds.crossing.insert(index, price);
        }
    }

    fn publish_trades(&mut self) {
        for (index, tape) in self.feeds.tapes.iter_mut().enumerate() {
            let trades = tape.take_unsent();
            if !trades.is_empty() {
                let trades: Vec<Past> = trades.iter().map(Past::from).collect();
                let product = &self.exchange.markets[index].product.id;
                let events = || market_data::trades(product, "update", &trades);
                self.hub.publish(Topic::MarketTrades(index), "market_trades", events);
            }
        }
    }

    fn publish_changes(&mut self) {
        for (index, tape) in self.feeds.tapes.iter_mut().enumerate() {
            if let Some(from) = tape.take_traded_from() {
                let events = || market_data::candles(&self.exchange.markets[index], "update", from);
                self.hub.publish(Topic::Candles(index), "candles", events);
            }
        }
        let listeners = self.hub.balance_listeners();
        self.feeds.balances.retain(|portfolio, _| listeners.contains(portfolio));
        for portfolio in listeners {
            let events = futures::summary_event(&self.exchange, portfolio, "update");
            if self.feeds.balances.get(&portfolio) != Some(&events) {
                let topic = Topic::FuturesBalanceSummary(portfolio);
                self.hub.publish(topic, "futures_balance_summary", || events.clone());
                self.feeds.balances.insert(portfolio, events);
            }
        }
    }

    fn publish_batches(&mut self, now: Now) {
        for index in 0..self.exchange.markets.len() {
            if self.feeds.tapes[index].take_traded() {
                let book = self.shown.book(&self.exchange, index);
                let events = || market_data::ticker(&self.exchange.markets[index], book, "update");
                self.hub.publish(Topic::TickerBatch(index), "ticker_batch", events);
            }
            let events = || market_data::status(&self.exchange, "update", index, now.time);
            self.hub.publish(Topic::Status(index), "status", events);
        }
    }
}

/// Sends what has a pace of its own. `tick` is the pace of the markets: nothing need go out more often.
pub(super) async fn run(app: Arc<App>, tick: Duration) {
    let mut timer = interval(TRADES.max(tick));
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut changes, mut batch) = (Instant::now(), Instant::now());
    loop {
        let time = timer.tick().await;
        let (mut state, now) = app.lock();
        state.publish_trades();
        if time >= changes + CHANGES {
            changes = time;
            state.publish_changes();
        }
        if time >= batch + BATCH {
            batch = time;
            state.publish_batches(now);
        }
    }
}
