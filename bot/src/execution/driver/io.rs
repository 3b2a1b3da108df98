//! Makes the calls to the exchange that the engine commands; what each said goes back as an event.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::mpsc;

use crate::books::Inbox;
use crate::clock::Clock;
use crate::exchange::{Exchange, ExchangeError, Placed, Product};
use crate::execution::engine::{Event, Identity, Now, Snapshot};
use crate::ledger::{Ledger, LedgerError};
use crate::risk::guards::watch::SharedMeters;
use crate::risk::{Class, Denied, Gate, Permit};
use crate::telemetry::metrics::{Metrics, OrderOutcome};

/// Age at which a product's rules and state are read again.
const PRODUCT_AGE: Duration = Duration::from_secs(5);
/// How long the intent of any other order waits for the disk.
const INTENT: Duration = Duration::from_secs(2);
/// How long the intent of a kill order waits for the disk.
const KILL_INTENT: Duration = Duration::from_millis(250);

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
    pub meters: SharedMeters,
    /// Who keeps the books hears of every order and snapshot.
    pub books: Inbox,
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
            meters: self.meters.clone(),
            books: self.books.clone(),
        }
    }
}

/// Spot and future as last read, and when.
#[derive(Clone, Debug, Default)]
pub struct Products(Arc<Mutex<Option<(Product, Product, Duration)>>>);

impl<E: Exchange> Io<E> {
    pub(super) async fn place(self, permit: Permit, epoch: i64) {
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
        if matches!(class, Class::Kill | Class::Trim) {
            // A leg that stands alone is repaired also where the ledger takes nothing: its journal will do.
            match self.ledger.intent_or_journal(order, class, epoch, KILL_INTENT).await {
                Err(error) if error.is_storage() && class == Class::Kill => {
                    tracing::error!(order = order.client_order_id, reason = error.reason(), %error,
                        "no disk takes the intent; the kill goes on");
                }
                result => result?,
            }
        } else {
            tokio::time::timeout(INTENT, self.ledger.intent(order, class, epoch)).await.map_err(|_| {
                self.ledger.does_not_answer(INTENT);
                NotSent::Disk
            })??;
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

    pub(super) async fn cancel(self, ids: Vec<String>) {
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

    pub(super) async fn query(self, order_id: String) {
        let Some(exchange) = self.exchange.load_full() else { return };
        let result = self.counted("order", exchange.order(&order_id)).await;
        self.answer(Event::Order(result)).await;
    }

    pub(super) async fn fees(self) {
        let fees = match self.exchange.load_full() {
            None => Err(ExchangeError::NoSession),
            Some(exchange) => self.counted("fees", exchange.fee_rates()).await.inspect_err(
                |error| tracing::warn!(%error, "the account's fees were not read; without any nothing is entered"),
            ),
        };
        self.answer(Event::Fees(fees)).await;
    }

    pub(super) async fn snapshot(self, since: Option<Timestamp>) {
        let result = self.take_snapshot(since).await;
        match &result {
            Ok(snapshot) => {
                let Snapshot { started, holdings, spot, future, .. } = snapshot;
                self.books.show(started.wall, holdings, spot, future);
            }
            Err(error) => tracing::debug!(%error, "snapshot failed"),
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
        let began = self.clock.boottime();
        let result = request.await;
        let now = self.clock.boottime();
        self.meters.lock().called(now, now.saturating_sub(began), &result);
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
