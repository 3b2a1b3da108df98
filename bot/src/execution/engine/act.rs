//! What the engine does under the control in force: which orders go, which are placed, and when to look again.

use std::time::Duration;

use arbbot_crds::control::{Control, Duty, Entry};
use k8s_openapi::jiff::SignedDuration;
use rust_decimal::Decimal;

use super::order::is_attempt;
use super::{Command, Engine, Event, InForce, LegState, Now, SNAPSHOT_PAUSE, SNAPSHOT_SOON};
use crate::exchange::OrderKind;
use crate::execution::grid::{joining_price, taking_price};
use crate::execution::kill::{KillLeg, STUCK_AFTER, Terms, close_future, close_spot};
use crate::execution::ladder::{Ladder, taking};
use crate::execution::orders::{Order, State, mint_id};
use crate::execution::repair::{Wanted, trim};
use crate::risk::exposure::Leg;
use crate::risk::gate::Contact;
use crate::risk::{Class, Exposure, admit, limits::still_fits};
use crate::strategy::funding_carry::edge::Stance;
use crate::strategy::funding_carry::{LegName, Market, Quote, decide, drain, still_good};

/// Pause of a leg after an order of it that takes.
const TAKE_AGAIN: Duration = Duration::from_millis(250);
/// An exit that rests keeps its place while it is at most this much larger than wanted.
const SIZE_TOLERANCE: Decimal = rust_decimal::dec!(1.05);

/// How long the exchange has to end an order whose time is over before its cancel is asked for.
const EXPIRY_GRACE: SignedDuration = SignedDuration::from_secs(2);

/// What placing an order needs to know of the moment, and where the commands go.
struct Turn<'a> {
    exposure: &'a Exposure,
    control: &'a Control,
    contact: Contact,
    now: Now,
    commands: &'a mut Vec<Command>,
}

impl Engine {
    /// Takes an event, tells the gate what the state of the exchange forbids, and returns what is to be done under
    /// the control that is then in force.
    pub fn handle(&mut self, event: Event, gate: &impl InForce, now: Now) -> Vec<Command> {
        let mut commands = Vec::new();
        self.apply(event, now, &mut commands);
        let (control, contact) = gate.current();
        self.count_drain(contact, now);
        gate.restrict(self.restrictions(&control, now));
        let (control, contact) = gate.current();
        self.act(&control, contact, now, &mut commands);
        commands
    }

    fn act(&mut self, control: &Control, contact: Contact, now: Now, commands: &mut Vec<Command>) {
        self.note_control(control, now);
        let exposure = self.exposure(now);
        self.judge_carry(exposure.as_ref(), control, now, commands);
        self.cancel_what_must_go(exposure.as_ref(), control, contact, now, commands);
        if let Some(exposure) = exposure.as_ref().filter(|_| contact < Contact::Lost && self.epoch.is_some()) {
            self.place_what_is_wanted(&mut Turn { exposure, control, contact, now, commands });
        }
        self.look_again(control, now, commands);
    }

    fn note_control(&mut self, control: &Control, now: Now) {
        let halted = control.entry == Entry::Halted;
        let flatten = control.duty == Duty::Flatten;
        let begins = flatten && self.flatten_since.is_none();
        if (halted && self.halted_since.is_none()) || begins {
            self.proof.restart(now.boot);
            self.next_snapshot = now.boot;
        }
        self.mode = Some(control.mode());
        self.halted_since = halted.then(|| self.halted_since.unwrap_or(now.boot));
        let finished = flatten && self.proof.flat.confirmed;
        if begins || finished {
            self.spot.attempts = Default::default();
            self.future.attempts = Default::default();
            self.flatten_since = Some(now.boot);
        }
        if finished {
            // What a late fill opens again has its whole deadline from then on.
            self.kill_began = None;
        }
        self.flatten_since = self.flatten_since.filter(|_| flatten);
    }

