//! The durable record: every order before it is sent, what became of it, every latch of a kill, the claim.
//!
//! SQLite with one writer. Every change also appends to a hash chain whose head the bot shows in its status, so that a
//! changed or shortened file is found. A kill that the ledger cannot take in time goes to the kill journal.

mod chain;
mod copy;
mod error;
mod history;
mod incident;
mod journal;
mod reading;
mod record;
mod store;
#[cfg(test)]
mod tests;
mod verify;

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arbbot_crds::incident::IncidentId;
/// Number of entries and hash of the last one, as `status.bot.ledger` shows them.
pub use arbbot_crds::status::LedgerStatus as LedgerHead;
use k8s_openapi::jiff::Timestamp;
use tokio::time::timeout;

pub use copy::{Restored, backup, restore};
pub use error::LedgerError;
pub use history::{HistoryEntry, history};
pub use incident::{IncidentStory, Moment, incident};
pub use reading::{entries, incidents, orders};
pub use record::{Binding, IncidentRecord, OrderRecord, OrderUpdate, RecordStatus};
pub use verify::{continues, verify};

use crate::clock::Clock;
use crate::exchange::{NewOrder, OrderState};
use crate::risk::Class;
use journal::Journal;
use record::Entry;
use store::Store;

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
    path: PathBuf,
    clock: Clock,
    /// None after a failed write: what SQLite then holds is unknown, so the next write connects anew.
    store: tokio::sync::Mutex<Option<Store>>,
    head: Mutex<LedgerHead>,
    journal: Journal,
    /// Held as long as the ledger is open.
    _lock: File,
}

/// What the ledger knew when it was opened.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Every order ever, oldest first.
    pub orders: Vec<OrderRecord>,
    /// Incidents that are not released.
    pub incidents: Vec<IncidentRecord>,
    /// Incidents that are: an older status must not latch them again.
    pub released: Vec<IncidentId>,
    /// Account and product of the claim that was granted last.
    pub claim: Option<(String, String)>,
    /// What a person should know, for the log and an Event.
    pub note: Option<String>,
}

impl Ledger {
    /// Opens the ledger in a directory, or creates it. A damaged file is kept under another name and a new ledger is
    /// begun: status and the exchange's history rebuild what a bot needs.
    ///
    /// # Errors
    /// Another process has it, it belongs to something else or to a newer version, or the disk fails.
    pub async fn open(dir: &Path, binding: &Binding, clock: Clock) -> Result<(Self, Recovered), LedgerError> {
        let virtual_time = clock.is_driven_by_tokio();
        let open = Self::open_at_once(dir, binding, clock);
        if virtual_time { standing_still(open) } else { open.await }
    }

    async fn open_at_once(dir: &Path, binding: &Binding, clock: Clock) -> Result<(Self, Recovered), LedgerError> {
        std::fs::create_dir_all(dir).map_err(|cause| file_error(dir, "create the ledger's directory", cause))?;
        let path = dir.join(FILE);
        let lock = lock(dir, &path)?;
        let (journal, unreadable) = Journal::open(dir)?;
        let mut notes = Vec::new();
        if unreadable > 0 {
            notes.push(format!("{unreadable} bytes of the kill journal could not be read and were dropped"));
        }
        let synced = File::open(dir).and_then(|dir| dir.sync_all());
        synced.map_err(|cause| file_error(dir, "write the ledger's directory", cause))?;
        let opened = match Self::load(&path, binding, &clock, &journal).await {
            Err(LedgerError::Corrupt { problem, .. }) => {
                let kept = set_aside(&path, "corrupt", clock.now())?;
                let kept = kept.display();
                notes.push(format!("the ledger was damaged ({problem}); it is kept as {kept} and a new one was begun"));
                Self::load(&path, binding, &clock, &journal).await
            }
            opened => opened,
        };
        let (store, head, mut recovered) = opened?;
        recovered.note = (!notes.is_empty()).then(|| notes.join("; "));
        let store = tokio::sync::Mutex::new(Some(store));
        let inner = Inner { path, clock, store, head: Mutex::new(head), journal, _lock: lock };
        Ok((Self { inner: Arc::new(inner) }, recovered))
    }

