//! What the bot shows, and waiting for it.

use std::time::Duration;

use arb_bot::books::BooksView;
use arb_bot::control::lease::Standing;
use arb_bot::control::report::{Claim, ControlFacts, Facts, compose};
use arb_bot::exchange::SessionFacts;
use arb_bot::execution::engine::View;
use arb_bot::ledger::Ledger;
use arbbot_crds::ArbBotStatus;
use arbbot_crds::conditions::{self, ConditionType};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Bot;

impl Bot {
    /// Its status, as the status task composes it.
    pub fn status(&self) -> ArbBotStatus {
        let control = ControlFacts {
            generation: Some(self.generation),
            claim: Claim::Granted,
            standing: Some(Standing::Trader { epoch: 1 }),
            ..ControlFacts::default()
        };
        let (in_force, contact) = self.gate.current();
        let facts = Facts {
            control: &control,
            session: &self.facts.borrow(),
            view: &self.view.borrow(),
            books: &self.books.borrow(),
            in_force: &in_force,
            contact,
            restrictions: &self.gate.restrictions(),
            ledger: &self.ledger.as_ref().map(Ledger::head).unwrap_or_default(),
            pod_uid: "pod",
            node: "node",
        };
        compose(facts, &mut Vec::new(), &Time(self.clock.now()))
    }

    /// One of its conditions: status, reason and message.
    pub fn condition(&self, type_: ConditionType) -> (String, String, String) {
        let status = self.status();
        let condition = conditions::find(&status.conditions, type_).unwrap();
        (condition.status.clone(), condition.reason.clone(), condition.message.clone())
    }

    /// Waits until the books show it; after an hour they never will.
    pub async fn books(&self, shown: impl Fn(&BooksView) -> bool) -> BooksView {
        let mut seen = self.books.clone();
        let wait = seen.wait_for(|books| shown(books));
        match tokio::time::timeout(Duration::from_secs(3600), wait).await {
            Ok(books) => books.unwrap().clone(),
            Err(_) => panic!("{:#?}", *self.books.borrow()),
        }
    }

    /// Waits until the view shows it; after ten virtual minutes it never will.
    pub async fn wait(&self, what: &str, shown: impl Fn(&View) -> bool) -> View {
        self.wait_within(Duration::from_secs(600), what, shown).await
    }

    /// Waits until the view shows it; after so long it never will.
    pub async fn wait_within(&self, time: Duration, what: &str, shown: impl Fn(&View) -> bool) -> View {
        let mut seen = self.view.clone();
        let wait = seen.wait_for(|view| shown(view));
        match tokio::time::timeout(time, wait).await {
            Ok(view) => view.unwrap().clone(),
            Err(_) => panic!("{what}: {:#?} {:#?}", self.view.borrow(), self.gate.restrictions()),
        }
    }

    /// Waits until the kill that is in force is proven flat.
    pub async fn flat(&self, time: Duration) -> View {
        let incidents = self.incidents;
        let shown = |view: &View| view.incidents == incidents && view.proof.flat.confirmed;
        self.wait_within(time, "flat after a kill", shown).await
    }

    /// Waits until the session shows it; after ten virtual minutes it never will.
    pub async fn session(&self, what: &str, shown: impl Fn(&SessionFacts) -> bool) -> SessionFacts {
        let mut seen = self.facts.clone();
        let wait = seen.wait_for(|facts| shown(facts));
        match tokio::time::timeout(Duration::from_secs(600), wait).await {
            Ok(facts) => facts.unwrap().clone(),
            Err(_) => panic!("{what}: {:#?}", self.facts.borrow()),
        }
    }
}
