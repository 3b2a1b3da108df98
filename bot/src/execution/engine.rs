//! The engine: everything that the bot knows of the exchange, and what it does next. No I/O: events in, commands out.
//!
//! After every event the engine looks at the control in force and acts on it ([`act`]). The gate itself is closed by
//! the control task, before the engine hears of it.

mod act;
mod carry;
mod event;
mod figures;
mod in_force;
mod leg;
mod order;
mod reconcile;
mod snapshot;
mod spending;
mod start;
mod view;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use arbbot_crds::status::{DrainStatus, EffectiveMode};
use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;

use crate::exchange::{Holdings, Link, Touch, VenueEvent};
use crate::execution::drain::Drain;
use crate::execution::orders::{Order, Orders, State};
use crate::execution::proof::Proof;
use crate::risk::Exposure;
use crate::risk::exposure::Leg;
use crate::risk::gate::Contact;
use carry::Carry;
use leg::LegState;
use reconcile::{Mismatch, Strangers, Unowned};
use spending::Spending;

pub use carry::CarryView;
pub use event::{Command, ControlChange, Event, Identity, Now, Params, Snapshot};
pub use in_force::InForce;
pub use reconcile::{ACCOUNT, Reconciliation};
pub use start::Start;
pub use view::{DRAIN_TIMEOUT, LimitExceeded, Remaining, View};

/// Why a connection is down before it was first opened.
pub const NOT_YET_CONNECTED: &str = "not yet connected";
/// Prices older than this do not count.
pub const TOUCH_FRESH: Duration = Duration::from_secs(10);
/// An index older than this does not count: it comes with the snapshots, and may be of the one before.
const INDEX_FRESH: Duration = Duration::from_secs(30);
/// A full snapshot at least this often.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(10);
/// A full snapshot this often while something is to be proven or an order is without an answer.
const SNAPSHOT_SOON: Duration = Duration::from_millis(700);
/// Least time between the beginnings of two snapshots.
const SNAPSHOT_PAUSE: Duration = Duration::from_millis(20);
/// Pause of a leg after an order of it was refused.
const PAUSE: Duration = Duration::from_millis(500);
/// Pause after a snapshot that failed.
const SNAPSHOT_RETRY: Duration = Duration::from_secs(1);

/// The engine.
#[derive(Debug)]
pub struct Engine {
    id: Identity,
    params: Params,
    generation: Option<i64>,
    incidents: u64,
    releases: u64,
    /// Mode that was last acted on.
    mode: Option<EffectiveMode>,
    epoch: Option<i64>,
    next_sequence: u64,
    orders: Orders,
    spot: LegState,
    future: LegState,
    holdings: Option<Holdings>,
    /// Futures collateral at the snapshot before the last, in quote currency.
    collateral_before: Decimal,
    spending: Spending,
    /// Price of the underlying by the venue's index, and when it was read.
    index: Option<(Decimal, Duration)>,
    links: BTreeMap<Link, Option<String>>,
    owned_since: Option<Timestamp>,
    strangers: Strangers,
    proof: Proof,
    reconciliation: Reconciliation,
    mismatch: Option<Mismatch>,
    unowned: Unowned,
    /// When what the bot owns last changed.
    filled_at: Duration,
    snapshot_asked: Option<Duration>,
    next_snapshot: Duration,
    snapshot_last: Duration,
    snapshot_not_before: Duration,
    snapshots: u64,
    /// When an order last changed.
    changed_at: Duration,
    /// Since when entry is halted, and since when the position is to be flattened.
    halted_since: Option<Duration>,
    flatten_since: Option<Duration>,
    kill_began: Option<Timestamp>,
    /// When the futures session was last seen closed: no deadline runs meanwhile.
    session_closed_at: Option<Duration>,
    drain: Option<Drain>,
    /// The drain that an earlier process left under way.
    drain_before: Option<DrainStatus>,
    /// Since when one leg is behind the other.
    behind_since: Option<Duration>,
    last_refusal: Option<String>,
    /// The exchange does not know a product of this bot.
    no_product: Option<String>,
    carry: Carry,
}

impl Engine {
    /// An engine that knows the orders of its ledger and nothing of the venue yet.
    #[must_use]
    pub fn new(id: Identity, params: Params, orders: Orders, owned_since: Option<Timestamp>) -> Self {
        let next_sequence = orders.highest_sequence() + 1;
        let down = |link| (link, Some(NOT_YET_CONNECTED.to_owned()));
        Self {
            id,
            params,
            generation: None,
            incidents: 0,
            releases: 0,
            mode: None,
            epoch: None,
            next_sequence,
            orders,
            spot: LegState::new(),
            future: LegState::new(),
            holdings: None,
            collateral_before: Decimal::ZERO,
            spending: Spending::default(),
            index: None,
            links: [Link::Rest, Link::MarketWebSocket, Link::UserWebSocket].map(down).into(),
            owned_since,
            strangers: Strangers::default(),
            proof: Proof::default(),
            reconciliation: Reconciliation::Pending,
            mismatch: None,
            unowned: Unowned::default(),
            filled_at: Duration::ZERO,
            snapshot_asked: None,
            next_snapshot: Duration::ZERO,
            snapshot_last: Duration::ZERO,
            snapshot_not_before: Duration::ZERO,
            snapshots: 0,
            changed_at: Duration::ZERO,
            halted_since: None,
            flatten_since: None,
            kill_began: None,
            session_closed_at: None,
            drain: None,
            drain_before: None,
            behind_since: None,
            last_refusal: None,
            no_product: None,
            carry: Carry::default(),
        }
    }

    /// The engine, going on with the drain that an earlier process described in status.
    #[must_use]
    pub fn resuming(mut self, drain: Option<DrainStatus>) -> Self {
        self.drain_before = drain;
        self
    }

