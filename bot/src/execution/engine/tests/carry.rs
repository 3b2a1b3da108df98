//! What funding, costs and collateral make the engine do.

use arbbot_crds::arbbot::Mode;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;

use super::world::AtVenue;
use super::*;
use crate::ledger::OrderRecord;
use crate::strategy::funding_carry::edge::Stance;
use crate::testing::{carry_terms, future_terms};

/// The exchange shows the next hours, all with this rate.
fn hours(world: &mut World, count: u32, rate: Decimal) {
    for _ in 0..count {
        let hour = world.future_terms.funding_time.unwrap();
        world.future_terms.funding_time = hour.checked_add(SignedDuration::from_hours(1)).ok();
        world.future_terms.funding_rate = rate;
        // A snapshot at least every ten seconds sees it.
        world.pass(Duration::from_secs(11));
    }
}

fn terms(world: &mut World, change: impl FnOnce(&mut crate::strategy::funding_carry::edge::Terms)) {
    change(&mut world.params.carry);
    world.control(Vec::new());
}

fn legs(world: &World) -> (Decimal, Decimal) {
    (world.position(SPOT) / dec!(0.01), -world.position(FUTURE))
}

/// Somebody trades with whatever rests, until nothing happens any more.
fn trade(world: &mut World) {
    for _ in 0..40 {
        world.fill_all();
        world.pass(Duration::from_millis(500));
    }
}

#[test]
fn nothing_is_entered_until_enough_hours_of_funding_were_seen() {
    let mut world = World::before_funding();
    terms(&mut world, |terms| terms.min_samples = 3);
    world.future_terms = future_terms();
    world.pass(Duration::from_secs(11));
    hours(&mut world, 1, dec!(0.00003));
    assert!(world.accepted.is_empty(), "{:?}", world.view().carry);
    assert_eq!(world.view().carry.why, "waiting: 2 of 3 hours of funding seen (entry.minSamples)");
    hours(&mut world, 1, dec!(0.00003));
    assert!(!world.accepted.is_empty(), "{:?}", world.view().carry);
}

#[test]
fn a_restart_knows_the_hours_that_the_ledger_remembers() {
    let hour = |n: i64| Timestamp::from_second(n * 3600).unwrap();
    let rates = (1..30).map(|n| (hour(n), dec!(0.00003)));
    let id = Identity { uid8: "aaaaaaaa".into(), spot_product: SPOT.into(), future_product: FUTURE.into() };
    let engine = Engine::new(id, params(), Orders::default(), None).remembering(rates);
    let outlook = engine.carry.history_outlook(carry_terms()).unwrap();
    assert_eq!((outlook.samples, outlook.rate), (29, dec!(0.00003)));
}

#[test]
fn too_little_funding_waits_with_what_is_there_and_says_why() {
    let mut world = World::with_position();
    // The mean of both hours is nothing.
    hours(&mut world, 1, dec!(-0.00003));
    trade(&mut world);
    let before = legs(&world);
    assert_eq!(world.view().carry.stance, Stance::Wait);
    assert!(world.view().carry.why.contains("below entry.minEdgeBps 15"), "{}", world.view().carry.why);
    world.pass(Duration::from_secs(30));
    trade(&mut world);
    assert_eq!(legs(&world), before);
    assert!((before.0 - before.1).abs() < dec!(1), "an entry under way is completed: {before:?}");
}

#[test]
fn long_and_dear_negative_funding_closes_both_legs_and_does_not_come_back_by_itself() {
    let mut world = World::with_position();
    terms(&mut world, |terms| terms.min_hold = Duration::ZERO);
    hours(&mut world, 11, dec!(-0.0001));
    assert_ne!(legs(&world), (dec!(0), dec!(0)), "eleven hours are not twelve");
    hours(&mut world, 1, dec!(-0.0001));
    assert_eq!(world.view().carry.stance, Stance::Exit);
    trade(&mut world);
    assert_eq!(legs(&world), (dec!(0), dec!(0)));
    hours(&mut world, 1, dec!(0.00003));
    trade(&mut world);
    assert_eq!((world.view().carry.stance, legs(&world)), (Stance::Wait, (dec!(0), dec!(0))));
}

