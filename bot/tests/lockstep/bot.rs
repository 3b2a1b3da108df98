//! The bot without Kubernetes: engine, driver, ledger and session as `arb-bot run` puts them together; the test gives
//! the control.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arb_bot::clock::Clock;
use arb_bot::control::task::params;
use arb_bot::exchange::SessionFacts;
use arb_bot::exchange::paper::{Paper, PaperTask};
use arb_bot::exchange::venue::{Client, Connector, Dial, SessionTask, Transport};
use arb_bot::execution::drain::Demand;
use arb_bot::execution::driver::{Driver, Io, Products};
use arb_bot::execution::engine::{ControlChange, Engine, Event, Identity, Now, View};
use arb_bot::execution::orders::Orders;
use arb_bot::ledger::{Binding, Ledger, LedgerError};
use arb_bot::randomness::Randomness;
use arb_bot::risk::{Gate, Slot};
use arb_bot::telemetry::metrics::Metrics;
use arb_bot::telemetry::server::Heartbeat;
use arbbot_crds::ArbBot;
use arbbot_crds::arbbot::Execution;
use arbbot_crds::control::{Control, Restriction, effective};
use arbbot_crds::incident::uid8;
use arc_swap::ArcSwapOption;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::exchange::{FUTURE, SPOT};

pub const UID: &str = "0a1b2c3d-0000-0000-0000-000000000000";

/// A spec for an account; `changes` is merged into `spec.credentials` and `spec.venue.coinbase`.
pub fn spec(portfolio: &str, credentials: &Value, coinbase: &Value) -> ArbBot {
    let mut bot = json!({
        "apiVersion": "arbbot.io/v1alpha1", "kind": "ArbBot",
        "metadata": {"name": "bot", "namespace": "desk", "uid": UID, "generation": 1},
        "spec": {
            "execution": "Live",
            "venue": {"coinbase": {
                "portfolio": portfolio,
                "endpoints": [endpoint("simulator")],
                "requestsPerSecond": 30,
            }},
            "strategy": {"fundingCarry": {
                "spotProduct": SPOT, "futureProduct": FUTURE, "targetNotional": "10000",
                "orders": {"legTimeout": "2s"},
            }},
            "credentials": {"secretRef": {"name": "key"}},
        },
    });
    for (part, changes) in [("/spec/credentials", credentials), ("/spec/venue/coinbase", coinbase)] {
        for (name, value) in changes.as_object().unwrap() {
            bot.pointer_mut(part).unwrap()[name] = value.clone();
        }
    }
    serde_json::from_value(bot).unwrap()
}

pub fn endpoint(host: &str) -> Value {
    json!({
        "name": host,
        "restUrl": format!("https://{host}"),
        "marketWebSocketUrl": format!("wss://{host}/ws"),
        "userWebSocketUrl": format!("wss://{host}/ws/user"),
    })
}

/// What its ledger belongs to.
pub fn binding(bot: &ArbBot) -> Binding {
    let carry = &bot.spec.strategy.funding_carry;
    Binding {
        bot_uid: UID.to_owned(),
        execution: bot.spec.execution.to_string(),
        venue: "coinbase".to_owned(),
        portfolio: bot.spec.account().to_owned(),
        spot_product: carry.spot_product.clone(),
        future_product: carry.future_product.clone(),
    }
}

/// Every control that a bot put in force, and when.
pub type Acknowledged = Arc<Mutex<Vec<(Timestamp, Control)>>>;

/// Where a bot runs: what outlives it.
pub struct Machine<'a> {
    pub clock: Clock,
    /// How often the engine looks at the time.
    pub tick: Duration,
    pub seed: u64,
    /// Ledger in `ledger`, keys in `primary` and `backup`.
    pub dir: &'a Path,
    pub dial: Dial,
    pub spec: ArbBot,
    pub acknowledged: Acknowledged,
}

pub struct Bot {
    tasks: JoinSet<()>,
    pub view: watch::Receiver<View>,
    pub facts: watch::Receiver<SessionFacts>,
    pub gate: Arc<Gate>,
    pub spec: watch::Sender<ArbBot>,
    events: mpsc::Sender<Event>,
    generation: i64,
    incidents: u64,
    releases: u64,
    is_killed: bool,
    clock: Clock,
    acknowledged: Acknowledged,
}

