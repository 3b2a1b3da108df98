//! What a match does to orders, balances and positions. Every amount that leaves one side arrives at another.

use rust_decimal::Decimal;
use uuid::Uuid;

use super::book::{Match, OrderNumber, Side};
use super::journal::Kind;
use super::order::{Order, Rung, Status, TimeInForce};
use super::place::worst_price;
use super::portfolio::Fill;
use super::product::Product;
use super::{Exchange, Notice, Now, Trade};

impl Exchange {
    /// Settles one match of an incoming order against a resting one.
    pub(super) fn settle(&mut self, now: Now, taker: OrderNumber, matched: Match) {
        let trade_id = self.next_trade;
        self.next_trade += 1;
        let Some((side, market)) = self.orders.get(&taker).map(|o| (o.side, o.market)) else { return };
        let m = &mut self.markets[market];
        m.last_price = matched.price;
        m.volume += matched.size;
        m.volume_value += m.product.value(matched.size, matched.price);
        m.low = m.low.min(matched.price);
        m.high = m.high.max(matched.price);
        let (low, high) = m.traded.unwrap_or((matched.price, matched.price));
        m.traded = Some((low.min(matched.price), high.max(matched.price)));
        m.history.record(now.time, trade_id, side, matched.price, matched.size);
        self.notices.push(Notice::Trade(Trade {
            id: trade_id,
            market,
            price: matched.price,
            size: matched.size,
            taker: side,
            time: now.time,
        }));
        // Both before either is reported: no reader ever sees half a trade.
        let maker_done = self.fill(now, matched.maker, matched, trade_id, true);
        let taker_done = self.fill(now, taker, matched, trade_id, false);
        self.report_fill(now, matched.maker, matched, maker_done);
        self.report_fill(now, taker, matched, taker_done);
    }

    /// Applies a match to one order and its owner; true when that completed the order.
    fn fill(&mut self, now: Now, number: OrderNumber, matched: Match, trade_id: u64, maker: bool) -> bool {
        let Some(order) = self.orders.get_mut(&number) else { return false };
        let product = &self.markets[order.market].product;
        let value = product.value(matched.size, matched.price);
        let rates = if product.is_future() { self.settings.future_fees } else { self.settings.spot_fees };
        let Some(owner) = self.portfolios.get_mut(&order.portfolio) else { return false };
        let fee = if owner.participant { Decimal::ZERO } else { rates.of(value, maker) };

        order.filled_size += matched.size;
        order.filled_value += value;
        order.fees += fee;
        order.fills += 1;
        order.last_fill = Some(now.time);
        order.last_update = now.time;
        let done = order.filled_size == order.size;
        let rung = if maker { order.rungs.iter().position(|r| r.price == matched.price) } else { Some(order.rung) };
        if let Some(rung) = rung.and_then(|i| order.rungs.get_mut(i)) {
            rung.remaining -= matched.size;
        }

        if product.is_future() {
            let position = owner.positions.entry(order.market).or_default();
            let realized = position.apply(order.side, matched.size, value);
            position.daily_realized_pnl += realized;
            position.fees += fee;
            if position.is_empty() && owner.participant {
                owner.positions.remove(&order.market);
            }
            owner.pay_futures(realized - fee);
        } else {
            let keeps = still_held(order, product, value + fee, done, self.settings.spot_fees.taker);
            let released = order.hold - keeps;
            order.hold = keeps;
            owner.balance_mut(held_currency(order.side, &product.base, &product.quote)).hold -= released;
            owner.balance_mut(&product.base).total += order.side.sign() * matched.size;
            owner.balance_mut(&product.quote).total -= order.side.sign() * value + fee;
        }
        owner.volume += value;
        owner.fees += fee;
        self.fees_collected += fee;
        if !owner.participant {
            owner.fills.push_back(Fill {
                trade_id,
                order: order.id,
                market: order.market,
                side: order.side,
                price: matched.price,
                size: matched.size,
                commission: fee,
                maker,
                time: now.time,
            });
        }
        if done {
            order.status = Status::Filled;
            owner.open.remove(&number);
        }
        done
    }

