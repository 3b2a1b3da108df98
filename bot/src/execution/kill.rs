//! The flattening half of the kill saga: what to close next.
//!
//! Futures first, because a lone spot leg cannot be liquidated; spot follows what filled and never falls below the
//! hedge of what is left, so a closed futures session keeps both legs. One order in flight per leg; inside the
//! slippage ladder until the deadline, at market after it; never without an explicit size.

use std::time::Duration;

use rust_decimal::Decimal;

use crate::exchange::{OrderKind, Touch};
use crate::execution::grid::{slice, smallest};
use crate::execution::ladder::{Attempts, Ladder, taking};
use crate::execution::repair::Wanted;
use crate::risk::exposure::{Leg, delta_base};

/// A leg that has an order without an end is left alone for this long; then the rest is closed and the order counts
/// as filled (SAFETY §3).
pub const STUCK_AFTER: Duration = Duration::from_secs(5);
/// Without prices for this long after this process began to close it, the rest is closed at market: the first prices come
/// a moment after a restart.
const BLIND_AFTER: Duration = Duration::from_secs(5);

/// How the position is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Bound of the first attempt, in basis points from the mid price.
    pub slippage_bps: Decimal,
    /// Largest notional of one order, in quote currency.
    pub max_order_notional: Decimal,
    /// Time since the kill began to close the position, in whatever process.
    pub since: Duration,
    /// Time since this process did.
    pub here: Duration,
    /// Time after which the rest is closed at market.
    pub deadline: Duration,
}

/// One leg as the saga sees it.
#[derive(Clone, Copy, Debug)]
pub struct KillLeg<'a> {
    pub leg: &'a Leg,
    /// Fresh prices.
    pub touch: Option<Touch>,
    /// The last known mid price, however old: slices an order that goes at market.
    pub last_mid: Option<Decimal>,
    /// Whether an order of this leg is on its way and younger than [`STUCK_AFTER`].
    pub busy: bool,
    pub attempts: Attempts,
}

/// What to send next for the futures leg.
#[must_use]
pub fn close_future(future: KillLeg<'_>, terms: Terms, now: Duration) -> Option<Wanted> {
    let session_open = future.leg.product.future.as_ref().is_some_and(|details| details.session_open);
    if !session_open {
        return None;
    }
    close(future, future.leg.held().abs(), OrderKind::ClosePosition, terms, now)
}

/// What to send next for the spot leg: what is not needed as the hedge of the contracts that are left. A sale that is stuck
/// counts as filled.
#[must_use]
pub fn close_spot(spot: KillLeg<'_>, future: &Leg, terms: Terms, now: Duration) -> Option<Wanted> {
    let excess = delta_base(spot.leg, future) / spot.leg.product.unit_base - spot.leg.sells;
    if excess <= Decimal::ZERO {
        return None;
    }
    close(spot, excess, OrderKind::Market, terms, now)
}

fn close(leg: KillLeg<'_>, wanted: Decimal, at_market: OrderKind, terms: Terms, now: Duration) -> Option<Wanted> {
    let side = leg.leg.reducing_side()?;
    if leg.busy || now < leg.attempts.not_before {
        return None;
    }
    let size = wanted.min(leg.leg.reducible(side));
    let late = terms.since >= terms.deadline;
    let product = &leg.leg.product;
    let (size, kind) = match leg.touch {
        Some(touch) if !late => {
            let first_bps = terms.slippage_bps.max(Decimal::ONE);
            let bps = Ladder { first_bps, step_bps: first_bps }.bound_bps(leg.attempts, now);
            let size = slice(product, size, touch.mid(), terms.max_order_notional)?;
            (size, taking(leg.leg, touch, side, size, bps, at_market))
        }
        Some(touch) => (slice(product, size, touch.mid(), terms.max_order_notional)?, at_market),
        None if late || terms.here >= BLIND_AFTER => {
            (slice(product, size, leg.last_mid.unwrap_or_default(), terms.max_order_notional)?, at_market)
        }
        None => return None,
    };
    Some(Wanted { product: product.id.clone(), side, size, kind })
}

