//! The bot without Kubernetes: engine, driver, ledger and session as `arb-bot run` puts them together; the test gives
//! the control.

mod control;
mod shown;
mod start;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arb_bot::books::BooksView;
use arb_bot::clock::Clock;
use arb_bot::control::report::ControlFacts;
use arb_bot::exchange::SessionFacts;
use arb_bot::exchange::venue::Dial;
use arb_bot::execution::engine::{Event, View};
use arb_bot::ledger::{Binding, Ledger, LedgerError, LedgerHead, Recovered};
use arb_bot::risk::Gate;
use arbbot_crds::ArbBot;
use arbbot_crds::control::Control;
use futures::executor::block_on;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use control::ControlParts;

/// Every control that a bot put in force, and when.
pub type Acknowledged = Arc<Mutex<Vec<(Timestamp, Control)>>>;

/// Where a bot runs: what outlives it.
pub struct Machine<'a> {
    pub clock: Clock,
    /// How often the engine looks at the time.
    pub tick: Duration,
    pub seed: u64,
    /// Ledger in `ledger`, keys in `primary` and `backup`.
    pub dir: &'a Path,
    pub dial: Dial,
    pub spec: ArbBot,
    pub acknowledged: Acknowledged,
    /// Head of the ledger as an earlier status anchored it.
    pub anchor: Mutex<Option<LedgerHead>>,
    /// Where each of its lives is recorded.
    pub record: Option<PathBuf>,
}

impl Machine<'_> {
    /// Opens its ledger, once what the last process left under way has ended.
    pub async fn ledger(&self) -> Result<(Ledger, Recovered), LedgerError> {
        let (dir, binding) = (self.dir.join("ledger"), Binding::of(&self.spec));
        loop {
            match Ledger::open(&dir, &binding, self.clock.clone()).await {
                // It ends with the next turn of the runtime.
                Err(LedgerError::Locked { .. }) => tokio::task::yield_now().await,
                opened => return opened,
            }
        }
    }
}

pub struct Bot {
    tasks: JoinSet<()>,
    pub view: watch::Receiver<View>,
    pub books: watch::Receiver<BooksView>,
    pub facts: watch::Receiver<SessionFacts>,
    pub gate: Arc<Gate>,
    pub spec: watch::Sender<ArbBot>,
    events: mpsc::Sender<Event>,
    generation: i64,
    incidents: u64,
    releases: u64,
    is_killed: bool,
    /// As the control task keeps it.
    kill_began: Option<Timestamp>,
    clock: Clock,
    acknowledged: Acknowledged,
    /// None once it has ended.
    ledger: Option<Ledger>,
    /// What the control task shows, where [`Bot::under_control`] has put one to work.
    pub control_facts: watch::Receiver<ControlFacts>,
    control: Option<ControlParts>,
    /// Cancelled when a guard restarts the bot; nothing here does.
    pub restart: CancellationToken,
    stop: CancellationToken,
}

impl Bot {
    /// Whether every part of it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.tasks.try_join_next().is_none()
    }

    /// Ends it as `arb-bot run` does once no order works.
    pub async fn stop(mut self) {
        self.stop.cancel();
        // Closed by the end of the driver.
        while self.view.changed().await.is_ok() {}
        self.end().await;
    }

    /// kill -9: nothing of it runs a step further.
    pub async fn kill(mut self) {
        self.end().await;
    }

    /// The same; what it showed last can still be read.
    pub async fn end(&mut self) {
        self.tasks.shutdown().await;
        if let Some(ledger) = self.ledger.take() {
            // Its connection would end a moment later, and take away by its name the log of whatever is there then.
            block_on(ledger.close());
        }
    }
}
