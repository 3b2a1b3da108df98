//! Every part of the running bot, put together.

mod plane;
mod session;
mod status_page;
mod stop;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use arbbot_crds::ArbBot;
use arbbot_crds::arbbot::Execution;
use arbbot_crds::decode::Decoded;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{RunArgs, Source};
use crate::assembly::{Assembled, Parts, QUEUE, assemble, forward};
use crate::clock::Clock;
use crate::control::latch::Latches;
use crate::control::ledger::LedgerTask;
use crate::control::report::ControlFacts;
use crate::control::task::{ControlTask, params};
use crate::control::writer::StatusTask;
use crate::exchange::paper::Paper;
use crate::exchange::{Exchange, SessionFacts};
use crate::execution::driver::TICK;
use crate::execution::engine::{Identity, Now, Start};
use crate::ledger::{Ledger, Recovered};
use crate::recording::{Recorder, WhenFull};
use crate::risk::Gate;
use crate::risk::guards::watch::resident_memory;
use crate::telemetry::logs::LogHandle;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::server::{ServerState, serve};
use plane::Plane;
use session::{SessionParts, live, on_paper};
use status_page::status_page;
use stop::{drained, ledger_is_back, stop_orders};

/// How long a stopping bot waits for its orders to be gone; the pod's grace period is 120 s.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// How long the rest of it gets then: the last status and after it the Lease, each tried again where the API server fails.
const END_WITHIN: Duration = Duration::from_secs(45);

/// Why a bot has ended in order.
pub(super) enum Ended {
    Stopped,
    /// It ran without its ledger, which can be read now.
    LedgerIsBack,
}

/// Every part of the running bot.
pub(super) struct Program {
    pub args: RunArgs,
    pub log: LogHandle,
    pub source: Source,
    pub clock: Clock,
    pub first: Decoded<ArbBot>,
    pub ledger: Ledger,
    pub recovered: Recovered,
    /// Why the ledger is not the one that went before.
    pub rebuilding: Option<String>,
}

impl Program {
    pub(super) async fn run(self, stopping: CancellationToken) -> anyhow::Result<Ended> {
        let bot = &self.first.object;
        match bot.spec.execution {
            Execution::Live => self.run_on(stopping, live).await,
            Execution::Paper => {
                let (paper, told) = Paper::open(&self.args.ledger_dir, bot, self.clock.clone())?;
                self.run_on(stopping, move |session, shutdown| on_paper(paper, told, session, shutdown)).await
            }
        }
    }

