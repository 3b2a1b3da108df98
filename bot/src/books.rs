//! Keeps the books: every fill, hourly funding, settlements, and what the bot has made (SAFETY §6).
//!
//! Nothing waits for this task, no order and no kill. What it cannot write, or did not see, it reads again from the
//! exchange's history. It hears from the driver ([`Inbox`]) and asks the exchange only for fills.

pub mod account;
mod balance;
mod calendar;
mod fills;
mod hours;
mod keeper;
pub mod performance;
pub mod summary;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use self::account::{Account, Leg, RoundTrip};
pub use self::fills::Cumulative;
use self::keeper::Keeper;
use crate::clock::Clock;
use crate::exchange::{Exchange, Holdings, Product};
use crate::execution::engine::{Identity, View};
use crate::ledger::{DecisionRecord, EquityRecord, Ledger, SettlementRecord};

/// How often the books are brought up to date.
const ROUND: Duration = Duration::from_secs(1);
/// How long a stopping bot looks for its last fills.
const LAST_ROUND: Duration = Duration::from_secs(5);

/// What the books say, for status, guards and reports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BooksView {
    /// Whether the ledger's books have been read: until then the figures are not the bot's.
    pub is_read: bool,
    /// Funding that was paid and that accrued since, in quote currency: part of every profit and loss.
    pub funding_quote: Decimal,
    /// The part of it that is an estimate.
    pub accrued_quote: Decimal,
    /// The last settlement; its adjustment is the drift of the estimates.
    pub settlement: Option<SettlementRecord>,
    /// Round trips that ended, ever.
    pub trips: u64,
    pub last_trip: Option<RoundTrip>,
    /// Hourly points of the last 25 hours, oldest first; they survive a restart.
    pub equity: Arc<[EquityRecord]>,
    /// Orders whose fills are not all booked.
    pub outstanding: usize,
    /// What the books cannot explain, for the log and people.
    pub problem: Option<String>,
}

impl BooksView {
    /// Funding that was paid, in quote currency.
    #[must_use]
    pub fn settled_quote(&self) -> Decimal {
        self.funding_quote - self.accrued_quote
    }
}

/// Where the driver tells what it hears. Clones share it.
#[derive(Clone, Debug)]
pub struct Inbox {
    news: mpsc::UnboundedSender<News>,
    shown: Arc<watch::Sender<Option<Shown>>>,
}

/// What the task hears.
#[derive(Debug)]
pub struct Outbox {
    news: mpsc::UnboundedReceiver<News>,
    shown: watch::Receiver<Option<Shown>>,
}

#[derive(Debug)]
enum News {
    Order(Cumulative),
    Decision(DecisionRecord),
}

/// What the exchange showed in a snapshot.
#[derive(Clone, Debug)]
struct Shown {
    /// When it was begun to be read.
    at: Timestamp,
    holdings: Holdings,
    spot: Product,
    future: Product,
}

/// Both ends of what the driver tells.
#[must_use]
pub fn inbox() -> (Inbox, Outbox) {
    let (news, hears) = mpsc::unbounded_channel();
    let (shown, sees) = watch::channel(None);
    (Inbox { news, shown: Arc::new(shown) }, Outbox { news: hears, shown: sees })
}

impl Inbox {
    /// Tells the cumulative figures of an order.
    pub fn order(&self, said: Cumulative) {
        // Without the task nobody keeps books: a test of the engine alone.
        self.news.send(News::Order(said)).ok();
    }

    /// Tells the prices at which an order was decided on.
    pub fn decided(&self, decision: DecisionRecord) {
        self.news.send(News::Decision(decision)).ok();
    }

    /// Tells what the exchange showed, beginning at `at`.
    pub fn show(&self, at: Timestamp, holdings: &Holdings, spot: &Product, future: &Product) {
        let (holdings, spot, future) = (holdings.clone(), spot.clone(), future.clone());
        self.shown.send_replace(Some(Shown { at, holdings, spot, future }));
    }
}

/// The task.
pub struct BooksTask<E> {
    pub identity: Identity,
    pub ledger: Ledger,
    pub clock: Clock,
    /// The exchange of the open session.
    pub exchange: Arc<ArcSwapOption<E>>,
    pub told: Outbox,
    /// What the engine shows: the position and its prices at one instant.
    pub engine: watch::Receiver<View>,
    pub view: watch::Sender<BooksView>,
}

impl<E: Exchange> BooksTask<E> {
    /// Runs until it is told to stop; then it looks for the last fills a last time.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { identity, ledger, clock, exchange, mut told, engine, view } = self;
        let Some(mut keeper) = open(&identity, &ledger, &clock, &shutdown).await else { return };
        let mut ticks = tokio::time::interval(ROUND);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let stopping = tokio::select! {
                biased;
                () = shutdown.cancelled() => true,
                _ = ticks.tick() => false,
            };
            while let Ok(news) = told.news.try_recv() {
                keeper.hear(news).await;
            }
            if told.shown.has_changed().unwrap_or_default()
                && let Some(shown) = told.shown.borrow_and_update().clone()
            {
                keeper.see(shown);
            }
            let exchange = exchange.load_full();
            let round = keeper.round(exchange.as_deref(), &engine);
            if stopping {
                if timeout(LAST_ROUND, round).await.is_err() {
                    tracing::warn!("the last fills were not read in time; the next start reads them");
                }
                return;
            }
            round.await;
            let new = keeper.view();
            view.send_if_modified(|old| {
                let changed = *old != new;
                *old = new;
                changed
            });
        }
    }
}

/// The books as the ledger has them; asked for until it answers. None: the bot stops.
async fn open(identity: &Identity, ledger: &Ledger, clock: &Clock, shutdown: &CancellationToken) -> Option<Keeper> {
    loop {
        match ledger.books().await {
            Ok((books, orders)) => {
                return Some(Keeper::new(identity.clone(), ledger.clone(), clock.clone(), &books, &orders));
            }
            Err(error) => {
                tracing::warn!(reason = error.reason(), %error, "the books cannot be read; it is tried again")
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return None,
            () = tokio::time::sleep(LAST_ROUND) => {}
        }
    }
}
