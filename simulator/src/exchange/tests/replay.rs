//! Markets that follow a recording.

use std::sync::Arc;

use market_recording::Series;

use super::*;

fn replaying(csv: &str) -> World {
    let replay = Some(Arc::new(Series::parse(csv).unwrap()));
    let now = Now { time: "2026-04-07T10:00:00Z".parse().unwrap(), monotonic_ns: 0, boottime_ns: 0 };
    let exchange = Exchange::new(Settings { replay, ..Settings::default() }, listings(), now);
    World { exchange, now, orders: 0 }
}

#[test]
fn markets_follow_a_recording() {
    let csv = "0,BTC-USD,70000\n60,BTC-USD,71000\n0,BIP-20DEC30-CDE,70100,0.00002\n60,BIP-20DEC30-CDE,71100\n";
    let mut world = replaying(csv);
    let mids = |world: &World| [0, 1].map(|i: usize| world.exchange.markets[i].book.mid().unwrap());
    let near = |mids: [Decimal; 2], wanted: [Decimal; 2]| {
        mids.iter().zip(wanted).all(|(mid, wanted)| (mid - wanted).abs() < wanted * dec!(0.001))
    };
    assert!(near(mids(&world), [dec!(70000), dec!(70100)]));
    (0..650).for_each(|_| world.tick());
    assert!(near(mids(&world), [dec!(71000), dec!(71100)]), "{:?}", mids(&world));
    assert_eq!(world.exchange.markets[0].index, dec!(71000));
}

#[test]
fn recorded_best_prices_are_shown_after_every_step_whoever_took_from_them() {
    let mut world = replaying("0,BTC-USD,70000,,69999.5,70000.5\n30,BTC-USD,70100,,70099.99,70100.01\n");
    for step in 1..=600 {
        world.tick();
        let shown = [Side::Buy, Side::Sell].map(|side| world.best(BTC, side));
        let wanted = if step < 300 { [dec!(69999.5), dec!(70000.5)] } else { [dec!(70099.99), dec!(70100.01)] };
        assert_eq!(shown, wanted, "at step {step}");
    }
    world.check();
}

#[test]
fn each_hour_ends_with_the_rate_that_the_recording_shows_then_unless_a_fault_gives_another() {
    let csv = format!("0,{BIP},70000,0.00001\n3600,{BIP},,0.00002\n7200,{BIP},,0.00003\n");
    let mut world = replaying(&csv);
    let rate = |world: &World| world.exchange.markets[1].funding.as_ref().unwrap().rate;
    assert_eq!(rate(&world), dec!(0.00001));
    let hour = |world: &mut World| {
        world.pass(3_600_000);
        world.exchange.advance(world.now);
        rate(world)
    };
    assert_eq!(hour(&mut world), dec!(0.00002));
    world.exchange.markets[1].funding.as_mut().unwrap().spike = Some(dec!(0.5));
    assert_eq!(hour(&mut world), dec!(0.5));
    assert_eq!(hour(&mut world), dec!(0.00003), "the last one holds");
}
