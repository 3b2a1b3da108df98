//! At most one order at the exchange for an intent, and the same view on both sides once the faults stop (SAFETY §4).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arb_bot::clock::Clock;
use arb_bot::execution::engine::Reconciliation;
use arb_bot::execution::orders::parse_id;
use arb_bot::ledger::{Ledger, LedgerError};
use arbbot_crds::arbbot::{KillAction, Mode};
use arbbot_crds::control::Restriction;
use proptest::prelude::*;
use rust_decimal::dec;
use serde_json::json;

use super::bot::{Bot, Machine};
use super::exchange::{Exchange, FUTURE, SPOT, START};
use super::network::Network;
use super::{machine, paused};

/// What happens while the bot trades.
#[derive(Clone, Debug)]
enum Step {
    /// Nothing, for so long.
    Pass {
        tenths: u64,
    },
    /// Shares of requests and frames that something happens to, for so long.
    Faults {
        percent: u32,
        orders_only: bool,
        cut_per_mille: u32,
        tenths: u64,
    },
    /// Every connection ends.
    Cut,
    /// The exchange answers nothing but 503.
    Down {
        tenths: u64,
    },
    /// One of [`BAD_DAYS`], for so long.
    Exchange {
        fault: usize,
        tenths: u64,
    },
    /// kill -9 after so much time, and a restart.
    Kill {
        tenths: u64,
    },
    /// kill -9 so many steps of orders further: between intent and request, request and reply, reply and its reader.
    KillAtOrder {
        steps: u64,
    },
    Mode(Mode),
    KillSwitch,
}

/// What the simulator does on a bad day. SAFETY's behaviours that are not documented are among it.
const BAD_DAYS: [&str; 25] = [
    r#"{"kind": "rest_error", "status": 401, "rate": 0.3}"#,
    r#"{"kind": "rest_error", "status": 403, "rate": 0.3}"#,
    r#"{"kind": "rest_error", "status": 429, "rate": 0.5}"#,
    r#"{"kind": "rest_error", "status": 500, "rate": 0.5}"#,
    r#"{"kind": "drop_replies", "rate": 0.5}"#,
    r#"{"kind": "drop_replies", "rate": 0.2, "endpoint": "/orders"}"#,
    r#"{"kind": "drop_requests", "rate": 0.2}"#,
    r#"{"kind": "latency", "distribution": "exponential", "milliseconds": 800, "max_milliseconds": 9000}"#,
    r#"{"kind": "key_revoked"}"#,
    r#"{"kind": "clock_skew", "milliseconds": 60000}"#,
    r#"{"kind": "clock_skew", "milliseconds": -60000}"#,
    r#"{"kind": "maintenance"}"#,
    r#"{"kind": "websocket_refused"}"#,
    r#"{"kind": "websocket_disconnect"}"#,
    r#"{"kind": "websocket_silent"}"#,
    r#"{"kind": "duplicate_frames", "rate": 0.3}"#,
    r#"{"kind": "reorder_frames", "rate": 0.1}"#,
    r#"{"kind": "sequence_gap", "rate": 0.05}"#,
    r#"{"kind": "session_closed", "seconds": 10}"#,
    r#"{"kind": "price_gap", "bps": 150}"#,
    r#"{"kind": "reject_orders", "reason": "INSUFFICIENT_FUND"}"#,
    r#"{"kind": "partial_fills", "percent": 30}"#,
    r#"{"kind": "slow_cancels", "milliseconds": 3000}"#,
    r#"{"kind": "refuse_gtd"}"#,
    r#"{"kind": "close_position_ignores_size"}"#,
];

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

fn tenths(tenths: u64) -> Duration {
    Duration::from_millis(tenths * 100)
}

/// A bot that is killed and started again.
struct Desk<'a> {
    exchange: &'a Exchange,
    network: &'a Arc<Network>,
    machine: &'a Machine<'a>,
    bot: Bot,
    epoch: i64,
    control: Vec<Restriction>,
}

impl Desk<'_> {
    async fn take(mut self, step: &Step) -> Self {
        match step {
            Step::Pass { tenths: t } => tokio::time::sleep(tenths(*t)).await,
            Step::Faults { percent, orders_only, cut_per_mille, tenths: t } => {
                let (requests, frames) = (f64::from(*percent) / 100.0, f64::from(*cut_per_mille) / 1000.0);
                self.network.fail(requests, frames, *orders_only);
                tokio::time::sleep(tenths(*t)).await;
                self.network.fail(0.0, 0.0, false);
            }
            Step::Cut => self.network.cut(),
            Step::Down { tenths: t } => {
                self.exchange.fault(json!({"kind": "rest_unavailable"})).await;
                tokio::time::sleep(tenths(*t)).await;
                self.exchange.fault(json!({"clear": true})).await;
            }
            Step::Exchange { fault, tenths: t } => {
                self.exchange.fault(serde_json::from_str(BAD_DAYS[*fault]).unwrap()).await;
                tokio::time::sleep(tenths(*t)).await;
                self.exchange.fault(json!({"clear": true})).await;
            }
            Step::Kill { tenths: t } => {
                tokio::time::sleep(tenths(*t)).await;
                self = self.restart().await;
            }
            Step::KillAtOrder { steps } => {
                self.network.kill_after(Some(*steps));
                // Where nothing is sent for so long it dies of age.
                let patience = tokio::time::sleep(Duration::from_secs(20));
                tokio::select! {
                    biased;
                    () = self.network.killed() => {}
                    () = patience => {}
                }
                self.network.kill_after(None);
                self = self.restart().await;
            }
            Step::Mode(mode) => {
                self.control = vec![Restriction::mode("spec.mode", *mode, "test")];
                self.bot.control(self.control.clone()).await;
            }
            Step::KillSwitch => {
                self.control = vec![Restriction::kill("incident/test", KillAction::Flatten, "test")];
                self.bot.control(self.control.clone()).await;
            }
        }
        self
    }

    async fn restart(mut self) -> Self {
        self.bot.kill().await;
        self.network.cut();
        self.epoch += 1;
        self.bot = Bot::start(self.machine, self.epoch).await;
        self.bot.control(self.control.clone()).await;
        self
    }
}