    fn cancel_what_must_go(
        &mut self,
        exposure: Option<&Exposure>,
        control: &Control,
        contact: Contact,
        now: Now,
        commands: &mut Vec<Command>,
    ) {
        let limits = &control.limits;
        let fits = |product: &str| exposure.is_none_or(|exposure| still_fits(product, exposure, limits));
        let fits = [&self.id.spot_product, &self.id.future_product].map(|product| (product.clone(), fits(product)));
        let no_longer_fits =
            |order: &Order| fits.iter().any(|(product, fits)| !fits && *product == order.order.product);
        let max_order_notional = control.limits.max_order_notional.0;
        let max_open_orders = usize::try_from(control.limits.max_open_orders).unwrap_or(usize::MAX);
        let too_many = self.orders.live().count() > max_open_orders;
        let units = [&self.spot, &self.future].map(|leg| leg.product.as_ref().map(|p| (p.id.clone(), p.unit_base)));
        let too_large = |order: &Order| {
            let unit = units.iter().flatten().find(|(id, _)| *id == order.order.product).map(|(_, unit)| *unit);
            match (unit, order.order.limit_price()) {
                (Some(unit), Some(price)) => order.remaining() * unit * price > max_order_notional,
                _ => false,
            }
        };
        // The exchange ends them itself, unless it does not know such orders.
        let expired = |order: &Order| match order.order.kind {
            OrderKind::PostOnly { expires_at, .. } => now.wall.duration_since(expires_at) > EXPIRY_GRACE,
            _ => false,
        };
        let must_go = |order: &Order| {
            expired(order)
                || contact >= Contact::Stale
                || control.entry == Entry::Halted
                || (order.class.raises() && (control.entry > Entry::Active || contact > Contact::Fresh))
                || (order.class.raises() && (too_many || too_large(order) || no_longer_fits(order)))
        };
        let ids = self.orders.take_cancels(now.boot, must_go);
        if !ids.is_empty() {
            commands.push(Command::Cancel(ids));
        }
    }

    fn place_what_is_wanted(&mut self, turn: &mut Turn<'_>) {
        let (control, contact) = (turn.control, turn.contact);
        if control.duty == Duty::Flatten {
            self.flatten(turn);
        } else if control.entry == Entry::Halted || contact >= Contact::Stale {
            self.repair(turn);
        } else {
            // Where nothing may raise a leg, exits go on and an imbalance is repaired.
            let raise = control.entry == Entry::Active && contact == Contact::Fresh;
            if !self.trade(raise, turn) && !raise {
                self.repair(turn);
            }
        }
    }

    fn flatten(&mut self, turn: &mut Turn<'_>) {
        let Turn { exposure, control, now, .. } = *turn;
        let terms = Terms {
            slippage_bps: self.params.kill_slippage_bps,
            max_order_notional: control.limits.max_order_notional.0,
            since: self.kill_age(now),
            here: self.flattening_for(now),
            deadline: self.params.kill_deadline,
        };
        let future = self.kill_leg(&exposure.future, &self.future, now);
        let spot = self.kill_leg(&exposure.spot, &self.spot, now);
        let wanted = [close_future(future, terms, now.boot), close_spot(spot, &exposure.future, terms, now.boot)];
        for wanted in wanted.into_iter().flatten() {
            self.place(wanted, Class::Kill, turn);
        }
    }

