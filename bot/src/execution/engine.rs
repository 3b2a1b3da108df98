//! The engine: everything that the bot knows of the exchange, and what it does next. No I/O: events in, commands out.
//!
//! After every event the engine looks at the control in force and acts on it ([`act`]). The gate itself is closed by
//! the control task, before the engine hears of it.

mod act;
mod event;
mod reconcile;
mod view;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arbbot_crds::status::{DrainStatus, EffectiveMode};
use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;

use crate::exchange::{ExchangeError, Holdings, Link, OrderState, Placed, Product, Touch, VenueEvent};
use crate::execution::drain::Drain;
use crate::execution::kill::Attempts;
use crate::execution::orders::{Order, Orders, State, parse_id};
use crate::execution::proof::Proof;
use crate::risk::exposure::Leg;
use crate::risk::gate::Contact;
use crate::risk::{Class, Exposure};
use reconcile::{CONFIRM_AFTER, Mismatch};

pub use event::{Command, ControlChange, Event, Identity, Now, Params, Snapshot};
pub use reconcile::Reconciliation;
pub use view::{DRAIN_TIMEOUT, View};

/// Why a connection is down before it was first opened.
pub const NOT_YET_CONNECTED: &str = "not yet connected";
/// Prices older than this do not count.
pub const TOUCH_FRESH: Duration = Duration::from_secs(10);
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

#[derive(Clone, Debug)]
struct LegState {
    product: Option<Product>,
    touch: Option<(Touch, Duration)>,
    /// The last mid price that was ever known: for what people read, and for the size of orders at market.
    last_mid: Option<Decimal>,
    attempts: Attempts,
    /// What the venue showed less than owned, at the last snapshot.
    deficit: Decimal,
    /// Not before this: the last placement was refused.
    not_before: Duration,
}

impl LegState {
    fn new() -> Self {
        Self {
            product: None,
            touch: None,
            last_mid: None,
            attempts: Attempts::default(),
            deficit: Decimal::ZERO,
            not_before: Duration::ZERO,
        }
    }

