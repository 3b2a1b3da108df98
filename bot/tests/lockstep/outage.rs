//! A kill in the middle of an outage. What was sent into it and had no answer may still be carried out: it counts as
//! filled until that is disproven (SAFETY §4), and everything else is closed at once.

use std::time::Duration;

use arbbot_crds::arbbot::KillAction;
use arbbot_crds::control::Restriction;
use rust_decimal::Decimal;
use serde_json::json;
use tokio::time::Instant;

use super::bot::Bot;
use super::exchange::Exchange;
use super::network::Network;
use super::{machine, paused};

/// From the end of the outage to a position that the exchange shows flat: the life of a token, 30 s, and two listings.
const CLOSED_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn a_kill_during_an_outage_closes_the_position_within_a_minute_of_its_end() {
    for (seed, outage) in [(1, 5), (2, 20), (3, 90), (4, 300)] {
        paused(async {
            let (exchange, network) = (Exchange::start(seed, false), Network::new(seed));
            let dir = tempfile::tempdir().unwrap();
            let mut bot = Bot::start(&machine(&exchange, &network, seed, dir.path()), 1).await;
            bot.wait("a position", |view| view.future_owned_contracts <= (-3).into()).await;
            exchange.fault(json!({"kind": "maintenance", "for": format!("{outage}s")})).await;
            let ends = Instant::now() + Duration::from_secs(outage);
            tokio::time::sleep(Duration::from_secs(3)).await;
            bot.control(vec![Restriction::kill("incident/aaaaaaaa-1", KillAction::Flatten, "drill")]).await;
            tokio::time::sleep_until(ends).await;
            let flat = async {
                // Less than the smallest order is left as dust.
                while exchange.truth().await.contracts != Decimal::ZERO {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(120), flat).await.expect("it never closes");
            let took = ends.elapsed();
            println!("outage of {outage} s: {took:?}");
            assert!(took <= CLOSED_WITHIN, "after an outage of {outage} s it took {took:?}: {:#?}", bot.view.borrow());
        });
    }
}