    fn kill_leg<'a>(&self, leg: &'a Leg, state: &LegState, now: Now) -> KillLeg<'a> {
        KillLeg {
            leg,
            touch: state.touch(now.boot),
            last_mid: state.last_mid,
            busy: self.busy(&leg.product.id, now) || now.boot < state.not_before,
            attempts: state.attempts,
        }
    }

    /// Time since a kill began to close the position, as far as the exchange could be traded on since.
    fn kill_age(&self, now: Now) -> Duration {
        let here = self.flattening_for(now);
        let began = self.kill_began.and_then(|at| Duration::try_from(now.wall.duration_since(at)).ok());
        self.while_open(began.map_or(here, |began| began.max(here)), now)
    }

    /// The same of this process alone.
    fn flattening_for(&self, now: Now) -> Duration {
        let here = self.flatten_since.map_or(Duration::ZERO, |since| now.boot.saturating_sub(since));
        self.while_open(here, now)
    }

    fn while_open(&self, age: Duration, now: Now) -> Duration {
        self.session_closed_at.map_or(age, |closed| age.min(now.boot.saturating_sub(closed)))
    }

    /// Whether an order of the product is on its way and not yet stuck.
    fn busy(&self, product: &str, now: Now) -> bool {
        self.orders
            .live()
            .any(|order| order.order.product == product && now.boot < self.counted_from(order) + STUCK_AFTER)
    }

    /// From when an order's being stuck counts: not before the kill began.
    fn counted_from(&self, order: &Order) -> Duration {
        order.minted_at.max(self.flatten_since.or(self.halted_since).unwrap_or_default())
    }

    /// How far from the mid price what lowers a leg may take now: a limit bounds its first attempt alone.
    fn exit_bps(&self, leg: &LegState, control: &Control, now: Now) -> Decimal {
        let (first_bps, step_bps) = (control.limits.max_slippage_bps.0, self.params.kill_slippage_bps);
        Ladder { first_bps, step_bps }.bound_bps(leg.attempts, now.boot)
    }

    fn repair(&mut self, turn: &mut Turn<'_>) {
        let Turn { exposure, control, now, .. } = *turn;
        let too_late = self.halted_since.is_some_and(|since| now.boot >= since + self.params.leg_timeout);
        let busy = self.busy(&exposure.spot.product.id, now) || self.busy(&exposure.future.product.id, now);
        let waiting = now.boot < self.spot.not_before.max(self.future.not_before);
        if too_late || busy || waiting {
            return;
        }
        let limits = &control.limits;
        let touches = (self.spot.touch(now.boot), self.future.touch(now.boot));
        let wanted = trim(
            &exposure.spot,
            &exposure.future,
            touches,
            limits.max_delta_notional.0,
            limits.max_order_notional.0,
            (self.exit_bps(&self.spot, control, now), self.exit_bps(&self.future, control, now)),
        );
        let session_closed = self.session_closed().is_some();
        let can_trade = |wanted: &Wanted| !(session_closed && wanted.product == exposure.future.product.id);
        if let Some(wanted) = wanted.filter(can_trade) {
            self.place(wanted, Class::Trim, turn);
        }
    }

    /// Follows the strategy; without `raise` only its exits. Returns whether it wants anything.
    fn trade(&mut self, raise: bool, turn: &mut Turn<'_>) -> bool {
        let Turn { exposure, control, now, .. } = *turn;
        let Some(market) = self.market(exposure, control, now) else { return false };
        let stance = self.carry.stance();
        let closes = control.duty == Duty::Drain || stance == Stance::Exit;
        let mut quotes = if closes { drain(&market) } else { decide(&market) };
        // While the strategy waits it begins nothing; what has begun is completed.
        quotes.retain(|quote| {
            (raise || !quote.class.raises()) && (stance == Stance::Enter || quote.class != Class::Enter)
        });
        let behind = quotes.iter().any(Quote::is_behind);
        self.behind_since = behind.then(|| self.behind_since.unwrap_or(now.boot));
        let take = self.behind_since.is_some_and(|since| now.boot >= since + self.params.leg_timeout);
        self.cancel_what_is_no_longer_wanted(&market, &quotes, take, now, turn.commands);
        let wants = !quotes.is_empty();
        for quote in quotes {
            let product = self.product_of(quote.leg, exposure);
            let occupied = self.orders.live().any(|order| order.order.product == product);
            let not_before = match quote.leg {
                LegName::Spot => self.spot.not_before,
                LegName::Future => self.future.not_before,
            };
            if occupied || now.boot < not_before {
                continue;
            }
            let take = take && quote.is_behind();
            let wanted = self.wanted(&market, quote, take, control, now);
            let placed = self.place(wanted, quote.class, turn);
            if !placed && take {
                // The limits do not let the smaller leg be completed: the larger one is trimmed instead.
                self.repair(turn);
            }
            if placed {
                // The exposure that the next quote is measured against has changed.
                break;
            }
        }
        wants
    }

    fn product_of(&self, leg: LegName, exposure: &Exposure) -> String {
        match leg {
            LegName::Spot => exposure.spot.product.id.clone(),
            LegName::Future => exposure.future.product.id.clone(),
        }
    }

    fn wanted(&self, market: &Market<'_>, quote: Quote, take: bool, control: &Control, now: Now) -> Wanted {
        let (leg, touch, state) = match quote.leg {
            LegName::Spot => (market.spot, market.spot_touch, &self.spot),
            LegName::Future => (market.future, market.future_touch, &self.future),
        };
        let size = if take { quote.behind } else { quote.size };
        let kind = if take && quote.class.raises() {
            let bps = control.limits.max_slippage_bps.0;
            OrderKind::ImmediateOrCancel { limit_price: taking_price(&leg.product, touch, quote.side, bps) }
        } else if take {
            taking(leg, touch, quote.side, size, self.exit_bps(state, control, now), OrderKind::Market)
        } else {
            let expires_at = now.wall.checked_add(self.params.max_rest).unwrap_or(now.wall);
            OrderKind::PostOnly { limit_price: joining_price(touch, quote.side), expires_at }
        };
        Wanted { product: leg.product.id.clone(), side: quote.side, size, kind }
    }

    fn cancel_what_is_no_longer_wanted(
        &mut self,
        market: &Market<'_>,
        quotes: &[Quote],
        take: bool,
        now: Now,
        commands: &mut Vec<Command>,
    ) {
        let keep = |order: &Order| {
            let (leg, touch) = if order.order.product == market.spot.product.id {
                (LegName::Spot, market.spot_touch)
            } else {
                (LegName::Future, market.future_touch)
            };
            let product = if leg == LegName::Spot { &market.spot.product } else { &market.future.product };
            let quote = quotes.iter().find(|quote| quote.leg == leg && quote.side == order.order.side);
            let price = order.order.limit_price().unwrap_or_default();
            quote.is_some_and(|quote| {
                // The size of an exit is cut by the price of the moment: it keeps its place for a small difference.
                let most = if quote.class.raises() { quote.size } else { quote.size * SIZE_TOLERANCE };
                order.remaining() <= most
                    && !(take && quote.is_behind())
                    && still_good(price, joining_price(touch, quote.side), product.price_increment)
            })
        };
        let ids = self.orders.take_cancels(now.boot, |order| !keep(order));
        if !ids.is_empty() {
            commands.push(Command::Cancel(ids));
        }
    }

    /// Admits an order and hands it out. Returns whether it was admitted.
    fn place(&mut self, wanted: Wanted, class: Class, turn: &mut Turn<'_>) -> bool {
        let Turn { exposure, control, contact, now, .. } = *turn;
        let Some(epoch) = self.epoch else { return false };
        let order = wanted.named(mint_id(&self.id.uid8, epoch, self.next_sequence, class));
        match admit(order.clone(), class, exposure, control, contact) {
            Ok(permit) => {
                self.next_sequence += 1;
                self.owned_since = self.owned_since.or(Some(now.wall));
                self.orders.insert(Order::intended(order, class, epoch, now.boot));
                self.changed(class != Class::Kill, now);
                let kind = &permit.order().kind;
                let (takes, is_attempt) = (!matches!(kind, OrderKind::PostOnly { .. }), is_attempt(class, kind));
                if let Some(leg) = self.leg_mut(&permit.order().product) {
                    if takes && class != Class::Kill {
                        // An order that takes nothing is not sent again at once.
                        leg.not_before = now.boot + TAKE_AGAIN;
                    }
                    if is_attempt {
                        leg.attempts.sent(now.boot);
                    }
                }
                turn.commands.push(Command::Place { permit, epoch });
                true
            }
            Err(denied) => {
                self.last_refusal = Some(denied.to_string());
                false
            }
        }
    }

    /// Asks for a full snapshot when one is due, and for orders whose end is overdue.
    fn look_again(&mut self, control: &Control, now: Now, commands: &mut Vec<Command>) {
        commands.extend(self.orders.take_queries(now.boot).into_iter().map(Command::Query));
        let drained = control.duty == Duty::Drain && control.entry < Entry::Halted && self.is_flat(now);
        let flat_wanted = control.duty == Duty::Flatten || drained;
        let proving = (control.entry == Entry::Halted || drained)
            && !(if flat_wanted { self.proof.flat.confirmed } else { self.proof.orders_gone.confirmed });
        let unanswered = self.orders.live().any(|order| order.state == State::Unknown || order.order_id.is_none());
        let settled = self.snapshot_last < self.changed_at
            && !self.orders.live().any(|order| flat_wanted || order.holds_up_a_halt());
        let mut due = self.next_snapshot;
        if proving && settled {
            // What the bot knows says that it is done: the exchange is asked at once.
            due = now.boot;
        } else if proving {
            let soon = self.proof.confirm_at(flat_wanted).unwrap_or(self.snapshot_last + SNAPSHOT_SOON);
            due = due.min(soon);
        } else if unanswered || self.reconciliation.is_pending() {
            due = due.min(self.snapshot_last + SNAPSHOT_SOON);
        }
        let due = due.max(self.snapshot_not_before);
        let in_flight = self.snapshot_asked.is_some_and(|at| now.boot < at + Duration::from_secs(30));
        if now.boot >= due && !in_flight {
            self.snapshot_asked = Some(now.boot);
            self.snapshot_last = now.boot;
            self.snapshot_not_before = now.boot + SNAPSHOT_PAUSE;
            commands.push(Command::Snapshot { since: self.list_since(now) });
        }
    }
}
