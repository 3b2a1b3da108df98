//! The bot of a backtest: every part of `arb-bot run` that decides or remembers, and nothing that talks to anybody.

use std::sync::Arc;
use std::time::Duration;

use arbbot_crds::control::spec_restrictions;
use arbbot_crds::incident::uid8;
use arc_swap::ArcSwapOption;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Backtest, BacktestError};
use crate::assembly::{Assembled, Parts, QUEUE, assemble, forward};
use crate::books::BooksView;
use crate::clock::Clock;
use crate::control::report::ControlFacts;
use crate::control::task::params;
use crate::exchange::VenueEvent;
use crate::exchange::paper::{Paper, Recorded, relay};
use crate::execution::drain::Demand;
use crate::execution::engine::{ControlChange, Event, Identity, Now, Start, View};
use crate::ledger::{Binding, Books, Ledger, LedgerError, OrderRecord};
use crate::recording::{Recorder, WhenFull};
use crate::risk::{Gate, Slot};
use crate::telemetry::metrics::Metrics;

const CONTACT_EVERY: Duration = Duration::from_secs(1);
/// How long the parts of it get to end, in virtual time.
const END_WITHIN: Duration = Duration::from_secs(60);

/// A bot that runs.
pub struct Bot {
    pub clock: Clock,
    pub gate: Arc<Gate>,
    pub view: watch::Receiver<View>,
    pub books: watch::Receiver<BooksView>,
    ledger: Ledger,
    tasks: JoinSet<()>,
    stop: CancellationToken,
    /// Nobody is told of the kills of guards: what they demand is in force at the gate.
    _kills: mpsc::Receiver<crate::ledger::GuardTrip>,
    _spec: watch::Sender<arbbot_crds::ArbBot>,
}

/// Where its market data is put in.
pub struct Market {
    pub paper: Arc<Paper>,
    pub recorded: Arc<Recorded>,
    pub exchange: Arc<ArcSwapOption<Paper>>,
    pub hears: mpsc::Sender<VenueEvent>,
}

impl Bot {
    /// Starts it at a time of its own, without market data.
    pub async fn start(backtest: &Backtest, from: Timestamp) -> Result<(Self, Market), BacktestError> {
        let Backtest { bot, dir, tick, record, .. } = backtest;
        let clock = Clock::driven_by_tokio(from);
        let uid = bot.metadata.uid.clone().unwrap_or_default();
        let identity = Identity { uid8: uid8(&uid), ..Identity::of(bot) };
        let binding = Binding { bot_uid: uid, portfolio: "backtest".to_owned(), ..Binding::of(bot) };
        let (ledger, recovered) = Ledger::open(dir, &binding, clock.clone()).await?;
        let (paper, told) =
            Paper::open(dir, bot, clock.clone()).map_err(|error| BacktestError::Start(error.to_string()))?;
        let start = Start::anew(identity, params(bot), Now { boot: clock.boottime(), wall: clock.now() });
        let recorder = record.as_ref().map(|path| {
            Recorder::create(path, start.clone(), WhenFull::Wait)
                .map_err(|error| BacktestError::Start(format!("{} cannot be written: {error}", path.display())))
        });
        let recorder = recorder.transpose()?;
        let metrics = Metrics::new().map_err(|error| BacktestError::Start(error.to_string()))?;

        let gate = Arc::new(Gate::new(clock.clone()));
        let (venue, venue_told) = mpsc::channel(QUEUE);
        let (hears, heard) = mpsc::channel(QUEUE);
        let (spec, spec_seen) = watch::channel(bot.clone());
        let Assembled { driver, books_task, exchange, events, view, books, kills, .. } = assemble(Parts {
            start,
            gate: Arc::clone(&gate),
            ledger: ledger.clone(),
            guards: recovered.guards,
            clock: clock.clone(),
            metrics,
            spec: spec_seen,
            // No kill is followed, and a process that is not there cannot be started anew.
            control: watch::channel(ControlFacts::default()).1,
            tick: *tick,
            recorder,
            is_supervised: true,
            resident_memory: || None,
        });
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());

        tasks.spawn(forward(venue_told, events.clone(), stop.clone()));
        let (contact, boottime) = (Arc::clone(&gate), clock.clone());
        tasks.spawn(until(stop.clone(), async move {
            loop {
                contact.in_contact(boottime.boottime());
                tokio::time::sleep(CONTACT_EVERY).await;
            }
        }));
        let on_paper = Arc::clone(&paper);
        tasks.spawn(until(stop.clone(), async move { relay(&on_paper, told, heard, &venue).await }));
        tasks.spawn(books_task.run(stop.clone()));
        tasks.spawn(driver.run(stop.clone()));
        gate.set(Slot::Claim, Vec::new());
        // The engine cannot have ended: nothing of it has run.
        events.send(Event::Lease { epoch: 1 }).await.ok();
        events.send(Event::Control(put_in_force(bot, &gate))).await.ok();
        let this = Self { clock, gate, view, books, ledger, tasks, stop, _kills: kills, _spec: spec };
        Ok((this, Market { paper, recorded: Arc::default(), exchange, hears }))
    }

    /// Whether a part of it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.tasks.try_join_next().is_some()
    }

    /// Ends it once everything is written; returns its books and orders.
    pub async fn stop(mut self) -> Result<(Books, Vec<OrderRecord>), LedgerError> {
        self.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(END_WITHIN, ended).await.is_err() {
            tracing::warn!("a part of the bot did not end");
        }
        let written = self.ledger.books().await;
        self.ledger.close().await;
        written
    }
}

async fn until(stop: CancellationToken, task: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = task => {}
    }
}

/// Puts the spec in force, as the control task does.
fn put_in_force(bot: &arbbot_crds::ArbBot, gate: &Gate) -> ControlChange {
    let restrictions = spec_restrictions(bot);
    let drain = Demand::of(&restrictions);
    let generation = Some(1);
    gate.set_control(&bot.spec.risk.limits, &bot.spec.control_timeouts, restrictions, generation, Vec::new());
    ControlChange { generation, params: params(bot), incidents: 0, releases: 0, kill_began: None, drain }
}
