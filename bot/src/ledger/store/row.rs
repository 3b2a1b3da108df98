//! Rows of the tables, and what they hold.

use std::fmt::Display;
use std::str::FromStr;

use k8s_openapi::jiff::Timestamp;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::super::LedgerError;
use super::super::record::{IncidentRecord, OrderRecord};
use super::Transaction;

impl Transaction<'_> {
    pub(super) fn read_order(&self, row: &SqliteRow) -> Result<OrderRecord, LedgerError> {
        Ok(OrderRecord {
            client_order_id: self.column(row, "client_order_id")?,
            epoch: self.column(row, "epoch")?,
            class: self.parse_option(row, "class")?,
            product: self.column(row, "product")?,
            side: self.parse(row, "side")?,
            size: self.parse(row, "size")?,
            kind: self.column(row, "kind")?,
            limit_price: self.parse_option(row, "limit_price")?,
            expires_at: self.parse_option(row, "expires_at")?,
            created_at: self.parse(row, "created_at")?,
            order_id: self.column(row, "order_id")?,
            status: self.parse(row, "status")?,
            filled: self.parse(row, "filled")?,
            average_price: self.parse(row, "average_price")?,
            fees_quote: self.parse(row, "fees_quote")?,
            reason: self.column(row, "reason")?,
        })
    }

    pub(super) fn read_incident(&self, row: &SqliteRow) -> Result<(IncidentRecord, Option<Timestamp>), LedgerError> {
        let record = IncidentRecord {
            id: self.parse(row, "id")?,
            source: self.column(row, "source")?,
            action: self.parse(row, "action")?,
            reason: self.column(row, "reason")?,
            engaged_at: self.parse(row, "engaged_at")?,
            phase: self.parse(row, "phase")?,
            source_engaged: self.column(row, "source_engaged")?,
            orders_cancelled_at: self.parse_option(row, "orders_cancelled_at")?,
            flat_at: self.parse_option(row, "flat_at")?,
        };
        Ok((record, self.parse_option(row, "released_at")?))
    }

    pub(super) fn column<'r, T>(&self, row: &'r SqliteRow, name: &str) -> Result<T, LedgerError>
    where
        T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        row.try_get(name).map_err(|cause| self.unreadable(name, &cause))
    }

    pub(super) fn parse<T: FromStr<Err: Display>>(&self, row: &SqliteRow, name: &str) -> Result<T, LedgerError> {
        self.column::<String>(row, name)?.parse().map_err(|cause| self.unreadable(name, &cause))
    }

    pub(super) fn parse_option<T: FromStr<Err: Display>>(
        &self,
        row: &SqliteRow,
        name: &str,
    ) -> Result<Option<T>, LedgerError> {
        let text: Option<String> = self.column(row, name)?;
        text.map(|text| text.parse().map_err(|cause| self.unreadable(name, &cause))).transpose()
    }

    pub(super) fn unreadable(&self, name: &str, cause: &dyn Display) -> LedgerError {
        LedgerError::Corrupt { path: self.path.clone(), problem: format!("column {name}: {cause}") }
    }
}
