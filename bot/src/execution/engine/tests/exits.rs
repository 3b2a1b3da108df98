//! No limit denies what lowers a leg: it is priced inside a slippage ladder instead (SAFETY §2).

use super::*;
use world::AtVenue;

fn class(at: &AtVenue) -> Class {
    crate::execution::orders::parse_id(&at.order.client_order_id).unwrap().class
}

/// Spot over future, in base currency.
fn apart(world: &World) -> Decimal {
    world.position(SPOT) + world.position(FUTURE) * dec!(0.01)
}

fn widen(world: &mut World, half_spread: Decimal) {
    let mid = dec!(60000);
    world.touch = Touch { best_bid: mid - half_spread, best_ask: mid + half_spread };
    world.tell();
}

/// The bounds of the orders that took, in basis points from the mid price.
fn bounds(orders: &[AtVenue]) -> Vec<Decimal> {
    let bound =
        |at: &AtVenue| Some((at.order.limit_price()? / dec!(60000) - dec!(1)) * at.order.side.sign() * dec!(10000));
    let takes = orders.iter().filter(|at| !matches!(at.order.kind, OrderKind::PostOnly { .. }));
    takes.map(|at| bound(at).unwrap().round()).collect()
}

/// Proven by mutation: a bound that no attempt widens.
#[test]
fn a_trim_fills_whatever_the_slippage_limit_and_the_spread() {
    for (max_slippage_bps, half_spread, expected) in [
        (dec!(30), dec!(5), vec![dec!(30)]),
        (dec!(1), dec!(12), vec![dec!(1), dec!(51)]),
        (dec!(0), dec!(12), vec![dec!(0), dec!(50)]),
        (dec!(30), dec!(600), vec![dec!(30), dec!(80), dec!(130)]),
    ] {
        let mut world = World::with_orders_of(1300);
        world.limits = RiskLimits {
            max_delta_notional: 700.into(),
            max_slippage_bps: DecimalString(max_slippage_bps),
            ..RiskLimits::default()
        };
        // Spot has filled two contracts' worth, the future none.
        world.fill_product(SPOT);
        assert_eq!(apart(&world), dec!(0.02));
        widen(&mut world, half_spread);
        let before = world.accepted.len();
        world.mode(Mode::Halted);
        world.pass(Duration::from_secs(2));
        assert!(apart(&world).is_zero(), "{max_slippage_bps} bps: {:?}", &world.accepted[before..]);
        assert!(world.accepted[before..].iter().all(|at| class(at) == Class::Trim));
        assert_eq!(bounds(&world.accepted[before..]), expected);
    }
}

/// Proven by mutation: a bound that no attempt widens.
#[test]
fn in_a_drain_the_leg_that_is_behind_takes_whatever_the_slippage_limit() {
    let mut world = World::with_position();
    world.mode(Mode::ReduceOnly);
    world.pass(Duration::from_secs(5));
    world.limits = RiskLimits { max_slippage_bps: DecimalString(dec!(0)), ..RiskLimits::default() };
    world.mode(Mode::Stopped);
    world.pass(Duration::from_secs(1));
    let before = world.accepted.len();
    world.fill_product(FUTURE);
    world.pass(Duration::from_secs(4));
    let took: Vec<_> = world.accepted[before..]
        .iter()
        .filter(|at| matches!(at.order.kind, OrderKind::ImmediateOrCancel { .. }))
        .collect();
    assert!(took.iter().all(|at| class(at) == Class::Reduce && at.order.product == SPOT), "{took:?}");
    assert!(took.last().is_some_and(|at| !world.venue[&at.order.client_order_id].state.filled.is_zero()), "{took:?}");
}
