//! Every part of the running bot, put together.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use arbbot_crds::ArbBot;
use arbbot_crds::arbbot::Execution;
use arbbot_crds::control::{Entry, Restriction};
use arbbot_crds::decode::Decoded;
use arbbot_crds::incident::uid8;
use arbbot_crds::status::{CredentialsStatus, DrainPhase, EffectiveMode};
use arc_swap::ArcSwapOption;
use futures::FutureExt;
use futures::future::BoxFuture;
use kube::ResourceExt;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{RunArgs, Source};
use crate::clock::Clock;
use crate::control::contact::{ContactTask, Round};
use crate::control::file::FileTask;
use crate::control::file::state::AccountLock;
use crate::control::kubernetes;
use crate::control::latch::Latches;
use crate::control::lease::BotLease;
use crate::control::report::{ControlFacts, SHUTDOWN};
use crate::control::task::{ControlTask, Watches, params};
use crate::control::writer::{StatusSink, StatusTask};
use crate::exchange::paper::{Paper, PaperTask};
use crate::exchange::venue::{self, Connector, SessionTask, Transport};
use crate::exchange::{Exchange, SessionFacts, VenueEvent};
use crate::execution::driver::{Driver, Io, Products, TICK};
use crate::execution::engine::{Engine, Event, Identity, Now, View};
use crate::execution::orders::Orders;
use crate::ledger::{Ledger, Recovered};
use crate::randomness::Randomness;
use crate::risk::Gate;
use crate::risk::gate::Slot;
use crate::telemetry::logs::LogHandle;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::server::{Heartbeat, ServerState, serve};

/// Events that may wait for the engine.
const QUEUE: usize = 4096;
/// How long a stopping bot waits for its orders to be gone; the pod's grace period is 120 s.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// How long the rest of it gets then: the last status and after it the Lease, each tried again where the API server fails.
const END_WITHIN: Duration = Duration::from_secs(45);

/// Every part of the running bot.
pub(super) struct Program {
    args: RunArgs,
    log: LogHandle,
    source: Source,
    clock: Clock,
    first: Decoded<ArbBot>,
    ledger: Ledger,
    recovered: Recovered,
    gate: Arc<Gate>,
    metrics: Metrics,
}

impl Program {
    pub(super) fn new(
        args: RunArgs,
        log: LogHandle,
        source: Source,
        clock: Clock,
        first: Decoded<ArbBot>,
        ledger: Ledger,
        recovered: Recovered,
    ) -> anyhow::Result<Self> {
        let gate = Arc::new(Gate::new(clock.clone()));
        Ok(Self { args, log, source, clock, first, ledger, recovered, gate, metrics: Metrics::new()? })
    }

    pub(super) async fn run(self, stopping: CancellationToken) -> anyhow::Result<()> {
        let spec = &self.first.object.spec;
        match spec.execution {
            Execution::Live => self.run_on(stopping, live).await,
            Execution::Paper => {
                let carry = &spec.strategy.funding_carry;
                let products = [carry.spot_product.clone(), carry.future_product.clone()];
                let terms = spec.paper.clone().unwrap_or_default();
                let (paper, told) = Paper::open(&self.args.ledger_dir, &terms, products, self.clock.clone())?;
                self.run_on(stopping, move |session, shutdown| on_paper(paper, told, session, shutdown)).await
            }
        }
    }

