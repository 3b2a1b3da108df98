//! What a period brought, computed from the ledger alone. Pure.
//!
//! Definitions: equity is the hourly point of the books (owned only, flows excluded). Profit is the difference of the
//! equity at both ends: of the point that each end of the period is nearest to (see [`Curve`]), and its parts are of the
//! time between the same two points. Sharpe is mean by standard deviation of the hourly changes of equity, for a year (× √8760):
//! of those that are an hour's, no longer and no shorter (see [`hourly_changes`]).
//! Drawdown is the largest fall from a peak of the period. Slippage is measured against the middle of the best prices at
//! the decision; a maker's is negative: it earns the half spread.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rust_decimal::{Decimal, dec};

use super::account::{Account, RoundTrip};
use super::calendar::{HOUR, last_hour};
use super::performance;
use crate::exchange::Liquidity;
use crate::ledger::{Books, EquityRecord, FillRecord, Quality, SettlementRecord};

const HOURS_OF_A_YEAR: Decimal = dec!(8760);
/// Changes of equity below which a ratio to their deviation says nothing.
const LEAST_CHANGES: usize = 24;
/// How much longer or shorter than an hour the time between two points may be whose change counts as one hour's.
const NEARLY: SignedDuration = SignedDuration::from_mins(5);
const BPS: Decimal = dec!(10_000);

/// A period; its end is not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    pub from: Timestamp,
    pub to: Timestamp,
}

impl Period {
    fn contains(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.to
    }

    /// Contains the end of an hour or of a settlement, which belongs to what came before it.
    fn covers(&self, end: Timestamp) -> bool {
        self.from < end && end <= self.to
    }
}

/// Average, largest and smallest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    pub average: Decimal,
    pub max: Decimal,
    pub min: Decimal,
}

impl Spread {
    fn of(values: &[Decimal]) -> Option<Self> {
        let (max, min) = (values.iter().max()?, values.iter().min()?);
        let average = values.iter().sum::<Decimal>().checked_div(Decimal::from(values.len()))?;
        Some(Self { average, max: *max, min: *min })
    }
}

/// Funding of a period.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Funding {
    /// Rates of the hours in which a position was held and the rate was seen.
    pub rate: Option<Spread>,
    pub hours_observed: usize,
    pub hours_missing: usize,
    pub accrued_quote: Decimal,
    pub settled_quote: Decimal,
    /// Settled beyond what was estimated for the same hours.
    pub adjustment_quote: Decimal,
    pub settlements: Vec<SettlementRecord>,
}

/// What a period brought. None: too little is known for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub period: Period,
    /// Between which two points of equity the profit and its parts are measured. None: there are no two; realised profit
    /// and fees are then those of the period.
    pub measured: Option<Period>,
    /// All of it: realised, unrealised, funding, less fees.
    pub profit_quote: Option<Decimal>,
    pub realized_quote: Decimal,
    /// What the value of the position changed by beyond what was realised.
    pub unrealized_quote: Option<Decimal>,
    /// Accrued, and paid beyond what had accrued.
    pub funding_quote: Option<Decimal>,
    pub fees_quote: Decimal,
    /// Funding that accrued and was paid in the period itself.
    pub funding: Funding,
    /// The largest value that a leg had in the period.
    pub deployed_quote: Decimal,
    pub sharpe: Option<Decimal>,
    pub max_drawdown_quote: Option<Decimal>,
    pub trips: Vec<RoundTrip>,
    pub orders_filled: usize,
    pub fills: usize,
    /// Share of the value that was filled as maker.
    pub maker_percent: Option<Decimal>,
    /// In basis points of the value of the fills whose decision is known.
    pub slippage_estimated_bps: Option<Decimal>,
    pub slippage_realized_bps: Option<Decimal>,
    pub slippage_quote: Decimal,
    /// Hours that have an equity point: in the others the bot did not run, or had no prices.
    pub hours_recorded: usize,
    pub hours: usize,
}

