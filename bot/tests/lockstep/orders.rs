//! At most one order at the exchange for an intent, and the same view on both sides once the faults stop (SAFETY §4).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arbbot_crds::arbbot::Mode;
use arbbot_crds::limits::LimitCeilings;
use proptest::prelude::*;
use rust_decimal::dec;
use serde_json::json;

use super::bot::Bot;
use super::desk::{BAD_DAYS, Desk, Shown, Step, at_a_desk, finish};
use super::exchange::{Exchange, FUTURE, SPOT};
use super::network::Network;
use super::{judge_of, machine, paused, paused_step_by_step};

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1u64..60).prop_map(|tenths| Step::Pass { tenths }),
        4 => (5u32..60, any::<bool>(), 0u32..20, 20u64..150).prop_map(|(percent, orders_only, cut_per_mille, tenths)| {
            Step::Faults { percent, orders_only, cut_per_mille, tenths }
        }),
        5 => (0..BAD_DAYS.len(), 20u64..150).prop_map(|(fault, tenths)| Step::Exchange { fault, tenths }),
        1 => Just(Step::Cut),
        1 => (5u64..100).prop_map(|tenths| Step::Down { tenths }),
        1 => (1u64..60).prop_map(|tenths| Step::Kill { tenths }),
        3 => (1u64..12).prop_map(|steps| Step::KillAtOrder { steps }),
        1 => prop::sample::select(vec![Mode::Active, Mode::ReduceOnly, Mode::Halted, Mode::Stopped]).prop_map(Step::Mode),
        1 => Just(Step::KillSwitch),
    ]
}

/// Runs a script, stops the faults, halts the bot and compares.
async fn run(seed: u64, refuse_duplicates: bool, script: &[Step]) -> Result<Shown, TestCaseError> {
    at_a_desk(seed, refuse_duplicates, async |mut desk: Desk<'_>| {
        desk.bot.wait("the bot begins", |view| view.seen_exchange && view.prices_fresh).await;
        for step in script {
            desk = desk.take(step).await;
        }
        finish(desk).await
    })
    .await
}

static ORDERS: AtomicU64 = AtomicU64::new(0);
static STRUCK: AtomicU64 = AtomicU64::new(0);
static RESTARTS: AtomicU64 = AtomicU64::new(0);

#[test]
fn no_intent_becomes_two_orders_and_both_sides_agree_once_faults_stop() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(16);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases,
        max_shrink_iters: 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let input = (any::<u64>(), any::<bool>(), prop::collection::vec(step(), 4..12));
    let result = runner.run(&input, |(seed, refuse_duplicates, script)| {
        let shown = paused(run(seed, refuse_duplicates, &script))?;
        ORDERS.fetch_add(shown.orders, Ordering::Relaxed);
        STRUCK.fetch_add(shown.struck.values().sum(), Ordering::Relaxed);
        RESTARTS.fetch_add(shown.restarts, Ordering::Relaxed);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let seen = [&ORDERS, &STRUCK, &RESTARTS].map(|count| count.load(Ordering::Relaxed));
    println!("orders, faults and restarts: {seen:?}");
    assert!(
        seen[0] > u64::from(cases) * 5 && seen[1] > u64::from(cases) && seen[2] > 0,
        "nothing was tested: {seen:?}"
    );
}

#[test]
fn a_bot_that_dies_at_any_step_of_an_order_places_it_at_most_once() {
    // Three steps each: connected, arrived at the exchange, answered. Two legs are entered, so these are the first orders
    // of both, under each kind of duplicate.
    for steps in 1..=7 {
        for refuse_duplicates in [false, true] {
            let script = [Step::KillAtOrder { steps }, Step::Pass { tenths: 30 }];
            let shown = paused(run(steps, refuse_duplicates, &script)).unwrap();
            assert_eq!(shown.restarts, 1);
        }
    }
}

#[test]
fn a_bot_that_dies_at_any_await_point_of_its_first_orders_places_them_at_most_once() {
    // Each turn takes one task to its next await point.
    let mut seen = Vec::new();
    for turns in 0.. {
        assert!(turns < 200, "its first orders are never answered");
        // What was on its way when the bot died is lost, or arrives.
        let [first, second] = [true, false].map(|is_lost| {
            paused_step_by_step(at_a_desk(1, turns % 2 == 0, async |mut desk: Desk<'_>| {
                desk.bot.wait("an intent", |view| view.open_orders > 0).await;
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
                if is_lost {
                    desk.network.cut();
                }
                desk = desk.restart().await;
                let orders = desk.exchange.accepted().await.len();
                desk = desk.take(&Step::Pass { tenths: 30 }).await;
                finish(desk).await.unwrap();
                orders
            }))
        });
        assert!(second >= first, "after {turns} turns {first} and {second}");
        seen.push(first);
        if seen.iter().filter(|first| **first > 1).count() > 8 {
            break;
        }
    }
    assert!(seen.contains(&0), "it always died too late: {seen:?}");
}

