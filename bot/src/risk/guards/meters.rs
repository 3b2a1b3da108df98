//! What is counted over windows of time: calls, orders, connections, turns of the engine. Pure; times are CLOCK_BOOTTIME.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use arbbot_crds::guards::GuardMetric;
use rust_decimal::Decimal;

use crate::exchange::{ExchangeError, Link, OrderKind, OrderStatus, Placed, Side};
use crate::execution::orders::{Order, State};
use crate::risk::Class;

const MINUTE: Duration = Duration::from_secs(60);
const CALLS: Duration = Duration::from_secs(300);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// Entries of a window at most: what is older is dropped.
const MOST: usize = 20_000;
/// Least samples, as docs/guards.md says.
const LEAST_CALLS: usize = 20;
const LEAST_ORDERS: usize = 20;
const LEAST_TAKES: usize = 5;
const LEAST_TO_FILL: usize = 10;
const LEAST_FILLED: usize = 20;
const LEAST_SECONDS: usize = 60;
/// Reason of a post-only order that would have crossed: it is placed again at another price, and nothing is wrong.
const WOULD_CROSS: &str = "INVALID_LIMIT_PRICE_POST_ONLY";

/// What happened within a time.
#[derive(Clone, Debug)]
struct Window<T> {
    span: Duration,
    entries: VecDeque<(Duration, T)>,
}

impl<T> Window<T> {
    fn of(span: Duration) -> Self {
        Self { span, entries: VecDeque::new() }
    }

    fn push(&mut self, now: Duration, entry: T) {
        self.entries.push_back((now, entry));
        if self.entries.len() > MOST {
            self.entries.pop_front();
        }
    }

    fn trim(&mut self, now: Duration) {
        let since = now.saturating_sub(self.span);
        while self.entries.front().is_some_and(|(at, _)| *at < since) {
            self.entries.pop_front();
        }
    }

    fn len(&self) -> usize {
        self.entries.len()
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|(_, entry)| entry)
    }

    fn percent(&self, least: usize, counts: impl Fn(&T) -> bool) -> Option<Decimal> {
        let matching = self.iter().filter(|entry| counts(entry)).count();
        (self.len() >= least.max(1)).then(|| Decimal::from(matching) * Decimal::ONE_HUNDRED / Decimal::from(self.len()))
    }
}

impl Window<u32> {
    /// The smallest value that `percent` of the entries do not exceed.
    fn percentile(&self, least: usize, percent: usize) -> Option<u32> {
        if self.len() < least.max(1) {
            return None;
        }
        let mut values: Vec<u32> = self.iter().copied().collect();
        values.sort_unstable();
        let rank = (values.len() * percent).div_ceil(100).max(1);
        values.get(rank - 1).copied()
    }
}

/// An order that has ended with what it was to do.
#[derive(Clone, Debug)]
struct Filled {
    /// In quote currency.
    notional: Decimal,
    rested: bool,
}

/// An order that was to take at once.
#[derive(Clone, Debug)]
struct Taken {
    /// What it was to take and what it took, at the mid price of the decision.
    wanted: Decimal,
    took: Decimal,
}

/// An order on its way, and the mid price when it was decided.
#[derive(Clone, Debug)]
struct Decision {
    mid: Decimal,
    unit_base: Decimal,
}

/// All counts.
#[derive(Clone, Debug)]
pub struct Meters {
    calls: Window<bool>,
    latencies_ms: Window<u32>,
    orders: Window<bool>,
    disconnects: Window<()>,
    /// Since when each WebSocket is down.
    down: BTreeMap<Link, Duration>,
    /// When the best prices of spot and of the future were last confirmed.
    priced_at: [Duration; 2],
    /// How long the legs have differed, and until when that was counted; None: since then nobody could tell.
    imbalanced_for: Duration,
    imbalanced_at: Option<Duration>,
    decisions: BTreeMap<String, Decision>,
    filled: Window<Filled>,
    taken: Window<Taken>,
    /// Notional and basis points.
    slippage: Window<(Decimal, Decimal)>,
    /// Turns of the engine in each second.
    turns: Window<u32>,
    /// The slowest turn in each second, in milliseconds.
    slowest_ms: Window<u32>,
    turns_now: u32,
    slowest_now: Duration,
}

