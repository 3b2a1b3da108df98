//! Reads of a ledger beside the bot that has it.

use k8s_openapi::jiff::Timestamp;

use super::place::{Place, Source};
use super::store::{Access, Store, StoredEntry, Transaction};
use super::{Binding, Books, IncidentRecord, LedgerError, OrderRecord};

/// Runs a read on a connection of its own: a long one must not hold up a write.
pub(super) async fn reading<T>(
    source: &Source,
    read: impl AsyncFnOnce(&mut Transaction<'_>) -> Result<T, LedgerError>,
) -> Result<T, LedgerError> {
    source.look()?;
    let mut store = Store::connect(source, Access::Read).await?;
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

/// Whether a place answers, with a ledger or without.
///
/// # Errors
/// It does not.
pub async fn answers(place: impl Into<Place>) -> Result<(), LedgerError> {
    match reading(&place.into().source()?, async |_| Ok(())).await {
        Err(LedgerError::Missing { .. }) => Ok(()),
        answer => answer,
    }
}

/// Every order of a ledger, in the order in which it met them.
///
/// # Errors
/// There is none, or it cannot be read.
pub async fn orders(place: impl Into<Place>) -> Result<Vec<OrderRecord>, LedgerError> {
    reading(&place.into().source()?, async |tx| tx.orders().await).await
}

/// What a ledger belongs to; None: nothing yet.
///
/// # Errors
/// There is none, or it cannot be read.
pub async fn binding(place: impl Into<Place>) -> Result<Option<Binding>, LedgerError> {
    reading(&place.into().source()?, async |tx| tx.binding().await).await
}

/// Everything that the books of a ledger hold.
///
/// # Errors
/// There is none, or it cannot be read.
pub async fn books(place: impl Into<Place>) -> Result<Books, LedgerError> {
    reading(&place.into().source()?, async |tx| tx.books().await).await
}

/// Every incident, with the time of its release.
///
/// # Errors
/// There is no ledger, or it cannot be read.
pub async fn incidents(place: impl Into<Place>) -> Result<Vec<(IncidentRecord, Option<Timestamp>)>, LedgerError> {
    reading(&place.into().source()?, async |tx| tx.incidents().await).await
}

/// Every entry of the chain as it is stored: number, time, kind, payload, hash.
///
/// # Errors
/// There is no ledger, or it cannot be read.
pub async fn entries(place: impl Into<Place>) -> Result<Vec<StoredEntry>, LedgerError> {
    reading(&place.into().source()?, async |tx| tx.entries().await).await
}
