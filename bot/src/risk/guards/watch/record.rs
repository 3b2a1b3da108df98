//! What the ledger keeps of the guards, and the task that writes it.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::ledger::{EquityHigh, GuardTrip, Ledger, LedgerError};

/// Pause after the disk did not take a record.
const AGAIN: Duration = Duration::from_secs(1);

/// What the ledger is to keep.
#[derive(Clone, Debug)]
pub(super) enum Record {
    Tripped(GuardTrip),
    /// `by_hand`: the guard starts anew once this is durable.
    Ended {
        guard: String,
        tripped_at: Timestamp,
        at: Timestamp,
        by_hand: bool,
    },
    Equity(Vec<EquityHigh>),
}

/// Writes records one after the other, each until the disk takes it.
pub struct Recorder {
    pub(super) ledger: Ledger,
    pub(super) queue: mpsc::UnboundedReceiver<Record>,
    pub(super) kept: mpsc::UnboundedSender<Record>,
}

impl Recorder {
    /// Runs until the guards end. What the ledger refuses for good is not kept: a release in it counts for nothing.
    pub async fn run(mut self) {
        while let Some(record) = self.queue.recv().await {
            match self.keep_at_last(&record).await {
                // Nobody listens any more once the program ends.
                Ok(()) => drop(self.kept.send(record)),
                Err(error) => {
                    tracing::error!(reason = error.reason(), %error, "the ledger refuses a record of a guard");
                }
            }
        }
    }

    /// Tries until the disk takes it.
    async fn keep_at_last(&self, record: &Record) -> Result<(), LedgerError> {
        let mut is_said = false;
        loop {
            match self.keep(record).await {
                Err(error) if error.is_storage() => {
                    if !std::mem::replace(&mut is_said, true) {
                        tracing::error!(reason = error.reason(), %error,
                            "a record of a guard is not durable; it holds in memory and in status, and is tried again");
                    }
                }
                result => return result,
            }
            sleep(AGAIN).await;
        }
    }

    async fn keep(&self, record: &Record) -> Result<(), LedgerError> {
        match record {
            Record::Tripped(trip) => self.ledger.guard_tripped(trip).await,
            Record::Ended { guard, tripped_at, at, .. } => self.ledger.guard_ended(guard, *tripped_at, *at).await,
            Record::Equity(highs) => self.ledger.keep_equity(highs).await,
        }
    }
}