    fn touch(&self, now: Duration) -> Option<Touch> {
        self.touch.filter(|(_, at)| now.saturating_sub(*at) < TOUCH_FRESH).map(|(touch, _)| touch)
    }
}

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
    links: BTreeMap<Link, Option<String>>,
    owned_since: Option<Timestamp>,
    foreign_orders: u32,
    proof: Proof,
    reconciliation: Reconciliation,
    mismatch: Option<Mismatch>,
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
            links: [Link::Rest, Link::MarketWebSocket, Link::UserWebSocket].map(down).into(),
            owned_since,
            foreign_orders: 0,
            proof: Proof::default(),
            reconciliation: Reconciliation::Pending,
            mismatch: None,
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
        }
    }

    /// The engine, going on with the drain that an earlier process described in status.
    #[must_use]
    pub fn resuming(mut self, drain: Option<DrainStatus>) -> Self {
        self.drain_before = drain;
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

    fn seen(&mut self, seen: &OrderState, now: Now, commands: &mut Vec<Command>) {
        let filled_before = self.orders.get(&seen.client_order_id).map(|order| order.filled);
        if let Some(id) = self.orders.apply(seen) {
            self.changed(self.orders.get(&id).is_none_or(Order::holds_up_a_halt), now);
            if filled_before.is_some_and(|before| seen.filled > before) {
                self.filled_at = now.boot;
                if let Some(leg) = self.leg_mut(&seen.product) {
                    leg.attempts.filled();
                }
            }
            commands.push(Command::Record(id));
        } else if filled_before.is_none()
            && self.is_ours(&seen.client_order_id)
            && !self.orders.is_settled(&seen.client_order_id)
        {
            self.adopt(seen, now, commands);
        }
    }

    fn adopt(&mut self, seen: &OrderState, now: Now, commands: &mut Vec<Command>) {
        let Some(id) = parse_id(&seen.client_order_id) else { return };
        self.orders.adopt(seen, id.class, id.epoch, now.boot);
        self.next_sequence = self.next_sequence.max(id.sequence + 1);
        self.filled_at = now.boot;
        self.owned_since = match (self.owned_since, seen.created_at) {
            (Some(known), Some(created)) => Some(known.min(created)),
            (known, created) => known.or(created),
        };
        self.changed(true, now);
        // The user channel does not say how large it is; the listing does.
        self.next_snapshot = self.next_snapshot.min(now.boot + SNAPSHOT_SOON);
        commands.push(Command::Record(seen.client_order_id.clone()));
    }

    /// An order changed: what the exchange has proven may no longer hold.
    fn changed(&mut self, holds_up_a_halt: bool, now: Now) {
        self.proof.broken(holds_up_a_halt);
        self.changed_at = now.boot;
    }

    fn is_ours(&self, client_order_id: &str) -> bool {
        client_order_id.strip_prefix(&self.id.uid8).is_some_and(|rest| rest.starts_with('-'))
            && parse_id(client_order_id).is_some()
    }

    fn placed(&mut self, id: &str, result: Result<Placed, ExchangeError>, now: Now, commands: &mut Vec<Command>) {
        let Some(order) = self.orders.get_mut(id) else { return };
        let product = order.order.product.clone();
        match result {
            Ok(Placed::Accepted { order_id }) => {
                order.order_id = Some(order_id);
                if order.state == State::Intended {
                    order.state = State::Venue(crate::exchange::OrderStatus::Pending);
                }
                commands.push(Command::Record(id.to_owned()));
            }
            Ok(Placed::Rejected { reason, message }) => {
                self.refused(&product, format!("{reason}: {message}"), now);
                self.not_in_the_book(id, now);
                self.end(id, State::Rejected, commands);
            }
            Err(error) if error.proves_not_placed() => {
                self.refused(&product, error.to_string(), now);
                self.not_in_the_book(id, now);
                self.end(id, State::NotPlaced, commands);
            }
            Err(error) => {
                if !order.state.is_terminal() && order.order_id.is_none() {
                    order.state = State::Unknown;
                    order.token_expires = now.boot + crate::risk::gate::TOKEN_LIFE;
                }
                self.refused(&product, error.to_string(), now);
                self.next_snapshot = self.next_snapshot.min(now.boot);
                commands.push(Command::Record(id.to_owned()));
            }
        }
    }

    fn refused(&mut self, product: &str, why: String, now: Now) {
        if let Some(leg) = self.leg_mut(product) {
            leg.not_before = now.boot + PAUSE;
        }
        self.last_refusal = Some(why);
    }

    /// An order never reached the book: the next of its leg waits a moment, and a kill's does not widen for it.
    fn not_in_the_book(&mut self, id: &str, now: Now) {
        let Some(order) = self.orders.get(id) else { return };
        let (product, kill) = (order.order.product.clone(), order.class == Class::Kill);
        if let Some(leg) = self.leg_mut(&product) {
            leg.not_before = leg.not_before.max(now.boot + PAUSE);
            if kill {
                leg.attempts.not_in_the_book();
            }
        }
    }

    fn end(&mut self, id: &str, state: State, commands: &mut Vec<Command>) {
        if let Some(order) = self.orders.get_mut(id)
            && !order.state.is_terminal()
        {
            order.state = state;
            commands.push(Command::Record(id.to_owned()));
        }
    }

    fn snapshot(&mut self, result: Result<Snapshot, ExchangeError>, now: Now, commands: &mut Vec<Command>) {
        self.snapshot_asked = None;
        let snapshot = match result {
            Ok(snapshot) => snapshot,
            Err(ExchangeError::NoSession) => {
                self.next_snapshot = now.boot + SNAPSHOT_SOON;
                self.snapshot_not_before = self.next_snapshot;
                return;
            }
            Err(error @ ExchangeError::NoProduct { .. }) => {
                self.links.insert(Link::Rest, None);
                self.no_product = Some(error.to_string());
                self.next_snapshot = now.boot + SNAPSHOT_EVERY;
                self.snapshot_not_before = self.next_snapshot;
                return;
            }
            Err(error) => {
                self.links.insert(Link::Rest, Some(error.to_string()));
                self.next_snapshot = now.boot + SNAPSHOT_RETRY;
                self.snapshot_not_before = self.next_snapshot;
                return;
            }
        };
        self.links.insert(Link::Rest, None);
        self.no_product = None;
        for seen in &snapshot.orders {
            self.seen(seen, now, commands);
        }
        for id in self.orders.absent_from(&snapshot.orders, snapshot.started.boot) {
            commands.push(Command::Record(id));
        }
        self.foreign_orders = self.count_foreign(&snapshot.orders);
        self.spot.product = Some(snapshot.spot);
        if snapshot.future.future.as_ref().is_some_and(|details| !details.session_open) {
            self.session_closed_at = Some(now.boot);
        }
        self.future.product = Some(snapshot.future);
        let confirming = self.reconcile(&snapshot.holdings, snapshot.started.boot, now.boot);
        self.holdings = Some(snapshot.holdings);
        let holds_up = |id: &str| self.orders.get(id).is_none_or(Order::holds_up_a_halt);
        let shown_working = snapshot.orders.iter().any(|order| {
            !order.status.is_terminal() && self.is_ours(&order.client_order_id) && holds_up(&order.client_order_id)
        });
        let orders_gone = !shown_working && !self.orders.live().any(Order::holds_up_a_halt);
        let flat = self.is_flat(now) && self.orders.live().next().is_none();
        self.proof.snapshot(snapshot.started.boot, snapshot.started.wall, orders_gone, flat);
        self.snapshots += 1;
        self.orders.settle(now.boot);
        self.next_snapshot = now.boot + if confirming { CONFIRM_AFTER } else { SNAPSHOT_EVERY };
    }

    fn count_foreign(&self, orders: &[OrderState]) -> u32 {
        let foreign: BTreeSet<_> = orders
            .iter()
            .filter(|order| !order.status.is_terminal() && self.orders.get(&order.client_order_id).is_none())
            .map(|order| &order.order_id)
            .collect();
        u32::try_from(foreign.len()).unwrap_or(u32::MAX)
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
                product,
            })
        };
        Some(Exposure {
            spot: leg(&self.spot)?,
            future: leg(&self.future)?,
            open_orders: u32::try_from(self.orders.live().count()).unwrap_or(u32::MAX),
            orders_last_minute: self.orders.minted_since(now.boot.saturating_sub(Duration::from_secs(60))),
            futures_collateral_quote: self.holdings.as_ref().map_or(Decimal::ZERO, |h| h.futures_collateral_quote),
        })
    }
}