    /// Runs on an exchange. Live and paper differ in nothing but what keeps the session with it.
    async fn run_on<E: Exchange>(
        self,
        stopping: CancellationToken,
        session: impl FnOnce(SessionParts<E>, CancellationToken) -> BoxFuture<'static, ()>,
    ) -> anyhow::Result<Ended> {
        let Self { args, log, source, clock, first, ledger, mut recovered, rebuilding } = self;
        let gate = Arc::new(Gate::new(clock.clone()));
        let metrics = Metrics::new()?;
        let bot = &first.object;
        let status = bot.status.clone();
        let start = Start {
            at: Now { boot: clock.boottime(), wall: clock.now() },
            identity: Identity::of(bot),
            params: params(bot),
            owned_since: owned_since(&ledger, &recovered, bot),
            orders: std::mem::take(&mut recovered.orders),
            funding_rates: std::mem::take(&mut recovered.funding_rates),
            drain: status.as_ref().and_then(|status| status.bot.as_ref()?.drain.clone()),
        };
        // Without its ledger a bot decides nothing that could be replayed; the file belongs to the process after this one.
        let recorded = args.record.as_deref().filter(|_| !ledger.is_unread());
        let recorder = recorded.map(|path| recorder(path, start.clone())).transpose()?;

        let (venue, venue_events) = mpsc::channel(QUEUE);
        let (rounds, round_events) = mpsc::channel(16);
        // What the earlier status remembers must be latched before the first word of this process replaces it.
        let mut latches = Latches::recovered(recovered.incidents, recovered.flattening, recovered.released);
        let remembered = status.as_ref().and_then(|status| status.kill_switch.as_ref());
        let lost = latches.remember(remembered.map_or(&[][..], |kill| &kill.incidents));
        let first_facts = ControlFacts { incidents: latches.status(), ..ControlFacts::default() };
        let (facts, facts_seen) = watch::channel(first_facts);
        let execution = Some(bot.spec.execution);
        let (session_facts, session_seen) = watch::channel(SessionFacts { execution, ..SessionFacts::default() });
        let (spec, spec_seen) = watch::channel(bot.clone());
        let (ready, ready_seen) = watch::channel(false);
        let ends_when_drained = matches!(source, Source::File(..));
        let Assembled { driver, books_task, exchange, events, view, books, kills, restart } = assemble(Parts {
            start,
            gate: Arc::clone(&gate),
            ledger: ledger.clone(),
            guards: recovered.guards,
            clock: clock.clone(),
            metrics: metrics.clone(),
            spec: spec_seen.clone(),
            control: facts_seen.clone(),
            tick: TICK,
            recorder,
            is_supervised: !ends_when_drained,
            resident_memory,
        });

        // Stopped in this order: session and control go on until no order works.
        let (stop_trading, stop_rest) = (CancellationToken::new(), CancellationToken::new());
        // The Lease last: a status that is written after it could overwrite the successor's.
        let status_is_written = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        let Plane { pod_uid, watches, contact, sink, _lock } =
            Plane::new(source, &args, bot, (&clock, &gate), &spec_seen, rounds);
        let control = ControlTask {
            clock: clock.clone(),
            gate: Arc::clone(&gate),
            ledger: ledger.clone(),
            latches,
            remembered_claim: recovered.claim,
            engine: events.clone(),
            view: view.clone(),
            rounds: round_events,
            guard_kills: kills,
            facts,
            spec,
            ready,
            metrics: metrics.clone(),
            unkept: AtomicBool::new(!lost.is_empty()),
        };
        let session_parts = SessionParts {
            args: args.clone(),
            clock: clock.clone(),
            venue,
            spec: spec_seen.clone(),
            gate: Arc::clone(&gate),
            exchange,
            facts: session_facts,
            before: status.as_ref().and_then(|status| status.credentials.clone()),
        };
        let writer = StatusTask {
            sink,
            pod_uid: pod_uid.clone(),
            node: args.node.clone(),
            clock: clock.clone(),
            gate: Arc::clone(&gate),
            ledger: ledger.clone(),
            control: facts_seen.clone(),
            session: session_seen,
            view: view.clone(),
            books: books.clone(),
            metrics: metrics.clone(),
        };
        let (opened, facts_after) = (ledger.clone(), facts_seen.clone());
        let keeps_watch = LedgerTask { ledger, gate: Arc::clone(&gate), clock, view: view.clone(), books, rebuilding };
        let server = ServerState {
            metrics,
            heartbeat: driver.heartbeat.clone(),
            ready: ready_seen,
            status: status_page(args.name(), pod_uid, Arc::clone(&gate), facts_seen, view.clone()),
        };
        let listen = args.listen();
        let server_stop = stop_rest.clone();
        tasks.spawn(async move { ("server", serve(listen, server, server_stop).await.map_err(anyhow::Error::from)) });
        tasks.spawn(ended("contact", contact.run(status_is_written.clone())));
        tasks.spawn(ended("ledger", keeps_watch.run(stop_rest.clone())));
        tasks.spawn(ended("books", books_task.run(stop_rest.clone())));
        tasks.spawn(ended("control", control.run(first, watches, stop_rest.clone())));
        tasks.spawn(ended("session", session(session_parts, stop_rest.clone())));
        let writer_stop = stop_rest.clone();
        tasks.spawn(ended("status", async move {
            let _ends = status_is_written.drop_guard();
            writer.run(status, writer_stop).await;
        }));
        tasks.spawn(ended("log level", follow_log_level(log, spec_seen, stop_rest.clone())));
        tasks.spawn(ended("venue", forward(venue_events, events, stop_rest.clone())));
        let mut engine_task = tokio::spawn(driver.run(stop_trading.clone()));

        let mut why = Ended::Stopped;
        let failed = tokio::select! {
            () = stopping.cancelled() => None,
            () = ledger_is_back(&opened, facts_after) => {
                why = Ended::LedgerIsBack;
                None
            }
            () = drained(view.clone()), if ends_when_drained => {
                tracing::info!("the drain has finished: no order and no position is left; the bot ends");
                None
            }
            () = restart.cancelled() => {
                tracing::warn!("a guard has restarted the bot: it ends in order, for whoever supervises it to start it anew");
                None
            }
            ended = tasks.join_next() => ended,
            ended = &mut engine_task => {
                ended.context("the engine failed")?;
                anyhow::bail!("the engine ended by itself");
            }
        };
        tracing::info!("stopping: orders are being cancelled");
        stop_orders(&gate, view).await;
        stop_trading.cancel();
        let engine_ended = timeout(STOP_WITHIN, engine_task).await;
        stop_rest.cancel();
        timeout(END_WITHIN, async { while tasks.join_next().await.is_some() {} })
            .await
            .context("the bot did not stop in time; the kubelet ends it")?;
        engine_ended.context("the engine did not stop in time")?.context("the engine failed")?;
        match failed {
            // Nobody but the exit code says to a supervisor that the bot is to come back.
            None if restart.is_cancelled() && ends_when_drained => {
                anyhow::bail!("a guard has ended the bot so that it is started anew; `arb-bot status` names the guard")
            }
            None => Ok(why),
            Some(Ok((task, result))) => {
                result.with_context(|| format!("the {task} task failed"))?;
                anyhow::bail!("the {task} task ended by itself")
            }
            Some(Err(error)) => Err(error).context("a task failed"),
        }
    }
}

async fn ended(name: &'static str, task: impl Future<Output = ()>) -> (&'static str, anyhow::Result<()>) {
    task.await;
    (name, Ok(()))
}

/// A recording of the session in a new file.
fn recorder(path: &Path, start: Start) -> anyhow::Result<Recorder> {
    Recorder::create(path, start, WhenFull::End)
        .with_context(|| format!("the session cannot be recorded into {}; name a new file", path.display()))
}

/// Since when the order history is to be read: the first order that ledger or status know.
fn owned_since(ledger: &Ledger, recovered: &Recovered, bot: &ArbBot) -> Option<k8s_openapi::jiff::Timestamp> {
    // A kill journal begins in the middle.
    let ledger = recovered.owned_since().filter(|_| !ledger.is_unread());
    let status = bot.status.as_ref().and_then(|status| status.bot.as_ref()?.owned_since.as_ref().map(|time| time.0));
    match (ledger, status) {
        (Some(ledger), Some(status)) => Some(ledger.min(status)),
        (ledger, status) => ledger.or(status),
    }
}

async fn follow_log_level(log: LogHandle, mut spec: watch::Receiver<ArbBot>, shutdown: CancellationToken) {
    loop {
        let level = spec.borrow_and_update().spec.log_level;
        if let Err(error) = log.set_level(level) {
            tracing::warn!(%error, %level, "the log level is not changed");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = spec.changed() => if changed.is_err() { shutdown.cancelled().await },
        }
    }
}
