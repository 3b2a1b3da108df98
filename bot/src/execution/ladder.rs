//! The slippage ladder of what only lowers a leg. No limit denies such an order (SAFETY §2): an attempt that fills nothing
//! is followed by one that may go further from the mid price.

use std::time::Duration;

use rust_decimal::{Decimal, dec};

use crate::exchange::{OrderKind, Side, Touch};
use crate::execution::grid::taking_price;
use crate::risk::exposure::Leg;

/// Pause after an attempt that filled nothing.
const RETRY: Duration = Duration::from_millis(250);
/// An attempt that lies this long back says nothing of the price now.
const LAPSES: Duration = Duration::from_secs(30);
/// No bound is further from the mid price, in basis points.
const FURTHEST_BPS: Decimal = dec!(5000);

/// Attempts to lower one leg that have filled nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Orders sent so far; widens the slippage of the next.
    pub sent: u32,
    /// Not before this, on CLOCK_BOOTTIME.
    pub not_before: Duration,
}

impl Attempts {
    /// Notes an order sent at `now`.
    pub fn sent(&mut self, now: Duration) {
        self.sent = self.lately(now).saturating_add(1);
        self.not_before = now + RETRY;
    }

    /// Notes that the last order never reached the book: it says nothing of the price.
    pub fn not_in_the_book(&mut self) {
        self.sent = self.sent.saturating_sub(1);
    }

    /// Notes that the last order filled something: the next may follow at once, no wider.
    pub fn filled(&mut self) {
        *self = Self::default();
    }

    fn lately(&self, now: Duration) -> u32 {
        if now < self.not_before + LAPSES { self.sent } else { 0 }
    }
}

/// How far from the mid price an attempt may fill, in basis points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ladder {
    /// Bound of the first attempt.
    pub first_bps: Decimal,
    /// What every further attempt adds; at least one, so that no setting ends the widening.
    pub step_bps: Decimal,
}

impl Ladder {
    /// Bound of the attempt after these.
    #[must_use]
    pub fn bound_bps(&self, attempts: Attempts, now: Duration) -> Decimal {
        let widened = self.step_bps.max(Decimal::ONE) * Decimal::from(attempts.lately(now));
        (self.first_bps + widened).min(FURTHEST_BPS)
    }
}

/// An order that takes at most so far from the mid price, or at market where it would be too small at its limit price: a
/// rest that is large enough at the mid price may be.
#[must_use]
pub fn taking(
    leg: &Leg,
    touch: Touch,
    side: Side,
    size: Decimal,
    bound_bps: Decimal,
    at_market: OrderKind,
) -> OrderKind {
    let limit_price = taking_price(&leg.product, touch, side, bound_bps);
    let too_small = leg.notional(size, limit_price) < leg.product.min_notional_quote;
    if too_small { at_market } else { OrderKind::ImmediateOrCancel { limit_price } }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proven by mutation: a step of zero; attempts of any age counted.
    #[test]
    fn every_attempt_that_fills_nothing_widens_the_next_and_an_old_one_does_not() {
        let (zero, now) = (Ladder { first_bps: dec!(0), step_bps: dec!(0) }, Duration::from_secs(100));
        let mut attempts = Attempts::default();
        let mut bounds = Vec::new();
        for _ in 0..3 {
            bounds.push(zero.bound_bps(attempts, now));
            attempts.sent(now);
        }
        assert_eq!(bounds, [dec!(0), dec!(1), dec!(2)]);
        assert_eq!(Ladder { first_bps: dec!(30), step_bps: dec!(50) }.bound_bps(attempts, now), dec!(180));
        assert_eq!(Ladder { first_bps: dec!(30), step_bps: dec!(9000) }.bound_bps(attempts, now), FURTHEST_BPS);
        let later = now + Duration::from_secs(60);
        assert_eq!(zero.bound_bps(attempts, later), dec!(0));
        attempts.sent(later);
        assert_eq!(zero.bound_bps(attempts, later), dec!(1));
        attempts.filled();
        assert_eq!(zero.bound_bps(attempts, later), dec!(0));
    }
}
