//! Puts the guards in force: takes the readings once a second, closes the gate before anything waits, and then tells the
//! ledger, the kill saga and the program.

mod record;
mod release;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arbbot_crds::ArbBot;
use arbbot_crds::control::Duty;
use arbbot_crds::guards::{GuardAction, Guards as SpecGuards, InForce};
use kube::ResourceExt;
use rust_decimal::Decimal;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::equity::Equity;
use super::meters::Meters;
use super::readings::Sources;
use super::restarts::Restarts;
use super::trades::Trades;
use super::{Change, EVERY, Guards, GuardsView, Source};
use crate::books::BooksView;
use crate::exchange::VenueEvent;
use crate::execution::engine::{Engine, Event, Now};
use crate::execution::orders::Order;
use crate::ledger::{GuardTrip, Ledger, RecoveredGuards};
use crate::risk::{Gate, Slot};
use crate::telemetry::metrics::Metrics;
use record::Record;
pub use record::Recorder;

/// How often the equity is kept: what a crash loses of its peak.
const KEEP_EQUITY_EVERY: Duration = Duration::from_secs(60);

/// The meters, as the tasks that make calls share them.
#[derive(Clone, Debug)]
pub struct SharedMeters(Arc<Mutex<Meters>>);

impl SharedMeters {
    /// Counts at zero.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self(Arc::new(Mutex::new(Meters::new(now))))
    }

    /// The meters. A panic while they were locked leaves counts that are complete.
    pub fn lock(&self) -> MutexGuard<'_, Meters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the guards have to do with the rest of the program.
pub struct Wiring {
    /// The spec in force.
    pub spec: watch::Receiver<ArbBot>,
    /// What the books say: funding belongs to the equity.
    pub books: watch::Receiver<BooksView>,
    /// Whether the kill of an incident is open.
    pub open_kills: Box<dyn Fn(&str) -> bool + Send>,
    /// Trips that kill, for the control task.
    pub kills: mpsc::Sender<GuardTrip>,
    /// Cancelled when a guard ends the process.
    pub restart: CancellationToken,
    /// Whether the process is known to be started anew, as Kubernetes does. Where it is not, a shipped guard that restarts
    /// only warns; one of the spec ends the process.
    pub is_supervised: bool,
    /// Resident memory in bytes.
    pub resident_memory: fn() -> Option<u64>,
    pub ledger: Ledger,
    pub metrics: Metrics,
    pub meters: SharedMeters,
}

/// The guards at work.
pub struct GuardWatch {
    guards: Guards,
    shown: Arc<GuardsView>,
    equity: Equity,
    trades: Trades,
    restarts: Restarts,
    /// A trip that restarts, once no kill is under way.
    restart_due: Option<GuardTrip>,
    wiring: Wiring,
    capital: Decimal,
    next: Duration,
    next_keeping: Duration,
    /// Releases that are being written.
    releasing: BTreeSet<String>,
    to_ledger: mpsc::UnboundedSender<Record>,
    kept: mpsc::UnboundedReceiver<Record>,
    recorder: Option<Recorder>,
}

impl GuardWatch {
    /// The guards of the spec, with what the ledger and the last status remember.
    #[must_use]
    pub fn new(mut wiring: Wiring, recovered: RecoveredGuards) -> Self {
        let (bot, in_force) = {
            let bot = wiring.spec.borrow_and_update().clone();
            let in_force = in_force(&bot.spec.risk.guards, wiring.is_supervised);
            (bot, in_force)
        };
        let RecoveredGuards { trips, ended, restarts, equity, accepted } = recovered;
        let mut guards = Guards::recovered(&in_force.guards, in_force.problems, trips);
        let shown = bot.status.as_ref().and_then(|status| status.bot.as_ref()).map_or(&[][..], |bot| &bot.guards);
        for trip in shown.iter().filter_map(GuardTrip::remembered) {
            // A status from before the release.
            let has_ended = ended.iter().any(|(guard, id)| *guard == trip.guard && Some(id) == trip.incident.as_ref());
            if !has_ended {
                guards.remember(trip);
            }
        }
        let (to_ledger, queue) = mpsc::unbounded_channel();
        let (keeps, kept) = mpsc::unbounded_channel();
        let recorder = Some(Recorder { ledger: wiring.ledger.clone(), queue, kept: keeps });
        let this = Self {
            shown: Arc::new(guards.view()),
            guards,
            equity: Equity::recovered(&equity, accepted),
            trades: Trades::default(),
            restarts: Restarts::recovered(restarts),
            restart_due: None,
            capital: bot.spec.risk.capital.0,
            next: Duration::ZERO,
            next_keeping: Duration::ZERO,
            releasing: BTreeSet::new(),
            to_ledger,
            kept,
            recorder,
            wiring,
        };
        // A kill that the control task may not have heard of.
        for trip in this.guards.trips().filter(|trip| trip.action == GuardAction::Kill) {
            this.kill(trip);
        }
        this
    }

