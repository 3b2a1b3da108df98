use std::sync::Arc;

use arbbot_crds::control::{Control, Duty, Entry};
use arbbot_crds::limits::RiskLimits;
use proptest::prelude::*;
use rust_decimal::dec;

use super::*;
use crate::exchange::OrderKind;
use crate::testing::{future_leg, spot_leg};

fn control(entry: Entry, duty: Duty) -> Control {
    Control { entry, duty, limits: RiskLimits::default() }
}

fn exposure() -> Exposure {
    Exposure {
        spot: spot_leg(dec!(0)),
        future: future_leg(dec!(0)),
        open_orders: 0,
        orders_last_minute: 0,
        futures_collateral_quote: dec!(1000000),
        spot_cost_quote: dec!(0),
    }
}

fn order(product: &str, side: Side, size: Decimal) -> NewOrder {
    NewOrder {
        client_order_id: "id".into(),
        product: product.into(),
        side,
        size,
        kind: OrderKind::ImmediateOrCancel { limit_price: dec!(60000) },
    }
}

fn admit_now(order: NewOrder, class: Class, exposure: &Exposure, entry: Entry, duty: Duty) -> Result<Permit, Denied> {
    admit(order, class, exposure, &control(entry, duty), Contact::Fresh)
}

fn limit_of(result: Result<Permit, Denied>) -> &'static str {
    match result {
        Err(Denied::Limit { limit, .. }) => limit,
        other => panic!("not a limit: {other:?}"),
    }
}

/// Fails with `<` for `<=`, without the side's sign, and with the mid price on the wrong side of the comparison.
#[test]
fn a_limit_price_may_be_as_far_on_the_wrong_side_as_the_limit_says_and_no_further() {
    let (mid, most_bps) = (dec!(60000), dec!(30));
    for (side, at_the_limit, beyond) in
        [(Side::Buy, dec!(60180), dec!(60180.01)), (Side::Sell, dec!(59820), dec!(59819.99))]
    {
        let with = |limit_price| {
            let kind = OrderKind::ImmediateOrCancel { limit_price };
            within_slippage(&NewOrder { kind, ..order("BTC-USD", side, dec!(1)) }, mid, most_bps)
        };
        assert_eq!(with(at_the_limit), Ok(()), "{side}");
        let Err(Denied::Limit { limit, message }) = with(beyond) else { panic!("{side}") };
        assert_eq!((limit, message.as_str()), ("maxSlippageBps", "30.0017 would be above the limit of 30"));
        assert_eq!(with(mid + mid - beyond), Ok(()), "{side}: it is on the right side of the mid price");
    }
}

#[test]
fn each_limit_denies_an_entry_beyond_it() {
    let enter = |size, exposure: &Exposure| {
        limit_of(admit_now(order("BTC-USD", Side::Buy, size), Class::Enter, exposure, Entry::Active, Duty::Hold))
    };
    assert_eq!(enter(dec!(0.1), &exposure()), "maxOrderNotional");
    assert_eq!(enter(dec!(0.01), &Exposure { open_orders: 10, ..exposure() }), "maxOpenOrders");
    assert_eq!(enter(dec!(0.01), &Exposure { orders_last_minute: 60, ..exposure() }), "maxOrdersPerMinute");
    let large = Exposure { spot: spot_leg(dec!(0.41)), future: future_leg(dec!(-41)), ..exposure() };
    assert_eq!(enter(dec!(0.01), &large), "maxPositionNotional");
    let thin = Exposure { futures_collateral_quote: dec!(100), future: future_leg(dec!(-1)), ..exposure() };
    assert_eq!(enter(dec!(0.01), &thin), "maxLeverage");
    let ahead = Exposure { spot: spot_leg(dec!(0.08)), ..exposure() };
    assert_eq!(enter(dec!(0.01), &ahead), "maxLegImbalanceNotional");
    let stale = Exposure { spot: Leg { mid: None, ..spot_leg(dec!(0)) }, ..exposure() };
    assert_eq!(enter(dec!(0.01), &stale), "market-data");
    let mut far = order("BTC-USD", Side::Buy, dec!(0.01));
    far.kind = OrderKind::ImmediateOrCancel { limit_price: dec!(60300) };
    assert_eq!(limit_of(admit_now(far, Class::Enter, &exposure(), Entry::Active, Duty::Hold)), "maxSlippageBps");
}

