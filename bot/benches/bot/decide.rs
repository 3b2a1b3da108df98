//! The engine alone: a tick comes in, an encoded order comes out.

use std::time::{Duration, Instant};

use arb_bot::clock::Clock;
use arb_bot::control::task::params;
use arb_bot::exchange::{Link, NewOrder, OrderKind, OrderStatus, Placed, Product, Side, VenueEvent, venue};
use arb_bot::execution::engine::{Command, Engine, Event, Identity, Now, Start};
use arb_bot::risk::exposure::Leg;
use arb_bot::risk::{Class, Exposure, Gate, admit};
use rust_decimal::{Decimal, dec};

use crate::desk::{
    SPOT, START, bot, fees, future_product, later, no_touch, put_in_force, shown, snapshot, spot_product, touch,
};

const WARM_UP: u32 = 2_000;

/// Times of `admit` with all limits and of the gate's second look, of an order that raises a leg.
pub fn risk_gate(samples: u32) -> Vec<Duration> {
    let bot = bot();
    let (clock, exposure) = (Clock::system(), exposure());
    let gate = Gate::new(clock.clone());
    put_in_force(&bot, &gate);
    gate.set(arb_bot::risk::Slot::Engine, Vec::new());
    let order = NewOrder {
        client_order_id: "be9c4000-1-1-E".to_owned(),
        product: SPOT.to_owned(),
        side: Side::Buy,
        size: dec!(0.02),
        kind: OrderKind::PostOnly { limit_price: dec!(60000), expires_at: START.parse().unwrap() },
    };
    let mut times = Vec::new();
    for n in 0..samples + WARM_UP {
        gate.in_contact(clock.boottime());
        let (control, contact) = gate.current();
        let order = order.clone();
        let began = Instant::now();
        let permit = admit(order, Class::Enter, &exposure, &control, contact).unwrap();
        let cleared = gate.clear(permit).unwrap();
        let took = began.elapsed();
        std::hint::black_box(cleared);
        if n >= WARM_UP {
            times.push(took);
        }
    }
    times.sort_unstable();
    times
}

fn exposure() -> Exposure {
    let leg = |product: Product, owned: Decimal| Leg {
        product: product.into(),
        owned,
        deficit: Decimal::ZERO,
        buys: Decimal::ZERO,
        sells: Decimal::ZERO,
        mid: Some(dec!(60002.5)),
        index: Some(dec!(60001)),
    };
    Exposure {
        spot: leg(spot_product(), dec!(0.05)),
        future: leg(future_product(START.parse().unwrap()), dec!(-5)),
        open_orders: 1,
        orders_last_minute: 10,
        futures_collateral_quote: dec!(50000),
        spot_cost_quote: Decimal::ZERO,
    }
}

/// Times from new best prices in hand to the encoded order that is to be made durable.
pub fn tick_to_order(orders: u32) -> Vec<Duration> {
    let mut desk = Desk::open();
    let mut times = Vec::new();
    for n in 0..orders + WARM_UP {
        let took = desk.round(n.into());
        if n >= WARM_UP {
            times.push(took);
        }
    }
    times.sort_unstable();
    times
}

struct Desk {
    engine: Engine,
    gate: Gate,
    clock: Clock,
    now: Now,
    working: Vec<NewOrder>,
}

impl Desk {
    fn open() -> Self {
        let (bot, clock) = (bot(), Clock::system());
        let now = Now { boot: Duration::from_secs(100_000), wall: START.parse().unwrap() };
        let gate = Gate::new(clock.clone());
        let engine = Start::anew(Identity::of(&bot), params(&bot), now).engine();
        let change = put_in_force(&bot, &gate);
        let mut desk = Self { engine, gate, clock, now, working: Vec::new() };
        desk.gate.in_contact(desk.clock.boottime());
        desk.give(Event::Lease { epoch: 1 });
        desk.give(Event::Control(change));
        for link in [Link::MarketWebSocket, Link::UserWebSocket] {
            desk.give(Event::Venue(VenueEvent::Link { link, down: None }));
        }
        desk.give(Event::Fees(Ok(fees())));
        desk.give(snapshot(now, Vec::new()));
        desk
    }

    /// Nothing works and the book of spot is not known; then it is, and the engine wants an order.
    fn round(&mut self, n: u64) -> Duration {
        self.gate.in_contact(self.clock.boottime());
        self.now = later(self.now, Duration::from_secs(2));
        self.give(no_touch());
        for order in std::mem::take(&mut self.working) {
            self.give(Event::Venue(VenueEvent::Order(shown(&order, OrderStatus::Cancelled))));
        }
        self.give(snapshot(self.now, Vec::new()));
        self.give(touch(crate::desk::FUTURE, n));
        assert!(self.working.is_empty(), "the engine trades without prices");
        let event = touch(SPOT, n);
        let began = Instant::now();
        let commands = self.engine.handle(event, &self.gate, self.now);
        let place = commands.iter().find_map(|command| match command {
            Command::Place { permit, .. } => Some(permit.order()),
            _ => None,
        });
        let order = place.unwrap_or_else(|| panic!("round {n} has no order: {:#?}", self.gate.restrictions()));
        let (path, body) = venue::new_order(order, true);
        let encoded = serde_json::to_vec(&body).unwrap();
        let took = began.elapsed();
        std::hint::black_box((path, encoded));
        self.carry_out(commands);
        took
    }

    fn give(&mut self, event: Event) {
        let commands = self.engine.handle(event, &self.gate, self.now);
        self.carry_out(commands);
    }

    fn carry_out(&mut self, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::Place { permit, .. } => {
                    let order = permit.order().clone();
                    let client_order_id = order.client_order_id.clone();
                    let order_id = shown(&order, OrderStatus::Open).order_id;
                    self.working.push(order);
                    self.give(Event::Placed { client_order_id, result: Ok(Placed::Accepted { order_id }) });
                }
                Command::Fees => self.give(Event::Fees(Ok(fees()))),
                _ => {}
            }
        }
    }
}
