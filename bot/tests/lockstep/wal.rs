//! Durable before sent (SAFETY §6): what the ledger's file holds at the moment at which an order's first byte arrives.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use arb_bot::ledger;
use futures::executor::block_on;
use serde_json::Value;

use super::desk::{Desk, Step, at_a_desk, finish};
use super::paused;

/// Invariant 3, the first half. What another connection reads of the file is committed: it would be there after a crash.
///
/// Proven by mutation: with `Io::send` writing the intent after the exchange has answered, the first order is missing.
#[test]
fn every_order_is_in_the_ledger_before_its_first_byte_is_sent() {
    for seed in [1, 2] {
        paused(at_a_desk(seed, false, async |mut desk: Desk<'_>| {
            let dir = desk.machine.dir.join("ledger");
            let seen: Arc<Mutex<BTreeSet<String>>> = Arc::default();
            let arrived = Arc::clone(&seen);
            desk.network.on_order(move |body: &str| {
                let order: Value = serde_json::from_str(body).unwrap();
                let id = order["client_order_id"].as_str().unwrap().to_owned();
                let known = block_on(ledger::orders(&dir)).unwrap();
                assert!(
                    known.iter().any(|order| order.client_order_id == id),
                    "{id} was sent and is not in the ledger"
                );
                arrived.lock().unwrap().insert(id);
            });
            desk.bot.wait("a position", |view| view.future_owned_contracts <= (-3).into()).await;
            let script = [
                Step::Faults { percent: 30, orders_only: true, cut_per_mille: 0, tenths: 100 },
                Step::KillAtOrder { steps: 4 },
                Step::Pass { tenths: 50 },
                Step::KillSwitch,
            ];
            for step in &script {
                desk = desk.take(step).await;
            }
            desk.bot.flat(std::time::Duration::from_secs(600)).await;
            let kinds: BTreeSet<String> = {
                let seen = seen.lock().unwrap();
                assert!(seen.len() > 6, "{seen:?}");
                seen.iter().filter_map(|id| id.rsplit('-').next().map(str::to_owned)).collect()
            };
            assert!(kinds.contains("Enter") && kinds.contains("Kill"), "{kinds:?}");
            finish(desk).await.unwrap();
        }));
    }
}
