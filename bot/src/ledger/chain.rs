//! The hash chain over the ledger's entries. Pure.

use arbbot_crds::status::LedgerStatus;
use sha2::{Digest, Sha256};

/// Head of a chain without entries.
pub(super) fn genesis() -> LedgerStatus {
    LedgerStatus { entries: 0, head: "0".repeat(64) }
}

/// The head after an entry: `sha256(head \n n \n at \n kind \n payload)` in hex. Numbering and time are covered, and
/// only the payload, which comes last, may contain a line break.
pub(super) fn append(head: &LedgerStatus, at: &str, kind: &str, payload: &str) -> LedgerStatus {
    let entries = head.entries + 1;
    let hash = Sha256::digest(format!("{}\n{entries}\n{at}\n{kind}\n{payload}", head.head));
    LedgerStatus { entries, head: format!("{hash:x}") }
}
