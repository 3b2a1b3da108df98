//! What the books task does in a round: fills first, then what the balance and the hour say, then the hourly point.

mod balance;
mod hours;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use tokio::sync::watch;

use super::account::Account;
use super::balance::Balance;
use super::calendar::last_hour;
use super::fills::{BATCH, Cumulative, Outstanding};
use super::hours::Hours;
use super::{BooksView, News, Shown};
use crate::clock::Clock;
use crate::exchange::Exchange;
use crate::execution::engine::{Identity, Reconciliation, View};
use crate::ledger::{
    Books, DecisionRecord, EquityRecord, FillRecord, FundingRecord, Ledger, OrderRecord, Posting, SettlementRecord,
};
use balance::Booking;

/// Prices of decisions are kept so long for the first fill.
const DECISION_KEPT: Duration = Duration::from_secs(3600);
/// How long equity points are shown.
const EQUITY_SHOWN: SignedDuration = SignedDuration::from_hours(25);

/// The books at work.
pub struct Keeper {
    identity: Identity,
    ledger: Ledger,
    clock: Clock,
    account: Account,
    outstanding: Outstanding,
    decisions: BTreeMap<String, (DecisionRecord, Duration)>,
    /// What was shown and is not yet looked at.
    shown: Option<Shown>,
    /// Base currency in one unit of spot and of the future.
    units: Option<(Decimal, Decimal)>,
    balance: Balance,
    /// What the balance said and the ledger has not confirmed.
    unconfirmed: Option<Booking>,
    hours: Option<Hours>,
    /// Hours accrued since the last settlement.
    accrued: Vec<FundingRecord>,
    settlement: Option<SettlementRecord>,
    /// Changes of the futures position since the hours that are not accrued.
    moves: VecDeque<(Timestamp, Decimal)>,
    /// The last daily settlement that is dealt with, and its price.
    settled_daily: Timestamp,
    price: Option<Decimal>,
    equity: VecDeque<EquityRecord>,
    /// Whether everything that the exchange remembers was known once since the start. Before, the balance may have moved
    /// by fills that nobody has told of.
    is_matched: bool,
    /// The account is behind the ledger: a fill or a daily settlement came late.
    needs_reread: bool,
    problem: Option<String>,
    /// What the log has of it: a line each round would say no more.
    logged: Option<String>,
}

impl Keeper {
    pub fn new(identity: Identity, ledger: Ledger, clock: Clock, books: &Books, orders: &[OrderRecord]) -> Self {
        let (now, boot) = (clock.now(), clock.boottime());
        let mut outstanding = Outstanding::default();
        let mut by_order: BTreeMap<&str, Vec<&FillRecord>> = BTreeMap::new();
        for fill in &books.fills {
            by_order.entry(&fill.order_id).or_default().push(fill);
        }
        for order in orders.iter().filter(|order| order.order_id.is_some() && !order.filled.is_zero()) {
            let said = Cumulative::from(order);
            let booked = by_order.remove(said.order_id.as_str()).unwrap_or_default();
            // Another fee than the fills' own was asked about before: the fills count.
            if booked.iter().map(|fill| fill.size).sum::<Decimal>() != said.filled {
                outstanding.begin(said, booked.into_iter(), boot);
            }
        }
        let began = books.flows.first().map(|flow| flow.at);
        let accrued_until = books.funding.last().map(|hour| hour.hour).max(began.map(last_hour));
        let settlement = books.settlements.last().cloned();
        let paid_until = settlement.as_ref().map(|settlement| settlement.window_end);
        let variation = books.variation.last();
        let shown_since = now.checked_sub(EQUITY_SHOWN).unwrap_or(now);
        let mut keeper = Self {
            account: Account::until(books, &identity.future_product, Timestamp::MAX),
            balance: Balance::resumed(began.map(|_| books.flows.iter().map(|flow| flow.quote).sum())),
            unconfirmed: None,
            hours: accrued_until.map(Hours::after),
            accrued: books.funding.iter().filter(|hour| Some(hour.hour) > paid_until).cloned().collect(),
            settlement,
            moves: VecDeque::new(),
            settled_daily: variation.map(|variation| variation.at).max(began).unwrap_or(now),
            price: variation.map(|variation| variation.price),
            equity: books.equity.iter().filter(|point| point.at >= shown_since).cloned().collect(),
            identity,
            ledger,
            clock,
            outstanding,
            decisions: BTreeMap::new(),
            shown: None,
            units: None,
            is_matched: false,
            needs_reread: false,
            problem: None,
            logged: None,
        };
        // What is older than the oldest moment that can still be asked about counts as held all the time.
        let asked_about = accrued_until.into_iter().chain([keeper.settled_daily]).min().unwrap_or(now);
        for fill in books.fills.iter().filter(|fill| fill.at >= asked_about) {
            keeper.moved(fill);
        }
        keeper
    }