/// Whether a leg counts as flat: no contract, or spot that the venue is too coarse to sell.
#[must_use]
pub fn is_flat(leg: &Leg) -> bool {
    let left = leg.held().abs();
    left.is_zero() || left < smallest(&leg.product, leg.mid.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rust_decimal::dec;

    use super::*;
    use crate::exchange::Side;
    use crate::testing::{future_leg, spot_leg};

    const NOW: Duration = Duration::from_secs(100);

    fn terms(since_seconds: u64) -> Terms {
        Terms {
            slippage_bps: dec!(50),
            max_order_notional: dec!(5000),
            since: Duration::from_secs(since_seconds),
            here: Duration::from_secs(since_seconds),
            deadline: Duration::from_secs(120),
        }
    }

    fn kill_leg(leg: &Leg) -> KillLeg<'_> {
        let touch = Some(Touch { best_bid: dec!(59995), best_ask: dec!(60005) });
        KillLeg { leg, touch, last_mid: Some(dec!(60000)), busy: false, attempts: Attempts::default() }
    }

    #[test]
    fn the_future_goes_first_in_slices_inside_the_slippage() {
        let future = future_leg(dec!(-20));
        let wanted = close_future(kill_leg(&future), terms(0), NOW).unwrap();
        assert_eq!((wanted.side, wanted.size), (Side::Buy, dec!(8)));
        assert_eq!(wanted.kind, OrderKind::ImmediateOrCancel { limit_price: dec!(60300) });
    }

    #[test]
    fn spot_follows_what_filled_and_keeps_the_hedge_of_the_rest() {
        let spot = spot_leg(dec!(0.2));
        assert_eq!(close_spot(kill_leg(&spot), &future_leg(dec!(-20)), terms(0), NOW), None);
        let half = close_spot(kill_leg(&spot), &future_leg(dec!(-18)), terms(0), NOW).unwrap();
        assert_eq!((half.side, half.size), (Side::Sell, dec!(0.02)));
    }

    #[test]
    fn a_closed_session_keeps_both_legs_and_trims_spot_only_down_to_the_hedge() {
        let mut future = future_leg(dec!(-20));
        Arc::make_mut(&mut future.product).future.as_mut().unwrap().session_open = false;
        assert_eq!(close_future(kill_leg(&future), terms(0), NOW), None);
        assert_eq!(close_spot(kill_leg(&spot_leg(dec!(0.2))), &future, terms(200), NOW), None);
        let ahead = close_spot(kill_leg(&spot_leg(dec!(0.21))), &future, terms(0), NOW).unwrap();
        assert_eq!(ahead.size, dec!(0.01));
    }

    /// Both might fill, and take the hedge away.
    #[test]
    fn a_sale_that_is_stuck_counts_as_filled_and_the_hedge_is_not_sold_in_its_place() {
        let with_sale = |size| Leg { sells: size, ..spot_leg(dec!(0.2)) };
        let future = future_leg(dec!(-17));
        assert_eq!(close_spot(kill_leg(&with_sale(dec!(0.03))), &future, terms(10), NOW), None);
        assert_eq!(close_spot(kill_leg(&with_sale(dec!(0.01))), &future, terms(10), NOW).unwrap().size, dec!(0.02));
    }

    #[test]
    fn every_attempt_is_wider_and_after_the_deadline_the_rest_goes_at_market() {
        let future = future_leg(dec!(-20));
        let second = KillLeg { attempts: Attempts { sent: 1, not_before: NOW }, ..kill_leg(&future) };
        let wider = close_future(second, terms(1), NOW).unwrap();
        assert_eq!(wider.kind, OrderKind::ImmediateOrCancel { limit_price: dec!(60600) });
        let late = close_future(second, terms(120), NOW).unwrap();
        assert_eq!((late.kind, late.size), (OrderKind::ClosePosition, dec!(8)));
    }

    #[test]
    fn without_prices_the_rest_goes_at_market_after_five_seconds() {
        let spot = spot_leg(dec!(0.2));
        let blind = KillLeg { touch: None, ..kill_leg(&spot) };
        assert_eq!(close_spot(blind, &future_leg(dec!(0)), terms(1), NOW), None);
        let market = close_spot(blind, &future_leg(dec!(0)), terms(6), NOW).unwrap();
        assert_eq!(market.kind, OrderKind::Market);
        assert!(market.size * dec!(60000) <= dec!(5000), "the last known price still slices it");
        // A process that has just started waits for its first prices.
        let restarted = Terms { here: Duration::from_secs(1), ..terms(60) };
        assert_eq!(close_spot(blind, &future_leg(dec!(0)), restarted, NOW), None);
    }

    #[test]
    fn what_the_venue_does_not_show_is_not_closed() {
        let short = |deficit| Leg { deficit, ..future_leg(dec!(-5)) };
        assert_eq!(close_future(kill_leg(&short(dec!(3))), terms(0), NOW).unwrap().size, dec!(2));
        assert!(is_flat(&short(dec!(5))) && !is_flat(&short(dec!(3))));
        // Liquidated, or closed by hand: spot no longer hedges anything.
        let spot = close_spot(kill_leg(&spot_leg(dec!(0.05))), &short(dec!(5)), terms(0), NOW).unwrap();
        assert_eq!(spot.size, dec!(0.05));
    }

    #[test]
    fn one_order_is_in_flight_per_leg() {
        let future = future_leg(dec!(-5));
        assert_eq!(close_future(KillLeg { busy: true, ..kill_leg(&future) }, terms(0), NOW), None);
    }
}
