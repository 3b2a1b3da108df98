//! What tells whether the database works, apart from what is in it.

use super::super::LedgerError;
use super::Transaction;
use super::connection::query;

impl Transaction<'_> {
    /// Writes a page as it is.
    pub async fn rewrite(&mut self) -> Result<(), LedgerError> {
        self.execute(query("UPDATE binding SET bot_uid = bot_uid")).await
    }

    /// Reads every page of a file and checks its form.
    pub async fn check_pages(&mut self) -> Result<(), LedgerError> {
        let Some(row) = self.optional(query("PRAGMA quick_check(1)")).await? else { return Ok(()) };
        let problem: String = self.column(&row, "quick_check")?;
        if problem == "ok" { Ok(()) } else { Err(LedgerError::Corrupt { ledger: self.ledger(), problem }) }
    }
}
