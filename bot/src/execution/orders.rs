//! The bot's own orders: what is known of each, and what each may still do.

mod entered;
mod id;
mod order;
mod settled;
mod totals;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;

use self::settled::Settled;
use self::totals::Totals;
use crate::exchange::{NewOrder, OrderKind, OrderState, OrderStatus, Side};
use crate::execution::kill::STUCK_AFTER;
use crate::ledger::{OrderRecord, RecordStatus};
use crate::risk::Class;

pub use self::entered::entered_at;
pub use self::id::{ClientOrderId, mint_id, of_a_bot, parse_id};
pub use self::order::{Order, State};

/// How long after its token expired an order that no listing shows counts as not placed (SAFETY §4).
const NOT_PLACED_AFTER: Duration = Duration::from_secs(30);
/// Complete listings after that in which the order must be absent.
const NOT_PLACED_LISTINGS: u32 = 2;
/// How often a cancel is asked for again.
const CANCEL_AGAIN: Duration = Duration::from_secs(1);
/// How long the user channel has to say what became of an order that takes, before it is asked for.
const QUERY_AFTER: Duration = Duration::from_millis(300);
/// How long it is remembered when an order was minted: the rate of orders counts a minute back.
const RATED: Duration = Duration::from_secs(120);
/// How long an order that has ended is kept by itself: far longer than any news of it is late.
const KEPT: Duration = Duration::from_secs(3600);

/// All orders of the bot, by client order id. What is asked at every tick looks at few of them.
#[derive(Clone, Debug, Default)]
pub struct Orders {
    /// Those that may still do something, and those that ended since [`settle`](Self::settle) was called last.
    open: BTreeMap<String, Order>,
    /// Those that ended less than [`KEPT`] ago, for late news.
    ended: BTreeMap<String, Order>,
    /// When each order was minted that is younger than [`RATED`].
    minted: Vec<Duration>,
    /// Over all that are not open.
    totals: Totals,
    settled: Settled,
}

impl Orders {
    /// Takes in an order that has just been minted.
    pub fn insert(&mut self, order: Order) {
        self.minted.push(order.minted_at);
        self.open.insert(order.order.client_order_id.clone(), order);
    }

    #[must_use]
    pub fn get(&self, client_order_id: &str) -> Option<&Order> {
        self.open.get(client_order_id).or_else(|| self.ended.get(client_order_id))
    }

    pub fn get_mut(&mut self, client_order_id: &str) -> Option<&mut Order> {
        if let Some(order) = self.ended.remove(client_order_id) {
            self.totals.take_away(&order);
            self.open.insert(client_order_id.to_owned(), order);
        }
        self.open.get_mut(client_order_id)
    }

    /// Every order that may still do something.
    pub fn live(&self) -> impl Iterator<Item = &Order> {
        self.open.values().filter(|order| !order.state.is_terminal())
    }

    /// Signed sum of the fills of a product.
    #[must_use]
    pub fn owned(&self, product: &str) -> Decimal {
        self.totals.owned(product) + self.of(product).map(Order::owned).sum::<Decimal>()
    }

    /// Cash that the fills of a product brought in, in quote currency, fees excluded, for one unit = `unit_base`.
    #[must_use]
    pub fn cash_quote(&self, product: &str, unit_base: Decimal) -> Decimal {
        (self.totals.cash(product) + self.of(product).map(Order::cash).sum::<Decimal>()) * unit_base
    }

    /// Fees paid, in quote currency.
    #[must_use]
    pub fn fees_quote(&self) -> Decimal {
        self.totals.fees_quote() + self.open.values().map(|order| order.fees_quote).sum::<Decimal>()
    }

