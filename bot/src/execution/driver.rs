//! Carries the engine's commands out: ledger, gate, exchange, in this order; feeds the answers back as events.

mod io;
mod record;

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::exchange::Exchange;
use crate::execution::clock_check::ClockCheck;
use crate::execution::engine::{Command, Engine, Event, Now, View};
use crate::recording::Recorder;
use crate::risk::guards::GuardWatch;
use crate::telemetry::server::Heartbeat;
pub use io::{Io, Products};
use record::{Entry, cumulative, decision, entry, record};

/// How often the engine looks at the time, unless a test has less of it.
pub const TICK: Duration = Duration::from_millis(100);
/// How long the ledger has at the end for what is still to be written: less than what the program waits for the engine.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);

/// The driver of one engine.
pub struct Driver<E> {
    pub engine: Engine,
    pub io: Io<E>,
    pub events: mpsc::Receiver<Event>,
    pub view: watch::Sender<View>,
    pub heartbeat: Heartbeat,
    /// How often the engine looks at the time: [`TICK`].
    pub tick: Duration,
    /// Acts on the gate before the engine acts.
    pub guards: GuardWatch,
    /// Writes down what the engine is told and decides.
    pub recorder: Option<Recorder>,
}

impl<E: Exchange> Driver<E> {
    /// Runs until it is told to stop, and then until everything is written, for 10 s at most. Before it is told, the gate
    /// must have been closed and the orders that work be gone.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let (entries, queue) = mpsc::unbounded_channel();
        // Both end with this future: whoever drops it ends the driver as a crash would.
        let (mut recorder, mut calls) = (JoinSet::new(), JoinSet::new());
        recorder.spawn(record(self.io.ledger.clone(), queue));
        if let Some(of_guards) = self.guards.recorder() {
            recorder.spawn(of_guards.run());
        }
        let mut clock_check = ClockCheck::default();
        let mut ticks = tokio::time::interval(self.tick);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            let event = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(event) = self.events.recv() => event,
                _ = ticks.tick() => Event::Tick,
            };
            let now = Now { boot: self.io.clock.boottime(), wall: self.io.clock.now() };
            self.guards.observe(&event, &self.engine, now);
            let ahead = || self.io.exchange.load().as_ref()?.clock_skew();
            clock_check.turn(&self.io.clock, &self.io.gate, ahead, now.boot);
            let skew = || Some(ahead()?.unsigned_abs());
            self.guards.turn(&self.engine, &self.io.gate, skew, now);
            let commands = match &mut self.recorder {
                None => self.engine.handle(event, self.io.gate.as_ref(), now),
                Some(recorder) => recorder.turn(&mut self.engine, event, self.io.gate.as_ref(), now),
            };
            for command in commands {
                self.carry_out(command, &entries, &mut calls, now);
            }
            self.guards.turned(self.io.clock.boottime().saturating_sub(now.boot));
            while let Some(ended) = calls.try_join_next() {
                if let Err(error) = ended {
                    tracing::error!(%error, "a call to the exchange failed in the bot itself; the next listing tells its outcome");
                }
            }
            self.show(now);
        }
        // What is under way goes on until the program ends.
        calls.detach_all();
        drop(entries);
        self.guards.end();
        let written = async {
            while let Some(ended) = recorder.join_next().await {
                if ended.is_err() {
                    tracing::error!("a recorder of the ledger stopped before everything was written");
                }
            }
        };
        // An unread ledger takes nothing in this process.
        if !self.io.ledger.is_unread() && tokio::time::timeout(WRITTEN_WITHIN, written).await.is_err() {
            tracing::error!(
                seconds = WRITTEN_WITHIN.as_secs(),
                "the disk has not taken everything: what it lacks of orders the exchange has, and \
                what it lacks of guards status has"
            );
        }
    }

    fn show(&mut self, now: Now) {
        let (control, _) = self.io.gate.current();
        let view = View { guards: self.guards.view(), ..self.engine.view(&control, now) };
        let metrics = &self.io.metrics;
        metrics.control(&control);
        metrics.contact_age(self.io.gate.contact_age().unwrap_or_default());
        metrics.open_orders.set(view.open_orders.into());
        metrics.position(view.future_owned_contracts, view.spot_owned_base);
        for (link, down) in &view.links {
            metrics.link(*link, down.is_none());
        }
        self.view.send_if_modified(|old| {
            if old.carry.why != view.carry.why {
                tracing::info!(stance = ?view.carry.stance, why = view.carry.why, "the strategy has decided");
            }
            let changed = *old != view;
            *old = view;
            changed
        });
        self.heartbeat.beat();
    }

    fn carry_out(&self, command: Command, entries: &mpsc::UnboundedSender<Entry>, calls: &mut JoinSet<()>, now: Now) {
        let io = self.io.clone();
        match command {
            Command::Record(id) => {
                if let Some(order) = self.engine.order(&id) {
                    self.guards.order(order, now);
                    // The recorder ends after this loop.
                    entries.send(entry(order)).ok();
                    if let Some(said) = cumulative(order) {
                        io.books.order(said);
                    }
                }
            }
            Command::Place { permit, epoch } => {
                let order = permit.order();
                self.guards.decided(&order.client_order_id, &order.product, &self.engine, now);
                if let Some(touch) = self.engine.touch(&order.product, now) {
                    io.books.decided(decision(order, touch));
                }
                drop(calls.spawn(io.place(permit, epoch)));
            }
            Command::Cancel(ids) => drop(calls.spawn(io.cancel(ids))),
            Command::Query(order_id) => drop(calls.spawn(io.query(order_id))),
            Command::Fees => drop(calls.spawn(io.fees())),
            Command::Funding { hour, rate } => {
                entries.send(Entry::Funding { product: io.identity.future_product.clone(), hour, rate }).ok();
            }
            Command::Snapshot { since } => drop(calls.spawn(io.snapshot(since))),
        }
    }
}
