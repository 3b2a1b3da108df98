//! What the engine makes of the news of an order: answers to a placement, and what the exchange shows of it.

use crate::exchange::{ExchangeError, OrderKind, OrderState, OrderStatus, Placed};
use crate::execution::orders::{Order, State, parse_id};
use crate::risk::Class;

use super::{Command, Engine, Now, PAUSE, SNAPSHOT_SOON};

/// Whether an order is an attempt to lower its leg at once: one that fills nothing widens the next.
pub(super) fn is_attempt(class: Class, kind: &OrderKind) -> bool {
    !class.raises() && !matches!(kind, OrderKind::PostOnly { .. })
}

impl Engine {
    pub(super) fn seen(&mut self, seen: &OrderState, now: Now, commands: &mut Vec<Command>) {
        let filled_before = self.orders.get(&seen.client_order_id).map(|order| order.filled);
        if let Some(id) = self.apply_seen(seen, now.boot) {
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

    pub(super) fn adopt(&mut self, seen: &OrderState, now: Now, commands: &mut Vec<Command>) {
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
    pub(super) fn changed(&mut self, holds_up_a_halt: bool, now: Now) {
        self.proof.broken(holds_up_a_halt);
        self.changed_at = now.boot;
    }

    pub(super) fn is_ours(&self, client_order_id: &str) -> bool {
        client_order_id.strip_prefix(&self.id.uid8).is_some_and(|rest| rest.starts_with('-'))
            && parse_id(client_order_id).is_some()
    }

    pub(super) fn placed(
        &mut self,
        id: &str,
        result: Result<Placed, ExchangeError>,
        now: Now,
        commands: &mut Vec<Command>,
    ) {
        let Some(order) = self.orders.get_mut(id) else { return };
        let product = order.order.product.clone();
        match result {
            Ok(Placed::Accepted { order_id }) => {
                order.order_id = Some(order_id);
                if order.state == State::Intended {
                    order.state = State::Venue(OrderStatus::Pending);
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

    pub(super) fn refused(&mut self, product: &str, why: String, now: Now) {
        if let Some(leg) = self.leg_mut(product) {
            leg.not_before = now.boot + PAUSE;
        }
        self.last_refusal = Some(why);
    }

    /// An order never reached the book: the next of its leg waits a moment, and does not widen for it.
    pub(super) fn not_in_the_book(&mut self, id: &str, now: Now) {
        let Some(order) = self.orders.get(id) else { return };
        let (product, was_attempt) = (order.order.product.clone(), is_attempt(order.class, &order.order.kind));
        if let Some(leg) = self.leg_mut(&product) {
            leg.not_before = leg.not_before.max(now.boot + PAUSE);
            if was_attempt {
                leg.attempts.not_in_the_book();
            }
        }
    }

    pub(super) fn end(&mut self, id: &str, state: State, commands: &mut Vec<Command>) {
        if let Some(order) = self.orders.get_mut(id)
            && !order.state.is_terminal()
        {
            order.state = state;
            commands.push(Command::Record(id.to_owned()));
        }
    }
}
