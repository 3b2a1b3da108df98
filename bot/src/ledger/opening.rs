//! How a ledger is opened: locked, upgraded, set aside where it is damaged, and read for what a bot goes on with.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arbbot_crds::guards::{GuardAction, GuardMetric};
use arbbot_crds::incident::IncidentId;
use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;

use super::health::Health;
use super::incident::flattening;
use super::journal::Journal;
use super::place::{Place, Source};
use super::record::Entry;
use super::store::{Access, Store, Transaction};
use super::verify::belongs_to;
use super::writing::{import, imported, in_its_time};
use super::{
    Binding, FILE, IncidentRecord, Inner, LOCK, Ledger, LedgerError, LedgerHead, OrderRecord, RecoveredGuards,
    file_error,
};
use crate::clock::Clock;
use crate::market::funding::WINDOW_HOURS;
use crate::risk::guards::restarts;

/// How often a lock is tried again, and how long after.
const LOCK_AGAIN: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// What the ledger knew when it was opened.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Every order ever, in the order in which the ledger met them.
    pub orders: Vec<OrderRecord>,
    /// Incidents that are not released.
    pub incidents: Vec<IncidentRecord>,
    /// Since when those of them that are closing the position do so.
    pub flattening: BTreeMap<IncidentId, Timestamp>,
    /// Incidents that are: an older status must not latch them again.
    pub released: Vec<IncidentId>,
    /// Account and product of the claim that was granted last.
    pub claim: Option<(String, String)>,
    /// What the guards have to go on with.
    pub guards: RecoveredGuards,
    /// Ends of the last week's hours and their funding rates.
    pub funding_rates: Vec<(Timestamp, Decimal)>,
    /// Why the ledger was begun anew: the one that was there is damaged.
    pub begun_anew: Option<String>,
    /// What a person should know, for the log and an Event.
    pub note: Option<String>,
}

impl Recovered {
    /// When the first order was created: not the first row, where orders were taken in from the exchange's history.
    #[must_use]
    pub fn owned_since(&self) -> Option<Timestamp> {
        self.orders.iter().map(|order| order.created_at).min()
    }
}

impl Ledger {
    /// Opens the ledger of a directory, or creates it: SQLite's file, unless [`Server::point`] has made it another's. A
    /// damaged ledger is kept under another name and a new one is begun: status and the exchange's history rebuild what
    /// a bot needs.
    ///
    /// # Errors
    /// Another process has it, it belongs to something else or to a newer version, somebody changed what it belongs to,
    /// or the disk or the server fails.
    pub async fn open(dir: &Path, binding: &Binding, clock: Clock) -> Result<(Self, Recovered), LedgerError> {
        let source = Place::from(dir).source()?;
        let open = Self::open_at_once(dir, source.clone(), binding, clock.clone());
        in_its_time(&clock, &source, open).await
    }

    async fn open_at_once(
        dir: &Path,
        source: Source,
        binding: &Binding,
        clock: Clock,
    ) -> Result<(Self, Recovered), LedgerError> {
        let Files { lock, journal, note } = Files::open(dir, &source)?;
        let (mut notes, mut begun_anew) = (Vec::from_iter(note), None);
        let opened = match Self::load(&source, binding, &clock, &journal).await {
            Err(LedgerError::Corrupt { problem, .. }) => {
                let kept = set_aside(&source, "corrupt", clock.now()).await?;
                let why = format!("the ledger was damaged ({problem}); it is kept as {kept} and a new one was begun");
                notes.push(why.clone());
                begun_anew = Some(why);
                Self::load(&source, binding, &clock, &journal).await
            }
            opened => opened,
        };
        let (store, head, mut recovered) = opened?;
        recovered.begun_anew = begun_anew;
        recovered.note = (!notes.is_empty()).then(|| notes.join("; "));
        let store = tokio::sync::Mutex::new(Some(store));
        let health = Health::of(&source);
        let inner = Inner { source, clock, store, head: Mutex::new(head), journal, health, unread: None, _lock: lock };
        Ok((Self { inner: Arc::new(inner) }, recovered))
    }

    pub(super) async fn load(
        source: &Source,
        binding: &Binding,
        clock: &Clock,
        journal: &Journal,
    ) -> Result<(Store, LedgerHead, Recovered), LedgerError> {
        let mut store = Store::connect(source, Access::Create).await?;
        match Self::read(&mut store, binding, clock, journal).await {
            Ok((head, recovered)) => Ok((store, head, recovered)),
            Err(error) => {
                store.close().await;
                Err(error)
            }
        }
    }

