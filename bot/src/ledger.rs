//! The durable record: every order before it is sent, what became of it, every latch of a kill, the claim.
//!
//! SQLite, or a schema on a PostgreSQL server, with one writer. Every change also appends to a hash chain whose head the
//! bot shows in its status, so that a changed or shortened file is found. A kill that the ledger cannot take in time goes to the kill journal.

mod chain;
mod copy;
mod error;
mod guard;
mod health;
mod history;
mod incident;
mod journal;
mod opening;
mod place;
mod posting;
mod reading;
mod record;
mod store;
#[cfg(test)]
mod tests;
mod unread;
mod verify;
mod writing;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arbbot_crds::incident::IncidentId;
/// Number of entries and hash of the last one, as `status.bot.ledger` shows them.
pub use arbbot_crds::status::LedgerStatus as LedgerHead;
use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;

pub use copy::{Restored, backup, restore};
pub use error::LedgerError;
pub use guard::{EquityHigh, GuardTrip, RecoveredGuards};
pub use health::{LedgerProblem, ProblemKind};
pub use history::{HistoryEntry, history};
pub use incident::{IncidentStory, Moment, incident};
pub use opening::Recovered;
pub use place::{Place, Server};
pub use posting::{
    Books, DecisionRecord, EquityRecord, FillRecord, FlowRecord, FundingRecord, Posting, Quality, SettlementRecord,
    VariationRecord, fill_order,
};
pub use reading::{answers, binding, books, entries, incidents, orders};
pub use record::{Binding, IncidentRecord, OrderRecord, OrderUpdate, RecordStatus};
pub use verify::{continues, verify};

use crate::clock::Clock;
use crate::exchange::{NewOrder, OrderState};
use crate::risk::Class;
use health::Health;
use journal::Journal;
use opening::Lock;
use place::Source;
use record::Entry;
use store::Store;
use unread::Unread;
use writing::in_its_time;

/// File of the ledger in its directory.
pub const FILE: &str = "ledger.db";
/// Directory of the ledger inside the state directory of a bot that runs without Kubernetes.
pub const DIR: &str = "ledger";
/// Lock in its directory, held as long as a bot has the ledger open.
pub const LOCK: &str = "ledger.lock";

/// How long the opening of an incident waits for the ledger before it goes to the kill journal.
pub const KILL_DEADLINE: Duration = Duration::from_millis(250);

/// The ledger. Clones share it.
#[derive(Clone, Debug)]
pub struct Ledger {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    source: Source,
    clock: Clock,
    /// None after a failed write: what the database then holds is unknown, so the next write connects anew.
    store: tokio::sync::Mutex<Option<Store>>,
    head: Mutex<LedgerHead>,
    journal: Journal,
    health: Health,
    /// Why its records were not read when it was opened: it takes none.
    unread: Option<Unread>,
    /// Held as long as the ledger is open.
    _lock: Lock,
}

impl Ledger {
    /// Remembers an order that is about to be sent; durable when it returns.
    ///
    /// # Errors
    /// The client_order_id is already there, or the disk fails: the order must not be sent.
    pub async fn intent(&self, order: &NewOrder, class: Class, epoch: i64) -> Result<(), LedgerError> {
        self.write(Entry::Intent(OrderRecord::intended(order, class, epoch, self.inner.clock.now()))).await
    }

    /// Remembers an order that waits for no ledger, of the kill saga or of a repair: in the ledger within `deadline`, else
    /// within `deadline` in the kill journal.
    ///
    /// # Errors
    /// The client_order_id is already there. Or neither took it ([`LedgerError::is_storage`]): a kill goes on.
    pub async fn intent_or_journal(
        &self,
        order: &NewOrder,
        class: Class,
        epoch: i64,
        deadline: Duration,
    ) -> Result<(), LedgerError> {
        let record = OrderRecord::intended(order, class, epoch, self.inner.clock.now());
        self.write_or_journal(Entry::Intent(record), deadline, deadline).await
    }

    /// Remembers what has become known of an order. Seeing it twice changes nothing.
    ///
    /// # Errors
    /// The order is not there, the exchange has a second one under its id, or the disk fails.
    pub async fn order(&self, update: &OrderUpdate) -> Result<(), LedgerError> {
        self.write(Entry::Order(update.clone())).await
    }

    /// Takes in an order of this bot that the exchange shows and the ledger may not have (a lost ledger, a kill
    /// without a disk), or what the exchange shows of one that it has.
    ///
    /// # Errors
    /// The exchange has a second order under its id, or the disk fails.
    pub async fn import(&self, state: &OrderState, epoch: i64) -> Result<(), LedgerError> {
        self.write(Entry::Imported(OrderRecord::imported(state, epoch, self.inner.clock.now()))).await?;
        self.order(&OrderUpdate::from(state)).await
    }

