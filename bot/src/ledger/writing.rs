//! How an entry is written: one at a time, each in a transaction with what waits in the kill journal, and for a kill in
//! the journal itself where the ledger does not answer.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::executor::block_on;
use k8s_openapi::jiff::Timestamp;
use tokio::time::timeout;

use super::journal::Journal;
use super::place::Source;
use super::record::Entry;
use super::store::{Access, Store, Transaction};
use super::{Inner, Ledger, LedgerError, LedgerHead};
use crate::clock::Clock;

impl Ledger {
    pub(super) async fn write(&self, entry: Entry) -> Result<(), LedgerError> {
        // A task of its own: a caller that stops waiting must not stop a write half-way.
        let inner = Arc::clone(&self.inner);
        if stands_still(&inner.clock, &inner.source) {
            return block_on(inner.write(&entry));
        }
        let write = tokio::spawn(async move { inner.write(&entry).await });
        write.await.map_err(|cause| LedgerError::Stopped { cause })?
    }

    /// Tries whether the disk or the server takes anything, with what waits in the journal.
    /// None: a write is under way, which tells itself how it ends.
    pub(super) async fn try_again(&self) -> Option<Result<(), LedgerError>> {
        let inner = Arc::clone(&self.inner);
        let probe = async move {
            let mut guard = inner.store.try_lock().ok()?;
            let result = inner.write_alone(&mut guard, None).await;
            inner.health.wrote(&result);
            Some(result.map(drop))
        };
        if stands_still(&self.inner.clock, &self.inner.source) {
            return block_on(probe);
        }
        tokio::spawn(probe).await.unwrap_or_else(|cause| Some(Err(LedgerError::Stopped { cause })))
    }

    pub(super) async fn write_or_journal(
        &self,
        entry: Entry,
        ledger_deadline: Duration,
        journal_deadline: Duration,
    ) -> Result<(), LedgerError> {
        if let Entry::Intent(order) = &entry {
            let known =
                |entry: &Entry| matches!(entry, Entry::Intent(old) if old.client_order_id == order.client_order_id);
            if self.inner.journal.waiting().iter().any(known) {
                return Err(LedgerError::DuplicateOrder { client_order_id: order.client_order_id.clone() });
            }
        }
        let error = match timeout(ledger_deadline, self.write(entry.clone())).await {
            Ok(Err(error)) if error.is_storage() => error,
            // The later epoch may be of a Lease that was restored to an earlier state, and a kill is never refused. What
            // keeps a pod from trading that is fenced off is not the ledger: without the Lease it has no contact, so the
            // gate clears none of its orders, and its tokens end with its fence.
            Ok(Err(error @ LedgerError::Fenced { .. })) => error,
            Ok(result) => return result,
            Err(_) => {
                let place = format!("the ledger {}", self.inner.source);
                LedgerError::Deadline { place, waited: ledger_deadline }
            }
        };
        tracing::warn!(reason = error.reason(), %error, "the ledger cannot take a kill record; it goes to the kill journal");
        self.inner.journal.append(entry, journal_deadline).await
    }
}

impl Inner {
    /// Writes what waits in the journal and the entry in one transaction.
    async fn write(&self, entry: &Entry) -> Result<(), LedgerError> {
        let mut guard = self.store.lock().await;
        let result = self.write_alone(&mut guard, Some(entry)).await;
        self.health.wrote(&result);
        if result.is_ok() && matches!(entry, Entry::Intent(_)) {
            self.health.is_not_fenced();
        }
        result.map(drop)
    }

    /// Writes what waits in the journal and the entry; without one a page as it is. Returns whether the disk certainly
    /// took something.
    async fn write_alone(&self, guard: &mut Option<Store>, entry: Option<&Entry>) -> Result<bool, LedgerError> {
        self.is_read()?;
        self.health.same_file(&self.source, &self.clock).await?;
        let mut store = match guard.take() {
            Some(store) => store,
            None => self.connect().await?,
        };
        let waiting = self.journal.waiting();
        let result = self.commit(&mut store, &waiting, entry).await;
        if !result.as_ref().is_err_and(LedgerError::is_storage) {
            *guard = Some(store);
        }
        let head = result?;
        let before = std::mem::replace(&mut *self.head.lock().unwrap_or_else(PoisonError::into_inner), head.clone());
        imported(&self.journal, waiting.len()).await;
        Ok(entry.is_none() || head != before)
    }

    /// Connects anew. What was acknowledged must still be there.
    async fn connect(&self) -> Result<Store, LedgerError> {
        let connected = Store::connect(&self.source, Access::Write).await;
        let mut store = connected.map_err(|error| match error {
            LedgerError::Locked { ledger } => LedgerError::TakenOver { ledger },
            error => error,
        })?;
        let head = self.head.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if self.source.is_server() && head.entries > 0 {
            let mut tx = store.begin_write(None).await?;
            let hash = tx.hash(head.entries).await?;
            tx.rollback().await?;
            if hash.as_ref() != Some(&head.head) {
                return Err(LedgerError::EntriesLost { ledger: self.source.to_string(), entries: head.entries });
            }
        }
        Ok(store)
    }

    async fn commit(
        &self,
        store: &mut Store,
        waiting: &[Entry],
        entry: Option<&Entry>,
    ) -> Result<LedgerHead, LedgerError> {
        let now = self.clock.now();
        let epoch = match entry {
            Some(Entry::Intent(order)) => Some(order.epoch),
            Some(_) => None,
            None => self.health.fenced(),
        };
        let mut tx = store.begin_write(epoch).await?;
        let written = async {
            import(&mut tx, waiting, now).await?;
            // A kill's own write that came late: what it brings has just come from the journal.
            match entry {
                Some(entry) if !waiting.contains(entry) => tx.append(entry, now).await?,
                Some(_) => {}
                None => tx.rewrite().await?,
            }
            tx.head().await
        };
        match written.await {
            Ok(head) => tx.commit().await.map(|()| head),
            // The database may have rolled back by itself; the connection is dropped, and with it what it began.
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
pub(super) async fn import(tx: &mut Transaction<'_>, waiting: &[Entry], now: Timestamp) -> Result<(), LedgerError> {
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
pub(super) async fn imported(journal: &Journal, count: usize) {
    if count > 0
        && let Err(error) = journal.imported(count).await
    {
        tracing::warn!(reason = error.reason(), %error, "the kill journal keeps records that are in the ledger");
    }
}

/// Waits for a read of the ledger. Under a virtual clock a file is waited for on the spot: time would otherwise jump
/// ahead while nobody but the disk works, and a run could not be repeated. A server never is, it needs the runtime.
pub(super) async fn in_its_time<T>(clock: &Clock, source: &Source, work: impl Future<Output = T>) -> T {
    if stands_still(clock, source) { block_on(work) } else { work.await }
}

/// Whether the ledger is a file under a virtual clock.
pub(super) fn stands_still(clock: &Clock, source: &Source) -> bool {
    clock.is_driven_by_tokio() && !source.is_server()
}
