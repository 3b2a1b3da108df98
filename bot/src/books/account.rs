//! Cash, positions and round trips, as fills, funding and daily settlements make them. Pure.
//!
//! Realised profit is by average cost: a fill that lowers a position gives up its share of the entry value of what was
//! held. Divisions are rounded to ten decimals, and the last part of a position takes what is left, so that no rounding
//! creates or destroys money.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use rust_decimal::{Decimal, dec};

use crate::ledger::{Books, FillRecord, FundingRecord, VariationRecord, fill_order};

/// Spot worth less than this counts as flat: no product takes an order of less.
pub const DUST_QUOTE: Decimal = dec!(2);

/// One leg.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leg {
    /// Signed, in the product's own unit.
    pub held: Decimal,
    pub unit_base: Decimal,
    /// Signed entry value of what is held, at average cost.
    pub entry_quote: Decimal,
    /// The same at the price of the last daily settlement where there was one: what the exchange still owes or is owed
    /// for the position is its value less this.
    pub carried_quote: Decimal,
    pub realized_quote: Decimal,
    pub last_price: Decimal,
}

impl Leg {
    /// Value of what is held, at a price.
    #[must_use]
    pub fn value_quote(&self, price: Decimal) -> Decimal {
        self.held * self.unit_base * price
    }

    /// Gain or loss of what is held, at a price.
    #[must_use]
    pub fn unrealized_quote(&self, price: Decimal) -> Decimal {
        self.value_quote(price) - self.entry_quote
    }

    fn fill(&mut self, fill: &FillRecord) {
        let (signed, value) = (fill.signed(), fill.side.sign() * fill.value_quote());
        (self.unit_base, self.last_price) = (fill.unit_base, fill.price);
        let lowers = !self.held.is_zero() && self.held.is_sign_positive() != signed.is_sign_positive();
        if !lowers {
            return self.raise(signed, value);
        }
        let closing = fill.size.min(self.held.abs());
        let closing_value = share(value, closing, fill.size);
        let whole = self.held.abs();
        let (entry, carried) = (share(self.entry_quote, closing, whole), share(self.carried_quote, closing, whole));
        self.realized_quote -= closing_value + entry;
        self.entry_quote -= entry;
        self.carried_quote -= carried;
        self.held += fill.side.sign() * closing;
        if fill.size > closing {
            self.raise(fill.side.sign() * (fill.size - closing), value - closing_value);
        }
    }

    fn raise(&mut self, signed: Decimal, value: Decimal) {
        self.held += signed;
        self.entry_quote += value;
        self.carried_quote += value;
    }
}

/// The share of `value` that `part` of `whole` has.
fn share(value: Decimal, part: Decimal, whole: Decimal) -> Decimal {
    if part == whole {
        return value;
    }
    let exact = value.checked_mul(part).and_then(|product| product.checked_div(whole));
    exact.unwrap_or_else(|| value * part.checked_div(whole).unwrap_or_default()).round_dp(10)
}

/// From the first fill after the bot was flat until it is flat again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoundTrip {
    pub opened_at: Timestamp,
    pub closed_at: Timestamp,
    /// What it brought: fills, fees and the funding that accrued.
    pub result_quote: Decimal,
    pub fees_quote: Decimal,
    pub funding_quote: Decimal,
    pub fills: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Trip {
    opened_at: Timestamp,
    /// Net cash and the value of the dust when it began.
    before_quote: Decimal,
    fees_before_quote: Decimal,
    funding_quote: Decimal,
    fills: u64,
    /// Whether anything but dust was held in it.
    held: bool,
}

/// What the bot owns and what it cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    future: String,
    legs: BTreeMap<String, Leg>,
    /// What the fills brought in, fees excluded.
    pub cash_quote: Decimal,
    pub fees_quote: Decimal,
    /// Funding paid.
    pub settled_quote: Decimal,
    trip: Option<Trip>,
    trips: Vec<RoundTrip>,
    /// The newest fill: an older one that comes late belongs before it.
    newest: Option<(Timestamp, usize, String)>,
}

impl Account {
    /// An account without anything; the other product is spot.
    #[must_use]
    pub fn new(future: &str) -> Self {
        Self {
            future: future.to_owned(),
            legs: BTreeMap::new(),
            cash_quote: Decimal::ZERO,
            fees_quote: Decimal::ZERO,
            settled_quote: Decimal::ZERO,
            trip: None,
            trips: Vec::new(),
            newest: None,
        }
    }

    /// The account that these books describe up to a moment, which is not in it.
    #[must_use]
    pub fn until(books: &Books, future: &str, end: Timestamp) -> Self {
        let mut account = Self::new(future);
        let mut fills = books.fills.iter().take_while(|fill| fill.at < end).peekable();
        let variation = books.variation.iter().map(|variation| (variation.at, Event::Variation(variation)));
        let funding = books.funding.iter().map(|hour| (hour.hour, Event::Funding(hour)));
        let mut events: Vec<_> = variation.chain(funding).filter(|(at, _)| *at <= end).collect();
        events.sort_by_key(|(at, _)| *at);
        for (at, event) in events {
            while let Some(fill) = fills.next_if(|fill| fill.at < at) {
                account.fill(fill);
            }
            match event {
                Event::Variation(variation) => account.variation(variation),
                Event::Funding(hour) => account.funding(hour),
            }
        }
        fills.for_each(|fill| account.fill(fill));
        let paid = books.settlements.iter().filter(|settlement| settlement.window_end <= end);
        account.settled_quote = paid.map(|settlement| settlement.settled_quote).sum();
        account
    }

