//! The page `/status`.

use std::sync::Arc;

use serde_json::json;
use tokio::sync::watch;

use crate::control::report::ControlFacts;
use crate::execution::engine::View;
use crate::risk::Gate;

/// What `/status` shows: the gate's history is the proof of when it closed.
pub(super) fn status_page(
    bot: &str,
    pod_uid: String,
    gate: Arc<Gate>,
    facts: watch::Receiver<ControlFacts>,
    view: watch::Receiver<View>,
) -> Arc<dyn Fn() -> serde_json::Value + Send + Sync> {
    let bot = bot.to_owned();
    Arc::new(move || {
        let (control, contact) = gate.current();
        let (facts, view) = (facts.borrow().clone(), view.borrow().clone());
        json!({
            "bot": bot,
            "pod_uid": pod_uid,
            "effective_mode": control.mode(),
            "entry": control.entry,
            "duty": control.duty,
            "contact": contact,
            "restrictions": gate.restrictions().iter().map(|r| format!("{}: {}", r.source, r.why)).collect::<Vec<_>>(),
            "applied_generation": facts.generation,
            "incidents": facts.incidents,
            "open_orders": view.open_orders,
            "foreign_orders": view.foreign_orders,
            "position": {
                "future_contracts": view.future_owned_contracts,
                "spot_base": view.spot_owned_base,
            },
            "last_refusal": view.last_refusal,
            "gate": {"transitions": gate.history()},
        })
    })
}
