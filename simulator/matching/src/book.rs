//! A limit order book with price-time priority. It knows prices, sizes and owners, and nothing of money.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use strum::Display;
use uuid::Uuid;

/// Identifies an order inside the exchange; rises with every order accepted.
pub type OrderNumber = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Display)]
#[serde(rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE")]
pub enum Side {
    Buy,
    Sell,
}

impl Side {
    pub fn opposite(self) -> Self {
        match self {
            Self::Buy => Self::Sell,
            Self::Sell => Self::Buy,
        }
    }

    /// +1 for a buy, −1 for a sell.
    pub fn sign(self) -> Decimal {
        match self {
            Self::Buy => Decimal::ONE,
            Self::Sell => Decimal::NEGATIVE_ONE,
        }
    }
}

/// What rests at a price, oldest first.
#[derive(Debug, Clone, Default)]
struct Level {
    orders: VecDeque<Resting>,
    total: Decimal,
}

#[derive(Debug, Clone, Copy)]
struct Resting {
    number: OrderNumber,
    owner: Uuid,
    remaining: Decimal,
}

/// An incoming order. `limit` is absent for a market order.
#[derive(Debug, Clone, Copy)]
pub struct Taker {
    pub side: Side,
    pub owner: Uuid,
    pub limit: Option<Decimal>,
    pub quantity: Quantity,
}

/// How much an incoming order wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    Base(Decimal),
    /// A budget in quote currency, spent in whole size increments.
    Quote {
        budget: Decimal,
        increment: Decimal,
    },
}

/// One match, at the maker's price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    pub maker: OrderNumber,
    pub price: Decimal,
    pub size: Decimal,
}

/// What a taker got.
#[derive(Debug, Default)]
pub struct Taken {
    pub matches: Vec<Match>,
    /// Matching stopped at an order of the same owner (the newer order gives way).
    pub self_trade: bool,
}

/// One product's order book.
#[derive(Debug, Clone, Default)]
pub struct Book {
    bids: BTreeMap<Decimal, Level>,
    asks: BTreeMap<Decimal, Level>,
    /// Levels that changed since the last [`Book::take_changes`].
    changed: BTreeSet<(Side, Decimal)>,
}

impl Book {
    /// Rests `size` at `price` behind everything already there. The caller has matched it first.
    pub fn add(&mut self, side: Side, price: Decimal, number: OrderNumber, owner: Uuid, size: Decimal) {
        let level = self.levels_mut(side).entry(price).or_default();
        level.orders.push_back(Resting { number, owner, remaining: size });
        level.total += size;
        self.changed.insert((side, price));
    }

    /// Removes a resting order and returns what remained of it.
    pub fn remove(&mut self, side: Side, price: Decimal, number: OrderNumber) -> Option<Decimal> {
        let levels = self.levels_mut(side);
        let level = levels.get_mut(&price)?;
        let at = level.orders.iter().position(|o| o.number == number)?;
        let removed = level.orders.remove(at)?;
        level.total -= removed.remaining;
        if level.orders.is_empty() {
            levels.remove(&price);
        }
        self.changed.insert((side, price));
        Some(removed.remaining)
    }

    /// Makes a resting order smaller without taking its place in the queue.
    pub fn reduce(&mut self, side: Side, price: Decimal, number: OrderNumber, remaining: Decimal) {
        let Some(level) = self.levels_mut(side).get_mut(&price) else { return };
        let Some(order) = level.orders.iter_mut().find(|o| o.number == number) else { return };
        level.total -= order.remaining - remaining;
        order.remaining = remaining;
        self.changed.insert((side, price));
    }