/// Fails if the time of entry is not noted, or not forgotten once the bot is flat.
#[test]
fn a_young_position_is_not_closed_for_negative_funding_until_the_minimum_hold_is_over() {
    let mut world = World::with_position();
    let entered_at = world.engine.carry.entered_at().unwrap();
    assert!(entered_at < world.now().wall);
    hours(&mut world, 12, dec!(-0.0001));
    assert_eq!((world.view().carry.stance, legs(&world) == (dec!(0), dec!(0))), (Stance::Wait, false));
    assert!(world.view().carry.why.starts_with("holding: "), "{}", world.view().carry.why);
    // A spec that is patched counts at once.
    terms(&mut world, |terms| terms.min_hold = Duration::from_secs(60));
    world.pass(Duration::from_secs(1));
    assert_eq!((world.view().carry.stance, world.engine.carry.entered_at()), (Stance::Exit, Some(entered_at)));
    trade(&mut world);
    assert_eq!((legs(&world), world.engine.carry.entered_at()), ((dec!(0), dec!(0)), None));
}

/// Fails if a guard, a mode or a kill asks for the age of the position.
#[test]
fn nothing_but_the_strategy_waits_for_the_minimum_hold() {
    for close in [|world: &mut World| world.mode(Mode::Stopped), |world: &mut World| world.kill(KillAction::Flatten)] {
        let mut world = World::with_position();
        hours(&mut world, 12, dec!(-0.0001));
        assert!(world.view().carry.why.starts_with("holding: "), "{}", world.view().carry.why);
        close(&mut world);
        trade(&mut world);
        assert_eq!(legs(&world), (dec!(0), dec!(0)));
    }
}

/// Fails if a process takes its own beginning for the entry.
#[test]
fn the_time_of_entry_survives_a_restart() {
    let mut world = World::with_position();
    let created_at = world.now().wall.checked_sub(Duration::from_secs(20 * 3600)).unwrap();
    let record = |at: &AtVenue| OrderRecord::imported(&at.state, 1, created_at);
    world.restart_with(world.venue.values().map(record).collect(), None);
    assert_eq!(world.engine.carry.entered_at(), Some(created_at));
    world.pass(Duration::from_secs(15));
    assert!(!world.view().carry.why.is_empty(), "it has not decided");
    assert_eq!(world.engine.carry.entered_at(), Some(created_at));
}

/// Fails if it counts from the restart.
#[test]
fn a_position_that_no_ledger_explains_is_as_old_as_the_first_order_of_the_bot() {
    let mut carry = Carry::default();
    let at = |second| Timestamp::from_second(second).unwrap();
    carry.note_entry(false, Some(at(5)), at(1000));
    assert_eq!(carry.entered_at(), Some(at(5)));
    carry.note_entry(false, Some(at(5)), at(1001));
    assert_eq!(carry.entered_at(), Some(at(5)));
    carry.note_entry(false, Some(at(5)), at(3));
    assert_eq!(carry.entered_at(), Some(at(3)), "the clock was ahead");
}

#[test]
fn a_shortage_of_collateral_reduces_both_legs_together_and_tells_how_much_is_missing() {
    let mut world = World::new();
    trade(&mut world);
    assert_eq!(legs(&world), (dec!(20), dec!(20)));
    world.collateral_quote = dec!(8000);
    world.pass(Duration::from_secs(11));
    let mut apart = dec!(0);
    for _ in 0..40 {
        world.fill(0, 100, true);
        world.pass(Duration::from_millis(500));
        let (long, short) = legs(&world);
        apart = (long - short).abs().max(apart);
    }
    let (long, short) = legs(&world);
    assert!(long == short && short < dec!(20) && short > dec!(0), "{long} {short}");
    assert!(apart <= dec!(2), "{apart} contracts apart on the way");
    assert!(world.view().carry.shortage.unwrap().unwrap().missing_quote > dec!(0));
}

#[test]
fn a_strategy_that_waits_does_not_hold_up_a_kill_or_a_drain() {
    let mut world = World::with_position();
    hours(&mut world, 1, dec!(-0.00003));
    world.mode(Mode::Stopped);
    trade(&mut world);
    assert_eq!(legs(&world), (dec!(0), dec!(0)));
    let mut world = World::with_position();
    hours(&mut world, 1, dec!(-0.00003));
    world.kill(KillAction::Flatten);
    world.pass(Duration::from_secs(20));
    assert_eq!(legs(&world), (dec!(0), dec!(0)));
}
