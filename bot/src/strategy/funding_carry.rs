//! Funding carry: long spot, short perpetual-style future, delta neutral.
//!
//! Both legs rest post-only at the touch, one contract's worth of both at a time up to `targetNotional`. Where one leg
//! gets ahead and stays ahead for `legTimeout`, the other takes from the book.

use rust_decimal::Decimal;

use crate::exchange::{Side, Touch};
use crate::execution::grid::{ceil_to, floor_to};
use crate::risk::Class;
use crate::risk::exposure::Leg;

/// What the strategy looks at.
#[derive(Clone, Copy, Debug)]
pub struct Market<'a> {
    pub spot: &'a Leg,
    pub future: &'a Leg,
    pub spot_touch: Touch,
    pub future_touch: Touch,
    /// Notional of each leg to build up to, in quote currency.
    pub target_notional: Decimal,
    /// Limit on the notional of one leg, in quote currency.
    pub max_position_notional: Decimal,
    /// Largest notional of one order, in quote currency.
    pub max_order_notional: Decimal,
}

/// An order that the strategy wants to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    pub leg: LegName,
    pub side: Side,
    /// In units of the product.
    pub size: Decimal,
    pub class: Class,
    /// Whether this leg is behind the other: it takes from the book once it has been so for `legTimeout`.
    pub behind: bool,
}

/// One of the two legs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegName {
    Spot,
    Future,
}

/// The orders that the strategy wants to have now: at most one per leg.
#[must_use]
pub fn decide(market: &Market<'_>) -> Vec<Quote> {
    let contract_base = market.future.product.unit_base;
    let contract_notional = contract_base * market.future_touch.mid();
    if contract_notional <= Decimal::ZERO {
        return Vec::new();
    }
    let short = -market.future.owned;
    let long = market.spot.owned * market.spot.product.unit_base / contract_base;
    let ratio = market.target_notional / contract_notional;
    let target = ratio.floor();
    // A whole contract above, so that a price that crosses a contract's edge does not trade to and fro.
    if short >= ratio + Decimal::ONE || long >= ratio + Decimal::TWO {
        return reduce(market, short, long, target);
    }
    let ceiling = target.min((market.max_position_notional / contract_notional).floor());
    enter(market, short, long, ceiling, clip(market, contract_notional))
}

/// Contracts that are added or taken off at a time.
fn clip(market: &Market<'_>, contract_notional: Decimal) -> Decimal {
    (market.max_order_notional / contract_notional).floor().max(Decimal::ONE).min(Decimal::from(2))
}

/// Both legs up to the next level: the next clip where they are even, else what completes the entry under way.
fn enter(market: &Market<'_>, short: Decimal, long: Decimal, ceiling: Decimal, clip: Decimal) -> Vec<Quote> {
    let even = long == short;
    let level = if even { (short + clip).min(ceiling) } else { long.ceil().max(short) };
    let spot_behind = long < short;
    let future_behind = long >= short + Decimal::ONE;
    let spot_size = spot_units(market, level - long);
    let class = |behind| if behind { Class::Hedge } else { Class::Enter };
    // Completing an entry is a hedge even above the ceiling; starting one is not.
    let wanted = [
        Quote { leg: LegName::Spot, side: Side::Buy, size: spot_size, class: class(spot_behind), behind: spot_behind },
        Quote {
            leg: LegName::Future,
            side: Side::Sell,
            size: level - short,
            class: class(future_behind),
            behind: future_behind,
        },
    ];
    wanted.into_iter().filter(|quote| quote.size > Decimal::ZERO && (level <= ceiling || quote.behind)).collect()
}

/// Both legs down to the target.
fn reduce(market: &Market<'_>, short: Decimal, long: Decimal, target: Decimal) -> Vec<Quote> {
    let quotes = [
        Quote {
            leg: LegName::Future,
            side: Side::Buy,
            size: (short - target).min(Decimal::TWO),
            class: Class::Reduce,
            behind: short > long + Decimal::ONE,
        },
        Quote {
            leg: LegName::Spot,
            side: Side::Sell,
            size: spot_units(market, (long - target).min(Decimal::TWO)),
            class: Class::Reduce,
            behind: long > short + Decimal::ONE,
        },
    ];
    quotes.into_iter().filter(|quote| quote.size > Decimal::ZERO).collect()
}