    /// Puts what has ended aside, and keeps only the totals of the orders that ended long ago. One that never was at the venue leaves nothing: should
    /// the venue show it after all, it is news.
    pub fn settle(&mut self, now: Duration) {
        let Self { open, ended, minted, totals, settled } = self;
        minted.retain(|at| now < *at + RATED);
        open.retain(|id, order| {
            if !order.state.is_terminal() {
                return true;
            }
            order.ended_at.get_or_insert(now);
            totals.add(order);
            ended.insert(id.clone(), order.clone());
            false
        });
        ended.retain(|id, order| {
            if now < *order.ended_at.get_or_insert(now) + KEPT {
                return true;
            }
            let Some(id) = parse_id(id) else { return true };
            if matches!(order.state, State::Venue(_)) {
                settled.take(id);
            } else {
                totals.take_away(order);
            }
            false
        });
    }

    /// Whether an order that is not known any more is in the sums.
    #[must_use]
    pub fn is_settled(&self, client_order_id: &str) -> bool {
        parse_id(client_order_id).is_some_and(|id| self.settled.contains(id))
    }

    /// What may still fill on one side of a product.
    #[must_use]
    pub fn outstanding(&self, product: &str, side: Side) -> Decimal {
        self.of(product).filter(|order| order.order.side == side).map(Order::remaining).sum()
    }

    fn of(&self, product: &str) -> impl Iterator<Item = &Order> {
        self.open.values().filter(move |order| order.order.product == product)
    }