impl Meters {
    /// Counts at zero; the WebSockets are down.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self {
            calls: Window::of(CALLS),
            latencies_ms: Window::of(CALLS),
            orders: Window::of(HOUR),
            disconnects: Window::of(HOUR),
            down: [(Link::MarketWebSocket, now), (Link::UserWebSocket, now)].into(),
            priced_at: [now; 2],
            imbalanced_for: Duration::ZERO,
            imbalanced_at: None,
            decisions: BTreeMap::new(),
            filled: Window::of(DAY),
            taken: Window::of(DAY),
            slippage: Window::of(HOUR),
            turns: Window::of(MINUTE),
            slowest_ms: Window::of(CALLS),
            turns_now: 0,
            slowest_now: Duration::ZERO,
        }
    }

    /// A call to the exchange ended after so long.
    pub fn called<T>(&mut self, now: Duration, took: Duration, result: &Result<T, ExchangeError>) {
        let failed = match result {
            Ok(_) | Err(ExchangeError::BadRequest { .. } | ExchangeError::NoProduct { .. }) => false,
            // It was not made.
            Err(ExchangeError::NoSession | ExchangeError::CircuitOpen { .. }) => return,
            Err(_) => true,
        };
        self.calls.push(now, failed);
        if !failed {
            self.latencies_ms.push(now, u32::try_from(took.as_millis()).unwrap_or(u32::MAX));
        }
    }

    /// The exchange answered an order, or not.
    pub fn answered(&mut self, now: Duration, result: &Result<Placed, ExchangeError>) {
        match result {
            Ok(Placed::Accepted { .. }) => self.orders.push(now, true),
            Ok(Placed::Rejected { reason, .. }) if reason.ends_with(WOULD_CROSS) => {}
            Ok(Placed::Rejected { .. }) | Err(ExchangeError::BadRequest { .. }) => self.orders.push(now, false),
            Err(_) => {}
        }
    }

    /// A connection came up or was lost.
    pub fn link(&mut self, now: Duration, link: Link, is_down: bool) {
        if link == Link::Rest {
            return;
        }
        if !is_down {
            self.down.remove(&link);
        } else if let Entry::Vacant(up) = self.down.entry(link) {
            up.insert(now);
            self.disconnects.push(now, ());
        }
    }

    /// The best prices of spot (0) or of the future (1) were confirmed.
    pub fn priced(&mut self, now: Duration, leg: usize) {
        if let Some(at) = self.priced_at.get_mut(leg) {
            *at = now;
        }
    }

    /// An order was decided at this mid price.
    pub fn decided(&mut self, client_order_id: &str, mid: Decimal, unit_base: Decimal) {
        if self.decisions.len() >= MOST {
            // Every order ends; this is a bound, no more.
            self.decisions.clear();
        }
        self.decisions.insert(client_order_id.to_owned(), Decision { mid, unit_base });
    }

    /// An order changed; once it has ended it counts.
    pub fn order(&mut self, now: Duration, order: &Order) {
        if !order.state.is_terminal() {
            return;
        }
        let Some(Decision { mid, unit_base }) = self.decisions.remove(&order.order.client_order_id) else { return };
        let reached_the_book = matches!(order.state, State::Venue(status) if status != OrderStatus::Failed);
        if order.class == Class::Kill || !reached_the_book {
            return;
        }
        let rested = matches!(order.order.kind, OrderKind::PostOnly { .. });
        let (wanted, took) = (order.order.size * unit_base * mid, order.filled * unit_base * mid);
        if !order.filled.is_zero() {
            self.filled.push(now, Filled { notional: took, rested });
        }
        if rested {
            return;
        }
        self.taken.push(now, Taken { wanted, took });
        if !order.filled.is_zero() {
            let worse = match order.order.side {
                Side::Buy => order.average_price - mid,
                Side::Sell => mid - order.average_price,
            };
            if let Some(bps) = (worse * Decimal::from(10_000)).checked_div(mid) {
                self.slippage.push(now, (took, bps));
            }
        }
    }

    /// The engine took a turn of so long.
    pub fn turned(&mut self, took: Duration) {
        self.turns_now = self.turns_now.saturating_add(1);
        self.slowest_now = self.slowest_now.max(took);
    }

    /// A second has passed. `is_imbalanced`: whether the legs differ by more than is allowed; None: it cannot be told.
    pub fn second(&mut self, now: Duration, is_imbalanced: Option<bool>) {
        self.turns.push(now, std::mem::take(&mut self.turns_now));
        let slowest = std::mem::take(&mut self.slowest_now).as_millis();
        self.slowest_ms.push(now, u32::try_from(slowest).unwrap_or(u32::MAX));
        match is_imbalanced {
            Some(true) => {
                let before = self.imbalanced_at.replace(now);
                self.imbalanced_for += before.map_or(Duration::ZERO, |before| now.saturating_sub(before));
            }
            Some(false) => (self.imbalanced_for, self.imbalanced_at) = (Duration::ZERO, None),
            // What it is stays as it is: the hour of a closed market is not an hour of a leg that is missing.
            None => self.imbalanced_at = None,
        }
        self.calls.trim(now);
        self.latencies_ms.trim(now);
        self.orders.trim(now);
        self.disconnects.trim(now);
        self.filled.trim(now);
        self.taken.trim(now);
        self.slippage.trim(now);
        self.turns.trim(now);
        self.slowest_ms.trim(now);
    }

    /// Forgets the window of one metric: a person has released a guard of it. What other metrics count goes on.
    pub fn restart(&mut self, metric: GuardMetric) {
        match metric {
            GuardMetric::ErrorRatePercent => self.calls.entries.clear(),
            GuardMetric::ApiLatencyP95Milliseconds => self.latencies_ms.entries.clear(),
            GuardMetric::DisconnectsPerHour => self.disconnects.entries.clear(),
            GuardMetric::OrderSuccessRatePercent => self.orders.entries.clear(),
            GuardMetric::SlippageBps => self.slippage.entries.clear(),
            GuardMetric::FillRatePercent => self.taken.entries.clear(),
            GuardMetric::MakerRatioPercent => self.filled.entries.clear(),
            GuardMetric::EvaluationsPerMinute => self.turns.entries.clear(),
            GuardMetric::LoopLatencyP95Milliseconds | GuardMetric::LoopLatencyP99Milliseconds => {
                self.slowest_ms.entries.clear();
            }
            GuardMetric::LegImbalanceSeconds => {
                (self.imbalanced_for, self.imbalanced_at) = (Duration::ZERO, None);
            }
            // Of this instant, or counted elsewhere.
            _ => {}
        }
    }

    /// Age of the best prices of spot and of the future.
    pub(super) fn price_ages(&self, now: Duration) -> [Duration; 2] {
        self.priced_at.map(|at| now.saturating_sub(at))
    }

    pub(super) fn imbalanced_for(&self) -> Duration {
        self.imbalanced_for
    }

    pub(super) fn down_for(&self, now: Duration) -> Option<Duration> {
        self.down.values().map(|since| now.saturating_sub(*since)).max()
    }

    pub(super) fn disconnects(&self) -> u32 {
        u32::try_from(self.disconnects.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn error_rate_percent(&self) -> Option<Decimal> {
        self.calls.percent(LEAST_CALLS, |failed| *failed)
    }

    pub(super) fn api_latency_p95_ms(&self) -> Option<Decimal> {
        self.latencies_ms.percentile(LEAST_CALLS, 95).map(Decimal::from)
    }

    pub(super) fn order_success_percent(&self) -> Option<Decimal> {
        self.orders.percent(LEAST_ORDERS, |accepted| *accepted)
    }

    pub(super) fn slippage_bps(&self) -> Option<Decimal> {
        if self.slippage.len() < LEAST_TAKES {
            return None;
        }
        let weight: Decimal = self.slippage.iter().map(|(notional, _)| *notional).sum();
        let sum: Decimal = self.slippage.iter().map(|(notional, bps)| notional * bps).sum();
        sum.checked_div(weight)
    }

    pub(super) fn fill_rate_percent(&self) -> Option<Decimal> {
        if self.taken.len() < LEAST_TO_FILL {
            return None;
        }
        let wanted: Decimal = self.taken.iter().map(|taken| taken.wanted).sum();
        let took: Decimal = self.taken.iter().map(|taken| taken.took).sum();
        (took * Decimal::ONE_HUNDRED).checked_div(wanted)
    }

    pub(super) fn maker_ratio_percent(&self) -> Option<Decimal> {
        if self.filled.len() < LEAST_FILLED {
            return None;
        }
        let all: Decimal = self.filled.iter().map(|filled| filled.notional).sum();
        let made: Decimal = self.filled.iter().filter(|filled| filled.rested).map(|filled| filled.notional).sum();
        (made * Decimal::ONE_HUNDRED).checked_div(all)
    }

    pub(super) fn turns_per_minute(&self) -> Option<Decimal> {
        (self.turns.len() >= LEAST_SECONDS).then(|| self.turns.iter().map(|turns| Decimal::from(*turns)).sum())
    }

    pub(super) fn loop_latency_ms(&self, percent: usize) -> Option<Decimal> {
        self.slowest_ms.percentile(LEAST_SECONDS, percent).map(Decimal::from)
    }
}

#[cfg(test)]
mod tests;
