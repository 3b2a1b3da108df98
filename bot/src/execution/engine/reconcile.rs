//! Whether the exchange shows what the bot owns.

use std::time::Duration;

use rust_decimal::Decimal;

use super::Engine;
use crate::exchange::Holdings;
use crate::execution::orders::State;

/// A fill shows in orders and holdings within this time.
const FILL_SETTLES: Duration = Duration::from_secs(2);
/// A difference that has not yet been confirmed is looked at again after this long.
pub(super) const CONFIRM_AFTER: Duration = Duration::from_secs(3);
/// A difference that every snapshot shows for this long counts, whatever fills meanwhile.
const MISMATCH_COUNTS: Duration = Duration::from_secs(30);

/// A difference that is not yet confirmed.
#[derive(Clone, Debug)]
pub(super) struct Mismatch {
    /// When the first of the snapshots in a row showed it.
    since: Duration,
    /// What the last one showed, where no fill was on its way.
    settled: Option<String>,
}

/// Whether the exchange shows what the bot expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reconciliation {
    /// Not yet compared.
    Pending,
    /// The exchange shows what the bot owns.
    Matches,
    /// The exchange shows something else; the text names the leg and the figures.
    Differs(String),
}

impl Reconciliation {
    pub(super) fn is_pending(&self) -> bool {
        *self == Self::Pending
    }
}

impl Engine {
    /// Compares what the venue holds with what the bot owns, after the orders of the same snapshot, which began at
    /// `started`. Returns whether a difference is still to be confirmed.
    ///
    /// A difference counts once two snapshots in a row show the same one and no fill was on its way meanwhile: it may lie
    /// between the two halves of a snapshot, and the next fill between those of the next.
    pub(super) fn reconcile(&mut self, holdings: &Holdings, started: Duration, now: Duration) -> bool {
        let (spot_owned, future_owned) = self.owned();
        let contracts = holdings.contracts.get(&self.id.future_product).copied().unwrap_or_default();
        let base = self.spot.product.as_ref().map(|product| product.base_currency.clone()).unwrap_or_default();
        let balance = holdings.balances.get(&base).copied().unwrap_or_default();
        let future = self.id.future_product.clone();
        let difference = if contracts != future_owned {
            Some(format!("{future}: the exchange shows {contracts} contracts, the bot owns {future_owned}"))
        } else if balance < spot_owned {
            Some(format!("{base}: the exchange shows a balance of {balance}, the bot owns {spot_owned}"))
        } else {
            None
        };
        let Some(difference) = difference else {
            self.mismatch = None;
            (self.spot.deficit, self.future.deficit) = (Decimal::ZERO, Decimal::ZERO);
            self.reconciliation = Reconciliation::Matches;
            return false;
        };
        // What the venue does not show is not closed, from the first sight on.
        self.spot.deficit = (spot_owned - balance).max(Decimal::ZERO);
        self.future.deficit = deficit(future_owned, contracts);
        let unanswered = self.orders.live().any(|order| order.state == State::Unknown || order.order_id.is_none());
        let settled = !unanswered && started >= self.filled_at + FILL_SETTLES;
        let mismatch = self.mismatch.get_or_insert(Mismatch { since: now, settled: None });
        let repeated = settled && mismatch.settled.as_ref() == Some(&difference);
        let counts = repeated || now >= mismatch.since + MISMATCH_COUNTS;
        mismatch.settled = settled.then(|| difference.clone());
        if counts {
            self.reconciliation = Reconciliation::Differs(difference);
        }
        !counts
    }
}

/// What the venue shows less of the same sign.
fn deficit(owned: Decimal, shown: Decimal) -> Decimal {
    let same_sign = if (owned * shown).is_sign_positive() { shown.abs() } else { Decimal::ZERO };
    (owned.abs() - same_sign).max(Decimal::ZERO)
}