    /// Takes a fill in. Fills are to come in the order of [`fill_order`]; see [`Self::is_late`].
    pub fn fill(&mut self, fill: &FillRecord) {
        let was_flat = self.is_flat();
        if was_flat && self.trip.as_ref().is_none_or(|trip| trip.held) {
            self.trip = Some(Trip {
                opened_at: fill.at,
                before_quote: self.net_quote() + self.dust_quote(),
                fees_before_quote: self.fees_quote,
                funding_quote: Decimal::ZERO,
                fills: 0,
                held: false,
            });
        }
        let unit_cash = -fill.side.sign() * fill.value_quote();
        self.legs.entry(fill.product.clone()).or_default().fill(fill);
        self.cash_quote += unit_cash;
        self.fees_quote += fill.fee_quote;
        self.newest = self.newest.take().max(Some(fill_order(fill)));
        let flat = self.is_flat();
        let Some(trip) = &mut self.trip else { return };
        trip.fills += 1;
        trip.held |= !flat;
        if flat && trip.held {
            let (trip, after) = (trip.clone(), self.net_quote() + self.dust_quote());
            self.trip = None;
            self.trips.push(RoundTrip {
                opened_at: trip.opened_at,
                closed_at: fill.at,
                result_quote: after - trip.before_quote + trip.funding_quote,
                fees_quote: self.fees_quote - trip.fees_before_quote,
                funding_quote: trip.funding_quote,
                fills: trip.fills,
            });
        }
    }

    /// Whether a fill is older than one that is in already: the account is then to be made anew.
    #[must_use]
    pub fn is_late(&self, fill: &FillRecord) -> bool {
        self.newest.as_ref().is_some_and(|newest| fill_order(fill) < *newest)
    }

    /// Whether a moment is before a fill that is in already.
    #[must_use]
    pub fn is_past(&self, at: Timestamp) -> bool {
        self.newest.as_ref().is_some_and(|newest| at <= newest.0)
    }

    /// Lets an hour's funding count for the round trip in which it accrued.
    pub fn funding(&mut self, hour: &FundingRecord) {
        if let Some(trip) = self.trip.as_mut().filter(|trip| trip.opened_at < hour.hour) {
            trip.funding_quote += hour.accrued_quote;
        } else if let Some(trip) = self.trips.last_mut()
            && trip.opened_at < hour.hour
            && hour.hour <= trip.closed_at
        {
            trip.funding_quote += hour.accrued_quote;
            trip.result_quote += hour.accrued_quote;
        }
    }

    /// The exchange pays out the gain or loss up to a price, and the position goes on from there.
    pub fn variation(&mut self, variation: &VariationRecord) {
        if let Some(leg) = self.legs.get_mut(&variation.product) {
            leg.carried_quote = leg.value_quote(variation.price);
        }
    }

    /// One leg; None: no fill of it.
    #[must_use]
    pub fn leg(&self, product: &str) -> Option<&Leg> {
        self.legs.get(product)
    }

    /// Both legs by product.
    pub fn legs(&self) -> impl Iterator<Item = (&String, &Leg)> {
        self.legs.iter()
    }

    /// Signed position in the product's own unit.
    #[must_use]
    pub fn held(&self, product: &str) -> Decimal {
        self.legs.get(product).map_or(Decimal::ZERO, |leg| leg.held)
    }

    /// Fills' cash less fees.
    #[must_use]
    pub fn net_quote(&self) -> Decimal {
        self.cash_quote - self.fees_quote
    }

    /// What the balance of the exchange shows more than before the first fill, if nobody else moves it: the entry value of
    /// a future is not paid, only its daily settlement is.
    #[must_use]
    pub fn balance_quote(&self) -> Decimal {
        self.net_quote()
            + self.settled_quote
            + self.legs.get(&self.future).map_or(Decimal::ZERO, |leg| leg.carried_quote)
    }

    /// Realised profit of both legs, fees and funding left out.
    #[must_use]
    pub fn realized_quote(&self) -> Decimal {
        self.legs.values().map(|leg| leg.realized_quote).sum()
    }

    /// Round trips that ended, oldest first.
    #[must_use]
    pub fn trips(&self) -> &[RoundTrip] {
        &self.trips
    }

    /// Whether nothing is held but spot that is too little to be sold.
    #[must_use]
    pub fn is_flat(&self) -> bool {
        self.legs.iter().all(|(product, leg)| {
            leg.held.is_zero() || (*product != self.future && leg.value_quote(leg.last_price).abs() < DUST_QUOTE)
        })
    }

    /// Value of the spot that is held, at its last price; only while flat is it dust.
    fn dust_quote(&self) -> Decimal {
        let spot = self.legs.iter().filter(|(product, _)| **product != self.future);
        spot.map(|(_, leg)| leg.value_quote(leg.last_price)).sum()
    }
}

enum Event<'a> {
    Variation(&'a VariationRecord),
    Funding(&'a FundingRecord),
}

#[cfg(test)]
mod tests;
