//! The ArbBot that a test begins with.

use arbbot_crds::ArbBot;
use arbbot_crds::guards::defaults;
use serde_json::{Value, json};

use super::exchange::{FUTURE, SPOT};

pub const UID: &str = "0a1b2c3d-0000-0000-0000-000000000000";

/// A spec for an account; `changes` is merged into `spec.credentials` and `spec.venue.coinbase`.
pub fn spec(portfolio: &str, credentials: &Value, coinbase: &Value) -> ArbBot {
    let mut bot = json!({
        "apiVersion": "arbbot.io/v1alpha1", "kind": "ArbBot",
        "metadata": {"name": "bot", "namespace": "desk", "uid": UID, "generation": 1},
        "spec": {
            "execution": "Live",
            "venue": {"coinbase": {
                "portfolio": portfolio,
                "endpoints": [endpoint("simulator")],
                "requestsPerSecond": 30,
            }},
            "strategy": {"fundingCarry": {
                "spotProduct": SPOT, "futureProduct": FUTURE, "targetNotional": "10000",
                // A test does not watch the funding of a day first.
                "entry": {"minSamples": 1},
                "orders": {"legTimeout": "2s"},
            }},
            "credentials": {"secretRef": {"name": "key"}},
        },
    });
    for (part, changes) in [("/spec/credentials", credentials), ("/spec/venue/coinbase", coinbase)] {
        for (name, value) in changes.as_object().unwrap() {
            bot.pointer_mut(part).unwrap()[name] = value.clone();
        }
    }
    let mut bot: ArbBot = serde_json::from_value(bot).unwrap();
    // Faults strike here so often that the shipped guards would, rightly, keep entry closed most of the time; these tests
    // are about what happens while it is open. Those of the guards themselves put them back.
    bot.spec.risk.guards.list = defaults();
    for guard in &mut bot.spec.risk.guards.list {
        (guard.warn_at, guard.trip_at) = (None, None);
    }
    bot
}

pub fn endpoint(host: &str) -> Value {
    json!({
        "name": host,
        "restUrl": format!("https://{host}"),
        "marketWebSocketUrl": format!("wss://{host}/ws"),
        "userWebSocketUrl": format!("wss://{host}/ws/user"),
    })
}
