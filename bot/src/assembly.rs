//! Puts together what decides and what remembers: engine and driver, guards and books, and the channels between them.
//!
//! `arb-bot run`, a backtest, the tests in lockstep and the bench all trade with these parts, wired in this one way. They
//! differ in what is around them: the session with an exchange, control and status.

use std::sync::Arc;
use std::time::Duration;

use arbbot_crds::ArbBot;
use arc_swap::ArcSwapOption;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::books::{self, BooksTask, BooksView};
use crate::clock::Clock;
use crate::control::report::ControlFacts;
use crate::exchange::VenueEvent;
use crate::execution::driver::{Driver, Io, Products};
use crate::execution::engine::{Event, Start, View};
use crate::ledger::{GuardTrip, Ledger, RecoveredGuards};
use crate::recording::Recorder;
use crate::risk::Gate;
use crate::risk::guards::GuardWatch;
use crate::risk::guards::watch::{SharedMeters, Wiring};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::server::Heartbeat;

/// Events that may wait for the engine.
pub const QUEUE: usize = 4096;
/// Kills of guards that may wait for the control task.
const KILLS: usize = 16;

/// What the parts begin with.
pub struct Parts {
    pub start: Start,
    pub gate: Arc<Gate>,
    pub ledger: Ledger,
    /// What the ledger remembers of the guards.
    pub guards: RecoveredGuards,
    pub clock: Clock,
    pub metrics: Metrics,
    /// The spec in force.
    pub spec: watch::Receiver<ArbBot>,
    /// Its incidents are the kills that are open.
    pub control: watch::Receiver<ControlFacts>,
    /// How often the engine looks at the time.
    pub tick: Duration,
    pub recorder: Option<Recorder>,
    /// [`Wiring::is_supervised`].
    pub is_supervised: bool,
    /// [`Wiring::resident_memory`].
    pub resident_memory: fn() -> Option<u64>,
}

/// The parts, not yet at work, and their outer ends.
pub struct Assembled<E> {
    pub driver: Driver<E>,
    pub books_task: BooksTask<E>,
    /// The exchange of the open session is put in here.
    pub exchange: Arc<ArcSwapOption<E>>,
    /// What is told to the engine.
    pub events: mpsc::Sender<Event>,
    pub view: watch::Receiver<View>,
    pub books: watch::Receiver<BooksView>,
    /// Trips of guards that kill.
    pub kills: mpsc::Receiver<GuardTrip>,
    /// Cancelled when a guard ends the process.
    pub restart: CancellationToken,
}

/// Puts them together.
#[must_use]
pub fn assemble<E>(parts: Parts) -> Assembled<E> {
    let Parts { start, gate, ledger, clock, metrics, control, .. } = parts;
    let engine = start.engine();
    let (view, view_seen) = watch::channel(engine.view(&gate.current().0, start.at));
    let (events, engine_events) = mpsc::channel(QUEUE);
    let (books, books_seen) = watch::channel(BooksView::default());
    let (kills, kills_heard) = mpsc::channel(KILLS);
    let (inbox, told) = books::inbox();
    let exchange: Arc<ArcSwapOption<E>> = Arc::default();
    let (meters, restart) = (SharedMeters::new(clock.boottime()), CancellationToken::new());
    let wiring = Wiring {
        spec: parts.spec,
        books: books_seen.clone(),
        open_kills: Box::new(move |id| control.borrow().incidents.iter().any(|open| open.id == id)),
        kills,
        restart: restart.clone(),
        is_supervised: parts.is_supervised,
        resident_memory: parts.resident_memory,
        ledger: ledger.clone(),
        metrics: metrics.clone(),
        meters: meters.clone(),
    };
    let books_task = BooksTask {
        identity: start.identity.clone(),
        ledger: ledger.clone(),
        clock: clock.clone(),
        exchange: Arc::clone(&exchange),
        told,
        engine: view_seen.clone(),
        view: books,
    };
    let heartbeat = Heartbeat::new(clock.clone());
    let io = Io {
        identity: start.identity,
        gate,
        ledger,
        clock,
        exchange: Arc::clone(&exchange),
        feedback: events.clone(),
        metrics,
        products: Products::default(),
        meters,
        books: inbox,
    };
    let guards = GuardWatch::new(wiring, parts.guards);
    let driver = Driver {
        engine,
        io,
        events: engine_events,
        view,
        heartbeat,
        tick: parts.tick,
        guards,
        recorder: parts.recorder,
    };
    Assembled { driver, books_task, exchange, events, view: view_seen, books: books_seen, kills: kills_heard, restart }
}

/// Tells the engine what the session with the exchange tells, until it is told to stop.
pub async fn forward(mut from: mpsc::Receiver<VenueEvent>, to: mpsc::Sender<Event>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            Some(event) = from.recv() => {
                if to.send(Event::Venue(event)).await.is_err() {
                    shutdown.cancelled().await;
                }
            }
        }
    }
}
