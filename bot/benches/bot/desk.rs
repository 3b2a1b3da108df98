//! What the engine is told of the exchange.

use std::collections::BTreeMap;
use std::time::Duration;

use arb_bot::control::task::params;
use arb_bot::exchange::{
    CarryTerms, FeeRates, FutureDetails, Holdings, NewOrder, OrderState, OrderStatus, Product, Touch, VenueEvent,
};
use arb_bot::execution::engine::{ControlChange, Event, Now, Snapshot};
use arb_bot::risk::{Gate, Slot};
use arbbot_crds::ArbBot;
use arbbot_crds::guards::defaults;
use k8s_openapi::jiff::Timestamp;
use rust_decimal::{Decimal, dec};
use serde_json::json;

pub const SPOT: &str = "BTC-USD";
pub const FUTURE: &str = "BIP-20DEC30-CDE";
pub const START: &str = "2026-11-16T15:00:00Z";

/// A bot that never waits for funding, and whose guards do not act.
pub fn bot() -> ArbBot {
    let mut bot: ArbBot = serde_json::from_value(json!({
        "apiVersion": "arbbot.io/v1alpha1", "kind": "ArbBot",
        "metadata": {"name": "bench", "uid": "be9c4000-0000-0000-0000-000000000000", "generation": 1},
        "spec": {
            "execution": "Paper",
            "venue": {"coinbase": {}},
            "strategy": {"fundingCarry": {
                "spotProduct": SPOT, "futureProduct": FUTURE, "targetNotional": "10000", "entry": {"minSamples": 1},
            }},
        },
    }))
    .unwrap();
    bot.spec.risk.limits.max_orders_per_minute = 6000;
    bot.spec.risk.guards.list = defaults();
    for guard in &mut bot.spec.risk.guards.list {
        (guard.warn_at, guard.trip_at) = (None, None);
    }
    bot
}

/// Puts the spec in force.
pub fn put_in_force(bot: &ArbBot, gate: &Gate) -> ControlChange {
    gate.set(Slot::Claim, Vec::new());
    gate.set_control(&bot.spec.risk.limits, &bot.spec.control_timeouts, Vec::new(), Some(1), Vec::new());
    let params = params(bot);
    ControlChange { generation: Some(1), params, incidents: 0, releases: 0, kill_began: None, drain: None }
}

pub fn spot_product() -> Product {
    Product {
        id: SPOT.into(),
        base_currency: "BTC".into(),
        quote_currency: "USD".into(),
        price_increment: dec!(0.01),
        size_increment: dec!(0.00000001),
        min_size: dec!(0.00001),
        min_notional_quote: dec!(1),
        unit_base: dec!(1),
        tradable: true,
        future: None,
    }
}

/// With the rate of the hour that ended last: one that none follows grows old.
pub fn future_product(now: Timestamp) -> Product {
    let hour = now.as_second().div_euclid(3600) * 3600;
    let terms = CarryTerms {
        long_margin: dec!(0.25),
        short_margin: dec!(0.306),
        funding_rate: dec!(0.00003),
        funding_time: Timestamp::from_second(hour).ok(),
    };
    Product {
        id: FUTURE.into(),
        price_increment: dec!(5),
        size_increment: dec!(1),
        min_size: dec!(1),
        min_notional_quote: dec!(0),
        unit_base: dec!(0.01),
        future: Some(FutureDetails::in_session(true, terms)),
        ..spot_product()
    }
}

pub fn fees() -> FeeRates {
    let (maker, taker) = (dec!(0.0002), dec!(0.0005));
    FeeRates { spot_maker: maker, spot_taker: taker, future_maker: maker, future_taker: taker }
}

pub fn holdings() -> Holdings {
    let balances = BTreeMap::from([("USD".to_owned(), dec!(100000))]);
    Holdings { contracts: BTreeMap::new(), balances, futures_collateral_quote: dec!(50000) }
}

pub fn snapshot(started: Now, orders: Vec<OrderState>) -> Event {
    let (spot, future) = (spot_product(), future_product(started.wall));
    Event::Snapshot(Box::new(Ok(Snapshot { started, orders, holdings: holdings(), spot, future })))
}

/// New best prices; the `n`th are others than the one before.
pub fn touch(product: &str, n: u64) -> Event {
    let bid = dec!(60000) + Decimal::from(n % 40) * dec!(5);
    let touch = Some(Touch { best_bid: bid, best_ask: bid + dec!(5) });
    Event::Venue(VenueEvent::Touch { product: product.to_owned(), touch })
}

/// The book of spot is not known for a moment.
pub fn no_touch() -> Event {
    Event::Venue(VenueEvent::Touch { product: SPOT.to_owned(), touch: None })
}

pub fn shown(order: &NewOrder, status: OrderStatus) -> OrderState {
    OrderState {
        order_id: format!("of-{}", order.client_order_id),
        client_order_id: order.client_order_id.clone(),
        product: order.product.clone(),
        side: order.side,
        status,
        filled: Decimal::ZERO,
        average_price: Decimal::ZERO,
        fees_quote: Decimal::ZERO,
        size: Some(order.size),
        created_at: None,
    }
}

pub fn later(now: Now, by: Duration) -> Now {
    Now { boot: now.boot + by, wall: now.wall + by }
}
