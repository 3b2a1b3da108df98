//! The engine against an exchange in memory, in lockstep on one manual clock: whatever fails, fills or changes in
//! whatever order, what the exchange accepted obeys the control that was in force.

use std::collections::BTreeMap;
use std::time::Duration;

use arbbot_crds::arbbot::{ControlTimeouts, KillAction};
use arbbot_crds::control::{Duty, Entry, Restriction};
use arbbot_crds::limits::RiskLimits;
use proptest::prelude::*;
use rust_decimal::{Decimal, dec};

use super::*;
use crate::clock::Clock;
use crate::exchange::{NewOrder, OrderKind, OrderStatus, Side};
use crate::risk::gate::Slot;
use crate::risk::{Class, Gate};
use crate::testing::{future_product, spot_product};

const SPOT: &str = "BTC-USD";
const FUTURE: &str = "BIP-20DEC30-CDE";

/// How far time moves at once.
const TICK: Duration = Duration::from_millis(250);

/// An order at the exchange in memory.
#[derive(Clone, Debug)]
struct AtVenue {
    order: NewOrder,
    state: OrderState,
    entry: Entry,
    duty: Duty,
    position_before: Decimal,
}

/// The exchange in memory and the engine before it.
struct World {
    engine: Engine,
    gate: Gate,
    clock: Clock,
    venue: BTreeMap<String, AtVenue>,
    accepted: Vec<AtVenue>,
    generation: i64,
    incidents: u64,
    session_open: bool,
    /// Answers to placements are lost, cancels are ignored, or snapshots fail, as long as it is set.
    faulty: bool,
    /// How much an order that takes fills, in percent.
    liquidity: u32,
}

impl World {
    fn new() -> Self {
        let clock = Clock::manual();
        clock.advance(Duration::from_secs(1000));
        let id = Identity { uid8: "aaaaaaaa".into(), spot_product: SPOT.into(), future_product: FUTURE.into() };
        let gate = Gate::new(clock.clone());
        gate.set(Slot::Claim, Vec::new());
        gate.in_contact(clock.boottime());
        let mut world = Self {
            engine: Engine::new(id, params(), Orders::default(), None),
            gate,
            clock,
            venue: BTreeMap::new(),
            accepted: Vec::new(),
            generation: 0,
            incidents: 0,
            session_open: true,
            faulty: false,
            liquidity: 100,
        };
        world.control(Vec::new());
        world.give(Event::Lease { epoch: 1 });
        for link in [Link::MarketWebSocket, Link::UserWebSocket] {
            world.give(Event::Venue(VenueEvent::Link { link, down: None }));
        }
        world.pass(Duration::from_secs(3));
        world
    }

    fn now(&self) -> Now {
        Now { boot: self.clock.boottime(), wall: self.clock.now() }
    }

    fn control(&mut self, restrictions: Vec<Restriction>) {
        self.generation += 1;
        let limits = RiskLimits { max_order_notional: 700.into(), ..RiskLimits::default() };
        let generation = Some(self.generation);
        self.gate.set_control(&limits, &ControlTimeouts::default(), restrictions, generation, Vec::new());
        let change =
            ControlChange { generation, params: params(), incidents: self.incidents, releases: 0, kill_began: None };
        self.give(Event::Control(change));
    }

    fn kill(&mut self, action: KillAction) {
        self.incidents += 1;
        self.control(vec![Restriction::kill("incident/test", action, "test")]);
    }

    fn mode(&mut self, entry: Entry) {
        self.control(vec![Restriction::entry("spec.mode", entry, "test")]);
    }