    async fn load(
        path: &Path,
        binding: &Binding,
        clock: &Clock,
        journal: &Journal,
    ) -> Result<(Store, LedgerHead, Recovered), LedgerError> {
        let mut store = Store::connect(path, true).await?;
        match Self::read(&mut store, path, binding, clock, journal).await {
            Ok((head, recovered)) => Ok((store, head, recovered)),
            Err(error) => {
                store.close().await;
                Err(error)
            }
        }
    }

    async fn read(
        store: &mut Store,
        path: &Path,
        binding: &Binding,
        clock: &Clock,
        journal: &Journal,
    ) -> Result<(LedgerHead, Recovered), LedgerError> {
        store.prepare().await?;
        let mut tx = store.begin().await?;
        let bound = tx.binding().await?;
        let entry = match &bound {
            None => Some(Entry::Bound(binding.clone())),
            Some(bound) => {
                if let Some((field, bound, wanted)) = bound.compare(binding).into_iter().find(|(_, a, b)| a != b) {
                    let (bound, wanted) = (bound.to_owned(), wanted.to_owned());
                    return Err(LedgerError::Bound { path: path.to_owned(), field, bound, wanted });
                }
                let adopted = bound.bot_uid != binding.bot_uid;
                adopted.then(|| Entry::Adopted { bot_uid: binding.bot_uid.clone() })
            }
        };
        let waiting = journal.waiting();
        import(&mut tx, &waiting, clock.now()).await?;
        if let Some(entry) = entry {
            tx.append(&entry, clock.now()).await?;
        }
        let recovered = recover(&mut tx).await?;
        let head = tx.head().await?;
        tx.commit().await?;
        imported(journal, waiting.len()).await;
        Ok((head, recovered))
    }

    /// Remembers an order that is about to be sent; durable when it returns.
    ///
    /// # Errors
    /// The client_order_id is already there, or the disk fails: the order must not be sent.
    pub async fn intent(&self, order: &NewOrder, class: Class, epoch: i64) -> Result<(), LedgerError> {
        self.write(Entry::Intent(OrderRecord::intended(order, class, epoch, self.inner.clock.now()))).await
    }

    /// Remembers an order of the kill saga: in the ledger within `deadline`, else within `deadline` in the kill
    /// journal.
    ///
    /// # Errors
    /// The client_order_id is already there. Or neither took it ([`LedgerError::is_storage`]): the kill goes on.
    pub async fn intent_for_kill(&self, order: &NewOrder, epoch: i64, deadline: Duration) -> Result<(), LedgerError> {
        let record = OrderRecord::intended(order, Class::Kill, epoch, self.inner.clock.now());
        self.write_or_journal(Entry::Intent(record), deadline).await
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
        self.write_or_journal(Entry::Incident(incident.clone()), KILL_DEADLINE).await
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

    async fn write(&self, entry: Entry) -> Result<(), LedgerError> {
        // A task of its own: a caller that stops waiting must not stop a write half-way.
        let inner = Arc::clone(&self.inner);
        if inner.clock.is_driven_by_tokio() {
            return standing_still(inner.write(&entry));
        }
        let write = tokio::spawn(async move { inner.write(&entry).await });
        write.await.map_err(|cause| LedgerError::Stopped { cause })?
    }

    async fn write_or_journal(&self, entry: Entry, deadline: Duration) -> Result<(), LedgerError> {
        if let Entry::Intent(order) = &entry {
            let known =
                |entry: &Entry| matches!(entry, Entry::Intent(old) if old.client_order_id == order.client_order_id);
            if self.inner.journal.waiting().iter().any(known) {
                return Err(LedgerError::DuplicateOrder { client_order_id: order.client_order_id.clone() });
            }
        }
        let error = match timeout(deadline, self.write(entry.clone())).await {
            Ok(Err(error)) if error.is_storage() => error,
            Ok(result) => return result,
            Err(_) => LedgerError::Deadline { path: self.inner.path.clone(), waited: deadline },
        };
        tracing::warn!(reason = error.reason(), %error, "the ledger cannot take a kill record; it goes to the kill journal");
        self.inner.journal.append(entry, deadline).await
    }
}

impl Inner {
    /// Writes what waits in the journal and the entry in one transaction.
    async fn write(&self, entry: &Entry) -> Result<(), LedgerError> {
        let mut guard = self.store.lock().await;
        let mut store = match guard.take() {
            Some(store) => store,
            None => Store::connect(&self.path, false).await?,
        };
        let waiting = self.journal.waiting();
        let result = self.commit(&mut store, &waiting, entry).await;
        if !result.as_ref().is_err_and(LedgerError::is_storage) {
            *guard = Some(store);
        }
        let head = result?;
        *self.head.lock().unwrap_or_else(PoisonError::into_inner) = head;
        imported(&self.journal, waiting.len()).await;
        Ok(())
    }

