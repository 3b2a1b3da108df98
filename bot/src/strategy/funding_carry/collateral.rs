//! How many contracts the futures collateral carries. Pure; nothing here moves any.
//!
//! The collateral is all USD of the account, so that buying spot lowers it. With n contracts and as much spot, n × (futures
//! notional) × (overnight initial margin + `minRatio`) may not exceed what is left of it.

use rust_decimal::{Decimal, dec};

use super::Market;

/// Both legs are reduced where less than this part of `minRatio` is free.
const KEEPS: Decimal = dec!(0.9);
/// A shortage ends once there is so much more than needed.
const ENOUGH_AGAIN: Decimal = dec!(1.02);
/// Amounts that a person is asked to move are whole multiples of it, in quote currency.
const STEP_QUOTE: Decimal = dec!(100);

/// What the collateral carries, in contracts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carries {
    /// With `minRatio` free: so far the position may be raised.
    pub raises: Decimal,
    /// With nine tenths of it free: above, both legs are reduced.
    pub keeps: Decimal,
}

/// What the collateral lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Whether it is short of what is there already, not only of the next contract.
    pub of_position: bool,
    /// What a person would have to move in for the whole target, in quote currency.
    pub missing_quote: Decimal,
}

/// Quote currency that a contract ties up: its spot, and `ratio` of it as margin and reserve.
fn tied_up(market: &Market<'_>, ratio: Decimal) -> (Decimal, Decimal) {
    let unit_base = market.future.product.unit_base;
    (unit_base * market.spot_touch.best_ask, unit_base * market.future_touch.mid() * ratio)
}

fn margin(market: &Market<'_>) -> Decimal {
    market.future.product.future.as_ref().map_or(Decimal::ONE, |future| future.terms.short_margin)
}

/// Contracts that so much collateral carries with so much of the notional free.
fn carried(market: &Market<'_>, long: Decimal, collateral_quote: Decimal, free_ratio: Decimal) -> Decimal {
    let (spot, reserve) = tied_up(market, margin(market) + free_ratio);
    let carried = (collateral_quote + long * spot).checked_div(spot + reserve);
    carried.unwrap_or_default().max(Decimal::ZERO)
}

/// What the collateral carries while `long` contracts' worth of spot are held.
#[must_use]
pub fn carries(market: &Market<'_>, long: Decimal) -> Carries {
    let min_ratio = market.min_collateral_ratio;
    Carries {
        raises: carried(market, long, market.collateral_quote, min_ratio),
        keeps: carried(market, long, market.collateral_at_most_quote, min_ratio * KEEPS),
    }
}

/// Contracts up to which both legs may be raised under `maxLeverage`: with less, the leg that fills first could not be
/// completed. At the dearest price of an order, and from what the collateral is at least.
#[must_use]
pub fn leveraged(market: &Market<'_>, long: Decimal) -> Decimal {
    let (contract, leverage) = (market.dearest_contract_notional(), market.max_leverage);
    // n × contract ≤ leverage × (collateral − (n − long) × contract), where there is spot to be bought.
    let carried = |collateral: Decimal, parts: Decimal| {
        (leverage * collateral).checked_div(contract * parts).unwrap_or_default().max(Decimal::ZERO)
    };
    let collateral = market.collateral_at_least_quote;
    let with_spot = carried(collateral + long * contract, Decimal::ONE + leverage);
    if with_spot >= long { with_spot } else { carried(collateral, Decimal::ONE).min(long) }
}