/// Spot is bought out of the cash that stands behind the future. Proven by mutation: the collateral as last read; this
/// order's own cost left out.
#[test]
fn leverage_is_measured_with_every_spot_buy_paid_for() {
    let held = Exposure {
        spot: spot_leg(dec!(0.10)),
        future: future_leg(dec!(-10)),
        futures_collateral_quote: dec!(4000),
        ..exposure()
    };
    // 6,000 are 1.5 times 4,000, but 1.76 times what a contract's worth of spot leaves of it.
    let enter = |exposure: &Exposure, size| {
        admit_now(order("BTC-USD", Side::Buy, size), Class::Enter, exposure, Entry::Active, Duty::Hold)
    };
    assert_eq!(limit_of(enter(&held, dec!(0.01))), "maxLeverage");
    assert!(enter(&held, dec!(0.004)).is_ok(), "240 leave 3,760");
    let filled = Exposure { spot_cost_quote: dec!(100), ..held.clone() };
    assert_eq!(limit_of(enter(&filled, dec!(0.004))), "maxLeverage");
    let limits = RiskLimits::default();
    assert!(["BTC-USD", "BIP-20DEC30-CDE"].iter().all(|product| still_fits(product, &filled, &limits)));
    let late = Exposure { spot_cost_quote: dec!(600), ..held.clone() };
    assert!(!["BTC-USD", "BIP-20DEC30-CDE"].iter().any(|product| still_fits(product, &late, &limits)));
    let mut other = held;
    Arc::make_mut(&mut other.spot.product).quote_currency = "USDC".into();
    assert!(enter(&other, dec!(0.01)).is_ok(), "it is paid for in another currency");
}

/// SAFETY §2: × max(mid, index, limit price), for both legs. Proven by mutation: `Leg::highest_price` without the index.
#[test]
fn notionals_are_measured_at_the_index_where_it_is_above_the_book() {
    let at = |index| {
        let mut exposure = Exposure { spot: spot_leg(dec!(0.10)), future: future_leg(dec!(-10)), ..exposure() };
        (exposure.spot.index, exposure.future.index) = (index, index);
        exposure
    };
    let control = |limits: RiskLimits| Control { limits, ..control(Entry::Active, Duty::Hold) };
    let orders = [order("BTC-USD", Side::Buy, dec!(0.01)), order("BIP-20DEC30-CDE", Side::Sell, dec!(1))];
    let tight = [
        ("maxOrderNotional", RiskLimits { max_order_notional: 601.into(), ..RiskLimits::default() }),
        ("maxPositionNotional", RiskLimits { max_position_notional: 6601.into(), ..RiskLimits::default() }),
        ("maxLegImbalanceNotional", RiskLimits { max_leg_imbalance_notional: 601.into(), ..RiskLimits::default() }),
    ];
    for (limit, limits) in tight {
        for order in &orders {
            let admitted =
                |index| admit(order.clone(), Class::Enter, &at(index), &control(limits.clone()), Contact::Fresh);
            assert!(admitted(None).is_ok() && admitted(Some(dec!(59000))).is_ok(), "{limit}");
            assert_eq!(limit_of(admitted(Some(dec!(60200)))), limit);
        }
    }
    let max_leverage = arbbot_crds::decimal::DecimalString(dec!(0.00661));
    let limits = RiskLimits { max_leverage, ..RiskLimits::default() };
    let short = |index| admit(orders[1].clone(), Class::Enter, &at(index), &control(limits.clone()), Contact::Fresh);
    assert!(short(None).is_ok());
    assert_eq!(limit_of(short(Some(dec!(60200)))), "maxLeverage");
    let most = RiskLimits { max_position_notional: 6001.into(), ..RiskLimits::default() };
    let fits = |index| ["BTC-USD", "BIP-20DEC30-CDE"].map(|product| still_fits(product, &at(index), &most));
    assert_eq!((fits(None), fits(Some(dec!(60200)))), ([true; 2], [false; 2]));
}

#[test]
fn no_limit_denies_an_order_that_lowers_a_leg() {
    let tight = Exposure {
        spot: spot_leg(dec!(2)),
        future: future_leg(dec!(-200)),
        open_orders: 1000,
        orders_last_minute: 1000,
        futures_collateral_quote: dec!(0),
        spot_cost_quote: dec!(0),
    };
    for (class, entry, duty) in [
        (Class::Trim, Entry::Halted, Duty::Hold),
        (Class::Reduce, Entry::ReduceOnly, Duty::Hold),
        (Class::Kill, Entry::Halted, Duty::Flatten),
    ] {
        assert!(admit_now(order("BTC-USD", Side::Sell, dec!(2)), class, &tight, entry, duty).is_ok(), "{class}");
    }
}

#[test]
fn an_order_off_the_products_grid_is_denied() {
    let mut off_tick = order("BIP-20DEC30-CDE", Side::Sell, dec!(1));
    off_tick.kind = OrderKind::ImmediateOrCancel { limit_price: dec!(60001) };
    assert_eq!(limit_of(admit_now(off_tick, Class::Enter, &exposure(), Entry::Active, Duty::Hold)), "price");
    let half = order("BIP-20DEC30-CDE", Side::Sell, dec!(0.5));
    assert_eq!(limit_of(admit_now(half, Class::Enter, &exposure(), Entry::Active, Duty::Hold)), "size");
}