/// What a driver needs beside its exchange.
struct Wires {
    engine: Engine,
    identity: Identity,
    gate: Arc<Gate>,
    ledger: Ledger,
    clock: Clock,
    view: watch::Sender<View>,
    tick: Duration,
}

impl Wires {
    fn drive<E: arb_bot::exchange::Exchange>(
        self,
        exchange: Arc<ArcSwapOption<E>>,
        (feedback, events): (mpsc::Sender<Event>, mpsc::Receiver<Event>),
        tasks: &mut JoinSet<()>,
    ) {
        let Self { engine, identity, gate, ledger, clock, view, tick } = self;
        let heartbeat = Heartbeat::new(clock.clone());
        let (metrics, products) = (Metrics::new().unwrap(), Products::default());
        let io = Io { identity, gate, ledger, clock, exchange, feedback, metrics, products };
        let driver = Driver { engine, io, events, view, heartbeat, tick };
        tasks.spawn(driver.run(CancellationToken::new()));
    }
}

impl Bot {
    pub async fn start(machine: &Machine<'_>, epoch: i64) -> Self {
        Self::start_under(machine, epoch, Vec::new()).await
    }

    /// Starts it under restrictions.
    pub async fn start_under(machine: &Machine<'_>, epoch: i64, restrictions: Vec<Restriction>) -> Self {
        let Machine { clock, dir, spec: bot, .. } = machine;
        let carry = &bot.spec.strategy.funding_carry;
        let binding = binding(bot);
        let (ledger, recovered) = loop {
            match Ledger::open(&dir.join("ledger"), &binding, clock.clone()).await {
                Ok(opened) => break opened,
                // What the last process left under way ends with the next turn of the runtime.
                Err(LedgerError::Locked { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        let identity = Identity {
            uid8: uid8(UID),
            spot_product: carry.spot_product.clone(),
            future_product: carry.future_product.clone(),
        };
        let gate = Arc::new(Gate::new(clock.clone()));
        let orders = Orders::recovered(&recovered.orders, clock.boottime(), clock.now());
        let owned_since = recovered.orders.first().map(|order| order.created_at);
        let engine = Engine::new(identity.clone(), params(bot), orders, owned_since);
        let now = Now { boot: clock.boottime(), wall: clock.now() };
        let (view, view_seen) = watch::channel(engine.view(&gate.current().0, now));
        let (events, engine_events) = mpsc::channel(4096);
        let (venue, mut venue_events) = mpsc::channel(4096);
        let (spec, spec_seen) = watch::channel(bot.clone());
        let (facts, facts_seen) = watch::channel(SessionFacts::default());
        let transport = Transport::InProcess(machine.dial.clone());
        let randomness = Randomness::seeded(machine.seed.wrapping_add(epoch.unsigned_abs()));
        let io_gate = Arc::clone(&gate);
        let mut tasks = JoinSet::new();
        let forward = events.clone();
        tasks.spawn(async move {
            while let Some(event) = venue_events.recv().await {
                forward.send(Event::Venue(event)).await.unwrap();
            }
        });
        let (contact, boottime) = (Arc::clone(&gate), clock.clone());
        tasks.spawn(async move {
            loop {
                contact.in_contact(boottime.boottime());
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let wires = Wires { engine, identity, gate: io_gate, ledger, clock: clock.clone(), view, tick: machine.tick };
        let events_of_engine = (events.clone(), engine_events);
        if bot.spec.execution == Execution::Paper {
            let products = [carry.spot_product.clone(), carry.future_product.clone()];
            let terms = bot.spec.paper.clone().unwrap_or_default();
            let (paper, told) = Paper::open(&dir.join("ledger"), &terms, products, clock.clone()).unwrap();
            let exchange: Arc<ArcSwapOption<Paper>> = Arc::default();
            let session = PaperTask {
                paper,
                told,
                transport,
                clock: clock.clone(),
                randomness,
                events: venue,
                ca_file: None,
                spec: spec_seen,
                exchange: Arc::clone(&exchange),
                facts,
            };
            tasks.spawn(session.run(CancellationToken::new()));
            wires.drive(exchange, events_of_engine, &mut tasks);
        } else {
            let exchange: Arc<ArcSwapOption<Client>> = Arc::default();
            let session = SessionTask {
                connector: Connector::new(transport, clock.clone(), randomness, venue),
                credentials_dir: dir.join("primary"),
                backup_credentials_dir: Some(dir.join("backup")),
                ca_file: None,
                spec: spec_seen,
                gate: Arc::clone(&gate),
                exchange: Arc::clone(&exchange),
                facts,
                before: None,
            };
            tasks.spawn(session.run(CancellationToken::new()));
            wires.drive(exchange, events_of_engine, &mut tasks);
        }
        gate.set(Slot::Claim, Vec::new());
        events.send(Event::Lease { epoch }).await.unwrap();
        let (view, facts) = (view_seen, facts_seen);
        let clock = clock.clone();
        let mut bot = Self {
            tasks,
            view,
            facts,
            gate,
            spec,
            events,
            generation: 0,
            incidents: 0,
            releases: 0,
            is_killed: false,
            clock,
            acknowledged: Arc::clone(&machine.acknowledged),
        };
        bot.control(restrictions).await;
        bot
    }

    /// Puts restrictions in force, as the control task does.
    pub async fn control(&mut self, restrictions: Vec<Restriction>) {
        self.generation += 1;
        let kill = restrictions.iter().any(|restriction| restriction.source.starts_with("incident/"));
        self.incidents += u64::from(kill);
        self.releases += u64::from(self.is_killed && !kill);
        self.is_killed = kill;
        let bot = self.spec.borrow().clone();
        let generation = Some(self.generation);
        let drain = Demand::of(&restrictions);
        let (limits, timeouts) = (&bot.spec.risk.limits, &bot.spec.control_timeouts);
        self.acknowledged.lock().unwrap().push((self.clock.now(), effective(limits, &restrictions)));
        self.gate.set_control(limits, timeouts, restrictions, generation, Vec::new());
        let change = ControlChange {
            generation,
            params: params(&bot),
            incidents: self.incidents,
            releases: self.releases,
            kill_began: kill.then(|| self.clock.now()),
            drain,
        };
        self.events.send(Event::Control(change)).await.unwrap();
    }

    /// Whether every part of it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.tasks.try_join_next().is_none()
    }

    /// kill -9: nothing of it runs a step further.
    pub async fn kill(mut self) {
        self.tasks.shutdown().await;
    }

    /// Waits until the view shows it; after ten virtual minutes it never will.
    pub async fn wait(&self, what: &str, shown: impl Fn(&View) -> bool) -> View {
        self.wait_within(Duration::from_secs(600), what, shown).await
    }

    /// Waits until the view shows it; after so long it never will.
    pub async fn wait_within(&self, time: Duration, what: &str, shown: impl Fn(&View) -> bool) -> View {
        let mut seen = self.view.clone();
        let wait = seen.wait_for(|view| shown(view));
        match tokio::time::timeout(time, wait).await {
            Ok(view) => view.unwrap().clone(),
            Err(_) => panic!("{what}: {:#?} {:#?}", self.view.borrow(), self.gate.restrictions()),
        }
    }

    /// Waits until the kill that is in force is proven flat.
    pub async fn flat(&self, time: Duration) -> View {
        let incidents = self.incidents;
        let shown = |view: &View| view.incidents == incidents && view.proof.flat.confirmed;
        self.wait_within(time, "flat after a kill", shown).await
    }

    /// Waits until the session shows it; after ten virtual minutes it never will.
    pub async fn session(&self, what: &str, shown: impl Fn(&SessionFacts) -> bool) -> SessionFacts {
        let mut seen = self.facts.clone();
        let wait = seen.wait_for(|facts| shown(facts));
        match tokio::time::timeout(Duration::from_secs(600), wait).await {
            Ok(facts) => facts.unwrap().clone(),
            Err(_) => panic!("{what}: {:#?}", self.facts.borrow()),
        }
    }
}