    async fn commit(&self, store: &mut Store, waiting: &[Entry], entry: &Entry) -> Result<LedgerHead, LedgerError> {
        let now = self.clock.now();
        let mut tx = store.begin().await?;
        let written = async {
            import(&mut tx, waiting, now).await?;
            // A kill's own write that came late: what it brings has just come from the journal.
            if !waiting.contains(entry) {
                tx.append(entry, now).await?;
            }
            tx.head().await
        };
        match written.await {
            Ok(head) => tx.commit().await.map(|()| head),
            // SQLite may have rolled back by itself; the connection is dropped, and with it what it began.
            Err(error) if error.is_storage() => Err(error),
            Err(error) => {
                tx.rollback().await?;
                Err(error)
            }
        }
    }
}

/// Appends what waited in the journal. A record may be in the ledger already: its write was only late, or the journal
/// was not emptied before a crash. One that the ledger refuses is no reason to keep the others out.
async fn import(tx: &mut store::Transaction<'_>, waiting: &[Entry], now: Timestamp) -> Result<(), LedgerError> {
    for entry in waiting {
        match tx.append(entry, now).await {
            Err(error) if !error.is_storage() => {
                tracing::info!(reason = error.reason(), %error, "a record of the kill journal is not imported");
            }
            result => result?,
        }
    }
    Ok(())
}

/// Empties the journal of what the ledger has. If that fails, the next start imports it again, which changes nothing.
async fn imported(journal: &Journal, count: usize) {
    if count > 0
        && let Err(error) = journal.imported(count).await
    {
        tracing::warn!(reason = error.reason(), %error, "the kill journal keeps records that are in the ledger");
    }
}

async fn recover(tx: &mut store::Transaction<'_>) -> Result<Recovered, LedgerError> {
    let orders = tx.orders().await?;
    let (released, incidents): (Vec<_>, Vec<_>) =
        tx.incidents().await?.into_iter().partition(|(_, released_at)| released_at.is_some());
    Ok(Recovered {
        orders,
        incidents: incidents.into_iter().map(|(incident, _)| incident).collect(),
        released: released.into_iter().map(|(incident, _)| incident.id).collect(),
        claim: tx.claim().await?,
        note: None,
    })
}

/// Waits for the disk on the spot. Under a virtual clock time would otherwise jump ahead while nobody but the disk
/// works, and a run could not be repeated.
fn standing_still<T>(work: impl Future<Output = T>) -> T {
    futures::executor::block_on(work)
}

/// Takes the lock that keeps a second process out; it ends with the file.
fn lock(dir: &Path, ledger: &Path) -> Result<File, LedgerError> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|cause| file_error(&path, "open the ledger's lock", cause))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LedgerError::Locked { path: ledger.to_owned() }),
        Err(TryLockError::Error(cause)) => Err(file_error(&path, "lock", cause)),
    }
}

/// Renames a ledger and its write-ahead log to a name that is free and says why: `ledger.db.<why>-<now>`.
fn set_aside(path: &Path, why: &str, now: Timestamp) -> Result<PathBuf, LedgerError> {
    let base = format!("{FILE}.{why}-{}", now.strftime("%Y%m%dT%H%M%SZ"));
    let names = std::iter::once(base.clone()).chain((2..).map(|n| format!("{base}-{n}")));
    let kept = names.map(|name| path.with_file_name(name)).find(|kept| !kept.exists()).unwrap_or_default();
    // The ledger last: if the renaming stops half-way, the next start finds the damage again.
    for suffix in ["-wal", "-shm", ""] {
        let from = with_suffix(path, suffix);
        if from.exists() {
            let renamed = std::fs::rename(&from, with_suffix(&kept, suffix));
            renamed.map_err(|cause| file_error(&from, "set aside the ledger", cause))?;
        }
    }
    Ok(kept)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn file_error(path: &Path, action: &'static str, cause: std::io::Error) -> LedgerError {
    LedgerError::File { path: path.to_owned(), action, cause }
}
