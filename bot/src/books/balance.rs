//! What the balance says beyond the bot's own fills: funding that was paid, and money of others. Pure.
//!
//! External money = balance − (fills' cash − fees + funding booked + entry value of the future that the exchange carries).
//! It changes only when funding is paid or somebody moves money. A reading counts when two in a row are the same and show
//! the positions that the books have: then no fill lies between its parts.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rust_decimal::{Decimal, dec};

use super::account::Account;
use super::calendar::last_funding_payment;
use crate::ledger::{FundingRecord, Quality};

/// How long a payment is waited for.
pub const PAID_WITHIN: SignedDuration = SignedDuration::from_mins(30);
/// Readings in a row after which another amount of spot that is not the bot's is taken for what it is.
const ANOTHER_OFFSET: u32 = 30;

/// A payment of more than so many times what accrued is not the bot's funding alone: estimates are nearer than that.
const MOST_OF_ACCRUED: Decimal = dec!(3);
/// Rate by which an hour is bounded that nobody saw. The exchange documents no highest one; this is half as much again as
/// the 0.2 % to which the simulator spikes, many times what was ever recorded.
const HIGHEST_RATE: Decimal = dec!(0.003);

/// A change of so little is none: two wallets are shown with eight decimals each, and shares of an entry value are rounded
/// to ten, for each of some hundred fills. What is booked is always the difference to everything booked before, so these
/// do not add up.
const ROUNDING: Decimal = dec!(0.000001);

/// What the exchange showed at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    pub at: Timestamp,
    /// Quote currency of both wallets, holds included.
    pub quote: Decimal,
    /// Base currency of the spot product.
    pub base: Decimal,
    /// Signed contracts of the future.
    pub contracts: Decimal,
}

impl Reading {
    fn shows(&self) -> (Decimal, Decimal, Decimal) {
        (self.quote, self.base, self.contracts)
    }
}

/// What a reading means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Funding was paid, or within [`PAID_WITHIN`] was not: zero.
    Settled { window_end: Timestamp, quote: Decimal },
    /// Money that came or went without the bot; the first time, all that is there.
    Flow { quote: Decimal },
}

/// What the balance moved by when funding was due, told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// The bot's funding.
    pub settled_quote: Decimal,
    /// Money of others.
    pub rest_quote: Decimal,
    /// Why it is not all the bot's; the funding is then the estimate.
    pub doubt: Option<String>,
}

impl Payment {
    /// Tells it apart: the hours that were due, a price for those of which no mark was seen, and the futures that others
    /// hold on the account, whose funding comes in the same moment.
    #[must_use]
    pub fn of(moved_quote: Decimal, hours: &[&FundingRecord], price: Decimal, others: &[&str]) -> Self {
        let accrued: Decimal = hours.iter().map(|hour| hour.accrued_quote).sum();
        let missing = hours.iter().filter(|hour| hour.quality == Quality::Missing);
        let unseen: Decimal = missing.map(|hour| (hour.contracts * hour.unit_base * price).abs() * HIGHEST_RATE).sum();
        let seen: Decimal = hours.iter().map(|hour| hour.accrued_quote.abs()).sum();
        let most = (seen * MOST_OF_ACCRUED + unseen).max(ROUNDING);
        let doubt = if moved_quote.is_zero() {
            None
        } else if !others.is_empty() {
            Some(format!("the account holds futures that are not this bot's ({})", others.join(", ")))
        } else {
            (moved_quote.abs() > most).then(|| format!("funding of these hours is {most} at most"))
        };
        let settled_quote = if doubt.is_some() { accrued } else { moved_quote };
        Self { settled_quote, rest_quote: moved_quote - settled_quote, doubt }
    }
}

/// Funding that waits to be paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accrued {
    /// End of the last hour that was accrued.
    pub until: Timestamp,
    /// End of the first hour in which a position was held and that no settlement has; None: there is none.
    pub first: Option<Timestamp>,
}

/// The balance as far as it is understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// None: nothing was read yet.
    external: Option<Decimal>,
    /// Spot on the account that is not the bot's.
    offset: Option<Decimal>,
    offset_differs: u32,
    last: Option<Reading>,
}

impl Balance {
    /// Goes on with what the books have booked of external money; None: nothing yet.
    #[must_use]
    pub fn resumed(external: Option<Decimal>) -> Self {
        Self { external, ..Self::default() }
    }

    /// Whether the books have begun.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.external.is_some()
    }

    /// Whether it is known what spot of the account is not the bot's: a reading before the newest fill then shows.
    #[must_use]
    pub fn is_compared(&self) -> bool {
        self.offset.is_some()
    }

    /// Takes a reading, and tells what it means if anything changed. Once that is written, say so with
    /// [`Self::booked`].
    pub fn read(
        &mut self,
        reading: Reading,
        account: &Account,
        (spot, future): (&str, &str),
        accrued: Accrued,
    ) -> Option<Change> {
        let before = self.last.replace(reading.clone())?;
        if before.shows() != reading.shows() || reading.contracts != account.held(future) {
            return None;
        }
        let offset = reading.base - account.held(spot);
        if *self.offset.get_or_insert(offset) != offset {
            // A fill that the books do not have yet, or somebody moved spot.
            self.offset_differs += 1;
            if self.offset_differs < ANOTHER_OFFSET {
                return None;
            }
            self.offset = Some(offset);
        }
        self.offset_differs = 0;
        let external = reading.quote - account.balance_quote();
        let Some(known) = self.external else { return Some(Change::Flow { quote: external }) };
        let change = external - known;
        let quote = if change.abs() > ROUNDING { change } else { Decimal::ZERO };
        // The earlier of the two readings: what was due after it may not be in it.
        let window_end = last_funding_payment(before.at);
        // Before its last hour is accrued nobody knows whether funding is due: the position may be younger than an hour.
        if accrued.until < window_end {
            return None;
        }
        let is_due = accrued.first.is_some_and(|first| first <= window_end);
        if !is_due {
            return (!quote.is_zero()).then_some(Change::Flow { quote });
        }
        let is_overdue = before.at.duration_since(window_end) >= PAID_WITHIN;
        (!quote.is_zero() || is_overdue).then_some(Change::Settled { window_end, quote })
    }

    /// The books have this money of others now, too.
    pub fn booked(&mut self, flow_quote: Decimal) {
        self.external = Some(self.external.unwrap_or_default() + flow_quote);
    }
}

#[cfg(test)]
mod tests;