    /// Runs on an exchange. Live and paper differ in nothing but what keeps the session with it.
    async fn run_on<E: Exchange>(
        self,
        stopping: CancellationToken,
        session: impl FnOnce(SessionParts<E>, CancellationToken) -> BoxFuture<'static, ()>,
    ) -> anyhow::Result<()> {
        let Self { args, log, source, clock, first, ledger, recovered, gate, metrics } = self;
        let bot = &first.object;
        let identity = Identity {
            uid8: uid8(&bot.uid().unwrap_or_default()),
            spot_product: bot.spec.strategy.funding_carry.spot_product.clone(),
            future_product: bot.spec.strategy.funding_carry.future_product.clone(),
        };
        let status = bot.status.clone();
        let orders = Orders::recovered(&recovered.orders, clock.boottime());
        let owned_since = owned_since(&recovered, bot);
        let drain = status.as_ref().and_then(|status| status.bot.as_ref()?.drain.clone());
        let engine = Engine::new(identity.clone(), params(bot), orders, owned_since).resuming(drain);
        let now = Now { boot: clock.boottime(), wall: clock.now() };
        let first_view = engine.view(&gate.current().0, now);

        let (events, engine_events) = mpsc::channel(QUEUE);
        let (venue, venue_events) = mpsc::channel(QUEUE);
        let (rounds, round_events) = mpsc::channel(16);
        let (view, view_seen) = watch::channel(first_view);
        // What the earlier status remembers must be latched before the first word of this process replaces it.
        let mut latches = Latches::recovered(recovered.incidents, recovered.released);
        let remembered = status.as_ref().and_then(|status| status.kill_switch.as_ref());
        let lost = latches.remember(remembered.map_or(&[][..], |kill| &kill.incidents));
        let first_facts = ControlFacts { incidents: latches.status(), ..ControlFacts::default() };
        let (facts, facts_seen) = watch::channel(first_facts);
        let execution = Some(bot.spec.execution);
        let (session_facts, session_seen) = watch::channel(SessionFacts { execution, ..SessionFacts::default() });
        let (spec, spec_seen) = watch::channel(bot.clone());
        let (ready, ready_seen) = watch::channel(false);
        let heartbeat = Heartbeat::new(clock.clone());
        let exchange = Arc::default();

        // Stopped in this order: session and control go on until no order works.
        let (stop_trading, stop_rest) = (CancellationToken::new(), CancellationToken::new());
        // The Lease last: a status that is written after it could overwrite the successor's.
        let status_is_written = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        let ends_when_drained = matches!(source, Source::File(..));
        let Plane { pod_uid, watches, contact, sink, _lock } =
            Plane::new(source, &args, bot, (&clock, &gate), &spec_seen, rounds);
        let control = ControlTask {
            clock: clock.clone(),
            gate: Arc::clone(&gate),
            ledger: ledger.clone(),
            latches,
            remembered_claim: recovered.claim,
            engine: events.clone(),
            view: view_seen.clone(),
            rounds: round_events,
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
            exchange: Arc::clone(&exchange),
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
            view: view_seen.clone(),
            metrics: metrics.clone(),
        };
        let driver = Driver {
            engine,
            io: Io {
                identity,
                gate: Arc::clone(&gate),
                ledger,
                clock: clock.clone(),
                exchange,
                feedback: events.clone(),
                metrics: metrics.clone(),
                products: Products::default(),
            },
            events: engine_events,
            view,
            heartbeat: heartbeat.clone(),
            tick: TICK,
        };
        let server = ServerState {
            metrics,
            heartbeat,
            ready: ready_seen,
            status: status_page(args.name(), pod_uid, Arc::clone(&gate), facts_seen, view_seen.clone()),
        };
        let listen = args.listen();
        let server_stop = stop_rest.clone();
        tasks.spawn(async move { ("server", serve(listen, server, server_stop).await.map_err(anyhow::Error::from)) });
        tasks.spawn(ended("contact", contact.run(status_is_written.clone())));
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

        let failed = tokio::select! {
            () = stopping.cancelled() => None,
            () = drained(view_seen.clone()), if ends_when_drained => {
                tracing::info!("the drain has finished: no order and no position is left; the bot ends");
                None
            }
            ended = tasks.join_next() => ended,
            ended = &mut engine_task => {
                ended.context("the engine failed")?;
                anyhow::bail!("the engine ended by itself");
            }
        };
        tracing::info!("stopping: orders are being cancelled");
        stop_orders(&gate, view_seen).await;
        stop_trading.cancel();
        let engine_ended = timeout(STOP_WITHIN, engine_task).await;
        stop_rest.cancel();
        timeout(END_WITHIN, async { while tasks.join_next().await.is_some() {} })
            .await
            .context("the bot did not stop in time; the kubelet ends it")?;
        engine_ended.context("the engine did not stop in time")?.context("the engine failed")?;
        match failed {
            None => Ok(()),
            Some(Ok((task, result))) => {
                result.with_context(|| format!("the {task} task failed"))?;
                anyhow::bail!("the {task} task ended by itself")
            }
            Some(Err(error)) => Err(error).context("a task failed"),
        }
    }
}

