//! What others do on the bot's account.

use super::world::{self, AtVenue, SPOT, World};
use super::*;
use crate::exchange::{NewOrder, OrderKind, OrderState, OrderStatus, Side};
use crate::execution::orders::mint_id;
use crate::risk::Class;

/// Somebody else's order rests.
fn rests(world: &mut World, id: &str) {
    let order = NewOrder {
        client_order_id: id.to_owned(),
        product: SPOT.to_owned(),
        side: Side::Buy,
        size: dec!(0.01),
        kind: OrderKind::GoodTillCancelled { limit_price: dec!(50000), post_only: true },
    };
    let state = OrderState {
        order_id: format!("venue-{id}"),
        client_order_id: id.to_owned(),
        product: SPOT.to_owned(),
        side: Side::Buy,
        status: OrderStatus::Open,
        filled: dec!(0),
        average_price: dec!(0),
        fees_quote: dec!(0),
        size: Some(order.size),
        created_at: None,
    };
    let (entry, duty) = (Entry::Active, arbbot_crds::control::Duty::Hold);
    world.venue.insert(id.to_owned(), AtVenue { order, state, entry, duty, position_before: dec!(0) });
}

fn working(world: &World, ours: bool) -> usize {
    let working = world.venue.values().filter(|at| !at.state.status.is_terminal());
    working.filter(|at| at.order.client_order_id.starts_with("aaaaaaaa-") == ours).count()
}

/// SAFETY §4, invariant 17. Fails if an order of another bot only counts as one of a person.
#[test]
fn an_order_of_another_bot_halts_and_is_never_touched() {
    let mut world = World::with_position();
    let id = mint_id("bbbbbbbb", 1, 7, Class::Enter);
    rests(&mut world, &id);
    world.pass(Duration::from_secs(15));
    assert_eq!((world.gate.current().0.entry, world.view().foreign_orders), (Entry::Halted, 1));
    assert_eq!((working(&world, true), working(&world, false)), (0, 1));
    let why = world.engine.shared().expect("no restriction").why;
    assert!(why.contains(&id) && why.contains("stop one of the two"), "{why}");
    world.venue.get_mut(&id).unwrap().state.status = OrderStatus::Cancelled;
    world.pass(Duration::from_secs(300));
    assert_eq!(world.gate.current().0.entry, Entry::Halted, "the other bot may come back");
    world.pass(Duration::from_secs(320));
    assert_eq!(world.gate.current().0.entry, Entry::Active);
}

/// Fails if only what works at the moment of a listing counts.
#[test]
fn an_order_of_another_bot_that_was_filled_between_two_listings_halts_and_one_of_a_predecessor_does_not() {
    for (age, entry) in [(1, Entry::Halted), (-3600, Entry::Active)] {
        let mut world = World::new();
        let id = mint_id("bbbbbbbb", 1, 7, Class::Enter);
        rests(&mut world, &id);
        let created_at = world.now().wall.checked_add(k8s_openapi::jiff::SignedDuration::from_secs(age)).ok();
        let state = &mut world.venue.get_mut(&id).unwrap().state;
        (state.status, state.filled, state.created_at) = (OrderStatus::Filled, dec!(0.01), created_at);
        world.shown = Some((dec!(0), dec!(0)));
        world.pass(Duration::from_secs(12));
        assert_eq!(world.gate.current().0.entry, entry, "created {age} s after the first listing");
    }
}

/// Fails if every order of another bot halts for ten minutes: a bot that was created anew would wait for nothing.
#[test]
fn what_a_predecessor_left_at_work_halts_only_until_it_is_gone() {
    let mut world = World::new();
    let id = mint_id("bbbbbbbb", 1, 7, Class::Enter);
    rests(&mut world, &id);
    let hour_ago = k8s_openapi::jiff::SignedDuration::from_hours(-1);
    world.venue.get_mut(&id).unwrap().state.created_at = world.now().wall.checked_add(hour_ago).ok();
    world.pass(Duration::from_secs(12));
    assert_eq!(world.gate.current().0.entry, Entry::Halted);
    world.venue.get_mut(&id).unwrap().state.status = OrderStatus::Cancelled;
    world.pass(Duration::from_secs(12));
    assert_eq!(world.gate.current().0.entry, Entry::Active);
}

#[test]
fn an_order_of_a_person_is_counted_and_nothing_more() {
    let mut world = World::with_position();
    rests(&mut world, "by-hand-1");
    world.pass(Duration::from_secs(15));
    assert_eq!((world.gate.current().0.entry, world.view().foreign_orders), (Entry::Active, 1));
    assert!(working(&world, true) > 0 && working(&world, false) == 1);
}

/// Nothing fills for so long that two snapshots show the same.
fn rest(world: &mut World) {
    world.pass(Duration::from_secs(45));
}

/// Invariant 15. Fails if the spot leg is compared for a deficit only.
#[test]
fn spot_that_somebody_else_brings_closes_entry_and_is_never_sold() {
    let mut world = World::with_position();
    rest(&mut world);
    let (spot, future) = (world.position(SPOT), world.position(world::FUTURE));
    world.shown = Some((spot + dec!(0.5), future));
    rest(&mut world);
    let view = world.view();
    assert!(matches!(view.reconciliation, Reconciliation::Differs(_)) && !view.has_deficit, "{view:?}");
    assert_eq!(world.gate.current().0.entry, Entry::ReduceOnly);
    world.kill(arbbot_crds::arbbot::KillAction::Flatten);
    for _ in 0..40 {
        world.shown = Some((world.position(SPOT) + dec!(0.5), world.position(world::FUTURE)));
        world.pass(Duration::from_secs(1));
    }
    assert_eq!((world.position(SPOT), world.position(world::FUTURE)), (dec!(0), dec!(0)), "more or less was sold");
    world.control(Vec::new());
    world.shown = None;
    rest(&mut world);
    assert_eq!(world.view().reconciliation, Reconciliation::Matches, "it was taken away again");
}

#[test]
fn spot_that_was_there_before_is_no_difference_and_its_owner_may_take_it_away() {
    let mut world = World::with_position();
    world.shown = Some((world.position(SPOT) + dec!(0.5), world.position(world::FUTURE)));
    world.restart(None);
    for left in [dec!(0.5), dec!(0.5), dec!(0.2), dec!(0.2), dec!(0)] {
        for _ in 0..45 {
            world.shown = Some((world.position(SPOT) + left, world.position(world::FUTURE)));
            world.pass(Duration::from_secs(1));
        }
        assert_eq!(world.view().reconciliation, Reconciliation::Matches, "{left} left");
    }
    world.shown = Some((world.position(SPOT) + dec!(0.2), world.position(world::FUTURE)));
    rest(&mut world);
    assert!(matches!(world.view().reconciliation, Reconciliation::Differs(_)), "what went and came back is new");
}
