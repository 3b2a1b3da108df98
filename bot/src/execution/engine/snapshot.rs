//! What the engine makes of a full listing of orders, holdings and products.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;

use crate::exchange::{ExchangeError, Link};
use crate::execution::orders::{Order, wall};

use super::reconcile::CONFIRM_AFTER;
use super::{Command, Engine, Now, SNAPSHOT_EVERY, SNAPSHOT_RETRY, SNAPSHOT_SOON, Snapshot};

impl Engine {
    pub(super) fn snapshot(&mut self, result: Result<Snapshot, ExchangeError>, now: Now, commands: &mut Vec<Command>) {
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
        self.meet_strangers(&snapshot.orders, snapshot.started.wall, now.boot);
        self.spot.product = Some(Arc::new(snapshot.spot));
        if snapshot.future.future.as_ref().is_some_and(|details| !details.session_open) {
            self.session_closed_at = Some(now.boot);
        }
        self.carry.observe(&snapshot.future, now.boot, commands);
        let index = snapshot.future.future.as_ref().and_then(|details| details.index);
        self.index = index.map(|index| (index, snapshot.started.boot));
        self.future.product = Some(Arc::new(snapshot.future));
        let confirming = self.reconcile(&snapshot.holdings, snapshot.started.boot, now.boot);
        self.spending.collateral_read(snapshot.started.boot);
        let before = self.holdings.replace(snapshot.holdings);
        let known = before.as_ref().or(self.holdings.as_ref());
        self.collateral_before = known.map_or(Decimal::ZERO, |holdings| holdings.futures_collateral_quote);
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

    /// The first listing reaches back to the first order; later ones to the oldest order that may still change.
    pub(super) fn list_since(&self, now: Now) -> Option<Timestamp> {
        if self.snapshots == 0 {
            // The venue's clock may be behind this one.
            return self.owned_since.and_then(|since| since.checked_sub(Duration::from_secs(3600)).ok());
        }
        let margin = Duration::from_secs(600);
        let oldest = self.orders.oldest_live().unwrap_or(now.boot).saturating_sub(margin);
        Some(wall(oldest, now.boot, now.wall))
    }
}