    /// Journals a fill and its new position, and forgets a participant's finished order.
    fn report_fill(&mut self, now: Now, number: OrderNumber, matched: Match, done: bool) {
        let Some(order) = self.orders.get(&number) else { return };
        let portfolio = order.portfolio;
        if !self.is_client(portfolio) {
            if done {
                self.orders.remove(&number);
            }
            return;
        }
        let mut event = self.journal_event(Kind::Fill, order, "");
        event.price = Some(matched.price);
        event.filled = matched.size;
        let mut moved = event.clone();
        moved.kind = Kind::PositionChanged;
        self.journal.push(now, event);
        self.journal.push(now, moved);
        self.notices.push(Notice::Order { portfolio, order: number });
    }

    /// Ends an order that is not filled: releases what it holds and takes it out of the book.
    pub(super) fn close(&mut self, now: Now, number: OrderNumber, status: Status, message: &str) {
        let Some(order) = self.orders.get_mut(&number).filter(|o| !o.status.is_terminal()) else { return };
        let market = &mut self.markets[order.market];
        if std::mem::take(&mut order.resting) {
            for rung in &order.rungs {
                market.book.remove(order.side, rung.price, number);
            }
        }
        if let TimeInForce::GoodUntilDate(end) = order.terms.time_in_force {
            self.expiries.remove(&(end, number));
        }
        order.status = status;
        order.last_update = now.time;
        order.cancel_message = message.to_owned();
        let released = std::mem::take(&mut order.hold);
        let portfolio = order.portfolio;
        let currency = held_currency(order.side, &market.product.base, &market.product.quote);
        if let Some(owner) = self.portfolios.get_mut(&portfolio) {
            owner.balance_mut(currency).hold -= released;
            owner.open.remove(&number);
            if owner.participant {
                self.orders.remove(&number);
                return;
            }
        }
        let kind = if status == Status::Expired { Kind::OrderExpired } else { Kind::OrderCancelled };
        self.record(now, kind, number, message);
    }

    /// Forgets the oldest terminal orders and fills of a portfolio, so that memory stays bounded.
    pub(super) fn trim_history(&mut self, portfolio: Uuid) {
        let keep = self.settings.retention.history;
        let Some(owner) = self.portfolios.get_mut(&portfolio) else { return };
        while owner.fills.len() > keep {
            owner.fills.pop_front();
        }
        // Open orders stay, and must not keep the finished ones behind them.
        while owner.history.len() > keep + owner.open.len() {
            let Some(oldest) = owner.history.iter().position(|n| !owner.open.contains(n)) else { break };
            let Some(number) = owner.history.remove(oldest) else { break };
            if let Some(order) = self.orders.remove(&number) {
                self.numbers.remove(&order.id);
                owner.client_order_ids.remove(&order.client_order_id);
            }
        }
    }
}

/// What an order reserves after a fill that cost `cost`, which its rungs already show.
fn still_held(order: &Order, product: &Product, cost: Decimal, done: bool, taker: Decimal) -> Decimal {
    let keeps = match order.side {
        _ if done => Decimal::ZERO,
        Side::Sell => order.remaining(),
        Side::Buy if order.rungs.is_empty() => order.hold - cost,
        Side::Buy => {
            let price = |r: &Rung| worst_price(product, &order.terms, r.price);
            order.rungs.iter().map(|r| r.remaining * price(r) * (Decimal::ONE + taker)).sum()
        }
    };
    keeps.clamp(Decimal::ZERO, order.hold)
}

pub(super) fn held_currency<'a>(side: Side, base: &'a str, quote: &'a str) -> &'a str {
    if side == Side::Buy { quote } else { base }
}