fn class() -> impl Strategy<Value = Class> {
    prop_oneof![Just(Class::Enter), Just(Class::Hedge), Just(Class::Trim), Just(Class::Reduce), Just(Class::Kill)]
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![Just(Entry::Active), Just(Entry::ReduceOnly), Just(Entry::Halted)]
}

fn duty() -> impl Strategy<Value = Duty> {
    prop_oneof![Just(Duty::Hold), Just(Duty::Drain), Just(Duty::Flatten)]
}

fn contact() -> impl Strategy<Value = Contact> {
    prop_oneof![Just(Contact::Fresh), Just(Contact::Late), Just(Contact::Stale), Just(Contact::Lost)]
}

/// The two legs, nearly even, with whatever works on them.
fn any_exposure() -> impl Strategy<Value = Exposure> {
    let working = || (0i64..6, 0i64..6);
    (0i64..42, -3i64..4, working(), working(), 0u32..12, 0u32..65, 0i64..60_000).prop_map(
        |(contracts, ahead, (spot_buys, spot_sells), (buys, sells), open_orders, orders_last_minute, collateral)| {
            let spot = Leg {
                buys: Decimal::new(spot_buys, 2),
                sells: Decimal::new(spot_sells, 2),
                ..spot_leg(Decimal::new((contracts + ahead).max(0), 2))
            };
            let future = Leg { buys: buys.into(), sells: sells.into(), ..future_leg((-contracts).into()) };
            let spot_cost_quote = spot.notional(spot.buys, dec!(60000));
            let futures_collateral_quote = collateral.into();
            Exposure { spot, future, open_orders, orders_last_minute, futures_collateral_quote, spot_cost_quote }
        },
    )
}

fn any_limits() -> impl Strategy<Value = RiskLimits> {
    (0u32..30_000, 0u32..6_000, 0u32..30, 0u32..12_000, 0u32..12, 0u32..65).prop_map(
        |(position, order, leverage, imbalance, open, rate)| RiskLimits {
            max_position_notional: position.into(),
            max_order_notional: order.into(),
            max_leverage: arbbot_crds::decimal::DecimalString(Decimal::new(leverage.into(), 1)),
            max_leg_imbalance_notional: imbalance.into(),
            max_open_orders: open,
            max_orders_per_minute: rate,
            ..RiskLimits::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_global_rejects: 200_000, ..ProptestConfig::default() })]

    /// Invariant 6: whichever of the working and unknown orders fill, and however far, no admitted Enter or Hedge takes
    /// its leg or the futures account beyond a limit, nor further beyond one that price or patch had put it past. The
    /// legs are never further apart than `maxLegImbalanceNotional`. What spot buys cost, the collateral loses. Proven by
    /// mutation: `Leg::worst` of what is owned alone; `Exposure::with` without the order; the collateral as last read.
    #[test]
    fn no_admitted_entry_can_exceed_a_limit_whatever_fills(
        before in any_exposure(), limits in any_limits(), spot in any::<bool>(), size in 1i64..9, hedge in any::<bool>(),
        fills in [0i64..=4, 0i64..=4, 0i64..=4, 0i64..=4, 0i64..=4],
    ) {
        let (product, side, unit) =
            if spot { ("BTC-USD", Side::Buy, dec!(0.01)) } else { ("BIP-20DEC30-CDE", Side::Sell, dec!(1)) };
        let order = order(product, side, Decimal::from(size) * unit);
        let notional = Decimal::from(size) * dec!(0.01) * dec!(60000);
        let class = if hedge { Class::Hedge } else { Class::Enter };
        let control = Control { limits: limits.clone(), ..control(Entry::Active, Duty::Hold) };
        // Only what is admitted counts as a case.
        prop_assume!(admit(order.clone(), class, &before, &control, Contact::Fresh).is_ok());
        // Quarters of each of the five that may fill.
        let part = |whole: Decimal, quarters: i64| whole * Decimal::from(quarters) / dec!(4);
        let own = part(order.size, fills[4]) * side.sign();
        let position = |leg: &Leg, buys, sells| leg.owned + part(leg.buys, buys) - part(leg.sells, sells);
        let spot_held = position(&before.spot, fills[0], fills[1]) + if spot { own } else { dec!(0) };
        let contracts = position(&before.future, fills[2], fills[3]) + if spot { dec!(0) } else { own };
        let (spot_notional, future_notional) = (spot_held.abs() * dec!(60000), contracts.abs() * dec!(600));
        let raised = if spot { spot_notional } else { future_notional };
        prop_assert!(raised <= limits.max_position_notional.0, "{raised} of {}", limits.max_position_notional);
        let bought = part(before.spot.buys, fills[0]) + if spot { own } else { dec!(0) };
        let collateral = before.futures_collateral_quote - bought * dec!(60000);
        prop_assert!(future_notional <= limits.max_leverage.0 * collateral, "{future_notional} behind {collateral}");
        let apart = (spot_held + contracts * dec!(0.01)).abs() * dec!(60000);
        prop_assert!(apart <= limits.max_leg_imbalance_notional.0, "{apart} apart");
        prop_assert!(notional <= limits.max_order_notional.0);
        prop_assert!(before.open_orders < limits.max_open_orders);
        prop_assert!(before.orders_last_minute < limits.max_orders_per_minute);
    }
}

