//! What the ledger says of one order, for people. Reads beside a running bot.

use super::reading::reading;
use super::record::Entry;
use super::{LedgerError, OrderRecord, OrderUpdate, Place};

/// An entry about an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// When it was written, in RFC 3339.
    pub at: String,
    /// What it is: intent, update or import.
    pub kind: String,
    pub detail: String,
}

/// Every entry about the order with this client_order_id or order_id, oldest first. Nothing where there is no ledger.
///
/// # Errors
/// The disk fails, or an entry cannot be read.
pub async fn history(place: impl Into<Place>, id: &str) -> Result<Vec<HistoryEntry>, LedgerError> {
    let source = place.into().source()?;
    let mut found = Vec::new();
    let (entries, orders) = match reading(&source, async |tx| Ok((tx.entries().await?, tx.orders().await?))).await {
        Err(LedgerError::Missing { .. }) => return Ok(found),
        read => read?,
    };
    let by_order_id = orders.into_iter().find(|order| order.order_id.as_deref() == Some(id));
    let id = by_order_id.map_or_else(|| id.to_owned(), |order| order.client_order_id);
    for (n, at, kind, payload, _) in entries {
        let entry = Entry::parse(&kind, &payload).map_err(|cause| LedgerError::Tampered {
            ledger: source.to_string(),
            entry: n,
            problem: cause.to_string(),
        })?;
        let (kind, detail) = match entry {
            Entry::Intent(order) if order.client_order_id == id => ("intent", described(&order)),
            Entry::Imported(order) if order.client_order_id == id => ("imported", described(&order)),
            Entry::Order(update) if update.client_order_id == id => ("update", described_update(&update)),
            _ => continue,
        };
        found.push(HistoryEntry { at, kind: kind.to_owned(), detail });
    }
    Ok(found)
}

/// What is known of an order now.
pub(super) fn described_update(update: &OrderUpdate) -> String {
    let order_id = update.order_id.as_deref().unwrap_or("not yet known");
    let reason = update.reason.as_deref().unwrap_or_default();
    let filled = format!("filled {} at {}", update.filled, update.average_price);
    format!("{}, order {order_id}, {filled} {reason}", update.status).trim_end().to_owned()
}

/// What an order was to be.
pub(super) fn described(order: &OrderRecord) -> String {
    let class = order.class.map(|class| class.to_string()).unwrap_or_default();
    let price = order.limit_price.map_or_else(String::new, |price| format!(" at {price}"));
    format!("{class} {} {} {} {}{price}, epoch {}", order.side, order.size, order.product, order.kind, order.epoch)
        .trim_start()
        .to_owned()
}
