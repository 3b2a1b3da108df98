//! What the exchange's journal and the ledger's chain say of a whole run: an intent that became two orders shows here,
//! under whatever ids. (Where every failed placement is taken for "not placed", the user channel mostly tells of the order
//! in time; the engine's own tests do not have it and fail at once: docs/invariants.md, 4.)

pub mod accepted;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use arb_bot::execution::orders::parse_id;
use arb_bot::ledger;
use arb_bot::risk::Class;
use proptest::prelude::*;
use rust_decimal::Decimal;
use serde_json::Value;

use super::exchange::FUTURE;

/// The strategy has one order of a product at a time. While an order of it works at the exchange, or may, another is an
/// intent that was taken up twice. (What is stuck holds neither a kill nor a repair up, SAFETY §3.)
pub fn one_order_at_a_time(journal: &[Value]) -> Result<(), TestCaseError> {
    let mut working: BTreeMap<String, (String, Decimal)> = BTreeMap::new();
    for event in journal {
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let decimal = |name: &str| text(name).parse::<Decimal>().unwrap_or_default();
        let (id, product) = (text("client_order_id"), text("product_id"));
        match text("kind").as_str() {
            "order_accepted" => {
                let follows_the_strategy =
                    parse_id(&id).is_some_and(|id| matches!(id.class, Class::Enter | Class::Hedge | Class::Reduce));
                let other = working.iter().find(|(_, (of, _))| *of == product);
                prop_assert!(!follows_the_strategy || other.is_none(), "{} beside {:?}: {}", id, other, event);
                working.insert(id, (product, decimal("size")));
            }
            "fill" => {
                if let Some((_, left)) = working.get_mut(&id) {
                    *left -= decimal("filled");
                    if *left <= Decimal::ZERO {
                        working.remove(&id);
                    }
                }
            }
            "order_cancelled" | "order_expired" => drop(working.remove(&id)),
            _ => {}
        }
    }
    Ok(())
}

/// Spot is never short and the future never long: nothing was closed twice.
pub fn nothing_flipped(journal: &[Value]) -> Result<(), TestCaseError> {
    for event in journal.iter().filter(|event| event["kind"] == "position_changed") {
        let position: Decimal = event["position"].as_str().unwrap_or_default().parse().unwrap_or_default();
        let is_right =
            if event["product_id"] == FUTURE { position <= Decimal::ZERO } else { position >= Decimal::ZERO };
        prop_assert!(is_right, "{}", event);
    }
    Ok(())
}

/// An order that was given up as not placed never turned out to be placed: its intent may have been taken up again.
pub async fn nothing_was_given_up_too_early(ledger: &Path) -> Result<(), TestCaseError> {
    let mut given_up = BTreeSet::new();
    for (number, _, kind, payload, _) in ledger::entries(ledger).await.unwrap() {
        if kind != "Order" {
            continue;
        }
        let update: Value = serde_json::from_str(&payload).unwrap();
        let (id, status) = (update["client_order_id"].to_string(), update["status"].as_str().unwrap_or_default());
        if matches!(status, "NotPlaced" | "Rejected") {
            given_up.insert(id);
        } else {
            prop_assert!(!given_up.contains(&id), "entry {}: {} was given up before: {}", number, id, payload);
        }
    }
    Ok(())
}
