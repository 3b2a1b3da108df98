//! When the bot ends by itself, and what it does last.

use arbbot_crds::control::{Entry, Restriction};
use arbbot_crds::status::{DrainPhase, EffectiveMode};
use tokio::sync::watch;
use tokio::time::timeout;

use super::STOP_WITHIN;
use crate::control::report::SHUTDOWN;
use crate::execution::engine::View;
use crate::risk::Gate;
use crate::risk::gate::Slot;

/// Waits until a drain has finished, as the operator does before it scales a bot to zero.
pub(super) async fn drained(mut view: watch::Receiver<View>) {
    let finished = |view: &View| {
        view.mode == Some(EffectiveMode::Drain)
            && view.drain.as_ref().is_some_and(|drain| drain.phase == DrainPhase::Finished)
    };
    // It fails only once the engine has ended, and the program with it.
    if view.wait_for(finished).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Closes the gate and waits until no order works; a running kill is left to the next pod.
pub(super) async fn stop_orders(gate: &Gate, mut view: watch::Receiver<View>) {
    // What status said of a drained bot is proven anew, now that nothing can be sent: its last words stay true.
    let was_flat = view.borrow().proof.flat.confirmed;
    gate.set(Slot::Process, vec![Restriction::entry(SHUTDOWN, Entry::Halted, "the bot is being stopped")]);
    let gone = view.wait_for(|view| {
        let halted = matches!(view.mode, Some(EffectiveMode::Halted | EffectiveMode::Flatten));
        let proven = view.proof.orders_gone.first.is_some() && (view.proof.flat.confirmed || !was_flat);
        let never_sent_one = view.owned_since.is_none();
        halted && view.open_orders == 0 && (proven || never_sent_one)
    });
    if timeout(STOP_WITHIN, gone).await.is_err() {
        let open = view.borrow().open_orders;
        tracing::error!(open, "the exchange has not confirmed that no order works; what rests expires by itself");
    }
    // From here on nothing is sent, whatever is under way: the next pod may begin.
    gate.not_the_trader();
}
