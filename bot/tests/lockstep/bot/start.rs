//! How the parts of the bot are put together.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arb_bot::assembly::{Assembled, Parts, QUEUE, assemble, forward};
use arb_bot::clock::Clock;
use arb_bot::control::latch::Latches;
use arb_bot::control::ledger::LedgerTask;
use arb_bot::control::report::ControlFacts;
use arb_bot::control::task::params;
use arb_bot::exchange::paper::{Paper, PaperTask};
use arb_bot::exchange::venue::{Client, Connector, SessionTask, Transport};
use arb_bot::exchange::{Exchange, SessionFacts, VenueEvent};
use arb_bot::execution::engine::{Event, Identity, Now, Start};
use arb_bot::ledger::Recovered;
use arb_bot::randomness::Randomness;
use arb_bot::recording::{Recorder, WhenFull};
use arb_bot::risk::{Gate, Slot};
use arb_bot::telemetry::metrics::Metrics;
use arbbot_crds::ArbBot;
use arbbot_crds::arbbot::Execution;
use arbbot_crds::control::Restriction;
use arc_swap::ArcSwapOption;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::control::ControlParts;
use super::{Bot, Machine};

/// What its session with the exchange needs.
struct SessionParts<E> {
    transport: Transport,
    randomness: Randomness,
    venue: mpsc::Sender<VenueEvent>,
    spec: watch::Receiver<ArbBot>,
    gate: Arc<Gate>,
    exchange: Arc<ArcSwapOption<E>>,
    facts: watch::Sender<SessionFacts>,
}

impl Bot {
    pub async fn start(machine: &Machine<'_>, epoch: i64) -> Self {
        Self::start_under(machine, epoch, Vec::new()).await
    }

    /// Starts it under restrictions.
    pub async fn start_under(machine: &Machine<'_>, epoch: i64, restrictions: Vec<Restriction>) -> Self {
        let mut bot = Self::start_closed(machine, epoch).await;
        bot.control(restrictions).await;
        bot
    }

    /// Starts it with its gate as `arb-bot run` finds it: closed until a control is put in force.
    pub async fn start_closed(machine: &Machine<'_>, epoch: i64) -> Self {
        match machine.spec.spec.execution {
            Execution::Live => Self::start_on(machine, epoch, live).await,
            Execution::Paper => Self::start_on(machine, epoch, on_paper).await,
        }
    }

    async fn start_on<E: Exchange>(
        machine: &Machine<'_>,
        epoch: i64,
        session: impl FnOnce(&Machine<'_>, SessionParts<E>) -> BoxFuture<'static, ()>,
    ) -> Self {
        let clock = &machine.clock;
        let (ledger, recovered) = machine.ledger().await.unwrap();
        let anchor = machine.anchor.lock().unwrap().clone();
        let rebuilding = ledger.discontinued(anchor.as_ref(), &recovered).await.unwrap();
        let gate = Arc::new(Gate::new(clock.clone()));
        let start = start(machine, &recovered);
        let recorder = machine.record.as_ref().map(|dir| recorder(dir, epoch, start.clone()));
        let (spec, spec_seen) = watch::channel(machine.spec.clone());
        let latches = Latches::recovered(recovered.incidents, recovered.flattening, recovered.released);
        let first_facts = ControlFacts { incidents: latches.status(), ..ControlFacts::default() };
        let (control_facts, control_seen) = watch::channel(first_facts);
        let (facts, facts_seen) = watch::channel(SessionFacts::default());
        let (venue, venue_events) = mpsc::channel(QUEUE);
        let Assembled { driver, books_task, exchange, events, view, books, kills, restart } = assemble(Parts {
            start,
            gate: Arc::clone(&gate),
            ledger: ledger.clone(),
            guards: recovered.guards,
            clock: clock.clone(),
            metrics: Metrics::new().unwrap(),
            spec: spec_seen.clone(),
            control: control_seen.clone(),
            tick: machine.tick,
            recorder,
            is_supervised: true,
            resident_memory: || None,
        });
        let watch_of_ledger = LedgerTask {
            ledger: ledger.clone(),
            gate: Arc::clone(&gate),
            clock: clock.clone(),
            view: view.clone(),
            books: books.clone(),
            rebuilding,
        };
        let session_parts = SessionParts {
            transport: Transport::InProcess(machine.dial.clone()),
            randomness: Randomness::seeded(machine.seed.wrapping_add(epoch.unsigned_abs())),
            venue,
            spec: spec_seen,
            gate: Arc::clone(&gate),
            exchange,
            facts,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(forward(venue_events, events.clone(), CancellationToken::new()));
        tasks.spawn(stay_in_contact(Arc::clone(&gate), clock.clone()));
        tasks.spawn(watch_of_ledger.run(CancellationToken::new()));
        tasks.spawn(session(machine, session_parts));
        tasks.spawn(books_task.run(CancellationToken::new()));
        let stop = CancellationToken::new();
        tasks.spawn(driver.run(stop.clone()));
        gate.set(Slot::Claim, Vec::new());
        events.send(Event::Lease { epoch }).await.unwrap();
        Self {
            tasks,
            view,
            books,
            facts: facts_seen,
            gate,
            spec,
            events,
            generation: 0,
            incidents: 0,
            releases: 0,
            is_killed: false,
            kill_began: None,
            clock: clock.clone(),
            acknowledged: Arc::clone(&machine.acknowledged),
            ledger: Some(ledger),
            control_facts: control_seen,
            control: Some(ControlParts { latches, guard_kills: kills, facts: control_facts }),
            restart,
            stop,
        }
    }
}

/// What its engine begins with.
fn start(machine: &Machine<'_>, recovered: &Recovered) -> Start {
    let Machine { clock, spec: bot, .. } = machine;
    let now = Now { boot: clock.boottime(), wall: clock.now() };
    Start {
        owned_since: recovered.owned_since(),
        orders: recovered.orders.clone(),
        funding_rates: recovered.funding_rates.clone(),
        ..Start::anew(Identity::of(bot), params(bot), now)
    }
}

/// Of one of its lives.
fn recorder(dir: &Path, epoch: i64, start: Start) -> Recorder {
    Recorder::create(&dir.join(format!("session-{epoch}.jsonl")), start, WhenFull::Wait).unwrap()
}

async fn stay_in_contact(gate: Arc<Gate>, clock: Clock) {
    loop {
        gate.in_contact(clock.boottime());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn live(machine: &Machine<'_>, parts: SessionParts<Client>) -> BoxFuture<'static, ()> {
    let SessionParts { transport, randomness, venue, spec, gate, exchange, facts } = parts;
    let session = SessionTask {
        connector: Connector::new(transport, machine.clock.clone(), randomness, venue),
        credentials_dir: machine.dir.join("primary"),
        backup_credentials_dir: Some(machine.dir.join("backup")),
        ca_file: None,
        spec,
        gate,
        exchange,
        facts,
        before: None,
    };
    session.run(CancellationToken::new()).boxed()
}

fn on_paper(machine: &Machine<'_>, parts: SessionParts<Paper>) -> BoxFuture<'static, ()> {
    let SessionParts { transport, randomness, venue, spec, exchange, facts, .. } = parts;
    let Machine { clock, dir, spec: bot, .. } = machine;
    let (paper, told) = Paper::open(&dir.join("ledger"), bot, clock.clone()).unwrap();
    let session = PaperTask {
        paper,
        told,
        transport,
        clock: clock.clone(),
        randomness,
        events: venue,
        ca_file: None,
        spec,
        exchange,
        facts,
    };
    session.run(CancellationToken::new()).boxed()
}
