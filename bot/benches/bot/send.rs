//! The whole driver with a ledger on the disk: a tick comes in, a durable order reaches the exchange.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arb_bot::assembly::{Assembled, Parts, assemble};
use arb_bot::clock::Clock;
use arb_bot::control::report::ControlFacts;
use arb_bot::control::task::params;
use arb_bot::exchange::{
    Exchange, ExchangeError, FeeRates, Fill, Holdings, KeyPermissions, Link, NewOrder, OrderState, OrderStatus, Placed,
    Product, VenueEvent,
};
use arb_bot::execution::driver::TICK;
use arb_bot::execution::engine::{Event, Identity, Now, Start, View};
use arb_bot::ledger::{Binding, Ledger, RecoveredGuards};
use arb_bot::risk::{Cleared, Gate};
use arb_bot::telemetry::metrics::Metrics;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::desk::{
    FUTURE, SPOT, bot, fees, future_product, holdings, no_touch, put_in_force, shown, spot_product, touch,
};

const WARM_UP: u32 = 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// An exchange that takes every order and says when it came.
struct Venue {
    orders: Mutex<BTreeMap<String, OrderState>>,
    sent: mpsc::UnboundedSender<(Instant, NewOrder)>,
}

impl Exchange for Venue {
    async fn key_permissions(&self) -> Result<KeyPermissions, ExchangeError> {
        Err(ExchangeError::NoSession)
    }

    async fn product(&self, id: &str) -> Result<Product, ExchangeError> {
        Ok(if id == SPOT { spot_product() } else { future_product(Timestamp::now()) })
    }

    async fn orders(&self, _: &[String], _: Option<Timestamp>) -> Result<Vec<OrderState>, ExchangeError> {
        Ok(self.orders.lock().unwrap().values().cloned().collect())
    }

    async fn order(&self, _: &str) -> Result<OrderState, ExchangeError> {
        Err(ExchangeError::NoSession)
    }

    async fn fills(&self, _: &[String]) -> Result<Vec<Fill>, ExchangeError> {
        Ok(Vec::new())
    }

    async fn fee_rates(&self) -> Result<FeeRates, ExchangeError> {
        Ok(fees())
    }

    async fn holdings(&self) -> Result<Holdings, ExchangeError> {
        Ok(holdings())
    }

    async fn place(&self, cleared: Cleared) -> Result<Placed, ExchangeError> {
        let came = Instant::now();
        let state = shown(cleared.order(), OrderStatus::Open);
        let order_id = state.order_id.clone();
        self.orders.lock().unwrap().insert(state.client_order_id.clone(), state);
        self.sent.send((came, cleared.order().clone())).unwrap();
        Ok(Placed::Accepted { order_id })
    }

    async fn cancel(&self, _: &[String]) -> Result<Vec<(String, String)>, ExchangeError> {
        Ok(Vec::new())
    }
}

/// Times from new best prices in the driver's queue to the order at the exchange's door, durable before.
pub fn tick_to_sent(orders: u32) -> Vec<Duration> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure(orders))
}

async fn measure(orders: u32) -> Vec<Duration> {
    // On the disk that the build is on: a file system in memory has nothing to wait for.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (bot, clock) = (bot(), Clock::system());
    let (ledger, _) = Ledger::open(dir.path(), &Binding::of(&bot), clock.clone()).await.unwrap();
    let gate = Arc::new(Gate::new(clock.clone()));
    let now = Now { boot: clock.boottime(), wall: clock.now() };
    let (_spec, spec_seen) = watch::channel(bot.clone());
    let (sent, mut came) = mpsc::unbounded_channel();
    let venue = Arc::new(Venue { orders: Mutex::default(), sent });
    let assembled = assemble::<Venue>(Parts {
        start: Start::anew(Identity::of(&bot), params(&bot), now),
        gate: Arc::clone(&gate),
        ledger,
        guards: RecoveredGuards::default(),
        clock: clock.clone(),
        metrics: Metrics::new().unwrap(),
        spec: spec_seen,
        control: watch::channel(ControlFacts::default()).1,
        tick: TICK,
        recorder: None,
        is_supervised: true,
        resident_memory: || None,
    });
    // The books are not kept, but who would keep them is there.
    let Assembled { driver, books_task: _books_task, exchange, events, mut view, kills: _kills, .. } = assembled;
    exchange.store(Some(Arc::clone(&venue)));
    let stop = CancellationToken::new();
    let running = tokio::spawn(driver.run(stop.clone()));

    gate.in_contact(clock.boottime());
    let change = put_in_force(&bot, &gate);
    events.send(Event::Lease { epoch: 1 }).await.unwrap();
    events.send(Event::Control(change)).await.unwrap();
    for link in [Link::MarketWebSocket, Link::UserWebSocket] {
        events.send(Event::Venue(VenueEvent::Link { link, down: None })).await.unwrap();
    }
    tokio::time::timeout(PATIENCE, view.wait_for(|view| view.seen_exchange)).await.unwrap().unwrap();
    let mut times = Vec::new();
    for n in 0..orders + WARM_UP {
        gate.in_contact(clock.boottime());
        events.send(no_touch()).await.unwrap();
        tokio::time::timeout(PATIENCE, cancel_all(&venue, &events, &view)).await.expect("nothing works");
        while came.try_recv().is_ok() {}
        events.send(touch(FUTURE, n.into())).await.unwrap();
        let began = Instant::now();
        events.send(touch(SPOT, n.into())).await.unwrap();
        let (at, _) = tokio::time::timeout(PATIENCE, came.recv()).await.expect("an order was sent").unwrap();
        if n >= WARM_UP {
            times.push(at.duration_since(began));
        }
    }
    stop.cancel();
    running.await.unwrap();
    times.sort_unstable();
    times
}

/// Cancels what works, and what was still under way, until the engine knows of nothing.
async fn cancel_all(venue: &Venue, events: &mpsc::Sender<Event>, seen: &watch::Receiver<View>) {
    loop {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let working: Vec<OrderState> = {
            let mut orders = venue.orders.lock().unwrap();
            orders.values_mut().for_each(|order| order.status = OrderStatus::Cancelled);
            std::mem::take(&mut *orders).into_values().collect()
        };
        if working.is_empty() && seen.borrow().open_orders == 0 {
            return;
        }
        for order in working {
            events.send(Event::Venue(VenueEvent::Order(order))).await.unwrap();
        }
    }
}
