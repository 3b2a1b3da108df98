//! `arb-bot run`: trades for one ArbBot until it is told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use arbbot_crds::ArbBot;
use arbbot_crds::control::{Entry, Restriction};
use arbbot_crds::decode::Decoded;
use arbbot_crds::incident::uid8;
use arbbot_crds::names;
use arbbot_crds::status::EffectiveMode;
use clap::Args;
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::control::contact::ContactTask;
use crate::control::kubernetes::{ControlTask, params};
use crate::control::latch::Latches;
use crate::control::lease::{BotLease, CALL};
use crate::control::observed::{first_seen, untyped};
use crate::control::report::{ControlFacts, SHUTDOWN};
use crate::control::writer::StatusTask;
use crate::exchange::venue::{self, Connector, SessionTask, Transport};
use crate::exchange::{SessionFacts, VenueEvent};
use crate::execution::driver::{Driver, Io, Products};
use crate::execution::engine::{Engine, Event, Identity, Now, View};
use crate::execution::orders::Orders;
use crate::ledger::{Binding, Ledger, Recovered};
use crate::randomness::Randomness;
use crate::risk::Gate;
use crate::risk::gate::Slot;
use crate::telemetry::logs::{self, LogHandle};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::server::{Heartbeat, ServerState, serve};

/// Events that may wait for the engine.
const QUEUE: usize = 4096;
/// How long a stopping bot waits for its orders to be gone; the pod's grace period is 120 s.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// Flags of `arb-bot run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Name of the ArbBot.
    #[arg(long)]
    pub name: String,
    /// Namespace of the ArbBot.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,
    /// uid of this pod: the holder of the Lease.
    #[arg(long, env = "POD_UID")]
    pub pod_uid: String,
    /// Node that this pod runs on.
    #[arg(long, env = "NODE_NAME", default_value = "")]
    pub node: String,
    /// Address of /livez, /readyz, /metrics and /status.
    #[arg(long, default_value_t = SocketAddr::from(([0, 0, 0, 0], names::BOT_PORT)))]
    pub listen: SocketAddr,
    /// Directory with the files `name` and `privateKey` of the API key.
    #[arg(long, default_value = names::CREDENTIALS_DIR)]
    pub credentials_dir: PathBuf,
    /// Directory with the files of the second API key, where spec.credentials names one.
    #[arg(long)]
    pub backup_credentials_dir: Option<PathBuf>,
    /// PEM certificates of the exchange's authority. Default: the public ones.
    #[arg(long)]
    pub ca_file: Option<PathBuf>,
    /// Directory of the ledger.
    #[arg(long, default_value = names::LEDGER_DIR)]
    pub ledger_dir: PathBuf,
}

/// Trades for one ArbBot until SIGTERM; then cancels its orders, gives up the Lease and returns.
///
/// # Errors
/// The bot cannot start: the message names what is missing.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let stopping = stop_signals()?;
    let log = logs::init()?;
    let client = Client::try_default()
        .await
        .context("no way to the API server: run in a pod with a ServiceAccount, or set KUBECONFIG")?;
    let clock = Clock::system();
    let first = own_bot(&client, &args, &stopping).await?;
    let (ledger, recovered) = Ledger::open(&args.ledger_dir, &binding(&first.object), clock.clone()).await?;
    let head = first.object.status.as_ref().and_then(|status| status.bot.as_ref()?.ledger.clone());
    if let Some(head) = head
        && !ledger.continues(&head).await?
    {
        tracing::error!(
            entries = head.entries,
            "the ledger does not continue what status anchored: it was lost, cut or replaced; the exchange's history \
             and the latches in status are read instead"
        );
    }
    if let Some(note) = &recovered.note {
        tracing::warn!(note, "the ledger was opened");
    }
    Program::new(args, log, client, clock, first, ledger, recovered)?.run(stopping).await
}

