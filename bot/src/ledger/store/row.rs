//! What the columns of a row hold.

use std::fmt::Display;
use std::str::FromStr;

use super::super::LedgerError;
use super::Transaction;
use super::connection::{Readable, Row};

impl Transaction<'_> {
    pub(super) fn column<T: Readable>(&self, row: &Row, name: &str) -> Result<T, LedgerError> {
        row.get(name).map_err(|cause| self.unreadable(name, &cause))
    }

    pub(super) fn parse<T: FromStr<Err: Display>>(&self, row: &Row, name: &str) -> Result<T, LedgerError> {
        self.column::<String>(row, name)?.parse().map_err(|cause| self.unreadable(name, &cause))
    }

    pub(super) fn parse_option<T: FromStr<Err: Display>>(
        &self,
        row: &Row,
        name: &str,
    ) -> Result<Option<T>, LedgerError> {
        let text: Option<String> = self.column(row, name)?;
        text.map(|text| text.parse().map_err(|cause| self.unreadable(name, &cause))).transpose()
    }

    pub(super) fn unreadable(&self, name: &str, cause: &dyn Display) -> LedgerError {
        LedgerError::Corrupt { ledger: self.source.to_string(), problem: format!("column {name}: {cause}") }
    }
}
