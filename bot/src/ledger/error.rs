//! Why the ledger did not do what it was asked.

use std::path::PathBuf;
use std::time::Duration;

use arbbot_crds::incident::IncidentId;

/// Why the ledger did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error(
        "the ledger {ledger} is in use by another process; stop that process, or give this bot a ledger of its own"
    )]
    Locked { ledger: String },
    #[error(
        "the ledger {ledger} belongs to {field} {bound:?}, not {wanted:?}; set {field} back, or give the bot another name \
         so that it gets a ledger of its own"
    )]
    Bound { ledger: String, field: &'static str, bound: String, wanted: String },
    #[error(
        "there is no ledger {ledger}; give the directory of the bot's ledger (--ledger-dir, or --state-dir of a bot that \
         runs with -f), or --postgres and --schema"
    )]
    Missing { ledger: String },
    #[error("{} holds the ledger {found}, not {wanted}: the kind of a ledger is immutable; give the bot another name, or another directory", .dir.display())]
    OtherKind { dir: PathBuf, found: String, wanted: String },
    #[error("the Secret of the ledger in {}: {problem}", .dir.display())]
    Secret { dir: PathBuf, problem: String },
    #[error("{} exists and is not overwritten; give another name", .path.display())]
    Exists { path: PathBuf },
    #[error("there is no {what} {}; {advice}", .path.display())]
    NoPath { path: PathBuf, what: &'static str, advice: &'static str },
    #[error(
        "{} is a file; give the directory of a ledger. A backup is verified when it is restored into a directory",
        .path.display()
    )]
    NotADirectory { path: PathBuf },
    #[error(
        "the ledger {ledger} has schema {version}, which is newer than this bot; run the bot version that wrote it"
    )]
    NewerSchema { ledger: String, version: i64 },
    #[error(
        "an order of epoch {epoch} is refused: the ledger {ledger} has taken one of epoch {newest}, so another process \
         trades for this bot; this one must send nothing"
    )]
    Fenced { ledger: String, epoch: i64, newest: i64 },
    #[error(
        "the ledger {ledger} was taken over by another process while this one had no connection; stop one of the two"
    )]
    TakenOver { ledger: String },
    #[error(
        "the ledger {ledger} has lost what it had acknowledged up to entry {entries}: the server was restored, or failed \
         over to a replica that lagged; restart the bot, which reads the exchange's history instead"
    )]
    EntriesLost { ledger: String, entries: i64 },
    #[error(
        "the ledger {ledger} could not be read when the bot started ({problem}): nothing is opened, and what a kill does is kept in \
         the kill journal"
    )]
    Unread { ledger: String, problem: String },
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
    #[error(
        "entry {entry} of the ledger {ledger}: {problem}; it was changed by something else, compare it with the exchange"
    )]
    Tampered { ledger: String, entry: i64, problem: String },
    #[error("the ledger {} is gone, or another file is in its place, while the bot runs: what it writes would be lost", .path.display())]
    Gone { path: PathBuf },
    #[error("the ledger {ledger} cannot be read: {problem}")]
    Corrupt { ledger: String, problem: String },
    #[error("the ledger {ledger} did not {action}: {cause}; check the volume's space and health")]
    Database { ledger: String, action: &'static str, cause: sqlx::Error },
    #[error(
        "the ledger {ledger} did not {action}: {cause}; check the database server, the way to it and the ledger's Secret"
    )]
    Server { ledger: String, action: &'static str, cause: sqlx::Error },
    #[error("cannot {action} {}: {cause}; check the volume's space, health and permissions", .path.display())]
    File { path: PathBuf, action: &'static str, cause: std::io::Error },
    #[error("the kill journal {} is full: {waiting} records wait for the ledger; check the volume", .path.display())]
    JournalFull { path: PathBuf, waiting: usize },
    #[error("{place} did not answer within {waited:?}; check the volume's or the database server's health")]
    Deadline { place: String, waited: Duration },
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
            Self::OtherKind { .. } => "LedgerKindChanged",
            Self::Secret { .. } => "LedgerSecretInvalid",
            Self::Exists { .. } => "FileExists",
            Self::NoPath { .. } => "PathMissing",
            Self::NotADirectory { .. } => "NotADirectory",
            Self::NewerSchema { .. } => "LedgerSchemaNewer",
            Self::Fenced { .. } => "LedgerFenced",
            Self::TakenOver { .. } => "LedgerTakenOver",
            Self::EntriesLost { .. } => "LedgerEntriesLost",
            Self::Unread { .. } => "LedgerUnread",
            Self::DuplicateOrder { .. } => "OrderDuplicate",
            Self::UnknownOrder { .. } => "OrderNotInLedger",
            Self::TwoOrders { .. } => "OrderTwiceAtExchange",
            Self::UnknownIncident { .. } => "IncidentNotInLedger",
            Self::ReleasedIncident { .. } => "IncidentReleased",
            Self::Tampered { .. } => "LedgerTampered",
            Self::Gone { .. } => "LedgerGone",
            Self::Corrupt { .. } => "LedgerCorrupt",
            Self::Database { .. } | Self::Server { .. } | Self::File { .. } => "LedgerUnwritable",
            Self::JournalFull { .. } => "JournalFull",
            Self::Deadline { .. } => "LedgerTimeout",
            Self::Unencodable { .. } => "LedgerUnencodable",
            Self::Stopped { .. } => "LedgerStopped",
        }
    }

    /// Whether the same may succeed a moment later without anybody changing the ledger: its server is away, its Secret
    /// is not yet right, or another process still has it.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Server { .. } | Self::Secret { .. } | Self::Locked { .. })
    }

    /// Whether the disk or the database failed, rather than the ledger refusing what it was asked.
    #[must_use]
    pub fn is_storage(&self) -> bool {
        matches!(
            self,
            Self::Gone { .. }
                | Self::Corrupt { .. }
                | Self::Database { .. }
                | Self::Server { .. }
                | Self::Secret { .. }
                | Self::TakenOver { .. }
                | Self::EntriesLost { .. }
                | Self::Unread { .. }
                | Self::File { .. }
                | Self::JournalFull { .. }
                | Self::Deadline { .. }
                | Self::Stopped { .. }
        )
    }
}