/// Cancelled by SIGTERM or SIGINT. Made before anything else: the first process of a container does not end by a signal
/// that it does not listen to, so one that came while the bot starts would be lost, and with it the time to hand over.
fn stop_signals() -> std::io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stopping = CancellationToken::new();
    let stop = stopping.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(stopping)
}

/// Reads the own ArbBot; waits for it as long as it takes, visibly.
async fn own_bot(client: &Client, args: &RunArgs, stopping: &CancellationToken) -> anyhow::Result<Decoded<ArbBot>> {
    let api = untyped::<ArbBot>(client, &args.namespace);
    loop {
        let problem = match timeout(CALL, api.get(&args.name)).await {
            Ok(Ok(bot)) => match first_seen(bot) {
                Ok(bot) => return Ok(bot),
                Err(error) => error.to_string(),
            },
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", CALL.as_secs()),
        };
        tracing::warn!(
            arbbot = args.name,
            namespace = args.namespace,
            problem,
            "the ArbBot cannot be read; trying again"
        );
        tokio::select! {
            () = sleep(Duration::from_secs(1)) => {}
            () = stopping.cancelled() => anyhow::bail!("stopped before ArbBot {} could be read: {problem}", args.name),
        }
    }
}

fn binding(bot: &ArbBot) -> Binding {
    let carry = &bot.spec.strategy.funding_carry;
    Binding {
        bot_uid: bot.uid().unwrap_or_default(),
        execution: bot.spec.execution.to_string(),
        venue: venue::NAME.to_owned(),
        portfolio: venue::account(bot).to_owned(),
        spot_product: carry.spot_product.clone(),
        future_product: carry.future_product.clone(),
    }
}

/// Every part of the running bot.
struct Program {
    args: RunArgs,
    log: LogHandle,
    client: Client,
    clock: Clock,
    first: Decoded<ArbBot>,
    ledger: Ledger,
    recovered: Recovered,
    gate: Arc<Gate>,
    metrics: Metrics,
}

impl Program {
    fn new(
        args: RunArgs,
        log: LogHandle,
        client: Client,
        clock: Clock,
        first: Decoded<ArbBot>,
        ledger: Ledger,
        recovered: Recovered,
    ) -> anyhow::Result<Self> {
        let gate = Arc::new(Gate::new(clock.clone()));
        Ok(Self { args, log, client, clock, first, ledger, recovered, gate, metrics: Metrics::new()? })
    }

