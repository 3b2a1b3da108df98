//! What the strategy wants, the gate admits: else it would want the same at every tick and never trade.

use arbbot_crds::control::{Control, Duty, Entry};
use arbbot_crds::decimal::DecimalString;
use arbbot_crds::limits::RiskLimits;
use proptest::prelude::*;
use rust_decimal::dec;

use super::*;
use crate::exchange::{NewOrder, OrderKind};
use crate::execution::grid::{joining_price, taking_price};
use crate::risk::{Contact, Exposure, admit};
use crate::testing::{self, future_leg, spot_leg};

fn exposure(long: Decimal, short: Decimal) -> Exposure {
    Exposure {
        spot: spot_leg(long * dec!(0.01)),
        future: future_leg(-short),
        open_orders: 0,
        orders_last_minute: 0,
        futures_collateral_quote: dec!(1_000_000),
        spot_cost_quote: dec!(0),
    }
}

fn wanted(exposure: &Exposure, limits: &RiskLimits) -> Vec<Quote> {
    decide(&Market {
        target_notional: dec!(20_000),
        max_order_notional: limits.max_order_notional.0,
        max_leg_imbalance_notional: limits.max_leg_imbalance_notional.0,
        collateral_at_least_quote: exposure.futures_collateral_quote,
        max_leverage: limits.max_leverage.0,
        ..testing::market(&exposure.spot, &exposure.future)
    })
}

/// The order of a quote, as it rests or as it takes.
fn order(quote: &Quote, exposure: &Exposure, take: bool) -> NewOrder {
    let touch = testing::market(&exposure.spot, &exposure.future).spot_touch;
    let leg = if quote.leg == LegName::Spot { &exposure.spot } else { &exposure.future };
    let limit_price =
        if take { taking_price(&leg.product, touch, quote.side, dec!(30)) } else { joining_price(touch, quote.side) };
    let size = if take { quote.behind } else { quote.size };
    let kind = OrderKind::ImmediateOrCancel { limit_price };
    NewOrder { client_order_id: "id".into(), product: leg.product.id.clone(), side: quote.side, size, kind }
}

/// Proven by mutation: a clip of contracts at the mid price.
#[test]
fn a_clip_is_what_one_order_may_have_and_what_the_legs_may_be_apart() {
    let sizes = |max_order: u32, max_imbalance: u32| {
        let limits = RiskLimits {
            max_order_notional: max_order.into(),
            max_leg_imbalance_notional: max_imbalance.into(),
            ..RiskLimits::default()
        };
        wanted(&exposure(dec!(0), dec!(0)), &limits).into_iter().map(|quote| quote.size).collect::<Vec<_>>()
    };
    assert_eq!(sizes(5000, 5000), [dec!(0.02), dec!(2)]);
    assert_eq!(sizes(5000, 1000), [dec!(0.01), dec!(1)]);
    assert_eq!(sizes(1000, 5000), [dec!(0.01), dec!(1)]);
    assert_eq!(sizes(5000, 1200), [dec!(0.01), dec!(1)], "two would have to take above the mid price");
}

proptest! {
    /// From wherever one clip can leave the legs, and whichever of the two orders is placed first. Proven by mutation: a
    /// clip that looks at `maxOrderNotional` alone.
    #[test]
    fn whatever_raises_a_leg_is_admitted_under_the_limits_that_it_was_sized_by(
        contracts in 0u32..20, filled_spot in 0u32..=200, filled_future in 0u32..=2, max_order in 602u32..2000,
        max_imbalance in 602u32..2000, future_first in any::<bool>(), take in any::<bool>(),
    ) {
        let limits = RiskLimits {
            max_order_notional: max_order.into(),
            max_leg_imbalance_notional: max_imbalance.into(),
            ..RiskLimits::default()
        };
        let clip = (Decimal::from(max_order.min(max_imbalance)) / dec!(601.8)).floor().min(dec!(2));
        let part = |filled: u32| Decimal::new(filled.into(), 2);
        let (long, short) = (part(filled_spot).min(clip), Decimal::from(filled_future).min(clip));
        let mut exposure = exposure(Decimal::from(contracts) + long, Decimal::from(contracts) + short);
        let control = Control { entry: Entry::Active, duty: Duty::Hold, limits: limits.clone() };
        let mut quotes = wanted(&exposure, &limits);
        if future_first {
            quotes.reverse();
        }
        for quote in quotes.into_iter().filter(|quote| quote.class.raises()) {
            let order = order(&quote, &exposure, take && quote.is_behind());
            let admitted = admit(order.clone(), quote.class, &exposure, &control, Contact::Fresh);
            prop_assert!(admitted.is_ok(), "{:?}: {:?}", order, admitted);
            let leg = if quote.leg == LegName::Spot { &mut exposure.spot } else { &mut exposure.future };
            *leg = leg.with(order.side, order.size);
        }
    }

    /// One leg is not begun where `maxLeverage` has no room for the other. Proven by mutation: `decide` without
    /// `leveraged`.
    #[test]
    fn both_legs_of_what_is_entered_fit_behind_the_collateral(
        contracts in 0u32..20, filled_spot in 0u32..=200, filled_future in 0u32..=2, collateral in 0u32..20_000,
        leverage in 0u32..30, future_first in any::<bool>(),
    ) {
        let limits = RiskLimits { max_leverage: DecimalString(Decimal::new(leverage.into(), 1)), ..RiskLimits::default() };
        let (long, short) = (Decimal::new(filled_spot.into(), 2), Decimal::from(filled_future));
        let before = exposure(Decimal::from(contracts) + long, Decimal::from(contracts) + short);
        let mut exposure = Exposure { futures_collateral_quote: collateral.into(), ..before };
        let control = Control { entry: Entry::Active, duty: Duty::Hold, limits: limits.clone() };
        let mut quotes = wanted(&exposure, &limits);
        if future_first {
            quotes.reverse();
        }
        // What is behind is wanted whatever the collateral carries; the gate may refuse it.
        for quote in quotes.into_iter().filter(|quote| quote.class == Class::Enter) {
            let order = order(&quote, &exposure, false);
            let admitted = admit(order.clone(), quote.class, &exposure, &control, Contact::Fresh);
            prop_assert!(admitted.is_ok(), "{:?}: {:?}", order, admitted);
            if quote.leg == LegName::Spot {
                exposure.spot_cost_quote += exposure.spot.notional(order.size, dec!(60000));
            }
            let leg = if quote.leg == LegName::Spot { &mut exposure.spot } else { &mut exposure.future };
            *leg = leg.with(order.side, order.size);
        }
    }
}
