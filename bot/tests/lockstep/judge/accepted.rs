//! What the exchange accepted, held against what the bot had acknowledged: `limit_violations` and `wrong_orders` of
//! SAFETY §10.
//!
//! All figures are the exchange's own: its journal, and its prices and the account's collateral second by second. Of the
//! bot there is only the control that it acknowledged, and when. Nothing here asks the bot's own risk code.
//!
//! Each rule is shown by a run written by hand that breaks it (`tests`). The soak found its first defect by itself: a bot
//! that began anew forgot how many orders it had sent within the minute (`Orders::recovered`).

mod exits;
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use arb_bot::execution::orders::parse_id;
use arb_bot::risk::Class;
use arbbot_crds::control::{Control, Duty, Entry};
use arbbot_crds::limits::RiskLimits;
use exchange_simulator::exchange::book::Side;
use exchange_simulator::exchange::journal::{JournalEvent, Kind};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use serde::Serialize;

/// A control binds the orders that are accepted so long after it was acknowledged (SAFETY §10).
pub const BOUND: SignedDuration = SignedDuration::from_secs(2);
/// How old what an order was measured with may be: a fault shows an old price for a minute at most, the bot trusts it for
/// ten seconds, and an order's token lives for twenty.
pub const DECIDED_WITHIN: SignedDuration = SignedDuration::from_secs(90);
/// A minute less the bound: orders may be closer together when they arrive than when they were sent.
const MINUTE: SignedDuration = SignedDuration::from_secs(58);
/// How long a control is remembered after its end.
const REMEMBERED: SignedDuration = SignedDuration::from_secs(60);

/// The exchange at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub time: Timestamp,
    pub spot: Price,
    pub future: Price,
    /// All USD and the unrealised profit or loss.
    pub collateral_quote: Decimal,
}

#[derive(Clone, Copy, Debug)]
pub struct Price {
    pub mid: Decimal,
    pub index: Decimal,
}

/// Whose orders are judged.
#[derive(Clone, Debug)]
pub struct Account {
    /// What the ids of the bot's orders begin with.
    pub uid8: String,
    pub spot: String,
    pub future: String,
    /// Base currency of one contract.
    pub contract_base: Decimal,
    /// `strategy.fundingCarry.orders.legTimeout`.
    pub leg_timeout: Duration,
}

/// An order that should not have been accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub time: Timestamp,
    pub client_order_id: String,
    /// The limit, or the rule of SAFETY §2.
    pub rule: &'static str,
    pub message: String,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub limit_violations: Vec<Finding>,
    pub wrong_orders: Vec<Finding>,
    /// How near to each limit an order came, as a share of it.
    pub nearest: BTreeMap<&'static str, Decimal>,
    /// Orders that raise a leg.
    pub raising: usize,
    /// Orders that were accepted while nothing might raise a leg.
    pub while_closed: usize,
}

/// A control that was acknowledged.
#[derive(Debug)]
struct InForce {
    from: Timestamp,
    /// Until the next one was.
    to: Option<Timestamp>,
    control: Control,
    /// Since when entry is halted without a kill that flattens.
    halted_since: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leg {
    Spot,
    Future,
}

#[derive(Debug)]
struct Working {
    leg: Leg,
    side: Side,
    left: Decimal,
}

/// A leg before an order.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// Signed.
    position: Decimal,
    /// What working orders may still fill.
    buys: Decimal,
    sells: Decimal,
    /// Base currency of one unit.
    unit_base: Decimal,
}

impl Held {
    fn with(self, side: Side, size: Decimal) -> Self {
        match side {
            Side::Buy => Self { buys: self.buys + size, ..self },
            Side::Sell => Self { sells: self.sells + size, ..self },
        }
    }

    /// What may be taken off on this side, whatever fills.
    fn reducible(self, side: Side) -> Decimal {
        let outstanding = if side == Side::Buy { self.buys } else { self.sells };
        let lowers = if side == Side::Buy { self.position < Decimal::ZERO } else { self.position > Decimal::ZERO };
        if lowers { (self.position.abs() - outstanding).max(Decimal::ZERO) } else { Decimal::ZERO }
    }

    /// Base currency at most on the side, whatever fills.
    fn worst_base(self, side: Side) -> Decimal {
        let position = if side == Side::Buy { self.position + self.buys } else { self.position - self.sells };
        position.abs() * self.unit_base
    }

    fn range_base(self) -> (Decimal, Decimal) {
        ((self.position - self.sells) * self.unit_base, (self.position + self.buys) * self.unit_base)
    }
}

/// Most that two legs can be apart, whatever fills, in base currency.
fn imbalance_base(legs: [Held; 2]) -> Decimal {
    let [spot, future] = legs.map(Held::range_base);
    (spot.0 + future.0).abs().max((spot.1 + future.1).abs())
}

