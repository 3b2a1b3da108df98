//! Exits of the wrong leg, and too far.

use super::*;

const TRIM: &str = "trims the larger leg";
const HEDGE: &str = "keeps the hedge";

/// What is found of one order of a bot whose future is larger by two contracts of seven.
fn trim(side: Side, product: &str, size: Decimal) -> Vec<&'static str> {
    let mut run = Run::ahead_by(dec!(2));
    run.mode(FAR, Mode::ReduceOnly);
    run.order(FAR + 2, Class::Trim, side, product, size);
    run.found().1
}

/// Fails when every Trim that raises no leg is right (mutation: `judge_trim` is left out).
#[test]
fn a_trim_of_the_smaller_leg_is_counted_and_one_of_the_larger_is_not() {
    for size in [dec!(1), dec!(2)] {
        assert_eq!(trim(Side::Buy, FUTURE, size), [""; 0], "{size}");
    }
    for size in [dec!(0.001), dec!(0.02), dec!(0.05)] {
        assert_eq!(trim(Side::Sell, SPOT, size), [TRIM], "{size}");
    }
    // Where spot is larger it is the other way round.
    let mut run = Run::holding();
    let id = run.order(FAR, Class::Enter, Side::Buy, SPOT, dec!(0.015));
    run.filled(FAR, &id, SPOT, Side::Buy, dec!(0.015));
    run.order(FAR + 60, Class::Trim, Side::Sell, SPOT, dec!(0.015));
    assert_eq!(run.found().1, [""; 0]);
    run.order(FAR + 60, Class::Trim, Side::Buy, FUTURE, dec!(1));
    assert_eq!(run.found().1, [TRIM]);
}

#[test]
fn a_trim_that_leaves_the_legs_further_apart_is_counted_and_one_of_whole_contracts_is_not() {
    assert_eq!(trim(Side::Buy, FUTURE, dec!(5)), [TRIM], "from two contracts to three the other way");
    // One and a half contracts are repaired by one or by two.
    for (contracts, found) in [(dec!(1), &[][..]), (dec!(2), &[]), (dec!(4), &[TRIM])] {
        let mut run = Run::ahead_by(dec!(2));
        let id = run.order(FAR, Class::Hedge, Side::Buy, SPOT, dec!(0.005));
        run.filled(FAR, &id, SPOT, Side::Buy, dec!(0.005));
        run.order(FAR + 60, Class::Trim, Side::Buy, FUTURE, contracts);
        assert_eq!(run.found().1, found, "{contracts}");
    }
}

/// Fails when what the bot cannot know yet counts (mutation: `known` without the past).
#[test]
fn a_trim_is_right_by_what_was_there_before_a_fill_of_the_last_seconds() {
    for (seconds, found) in [(20, &[][..]), (21, &[TRIM])] {
        let mut run = Run::ahead_by(dec!(2));
        let id = run.order(FAR, Class::Reduce, Side::Buy, FUTURE, dec!(2));
        run.filled(FAR, &id, FUTURE, Side::Buy, dec!(2));
        run.order(FAR + seconds, Class::Trim, Side::Buy, FUTURE, dec!(2));
        assert_eq!(run.found().1, found, "{seconds} s");
    }
}

/// Fails when an order that works does not count as filled (mutation: `held.buys` left out in `judge_trim`).
#[test]
fn a_trim_is_right_by_an_order_that_may_fill() {
    let mut run = Run::holding();
    run.order(FAR, Class::Reduce, Side::Buy, FUTURE, dec!(2));
    run.order(FAR + 60, Class::Trim, Side::Sell, SPOT, dec!(0.02));
    assert_eq!(run.found().1, [""; 0]);
}

/// What is found of a sale of spot under a kill of a bot that holds five contracts, or more.
fn killed(run: &mut Run, size: Decimal) -> Vec<&'static str> {
    run.kill(FAR);
    run.order(FAR + 60, Class::Kill, Side::Sell, SPOT, size);
    run.found().1
}

/// Fails when every Kill that raises no leg is right (mutation: `judge_kill_of_spot` is left out).
#[test]
fn a_kill_that_sells_the_hedge_of_contracts_that_are_held_is_counted() {
    // As it would be while the futures session is closed.
    assert_eq!(killed(&mut Run::holding(), dec!(0.05)), [HEDGE]);
    assert_eq!(killed(&mut Run::holding(), dec!(0.001)), [HEDGE]);
    assert_eq!(killed(&mut Run::ahead_by(dec!(2)), dec!(0.01)), [HEDGE]);
}

#[test]
fn a_kill_trims_spot_down_to_the_hedge_and_sells_what_follows_the_contracts() {
    let mut ahead = Run::holding();
    let id = ahead.order(FAR, Class::Enter, Side::Buy, SPOT, dec!(0.01));
    ahead.filled(FAR, &id, SPOT, Side::Buy, dec!(0.01));
    assert_eq!(killed(&mut ahead, dec!(0.01)), [""; 0]);

    let mut run = Run::holding();
    run.kill(FAR);
    for (contracts, spot) in [(dec!(3), dec!(0.03)), (dec!(2), dec!(0.02))] {
        let id = run.order(FAR + 60, Class::Kill, Side::Buy, FUTURE, contracts);
        run.filled(FAR + 60, &id, FUTURE, Side::Buy, contracts);
        let id = run.order(FAR + 60, Class::Kill, Side::Sell, SPOT, spot);
        run.filled(FAR + 60, &id, SPOT, Side::Sell, spot);
    }
    assert_eq!(run.found(), (vec![], vec![]));
}

/// Fails when a sale that works does not count as filled (mutation: `spot.sells` left out in `judge_kill_of_spot`).
#[test]
fn two_sales_that_together_sell_the_hedge_are_counted() {
    let mut run = Run::holding();
    run.kill(FAR);
    let id = run.order(FAR + 10, Class::Kill, Side::Buy, FUTURE, dec!(2));
    run.filled(FAR + 10, &id, FUTURE, Side::Buy, dec!(2));
    run.order(FAR + 60, Class::Kill, Side::Sell, SPOT, dec!(0.02));
    assert_eq!(run.found().1, [""; 0]);
    run.order(FAR + 66, Class::Kill, Side::Sell, SPOT, dec!(0.02));
    assert_eq!(run.found().1, [HEDGE]);
}
