//! What the state of the ledger takes from the bot: an order that cannot be remembered is not sent (SAFETY §6).

use std::sync::Arc;
use std::time::Duration;

use arbbot_crds::control::{Entry, Restriction};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::books::BooksView;
use crate::clock::Clock;
use crate::execution::engine::{Reconciliation, View};
use crate::ledger::{Ledger, LedgerProblem};
use crate::risk::{Gate, Slot};

/// How often file and volume are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// How long a look waits for the disk.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often all pages are read: at least so long apart, and never more than a thousandth of the time.
const PAGES_EVERY: Duration = Duration::from_secs(60);
const PAGES_SHARE: u32 = 1000;

/// What the sources of its restrictions begin with; the rest is a [`ProblemKind`](crate::ledger::ProblemKind) or [`REBUILDING`].
pub const SOURCE: &str = "ledger/";
/// The ledger is another one than before and is being rebuilt from the exchange's history.
pub const REBUILDING: &str = "Rebuilding";

/// The task.
pub struct LedgerTask {
    pub ledger: Ledger,
    pub gate: Arc<Gate>,
    pub clock: Clock,
    pub view: watch::Receiver<View>,
    pub books: watch::Receiver<BooksView>,
    /// Why the ledger is not the one that went before.
    pub rebuilding: Option<String>,
}

impl LedgerTask {
    /// Runs until it is told to stop.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut problems = self.ledger.problems();
        let mut pages_due = self.clock.boottime();
        // The one look at every page that is under way: it may take minutes, or hang with its disk.
        let mut pages = JoinSet::new();
        self.show(problems.borrow_and_update().as_ref());
        loop {
            if timeout(PATIENCE, self.ledger.check()).await.is_err() {
                self.ledger.does_not_answer(PATIENCE);
            }
            if pages.is_empty() && self.clock.boottime() >= pages_due {
                pages.spawn(look_at_pages(self.ledger.clone(), self.clock.clone()));
            }
            if self.rebuilding.is_some() && self.is_rebuilt() {
                self.rebuilding = None;
                tracing::warn!("the ledger is rebuilt from the exchange's history, and the positions match");
            }
            self.show(problems.borrow_and_update().as_ref());
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {
                    pages.shutdown().await;
                    return;
                }
                Some(looked) = pages.join_next() => {
                    // One that panicked is due again like one that took no time.
                    pages_due = self.clock.boottime() + PAGES_EVERY.max(looked.unwrap_or_default() * PAGES_SHARE);
                }
                // A write has failed or succeeded.
                Ok(()) = problems.changed() => self.show(problems.borrow_and_update().as_ref()),
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    /// Whether every order that the exchange remembers is known again with its fills, and what it shows is ours.
    fn is_rebuilt(&self) -> bool {
        let (view, books) = (self.view.borrow(), self.books.borrow());
        view.seen_exchange
            && view.unknown_orders == 0
            && view.reconciliation == Reconciliation::Matches
            && books.is_read
            && books.outstanding == 0
    }

    fn show(&self, problem: Option<&LedgerProblem>) {
        let halted = problem.map(|LedgerProblem { kind, message, .. }| {
            Restriction::entry(format!("{SOURCE}{kind}"), Entry::Halted, message.clone())
        });
        let rebuilding = self.rebuilding.as_ref().map(|why| {
            let why =
                format!("{why}; it is being rebuilt from the exchange's history, and entry opens when that matches");
            Restriction::entry(format!("{SOURCE}{REBUILDING}"), Entry::ReduceOnly, why)
        });
        self.gate.set(Slot::Ledger, halted.into_iter().chain(rebuilding).collect());
    }
}

/// Returns how long it took.
async fn look_at_pages(ledger: Ledger, clock: Clock) -> Duration {
    let began = clock.boottime();
    ledger.check_pages().await;
    clock.boottime().saturating_sub(began)
}