/// What a run has shown, so that a test can tell that it tested something.
#[derive(Debug, Default)]
struct Shown {
    orders: u64,
    struck: u64,
    restarts: u64,
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

/// Stops the faults, halts the bot and compares both sides.
async fn finish(desk: Desk<'_>) -> Result<Shown, TestCaseError> {
    let Desk { exchange, network, machine, mut bot, epoch, .. } = desk;
    network.fail(0.0, 0.0, false);
    network.kill_after(None);
    exchange.fault(json!({"clear": true})).await;
    bot.control(vec![Restriction::mode("spec.mode", Mode::Halted, "the end")]).await;
    let view = bot
        .wait("quiet", |view| {
            let known = view.open_orders == 0 && view.unknown_orders == 0;
            known && view.proof.orders_gone.confirmed && view.reconciliation == Reconciliation::Matches
        })
        .await;
    let truth = exchange.truth().await;
    prop_assert_eq!(view.spot_owned_base, truth.spot, "spot");
    prop_assert_eq!(view.future_owned_contracts, truth.contracts, "contracts");
    prop_assert_eq!(truth.open_orders, 0);
    // An intent that became two orders under two ids would leave more than is wanted.
    prop_assert!(view.notional_quote <= dec!(11000), "{} for a target of 10000", view.notional_quote);
    bot.kill().await;
    let accepted = exchange.accepted().await;
    let twice: Vec<_> = accepted.iter().filter(|(_, count)| **count > 1).collect();
    prop_assert!(twice.is_empty(), "accepted more than once: {:?}", twice);
    compare_with_ledger(machine, &accepted).await?;
    let restarts = epoch.unsigned_abs() - 1;
    Ok(Shown { orders: accepted.len() as u64, struck: network.struck(), restarts })
}

/// Every order at the exchange was in the ledger before, under its one id.
async fn compare_with_ledger(machine: &Machine<'_>, accepted: &BTreeMap<String, usize>) -> Result<(), TestCaseError> {
    let bot = super::bot::binding(&machine.spec);
    let (_, recovered) = loop {
        match Ledger::open(&machine.dir.join("ledger"), &bot, Clock::driven_by_tokio(machine.clock.now())).await {
            Err(LedgerError::Locked { .. }) => tokio::task::yield_now().await,
            opened => break opened.unwrap(),
        }
    };
    let known: Vec<&str> = recovered.orders.iter().map(|order| order.client_order_id.as_str()).collect();
    for id in accepted.keys() {
        prop_assert!(known.contains(&id.as_str()), "{} is not in the ledger", id);
        prop_assert!(parse_id(id).is_some(), "{}", id);
    }
    Ok(())
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
        STRUCK.fetch_add(shown.struck, Ordering::Relaxed);
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

/// Starts a bot on an exchange of its own and hands both to a test.
async fn at_a_desk<T>(seed: u64, refuse_duplicates: bool, test: impl AsyncFnOnce(Desk<'_>) -> T) -> T {
    let exchange = Exchange::start(seed, refuse_duplicates);
    let network = Network::new(seed);
    let dir = tempfile::tempdir().unwrap();
    let machine = machine(&exchange, &network, seed, dir.path());
    let bot = Bot::start(&machine, 1).await;
    let desk = Desk { exchange: &exchange, network: &network, machine: &machine, bot, epoch: 1, control: Vec::new() };
    test(desk).await
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
    // Each turn of the runtime takes everything that is under way at most one await point further.
    let mut seen = Vec::new();
    for turns in 0.. {
        assert!(turns < 200, "its first orders are never answered");
        // What was on its way when the bot died is lost, or arrives.
        let [first, second] = [true, false].map(|is_lost| {
            paused(at_a_desk(4, turns % 2 == 0, async |mut desk: Desk<'_>| {
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
            let mut machine = machine(&exchange, &network, 3, dir.path());
            let start: k8s_openapi::jiff::Timestamp = START.parse().unwrap();
            machine.clock = Clock::driven_by_tokio(start + k8s_openapi::jiff::SignedDuration::from_mins(minutes));
            let bot = Bot::start(&machine, 1).await;
            let mut desk =
                Desk { exchange: &exchange, network: &network, machine: &machine, bot, epoch: 1, control: Vec::new() };
            desk.bot.wait("it trades", |view| view.open_orders > 0 && view.notional_quote > dec!(0)).await;
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
