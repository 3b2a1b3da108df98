//! The engine and an exchange in memory, in lockstep on one manual clock.

use std::collections::BTreeMap;
use std::time::Duration;

use arbbot_crds::arbbot::{ControlTimeouts, KillAction, Mode, OnDrainTimeout};
use arbbot_crds::control::{Duty, Entry, Restriction};
use arbbot_crds::limits::RiskLimits;
use arbbot_crds::status::DrainStatus;
use proptest::prelude::*;
use rust_decimal::{Decimal, dec};

use crate::clock::Clock;
use crate::exchange::{
    ExchangeError, Holdings, Link, NewOrder, OrderKind, OrderState, OrderStatus, Placed, Touch, VenueEvent,
};
use crate::execution::drain::{Demand, Terms};
use crate::execution::engine::{Command, ControlChange, Engine, Event, Identity, Now, Params, Snapshot, View};
use crate::execution::orders::Orders;
use crate::risk::Gate;
use crate::risk::gate::Slot;
use crate::testing::{future_product, spot_product};

pub const SPOT: &str = "BTC-USD";
pub const FUTURE: &str = "BIP-20DEC30-CDE";

/// How far time moves at once.
pub const TICK: Duration = Duration::from_millis(250);

/// An order at the exchange in memory.
#[derive(Clone, Debug)]
pub struct AtVenue {
    pub order: NewOrder,
    pub state: OrderState,
    pub entry: Entry,
    pub duty: Duty,
    pub position_before: Decimal,
}

/// The exchange in memory and the engine before it.
pub struct World {
    pub engine: Engine,
    pub gate: Gate,
    pub clock: Clock,
    pub venue: BTreeMap<String, AtVenue>,
    pub accepted: Vec<AtVenue>,
    pub generation: i64,
    pub incidents: u64,
    pub session_open: bool,
    /// What the exchange shows as base currency and contracts, where that is not what the fills amount to.
    pub shown: Option<(Decimal, Decimal)>,
    /// Answers to placements are lost, cancels are ignored, or snapshots fail, as long as it is set.
    pub faulty: bool,
    /// How much an order that takes fills, in percent.
    pub liquidity: u32,
    pub params: Params,
    /// Notional of one order, in quote currency.
    pub max_order_notional: u32,
    /// The other limits.
    pub limits: RiskLimits,
}

impl World {
    pub fn new() -> Self {
        Self::with_orders_of(700)
    }

