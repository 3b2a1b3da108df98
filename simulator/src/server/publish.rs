//! What changed on the exchange goes out to those who listen.

use super::State;
use super::hub::{Frame, Topic};
use super::shapes;
use crate::exchange::{Notice, Now};

impl State {
    /// Sends order updates and trades; book changes wait for the next tick.
    pub(super) fn publish(&mut self) {
        let mut orders = Vec::new();
        let mut trades = Vec::new();
        for notice in self.exchange.take_notices() {
            match notice {
                Notice::Order { portfolio, order } if !orders.contains(&(portfolio, order)) => {
                    orders.push((portfolio, order));
                }
                Notice::Order { .. } => {}
                Notice::Trade(trade) => trades.push(trade),
            }
        }
        for (portfolio, number) in orders {
            let topic = Topic::User(portfolio);
            if self.hub.is_heard(topic)
                && let Some(events) = shapes::user::update(&self.exchange, portfolio, number)
            {
                self.hub.publish(topic, &Frame { channel: "user", events: events.into() });
            }
        }
        for market in 0..self.exchange.markets.len() {
            let of_market: Vec<_> = trades.iter().filter(|t| t.market == market).collect();
            if of_market.is_empty() {
                continue;
            }
            if self.hub.is_heard(Topic::MarketTrades(market)) {
                let events = shapes::market_data::trades(&self.exchange, "update", &of_market);
                self.hub
                    .publish(Topic::MarketTrades(market), &Frame { channel: "market_trades", events: events.into() });
            }
            if self.hub.is_heard(Topic::Ticker(market)) {
                let events = shapes::market_data::ticker(&self.exchange, "update", &[market]);
                self.hub.publish(Topic::Ticker(market), &Frame { channel: "ticker", events: events.into() });
            }
        }
    }

    pub(super) fn publish_books(&mut self, now: Now) {
        for index in 0..self.exchange.markets.len() {
            let changes = self.exchange.markets[index].book.take_changes();
            if changes.is_empty() || !self.hub.is_heard(Topic::Level2(index)) {
                continue;
            }
            let product = &self.exchange.markets[index].product.id;
            let events = shapes::market_data::level2(product, "update", &changes, now.time);
            self.hub.publish(Topic::Level2(index), &Frame { channel: "l2_data", events: events.into() });
        }
    }
}