    /// Fresh best prices of a product.
    #[must_use]
    pub fn touch(&self, product: &str, now: Now) -> Option<Touch> {
        let leg = if product == self.id.spot_product { &self.spot } else { &self.future };
        leg.touch(now.boot)
    }

    /// The engine, knowing the funding rates of the hours that its ledger remembers.
    #[must_use]
    pub fn remembering(mut self, rates: impl IntoIterator<Item = (Timestamp, Decimal)>) -> Self {
        self.carry.remember(rates);
        self
    }

    /// The engine, with a position that was opened then; None: it has none.
    #[must_use]
    pub fn holding_since(mut self, entered_at: Option<Timestamp>) -> Self {
        self.carry.holding_since(entered_at);
        self
    }

    /// An order of the bot, for the ledger.
    #[must_use]
    pub fn order(&self, client_order_id: &str) -> Option<&Order> {
        self.orders.get(client_order_id)
    }

    fn apply(&mut self, event: Event, now: Now, commands: &mut Vec<Command>) {
        match event {
            Event::Tick => {}
            Event::Control(change) => self.control(change, now),
            Event::Lease { epoch } => self.epoch = Some(epoch),
            Event::Venue(VenueEvent::Touch { product, touch }) => {
                if let Some(leg) = self.leg_mut(&product) {
                    leg.touch = touch.map(|touch| (touch, now.boot));
                    leg.last_mid = touch.map(|touch| touch.mid()).or(leg.last_mid);
                }
            }
            Event::Venue(VenueEvent::Link { link, down }) => {
                if link == Link::UserWebSocket && down.is_none() && self.snapshots > 0 {
                    // What happened to orders while nobody told of it is in the listing.
                    self.next_snapshot = now.boot;
                }
                self.links.insert(link, down);
            }
            Event::Venue(VenueEvent::Order(seen)) | Event::Order(Ok(seen)) => self.seen(&seen, now, commands),
            Event::Order(Err(_)) => self.next_snapshot = self.next_snapshot.min(now.boot + SNAPSHOT_SOON),
            Event::Placed { client_order_id, result } => self.placed(&client_order_id, result, now, commands),
            Event::NotSent { client_order_id } => {
                self.not_in_the_book(&client_order_id, now);
                self.end(&client_order_id, State::NotPlaced, commands);
            }
            Event::Fees(result) => self.carry.fees(result, now.boot),
            Event::Snapshot(result) => self.snapshot(*result, now, commands),
        }
    }

    fn control(&mut self, change: ControlChange, now: Now) {
        if change.incidents != self.incidents {
            self.proof.restart(now.boot);
            self.next_snapshot = now.boot;
        }
        if change.releases != self.releases {
            self.reconciliation = Reconciliation::Pending;
            self.next_snapshot = now.boot;
        }
        self.releases = change.releases;
        self.kill_began = change.kill_began;
        self.generation = change.generation;
        self.params = change.params;
        self.incidents = change.incidents;
        let (before, under_way) = (self.drain_before.take(), self.drain.take());
        self.drain = change.drain.map(|demand| match (under_way, before) {
            (Some(drain), _) => drain.demanded(demand),
            (None, before) => {
                self.proof.restart(now.boot);
                self.next_snapshot = now.boot;
                match before {
                    Some(before) => Drain::resumed(demand, &before, self.params.drain.timeout, now.wall),
                    None => Drain::begin(demand, now.wall),
                }
            }
        });
    }

    /// Lets the drain's time run while orders could be sent, and stand still otherwise.
    fn count_drain(&mut self, contact: Contact, now: Now) {
        let session_open = self.future.product.is_some() && self.session_closed().is_none();
        let can_send = self.epoch.is_some() && contact < Contact::Stale && session_open;
        let finished = self.proof.flat.confirmed;
        if let Some(drain) = &mut self.drain {
            let counts = can_send && !finished && drain.demand.halted_by.is_none();
            drain.count(counts, now.boot, now.wall);
        }
    }

    fn owned(&self) -> (Decimal, Decimal) {
        (self.orders.owned(&self.id.spot_product), self.orders.owned(&self.id.future_product))
    }

    fn leg_mut(&mut self, product: &str) -> Option<&mut LegState> {
        if product == self.id.spot_product {
            Some(&mut self.spot)
        } else if product == self.id.future_product {
            Some(&mut self.future)
        } else {
            None
        }
    }

    /// Both legs with everything that may still fill; None until the products are known.
    fn exposure(&self, now: Now) -> Option<Exposure> {
        let leg = |state: &LegState| {
            let product = state.product.clone()?;
            Some(Leg {
                owned: self.orders.owned(&product.id),
                deficit: state.deficit,
                buys: self.orders.outstanding(&product.id, crate::exchange::Side::Buy),
                sells: self.orders.outstanding(&product.id, crate::exchange::Side::Sell),
                mid: state.touch(now.boot).map(|touch| touch.mid()),
                index: self.index.filter(|(_, at)| now.boot < *at + INDEX_FRESH).map(|(index, _)| index),
                product,
            })
        };
        let spot = leg(&self.spot)?;
        Some(Exposure {
            spot_cost_quote: self.spot_cost_quote(&spot.product),
            spot,
            future: leg(&self.future)?,
            open_orders: u32::try_from(self.orders.live().count()).unwrap_or(u32::MAX),
            orders_last_minute: self.orders.minted_since(now.boot.saturating_sub(Duration::from_secs(60))),
            futures_collateral_quote: self.holdings.as_ref().map_or(Decimal::ZERO, |h| h.futures_collateral_quote),
        })
    }
}
