//! The drain: both legs maker-first down to nothing, proven by the exchange.

use arbbot_crds::arbbot::OnDrainTimeout;
use arbbot_crds::status::DrainPhase;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::execution::drain::DrainView;
use crate::execution::orders::parse_id;

fn class(at: &world::AtVenue) -> Class {
    parse_id(&at.order.client_order_id).unwrap().class
}

fn drain_of(world: &World) -> DrainView {
    world.view().drain.unwrap()
}

fn phase(world: &World) -> DrainPhase {
    drain_of(world).phase
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Fills everything that rests, again and again, for so many seconds.
fn trade_on(world: &mut World, seconds: u64) {
    for _ in 0..seconds * 2 {
        world.fill_all();
        world.pass(Duration::from_millis(500));
    }
}

#[test]
fn a_drain_closes_both_legs_maker_first_and_proves_it_twice() {
    let mut world = World::with_position();
    let before = world.accepted.len();
    world.mode(Mode::Stopped);
    world.pass(Duration::from_millis(500));
    assert_eq!(phase(&world), DrainPhase::ClosingPosition);
    trade_on(&mut world, 60);
    assert_eq!((world.position(SPOT), world.position(FUTURE)), (dec!(0), dec!(0)));
    assert_eq!((phase(&world), world.working()), (DrainPhase::Finished, 0));
    assert!(world.view().proof.flat.confirmed);
    for at in &world.accepted[before..] {
        assert_eq!(class(at), Class::Reduce);
        assert!(matches!(at.order.kind, OrderKind::PostOnly { .. }), "{at:?}");
    }
}

#[test]
fn orders_of_a_drain_are_slices_of_max_order_notional() {
    let mut world = World::with_position();
    world.max_order_notional = 1300;
    world.mode(Mode::Stopped);
    let before = world.accepted.len();
    trade_on(&mut world, 60);
    assert_eq!(phase(&world), DrainPhase::Finished);
    let largest = world.accepted[before..].iter().filter(|at| at.order.product == FUTURE).map(|at| at.order.size).max();
    assert_eq!(largest, Some(dec!(2)));
}

#[test]
fn a_leg_that_stays_ahead_is_followed_from_the_book_after_the_leg_timeout() {
    let mut world = World::with_position();
    world.mode(Mode::Stopped);
    let before = world.accepted.len();
    for _ in 0..40 {
        world.fill_product(FUTURE);
        world.pass(seconds(1));
    }
    assert_eq!(world.position(FUTURE), dec!(0), "{:?}", world.view());
    assert_eq!(phase(&world), DrainPhase::Finished);
    let taken = |at: &&world::AtVenue| matches!(at.order.kind, OrderKind::ImmediateOrCancel { .. });
    assert!(
        world.accepted[before..].iter().filter(taken).all(|at| at.order.product == SPOT && class(at) == Class::Reduce)
    );
    assert!(world.accepted[before..].iter().any(|at| taken(&at)));
}

#[test]
fn a_drain_under_a_halt_waits_says_so_and_goes_on_after_it() {
    let mut world = World::with_position();
    world.mode(Mode::Stopped);
    world.pass(seconds(5));
    world.drain_under(Mode::Halted);
    let before = (world.position(FUTURE), world.accepted.len());
    world.pass(seconds(1000));
    assert_eq!((world.position(FUTURE), world.accepted.len()), before, "nothing is closed under a halt");
    let held = drain_of(&world);
    assert_eq!((held.phase, held.deadline), (DrainPhase::HeldByHalt, None));
    assert_eq!(held.demand.halted_by.as_deref(), Some("ArbPolicy/desk"));
    world.mode(Mode::Stopped);
    world.pass(seconds(1));
    assert_eq!(phase(&world), DrainPhase::ClosingPosition, "a thousand seconds of halt do not count");
    trade_on(&mut world, 60);
    assert_eq!(phase(&world), DrainPhase::Finished);
}

#[test]
fn a_closed_session_keeps_both_legs_and_does_not_count() {
    let mut world = World::with_position();
    world.session_open = false;
    world.pass(seconds(12));
    world.mode(Mode::Stopped);
    let before = (world.position(SPOT), world.position(FUTURE));
    world.pass(seconds(1000));
    assert_eq!((world.position(SPOT), world.position(FUTURE)), before);
    assert_eq!((phase(&world), drain_of(&world).deadline), (DrainPhase::FuturesSessionClosed, None));
    world.session_open = true;
    world.pass(seconds(12));
    let open = drain_of(&world);
    assert_eq!(open.phase, DrainPhase::ClosingPosition);
    assert!(open.deadline.unwrap() > world.now().wall.checked_add(seconds(580)).unwrap());
    trade_on(&mut world, 60);
    assert_eq!(phase(&world), DrainPhase::Finished);
}

#[test]
fn a_timeout_that_holds_goes_on_maker_first_and_is_never_escalated() {
    let mut world = World::with_position();
    world.mode(Mode::Stopped);
    world.pass(seconds(601));
    assert_eq!(phase(&world), DrainPhase::TimedOut);
    assert_eq!(world.view().mode, Some(EffectiveMode::Drain));
    trade_on(&mut world, 60);
    assert_eq!(phase(&world), DrainPhase::Finished);
    assert!(world.accepted.iter().all(|at| class(at) != Class::Kill));
}

#[test]
fn a_timeout_that_flattens_closes_the_rest_as_a_kill_does_and_ends_with_the_mode() {
    let mut world = World::with_position();
    world.params.drain.on_timeout = OnDrainTimeout::Flatten;
    world.mode(Mode::Stopped);
    world.pass(seconds(599));
    assert_eq!((phase(&world), world.view().mode), (DrainPhase::ClosingPosition, Some(EffectiveMode::Drain)));
    world.pass(seconds(12));
    assert_eq!((world.position(SPOT), world.position(FUTURE), world.working()), (dec!(0), dec!(0), 0));
    assert_eq!((phase(&world), world.view().mode), (DrainPhase::Finished, Some(EffectiveMode::Flatten)));
    // No latch: the mode is set back, and that is all.
    world.mode(Mode::Active);
    world.pass(seconds(5));
    assert_eq!((world.view().mode, world.view().drain), (Some(EffectiveMode::Active), None));
    assert!(world.working() > 0);
}

#[test]
fn a_kill_overrides_a_drain() {
    let mut world = World::with_position();
    world.mode(Mode::Stopped);
    world.pass(seconds(1));
    world.kill(KillAction::Flatten);
    world.pass(seconds(10));
    assert!(world.view().proof.flat.confirmed);
    assert!(world.accepted.iter().any(|at| class(at) == Class::Kill));
}

#[test]
fn a_restart_goes_on_with_the_drain_and_its_deadline() {
    let mut world = World::with_position();
    world.mode(Mode::Stopped);
    world.pass(seconds(100));
    let before = drain_of(&world);
    let status = arbbot_crds::status::DrainStatus {
        started_at: Time(before.started_at),
        phase: before.phase,
        deadline: before.deadline.map(Time),
    };
    world.restart(Some(status));
    world.mode(Mode::Stopped);
    world.pass(seconds(3));
    let after = drain_of(&world);
    assert_eq!(after.started_at, before.started_at);
    let moved = after.deadline.unwrap().duration_since(before.deadline.unwrap());
    assert!(moved.as_secs().abs() <= 5, "the deadline moved by {moved}");
    trade_on(&mut world, 60);
    assert_eq!(phase(&world), DrainPhase::Finished);
}

/// Invariant 3, the second half: what only the exchange remembers is taken over. Proven by mutation: `Engine::is_ours`
/// always false.
#[test]
fn a_pod_that_follows_adopts_the_position_and_neither_enters_again_nor_flattens() {
    let mut world = World::with_position();
    world.mode(Mode::Halted);
    world.pass(seconds(3));
    let before = (world.position(SPOT), world.position(FUTURE), world.accepted.len());
    world.restart(None);
    world.mode(Mode::ReduceOnly);
    world.pass(seconds(10));
    let view = world.view();
    assert_eq!((view.spot_owned_base, view.future_owned_contracts), (before.0, before.1));
    assert_eq!(view.reconciliation, Reconciliation::Matches);
    assert_eq!(world.accepted.len(), before.2, "the position is kept as it is");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// SAFETY §5: whatever happened before, a drain ends flat once faults stop, the session is open and somebody trades
    /// with it; it never raises or flips a leg, and Flat is never said before the exchange is flat.
    #[test]
    fn a_drain_ends_flat_from_anywhere(
        before in prop::collection::vec(step(), 1..40),
        after in prop::collection::vec(step(), 0..20),
    ) {
        let mut world = World::new();
        for step in &before {
            apply(&mut world, step);
        }
        world.mode(Mode::Stopped);
        let first = world.accepted.len();
        for step in after.iter().filter(|step| !matches!(step, Step::Mode(_))) {
            apply(&mut world, step);
            if world.view().proof.flat.confirmed {
                prop_assert!(world.position(FUTURE).is_zero() && world.working() == 0);
                prop_assert!(world.position(SPOT) < dec!(0.00002));
            }
        }
        world.faulty = false;
        world.session_open = true;
        world.liquidity = 100;
        world.pass(seconds(60));
        trade_on(&mut world, 60);
        let view = world.view();
        prop_assert_eq!(phase(&world), DrainPhase::Finished, "{:?}", view);
        prop_assert!(world.position(FUTURE).is_zero() && world.working() == 0, "{:?}", view);
        prop_assert!(world.position(SPOT).abs() < dec!(0.00002), "{:?}", view);
        for at in &world.accepted[first..] {
            prop_assert!(matches!(class(at), Class::Reduce | Class::Trim), "{:?}", at);
            let after = at.position_before + at.order.size * at.order.side.sign();
            prop_assert!(after.abs() <= at.position_before.abs() && after * at.position_before >= dec!(0), "{:?}", at);
        }
    }
}