    /// Makes a latch durable: in the ledger within [`KILL_DEADLINE`], else in the kill journal.
    ///
    /// # Errors
    /// The incident is released. Or neither took it ([`LedgerError::is_storage`]): the kill goes on.
    pub async fn open_incident(&self, incident: &IncidentRecord) -> Result<(), LedgerError> {
        self.write_or_journal(Entry::Incident(incident.clone()), KILL_DEADLINE, KILL_DEADLINE).await
    }

    /// Remembers how far a kill is. Its action never falls and the first times stay.
    ///
    /// # Errors
    /// The incident is released, or the disk fails.
    pub async fn update_incident(&self, incident: &IncidentRecord) -> Result<(), LedgerError> {
        self.write(Entry::Incident(incident.clone())).await
    }

    /// Ends a latch.
    ///
    /// # Errors
    /// The incident is not there, or the disk fails: the latch stays.
    pub async fn release_incident(&self, id: &IncidentId, at: Timestamp) -> Result<(), LedgerError> {
        self.write(Entry::Released { id: id.clone(), at }).await
    }

    /// Remembers the claim that the operator granted.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn remember_claim(&self, account: &str, product: &str) -> Result<(), LedgerError> {
        self.write(Entry::Claim { account: account.to_owned(), product: product.to_owned() }).await
    }

    /// Remembers a trip of a guard. Seeing it twice changes nothing.
    ///
    /// # Errors
    /// The disk fails: the trip holds in memory and in status.
    pub async fn guard_tripped(&self, trip: &GuardTrip) -> Result<(), LedgerError> {
        self.write(Entry::GuardTripped(trip.clone())).await
    }

    /// Remembers the end of a trip.
    ///
    /// # Errors
    /// The disk fails: after a restart the trip is under way again.
    pub async fn guard_ended(&self, guard: &str, tripped_at: Timestamp, at: Timestamp) -> Result<(), LedgerError> {
        self.write(Entry::GuardEnded { guard: guard.to_owned(), tripped_at, at }).await
    }

    /// Keeps highs of the equity.
    ///
    /// # Errors
    /// The disk fails: a loss is then measured from what was kept before.
    pub async fn keep_equity(&self, highs: &[EquityHigh]) -> Result<(), LedgerError> {
        self.write(Entry::Equity(highs.to_vec())).await
    }

    /// Adds to the books, all in one transaction; what is there already changes nothing.
    ///
    /// # Errors
    /// The disk fails: nothing of it is there.
    pub async fn post(&self, postings: Vec<Posting>) -> Result<(), LedgerError> {
        self.write(Entry::Postings(postings)).await
    }

    /// Everything that the books hold, and every order.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn books(&self) -> Result<(Books, Vec<OrderRecord>), LedgerError> {
        let read = reading::reading(&self.inner.source, async |tx| Ok((tx.books().await?, tx.orders().await?)));
        in_its_time(&self.inner.clock, &self.inner.source, read).await
    }

    /// The fills of one order that the books have.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn fills_of(&self, order_id: &str) -> Result<Vec<FillRecord>, LedgerError> {
        let read = reading::reading(&self.inner.source, async |tx| tx.fills_of(order_id).await);
        in_its_time(&self.inner.clock, &self.inner.source, read).await
    }

    /// Remembers the funding rate of an hour; the first one of an hour stays.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn funding_rate(&self, product: &str, hour: Timestamp, rate: Decimal) -> Result<(), LedgerError> {
        self.write(Entry::FundingRate { product: product.to_owned(), hour, rate }).await
    }

    /// Head of the chain: what is durable.
    #[must_use]
    pub fn head(&self) -> LedgerHead {
        // Replaced as a whole, so it is right even after a panic.
        self.inner.head.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records that wait in the kill journal for the ledger to work again.
    #[cfg(test)]
    #[must_use]
    pub fn journaled(&self) -> usize {
        self.inner.journal.waiting().len()
    }

    /// Ends the connection in order, at the end of the program. A crash instead loses nothing.
    pub async fn close(&self) {
        let store = self.inner.store.lock().await.take();
        if let Some(store) = store {
            store.close().await;
        }
    }
}

fn file_error(path: &Path, action: &'static str, cause: std::io::Error) -> LedgerError {
    LedgerError::File { path: path.to_owned(), action, cause }
}
