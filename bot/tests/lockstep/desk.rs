//! A bot that trades, dies and starts again while things happen to it, and the comparison of both sides at the end.

mod halted;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arb_bot::execution::engine::View;
use arbbot_crds::ArbBot;
use arbbot_crds::arbbot::{KillAction, Mode};
use arbbot_crds::control::{Entry, Restriction};
use arbbot_crds::limits::LimitCeilings;
use serde_json::json;

use super::api_server::ApiServer;
use super::bot::{Bot, Machine};
use super::exchange::Exchange;
use super::machine;
use super::network::Network;
pub use halted::{finish, halt};

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
    /// Where people give their orders, if they go through the control task; otherwise they are put in force as they are.
    server: Option<ApiServer>,
}

impl<'a> Desk<'a> {
    pub async fn new(exchange: &'a Exchange, network: &'a Arc<Network>, machine: &'a Machine<'a>) -> Self {
        let bot = Bot::start(machine, 1).await;
        Self { exchange, network, machine, bot, epoch: 1, mode: None, ceilings: LimitCeilings::default(), server: None }
    }

    /// Modes, kills and limits are patches of the bot's ArbBot, which its control task obeys and latches.
    pub async fn under_control(exchange: &'a Exchange, network: &'a Arc<Network>, machine: &'a Machine<'a>) -> Self {
        let mut bot = Bot::start_closed(machine, 1).await;
        let server = ApiServer::over(&mut bot, machine.spec.clone()).await;
        server.acknowledged(&bot).await;
        let (mode, ceilings) = (None, LimitCeilings::default());
        Self { exchange, network, machine, bot, epoch: 1, mode, ceilings, server: Some(server) }
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

    /// What a person demands.
    async fn ordered(&mut self, step: &Step) {
        if let Some(server) = &mut self.server {
            server.ordered(step);
            return server.tell(&self.bot).await;
        }
        match step {
            Step::Mode(mode) => self.mode = Some(Restriction::mode("spec.mode", *mode, "test")),
            Step::KillSwitch => {
                self.mode = Some(Restriction::kill("incident/test", KillAction::Flatten, "test"));
            }
            Step::Release => self.mode = None,
            Step::Limits(ceilings) => self.ceilings = *ceilings.clone(),
            _ => {}
        }
        self.put_in_force().await;
    }

    /// Somebody takes the engagement of the kill switch back and names no incident: it stays latched.
    pub async fn let_go(&mut self) {
        let server = self.server.as_mut().expect("there is no API server");
        server.bot.spec.kill_switch.engaged = false;
        server.tell(&self.bot).await;
    }

    /// Waits until the kill that is in force is proven flat.
    pub async fn flat(&self, time: Duration) -> View {
        match &self.server {
            Some(server) => server.finished(&self.bot, time).await,
            None => self.bot.flat(time).await,
        }
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
            Step::Mode(_) | Step::KillSwitch | Step::Release | Step::Limits(_) => self.ordered(step).await,
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
        if let Some(server) = &mut self.server {
            // It is told nothing but what the API server has: an incident it must know by itself.
            self.bot = Bot::start_closed(self.machine, self.epoch).await;
            server.over_the_next(&mut self.bot).await;
            server.acknowledged(&self.bot).await;
        } else {
            self.bot = Bot::start_under(self.machine, self.epoch, restrictions).await;
        }
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
