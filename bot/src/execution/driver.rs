//! Carries the engine's commands out: ledger, gate, exchange, in this order; feeds the answers back as events.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::exchange::{Exchange, ExchangeError, OrderState, OrderStatus, Placed, Product};
use crate::execution::engine::{Command, Engine, Event, Identity, Now, Snapshot, View};
use crate::execution::orders::{Order, State};
use crate::ledger::{Ledger, LedgerError, OrderUpdate, RecordStatus};
use crate::risk::{Class, Denied, Gate, Permit};
use crate::telemetry::metrics::{Metrics, OrderOutcome};
use crate::telemetry::server::Heartbeat;

/// How often the engine looks at the time, unless a test has less of it.
pub const TICK: Duration = Duration::from_millis(100);
/// Age at which a product's rules and state are read again.
const PRODUCT_AGE: Duration = Duration::from_secs(5);
/// How long what becomes known of orders is gathered before it is written.
const GATHER: Duration = Duration::from_millis(250);
/// How long the intent of any other order waits for the disk.
const INTENT: Duration = Duration::from_secs(2);
/// How long the intent of a kill order waits for the disk.
const KILL_INTENT: Duration = Duration::from_millis(250);

/// The driver of one engine.
pub struct Driver<E> {
    pub engine: Engine,
    pub io: Io<E>,
    pub events: mpsc::Receiver<Event>,
    pub view: watch::Sender<View>,
    pub heartbeat: Heartbeat,
    /// How often the engine looks at the time: [`TICK`].
    pub tick: Duration,
}

/// What the commands need. Clones share it.
pub struct Io<E> {
    pub identity: Identity,
    pub gate: Arc<Gate>,
    pub ledger: Ledger,
    pub clock: Clock,
    /// The exchange of the open session.
    pub exchange: Arc<ArcSwapOption<E>>,
    /// Where the answers go.
    pub feedback: mpsc::Sender<Event>,
    pub metrics: Metrics,
    pub products: Products,
}

impl<E> Clone for Io<E> {
    fn clone(&self) -> Self {
        Self {
            identity: self.identity.clone(),
            gate: Arc::clone(&self.gate),
            ledger: self.ledger.clone(),
            clock: self.clock.clone(),
            exchange: Arc::clone(&self.exchange),
            feedback: self.feedback.clone(),
            metrics: self.metrics.clone(),
            products: self.products.clone(),
        }
    }
}

/// Spot and future as last read, and when.
#[derive(Clone, Debug, Default)]
pub struct Products(Arc<Mutex<Option<(Product, Product, Duration)>>>);

/// What the ledger is to write, in order.
enum Entry {
    Update(OrderUpdate),
    /// An order that only the exchange remembered.
    Import {
        seen: OrderState,
        epoch: i64,
    },
}

impl Entry {
    fn client_order_id(&self) -> &str {
        match self {
            Self::Update(update) => &update.client_order_id,
            Self::Import { seen, .. } => &seen.client_order_id,
        }
    }
}

impl<E: Exchange> Driver<E> {
    /// Runs until it is told to stop and no order works any more, or the deadline is over. Before it is told, the
    /// gate must have been closed.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let (entries, queue) = mpsc::unbounded_channel();
        // Both end with this future: whoever drops it ends the driver as a crash would.
        let (mut recorder, mut calls) = (JoinSet::new(), JoinSet::new());
        recorder.spawn(record(self.io.ledger.clone(), queue));
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
            for command in self.engine.handle(event, &self.io.gate, now) {
                self.carry_out(command, &entries, &mut calls);
            }
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
        if recorder.join_next().await.is_some_and(|ended| ended.is_err()) {
            tracing::error!("the ledger's recorder stopped before everything was written");
        }
    }

    fn show(&mut self, now: Now) {
        let (control, _) = self.io.gate.current();
        let view = self.engine.view(&control, now);
        let metrics = &self.io.metrics;
        metrics.control(&control);
        metrics.contact_age(self.io.gate.contact_age().unwrap_or_default());
        metrics.open_orders.set(view.open_orders.into());
        metrics.position(view.future_owned_contracts, view.spot_owned_base);
        for (link, down) in &view.links {
            metrics.link(*link, down.is_none());
        }
        self.view.send_if_modified(|old| {
            let changed = *old != view;
            *old = view;
            changed
        });
        self.heartbeat.beat();
    }

    fn carry_out(&self, command: Command, entries: &mpsc::UnboundedSender<Entry>, calls: &mut JoinSet<()>) {
        let io = self.io.clone();
        match command {
            Command::Record(id) => {
                if let Some(order) = self.engine.order(&id) {
                    // The recorder ends after this loop.
                    entries.send(entry(order)).ok();
                }
            }
            Command::Place { permit, epoch } => drop(calls.spawn(io.place(permit, epoch))),
            Command::Cancel(ids) => drop(calls.spawn(io.cancel(ids))),
            Command::Query(order_id) => drop(calls.spawn(io.query(order_id))),
            Command::Snapshot { since } => drop(calls.spawn(io.snapshot(since))),
        }
    }
}