    /// Takes news in. The fills of an order that was not looked after are read from the ledger.
    pub async fn hear(&mut self, news: News) {
        let boot = self.clock.boottime();
        match news {
            News::Decision(decision) => {
                self.decisions.insert(decision.client_order_id.clone(), (decision, boot));
            }
            News::Order(said) if self.outstanding.knows(&said.order_id) => self.outstanding.hear(&said, boot),
            News::Order(said) => match self.ledger.fills_of(&said.order_id).await {
                Ok(booked) => self.outstanding.begin(said, booked.iter(), boot),
                Err(error) => {
                    // With nothing booked the history is asked, and what is there already changes nothing.
                    tracing::warn!(reason = error.reason(), %error, "an order's fills cannot be read from the ledger");
                    self.outstanding.begin(said, std::iter::empty(), boot);
                }
            },
        }
    }

    pub fn see(&mut self, shown: Shown) {
        self.units = Some((shown.spot.unit_base, shown.future.unit_base));
        self.shown = Some(shown);
    }

    pub async fn round<E: Exchange>(&mut self, exchange: Option<&E>, engine: &watch::Receiver<View>) {
        let (now, boot) = (self.clock.now(), self.clock.boottime());
        let view = engine.borrow().clone();
        let knows_all = view.seen_exchange && view.unknown_orders == 0;
        self.is_matched |= knows_all && view.reconciliation == Reconciliation::Matches;
        self.outstanding.forget(boot);
        self.decisions.retain(|_, (_, at)| boot < *at + DECISION_KEPT);
        self.problem = self.outstanding.problem(boot);
        if let Some(problem) = self.problem.as_ref().filter(|problem| self.logged.as_ref() != Some(problem)) {
            tracing::warn!("the books do not add up: {problem}");
        }
        self.logged.clone_from(&self.problem);
        if let Some(exchange) = exchange {
            self.read_fills(exchange).await;
        }
        self.reread().await;
        if !self.needs_reread
            && let Some(shown) = self.shown.take()
        {
            self.daily_settlement(&shown, now).await;
            self.accrue(&shown, now).await;
            if self.is_matched {
                self.compare(&shown).await;
            }
        }
        self.point(&view, now).await;
    }

    /// Reads the fills that are not booked yet, and books them in one transaction.
    async fn read_fills<E: Exchange>(&mut self, exchange: &E) {
        let Some((spot, future)) = self.units else { return };
        loop {
            let boot = self.clock.boottime();
            let ids = self.outstanding.due(boot);
            if ids.is_empty() {
                return;
            }
            let shown = match exchange.fills(&ids).await {
                Ok(shown) => shown,
                Err(error) => {
                    tracing::info!(%error, orders = ids.len(), "fills cannot be read; they are asked for again");
                    return;
                }
            };
            let record = |(fill, id): (crate::exchange::Fill, String)| {
                let unit = if fill.product == self.identity.future_product { future } else { spot };
                FillRecord::new(fill, id, unit)
            };
            let mut fills: Vec<_> = self.outstanding.news(shown).into_iter().map(record).collect();
            fills.sort_by_cached_key(crate::ledger::fill_order);
            if !fills.is_empty() && !self.book_fills(fills).await {
                return;
            }
            if ids.len() < BATCH {
                return;
            }
        }
    }

