//! Why the ledger did not do what it was asked.

use std::path::PathBuf;
use std::time::Duration;

use arbbot_crds::incident::IncidentId;

/// Why the ledger did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("the ledger {} is in use by another process; stop that process, or give this bot a directory of its own", .path.display())]
    Locked { path: PathBuf },
    #[error(
        "the ledger {} belongs to {field} {bound:?}, not {wanted:?}; set {field} back, or give the bot another name so \
         that it gets a ledger of its own", .path.display()
    )]
    Bound { path: PathBuf, field: &'static str, bound: String, wanted: String },
    #[error("there is no ledger {}; give the directory of the bot's ledger (--ledger-dir, or --state-dir of a bot that runs with -f)", .path.display())]
    Missing { path: PathBuf },
    #[error("{} exists and is not overwritten; give another name", .path.display())]
    Exists { path: PathBuf },
    #[error("the ledger {} has schema {version}, which is newer than this bot; run the bot version that wrote it", .path.display())]
    NewerSchema { path: PathBuf, version: i64 },
    #[error("order {client_order_id} is already in the ledger; an order id is used once")]
    DuplicateOrder { client_order_id: String },
    #[error("order {client_order_id} is not in the ledger; import it from the exchange's history first")]
    UnknownOrder { client_order_id: String },
    #[error(
        "order {client_order_id} has the id {known} at the exchange, and now also {new}; stop the bot and look at both \
         orders at the exchange"
    )]
    TwoOrders { client_order_id: String, known: String, new: String },
    #[error("incident {id} is not in the ledger; open it first")]
    UnknownIncident { id: IncidentId },
    #[error("incident {id} is released; only a new engagement of its source opens a new one")]
    ReleasedIncident { id: IncidentId },
    #[error("entry {entry} of the ledger {}: {problem}; the file was changed by something else, compare it with the exchange", .path.display())]
    Tampered { path: PathBuf, entry: i64, problem: String },
    #[error("the ledger {} cannot be read: {problem}", .path.display())]
    Corrupt { path: PathBuf, problem: String },
    #[error("the ledger {} did not {action}: {cause}; check the volume's space and health", .path.display())]
    Database { path: PathBuf, action: &'static str, cause: sqlx::Error },
    #[error("cannot {action} {}: {cause}; check the volume's space, health and permissions", .path.display())]
    File { path: PathBuf, action: &'static str, cause: std::io::Error },
    #[error("the kill journal {} is full: {waiting} records wait for the ledger; check the volume", .path.display())]
    JournalFull { path: PathBuf, waiting: usize },
    #[error("the disk under {} did not answer within {waited:?}; check the volume's health", .path.display())]
    Deadline { path: PathBuf, waited: Duration },
    #[error("a ledger record cannot be encoded: {cause}")]
    Unencodable { cause: serde_json::Error },
    #[error("the write to the ledger was stopped: {cause}")]
    Stopped { cause: tokio::task::JoinError },
}

impl LedgerError {
    /// Machine-readable name for logs and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "LedgerLocked",
            Self::Bound { .. } => "LedgerBoundToOther",
            Self::Missing { .. } => "LedgerMissing",
            Self::Exists { .. } => "FileExists",
            Self::NewerSchema { .. } => "LedgerSchemaNewer",
            Self::DuplicateOrder { .. } => "OrderDuplicate",
            Self::UnknownOrder { .. } => "OrderNotInLedger",
            Self::TwoOrders { .. } => "OrderTwiceAtExchange",
            Self::UnknownIncident { .. } => "IncidentNotInLedger",
            Self::ReleasedIncident { .. } => "IncidentReleased",
            Self::Tampered { .. } => "LedgerTampered",
            Self::Corrupt { .. } => "LedgerCorrupt",
            Self::Database { .. } | Self::File { .. } => "LedgerUnwritable",
            Self::JournalFull { .. } => "JournalFull",
            Self::Deadline { .. } => "LedgerTimeout",
            Self::Unencodable { .. } => "LedgerUnencodable",
            Self::Stopped { .. } => "LedgerStopped",
        }
    }

    /// Whether the disk or the database failed, rather than the ledger refusing what it was asked.
    #[must_use]
    pub fn is_storage(&self) -> bool {
        matches!(
            self,
            Self::Corrupt { .. }
                | Self::Database { .. }
                | Self::File { .. }
                | Self::JournalFull { .. }
                | Self::Deadline { .. }
                | Self::Stopped { .. }
        )
    }
}