impl<E: Exchange> Io<E> {
    async fn place(self, permit: Permit, epoch: i64) {
        let class = permit.class();
        let client_order_id = permit.order().client_order_id.clone();
        let event = match self.send(permit, epoch, class).await {
            Ok(result) => Event::Placed { client_order_id, result },
            Err(not_sent) => {
                tracing::warn!(order = client_order_id, %class, reason = not_sent.reason(), %not_sent, "order not sent");
                Event::NotSent { client_order_id }
            }
        };
        self.answer(event).await;
    }

    async fn send(&self, permit: Permit, epoch: i64, class: Class) -> Result<Result<Placed, ExchangeError>, NotSent> {
        let exchange = self.exchange.load_full().ok_or(NotSent::NoSession)?;
        let order = permit.order();
        if class == Class::Kill {
            match self.ledger.intent_for_kill(order, epoch, KILL_INTENT).await {
                Err(error) if error.is_storage() => {
                    tracing::error!(order = order.client_order_id, reason = error.reason(), %error,
                        "no disk takes the intent; the kill goes on");
                }
                result => result?,
            }
        } else {
            tokio::time::timeout(INTENT, self.ledger.intent(order, class, epoch))
                .await
                .map_err(|_| NotSent::Disk)??;
        }
        let cleared = self.gate.clear(permit).inspect_err(|denied| self.metrics.denied(denied))?;
        let began = std::time::Instant::now();
        let result = self.counted("place", exchange.place(cleared)).await;
        self.metrics.order_latency.observe(began.elapsed().as_secs_f64());
        self.metrics.order(class, outcome(&result));
        if let Err(error) = &result {
            tracing::warn!(%error, "the order has no business answer");
        }
        Ok(result)
    }

    async fn cancel(self, ids: Vec<String>) {
        let Some(exchange) = self.exchange.load_full() else { return };
        match self.counted("cancel", exchange.cancel(&ids)).await {
            Ok(refused) => {
                for (order_id, reason) in refused {
                    tracing::info!(order_id, reason, "cancel refused; the order is looked at");
                    self.clone().query(order_id).await;
                }
            }
            // The engine asks again; nothing is lost but time, which the metric shows.
            Err(error) => tracing::warn!(%error, orders = ids.len(), "cancel failed; it is asked for again"),
        }
    }

    async fn query(self, order_id: String) {
        let Some(exchange) = self.exchange.load_full() else { return };
        let result = self.counted("order", exchange.order(&order_id)).await;
        self.answer(Event::Order(result)).await;
    }

    async fn snapshot(self, since: Option<Timestamp>) {
        let result = self.take_snapshot(since).await;
        if let Err(error) = &result {
            tracing::debug!(%error, "snapshot failed");
        }
        self.answer(Event::Snapshot(Box::new(result))).await;
    }

    async fn take_snapshot(&self, since: Option<Timestamp>) -> Result<Snapshot, ExchangeError> {
        let exchange = self.exchange.load_full().ok_or(ExchangeError::NoSession)?;
        let started = Now { boot: self.clock.boottime(), wall: self.clock.now() };
        let ids = [self.identity.spot_product.clone(), self.identity.future_product.clone()];
        let (orders, holdings, products) = tokio::join!(
            self.counted("orders", exchange.orders(&ids, since)),
            self.counted("holdings", exchange.holdings()),
            self.read_products(exchange.as_ref(), started.boot)
        );
        let (spot, future) = products?;
        Ok(Snapshot { started, orders: orders?, holdings: holdings?, spot, future })
    }