    /// Orders minted since then, which is not longer ago than [`RATED`].
    #[must_use]
    pub fn minted_since(&self, since: Duration) -> u32 {
        let count = self.minted.iter().filter(|at| **at >= since).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Applies what the venue shows of an order that is known here. Returns the id if anything changed; None also
    /// where the order is not known.
    pub fn apply(&mut self, seen: &OrderState) -> Option<String> {
        let id = &seen.client_order_id;
        if let Some(order) = self.ended.get(id) {
            let mut order = order.clone();
            if !order.apply(seen) {
                return None;
            }
            // It is late news of an order that had ended.
            *self.get_mut(id)? = order;
            return Some(id.clone());
        }
        self.open.get_mut(id)?.apply(seen).then(|| id.clone())
    }

    /// Takes over an order of ours that only the venue remembers.
    pub fn adopt(&mut self, seen: &OrderState, class: Class, epoch: i64, now: Duration) {
        let order = NewOrder {
            client_order_id: seen.client_order_id.clone(),
            product: seen.product.clone(),
            side: seen.side,
            size: seen.size.unwrap_or(seen.filled),
            kind: OrderKind::Market,
        };
        let mut adopted = Order::intended(order, class, epoch, now);
        // It was minted by an earlier process, nobody knows when: it counts for no rate of this one.
        adopted.minted_at = Duration::ZERO;
        adopted.adopted = true;
        adopted.apply(seen);
        self.open.insert(seen.client_order_id.clone(), adopted);
    }

    /// The orders that the ledger remembers. One without an end is unknown until the venue shows it.
    #[must_use]
    pub fn recovered(records: &[OrderRecord], now: Duration, now_wall: Timestamp) -> Self {
        let mut orders = Self::default();
        for record in records {
            let order = NewOrder {
                client_order_id: record.client_order_id.clone(),
                product: record.product.clone(),
                side: record.side,
                size: record.size,
                kind: match (record.limit_price, record.expires_at) {
                    (Some(limit_price), Some(expires_at)) => OrderKind::PostOnly { limit_price, expires_at },
                    (Some(limit_price), None) => OrderKind::ImmediateOrCancel { limit_price },
                    _ => OrderKind::Market,
                },
            };
            let class = record.class.or_else(|| parse_id(&record.client_order_id).map(|id| id.class));
            let mut recovered = Order::intended(order, class.unwrap_or(Class::Enter), record.epoch, now);
            // Minted by an earlier process, which may have ended a moment ago: the rate of orders goes on.
            let age = Duration::try_from(now_wall.duration_since(record.created_at)).unwrap_or_default();
            recovered.minted_at = now.saturating_sub(age);
            recovered.adopted = record.class.is_none();
            recovered.created_at = recovered.adopted.then_some(record.created_at);
            recovered.order_id = record.order_id.clone();
            recovered.filled = record.filled;
            recovered.average_price = record.average_price;
            recovered.fees_quote = record.fees_quote;
            recovered.state = match record.status {
                RecordStatus::Intended | RecordStatus::Unknown => State::Unknown,
                RecordStatus::NotPlaced => State::NotPlaced,
                RecordStatus::Rejected => State::Rejected,
                RecordStatus::Pending => State::Venue(OrderStatus::Pending),
                RecordStatus::Open => State::Venue(OrderStatus::Open),
                RecordStatus::Cancelling => State::Venue(OrderStatus::Cancelling),
                RecordStatus::Filled => State::Venue(OrderStatus::Filled),
                RecordStatus::Cancelled => State::Venue(OrderStatus::Cancelled),
                RecordStatus::Expired => State::Venue(OrderStatus::Expired),
                RecordStatus::Failed => State::Venue(OrderStatus::Failed),
            };
            if age < RATED {
                orders.minted.push(recovered.minted_at);
            }
            if recovered.state.is_terminal() {
                orders.totals.add(&recovered);
                orders.ended.insert(record.client_order_id.clone(), recovered);
            } else {
                orders.open.insert(record.client_order_id.clone(), recovered);
            }
        }
        orders
    }

    /// Counts a complete listing that began at `started` against every order without an answer that it does not show.
    /// Returns the ids of those that are thereby proven not placed.
    pub fn absent_from(&mut self, shown: &[OrderState], started: Duration) -> Vec<String> {
        let mut proven = Vec::new();
        for (id, order) in &mut self.open {
            let proof_counts = started >= order.token_expires + NOT_PLACED_AFTER;
            let unanswered = matches!(order.state, State::Unknown | State::Intended);
            if !unanswered || !proof_counts || shown.iter().any(|seen| &seen.client_order_id == id) {
                continue;
            }
            order.absent += 1;
            if order.absent >= NOT_PLACED_LISTINGS {
                order.state = State::NotPlaced;
                proven.push(id.clone());
            }
        }
        proven
    }

    /// The venue's ids of the orders that `wanted` picks and whose cancel is due; notes that it was asked for.
    pub fn take_cancels(&mut self, now: Duration, wanted: impl Fn(&Order) -> bool) -> Vec<String> {
        let mut ids = Vec::new();
        for order in self.open.values_mut().filter(|order| !order.state.is_terminal()) {
            // An order that takes ends by itself; one that has not after so long is cancelled like any other.
            let cancellable = order.may_rest() || now >= order.minted_at + STUCK_AFTER;
            let due = cancellable && order.cancel_asked_at.is_none_or(|at| now >= at + CANCEL_AGAIN);
            if let (true, true, Some(id)) = (due, wanted(order), &order.order_id) {
                order.cancel_asked_at = Some(now);
                ids.push(id.clone());
            }
        }
        ids
    }

    /// The venue's ids of the orders that took something and whose end is overdue; notes that they were asked for.
    pub fn take_queries(&mut self, now: Duration) -> Vec<String> {
        let mut ids = Vec::new();
        for order in self.open.values_mut().filter(|order| !order.state.is_terminal() && !order.rests()) {
            let due = now >= order.query_asked_at.unwrap_or(order.minted_at) + QUERY_AFTER;
            if let (true, Some(id)) = (due, &order.order_id) {
                order.query_asked_at = Some(now);
                ids.push(id.clone());
            }
        }
        ids
    }

    /// Highest sequence number among the ids, for minting the next.
    #[must_use]
    pub fn highest_sequence(&self) -> u64 {
        self.open.keys().chain(self.ended.keys()).filter_map(|id| parse_id(id)).map(|id| id.sequence).max().unwrap_or(0)
    }

    /// Creation of the oldest order that may still do something; listings reach back to it.
    #[must_use]
    pub fn oldest_live(&self) -> Option<Duration> {
        self.live().map(|order| order.minted_at).min()
    }
}

/// When a boottime instant was, on the wall clock.
#[must_use]
pub fn wall(at: Duration, now: Duration, now_wall: Timestamp) -> Timestamp {
    now_wall.checked_sub(now.saturating_sub(at)).unwrap_or(Timestamp::UNIX_EPOCH)
}
