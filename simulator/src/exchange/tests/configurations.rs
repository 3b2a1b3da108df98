//! One example of each kind of order and of what the clearing house does.

use super::super::order::configuration::{Bracket, Scaled, StopDirection, StopLimit, Twap};
use super::*;

/// A world in which only the test trades and moves prices.
pub(super) fn frozen() -> World {
    let mut world = World::new(1);
    world.place(ALICE, BTC, Side::Buy, market(dec!(1))).unwrap();
    world.place(BOB, BTC, Side::Buy, market(dec!(1))).unwrap();
    world.exchange.frozen = true;
    world
}

impl World {
    pub(super) fn filled(&self, id: Uuid) -> Decimal {
        self.exchange.order(id).unwrap().filled_size
    }

    fn usd(&self, owner: Uuid) -> Balance {
        self.exchange.portfolios[&owner].balance("USD")
    }
}

#[test]
fn a_stop_waits_for_its_price_and_is_a_limit_order_then() {
    let mut world = World::new(1);
    world.place(ALICE, BTC, Side::Buy, market(dec!(1))).unwrap();
    let bid = world.best(BTC, Side::Buy);
    let price = |percent: i64| {
        let factor = Decimal::ONE + Decimal::new(percent, 2);
        Some((bid * factor).round_dp(2))
    };
    let stop = OrderConfiguration::StopLimitStopLimitGtc(StopLimit {
        base_size: Some(dec!(0.01)),
        limit_price: price(-5),
        stop_price: price(-1),
        stop_direction: StopDirection::Down,
    });
    let id = world.place(ALICE, BTC, Side::Sell, stop).unwrap();
    (0..50).for_each(|_| world.tick());
    assert_eq!((world.status(id), world.filled(id)), (Status::Open, dec!(0)));
    world.exchange.jump_index(0, -200);
    (0..50).for_each(|_| world.tick());
    assert_eq!(world.status(id), Status::Filled);
    assert!(world.exchange.order(id).unwrap().triggered);
    world.check();
}

#[test]
fn a_bracket_takes_profit_or_stops_the_loss() {
    for (bps, triggered) in [(300, false), (-300, true)] {
        let mut world = World::new(1);
        world.place(ALICE, BTC, Side::Buy, market(dec!(1))).unwrap();
        let bid = world.best(BTC, Side::Buy);
        let bracket = OrderConfiguration::TriggerBracketGtc(Bracket {
            base_size: Some(dec!(0.01)),
            limit_price: Some((bid * dec!(1.02)).round_dp(2)),
            stop_trigger_price: Some((bid * dec!(0.98)).round_dp(2)),
        });
        let id = world.place(ALICE, BTC, Side::Sell, bracket).unwrap();
        world.tick();
        assert_eq!(world.status(id), Status::Open);
        world.exchange.jump_index(0, bps);
        (0..50).for_each(|_| world.tick());
        assert_eq!((world.status(id), world.exchange.order(id).unwrap().triggered), (Status::Filled, triggered));
        world.check();
    }
}

#[test]
fn a_twap_trades_in_equal_slices_and_ends_with_its_time() {
    let mut world = World::new(1);
    let offer = world.best(BTC, Side::Sell);
    let end = world.now.time.checked_add(SignedDuration::from_secs(4)).unwrap();
    let twap = |limit: Decimal| {
        OrderConfiguration::TwapLimitGtd(Twap {
            base_size: Some(dec!(0.04)),
            limit_price: Some(limit.round_dp(2)),
            start_time: Some(world.now.time),
            end_time: Some(end),
            number_buckets: "4".into(),
            bucket_duration: "1s".into(),
            ..Twap::default()
        })
    };
    let (near, far) = (twap(offer * dec!(1.02)), twap(offer * dec!(0.9)));
    let filled = world.place(ALICE, BTC, Side::Buy, near).unwrap();
    let expired = world.place(BOB, BTC, Side::Buy, far).unwrap();
    for slice in 1..=4 {
        assert_eq!(world.filled(filled), dec!(0.01) * Decimal::from(slice));
        world.pass(1000);
        world.exchange.advance(world.now);
    }
    assert_eq!((world.status(filled), world.status(expired)), (Status::Filled, Status::Expired));
    assert_eq!(world.usd(BOB), Balance { total: DEPOSIT, hold: dec!(0) });
    world.check();
}

#[test]
fn a_scaled_order_rests_at_several_prices_and_holds_for_each() {
    let mut world = frozen();
    let before = world.usd(ALICE);
    let scaled = |distribution: &str| {
        OrderConfiguration::ScaledLimitGtc(Scaled {
            base_size: Some(dec!(0.6)),
            num_orders: 3,
            min_price: Some(dec!(60000)),
            max_price: Some(dec!(62000)),
            size_distribution: distribution.into(),
            ..Scaled::default()
        })
    };
    let id = world.place(ALICE, BTC, Side::Buy, scaled("INCREASING")).unwrap();
    let book = &world.exchange.markets[0].book;
    let resting = [dec!(60000), dec!(61000), dec!(62000)].map(|price| book.size_at(Side::Buy, price));
    assert_eq!(resting, [dec!(0.1), dec!(0.2), dec!(0.3)]);
    let value = dec!(0.1) * dec!(60000) + dec!(0.2) * dec!(61000) + dec!(0.3) * dec!(62000);
    assert_eq!(world.usd(ALICE).hold, before.hold + value * dec!(1.0018));
    world.exchange.request_cancel(world.now, ALICE, id).unwrap();
    world.pass(10);
    world.exchange.advance(world.now);
    assert_eq!(world.exchange.markets[0].book.size_at(Side::Buy, dec!(61000)), dec!(0));
    assert_eq!(world.usd(ALICE), before);
    world.check();
}