    async fn run(self, stopping: CancellationToken) -> anyhow::Result<()> {
        let Self { args, log, client, clock, first, ledger, recovered, gate, metrics } = self;
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
        let (told, venue_events) = mpsc::channel(QUEUE);
        let (rounds, round_events) = mpsc::channel(16);
        let (view, view_seen) = watch::channel(first_view);
        // What the earlier status remembers must be latched before the first word of this process replaces it.
        let mut latches = Latches::recovered(recovered.incidents, recovered.released);
        let remembered = status.as_ref().and_then(|status| status.kill_switch.as_ref());
        let lost = latches.remember(remembered.map_or(&[][..], |kill| &kill.incidents));
        let first_facts = ControlFacts { incidents: latches.status(), ..ControlFacts::default() };
        let (facts, facts_seen) = watch::channel(first_facts);
        let (session_facts, session_seen) = watch::channel(SessionFacts::default());
        let (spec, spec_seen) = watch::channel(bot.clone());
        let (ready, ready_seen) = watch::channel(false);
        let heartbeat = Heartbeat::new(clock.clone());
        let exchange = Arc::default();

        // Stopped in this order: session and control go on until no order works.
        let (stop_trading, stop_rest) = (CancellationToken::new(), CancellationToken::new());
        let mut tasks = tokio::task::JoinSet::new();
        let contact = ContactTask {
            client: client.clone(),
            namespace: args.namespace.clone(),
            name: args.name.clone(),
            bot_uid: bot.uid().unwrap_or_default(),
            clock: clock.clone(),
            gate: Arc::clone(&gate),
            lease: BotLease::new(client.clone(), bot, &args.pod_uid, clock.clone()),
            spec: spec_seen.clone(),
            rounds,
        };
        let control = ControlTask {
            client: client.clone(),
            namespace: args.namespace.clone(),
            name: args.name.clone(),
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
        let connector = Connector::new(Transport::Network, clock.clone(), Randomness::system(), told);
        let session = SessionTask {
            connector,
            credentials_dir: args.credentials_dir.clone(),
            backup_credentials_dir: args.backup_credentials_dir.clone(),
            ca_file: args.ca_file.clone(),
            spec: spec_seen.clone(),
            gate: Arc::clone(&gate),
            exchange: Arc::clone(&exchange),
            facts: session_facts,
            before: status.as_ref().and_then(|status| status.credentials.clone()),
        };
        let writer = StatusTask {
            client,
            namespace: args.namespace.clone(),
            name: args.name.clone(),
            pod_uid: args.pod_uid.clone(),
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
        };
        let server = ServerState {
            metrics,
            heartbeat,
            ready: ready_seen,
            status: status_page(&args, Arc::clone(&gate), facts_seen, view_seen.clone()),
        };
        let listen = args.listen;
        let server_stop = stop_rest.clone();
        tasks.spawn(async move { ("server", serve(listen, server, server_stop).await.map_err(anyhow::Error::from)) });
        tasks.spawn(ended("contact", contact.run(stop_rest.clone())));
        tasks.spawn(ended("control", control.run(first, stop_rest.clone())));
        tasks.spawn(ended("session", session.run(stop_rest.clone())));
        tasks.spawn(ended("status", writer.run(status, stop_rest.clone())));
        tasks.spawn(ended("log level", follow_log_level(log, spec_seen, stop_rest.clone())));
        tasks.spawn(ended("venue", forward(venue_events, events, stop_rest.clone())));
        let mut engine_task = tokio::spawn(driver.run(stop_trading.clone()));

        let failed = tokio::select! {
            () = stopping.cancelled() => None,
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
        timeout(STOP_WITHIN, async { while tasks.join_next().await.is_some() {} })
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

async fn ended(name: &'static str, task: impl Future<Output = ()>) -> (&'static str, anyhow::Result<()>) {
    task.await;
    (name, Ok(()))
}

/// Closes the gate and waits until no order works; a running kill is left to the next pod.
async fn stop_orders(gate: &Gate, mut view: watch::Receiver<View>) {
    // What status said of a drained bot is proven anew, now that nothing can be sent: its last words stay true.
    let was_flat = view.borrow().proof.flat.confirmed;
    gate.set(Slot::Process, vec![Restriction::entry(SHUTDOWN, Entry::Halted, "the pod is being stopped")]);
    let gone = view.wait_for(|view| {
        let halted = matches!(view.mode, Some(EffectiveMode::Halted | EffectiveMode::Flatten));
        let proven = view.proof.orders_gone.first.is_some() && (view.proof.flat.confirmed || !was_flat);
        halted && view.open_orders == 0 && proven
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
    args: &RunArgs,
    gate: Arc<Gate>,
    facts: watch::Receiver<ControlFacts>,
    view: watch::Receiver<View>,
) -> Arc<dyn Fn() -> serde_json::Value + Send + Sync> {
    let (bot, pod_uid) = (args.name.clone(), args.pod_uid.clone());
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

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn a_signal_that_comes_while_the_bot_still_starts_is_not_lost() {
        let stopping = stop_signals().unwrap();
        assert!(!stopping.is_cancelled());
        kill_process(getpid(), Signal::TERM).unwrap();
        // Whoever looks later sees it, too.
        timeout(Duration::from_secs(5), stopping.cancelled()).await.unwrap();
        assert!(stopping.is_cancelled());
    }
}
