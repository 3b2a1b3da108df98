//! The engine and an exchange in memory, in lockstep on one manual clock.

mod venue;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use arbbot_crds::arbbot::{ControlTimeouts, KillAction, Mode, OnDrainTimeout};
use arbbot_crds::control::{Duty, Entry, Restriction, effective};
use arbbot_crds::limits::RiskLimits;
use arbbot_crds::status::DrainStatus;
use k8s_openapi::jiff::Timestamp;
use rust_decimal::{Decimal, dec};

use crate::clock::Clock;
use crate::exchange::{CarryTerms, FeeRates, Link, NewOrder, OrderState, Touch, VenueEvent};
use crate::execution::drain::{Demand, Terms};
use crate::execution::engine::{ControlChange, Engine, Event, Identity, Now, Params, Start, View};
use crate::execution::orders::Orders;
use crate::ledger::OrderRecord;
use crate::recording::{Recorder, WhenFull};
use crate::risk::Gate;
use crate::risk::gate::Slot;
use crate::testing::{carry_terms, fee_rates, future_terms};

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
    /// How far the legs were apart when each of them was accepted, in base currency.
    pub apart: Vec<Decimal>,
    pub generation: i64,
    pub incidents: u64,
    /// As the control task keeps it.
    pub kill_began: Option<Timestamp>,
    pub session_open: bool,
    /// What the exchange shows as base currency and contracts, where that is not what the fills amount to.
    pub shown: Option<(Decimal, Decimal)>,
    /// What somebody else did on the account, in base currency and contracts.
    pub others: (Decimal, Decimal),
    /// Answers to placements are lost, cancels are ignored, or snapshots fail, as long as it is set.
    pub faulty: bool,
    /// How much an order that takes fills, in percent.
    pub liquidity: u32,
    /// Best prices of both products.
    pub touch: Touch,
    /// Those that were told last of each.
    told: BTreeMap<String, Touch>,
    /// Products of which no price is told.
    pub untold: Vec<&'static str>,
    pub params: Params,
    /// Notional of one order, in quote currency.
    pub max_order_notional: u32,
    /// The other limits.
    pub limits: RiskLimits,
    pub fees: FeeRates,
    /// Margin of the future, and the funding that it shows.
    pub future_terms: CarryTerms,
    pub collateral_quote: Decimal,
    /// Index price that the future shows.
    pub index: Option<Decimal>,
    pub recorder: Option<Recorder>,
}

fn identity() -> Identity {
    Identity { uid8: "aaaaaaaa".into(), spot_product: SPOT.into(), future_product: FUTURE.into() }
}

impl World {
    pub fn new() -> Self {
        Self::with_orders_of(700)
    }

    /// A world whose exchange has not yet shown any funding.
    pub fn before_funding() -> Self {
        Self::begin(700, CarryTerms { funding_time: None, ..future_terms() })
    }

    /// A world in which no order is larger than so much, in quote currency.
    pub fn with_orders_of(max_order_notional: u32) -> Self {
        Self::begin(max_order_notional, future_terms())
    }

    /// A world whose engine is recorded from its first turn.
    pub fn recorded(path: &Path) -> Self {
        Self::recorded_by(|start| Recorder::create(path, start, WhenFull::Wait).unwrap())
    }

    /// The same, by this recorder.
    pub fn recorded_by(recorder: impl FnOnce(Start) -> Recorder) -> Self {
        let clock = Clock::manual();
        clock.advance(Duration::from_secs(1000));
        let at = Now { boot: clock.boottime(), wall: clock.now() };
        let recorder = recorder(Start::anew(identity(), params(), at));
        Self::begin_with(700, future_terms(), Some(recorder))
    }

    fn begin(max_order_notional: u32, future_terms: CarryTerms) -> Self {
        Self::begin_with(max_order_notional, future_terms, None)
    }

    fn begin_with(max_order_notional: u32, future_terms: CarryTerms, recorder: Option<Recorder>) -> Self {
        let clock = Clock::manual();
        clock.advance(Duration::from_secs(1000));
        let gate = Gate::new(clock.clone());
        gate.set(Slot::Claim, Vec::new());
        gate.in_contact(clock.boottime());
        let mut world = Self {
            engine: Engine::new(identity(), params(), Orders::default(), None),
            gate,
            clock,
            venue: BTreeMap::new(),
            accepted: Vec::new(),
            apart: Vec::new(),
            generation: 0,
            incidents: 0,
            kill_began: None,
            shown: None,
            others: (dec!(0), dec!(0)),
            session_open: true,
            faulty: false,
            liquidity: 100,
            touch: Touch { best_bid: dec!(59995), best_ask: dec!(60005) },
            told: BTreeMap::new(),
            untold: Vec::new(),
            params: params(),
            max_order_notional,
            limits: RiskLimits::default(),
            fees: fee_rates(),
            future_terms,
            collateral_quote: dec!(1000000),
            index: None,
            recorder,
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
        self.restart_with(Vec::new(), drain);
    }

    /// The same with the orders of a ledger.
    pub fn restart_with(&mut self, orders: Vec<OrderRecord>, drain: Option<DrainStatus>) {
        let start = Start { orders, drain, ..Start::anew(identity(), self.params.clone(), self.now()) };
        self.engine = start.engine();
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
        let flattens = effective(&limits, &restrictions).duty == Duty::Flatten;
        self.kill_began = flattens.then(|| self.kill_began.unwrap_or(self.clock.now()));
        let drain = Demand::of(&restrictions);
        self.gate.set_control(&limits, &ControlTimeouts::default(), restrictions, generation, Vec::new());
        let change = ControlChange {
            generation,
            params: self.params.clone(),
            incidents: self.incidents,
            releases: 0,
            kill_began: self.kill_began,
            drain,
        };
        self.give(Event::Control(change));
    }

    pub fn kill(&mut self, action: KillAction) {
        self.incidents += 1;
        self.control(vec![Restriction::kill("incident/test", action, "test")]);
    }

    /// A kill goes on while the mode of the spec changes.
    pub fn kill_under(&mut self, mode: Mode) {
        let kill = Restriction::kill("incident/test", KillAction::Flatten, "test");
        self.control(vec![kill, Restriction::mode("spec.mode", mode, "test")]);
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
            let commands = match &mut self.recorder {
                None => self.engine.handle(event, &self.gate, now),
                Some(recorder) => recorder.turn(&mut self.engine, event, &self.gate, now),
            };
            for command in commands {
                events.extend(self.carry_out(command));
            }
        }
    }

    pub fn pass(&mut self, time: Duration) {
        let end = self.clock.boottime() + time;
        while self.clock.boottime() < end {
            self.clock.advance(TICK);
            self.gate.in_contact(self.clock.boottime());
            self.tell();
            self.give(Event::Tick);
        }
    }

    /// Tells the prices of both products, where they are told.
    pub fn tell(&mut self) {
        for product in [SPOT, FUTURE].into_iter().filter(|product| !self.untold.contains(product)).collect::<Vec<_>>() {
            self.told.insert(product.into(), self.touch);
            let touch = Some(self.touch);
            self.give(Event::Venue(VenueEvent::Touch { product: product.into(), touch }));
        }
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
        carry: carry_terms(),
        drain: Terms { timeout: Duration::from_secs(600), on_timeout: OnDrainTimeout::Hold },
    }
}
