//! What becomes known of orders, as the ledger and the books take it, and the task that writes it to the ledger.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;
use tokio::sync::mpsc;

use crate::books::Cumulative;
use crate::exchange::{NewOrder, OrderKind, OrderState, OrderStatus, Side, Touch};
use crate::execution::orders::{Order, State};
use crate::ledger::{DecisionRecord, Ledger, LedgerError, OrderUpdate, RecordStatus};

/// How long what becomes known of orders is gathered before it is written.
const GATHER: Duration = Duration::from_millis(250);
/// Pause after the disk did not take something of it.
const RECORD_AGAIN: Duration = Duration::from_secs(1);

/// What the ledger is to write, in order.
pub(super) enum Entry {
    Update(OrderUpdate),
    /// An order that only the exchange remembered.
    Import {
        seen: OrderState,
        epoch: i64,
    },
    /// The funding rate of an hour.
    Funding {
        product: String,
        hour: Timestamp,
        rate: Decimal,
    },
}

impl Entry {
    /// What it is about: of two entries about the same only the later is written.
    fn about(&self) -> String {
        match self {
            Self::Update(update) => update.client_order_id.clone(),
            Self::Import { seen, .. } => seen.client_order_id.clone(),
            Self::Funding { hour, .. } => hour.to_string(),
        }
    }
}

/// Writes what becomes known of orders until the channel closes: for each order only the latest, because every state is
/// cumulative. Nothing waits for these writes, and the disk belongs to latches and intents first. What the disk does not
/// take is tried again with what follows, or after a second, also after the channel closed: whoever waits for the end
/// says how long.
pub(super) async fn record(ledger: Ledger, mut queue: mpsc::UnboundedReceiver<Entry>) {
    let mut latest = BTreeMap::new();
    let (mut open, mut is_behind) = (true, false);
    while open || !latest.is_empty() {
        let pause = if latest.is_empty() { GATHER } else { RECORD_AGAIN };
        let until = tokio::time::Instant::now() + pause;
        while open && tokio::time::Instant::now() < until {
            match tokio::time::timeout_at(until, queue.recv()).await {
                Ok(Some(entry)) => drop(latest.insert(entry.about(), entry)),
                Ok(None) => open = false,
                Err(_) => {}
            }
        }
        if let Err(error) = write(&ledger, &mut latest).await {
            // The ledger's own problem says the rest: an hour of this is one line.
            if !std::mem::replace(&mut is_behind, true) {
                let (records, reason) = (latest.len(), error.reason());
                tracing::error!(records, reason, %error, "the ledger does not take what becomes known; it is tried again");
            }
            if !open {
                tokio::time::sleep(RECORD_AGAIN).await;
            }
        } else if std::mem::take(&mut is_behind) {
            tracing::info!("the ledger has taken everything that became known meanwhile");
        }
    }
}

/// Leaves what is to be tried again.
///
/// # Errors
/// The disk or the server fails.
async fn write(ledger: &Ledger, entries: &mut BTreeMap<String, Entry>) -> Result<(), LedgerError> {
    while let Some(entry) = entries.first_entry() {
        let result = match entry.get() {
            Entry::Update(update) => ledger.order(update).await,
            Entry::Import { seen, epoch } => ledger.import(seen, *epoch).await,
            Entry::Funding { product, hour, rate } => ledger.funding_rate(product, *hour, *rate).await,
        };
        match result {
            Err(error) if error.is_storage() => return Err(error),
            Err(error) => {
                tracing::error!(about = entry.key(), reason = error.reason(), %error, "the ledger refuses an order's state");
            }
            Ok(()) => {}
        }
        entry.remove();
    }
    Ok(())
}

/// What the exchange said of an order that it has filled.
pub(super) fn cumulative(order: &Order) -> Option<Cumulative> {
    let order_id = order.order_id.clone().filter(|_| !order.filled.is_zero())?;
    let client_order_id = order.order.client_order_id.clone();
    Some(Cumulative { client_order_id, order_id, filled: order.filled, fees_quote: order.fees_quote })
}

/// The prices at which an order is decided on.
pub(super) fn decision(order: &NewOrder, touch: Touch) -> DecisionRecord {
    let other_side = if order.side == Side::Buy { touch.best_ask } else { touch.best_bid };
    let rests = matches!(order.kind, OrderKind::PostOnly { .. } | OrderKind::GoodTillCancelled { .. });
    let expected_price = order.limit_price().filter(|_| rests).unwrap_or(other_side);
    DecisionRecord { client_order_id: order.client_order_id.clone(), mid: touch.mid(), expected_price }
}

pub(super) fn entry(order: &Order) -> Entry {
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
            created_at: order.created_at,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execution::orders::Orders;
    use crate::ledger::{OrderRecord, Recovered};
    use crate::risk::Class;

    const ID: &str = "aaaaaaaa-1-1-Enter";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// What the ledger is told of an order that the exchange showed in these states.
    fn imported(states: &[OrderState]) -> OrderRecord {
        let mut orders = Orders::default();
        orders.adopt(&states[0], Class::Enter, 1, Duration::from_secs(9));
        states[1..].iter().for_each(|state| drop(orders.apply(state)));
        let Entry::Import { seen, epoch } = entry(orders.get(ID).unwrap()) else { panic!("it is adopted") };
        OrderRecord::imported(&seen, epoch, at("2026-01-09T00:00:00Z"))
    }

    /// Proven by mutation: `created_at: None` in `entry`; `Order::apply` not taking it in; the first row taken for
    /// the oldest order (`Recovered::owned_since`).
    #[test]
    fn an_order_of_a_lost_ledger_keeps_the_time_at_which_the_exchange_created_it() {
        let told = OrderState {
            order_id: "venue-1".to_owned(),
            client_order_id: ID.to_owned(),
            product: "BTC-USD".to_owned(),
            side: Side::Buy,
            status: OrderStatus::Filled,
            filled: Decimal::ONE,
            average_price: Decimal::TEN,
            fees_quote: Decimal::ZERO,
            size: Some(Decimal::ONE),
            created_at: Some(at("2026-01-01T00:00:00Z")),
        };
        let untold = OrderState { status: OrderStatus::Open, created_at: None, ..told.clone() };
        for states in [vec![told.clone()], vec![untold, told]] {
            let record = imported(&states);
            assert_eq!(record.created_at, at("2026-01-01T00:00:00Z"));
            let boot = Duration::from_secs(30 * 24 * 3600);
            let again = Orders::recovered(std::slice::from_ref(&record), boot, at("2026-01-09T00:00:30Z"));
            assert_eq!(again.minted_since(boot - Duration::from_secs(60)), 0, "it is none of the last minute's");
            assert_eq!(again.get(ID).unwrap().created_at, Some(record.created_at));
            // What was minted after the ledger was lost has the earlier row.
            let newer = OrderRecord { created_at: at("2026-01-09T00:00:00Z"), ..record.clone() };
            let recovered = Recovered { orders: vec![newer, record.clone()], ..Recovered::default() };
            assert_eq!(recovered.owned_since(), Some(record.created_at));
        }
    }
}
