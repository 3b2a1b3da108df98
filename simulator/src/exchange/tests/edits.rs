//! Edits: accepted first, made later, and never made once they have become impossible.

use super::super::edit::{Change, EditFailure};
use super::configurations::frozen;
use super::*;

/// Lets accepted edits happen.
fn happen(world: &mut World) {
    world.pass(10);
    world.exchange.advance(world.now);
}

fn change(size: Decimal, price: Decimal) -> Change {
    Change { size: Some(size), price: Some(price) }
}

#[test]
fn an_edit_is_accepted_first_and_happens_later() {
    let mut world = frozen();
    let id = world.place(ALICE, BTC, Side::Buy, gtc(dec!(0.1), dec!(65000), true)).unwrap();
    world.exchange.edit(world.now, ALICE, id, change(dec!(0.2), dec!(64000))).unwrap();
    let limit = |world: &World| world.exchange.order(id).unwrap().terms.limit_price;
    assert_eq!((world.status(id), limit(&world)), (Status::EditQueued, Some(dec!(65000))));
    assert_eq!(world.exchange.markets[0].book.size_at(Side::Buy, dec!(65000)), dec!(0.1), "it works as it was");
    let again = world.exchange.edit(world.now, ALICE, id, change(dec!(0.3), dec!(64000))).unwrap_err();
    assert_eq!(again.failure, EditFailure::OnlyOpenOrdersCanBeEdited);
    world.check();
    happen(&mut world);
    assert_eq!((world.status(id), limit(&world)), (Status::Open, Some(dec!(64000))));
    assert_eq!(world.exchange.markets[0].book.size_at(Side::Buy, dec!(65000)), dec!(0));
    assert_eq!(world.exchange.markets[0].book.size_at(Side::Buy, dec!(64000)), dec!(0.2));
    world.check();
}

#[test]
fn an_order_that_fills_too_far_before_its_edit_stays_as_it_was() {
    let mut world = frozen();
    let price = world.best(BTC, Side::Buy) + dec!(0.01);
    let id = world.place(ALICE, BTC, Side::Sell, gtc(dec!(0.02), price, true)).unwrap();
    world.exchange.edit(world.now, ALICE, id, change(dec!(0.01), price)).unwrap();
    world.place(BOB, BTC, Side::Buy, market(dec!(0.015))).unwrap();
    happen(&mut world);
    let order = world.exchange.order(id).unwrap();
    assert_eq!((order.status, order.size, order.filled_size), (Status::Open, dec!(0.02), dec!(0.015)));
    world.check();
}

#[test]
fn a_cancel_overtakes_an_edit() {
    let mut world = frozen();
    let id = world.place(ALICE, BTC, Side::Buy, gtc(dec!(0.1), dec!(65000), true)).unwrap();
    world.exchange.edit(world.now, ALICE, id, change(dec!(0.2), dec!(64000))).unwrap();
    world.exchange.request_cancel(world.now, ALICE, id).unwrap();
    happen(&mut world);
    assert_eq!((world.status(id), world.exchange.timers()), (Status::Cancelled, 0));
    assert_eq!(world.exchange.markets[0].book.size_at(Side::Buy, dec!(64000)), dec!(0));
    world.check();
}

#[test]
fn an_edit_keeps_its_place_only_if_it_gets_smaller() {
    for (size, first_is_filled) in [(dec!(0.01), true), (dec!(0.03), false)] {
        let mut world = frozen();
        let price = world.best(BTC, Side::Buy) + dec!(0.01);
        let first = world.place(ALICE, BTC, Side::Sell, gtc(dec!(0.02), price, true)).unwrap();
        let second = world.place(BOB, BTC, Side::Sell, gtc(dec!(0.02), price, true)).unwrap();
        world.exchange.edit(world.now, ALICE, first, Change { size: Some(size), price: Some(price) }).unwrap();
        happen(&mut world);
        world.exchange.open_portfolio(world.now, Uuid::from_u128(9), "taker", DEPOSIT);
        world.place(Uuid::from_u128(9), BTC, Side::Buy, market(dec!(0.01))).unwrap();
        assert_eq!(
            (world.filled(first) > dec!(0), world.filled(second) > dec!(0)),
            (first_is_filled, !first_is_filled)
        );
        world.check();
    }
}

#[test]
fn edits_that_cannot_be_are_refused_with_the_reason() {
    let mut world = frozen();
    let spot = world.place(ALICE, BTC, Side::Buy, gtc(dec!(0.1), dec!(65000), true)).unwrap();
    let future = world.place(ALICE, BIP, Side::Buy, gtc(dec!(1), dec!(65000), true)).unwrap();
    let mut edit = |owner, id, size: Option<Decimal>, price: Option<Decimal>| {
        let refused = world.exchange.edit(world.now, owner, id, Change { size, price }).unwrap_err();
        (refused.failure, refused.rule)
    };
    let (size, price) = (Some(dec!(0.2)), Some(dec!(64000)));
    assert_eq!(edit(ALICE, spot, None, price).0, EditFailure::InvalidEditedSize);
    assert_eq!(edit(ALICE, spot, size, None).0, EditFailure::InvalidEditedPrice);
    assert_eq!(edit(BOB, spot, size, price).0, EditFailure::OrderNotFound);
    assert_eq!(edit(ALICE, future, Some(dec!(2)), price).0, EditFailure::CannotEditFuturesOrder);
    let same = edit(ALICE, spot, Some(dec!(0.1)), Some(dec!(65000))).0;
    assert_eq!(same, EditFailure::EditRequestEqualToOriginalRequest);
    for (size, price, rule) in [
        (dec!(100), dec!(64000), Reason::InsufficientFund),
        (dec!(0.2), dec!(64000.001), Reason::InvalidPricePrecision),
        (dec!(0.2), dec!(71000), Reason::InvalidLimitPricePostOnly),
    ] {
        let refused = edit(ALICE, spot, Some(size), Some(price));
        assert_eq!(refused, (EditFailure::CommanderRejectedEditOrder, Some(rule)));
    }
    world.check();
}
