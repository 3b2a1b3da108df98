//! A bot that trades, dies and starts again while things happen to it, and the comparison of both sides at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arb_bot::execution::engine::{Reconciliation, View};
use arb_bot::execution::orders::parse_id;
use arb_bot::ledger::{self, OrderRecord};
use arbbot_crds::ArbBot;
use arbbot_crds::arbbot::{KillAction, Mode};
use arbbot_crds::control::{Entry, Restriction};
use arbbot_crds::limits::LimitCeilings;
use proptest::prelude::*;
use rust_decimal::{Decimal, dec};
use serde_json::json;

use super::bot::{Bot, Machine};
use super::exchange::{Exchange, FUTURE, SPOT, Truth};
use super::judge::{nothing_flipped, nothing_was_given_up_too_early, one_order_at_a_time};
use super::machine;
use super::network::Network;

/// What happens while the bot trades.
#[derive(Clone, Debug)]
pub enum Step {
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
    /// Frees the kill switch.
    Release,
    /// Other limits: tighter, looser, or none of an incident's.
    Limits(Box<LimitCeilings>),
}

/// What the simulator does on a bad day. SAFETY's behaviours that are not documented are among it.
pub const BAD_DAYS: [&str; 25] = [
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

fn tenths(tenths: u64) -> Duration {
    Duration::from_millis(tenths * 100)
}

/// A bot that is killed and started again.
pub struct Desk<'a> {
    pub exchange: &'a Exchange,
    pub network: &'a Arc<Network>,
    pub machine: &'a Machine<'a>,
    pub bot: Bot,
    pub epoch: i64,
    /// Mode or kill.
    mode: Option<Restriction>,
    ceilings: LimitCeilings,
}

impl<'a> Desk<'a> {
    pub async fn new(exchange: &'a Exchange, network: &'a Arc<Network>, machine: &'a Machine<'a>) -> Self {
        let bot = Bot::start(machine, 1).await;
        Self { exchange, network, machine, bot, epoch: 1, mode: None, ceilings: LimitCeilings::default() }
    }

    fn restrictions(&self) -> Vec<Restriction> {
        let limits = Restriction::entry("ArbPolicy/limits", Entry::Active, "test");
        let limits = Restriction { ceilings: self.ceilings.clone(), ..limits };
        self.mode.iter().cloned().chain([limits]).collect()
    }

    async fn put_in_force(&mut self) {
        let restrictions = self.restrictions();
        self.bot.control(restrictions).await;
    }

    pub async fn take(mut self, step: &Step) -> Self {
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
                self.mode = Some(Restriction::mode("spec.mode", *mode, "test"));
                self.put_in_force().await;
            }
            Step::KillSwitch => {
                self.mode = Some(Restriction::kill("incident/test", KillAction::Flatten, "test"));
                self.put_in_force().await;
            }
            Step::Release => {
                self.mode = None;
                self.put_in_force().await;
            }
            Step::Limits(ceilings) => {
                self.ceilings = *ceilings.clone();
                self.put_in_force().await;
            }
        }
        self
    }

    /// Ends the bot as a crash does; it is gone until it is started again.
    pub async fn stop(&mut self) {
        self.bot.end().await;
    }

    pub async fn restart(self) -> Self {
        self.restart_after(Duration::ZERO).await
    }

    /// Dies, and comes back after so long.
    pub async fn restart_after(mut self, dead: Duration) -> Self {
        let restrictions = self.restrictions();
        self.bot.kill().await;
        self.network.cut();
        if !dead.is_zero() {
            tokio::time::sleep(dead).await;
        }
        self.epoch += 1;
        self.bot = Bot::start_under(self.machine, self.epoch, restrictions).await;
        self
    }
}

/// What a run has shown, so that a test can tell that it tested something.
#[derive(Debug)]
pub struct Shown {
    pub orders: u64,
    pub struck: BTreeMap<&'static str, u64>,
    pub restarts: u64,
}