    fn give(&mut self, event: Event) {
        let mut events = vec![event];
        let mut handled = 0;
        while let Some(event) = events.pop() {
            handled += 1;
            assert!(handled < 5000, "the engine never comes to rest: {event:?}");
            let now = self.now();
            for command in self.engine.handle(event, &self.gate, now) {
                events.extend(self.carry_out(command));
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.clock.boottime() + time;
        while self.clock.boottime() < end {
            self.clock.advance(TICK);
            self.gate.in_contact(self.clock.boottime());
            for product in [SPOT, FUTURE] {
                let touch = Some(Touch { best_bid: dec!(59995), best_ask: dec!(60005) });
                self.give(Event::Venue(VenueEvent::Touch { product: product.into(), touch }));
            }
            self.give(Event::Tick);
        }
    }

    fn position(&self, product: &str) -> Decimal {
        let orders = self.venue.values().filter(|at| at.order.product == product);
        orders.map(|at| at.state.filled * at.order.side.sign()).sum()
    }

    fn carry_out(&mut self, command: Command) -> Vec<Event> {
        match command {
            Command::Place { permit, .. } => {
                let id = permit.order().client_order_id.clone();
                match self.gate.clear(permit) {
                    Ok(cleared) => self.accept(id, cleared.order().clone()),
                    Err(_) => vec![Event::NotSent { client_order_id: id }],
                }
            }
            Command::Cancel(ids) if !self.faulty => ids.iter().filter_map(|id| self.cancel(id)).collect(),
            Command::Query(id) => {
                let found = self.venue.values().find(|at| at.state.order_id == id);
                found.map(|at| Event::Order(Ok(at.state.clone()))).into_iter().collect()
            }
            Command::Snapshot { .. } => vec![self.snapshot()],
            Command::Cancel(_) | Command::Record(_) => Vec::new(),
        }
    }

    fn accept(&mut self, id: String, order: NewOrder) -> Vec<Event> {
        let (control, _) = self.gate.current();
        let order_id = format!("venue-{id}");
        let state = OrderState {
            order_id: order_id.clone(),
            client_order_id: id.clone(),
            product: order.product.clone(),
            side: order.side,
            status: OrderStatus::Open,
            filled: dec!(0),
            average_price: dec!(60000),
            fees_quote: dec!(0),
            size: Some(order.size),
            created_at: None,
        };
        let position_before = self.position(&order.product);
        let at = AtVenue { order, state, entry: control.entry, duty: control.duty, position_before };
        assert!(self.venue.insert(id.clone(), at.clone()).is_none(), "the id {id} was used twice");
        self.accepted.push(at.clone());
        if !matches!(at.order.kind, OrderKind::PostOnly { .. }) {
            self.take(&id);
        }
        if self.faulty {
            let lost = ExchangeError::Timeout { call: "POST orders".into(), seconds: 5 };
            return vec![Event::Placed { client_order_id: id, result: Err(lost) }];
        }
        let news = self.news(&id);
        vec![news, Event::Placed { client_order_id: id, result: Ok(Placed::Accepted { order_id }) }]
    }

    /// An order that takes fills what the liquidity gives; the rest is cancelled.
    fn take(&mut self, id: &str) {
        let liquidity = Decimal::from(self.liquidity) / dec!(100);
        let at = self.venue.get_mut(id).unwrap();
        let increment = if at.order.product == SPOT { dec!(0.00000001) } else { dec!(1) };
        at.state.filled = (at.order.size * liquidity / increment).floor() * increment;
        at.state.status = if self.liquidity == 100 { OrderStatus::Filled } else { OrderStatus::Cancelled };
    }

    fn news(&self, id: &str) -> Event {
        Event::Venue(VenueEvent::Order(self.venue[id].state.clone()))
    }

    fn cancel(&mut self, order_id: &str) -> Option<Event> {
        let at = self.venue.values_mut().find(|at| at.state.order_id == order_id)?;
        if !at.state.status.is_terminal() {
            at.state.status = OrderStatus::Cancelled;
        }
        Some(Event::Venue(VenueEvent::Order(at.state.clone())))
    }

    /// Somebody trades against a resting order; the news may get lost.
    fn fill(&mut self, pick: usize, percent: u32, told: bool) {
        let open: Vec<String> =
            self.venue.iter().filter(|(_, at)| !at.state.status.is_terminal()).map(|(id, _)| id.clone()).collect();
        let Some(id) = open.get(pick % open.len().max(1)) else { return };
        let at = self.venue.get_mut(id).unwrap();
        let increment = if at.order.product == SPOT { dec!(0.00000001) } else { dec!(1) };
        let left = at.order.size - at.state.filled;
        let part = (left * Decimal::from(percent) / dec!(100) / increment).floor() * increment;
        at.state.filled += part;
        if at.state.filled == at.order.size {
            at.state.status = OrderStatus::Filled;
        }
        if told {
            let news = self.news(id);
            self.give(news);
        }
    }

    fn snapshot(&mut self) -> Event {
        if self.faulty {
            let lost = ExchangeError::Timeout { call: "GET orders".into(), seconds: 5 };
            return Event::Snapshot(Box::new(Err(lost)));
        }
        let mut future = future_product();
        future.future.as_mut().unwrap().session_open = self.session_open;
        let holdings = Holdings {
            contracts: [(FUTURE.to_owned(), self.position(FUTURE))].into(),
            balances: [("BTC".to_owned(), self.position(SPOT)), ("USD".to_owned(), dec!(1000000))].into(),
            futures_collateral_quote: dec!(1000000),
        };
        let orders = self.venue.values().map(|at| at.state.clone()).collect();
        Event::Snapshot(Box::new(Ok(Snapshot { started: self.now(), orders, holdings, spot: spot_product(), future })))
    }

    fn working(&self) -> usize {
        self.venue.values().filter(|at| !at.state.status.is_terminal()).count()
    }

    fn view(&self) -> View {
        self.engine.view(&self.gate.current().0, self.now())
    }

    /// Trades until both legs hold something.
    fn with_position() -> Self {
        let mut world = Self::new();
        for step in 0..16 {
            world.fill(step, 100, true);
            world.pass(Duration::from_millis(500));
        }
        assert!(world.position(SPOT) > dec!(0) && world.position(FUTURE) < dec!(0), "{:?}", world.view());
        world
    }
}

fn params() -> Params {
    Params {
        target_notional: dec!(12000),
        leg_timeout: Duration::from_secs(2),
        max_rest: Duration::from_secs(120),
        kill_slippage_bps: dec!(50),
        kill_deadline: Duration::from_secs(120),
    }
}

#[test]
fn both_legs_are_entered_and_orders_keep_resting() {
    let world = World::with_position();
    assert!(world.working() > 0);
    assert_eq!(world.view().reconciliation, Reconciliation::Matches);
    let delta = world.position(SPOT) + world.position(FUTURE) * dec!(0.01);
    assert!(delta.abs() <= dec!(0.02), "the legs are {delta} apart");
}

#[test]
fn a_kill_cancels_flattens_and_proves_it_twice() {
    let mut world = World::with_position();
    world.kill(KillAction::Flatten);
    assert_eq!(world.working(), 0, "orders are gone before time passes");
    assert!(world.view().proof.orders_gone.first.is_some());
    world.pass(Duration::from_secs(10));
    assert_eq!((world.position(SPOT), world.position(FUTURE)), (dec!(0), dec!(0)));
    assert!(world.view().proof.flat.confirmed);
}

#[test]
fn a_kill_that_only_cancels_keeps_the_position() {
    let mut world = World::with_position();
    let before = (world.position(SPOT), world.position(FUTURE));
    world.kill(KillAction::CancelOrders);
    world.pass(Duration::from_secs(10));
    assert_eq!(world.working(), 0);
    assert_eq!(before.1, world.position(FUTURE));
    assert!(world.view().proof.orders_gone.confirmed);
}

#[test]
fn a_closed_session_waits_with_both_legs_and_goes_on_when_it_opens() {
    let mut world = World::with_position();
    world.session_open = false;
    world.pass(Duration::from_secs(12));
    let before = world.position(FUTURE);
    world.kill(KillAction::Flatten);
    world.pass(Duration::from_secs(30));
    assert_eq!(world.position(FUTURE), before);
    assert!(world.position(SPOT) >= before.abs() * dec!(0.01), "spot fell below the hedge");
    assert!(world.view().session_closed.is_some() && !world.view().proof.flat.confirmed);
    world.session_open = true;
    world.pass(Duration::from_secs(30));
    assert!(world.view().proof.flat.confirmed);
}

#[test]
fn a_market_that_does_not_fill_is_closed_at_market_after_the_deadline() {
    let mut world = World::with_position();
    world.liquidity = 0;
    world.kill(KillAction::Flatten);
    world.pass(Duration::from_secs(121));
    assert!(!world.view().is_flat);
    world.liquidity = 100;
    world.pass(Duration::from_secs(10));
    assert!(world.view().proof.flat.confirmed);
    let last = world.accepted.last().unwrap();
    assert!(matches!(last.order.kind, OrderKind::Market | OrderKind::ClosePosition), "{last:?}");
}

#[test]
fn a_lost_answer_is_found_at_the_exchange_and_never_sent_again() {
    let mut world = World::new();
    world.faulty = true;
    world.pass(Duration::from_secs(2));
    world.faulty = false;
    world.pass(Duration::from_secs(5));
    assert_eq!(world.view().unknown_orders, 0);
}

#[test]
fn a_release_keeps_entry_closed_until_positions_are_compared() {
    let mut world = World::with_position();
    world.kill(KillAction::Flatten);
    world.pass(Duration::from_secs(10));
    world.faulty = true;
    world.generation += 1;
    let generation = Some(world.generation);
    world.gate.set_control(&RiskLimits::default(), &ControlTimeouts::default(), Vec::new(), generation, Vec::new());
    let change = ControlChange { generation, params: params(), incidents: 1, releases: 1, kill_began: None };
    let before = world.accepted.len();
    world.give(Event::Control(change));
    world.pass(Duration::from_secs(2));
    assert_eq!(world.accepted.len(), before, "entered before the positions were compared");
    world.faulty = false;
    world.pass(Duration::from_secs(5));
    assert!(world.accepted.len() > before);
}

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Fill { pick: usize, percent: u32, told: bool },
    Mode(Entry),
    Faulty(bool),
    Liquidity(u32),
    Session(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u64..30).prop_map(Step::Pass),
        4 => (0usize..8, 1u32..=100, any::<bool>()).prop_map(|(pick, percent, told)| Step::Fill { pick, percent, told }),
        1 => prop_oneof![Just(Entry::Active), Just(Entry::ReduceOnly), Just(Entry::Halted)].prop_map(Step::Mode),
        1 => any::<bool>().prop_map(Step::Faulty),
        1 => (0u32..=100).prop_map(Step::Liquidity),
        1 => any::<bool>().prop_map(Step::Session),
    ]
}