    async fn read(
        store: &mut Store,
        binding: &Binding,
        clock: &Clock,
        journal: &Journal,
    ) -> Result<(LedgerHead, Recovered), LedgerError> {
        store.prepare().await?;
        let mut tx = store.begin_write(None).await?;
        let bound = belongs_to(&mut tx).await?;
        let entry = match &bound {
            None => Some(Entry::Bound(binding.clone())),
            Some(bound) => {
                if let Some((field, bound, wanted)) = bound.compare(binding).into_iter().find(|(_, a, b)| a != b) {
                    let (bound, wanted) = (bound.to_owned(), wanted.to_owned());
                    return Err(LedgerError::Bound { ledger: tx.ledger(), field, bound, wanted });
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
        let recovered = recover(&mut tx, clock.now()).await?;
        let head = tx.head().await?;
        tx.commit().await?;
        imported(journal, waiting.len()).await;
        Ok((head, recovered))
    }
}

async fn recover(tx: &mut Transaction<'_>, now: Timestamp) -> Result<Recovered, LedgerError> {
    let orders = tx.orders().await?;
    let rates = tx.funding_rates(WINDOW_HOURS.into()).await?;
    let (released, incidents): (Vec<_>, Vec<_>) =
        tx.incidents().await?.into_iter().partition(|(_, released_at)| released_at.is_some());
    let incidents: Vec<IncidentRecord> = incidents.into_iter().map(|(incident, _)| incident).collect();
    let is_flattening = incidents.iter().any(IncidentRecord::is_flattening);
    Ok(Recovered {
        orders,
        flattening: if is_flattening { flattening(&tx.incident_entries().await?) } else { BTreeMap::new() },
        incidents,
        released: released.into_iter().map(|(incident, _)| incident.id).collect(),
        claim: tx.claim().await?,
        guards: recover_guards(tx, now).await?,
        // A ledger is of one future.
        funding_rates: rates.into_iter().map(|(_, hour, rate)| (hour, rate)).collect(),
        begun_anew: None,
        note: None,
    })
}

async fn recover_guards(tx: &mut Transaction<'_>, now: Timestamp) -> Result<RecoveredGuards, LedgerError> {
    let mut recovered = RecoveredGuards { equity: tx.equity().await?, ..RecoveredGuards::default() };
    for (trip, ended_at) in tx.guard_trips().await? {
        if trip.action == GuardAction::Restart && now.duration_since(trip.tripped_at) < restarts::WITHIN {
            recovered.restarts.push(trip.tripped_at);
        }
        match ended_at {
            None => recovered.trips.push(trip),
            Some(ended_at) => {
                let Some(id) = trip.incident else { continue };
                if matches!(trip.metric, GuardMetric::DailyLossPercent | GuardMetric::HourlyLossQuote) {
                    recovered.accepted.insert(trip.guard.clone(), ended_at);
                }
                recovered.ended.push((trip.guard, id));
            }
        }
    }
    Ok(recovered)
}

/// What of a ledger is in its directory whatever its kind.
pub(super) struct Files {
    pub lock: Lock,
    pub journal: Journal,
    /// What a person should know of them.
    pub note: Option<String>,
}

impl Files {
    pub fn open(dir: &Path, source: &Source) -> Result<Self, LedgerError> {
        std::fs::create_dir_all(dir).map_err(|cause| file_error(dir, "create the ledger's directory", cause))?;
        let lock = Lock::take(dir, source)?;
        let (journal, unreadable) = Journal::open(dir)?;
        let note = format!("{unreadable} bytes of the kill journal could not be read and were dropped");
        let synced = File::open(dir).and_then(|dir| dir.sync_all());
        synced.map_err(|cause| file_error(dir, "write the ledger's directory", cause))?;
        Ok(Self { lock, journal, note: (unreadable > 0).then_some(note) })
    }
}

/// Keeps a second process out. Unlocked by hand at its end: a child process that is just being started has a copy of the
/// file's descriptor until it becomes its program, and the lock would otherwise last as long.
#[derive(Debug)]
pub(super) struct Lock(pub(super) File);

impl Lock {
    pub(super) fn take(dir: &Path, source: &Source) -> Result<Self, LedgerError> {
        let path = dir.join(LOCK);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|cause| file_error(&path, "open the ledger's lock", cause))?;
        let mut tries = 0;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                // `arb-bot status` has it for a moment, to see whether a bot runs.
                Err(TryLockError::WouldBlock) if tries < LOCK_AGAIN => tries += 1,
                Err(TryLockError::WouldBlock) => return Err(LedgerError::Locked { ledger: source.to_string() }),
                Err(TryLockError::Error(cause)) => return Err(file_error(&path, "lock", cause)),
            }
            std::thread::sleep(LOCK_PAUSE);
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the ledger's lock ends only with its file");
        }
    }
}

/// Gives a ledger a name that is free and says why. Returns the name.
pub(super) async fn set_aside(source: &Source, why: &str, now: Timestamp) -> Result<String, LedgerError> {
    match source {
        Source::File(path) => set_file_aside(path, why, now).map(|kept| kept.display().to_string()),
        Source::Server(_) => {
            let mut store = Store::connect(source, Access::Write).await?;
            let mut tx = store.begin().await?;
            let kept = tx.set_aside(why, now).await?;
            tx.commit().await?;
            store.close().await;
            Ok(kept.unwrap_or_default())
        }
    }
}

/// Renames a ledger and its write-ahead log to a name that is free and says why: `ledger.db.<why>-<now>`.
pub(super) fn set_file_aside(path: &Path, why: &str, now: Timestamp) -> Result<PathBuf, LedgerError> {
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

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