#[test]
fn nobody_trades_with_himself() {
    let mut world = frozen();
    let price = world.best(BTC, Side::Buy) + dec!(0.01);
    let resting = world.place(ALICE, BTC, Side::Sell, gtc(dec!(0.02), price, true)).unwrap();
    let newer = world.place(ALICE, BTC, Side::Buy, gtc(dec!(0.02), price, false)).unwrap();
    assert_eq!((world.status(resting), world.status(newer)), (Status::Open, Status::Cancelled));
    world.place(BOB, BTC, Side::Buy, gtc(dec!(0.02), price, false)).unwrap();
    assert_eq!(world.status(resting), Status::Filled, "with others it trades");
    world.check();
}

#[test]
fn an_account_below_its_maintenance_margin_is_closed() {
    let mut world = World::new(1);
    world.place(ALICE, BIP, Side::Sell, market(dec!(500))).unwrap();
    let index = world.exchange.market_index(BIP).unwrap();
    // 350,000 USD short and a million of collateral: the spot leg takes most of it away.
    world.place(ALICE, BTC, Side::Buy, market(dec!(10))).unwrap();
    let resting = world.place(ALICE, BIP, Side::Sell, gtc(dec!(1), dec!(150000), true)).unwrap();
    world.tick();
    assert_eq!(world.exchange.position(ALICE, index), dec!(-500));
    world.exchange.jump_index(0, 6000);
    (0..600).for_each(|_| world.tick());
    assert_eq!(world.exchange.position(ALICE, index), dec!(0));
    assert_eq!(world.status(resting), Status::Cancelled);
    assert!(!world.exchange.portfolios[&ALICE].liquidating);
    let liquidations = world.exchange.orders_of(ALICE).filter(|o| o.liquidation).count();
    assert!(liquidations > 0);
    world.check();
}

#[test]
fn profit_and_loss_are_paid_every_day_and_equity_does_not_change() {
    let mut world = World::new(1);
    world.place(ALICE, BIP, Side::Sell, market(dec!(10))).unwrap();
    world.exchange.jump_index(0, 100);
    (0..20).for_each(|_| world.tick());
    world.exchange.frozen = true;
    let settlement = world.exchange.calendar.next_settlement;
    world.now.time = settlement.checked_sub(SignedDuration::from_secs(1)).unwrap();
    world.exchange.tick(world.now);
    // Funding accrues in the same second.
    let unfunded = |world: &World| {
        let alice = &world.exchange.portfolios[&ALICE];
        world.exchange.equity(alice) - alice.positions[&1].funding_accrued
    };
    let (cash, before) = (world.usd(ALICE).total, unfunded(&world));
    let entry = world.exchange.portfolios[&ALICE].positions[&1].average_entry(dec!(0.01));
    world.pass(1000);
    world.exchange.tick(world.now);
    let alice = &world.exchange.portfolios[&ALICE];
    let position = &alice.positions[&1];
    assert!(position.variation < dec!(-50), "the short lost about 70 USD: {}", position.variation);
    assert_eq!(alice.balance("USD").total, cash + position.variation);
    assert_eq!(unfunded(&world), before);
    assert_eq!(position.average_entry(dec!(0.01)), entry);
    world.check();
}

#[test]
fn futures_are_closed_in_the_weekly_break_and_spot_is_not() {
    let mut world = World::new(1);
    // Friday 10 April 2026, 17:30 in New York.
    world.now.time = "2026-04-10T21:30:00Z".parse().unwrap();
    world.tick();
    let refused = world.place(ALICE, BIP, Side::Buy, market(dec!(1))).unwrap_err();
    assert_eq!(refused.reason, Reason::InvalidFcmTradingSession);
    world.place(ALICE, BTC, Side::Buy, market(dec!(0.01))).unwrap();
    world.now.time = "2026-04-10T22:00:00Z".parse().unwrap();
    world.tick();
    world.place(ALICE, BIP, Side::Buy, market(dec!(1))).unwrap();
}

#[test]
fn margin_rises_at_four_in_new_york() {
    let mut world = World::new(1);
    world.exchange.frozen = true;
    let margin = |world: &mut World, time: &str| {
        world.now.time = time.parse().unwrap();
        world.exchange.tick(world.now);
        let alice = &world.exchange.portfolios[&ALICE];
        let value = dec!(-10) * dec!(0.01) * world.exchange.markets[1].mark();
        (world.exchange.position_margin(alice) / value).abs()
    };
    world.place(ALICE, BIP, Side::Sell, market(dec!(10))).unwrap();
    assert_eq!(margin(&mut world, "2026-04-07T19:59:59Z"), dec!(0.1));
    assert_eq!(margin(&mut world, "2026-04-07T20:00:00Z"), dec!(0.306));
    assert_eq!(margin(&mut world, "2026-04-08T12:00:00Z"), dec!(0.1));
    world.exchange.portfolios.get_mut(&ALICE).unwrap().intraday_margin = false;
    assert_eq!(margin(&mut world, "2026-04-08T12:00:01Z"), dec!(0.306));
}