proptest! {
    /// Invariant 6, the other half: whatever the limits are and however far they are exceeded, an order that only
    /// lowers a leg is admitted. Proven by mutation: the limits applied to every class.
    #[test]
    fn no_limit_ever_denies_an_exit(
        before in any_exposure(), limits in any_limits(), spot in any::<bool>(), part in 1i64..=4,
        exit in prop::sample::select(vec![
            (Class::Trim, Entry::Halted, Duty::Hold), (Class::Reduce, Entry::ReduceOnly, Duty::Drain),
            (Class::Kill, Entry::Halted, Duty::Flatten),
        ]),
        no_price in any::<bool>(),
    ) {
        let (class, entry, duty) = exit;
        let mut before = before;
        if no_price {
            (before.spot.mid, before.future.mid) = (None, None);
        }
        let (leg, side, unit) =
            if spot { (&before.spot, Side::Sell, dec!(0.01)) } else { (&before.future, Side::Buy, dec!(1)) };
        let units = (leg.reducible(side) / unit).floor() * Decimal::from(part) / dec!(4);
        let size = units.floor() * unit;
        if size > dec!(0) {
            let control = Control { limits, ..control(entry, duty) };
            let result = admit(order(&leg.product.id, side, size), class, &before, &control, Contact::Fresh);
            prop_assert!(result.is_ok(), "{result:?}");
        }
    }

    /// Invariant 1, SAFETY §2: whatever fills in whatever order, only Enter and Hedge can raise a leg or flip its sign.
    /// Proven by mutation: `Leg::reducible` without what is outstanding.
    #[test]
    fn no_admitted_exit_can_raise_or_flip_a_leg(
        owned in -50i64..50, buys in 0i64..60, sells in 0i64..60, size in 1i64..60, buy in any::<bool>(),
        filled_buys in 0f64..1.0, filled_sells in 0f64..1.0,
        class in class(), entry in entry(), duty in duty(),
    ) {
        let mut future = future_leg(owned.into());
        (future.buys, future.sells) = (buys.into(), sells.into());
        let before = Exposure { future: future.clone(), ..exposure() };
        let side = if buy { Side::Buy } else { Side::Sell };
        let result = admit_now(order("BIP-20DEC30-CDE", side, size.into()), class, &before, entry, duty);
        if result.is_ok() && !class.raises() {
            // The reducing side fills completely, in addition to any part of its earlier orders.
            let part = |whole: i64, share: f64| (whole as f64 * share) as i64;
            let (earlier, sign) = if buy { (part(buys, filled_buys), 1) } else { (part(sells, filled_sells), -1) };
            let after = owned + sign * (earlier + size);
            prop_assert!(after.abs() <= owned.abs() && after * owned >= 0, "{owned} became {after}");
        }
    }

    /// Invariant 1: SAFETY §2's table, and §4's ladder of lost contact. Proven by mutation: Reduce allowed in Halted.
    #[test]
    fn a_class_is_never_admitted_where_the_table_forbids_it(
        class in class(), entry in entry(), duty in duty(), contact in contact(),
    ) {
        let both = Exposure { spot: spot_leg(dec!(0.05)), future: future_leg(dec!(-5)), ..exposure() };
        let side = if class.raises() { Side::Buy } else { Side::Sell };
        let result = admit(order("BTC-USD", side, dec!(0.01)), class, &both, &control(entry, duty), contact);
        let permitted = match class {
            Class::Enter | Class::Hedge => entry == Entry::Active && duty == Duty::Hold && contact == Contact::Fresh,
            Class::Trim => contact < Contact::Lost,
            Class::Reduce => entry < Entry::Halted && duty < Duty::Flatten && contact < Contact::Lost,
            Class::Kill => duty == Duty::Flatten && contact < Contact::Lost,
        };
        prop_assert_eq!(result.is_ok(), permitted);
    }
}