#[test]
fn a_bot_whose_clock_is_an_hour_wrong_keeps_its_orders_short_and_sees_them_all() {
    for minutes in [-60, 60] {
        paused(async {
            let exchange = Exchange::start(3, false);
            let network = Network::new(3);
            let dir = tempfile::tempdir().unwrap();
            let machine = machine(&exchange, &network, 3, dir.path());
            let mut desk = Desk::new(&exchange, &network, &machine).await;
            desk.bot.wait("it trades", |view| view.open_orders > 0 && view.notional_quote > dec!(0)).await;
            // From here on it trades no more by itself (disasters.rs), and is right about what there is.
            machine.clock.step(k8s_openapi::jiff::SignedDuration::from_mins(minutes));
            for step in
                [Step::Exchange { fault: 4, tenths: 100 }, Step::KillAtOrder { steps: 2 }, Step::Pass { tenths: 600 }]
            {
                desk = desk.take(&step).await;
            }
            // The bot is gone for good: what rests ends by itself within maxRest, by the exchange's clock.
            desk.bot.kill().await;
            tokio::time::sleep(Duration::from_secs(125)).await;
            assert_eq!(exchange.truth().await.open_orders, 0, "{minutes} minutes");
            desk.bot = Bot::start(&machine, 9).await;
            finish(desk).await.unwrap();
        });
    }
}

#[test]
fn a_bot_that_begins_anew_within_the_minute_keeps_to_its_orders_per_minute() {
    paused(at_a_desk(6, false, async |mut desk: Desk<'_>| {
        let ceilings = LimitCeilings { max_orders_per_minute: Some(2), ..LimitCeilings::default() };
        desk = desk.take(&Step::Limits(Box::new(ceilings))).await;
        for steps in [3, 3, 3] {
            desk = desk.take(&Step::KillAtOrder { steps }).await;
        }
        let (mut judge, exchange) = (judge_of(desk.machine), desk.exchange);
        for (time, control) in desk.machine.acknowledged.lock().unwrap().drain(..) {
            judge.acknowledged(time, control);
        }
        exchange.journal_after(0).iter().for_each(|event| judge.happened(event));
        let broken = judge.verdict.limit_violations.iter().filter(|of| of.rule == "maxOrdersPerMinute").count();
        assert!(judge.verdict.raising >= 2, "{:?}", judge.verdict);
        assert_eq!(broken, 0, "{:?}", judge.verdict.limit_violations);
    }));
}

#[test]
fn where_orders_that_expire_are_refused_the_bot_rests_without_and_cancels_in_time() {
    paused(at_a_desk(4, false, async |desk: Desk<'_>| {
        desk.exchange.fault(json!({"kind": "refuse_gtd"})).await;
        desk.bot.wait("it trades", |view| view.notional_quote > dec!(0)).await;
        let says = |facts: &arb_bot::exchange::SessionFacts| facts.without_expiry == [FUTURE, SPOT];
        desk.bot.session("it says so", says).await;
        // Longer than maxRest: nothing is left that outlived its time.
        tokio::time::sleep(Duration::from_secs(300)).await;
        finish(desk).await.unwrap();
    }));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let script = [
        Step::Pass { tenths: 50 },
        Step::Faults { percent: 30, orders_only: false, cut_per_mille: 5, tenths: 100 },
        Step::KillAtOrder { steps: 4 },
        Step::Pass { tenths: 50 },
    ];
    let journal = |seed| {
        paused(at_a_desk(seed, false, async |mut desk: Desk<'_>| {
            for step in &script {
                desk = desk.take(step).await;
            }
            (desk.exchange.transcript().await, desk.network.steps())
        }))
    };
    let (first, second, other) = (journal(5), journal(5), journal(6));
    assert!(first.1 > 6, "{} steps", first.1);
    assert_eq!(first, second);
    assert_ne!(first, other);
}