    async fn book_fills(&mut self, fills: Vec<FillRecord>) -> bool {
        let decided = fills.iter().filter_map(|fill| self.decisions.get(&fill.client_order_id));
        let mut postings: Vec<_> = decided.map(|(decision, _)| Posting::Decision(decision.clone())).collect();
        postings.dedup();
        postings.extend(fills.iter().cloned().map(Posting::Fill));
        if !self.post(postings).await {
            return false;
        }
        self.outstanding.booked(&fills, self.clock.boottime());
        self.needs_reread |= fills.first().is_some_and(|first| self.account.is_late(first));
        // A settlement of the day that this fill was to be in, with what it made of the position, is looked at again.
        let future = fills.iter().find(|fill| fill.product == self.identity.future_product);
        if let Some(first) = future.filter(|first| first.at < self.settled_daily) {
            (self.settled_daily, self.needs_reread) = (first.at, true);
        }
        for fill in &fills {
            self.moved(fill);
            self.decisions.remove(&fill.client_order_id);
            if !self.needs_reread {
                self.account.fill(fill);
            }
        }
        true
    }

    /// Makes the account anew from the ledger if something came late; asked for again until the ledger answers.
    async fn reread(&mut self) {
        if !self.needs_reread {
            return;
        }
        match self.ledger.books().await {
            Ok((books, _)) => {
                self.account = Account::until(&books, &self.identity.future_product, Timestamp::MAX);
                self.needs_reread = false;
            }
            Err(error) => {
                tracing::warn!(reason = error.reason(), %error, "the books cannot be read again; it is tried again");
                self.problem = Some(error.to_string());
            }
        }
    }

    fn moved(&mut self, fill: &FillRecord) {
        if fill.product == self.identity.future_product {
            self.moves.push_back((fill.at, fill.signed()));
        }
    }

    /// The hourly point, at the first moment of an hour at which both legs have a price.
    async fn point(&mut self, view: &View, now: Timestamp) {
        let done = self.equity.back().is_some_and(|last| last_hour(last.at) == last_hour(now));
        let (Some((spot_mid, future_mid)), Some(pnl), false) = (view.mids, view.pnl_quote, done) else { return };
        let funding_quote = self.funding_quote();
        let point = EquityRecord {
            at: now,
            equity_quote: pnl + funding_quote,
            cash_quote: view.cash_quote,
            funding_quote,
            fees_quote: view.fees_quote,
            spot_base: view.spot_owned_base,
            spot_mid,
            contracts: view.future_owned_contracts,
            future_mid,
        };
        if self.post(vec![Posting::Equity(point.clone())]).await {
            self.equity.push_back(point);
            while self.equity.front().is_some_and(|first| now.duration_since(first.at) > EQUITY_SHOWN) {
                self.equity.pop_front();
            }
        }
    }

    fn funding_quote(&self) -> Decimal {
        self.account.settled_quote + self.accrued_quote()
    }

    fn accrued_quote(&self) -> Decimal {
        self.accrued.iter().map(|hour| hour.accrued_quote).sum()
    }

    /// Writes; false where the disk fails. The next round does the same again.
    async fn post(&mut self, postings: Vec<Posting>) -> bool {
        match self.ledger.post(postings).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(reason = error.reason(), %error, "the books are not written; it is tried again");
                self.problem = Some(error.to_string());
                false
            }
        }
    }

    pub fn view(&self) -> BooksView {
        BooksView {
            is_read: true,
            funding_quote: self.funding_quote(),
            accrued_quote: self.accrued_quote(),
            settlement: self.settlement.clone(),
            trips: u64::try_from(self.account.trips().len()).unwrap_or(u64::MAX),
            last_trip: self.account.trips().last().cloned(),
            equity: self.equity.iter().cloned().collect(),
            outstanding: self.outstanding.count(),
            problem: self.problem.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