fn apply(world: &mut World, step: &Step) {
    match step {
        Step::Pass(tenths) => world.pass(Duration::from_millis(tenths * 100)),
        Step::Fill { pick, percent, told } => world.fill(*pick, *percent, *told),
        Step::Mode(entry) => world.mode(*entry),
        Step::Faulty(faulty) => world.faulty = *faulty,
        Step::Liquidity(percent) => world.liquidity = *percent,
        Step::Session(open) => world.session_open = *open,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    /// Invariants 1 and 4, and the first half of SAFETY §2, on the exchange's side: an order that the exchange accepted
    /// while entry was not open lowers its leg, never flips it, and in Halted it is a trim.
    #[test]
    fn what_the_exchange_accepts_obeys_the_mode(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for step in &steps {
            apply(&mut world, step);
        }
        for at in &world.accepted {
            let class = crate::execution::orders::parse_id(&at.order.client_order_id).unwrap().class;
            if at.entry > Entry::Active {
                prop_assert!(!class.raises(), "{class} was accepted in {}", at.entry);
                let after = at.position_before + at.order.size * at.order.side.sign();
                prop_assert!(after.abs() <= at.position_before.abs(), "{at:?}");
                prop_assert!(after * at.position_before >= dec!(0), "flipped: {at:?}");
            }
            if at.entry == Entry::Halted && at.duty == Duty::Hold {
                prop_assert_eq!(class, Class::Trim);
            }
        }
    }

    /// Invariant 2: after a kill the exposure of each leg never rises, and once faults stop and the session is open the
    /// exchange is flat and the bot says so.
    #[test]
    fn a_kill_ends_flat_from_anywhere(
        before in prop::collection::vec(step(), 1..40),
        after in prop::collection::vec(step(), 0..20),
    ) {
        let mut world = World::new();
        for step in &before {
            apply(&mut world, step);
        }
        world.kill(KillAction::Flatten);
        for step in after.iter().filter(|step| !matches!(step, Step::Mode(_))) {
            apply(&mut world, step);
        }
        world.faulty = false;
        world.session_open = true;
        world.liquidity = 100;
        world.pass(Duration::from_secs(60));
        let view = world.view();
        prop_assert_eq!(world.working(), 0);
        prop_assert!(world.position(FUTURE).is_zero(), "{} contracts are left: {:?}", world.position(FUTURE), view);
        prop_assert!(world.position(SPOT).abs() < dec!(0.00002), "{} BTC is left: {:?}", world.position(SPOT), view);
        prop_assert!(view.proof.flat.confirmed, "{:?}", view);
    }

    /// The bot's view equals the exchange's truth once faults stop.
    #[test]
    fn the_view_becomes_the_truth_once_faults_stop(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for step in &steps {
            apply(&mut world, step);
        }
        world.faulty = false;
        world.mode(Entry::Halted);
        world.pass(Duration::from_secs(60));
        let view = world.view();
        prop_assert_eq!(view.future_owned_contracts, world.position(FUTURE));
        prop_assert_eq!(view.spot_owned_base, world.position(SPOT));
        prop_assert_eq!(view.open_orders, 0);
        prop_assert_eq!(view.reconciliation, Reconciliation::Matches);
    }
}

#[test]
fn the_sides_are_what_the_strategy_says() {
    let world = World::with_position();
    for at in &world.accepted {
        let raising = if at.order.product == SPOT { Side::Buy } else { Side::Sell };
        assert_eq!(at.order.side, raising);
    }
}