    /// A world in which no order is larger than so much, in quote currency.
    pub fn with_orders_of(max_order_notional: u32) -> Self {
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
            shown: None,
            session_open: true,
            faulty: false,
            liquidity: 100,
            params: params(),
            max_order_notional,
            limits: RiskLimits::default(),
        };
        world.control(Vec::new());
        world.give(Event::Lease { epoch: 1 });
        for link in [Link::MarketWebSocket, Link::UserWebSocket] {
            world.give(Event::Venue(VenueEvent::Link { link, down: None }));
        }
        world.pass(Duration::from_secs(3));
        world
    }

    /// Another process takes over: it knows nothing but what the exchange and status remember.
    pub fn restart(&mut self, drain: Option<DrainStatus>) {
        let id = Identity { uid8: "aaaaaaaa".into(), spot_product: SPOT.into(), future_product: FUTURE.into() };
        self.engine = Engine::new(id, self.params.clone(), Orders::default(), None).resuming(drain);
        self.give(Event::Lease { epoch: 2 });
        for link in [Link::MarketWebSocket, Link::UserWebSocket] {
            self.give(Event::Venue(VenueEvent::Link { link, down: None }));
        }
    }

    pub fn now(&self) -> Now {
        Now { boot: self.clock.boottime(), wall: self.clock.now() }
    }

    pub fn control(&mut self, restrictions: Vec<Restriction>) {
        self.generation += 1;
        let limits = RiskLimits { max_order_notional: self.max_order_notional.into(), ..self.limits.clone() };
        let generation = Some(self.generation);
        let drain = Demand::of(&restrictions);
        self.gate.set_control(&limits, &ControlTimeouts::default(), restrictions, generation, Vec::new());
        let change = ControlChange {
            generation,
            params: self.params.clone(),
            incidents: self.incidents,
            releases: 0,
            kill_began: None,
            drain,
        };
        self.give(Event::Control(change));
    }

    pub fn kill(&mut self, action: KillAction) {
        self.incidents += 1;
        self.control(vec![Restriction::kill("incident/test", action, "test")]);
    }

    pub fn mode(&mut self, mode: Mode) {
        self.control(vec![Restriction::mode("spec.mode", mode, "test")]);
    }

    /// The drain of a policy or spec while another source demands a mode of its own.
    pub fn drain_under(&mut self, mode: Mode) {
        let drain = Restriction::mode("spec.mode", Mode::Stopped, "test");
        self.control(vec![drain, Restriction::mode("ArbPolicy/desk", mode, "test")]);
    }

    pub fn give(&mut self, event: Event) {
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

    pub fn pass(&mut self, time: Duration) {
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

    pub fn position(&self, product: &str) -> Decimal {
        let orders = self.venue.values().filter(|at| at.order.product == product);
        orders.map(|at| at.state.filled * at.order.side.sign()).sum()
    }

    pub fn carry_out(&mut self, command: Command) -> Vec<Event> {
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

    pub fn accept(&mut self, id: String, order: NewOrder) -> Vec<Event> {
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
    pub fn take(&mut self, id: &str) {
        let liquidity = Decimal::from(self.liquidity) / dec!(100);
        let at = self.venue.get_mut(id).unwrap();
        let increment = if at.order.product == SPOT { dec!(0.00000001) } else { dec!(1) };
        at.state.filled = (at.order.size * liquidity / increment).floor() * increment;
        at.state.status = if self.liquidity == 100 { OrderStatus::Filled } else { OrderStatus::Cancelled };
    }

    pub fn news(&self, id: &str) -> Event {
        Event::Venue(VenueEvent::Order(self.venue[id].state.clone()))
    }

    pub fn cancel(&mut self, order_id: &str) -> Option<Event> {
        let at = self.venue.values_mut().find(|at| at.state.order_id == order_id)?;
        if !at.state.status.is_terminal() {
            at.state.status = OrderStatus::Cancelled;
        }
        Some(Event::Venue(VenueEvent::Order(at.state.clone())))
    }

    /// Somebody trades against everything that rests.
    pub fn fill_all(&mut self) {
        for _ in 0..self.working() {
            self.fill(0, 100, true);
        }
    }

    /// Somebody trades against what rests of one product.
    pub fn fill_product(&mut self, product: &str) {
        let open: Vec<_> = self.venue.values().filter(|at| !at.state.status.is_terminal()).collect();
        if let Some(pick) = open.iter().position(|at| at.order.product == product) {
            self.fill(pick, 100, true);
        }
    }

    /// Somebody trades against a resting order; the news may get lost.
    pub fn fill(&mut self, pick: usize, percent: u32, told: bool) {
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

    pub fn snapshot(&mut self) -> Event {
        if self.faulty {
            let lost = ExchangeError::Timeout { call: "GET orders".into(), seconds: 5 };
            return Event::Snapshot(Box::new(Err(lost)));
        }
        let mut future = future_product();
        future.future.as_mut().unwrap().session_open = self.session_open;
        let (spot, contracts) = self.shown.unwrap_or_else(|| (self.position(SPOT), self.position(FUTURE)));
        let holdings = Holdings {
            contracts: [(FUTURE.to_owned(), contracts)].into(),
            balances: [("BTC".to_owned(), spot), ("USD".to_owned(), dec!(1000000))].into(),
            futures_collateral_quote: dec!(1000000),
        };
        let orders = self.venue.values().map(|at| at.state.clone()).collect();
        Event::Snapshot(Box::new(Ok(Snapshot { started: self.now(), orders, holdings, spot: spot_product(), future })))
    }

    pub fn working(&self) -> usize {
        self.venue.values().filter(|at| !at.state.status.is_terminal()).count()
    }

    pub fn view(&self) -> View {
        self.engine.view(&self.gate.current().0, self.now())
    }

    /// Trades until both legs hold something.
    pub fn with_position() -> Self {
        let mut world = Self::new();
        for step in 0..16 {
            world.fill(step, 100, true);
            world.pass(Duration::from_millis(500));
        }
        assert!(world.position(SPOT) > dec!(0) && world.position(FUTURE) < dec!(0), "{:?}", world.view());
        world
    }
}

pub fn params() -> Params {
    Params {
        target_notional: dec!(12000),
        leg_timeout: Duration::from_secs(2),
        max_rest: Duration::from_secs(120),
        kill_slippage_bps: dec!(50),
        kill_deadline: Duration::from_secs(120),
        drain: Terms { timeout: Duration::from_secs(600), on_timeout: OnDrainTimeout::Hold },
    }
}

#[derive(Clone, Debug)]
pub enum Step {
    Pass(u64),
    Fill { pick: usize, percent: u32, told: bool },
    Mode(Mode),
    Faulty(bool),
    Liquidity(u32),
    Session(bool),
}

pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u64..30).prop_map(Step::Pass),
        4 => (0usize..8, 1u32..=100, any::<bool>()).prop_map(|(pick, percent, told)| Step::Fill { pick, percent, told }),
        1 => prop::sample::select(vec![Mode::Active, Mode::ReduceOnly, Mode::Halted, Mode::Stopped]).prop_map(Step::Mode),
        1 => any::<bool>().prop_map(Step::Faulty),
        1 => (0u32..=100).prop_map(Step::Liquidity),
        1 => any::<bool>().prop_map(Step::Session),
    ]
}

pub fn apply(world: &mut World, step: &Step) {
    match step {
        Step::Pass(tenths) => world.pass(Duration::from_millis(tenths * 100)),
        Step::Fill { pick, percent, told } => world.fill(*pick, *percent, *told),
        Step::Mode(mode) => world.mode(*mode),
        Step::Faulty(faulty) => world.faulty = *faulty,
        Step::Liquidity(percent) => world.liquidity = *percent,
        Step::Session(open) => world.session_open = *open,
    }
}
