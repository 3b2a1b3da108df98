//! Whether the exchange shows what the bot owns, and whether another bot trades on the account.

use std::collections::BTreeSet;
use std::time::Duration;

use arbbot_crds::control::{Entry, Restriction};
use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;

use super::Engine;
use crate::exchange::{Holdings, OrderState};
use crate::execution::grid::smallest;
use crate::execution::orders::{State, of_a_bot};

/// A fill shows in orders and holdings within this time.
pub(super) const FILL_SETTLES: Duration = Duration::from_secs(2);
/// A difference that has not yet been confirmed is looked at again after this long.
pub(super) const CONFIRM_AFTER: Duration = Duration::from_secs(3);
/// A difference that every snapshot shows for this long counts, whatever fills meanwhile.
const MISMATCH_COUNTS: Duration = Duration::from_secs(30);
/// How long nothing may happen to any order before what the exchange shows beyond the bot's own is taken for somebody
/// else's: a fill may show in the balance before it shows in the order.
const QUIET: Duration = Duration::from_secs(10);
/// An order of another bot halts for this long after it was last seen to trade: two bots that cancel because of each
/// other shall not begin again at once.
const ANOTHER_BOT_HALTS: Duration = Duration::from_secs(600);

/// Orders on the account that are not this bot's.
#[derive(Clone, Debug, Default)]
pub(super) struct Strangers {
    /// How many of them work.
    pub(super) working: u32,
    /// Wall clock at the first listing: what another bot did before may be a predecessor's.
    since: Option<Timestamp>,
    /// Orders of another bot that were filled, and are known.
    filled: usize,
    /// Id of an order of another bot, and until when it halts whatever the next listing shows.
    another_bot: Option<(String, Duration)>,
}

/// Base currency on the account that the bot does not own.
#[derive(Clone, Debug, Default)]
pub(super) struct Unowned {
    /// What was there when the bot began, or what has been left of it since.
    base: Option<Decimal>,
    /// What the last snapshots showed while no order changed, and since when.
    quiet: Option<(Decimal, Duration)>,
}

impl Unowned {
    /// Takes what a snapshot shows: what stays for a while is there, but never more than was there before.
    fn observe(&mut self, shown: Decimal, is_quiet: bool, now: Duration) {
        let before = self.quiet.filter(|(before, _)| is_quiet && *before == shown);
        self.quiet = is_quiet.then(|| before.unwrap_or((shown, now)));
        if before.is_some_and(|(_, since)| now >= since + QUIET) {
            self.base = Some(self.base.map_or(shown, |base| base.min(shown)));
        }
    }

    /// How much more than was there before.
    fn excess(&self, shown: Decimal) -> Decimal {
        self.base.map_or(Decimal::ZERO, |base| (shown - base).max(Decimal::ZERO))
    }
}

/// Source of the restriction that an order of another bot puts in force.
pub const ACCOUNT: &str = "account";

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
        let unanswered = self.orders.live().any(|order| order.state == State::Unknown || order.order_id.is_none());
        let settled = !unanswered && started >= self.filled_at + FILL_SETTLES;
        let beyond = balance - spot_owned;
        let is_quiet = settled && started >= self.changed_at + QUIET;
        self.unowned.observe(beyond.max(Decimal::ZERO), is_quiet, now);
        let excess = self.unowned.excess(beyond);
        let difference = if contracts != future_owned {
            Some(format!("{future}: the exchange shows {contracts} contracts, the bot owns {future_owned}"))
        } else if balance < spot_owned {
            Some(format!("{base}: the exchange shows a balance of {balance}, the bot owns {spot_owned}"))
        } else if excess >= self.smallest_spot() {
            Some(format!(
                "{base}: the exchange shows a balance of {balance}, of which the bot owns {spot_owned} and {} was there \
                 when it began; what somebody else keeps there counts as theirs from the bot's next start on",
                beyond - excess
            ))
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
        let mismatch = self.mismatch.get_or_insert(Mismatch { since: now, settled: None });
        let repeated = settled && mismatch.settled.as_ref() == Some(&difference);
        let counts = repeated || now >= mismatch.since + MISMATCH_COUNTS;
        mismatch.settled = settled.then(|| difference.clone());
        if counts {
            self.reconciliation = Reconciliation::Differs(difference);
        }
        !counts
    }

    /// The smallest amount of spot that anybody can trade: less is no sign of a trade.
    fn smallest_spot(&self) -> Decimal {
        let smallest = |product| smallest(product, self.spot.last_mid.unwrap_or_default());
        self.spot.product.as_deref().map_or(Decimal::ZERO, smallest)
    }

    /// Takes the orders of a listing that are not this bot's.
    pub(super) fn meet_strangers(&mut self, orders: &[OrderState], started: Timestamp, now: Duration) {
        let since = *self.strangers.since.get_or_insert(started);
        let strangers = orders.iter().filter(|order| self.orders.get(&order.client_order_id).is_none());
        let working = strangers.clone().filter(|order| !order.status.is_terminal());
        let ids: BTreeSet<_> = working.clone().map(|order| &order.order_id).collect();
        let of_another =
            |order: &&OrderState| of_a_bot(&order.client_order_id) && !self.is_ours(&order.client_order_id);
        let is_new = |order: &OrderState| order.created_at.is_none_or(|at| at > since);
        let has_traded = |order: &&OrderState| !order.filled.is_zero() && order.created_at.is_some() && is_new(order);
        let filled: Vec<_> = strangers.filter(of_another).filter(has_traded).collect();
        let traded = filled.last().filter(|_| filled.len() > self.strangers.filled).copied();
        // What a predecessor has left halts only as long as it works.
        let until = |order: &OrderState| if is_new(order) { now + ANOTHER_BOT_HALTS } else { now };
        let seen = working.filter(of_another).chain(traded).map(|order| (order.client_order_id.clone(), until(order)));
        let before = self.strangers.another_bot.clone().filter(|(_, until)| now < *until);
        let another_bot = seen.chain(before).max_by_key(|(_, until)| *until);
        let working = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        self.strangers = Strangers { working, since: Some(since), filled: filled.len(), another_bot };
    }

    /// One account and product, one bot (SAFETY §4): another one's order halts this one.
    pub(super) fn shared(&self) -> Option<Restriction> {
        let (id, _) = self.strangers.another_bot.as_ref()?;
        let minutes = ANOTHER_BOT_HALTS.as_secs() / 60;
        let why = format!(
            "another bot trades the same products on this account (order {id}): stop one of the two; this one goes on \
             {minutes} minutes after the other's last order"
        );
        Some(Restriction::entry(ACCOUNT, Entry::Halted, why))
    }
}

/// What the venue shows less of the same sign.
fn deficit(owned: Decimal, shown: Decimal) -> Decimal {
    let same_sign = if (owned * shown).is_sign_positive() { shown.abs() } else { Decimal::ZERO };
    (owned.abs() - same_sign).max(Decimal::ZERO)
}