/// Starts a bot on an exchange of its own and hands both to a test.
pub async fn at_a_desk<T>(seed: u64, refuse_duplicates: bool, test: impl AsyncFnOnce(Desk<'_>) -> T) -> T {
    desk_on(Exchange::start(seed, refuse_duplicates), seed, |_| {}, test).await
}

/// The same, with another spec.
pub async fn at_a_desk_with<T>(seed: u64, spec: impl FnOnce(&mut ArbBot), test: impl AsyncFnOnce(Desk<'_>) -> T) -> T {
    desk_on(Exchange::start(seed, false), seed, |machine| spec(&mut machine.spec), test).await
}

/// The same, with each life of the bot recorded in a directory.
pub async fn at_a_recorded_desk<T>(seed: u64, dir: &Path, test: impl AsyncFnOnce(Desk<'_>) -> T) -> T {
    let record = |machine: &mut Machine<'_>| machine.record = Some(dir.to_owned());
    desk_on(Exchange::start(seed, false), seed, record, test).await
}

async fn desk_on<T>(
    exchange: Exchange,
    seed: u64,
    change: impl FnOnce(&mut Machine<'_>),
    test: impl AsyncFnOnce(Desk<'_>) -> T,
) -> T {
    let network = Network::new(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut machine = machine(&exchange, &network, seed, dir.path());
    change(&mut machine);
    test(Desk::new(&exchange, &network, &machine).await).await
}

/// A bot that has ended, and what it said last.
pub struct Halted<'a> {
    exchange: &'a Exchange,
    network: &'a Arc<Network>,
    machine: &'a Machine<'a>,
    pub view: View,
    pub restarts: u64,
}

/// Stops the faults, halts the bot and compares both sides.
pub async fn finish(desk: Desk<'_>) -> Result<Shown, TestCaseError> {
    halt(desk).await.compare().await
}

/// Stops the faults, halts the bot and ends it once nothing of it works.
pub async fn halt(desk: Desk<'_>) -> Halted<'_> {
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
    // What is known is written a little later, and what was paid is looked for.
    let settled = exchange.truth().await.settled_quote;
    bot.books(|books| books.outstanding == 0 && is_near(books.settled_quote(), settled)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    bot.kill().await;
    Halted { exchange, network, machine, view, restarts: epoch.unsigned_abs() - 1 }
}

impl Halted<'_> {
    /// The same as [`compare`](Self::compare), and the books know of no money of others: nobody else is on the account.
    pub async fn compare_alone(&self) -> Result<Shown, TestCaseError> {
        let shown = self.compare().await?;
        let books = ledger::books(&self.machine.dir.join("ledger")).await.unwrap();
        prop_assert_eq!(books.flows.len(), 1, "{:?}", books.flows);
        Ok(shown)
    }

    /// Compares what the bot said last, its ledger and the exchange.
    pub async fn compare(&self) -> Result<Shown, TestCaseError> {
        let Self { exchange, network, machine, view, restarts } = self;
        let truth = exchange.truth().await;
        prop_assert_eq!(view.spot_owned_base, truth.spot, "spot");
        prop_assert_eq!(view.future_owned_contracts, truth.contracts, "contracts");
        prop_assert_eq!(truth.open_orders, 0);
        // What the engine knows are average prices, which have eight decimals, and no order here is of more than a coin.
        let off = (view.cash_quote - truth.cash_quote).abs();
        let orders = Decimal::from(exchange.accepted().await.len());
        prop_assert!(
            off <= orders * dec!(0.00000001),
            "cash is {} and should be {}",
            view.cash_quote,
            truth.cash_quote
        );
        prop_assert_eq!(view.fees_quote, truth.fees_quote, "fees");
        prop_assert!(view.notional_quote <= dec!(11000), "{} for a target of 10000", view.notional_quote);
        let accepted = exchange.accepted().await;
        let twice: Vec<_> = accepted.iter().filter(|(_, count)| **count > 1).collect();
        prop_assert!(twice.is_empty(), "accepted more than once: {:?}", twice);
        let journal = exchange.transcript().await;
        one_order_at_a_time(&journal)?;
        nothing_flipped(&journal)?;
        compare_with_ledger(&self.ledger().await, exchange)?;
        compare_books(machine, exchange, &truth).await?;
        nothing_was_given_up_too_early(&machine.dir.join("ledger")).await?;
        Ok(Shown { orders: accepted.len() as u64, struck: network.struck(), restarts: *restarts })
    }

    /// Every order that the ledger on disk knows.
    pub async fn ledger(&self) -> Vec<OrderRecord> {
        self.machine.ledger().await.unwrap().1.orders
    }
}

/// Fills, fees and positions are equal to the last unit. Funding is read from two wallets, of which the exchange shows
/// eight decimals each, beside a position whose entry value is shared out with ten for each of some hundred fills.
fn is_near(a: Decimal, b: Decimal) -> bool {
    (a - b).abs() <= dec!(0.0000001)
}

/// The books have every fill of the exchange once, and the same money and positions, to the last unit.
async fn compare_books(machine: &Machine<'_>, exchange: &Exchange, truth: &Truth) -> Result<(), TestCaseError> {
    let dir = machine.dir.join("ledger");
    let books = ledger::books(&dir).await.unwrap();
    let booked = books
        .fills
        .iter()
        .map(|fill| (fill.order_id.clone(), fill.trade_id.clone(), fill.size, fill.price, fill.fee_quote));
    let booked: Vec<_> = booked.collect();
    let once: BTreeSet<_> = booked.iter().cloned().collect();
    prop_assert_eq!(booked.len(), once.len());
    prop_assert_eq!(once, exchange.fills());
    prop_assert_eq!(books.position(SPOT), truth.spot);
    prop_assert_eq!(books.position(FUTURE), truth.contracts);
    prop_assert_eq!(books.fees_quote(), truth.fees_quote);
    prop_assert_eq!(books.cash_quote() - books.settled_quote(), truth.cash_quote);
    let (settled, paid) = (books.settled_quote(), truth.settled_quote);
    prop_assert!(is_near(settled, paid), "{} of funding is booked, {} was paid", settled, paid);
    ledger::verify(&dir).await.unwrap();
    Ok(())
}

/// Every order at the exchange is in the ledger under its one id, with the same fills and fees.
fn compare_with_ledger(ledger: &[OrderRecord], exchange: &Exchange) -> Result<(), TestCaseError> {
    let known: BTreeMap<_, _> = ledger.iter().map(|order| (&order.client_order_id, order)).collect();
    for (id, (filled, fees_quote)) in exchange.orders() {
        let Some(order) = known.get(&id) else {
            return Err(TestCaseError::fail(format!("{id} is not in the ledger")));
        };
        prop_assert!(parse_id(&id).is_some() && order.status.is_terminal(), "{:?}", order);
        prop_assert_eq!((order.filled, order.fees_quote), (filled, fees_quote), "{}", id);
    }
    Ok(())
}