/// Spot size of so many contracts, on the product's grid.
fn spot_units(market: &Market<'_>, contracts: Decimal) -> Decimal {
    let product = &market.spot.product;
    let size = contracts * market.future.product.unit_base / product.unit_base;
    // A remainder that the venue is too coarse for is rounded up to its smallest order, so that a leg can be completed.
    let smallest = crate::execution::grid::smallest(product, market.spot_touch.mid());
    if size <= Decimal::ZERO { Decimal::ZERO } else { floor_to(size, product.size_increment).max(smallest) }
}

/// Whether a resting price is still close enough to the touch to keep its place in the queue.
#[must_use]
pub fn still_good(limit_price: Decimal, touch_price: Decimal, price_increment: Decimal) -> bool {
    let tolerance = ceil_to(touch_price * Decimal::new(5, 4), price_increment);
    (limit_price - touch_price).abs() <= tolerance
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rust_decimal::dec;

    use super::*;
    use crate::testing::{future_leg, spot_leg};

    fn decided(spot: Decimal, contracts: Decimal, target: Decimal) -> Vec<(LegName, Side, Decimal, Class)> {
        let touch = Touch { best_bid: dec!(59995), best_ask: dec!(60005) };
        let (spot, future) = (spot_leg(spot), future_leg(contracts));
        decide(&Market {
            spot: &spot,
            future: &future,
            spot_touch: touch,
            future_touch: touch,
            target_notional: target,
            max_position_notional: dec!(25000),
            max_order_notional: dec!(700),
        })
        .into_iter()
        .map(|quote| (quote.leg, quote.side, quote.size, quote.class))
        .collect()
    }

    #[test]
    fn from_flat_both_legs_rest_for_one_contract() {
        assert_eq!(
            decided(dec!(0), dec!(0), dec!(6000)),
            [
                (LegName::Spot, Side::Buy, dec!(0.01), Class::Enter),
                (LegName::Future, Side::Sell, dec!(1), Class::Enter)
            ]
        );
    }

    #[test]
    fn a_leg_that_is_behind_is_completed_as_a_hedge() {
        assert_eq!(decided(dec!(0.01), dec!(0), dec!(6000)), [(LegName::Future, Side::Sell, dec!(1), Class::Hedge)]);
        assert_eq!(decided(dec!(0), dec!(-1), dec!(6000)), [(LegName::Spot, Side::Buy, dec!(0.01), Class::Hedge)]);
        let partly = decided(dec!(0.004), dec!(0), dec!(6000));
        assert_eq!(partly[0], (LegName::Spot, Side::Buy, dec!(0.006), Class::Enter));
    }

    #[test]
    fn at_the_target_nothing_is_wanted_and_below_it_both_legs_come_off() {
        assert_eq!(decided(dec!(0.1), dec!(-10), dec!(6000)), []);
        let lowered = decided(dec!(0.1), dec!(-10), dec!(3000));
        assert_eq!(lowered[0], (LegName::Future, Side::Buy, dec!(2), Class::Reduce));
        assert_eq!(lowered[1], (LegName::Spot, Side::Sell, dec!(0.02), Class::Reduce));
    }

    proptest! {
        /// Invariant 7: whatever the strategy wants, filling it never takes the legs further apart than one clip.
        #[test]
        fn filling_any_of_the_quotes_keeps_the_legs_within_a_clip(contracts in 0i64..30, partial in 0u32..100) {
            let spot = Decimal::from(contracts) * dec!(0.01) + Decimal::from(partial) * dec!(0.0001);
            for (leg, side, size, _) in decided(spot, Decimal::from(-contracts), dec!(100000)) {
                let base = if leg == LegName::Spot { size } else { size * dec!(0.01) } * side.sign();
                let delta = spot - Decimal::from(contracts) * dec!(0.01) + base;
                prop_assert!(delta.abs() <= dec!(0.021), "{leg:?} {side:?} {size}");
            }
        }
    }
}