    /// Matches a taker against the other side: best price first, then oldest first.
    pub fn take(&mut self, taker: Taker) -> Taken {
        let mut taken = Taken::default();
        let mut wanted = taker.quantity;
        while let Some(price) = self.best(taker.side.opposite()).filter(|p| acceptable(taker.side, taker.limit, *p)) {
            let side = taker.side.opposite();
            let levels = self.levels_mut(side);
            let Some(level) = levels.get_mut(&price) else { break };
            let Some(front) = level.orders.front_mut() else { break };
            if front.owner == taker.owner {
                taken.self_trade = true;
                break;
            }
            let size = front.remaining.min(wanted.at(price));
            if size.is_zero() {
                break;
            }
            wanted.spend(price, size);
            front.remaining -= size;
            taken.matches.push(Match { maker: front.number, price, size });
            level.total -= size;
            if front.remaining.is_zero() {
                level.orders.pop_front();
            }
            if level.orders.is_empty() {
                levels.remove(&price);
            }
            self.changed.insert((side, price));
        }
        taken
    }

    /// What a taker could get now as (price, size), best first, stopping at its own orders.
    pub fn preview(&self, taker: Taker) -> Vec<(Decimal, Decimal)> {
        let mut wanted = taker.quantity;
        let mut found = Vec::new();
        let side = taker.side.opposite();
        for (price, level) in self.iter(side).take_while(|(p, _)| acceptable(taker.side, taker.limit, *p)) {
            for order in &level.orders {
                let size = order.remaining.min(wanted.at(price));
                if order.owner == taker.owner || size.is_zero() {
                    return found;
                }
                wanted.spend(price, size);
                found.push((price, size));
            }
        }
        found
    }

    pub fn best(&self, side: Side) -> Option<Decimal> {
        match side {
            Side::Buy => self.bids.keys().next_back().copied(),
            Side::Sell => self.asks.keys().next().copied(),
        }
    }

    /// Middle of the best bid and ask; `None` while a side is empty.
    pub fn mid(&self) -> Option<Decimal> {
        Some((self.best(Side::Buy)? + self.best(Side::Sell)?) / Decimal::TWO)
    }

    /// Total size at a price.
    pub fn size_at(&self, side: Side, price: Decimal) -> Decimal {
        let levels = match side {
            Side::Buy => &self.bids,
            Side::Sell => &self.asks,
        };
        levels.get(&price).map_or(Decimal::ZERO, |l| l.total)
    }

    /// The best `limit` levels of a side as (price, total size), best first.
    pub fn depth(&self, side: Side, limit: usize) -> Vec<(Decimal, Decimal)> {
        self.iter(side).take(limit).map(|(price, level)| (price, level.total)).collect()
    }

    /// Levels changed since the last call with their new absolute size; 0 means the level is gone.
    pub fn take_changes(&mut self) -> Vec<(Side, Decimal, Decimal)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|(side, price)| (side, price, self.size_at(side, price))).collect()
    }

    fn levels_mut(&mut self, side: Side) -> &mut BTreeMap<Decimal, Level> {
        match side {
            Side::Buy => &mut self.bids,
            Side::Sell => &mut self.asks,
        }
    }

    fn iter(&self, side: Side) -> Box<dyn Iterator<Item = (Decimal, &Level)> + '_> {
        match side {
            Side::Buy => Box::new(self.bids.iter().rev().map(|(p, l)| (*p, l))),
            Side::Sell => Box::new(self.asks.iter().map(|(p, l)| (*p, l))),
        }
    }
}

impl Quantity {
    /// How much is still wanted at `price`.
    fn at(&self, price: Decimal) -> Decimal {
        match *self {
            Self::Base(size) => size,
            Self::Quote { budget, increment } => {
                let size = budget.checked_div(price).unwrap_or_default();
                size - size.checked_rem(increment).unwrap_or_default()
            }
        }
    }

    fn spend(&mut self, price: Decimal, size: Decimal) {
        match self {
            Self::Base(left) => *left -= size,
            Self::Quote { budget, .. } => *budget -= price * size,
        }
    }
}

/// Whether a taker with this limit trades at `price`.
pub fn acceptable(side: Side, limit: Option<Decimal>, price: Decimal) -> bool {
    match (side, limit) {
        (_, None) => true,
        (Side::Buy, Some(limit)) => price <= limit,
        (Side::Sell, Some(limit)) => price >= limit,
    }
}

#[cfg(test)]
mod tests;
