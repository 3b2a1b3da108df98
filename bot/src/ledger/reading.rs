//! Reads of a ledger's file beside the bot that has it.

use std::path::Path;

use k8s_openapi::jiff::Timestamp;

use super::store::{Store, StoredEntry, Transaction};
use super::{FILE, IncidentRecord, LedgerError, OrderRecord};

/// Runs a read on a connection of its own: a long one must not hold up a write.
pub(super) async fn reading<T>(
    path: &Path,
    read: impl AsyncFnOnce(&mut Transaction<'_>) -> Result<T, LedgerError>,
) -> Result<T, LedgerError> {
    if !path.exists() {
        return Err(LedgerError::Missing { path: path.to_owned() });
    }
    let mut store = Store::connect(path, false).await?;
    let result = match store.begin().await {
        Ok(mut tx) => match read(&mut tx).await {
            Ok(value) => tx.rollback().await.map(|()| value),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    store.close().await;
    result
}

/// Every order of the ledger in a directory, oldest first.
///
/// # Errors
/// There is none, or it cannot be read.
pub async fn orders(dir: &Path) -> Result<Vec<OrderRecord>, LedgerError> {
    reading(&dir.join(FILE), async |tx| tx.orders().await).await
}

/// Every incident, with the time of its release.
///
/// # Errors
/// There is no ledger, or it cannot be read.
pub async fn incidents(dir: &Path) -> Result<Vec<(IncidentRecord, Option<Timestamp>)>, LedgerError> {
    reading(&dir.join(FILE), async |tx| tx.incidents().await).await
}

/// Every entry of the chain as it is stored: number, time, kind, payload, hash.
///
/// # Errors
/// There is no ledger, or it cannot be read.
pub async fn entries(dir: &Path) -> Result<Vec<StoredEntry>, LedgerError> {
    reading(&dir.join(FILE), async |tx| tx.entries().await).await
}
