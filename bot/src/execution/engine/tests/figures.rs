//! What the engine tells the guards.

use super::*;

#[test]
fn funding_is_part_of_the_equity_and_before_the_books_are_read_there_is_none() {
    let world = World::with_position();
    let (control, _) = world.gate.current();
    let equity = |funding| world.engine.figures(&control, funding, world.now()).equity_quote;
    let traded = equity(Some(Decimal::ZERO));
    assert!(traded.is_some());
    assert_eq!(traded, world.view().pnl_quote);
    assert_eq!(equity(Some(dec!(-12.5))), traded.map(|traded| traded - dec!(12.5)));
    assert_eq!(equity(None), None);
}

/// Fails when the legs are marked at whatever was told last (mutation: `apart > ONE_INSTANT` is left out): a market that moves
/// while one leg is silent is a profit that nobody made.
#[test]
fn an_equity_whose_legs_were_priced_at_different_times_is_not_known() {
    let mut world = World::with_position();
    let (control, _) = world.gate.current();
    let equity = |world: &World| world.engine.figures(&control, Some(Decimal::ZERO), world.now()).equity_quote;
    let now = world.now();
    let touch = world.engine.touch(SPOT, now).unwrap();
    let told = |world: &mut World, at: Now, product: &str| {
        let touch = VenueEvent::Touch { product: product.to_owned(), touch: Some(touch) };
        world.engine.handle(Event::Venue(touch), &world.gate, at);
    };
    told(&mut world, now, FUTURE);
    let later = |seconds| Now { boot: now.boot + Duration::from_secs(seconds), wall: now.wall };
    told(&mut world, later(2), SPOT);
    assert!(equity(&world).is_some(), "two seconds are one instant");
    told(&mut world, later(3), SPOT);
    assert_eq!(equity(&world), None);
    told(&mut world, later(3), FUTURE);
    assert!(equity(&world).is_some());
}

/// Proven by mutation: spending that no fill is noted in; that is never forgotten.
#[test]
fn the_collateral_loses_what_spot_buys_cost_until_it_is_read_again() {
    let mut world = World::new();
    let cost = |world: &World| world.engine.exposure(world.now()).unwrap().spot_cost_quote;
    let outstanding = |world: &World| {
        let buys = world.venue.values().filter(|at| at.order.product == SPOT && !at.state.status.is_terminal());
        buys.map(|at| at.order.size * at.order.limit_price().unwrap()).sum::<rust_decimal::Decimal>()
    };
    world.pass(Duration::from_secs(3));
    assert!(outstanding(&world) > dec!(0));
    assert_eq!(cost(&world), outstanding(&world));
    world.fill_product(SPOT);
    assert_eq!(cost(&world), dec!(600) + outstanding(&world), "filled at 60,000");
    // The next reading began before the fill has surely settled, the one after it did not.
    let snapshot = world.snapshot();
    world.give(snapshot);
    assert_eq!(cost(&world), dec!(600) + outstanding(&world));
    world.pass(Duration::from_secs(3));
    let snapshot = world.snapshot();
    world.give(snapshot);
    assert_eq!(cost(&world), outstanding(&world));
}

/// Fails when the index never grows old, and when it is that of the future's leg alone.
#[test]
fn both_legs_are_measured_at_the_index_while_it_is_fresh() {
    let mut world = World::new();
    let seen = |world: &World| {
        let exposure = world.engine.exposure(world.now()).unwrap();
        [exposure.spot.index, exposure.future.index]
    };
    assert_eq!(seen(&world), [None; 2]);
    world.index = Some(dec!(60200));
    world.pass(Duration::from_secs(15));
    assert_eq!(seen(&world), [world.index; 2]);
    world.faulty = true;
    world.pass(Duration::from_secs(31));
    assert_eq!(seen(&world), [None; 2], "nothing was read for half a minute");
}