/// Reads a run in the order in which it happened; what happened at one instant may come in any order.
#[derive(Debug)]
pub struct Judge {
    account: Account,
    controls: VecDeque<InForce>,
    samples: VecDeque<Sample>,
    /// When orders arrived, the rejected ones too.
    arrived: VecDeque<Timestamp>,
    positions: [Decimal; 2],
    /// Positions that are no more, and until when they were: what the bot may not yet know to be over.
    past: [VecDeque<(Timestamp, Decimal)>; 2],
    working: BTreeMap<String, Working>,
    ids: BTreeSet<String>,
    epoch: i64,
    pub verdict: Verdict,
}

impl Judge {
    pub fn new(account: Account) -> Self {
        Self {
            account,
            controls: VecDeque::new(),
            samples: VecDeque::new(),
            arrived: VecDeque::new(),
            positions: [Decimal::ZERO; 2],
            past: Default::default(),
            working: BTreeMap::new(),
            ids: BTreeSet::new(),
            epoch: 0,
            verdict: Verdict::default(),
        }
    }

    /// The bot acknowledged a control.
    pub fn acknowledged(&mut self, time: Timestamp, control: Control) {
        let halted = control.entry == Entry::Halted && control.duty < Duty::Flatten;
        let since = self.controls.back().and_then(|before| before.halted_since).unwrap_or(time);
        if let Some(before) = self.controls.back_mut() {
            before.to = Some(time);
        }
        self.controls.retain(|before| before.to.is_none_or(|to| to + REMEMBERED > time));
        self.controls.push_back(InForce { from: time, to: None, control, halted_since: halted.then_some(since) });
    }

    /// What the exchange was like.
    pub fn sampled(&mut self, sample: Sample) {
        self.samples.retain(|before| before.time + DECIDED_WITHIN >= sample.time);
        self.samples.push_back(sample);
    }

    /// Something of the journal.
    pub fn happened(&mut self, event: &JournalEvent) {
        let Some(leg) = self.leg(&event.product_id) else { return };
        let id = &event.client_order_id;
        match event.kind {
            Kind::OrderRejected => self.arrived.push_back(event.time),
            Kind::OrderAccepted => {
                self.arrived.push_back(event.time);
                self.accepted(event, leg, event.size);
                if !self.ids.insert(id.clone()) {
                    self.wrong(event, "one order per intent", "its id was accepted before".into());
                }
            }
            Kind::OrderEdited => {
                self.working.remove(id);
                self.accepted(event, leg, event.size - event.filled);
            }
            Kind::Fill => {
                if let Some(order) = self.working.get_mut(id) {
                    order.left -= event.filled;
                }
                self.working.retain(|_, order| order.left > Decimal::ZERO);
            }
            Kind::PositionChanged => self.moved(event, leg),
            Kind::OrderCancelled | Kind::OrderExpired => drop(self.working.remove(id)),
            Kind::EditRequested | Kind::EditRefused | Kind::CancelRequested => {}
        }
    }

    fn leg(&self, product: &str) -> Option<Leg> {
        let Account { spot, future, .. } = &self.account;
        [(spot, Leg::Spot), (future, Leg::Future)].into_iter().find(|(id, _)| *id == product).map(|(_, leg)| leg)
    }

    /// Judges an order that was accepted, and counts it among those that work.
    fn accepted(&mut self, event: &JournalEvent, leg: Leg, size: Decimal) {
        let is_ours = event.client_order_id.strip_prefix(&self.account.uid8).is_some_and(|rest| rest.starts_with('-'));
        if let Some(id) = parse_id(&event.client_order_id).filter(|_| is_ours) {
            let legs = [Leg::Spot, Leg::Future].map(|leg| self.held(leg));
            let raises = size > legs[leg as usize].reducible(event.side);
            self.judge_class(event, id.class, raises);
            if !raises {
                self.judge_exit(event, id.class, leg, size, legs);
            }
            if id.epoch < self.epoch {
                self.wrong(event, "one trader", format!("epoch {} has begun", self.epoch));
            }
            self.epoch = self.epoch.max(id.epoch);
            if raises || id.class.raises() {
                self.verdict.raising += 1;
                self.judge_limits(event, leg, size, legs);
            }
        }
        self.working.insert(event.client_order_id.clone(), Working { leg, side: event.side, left: size });
    }

    fn held(&self, leg: Leg) -> Held {
        let working = |side| {
            let orders = self.working.values().filter(move |order| order.leg == leg && order.side == side);
            orders.map(|order| order.left).sum()
        };
        let unit_base = if leg == Leg::Spot { Decimal::ONE } else { self.account.contract_base };
        let (buys, sells) = (working(Side::Buy), working(Side::Sell));
        Held { position: self.positions[leg as usize], buys, sells, unit_base }
    }

    /// The controls that may have been obeyed: those in force less than the bound ago, and what came later.
    fn in_force(&self, time: Timestamp) -> Vec<&InForce> {
        let bound = |of: &&InForce| of.from <= time && of.to.is_none_or(|to| to + BOUND > time);
        self.controls.iter().filter(bound).collect()
    }

