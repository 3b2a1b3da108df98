//! When the bot ends by itself, and what it does last.

use std::time::Duration;

use arbbot_crds::control::{Entry, Restriction};
use arbbot_crds::status::{DrainPhase, EffectiveMode, IncidentPhase, IncidentStatus};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::STOP_WITHIN;
use crate::control::report::{ControlFacts, SHUTDOWN};
use crate::execution::engine::View;
use crate::ledger::Ledger;
use crate::risk::Gate;
use crate::risk::gate::Slot;

/// How often a ledger is tried that could not be read at the start.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a kill has before a bot begins anew in the middle of it.
const KILL_WITHIN: Duration = Duration::from_secs(120);

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

/// Waits until a bot that started without its ledger may begin anew: it can be read, and no kill is under way that is
/// soon at its end.
pub(super) async fn ledger_is_back(ledger: &Ledger, control: watch::Receiver<ControlFacts>) {
    if !ledger.is_unread() {
        return std::future::pending().await;
    }
    let mut killing_since = None;
    let mut said = String::new();
    loop {
        sleep(LOOK_EVERY).await;
        if is_soon_over(&control, &mut killing_since) {
            continue;
        }
        match ledger.can_be_read().await {
            // A kill may have begun meanwhile.
            Ok(()) if is_soon_over(&control, &mut killing_since) => {}
            Ok(()) => return,
            Err(error) if error.to_string() == said => {}
            Err(error) => {
                tracing::warn!(reason = error.reason(), %error, "the ledger cannot be read yet; it is tried every second");
                said = error.to_string();
            }
        }
    }
}

/// Whether a kill is under way that may still come to its end by itself. One that waits, for a session to open or for an
/// exchange that is away, goes on in the next process.
fn is_soon_over(control: &watch::Receiver<ControlFacts>, since: &mut Option<Instant>) -> bool {
    let is_finished = |incident: &IncidentStatus| incident.phase == IncidentPhase::Finished;
    if control.borrow().incidents.iter().all(is_finished) {
        *since = None;
        return false;
    }
    since.get_or_insert_with(Instant::now).elapsed() < KILL_WITHIN
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
        let remaining: Vec<_> = view.borrow().remaining.iter().map(ToString::to_string).collect();
        let orders = remaining.join(", ");
        tracing::error!(open = remaining.len(), orders, "the exchange has not confirmed that these orders are gone");
    }
    // From here on nothing is sent, whatever is under way: the next pod may begin.
    gate.not_the_trader();
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;
    use crate::control::fixtures;
    use crate::ledger::{Binding, LedgerError};
    use crate::risk::Class;

    fn incident(phase: IncidentPhase) -> ControlFacts {
        let kill = serde_json::json!({
            "id": "0b9d6bcd-2", "source": "ArbBot/carry", "action": "Flatten", "engagedAt": "2026-11-21T10:00:00Z", "phase": phase,
        });
        ControlFacts { incidents: vec![serde_json::from_value(kill).unwrap()], ..ControlFacts::default() }
    }

    /// Fails when a kill is cut in its middle, and when one that never ends keeps the bot without its ledger.
    #[tokio::test(start_paused = true)]
    async fn a_bot_begins_anew_with_its_ledger_after_its_kill_or_after_two_minutes_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let bot = fixtures::bot();
        let why = LedgerError::Missing { ledger: "desk/carry".to_owned() };
        let clock = Clock::driven_by_tokio("2026-11-21T10:00:00Z".parse().unwrap());
        let (ledger, _) = Ledger::unread(dir.path(), &Binding::of(&bot), None, clock, &why).unwrap();
        for (facts, seconds) in [
            (ControlFacts::default(), 1),
            (incident(IncidentPhase::Finished), 1),
            (incident(IncidentPhase::Flattening), 1 + KILL_WITHIN.as_secs()),
        ] {
            let began = Instant::now();
            ledger_is_back(&ledger, watch::channel(facts).1).await;
            assert_eq!(began.elapsed().as_secs(), seconds);
        }
        let (opened, _) = Ledger::open(&dir.path().join("other"), &Binding::of(&bot), Clock::manual()).await.unwrap();
        let never = ledger_is_back(&opened, watch::channel(ControlFacts::default()).1);
        assert!(timeout(Duration::from_secs(3600), never).await.is_err(), "it has its ledger");
    }

    /// Invariant 18: a bot that is told to stop ends within its bound, also where the exchange never answers, and
    /// afterwards it sends nothing. Proven by mutation: the gate left open at the end.
    #[tokio::test(start_paused = true)]
    async fn a_bot_whose_orders_do_not_go_stops_all_the_same_and_sends_nothing_more() {
        let clock = Clock::manual();
        let gate = Gate::new(clock.clone());
        gate.in_contact(clock.boottime());
        let mut view = fixtures::view(&clock, &gate.current().0);
        (view.open_orders, view.owned_since) = (1, Some(clock.now()));
        let (_keeps, seen) = tokio::sync::watch::channel(view);
        let began = Instant::now();
        stop_orders(&gate, seen).await;
        assert!((STOP_WITHIN..STOP_WITHIN + Duration::from_secs(1)).contains(&began.elapsed()));
        for class in [Class::Enter, Class::Hedge, Class::Trim, Class::Reduce, Class::Kill] {
            assert!(gate.allows(class).is_err(), "{class}");
        }
    }
}