    /// What writes to the ledger; once.
    pub fn recorder(&mut self) -> Option<Recorder> {
        self.recorder.take()
    }

    /// Gives the recorder what it does not have yet, and ends it after that.
    pub fn end(mut self) {
        let highs = self.equity.take_unsaved();
        self.keep(Record::Equity(highs));
    }

    /// The guards as status shows them.
    #[must_use]
    pub fn view(&self) -> Arc<GuardsView> {
        Arc::clone(&self.shown)
    }

    /// Takes in what happens to the engine, before the engine does.
    pub fn observe(&self, event: &Event, engine: &Engine, now: Now) {
        match event {
            Event::Venue(VenueEvent::Touch { product, touch: Some(_) }) => {
                self.wiring.meters.lock().priced(now.boot, usize::from(!engine.is_spot(product)));
            }
            Event::Venue(VenueEvent::Link { link, down }) => {
                self.wiring.meters.lock().link(now.boot, *link, down.is_some());
            }
            Event::Placed { result, .. } => self.wiring.meters.lock().answered(now.boot, result),
            _ => {}
        }
    }

    /// An order was decided.
    pub fn decided(&self, client_order_id: &str, product: &str, engine: &Engine, now: Now) {
        if let (Some(mid), Some(unit_base)) = (engine.mid(product, now), engine.unit_base(product)) {
            self.wiring.meters.lock().decided(client_order_id, mid, unit_base);
        }
    }

    /// More is known of an order.
    pub fn order(&self, order: &Order, now: Now) {
        self.wiring.meters.lock().order(now.boot, order);
    }

    /// The engine took a turn of so long.
    pub fn turned(&self, took: Duration) {
        self.wiring.meters.lock().turned(took);
    }

    /// Evaluates the guards, if a second has passed, and puts what they demand in force at the gate.
    ///
    /// `clock_skew`: difference between the venue's clock and the machine's.
    pub fn turn(&mut self, engine: &Engine, gate: &Gate, clock_skew: impl FnOnce() -> Option<Duration>, now: Now) {
        self.take_releases_in(gate, now);
        if now.boot < self.next {
            return;
        }
        self.next = now.boot + EVERY;
        let mut changes = self.configure();
        let (funding_quote, settlement) = {
            let books = self.wiring.books.borrow();
            (books.is_read.then_some(books.funding_quote), books.settlement.clone())
        };
        let figures = engine.figures(&gate.current().0, funding_quote, now);
        self.equity.note(now.wall, figures.equity_quote);
        self.trades.note(now.boot, &figures);
        let readings = {
            let mut meters = self.wiring.meters.lock();
            meters.second(now.boot, figures.is_imbalanced);
            let sources = Sources {
                figures: &figures,
                meters: &meters,
                equity: &self.equity,
                trades: &self.trades,
                capital: self.capital,
                settlement: settlement.as_ref(),
                clock_skew: clock_skew(),
                resident_memory: (self.wiring.resident_memory)(),
            };
            sources.readings(now.boot)
        };
        let source = {
            let bot = self.wiring.spec.borrow();
            Source { uid: bot.uid().unwrap_or_default(), generation: bot.metadata.generation.unwrap_or_default() }
        };
        changes.extend(self.guards.evaluate(&readings, &source, now.wall));
        // The gate first; everything that waits comes after it.
        gate.set(Slot::Guards, self.guards.restrictions());
        self.shown = Arc::new(self.guards.view());
        self.wiring.metrics.guards(&readings, &self.guards.states());
        for change in changes {
            self.carry_out(change, now);
        }
        self.release_what_a_person_releases(now);
        self.restart_if_due(gate, now);
        self.keep_equity(now);
    }

    fn configure(&mut self) -> Vec<Change> {
        if !self.wiring.spec.has_changed().unwrap_or(false) {
            return Vec::new();
        }
        let (in_force, capital) = {
            let bot = self.wiring.spec.borrow_and_update();
            (in_force(&bot.spec.risk.guards, self.wiring.is_supervised), bot.spec.risk.capital.0)
        };
        self.capital = capital;
        self.guards.configure(&in_force.guards, in_force.problems)
    }