impl Summary {
    /// The summary of a period.
    #[must_use]
    pub fn of(books: &Books, future: &str, period: Period) -> Self {
        let fills: Vec<&FillRecord> = books.fills.iter().filter(|fill| period.contains(fill.at)).collect();
        let points: Vec<&EquityRecord> = books.equity.iter().filter(|point| period.contains(point.at)).collect();
        let curve = Curve::of(books, period);
        let equity: Vec<Decimal> = curve.points.iter().map(|point| point.equity_quote).collect();
        let ends = curve.ends();
        let measured = ends.map(|(first, last)| Period { from: first.at, to: last.at });
        let of = measured.unwrap_or(period);
        let (before, after) = (Account::until(books, future, of.from), Account::until(books, future, of.to));
        let realized_quote = after.realized_quote() - before.realized_quote();
        // Of the points, fees and funding are what was known when their equity was taken.
        let change = |of: fn(&EquityRecord) -> Decimal| ends.map(|(first, last)| of(last) - of(first));
        let profit_quote = change(|point| point.equity_quote);
        let funding_quote = change(|point| point.funding_quote);
        let fees_quote = change(|point| point.fees_quote).unwrap_or(after.fees_quote - before.fees_quote);
        let trips = Account::until(books, future, period.to);
        let slippage = Slippage::of(books, &fills);
        let mut orders: Vec<&str> = fills.iter().map(|fill| fill.order_id.as_str()).collect();
        orders.sort_unstable();
        orders.dedup();
        let hours = period.to.duration_since(period.from).as_hours();
        Self {
            period,
            measured,
            profit_quote,
            realized_quote,
            unrealized_quote: profit_quote
                .zip(funding_quote)
                .map(|(all, funding)| all - realized_quote + fees_quote - funding),
            funding_quote,
            fees_quote,
            deployed_quote: deployed(&points, contract_base(books, future)),
            sharpe: sharpe(&hourly_changes(curve.points)),
            max_drawdown_quote: ends.map(|_| performance::max_drawdown(&equity)),
            trips: trips.trips().iter().filter(|trip| period.contains(trip.closed_at)).cloned().collect(),
            orders_filled: orders.len(),
            fills: fills.len(),
            maker_percent: maker_percent(&fills),
            slippage_estimated_bps: slippage.bps(slippage.estimated_quote),
            slippage_realized_bps: slippage.bps(slippage.realized_quote),
            slippage_quote: slippage.realized_quote,
            hours_recorded: recorded(&points),
            hours: usize::try_from(hours).unwrap_or_default(),
            funding: funding(books, period),
        }
    }

    /// Round trips that lost.
    pub fn losing(&self) -> impl Iterator<Item = &RoundTrip> {
        self.trips.iter().filter(|trip| trip.result_quote < Decimal::ZERO)
    }

    /// Share of the round trips that did not lose.
    #[must_use]
    pub fn win_percent(&self) -> Option<Decimal> {
        let won = self.trips.len() - self.losing().count();
        percent(Decimal::from(won), Decimal::from(self.trips.len()))
    }
}

/// The points of equity that a period is measured by.
///
/// A point lies at the first moment of its hour at which there are prices. An end of the period has the point of the hour
/// that begins there; without one (the bot did not run, or the hour has not come) the last point before it. So the
/// measured spans of periods that follow each other follow each other, too.
struct Curve<'a> {
    points: &'a [EquityRecord],
}

impl<'a> Curve<'a> {
    fn of(books: &'a Books, period: Period) -> Self {
        let of_hour = |end: Timestamp| {
            let first = books.equity.partition_point(|point| point.at < end);
            let is_there = books.equity.get(first).is_some_and(|point| last_hour(point.at) == last_hour(end));
            if is_there { Some(first) } else { first.checked_sub(1) }
        };
        // The books' first point is the beginning of everything.
        let (first, last) = (of_hour(period.from).unwrap_or_default(), of_hour(period.to));
        Self { points: last.and_then(|last| books.equity.get(first..=last)).unwrap_or_default() }
    }

    /// First and last point, if they are two.
    fn ends(&self) -> Option<(&'a EquityRecord, &'a EquityRecord)> {
        match self.points {
            [first, .., last] => Some((first, last)),
            _ => None,
        }
    }
}