/// What the session with an exchange needs.
struct SessionParts<E> {
    args: RunArgs,
    clock: Clock,
    venue: mpsc::Sender<VenueEvent>,
    spec: watch::Receiver<ArbBot>,
    gate: Arc<Gate>,
    exchange: Arc<ArcSwapOption<E>>,
    facts: watch::Sender<SessionFacts>,
    before: Option<CredentialsStatus>,
}

fn live(parts: SessionParts<venue::Client>, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
    let SessionParts { args, clock, venue, spec, gate, exchange, facts, before } = parts;
    let session = SessionTask {
        connector: Connector::new(Transport::Network, clock, Randomness::system(), venue),
        credentials_dir: args.credentials_dir,
        backup_credentials_dir: args.backup_credentials_dir,
        ca_file: args.ca_file,
        spec,
        gate,
        exchange,
        facts,
        before,
    };
    session.run(shutdown).boxed()
}

/// No key is read and no client that could place an order is made.
fn on_paper(
    paper: Arc<Paper>,
    told: mpsc::UnboundedReceiver<VenueEvent>,
    parts: SessionParts<Paper>,
    shutdown: CancellationToken,
) -> BoxFuture<'static, ()> {
    let SessionParts { args, clock, venue, spec, exchange, facts, .. } = parts;
    let transport = Transport::Network;
    let (events, ca_file) = (venue, args.ca_file);
    let randomness = Randomness::system();
    PaperTask { paper, told, transport, clock, randomness, events, ca_file, spec, exchange, facts }
        .run(shutdown)
        .boxed()
}

/// What differs between a cluster and a file.
struct Plane {
    /// Who this process is in status.
    pod_uid: String,
    watches: Watches,
    contact: Contact,
    sink: StatusSink,
    _lock: Option<AccountLock>,
}

/// What keeps contact with where control comes from.
enum Contact {
    Lease(Box<ContactTask>),
    File(Box<FileTask>),
}

impl Contact {
    async fn run(self, shutdown: CancellationToken) {
        match self {
            Self::Lease(task) => task.run(shutdown).await,
            Self::File(task) => task.run(shutdown).await,
        }
    }
}

impl Plane {
    fn new(
        source: Source,
        args: &RunArgs,
        bot: &ArbBot,
        (clock, gate): (&Clock, &Arc<Gate>),
        spec: &watch::Receiver<ArbBot>,
        rounds: mpsc::Sender<Round>,
    ) -> Self {
        let (clock, gate) = (clock.clone(), Arc::clone(gate));
        let (namespace, name) = (args.namespace().to_owned(), args.name().to_owned());
        match source {
            Source::Cluster(client) => Self {
                pod_uid: args.pod_uid.clone().unwrap_or_default(),
                watches: kubernetes::watches(&client, &namespace, &name),
                contact: Contact::Lease(Box::new(ContactTask {
                    client: client.clone(),
                    namespace: namespace.clone(),
                    name: name.clone(),
                    bot_uid: bot.uid().unwrap_or_default(),
                    clock: clock.clone(),
                    gate,
                    lease: BotLease::new(client.clone(), bot, args.pod_uid.as_deref().unwrap_or_default(), clock),
                    spec: spec.clone(),
                    rounds,
                })),
                sink: StatusSink::Kubernetes { client, namespace, name },
                _lock: None,
            },
            Source::File(file, lock) => Self {
                pod_uid: file.holder(),
                watches: Watches::none(),
                sink: StatusSink::File(file.status_file(&name)),
                contact: Contact::File(Box::new(FileTask { file, clock, gate, rounds })),
                _lock: lock,
            },
        }
    }
}