    fn carry_out(&mut self, change: Change, now: Now) {
        match change {
            Change::Tripped(trip) => {
                let GuardTrip { guard, metric, action, value, threshold, .. } = &trip;
                tracing::warn!(guard, %metric, %value, %threshold, %action, "a guard has tripped");
                self.wiring.metrics.guard_tripped(*metric, *action);
                if *action == GuardAction::Kill {
                    self.kill(&trip);
                }
                self.keep(Record::Tripped(trip));
            }
            Change::Raised { trip, instead_of } => {
                let (guard, action) = (trip.guard.clone(), trip.action);
                tracing::warn!(guard, %action, "what the trip of a guard demands has risen: it is a trip of its own");
                if action == GuardAction::Kill {
                    self.kill(&trip);
                }
                // In this order: a process that ends between the two leaves one trip too many, not one too few.
                self.keep(Record::Tripped(trip));
                self.keep(Record::Ended { guard, tripped_at: instead_of, at: now.wall, by_hand: false });
            }
            Change::Ended { guard, tripped_at } => {
                tracing::info!(guard, "the trip of a guard has ended by itself");
                self.keep(Record::Ended { guard, tripped_at, at: now.wall, by_hand: false });
            }
        }
    }

    fn keep(&self, record: Record) {
        // The recorder ends after the guards.
        self.to_ledger.send(record).ok();
    }

    fn kill(&self, trip: &GuardTrip) {
        // The gate flattens already; the incident makes it last.
        if let Err(error) = self.wiring.kills.try_send(trip.clone()) {
            tracing::error!(%error, guard = trip.guard, "the control task does not hear of a guard's kill");
        }
    }

    /// A kill is not cut in its middle: the restart waits until no incident is open, and is forgotten with its trip.
    fn restart_if_due(&mut self, gate: &Gate, now: Now) {
        let lasts = |due: &GuardTrip| {
            self.guards.trips().any(|trip| (&trip.guard, trip.tripped_at) == (&due.guard, due.tripped_at))
        };
        let Some(trip) = self.restart_due.take().filter(lasts) else { return };
        let is_incident = |source: &str| source.starts_with("incident/");
        let kills = gate.current().0.duty == Duty::Flatten
            || gate.restrictions().iter().any(|restriction| is_incident(&restriction.source));
        if kills {
            self.restart_due = Some(trip);
        } else {
            self.restart(&trip, now);
        }
    }

    fn restart(&mut self, trip: &GuardTrip, now: Now) {
        if self.restarts.take(now.wall) {
            tracing::warn!(guard = trip.guard, "the guard restarts the bot");
            self.wiring.restart.cancel();
        } else {
            tracing::error!(
                guard = trip.guard,
                most = super::restarts::MOST,
                "the guard does not restart the bot: guards have restarted it too often within an hour"
            );
        }
    }

    fn keep_equity(&mut self, now: Now) {
        if now.boot < self.next_keeping {
            return;
        }
        self.next_keeping = now.boot + KEEP_EQUITY_EVERY;
        let highs = self.equity.take_unsaved();
        if !highs.is_empty() {
            self.keep(Record::Equity(highs));
        }
    }
}

/// The guards in force. A shipped one ends no process that nobody may start anew.
fn in_force(guards: &SpecGuards, is_supervised: bool) -> InForce {
    let mut in_force = guards.in_force();
    let is_own = |name: &str| guards.list.iter().any(|own| own.name == name);
    for guard in in_force.guards.iter_mut().filter(|guard| guard.action == GuardAction::Restart) {
        if !is_supervised && !is_own(&guard.name) {
            guard.action = GuardAction::Warn;
        }
    }
    in_force
}

/// Resident memory of this process, in bytes.
#[must_use]
pub fn resident_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails when the shipped guard ends a process that nobody starts again (mutation: `guard.action = GuardAction::Warn` is
    /// left out).
    #[test]
    fn without_a_supervisor_only_a_guard_of_the_spec_ends_the_process() {
        let restarting = |spec: &SpecGuards, is_supervised| -> Vec<String> {
            let guards = in_force(spec, is_supervised).guards.into_iter();
            guards.filter(|guard| guard.action == GuardAction::Restart).map(|guard| guard.name).collect()
        };
        let mut spec = SpecGuards::default();
        assert_eq!(restarting(&spec, true), ["websocket-restart"]);
        assert!(restarting(&spec, false).is_empty());
        let own = spec.in_force().guards.into_iter().find(|guard| guard.name == "websocket-restart");
        spec.list.extend(own);
        assert_eq!(restarting(&spec, false), ["websocket-restart"], "its owner says so");
    }
}