    /// The table of SAFETY §2.
    fn judge_class(&mut self, event: &JournalEvent, class: Class, raises: bool) {
        let in_force = self.in_force(event.time);
        let may_raise = |of: &&InForce| of.control.entry == Entry::Active && of.control.duty == Duty::Hold;
        let closed = !in_force.iter().any(may_raise);
        let allowed = in_force.iter().any(|of| {
            let Control { entry, duty, .. } = of.control;
            match class {
                Class::Enter | Class::Hedge => may_raise(of),
                Class::Trim => true,
                Class::Reduce => entry < Entry::Halted && duty < Duty::Flatten,
                Class::Kill => duty == Duty::Flatten,
            }
        });
        let modes: Vec<_> = in_force.iter().map(|of| of.control.mode().to_string()).collect();
        let timeout = SignedDuration::try_from(self.account.leg_timeout).unwrap() + BOUND;
        let late = |of: &&InForce| of.halted_since.is_some_and(|since| since + timeout < event.time);
        let too_late = class == Class::Trim && !in_force.is_empty() && in_force.iter().all(late);
        self.verdict.while_closed += usize::from(closed);
        if !allowed {
            self.wrong(event, "class", format!("{class} is not allowed under {modes:?}"));
        }
        if too_late {
            self.wrong(event, "legTimeout", format!("a trim under {modes:?} for longer than legTimeout"));
        }
        if raises && (closed || !class.raises()) {
            self.wrong(event, "reduce-only", format!("{class} under {modes:?} raises the leg or flips it"));
        }
    }

    /// Each limit by the loosest value in force, and by the prices most favourable to the order.
    fn judge_limits(&mut self, event: &JournalEvent, leg: Leg, size: Decimal, before: [Held; 2]) {
        let in_force = self.in_force(event.time);
        let most = |of: fn(&RiskLimits) -> Decimal| {
            in_force.iter().map(|in_force| of(&in_force.control.limits)).max().unwrap_or_default()
        };
        let recent = || self.samples.iter().filter(|sample| sample.time + DECIDED_WITHIN >= event.time);
        let price = |sample: &Sample| if leg == Leg::Spot { sample.spot } else { sample.future };
        let lowest = recent().map(price).map(|price| price.mid.max(price.index)).min().unwrap_or_default();
        let at = event.price.unwrap_or(lowest).max(lowest);
        let collateral_quote = recent().map(|sample| sample.collateral_quote).max().unwrap_or_default();
        let mut after = before;
        after[leg as usize] = before[leg as usize].with(event.side, size);
        let held = after[leg as usize];

        let mut found = vec![
            ("maxOrderNotional", size * held.unit_base * at, most(|limits| limits.max_order_notional.0)),
            ("maxOpenOrders", event.open_orders.into(), most(|limits| limits.max_open_orders.into())),
            ("maxPositionNotional", held.worst_base(event.side) * at, most(|limits| limits.max_position_notional.0)),
        ];
        if leg == Leg::Future {
            let allowed = most(|limits| limits.max_leverage.0) * collateral_quote;
            found.push(("maxLeverage", held.worst_base(event.side) * lowest, allowed));
        }
        if imbalance_base(after) > imbalance_base(before) {
            let allowed = most(|limits| limits.max_leg_imbalance_notional.0);
            found.push(("maxLegImbalanceNotional", imbalance_base(after) * at, allowed));
        }
        let beyond = |limit: Decimal| {
            let slippage = |mid: Decimal| (limit - mid) * event.side.sign() / mid * Decimal::from(10_000);
            recent().map(|sample| slippage(price(sample).mid)).min()
        };
        // An order at the market has no bound at all.
        let slippage_bps = event.price.and_then(beyond).unwrap_or(Decimal::MAX);
        found.push(("maxSlippageBps", slippage_bps, most(|limits| limits.max_slippage_bps.0)));
        let per_minute = most(|limits| limits.max_orders_per_minute.into());
        self.arrived.retain(|at| *at + MINUTE > event.time);
        found.push(("maxOrdersPerMinute", self.arrived.len().into(), per_minute));

        for (limit, value, allowed) in found {
            if value > allowed {
                let (value, side) = (value.round_dp(4), event.side);
                let message = format!("{value} with this {side} of {size}, where at most {allowed} is allowed");
                self.verdict.limit_violations.push(finding(event, limit, message));
            }
            let share = value.checked_div(allowed).unwrap_or_default().max(Decimal::ZERO);
            let nearest = self.verdict.nearest.entry(limit).or_default();
            *nearest = share.round_dp(4).max(*nearest);
        }
    }

    fn wrong(&mut self, event: &JournalEvent, rule: &'static str, message: String) {
        self.verdict.wrong_orders.push(finding(event, rule, message));
    }
}

fn finding(event: &JournalEvent, rule: &'static str, message: String) -> Finding {
    Finding { time: event.time, client_order_id: event.client_order_id.clone(), rule, message }
}