fn funding(books: &Books, period: Period) -> Funding {
    let hours: Vec<_> = books.funding.iter().filter(|hour| period.covers(hour.hour)).collect();
    let observed: Vec<_> =
        hours.iter().filter(|hour| hour.quality == Quality::Observed).map(|hour| hour.rate).collect();
    let paid = books.settlements.iter().filter(|settlement| period.covers(settlement.window_end));
    let settlements: Vec<_> = paid.cloned().collect();
    Funding {
        rate: Spread::of(&observed),
        hours_observed: observed.len(),
        hours_missing: hours.len() - observed.len(),
        accrued_quote: hours.iter().map(|hour| hour.accrued_quote).sum(),
        settled_quote: settlements.iter().map(|settlement| settlement.settled_quote).sum(),
        adjustment_quote: settlements.iter().map(SettlementRecord::adjustment_quote).sum(),
        settlements,
    }
}

/// Base currency in a contract. Of all fills: a position that is held through the period has none in it.
fn contract_base(books: &Books, future: &str) -> Decimal {
    let last = books.fills.iter().rfind(|fill| fill.product == future);
    last.map(|fill| fill.unit_base).unwrap_or_default()
}

fn deployed(points: &[&EquityRecord], contract_base: Decimal) -> Decimal {
    let spot = points.iter().map(|point| (point.spot_base * point.spot_mid).abs());
    let futures = points.iter().map(|point| (point.contracts * contract_base * point.future_mid).abs());
    spot.chain(futures).max().unwrap_or_default()
}

/// What the equity changed by from each hour to the next. Without the hours between, or with a point late in its hour, a
/// change is of another length, and its deviation is not to be taken for an hour's.
fn hourly_changes(points: &[EquityRecord]) -> Vec<Decimal> {
    let change = |pair: &[EquityRecord]| {
        let [before, after] = pair else { return None };
        let follows = last_hour(after.at).duration_since(last_hour(before.at)) == HOUR;
        let is_an_hour = (after.at.duration_since(before.at) - HOUR).abs() <= NEARLY;
        (follows && is_an_hour).then(|| after.equity_quote - before.equity_quote)
    };
    points.windows(2).filter_map(change).collect()
}

fn sharpe(changes: &[Decimal]) -> Option<Decimal> {
    if changes.len() < LEAST_CHANGES {
        return None;
    }
    Some(performance::sharpe(changes, HOURS_OF_A_YEAR)?.round_dp(4))
}

fn maker_percent(fills: &[&FillRecord]) -> Option<Decimal> {
    let value = |of: &dyn Fn(&FillRecord) -> bool| -> Decimal {
        fills.iter().filter(|fill| of(fill)).map(|fill| fill.value_quote()).sum()
    };
    percent(value(&|fill| fill.liquidity == Liquidity::Maker), value(&|_| true))
}

fn percent(part: Decimal, whole: Decimal) -> Option<Decimal> {
    (part * Decimal::ONE_HUNDRED).checked_div(whole).map(|percent| percent.round_dp(2))
}

fn recorded(points: &[&EquityRecord]) -> usize {
    let mut hours: Vec<_> = points.iter().map(|point| last_hour(point.at)).collect();
    hours.dedup();
    hours.len()
}

#[derive(Default)]
struct Slippage {
    value_quote: Decimal,
    estimated_quote: Decimal,
    realized_quote: Decimal,
}

impl Slippage {
    fn of(books: &Books, fills: &[&FillRecord]) -> Self {
        let mut all = Self::default();
        for fill in fills {
            let Some(decision) = books.decisions.get(&fill.client_order_id) else { continue };
            let units = fill.signed() * fill.unit_base;
            all.value_quote += units.abs() * decision.mid;
            all.estimated_quote += units * (decision.expected_price - decision.mid);
            all.realized_quote += units * (fill.price - decision.mid);
        }
        all
    }

    fn bps(&self, quote: Decimal) -> Option<Decimal> {
        (quote * BPS).checked_div(self.value_quote).map(|bps| bps.round_dp(2))
    }
}

/// So many times 24 hours that end at a moment.
#[must_use]
pub fn ending(to: Timestamp, days: i64) -> Period {
    let from = to.checked_sub(SignedDuration::from_hours(24 * days)).unwrap_or(to);
    Period { from, to }
}

/// The end of the hour that runs.
#[must_use]
pub fn now_inclusive(now: Timestamp) -> Timestamp {
    last_hour(now).checked_add(HOUR).unwrap_or(now)
}

#[cfg(test)]
mod tests;
