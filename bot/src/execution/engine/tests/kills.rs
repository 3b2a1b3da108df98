//! At what price a kill closes, and from when its deadline counts.

use super::*;
use arbbot_crds::control::Restriction;
use world::AtVenue;

fn flatten(world: &mut World) {
    world.control(vec![Restriction::kill("incident/test", KillAction::Flatten, "test")]);
}

fn time_passes(world: &mut World, minutes: u64) {
    world.clock.advance(Duration::from_secs(minutes * 60));
    world.gate.in_contact(world.clock.boottime());
    world.pass(Duration::from_secs(1));
}

/// How far from the mid price it may fill, in basis points; None: at market.
fn bound_bps(world: &World, at: &AtVenue) -> Option<Decimal> {
    let mid = world.touch.mid();
    at.order.limit_price().map(|price| (price - mid) * at.order.side.sign() / mid * dec!(10000))
}

/// Mutations that must fail it: `flatten_since` set with the halt that came before.
#[test]
fn a_kill_that_only_cancelled_for_an_hour_begins_to_close_inside_the_slippage() {
    let mut world = World::with_position();
    world.kill(KillAction::CancelOrders);
    world.pass(Duration::from_secs(10));
    time_passes(&mut world, 60);
    let before = world.accepted.len();
    flatten(&mut world);
    let first = bound_bps(&world, &world.accepted[before]);
    assert!(first.is_some_and(|bps| bps <= dec!(50)), "{first:?}");
    world.pass(Duration::from_secs(10));
    assert!(world.view().proof.flat.confirmed);
}

/// Mutations that must fail it: neither `kill_began` nor `flatten_since` set anew once the kill has finished.
#[test]
fn a_late_fill_of_a_finished_kill_is_closed_inside_the_slippage() {
    let mut world = World::with_position();
    world.fill(0, 30, true);
    flatten(&mut world);
    world.pass(Duration::from_secs(10));
    assert!(world.view().proof.flat.confirmed);
    time_passes(&mut world, 10);
    let before = world.accepted.len();
    let cancelled = |at: &&mut AtVenue| at.order.product == SPOT && at.state.filled < at.order.size;
    let late = world.venue.values_mut().find(cancelled).unwrap();
    late.state.filled = late.order.size;
    let id = late.order.client_order_id.clone();
    let news = world.news(&id);
    world.give(news);
    let first = bound_bps(&world, &world.accepted[before]);
    assert!(first.is_some_and(|bps| bps <= dec!(50)), "{first:?}");
    world.pass(Duration::from_secs(10));
    assert!(world.view().proof.flat.confirmed);
}

/// Mutations that must fail it: `BLIND_AFTER` counted from when the kill began; the deadline from the restart.
#[test]
fn a_restart_in_the_middle_of_a_kill_waits_for_prices_and_keeps_the_deadline() {
    let mut world = World::with_position();
    world.liquidity = 0;
    flatten(&mut world);
    world.pass(Duration::from_secs(60));
    world.untold = vec![SPOT, FUTURE];
    world.restart(None);
    let before = world.accepted.len();
    flatten(&mut world);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.accepted.len(), before, "no price is there yet");
    world.untold.clear();
    world.pass(Duration::from_secs(1));
    let first = bound_bps(&world, &world.accepted[before]);
    assert!(first.is_some_and(|bps| bps <= dec!(50)), "{first:?}");
    world.pass(Duration::from_secs(60));
    assert_eq!(bound_bps(&world, world.accepted.last().unwrap()), None, "two minutes are over");
}