/// Waits until a drain has finished, as the operator does before it scales a bot to zero.
async fn drained(mut view: watch::Receiver<View>) {
    let finished = |view: &View| {
        view.mode == Some(EffectiveMode::Drain)
            && view.drain.as_ref().is_some_and(|drain| drain.phase == DrainPhase::Finished)
    };
    // It fails only once the engine has ended, and the program with it.
    if view.wait_for(finished).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn ended(name: &'static str, task: impl Future<Output = ()>) -> (&'static str, anyhow::Result<()>) {
    task.await;
    (name, Ok(()))
}

/// Closes the gate and waits until no order works; a running kill is left to the next pod.
async fn stop_orders(gate: &Gate, mut view: watch::Receiver<View>) {
    // What status said of a drained bot is proven anew, now that nothing can be sent: its last words stay true.
    let was_flat = view.borrow().proof.flat.confirmed;
    gate.set(Slot::Process, vec![Restriction::entry(SHUTDOWN, Entry::Halted, "the bot is being stopped")]);
    let gone = view.wait_for(|view| {
        let halted = matches!(view.mode, Some(EffectiveMode::Halted | EffectiveMode::Flatten));
        let proven = view.proof.orders_gone.first.is_some() && (view.proof.flat.confirmed || !was_flat);
        let never_sent_one = view.owned_since.is_none();
        halted && view.open_orders == 0 && (proven || never_sent_one)
    });
    if timeout(STOP_WITHIN, gone).await.is_err() {
        let open = view.borrow().open_orders;
        tracing::error!(open, "the exchange has not confirmed that no order works; what rests expires by itself");
    }
    // From here on nothing is sent, whatever is under way: the next pod may begin.
    gate.not_the_trader();
}

/// Since when the order history is to be read: the first order that ledger or status know.
fn owned_since(recovered: &Recovered, bot: &ArbBot) -> Option<k8s_openapi::jiff::Timestamp> {
    let ledger = recovered.orders.first().map(|order| order.created_at);
    let status = bot.status.as_ref().and_then(|status| status.bot.as_ref()?.owned_since.as_ref().map(|time| time.0));
    match (ledger, status) {
        (Some(ledger), Some(status)) => Some(ledger.min(status)),
        (ledger, status) => ledger.or(status),
    }
}

async fn forward(mut from: mpsc::Receiver<VenueEvent>, to: mpsc::Sender<Event>, shutdown: CancellationToken) {
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

/// What `/status` shows: the gate's history is the proof of when it closed.
fn status_page(
    bot: &str,
    pod_uid: String,
    gate: Arc<Gate>,
    facts: watch::Receiver<ControlFacts>,
    view: watch::Receiver<View>,
) -> Arc<dyn Fn() -> serde_json::Value + Send + Sync> {
    let bot = bot.to_owned();
    Arc::new(move || {
        let (control, contact) = gate.current();
        let (facts, view) = (facts.borrow().clone(), view.borrow().clone());
        json!({
            "bot": bot,
            "pod_uid": pod_uid,
            "effective_mode": control.mode(),
            "entry": control.entry,
            "duty": control.duty,
            "contact": contact,
            "restrictions": gate.restrictions().iter().map(|r| format!("{}: {}", r.source, r.why)).collect::<Vec<_>>(),
            "applied_generation": facts.generation,
            "incidents": facts.incidents,
            "open_orders": view.open_orders,
            "foreign_orders": view.foreign_orders,
            "position": {
                "future_contracts": view.future_owned_contracts,
                "spot_base": view.spot_owned_base,
            },
            "last_refusal": view.last_refusal,
            "gate": {"transitions": gate.history()},
        })
    })
}