/// What is missing for the next of `target` contracts, if anything. `was_short`: so it was at the last look.
#[must_use]
pub fn shortage(
    market: &Market<'_>,
    short: Decimal,
    long: Decimal,
    target: Decimal,
    was_short: bool,
) -> Option<Shortage> {
    let Carries { raises, keeps } = carries(market, long);
    let next = (short + Decimal::ONE).min(target).max(short);
    let needed = if was_short { next * ENOUGH_AGAIN } else { next };
    let of_position = short > keeps;
    if raises >= needed && !of_position {
        return None;
    }
    let (spot, reserve) = tied_up(market, margin(market) + market.min_collateral_ratio);
    let wanted = target.max(next);
    let missing = (spot + reserve) * wanted - long * spot - market.collateral_quote;
    let missing_quote = (missing / STEP_QUOTE).ceil().max(Decimal::ONE) * STEP_QUOTE;
    Some(Shortage { of_position, missing_quote })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::exchange::Touch;
    use crate::risk::exposure::Leg;
    use crate::strategy::funding_carry::{LegName, decide};
    use crate::testing::{self, future_leg, spot_leg};

    fn market<'a>(spot: &'a Leg, future: &'a Leg, collateral_quote: Decimal) -> Market<'a> {
        let touch = Touch { best_bid: dec!(59999), best_ask: dec!(60001) };
        Market {
            spot_touch: touch,
            future_touch: touch,
            collateral_quote,
            collateral_at_most_quote: collateral_quote,
            ..testing::market(spot, future)
        }
    }

    /// Free above overnight margin once both legs have so many contracts, as a fraction of the futures notional.
    fn free_ratio(collateral: Decimal, long: Decimal, contracts: Decimal) -> Decimal {
        let after = collateral - (contracts - long) * dec!(600.01);
        after / (contracts * dec!(600)) - dec!(0.306)
    }

    #[test]
    fn a_person_is_told_what_to_move_for_the_whole_target() {
        let (spot, future) = (spot_leg(dec!(0)), future_leg(dec!(0)));
        let short_of = |collateral, was_short| {
            shortage(&market(&spot, &future, collateral), dec!(0), dec!(0), dec!(10), was_short)
        };
        // Ten contracts need 10 × 600.01 of spot and 10 × 600 × 0.906.
        assert_eq!(short_of(dec!(1000), false), Some(Shortage { of_position: false, missing_quote: dec!(10500) }));
        assert_eq!(short_of(dec!(1145), false), None, "the next contract is carried");
        assert!(short_of(dec!(1145), true).is_some(), "it was short: a little more ends it");
        assert_eq!(short_of(dec!(1200), true), None);
    }

    #[test]
    fn a_position_that_is_not_carried_comes_down_on_both_legs() {
        let (spot, future) = (spot_leg(dec!(0.1)), future_leg(dec!(-10)));
        let market = market(&spot, &future, dec!(4000));
        let quotes = decide(&market);
        assert_eq!(quotes.iter().map(|quote| quote.leg).collect::<Vec<_>>(), [LegName::Future, LegName::Spot]);
        assert!(quotes.iter().all(|quote| !quote.class.raises()));
        assert!(shortage(&market, dec!(10), dec!(10), dec!(10), false).unwrap().of_position);
    }

    proptest! {
        /// Mutation that it fails under: spot that is still to be bought left out of what is tied up.
        #[test]
        fn whatever_is_entered_leaves_enough_free(contracts in 0i64..12, collateral in 0u32..20_000) {
            let contracts = Decimal::from(contracts);
            let (spot, future) = (spot_leg(contracts * dec!(0.01)), future_leg(-contracts));
            let collateral = Decimal::from(collateral);
            let quotes = decide(&market(&spot, &future, collateral));
            if quotes.iter().any(|quote| quote.class.raises()) {
                for quote in quotes {
                    let added = if quote.leg == LegName::Future { quote.size } else { quote.size * dec!(100) };
                    prop_assert_eq!(added, added.trunc(), "whole contracts");
                    prop_assert!(free_ratio(collateral, contracts, contracts + added) >= dec!(0.60));
                }
            }
        }

        /// Filled in whatever order, a reduction ends with both legs even and enough free, and never turns round.
        #[test]
        fn a_reduction_ends_even_and_never_raises_a_leg(
            start in 1i64..12, collateral in 0u32..6_000, order in prop::collection::vec(any::<bool>(), 60),
        ) {
            let (mut short, mut long) = (Decimal::from(start), Decimal::from(start));
            // Spot that is sold becomes collateral.
            let mut collateral = Decimal::from(collateral);
            let begins = short > carries(&market(&spot_leg(long * dec!(0.01)), &future_leg(-short), collateral), long).keeps;
            for future_first in order {
                let (spot, future) = (spot_leg(long * dec!(0.01)), future_leg(-short));
                let quotes = decide(&market(&spot, &future, collateral));
                if !begins || quotes.is_empty() || quotes.iter().any(|quote| quote.class == crate::risk::Class::Enter) {
                    break;
                }
                let quote = if future_first { quotes[0] } else { *quotes.last().unwrap() };
                prop_assert!(!quote.class.raises(), "{:?} at {} and {}", quote, short, long);
                if quote.leg == LegName::Future {
                    short -= quote.size;
                } else {
                    long -= quote.size * dec!(100);
                    collateral += quote.size * dec!(59999);
                }
            }
            if begins {
                prop_assert!((short - long).abs() < Decimal::ONE, "{} and {}", short, long);
                prop_assert!(short >= dec!(0) && long >= dec!(0));
            }
        }
    }
}
