//! Which orders have fills that the books do not have yet. Pure.
//!
//! The exchange tells cumulative figures of orders; its history of fills has the parts. Until both agree, the history is
//! asked again, later each time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rust_decimal::Decimal;

use crate::exchange::Fill;
use crate::ledger::{FillRecord, OrderRecord};

/// Pauses between two looks into the history: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// An order that adds up is forgotten this long after the last news of it.
const KEPT: Duration = Duration::from_secs(600);
/// A difference is said once it has lasted so long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Fills of an order's whole size that cost another fee than the order shows are asked for again for so long; then the
/// fills count.
const FEES_ASKED_FOR: Duration = Duration::from_secs(600);
/// Orders asked for at once.
pub const BATCH: usize = 40;

/// What the exchange said of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cumulative {
    pub client_order_id: String,
    pub order_id: String,
    pub filled: Decimal,
    pub fees_quote: Decimal,
}

impl From<&OrderRecord> for Cumulative {
    fn from(order: &OrderRecord) -> Self {
        Self {
            client_order_id: order.client_order_id.clone(),
            order_id: order.order_id.clone().unwrap_or_default(),
            filled: order.filled,
            fees_quote: order.fees_quote,
        }
    }
}

#[derive(Clone, Debug)]
struct Known {
    said: Cumulative,
    trades: BTreeSet<String>,
    filled: Decimal,
    fees_quote: Decimal,
    /// CLOCK_BOOTTIME of the last news, and since when it does not add up.
    heard_at: Duration,
    differs_since: Option<Duration>,
    ask_at: Duration,
    pause: Duration,
}

impl Known {
    /// Whether a fill is missing, or the order's news are older than its fills.
    fn lacks_fills(&self) -> bool {
        self.filled != self.said.filled
    }

    fn adds_up(&self) -> bool {
        !self.lacks_fills() && self.fees_quote == self.said.fees_quote
    }

    /// Whether the history has nothing more to say.
    fn is_done(&self, now: Duration) -> bool {
        self.adds_up() || (!self.lacks_fills() && self.differs_since.is_some_and(|since| now >= since + FEES_ASKED_FOR))
    }

    fn look(&mut self, now: Duration) {
        self.differs_since = if self.adds_up() { None } else { self.differs_since.or(Some(now)) };
    }
}

/// The orders whose fills are looked after, by the exchange's id.
#[derive(Clone, Debug, Default)]
pub struct Outstanding {
    orders: BTreeMap<String, Known>,
}

impl Outstanding {
    /// Whether the order is looked after; otherwise its fills are to be read from the ledger with its first news.
    #[must_use]
    pub fn knows(&self, order_id: &str) -> bool {
        self.orders.contains_key(order_id)
    }

    /// Begins with an order and the fills that the books have of it.
    pub fn begin<'a>(&mut self, said: Cumulative, booked: impl Iterator<Item = &'a FillRecord>, now: Duration) {
        let mut known = Known {
            trades: BTreeSet::new(),
            filled: Decimal::ZERO,
            fees_quote: Decimal::ZERO,
            heard_at: now,
            differs_since: None,
            ask_at: now,
            pause: FIRST_PAUSE,
            said,
        };
        for fill in booked {
            known.trades.insert(fill.trade_id.clone());
            known.filled += fill.size;
            known.fees_quote += fill.fee_quote;
        }
        known.look(now);
        self.orders.insert(known.said.order_id.clone(), known);
    }

    /// Takes news of an order that is looked after. What is late or comes twice takes nothing back.
    pub fn hear(&mut self, said: &Cumulative, now: Duration) {
        let Some(known) = self.orders.get_mut(&said.order_id) else { return };
        known.heard_at = now;
        if said.filled > known.said.filled || said.fees_quote > known.said.fees_quote {
            known.differs_since = None;
            known.said.filled = known.said.filled.max(said.filled);
            known.said.fees_quote = known.said.fees_quote.max(said.fees_quote);
            (known.pause, known.ask_at) = (FIRST_PAUSE, now);
        }
        known.look(now);
    }

    /// Orders whose history is to be read now; notes that it is.
    pub fn due(&mut self, now: Duration) -> Vec<String> {
        let due = self.orders.values_mut().filter(|known| !known.is_done(now) && known.ask_at <= now);
        let mut ids = Vec::new();
        for known in due.take(BATCH) {
            known.ask_at = now + known.pause;
            known.pause = (known.pause * 2).min(LONGEST_PAUSE);
            ids.push(known.said.order_id.clone());
        }
        ids
    }

    /// Of what the history shows, what the books do not have: with the client_order_id of each. Once it is written, say
    /// so with [`Self::booked`].
    #[must_use]
    pub fn news(&self, shown: Vec<Fill>) -> Vec<(Fill, String)> {
        let mut seen = BTreeSet::new();
        let mut news = Vec::new();
        for fill in shown {
            let Some(known) = self.orders.get(&fill.order_id) else { continue };
            let is_new = !known.trades.contains(&fill.trade_id);
            if is_new && seen.insert((fill.order_id.clone(), fill.trade_id.clone())) {
                news.push((fill, known.said.client_order_id.clone()));
            }
        }
        news
    }

    /// The books have these now.
    pub fn booked(&mut self, fills: &[FillRecord], now: Duration) {
        for fill in fills {
            let Some(known) = self.orders.get_mut(&fill.order_id) else { continue };
            if known.trades.insert(fill.trade_id.clone()) {
                known.filled += fill.size;
                known.fees_quote += fill.fee_quote;
                known.look(now);
            }
        }
    }

    /// Forgets what is done and of which nothing was heard for long: memory must not grow with every order.
    pub fn forget(&mut self, now: Duration) {
        self.orders.retain(|_, known| !known.is_done(now) || now < known.heard_at + KEPT);
    }

    /// Orders that lack fills: until they have them, position and cash of the books are not the exchange's. Another fee
    /// than the fills' own does not count: what was charged is in the fills.
    #[must_use]
    pub fn count(&self) -> usize {
        self.orders.values().filter(|known| known.lacks_fills()).count()
    }

    /// The first difference that has lasted.
    #[must_use]
    pub fn problem(&self, now: Duration) -> Option<String> {
        let lasting = |known: &&Known| known.differs_since.is_some_and(|since| now >= since + PATIENCE);
        self.orders.values().find(lasting).map(|known| {
            let Cumulative { client_order_id, filled, fees_quote, .. } = &known.said;
            format!(
                "order {client_order_id} shows {filled} filled for fees of {fees_quote}, its fills are {} for {}; {}",
                known.filled,
                known.fees_quote,
                if known.lacks_fills() {
                    "the exchange's history of fills is asked again, and no funding is booked as paid until it has them"
                } else {
                    "the books go by the fills"
                }
            )
        })
    }
}

#[cfg(test)]
mod tests;
