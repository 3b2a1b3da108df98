use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;
use rust_decimal::dec;

use super::*;
use crate::exchange::{Liquidity, Side};

const SECOND: Duration = Duration::from_secs(1);

fn said(filled: i64) -> Cumulative {
    Cumulative {
        client_order_id: "b-1-1-Enter".to_owned(),
        order_id: "o-1".to_owned(),
        filled: Decimal::from(filled),
        fees_quote: Decimal::new(filled, 1),
    }
}

fn fill(trade: i64) -> Fill {
    Fill {
        order_id: "o-1".to_owned(),
        trade_id: trade.to_string(),
        product: "BIP".to_owned(),
        side: Side::Sell,
        size: Decimal::ONE,
        price: dec!(70000),
        fee_quote: dec!(0.1),
        liquidity: Liquidity::Taker,
        at: Timestamp::UNIX_EPOCH,
    }
}

fn booked(outstanding: &mut Outstanding, shown: Vec<Fill>, now: Duration) -> Vec<FillRecord> {
    let record = |(fill, id)| FillRecord::new(fill, id, dec!(0.01));
    let fills: Vec<_> = outstanding.news(shown).into_iter().map(record).collect();
    outstanding.booked(&fills, now);
    fills
}

#[test]
fn the_history_is_asked_until_it_adds_up_and_then_no_more() {
    let mut outstanding = Outstanding::default();
    outstanding.begin(said(2), std::iter::empty(), SECOND);
    assert_eq!(outstanding.due(SECOND), ["o-1"]);
    assert!(outstanding.due(SECOND).is_empty(), "not again at once");
    booked(&mut outstanding, vec![fill(1)], SECOND);
    assert_eq!((outstanding.count(), outstanding.due(SECOND * 2).len()), (1, 1));
    booked(&mut outstanding, vec![fill(1), fill(2)], SECOND * 2);
    assert_eq!((outstanding.count(), outstanding.due(SECOND * 900).len()), (0, 0));
    outstanding.hear(&said(3), SECOND * 900);
    assert_eq!(outstanding.due(SECOND * 900), ["o-1"], "it filled further");
}

#[test]
fn a_difference_that_stays_is_said_and_not_forgotten() {
    let mut outstanding = Outstanding::default();
    outstanding.begin(said(2), std::iter::empty(), SECOND);
    booked(&mut outstanding, vec![fill(1)], SECOND);
    assert_eq!(outstanding.problem(SECOND * 30), None);
    outstanding.forget(SECOND * 100_000);
    let problem = outstanding.problem(SECOND * 100_000).unwrap();
    assert!(
        problem.starts_with("order b-1-1-Enter shows 2 filled for fees of 0.2, its fills are 1 for 0.1"),
        "{problem}"
    );
}

/// Proven by mutation: with `count` by `adds_up`, or `is_done` without the ten minutes, this fails.
#[test]
fn fees_that_differ_hold_nothing_up_and_the_fills_win_after_ten_minutes() {
    let mut outstanding = Outstanding::default();
    let fees_quote = dec!(0.20000001);
    outstanding.begin(Cumulative { fees_quote, ..said(2) }, std::iter::empty(), SECOND);
    assert_eq!(outstanding.count(), 1);
    booked(&mut outstanding, vec![fill(1), fill(2)], SECOND);
    assert_eq!(outstanding.count(), 0, "every fill is there");
    let problem = outstanding.problem(SECOND * 61).unwrap();
    assert!(problem.contains("fees of 0.20000001, its fills are 2 for 0.2; the books go by the fills"), "{problem}");
    assert_eq!(outstanding.due(SECOND * 600), ["o-1"], "the order's figures may have come before a fill's");
    assert!(outstanding.due(SECOND * 5000).is_empty());
    outstanding.hear(&said(3), SECOND * 5000);
    assert_eq!((outstanding.count(), outstanding.due(SECOND * 5000).len()), (1, 1), "it filled further");
    booked(&mut outstanding, vec![fill(3)], SECOND * 5000);
    outstanding.forget(SECOND * 9000);
    assert!(!outstanding.knows("o-1"), "memory does not grow with orders that differ");
}

#[test]
fn an_order_that_adds_up_does_not_stay_in_memory() {
    let mut outstanding = Outstanding::default();
    outstanding.begin(said(1), std::iter::empty(), SECOND);
    booked(&mut outstanding, vec![fill(1)], SECOND);
    outstanding.forget(SECOND * 600);
    assert!(outstanding.knows("o-1"));
    outstanding.forget(SECOND * 601);
    assert!(!outstanding.knows("o-1"));
}

/// What reaches the books.
#[derive(Clone, Debug)]
enum Step {
    /// Cumulative news, maybe late.
    Said(i64),
    /// A page of history: any part of it, in any order, some twice.
    Shown(Vec<i64>),
    /// A restart: only what was written is known.
    Restart,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1_i64..8).prop_map(Step::Said),
        prop::collection::vec(1_i64..8, 0..10).prop_map(Step::Shown),
        Just(Step::Restart),
    ]
}

proptest! {
    /// Invariant 8: each (order_id, trade_id) is booked exactly once under replay, duplicates and reordering. Shown by
    /// mutation: with `news` not looking at `known.trades`, or not at what it has `seen` in the same page, this fails.
    #[test]
    fn each_fill_is_booked_exactly_once(steps in prop::collection::vec(any_step(), 0..30)) {
        let mut outstanding = Outstanding::default();
        let mut written: Vec<FillRecord> = Vec::new();
        outstanding.begin(said(1), std::iter::empty(), SECOND);
        for step in steps {
            match step {
                Step::Said(filled) => outstanding.hear(&said(filled), SECOND),
                Step::Shown(trades) => {
                    written.extend(booked(&mut outstanding, trades.into_iter().map(fill).collect(), SECOND));
                }
                Step::Restart => {
                    outstanding = Outstanding::default();
                    outstanding.begin(said(1), written.iter(), SECOND);
                }
            }
        }
        // In the end the exchange shows everything.
        outstanding.hear(&said(7), SECOND);
        written.extend(booked(&mut outstanding, (1..8).map(fill).collect(), SECOND));
        let mut trades: Vec<_> = written.iter().map(|fill| fill.trade_id.clone()).collect();
        trades.sort();
        prop_assert_eq!(trades, (1..8).map(|trade| trade.to_string()).collect::<Vec<_>>());
        prop_assert_eq!(outstanding.count(), 0, "the fills add up to what the exchange said of the order");
    }
}