    async fn read_products(&self, exchange: &E, now: Duration) -> Result<(Product, Product), ExchangeError> {
        let known = self.products.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((spot, future, at)) = known
            && now.saturating_sub(at) < PRODUCT_AGE
        {
            return Ok((spot, future));
        }
        let (spot, future) = tokio::try_join!(
            self.read_product(exchange, &self.identity.spot_product),
            self.read_product(exchange, &self.identity.future_product)
        )?;
        let mut known = self.products.0.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some((spot.clone(), future.clone(), now));
        Ok((spot, future))
    }

    async fn read_product(&self, exchange: &E, id: &str) -> Result<Product, ExchangeError> {
        self.counted("product", exchange.product(id)).await.map_err(|error| match error {
            ExchangeError::BadRequest { message, .. } => ExchangeError::NoProduct { product: id.to_owned(), message },
            error => error,
        })
    }

    async fn counted<T>(
        &self,
        call: &'static str,
        request: impl Future<Output = Result<T, ExchangeError>>,
    ) -> Result<T, ExchangeError> {
        let result = request.await;
        self.metrics.exchange_request(call, &result);
        result
    }

    async fn answer(&self, event: Event) {
        // The engine ends only with the program.
        self.feedback.send(event).await.ok();
    }
}

/// Why an order was not sent.
#[derive(Debug, thiserror::Error)]
enum NotSent {
    #[error("there is no session with the exchange")]
    NoSession,
    #[error("the disk of the ledger does not answer")]
    Disk,
    #[error("the intent is not durable: {0}")]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Denied(#[from] Denied),
}

impl NotSent {
    fn reason(&self) -> &'static str {
        match self {
            Self::NoSession => "NoSession",
            Self::Disk => "LedgerTimeout",
            Self::Ledger(error) => error.reason(),
            Self::Denied(_) => "Denied",
        }
    }
}

fn outcome(result: &Result<Placed, ExchangeError>) -> OrderOutcome {
    match result {
        Ok(Placed::Accepted { .. }) => OrderOutcome::Accepted,
        Ok(Placed::Rejected { .. }) => OrderOutcome::Rejected,
        Err(error) if error.proves_not_placed() => OrderOutcome::NotPlaced,
        Err(_) => OrderOutcome::Unknown,
    }
}

/// Writes what becomes known of orders until the channel closes: for each order only the latest, because every state is
/// cumulative. Nothing waits for these writes, and the disk belongs to latches and intents first.
async fn record(ledger: Ledger, mut queue: mpsc::UnboundedReceiver<Entry>) {
    let mut open = true;
    while open {
        let mut latest = BTreeMap::new();
        let until = tokio::time::Instant::now() + GATHER;
        loop {
            match tokio::time::timeout_at(until, queue.recv()).await {
                Ok(Some(entry)) => drop(latest.insert(entry.client_order_id().to_owned(), entry)),
                Ok(None) => open = false,
                Err(_) => {}
            }
            if !open || tokio::time::Instant::now() >= until {
                break;
            }
        }
        for entry in latest.values() {
            let result = match entry {
                Entry::Update(update) => ledger.order(update).await,
                Entry::Import { seen, epoch } => ledger.import(seen, *epoch).await,
            };
            if let Err(error) = result {
                // The exchange's history has the same facts; the next start reads them from there.
                tracing::error!(reason = error.reason(), %error, "the ledger did not take an order's state");
            }
        }
    }
}

fn entry(order: &Order) -> Entry {
    let status = match order.state {
        State::Intended => RecordStatus::Intended,
        State::Unknown => RecordStatus::Unknown,
        State::Rejected => RecordStatus::Rejected,
        State::NotPlaced => RecordStatus::NotPlaced,
        State::Venue(status) => status.into(),
    };
    if order.adopted {
        let seen = OrderState {
            order_id: order.order_id.clone().unwrap_or_default(),
            client_order_id: order.order.client_order_id.clone(),
            product: order.order.product.clone(),
            side: order.order.side,
            status: match order.state {
                State::Venue(status) => status,
                _ => OrderStatus::Unknown,
            },
            filled: order.filled,
            average_price: order.average_price,
            fees_quote: order.fees_quote,
            size: Some(order.order.size),
            created_at: None,
        };
        return Entry::Import { seen, epoch: order.epoch };
    }
    Entry::Update(OrderUpdate {
        client_order_id: order.order.client_order_id.clone(),
        order_id: order.order_id.clone(),
        status,
        filled: order.filled,
        average_price: order.average_price,
        fees_quote: order.fees_quote,
        reason: None,
    })
}
