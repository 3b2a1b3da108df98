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

#[test]
fn no_limit_denies_an_order_that_lowers_a_leg() {
    let tight = Exposure {
        spot: spot_leg(dec!(2)),
        future: future_leg(dec!(-200)),
        open_orders: 1000,
        orders_last_minute: 1000,
        futures_collateral_quote: dec!(0),
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

proptest! {
    /// SAFETY §2: whatever fills in whatever order, only Enter and Hedge can raise a leg or flip its sign.
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

    /// SAFETY §2's table, and §4's ladder of lost contact.
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
