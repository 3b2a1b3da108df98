//! The table of the incidents.

use arbbot_crds::incident::IncidentId;
use k8s_openapi::jiff::Timestamp;

use super::super::LedgerError;
use super::super::record::IncidentRecord;
use super::connection::{Row, query};
use super::{Transaction, text};

impl Transaction<'_> {
    /// Every incident, with the time of its release.
    pub async fn incidents(&mut self) -> Result<Vec<(IncidentRecord, Option<Timestamp>)>, LedgerError> {
        let rows = self.all(query("SELECT * FROM incidents ORDER BY rowid")).await?;
        rows.iter().map(|row| self.read_incident(row)).collect()
    }

    pub(super) async fn incident(
        &mut self,
        id: &IncidentId,
    ) -> Result<Option<(IncidentRecord, Option<Timestamp>)>, LedgerError> {
        let row = self.optional(query("SELECT * FROM incidents WHERE id = $1").bind(id.to_string())).await?;
        row.map(|row| self.read_incident(&row)).transpose()
    }

    pub(super) async fn put_incident(&mut self, incident: &IncidentRecord) -> Result<(), LedgerError> {
        let put = query(
            "INSERT INTO incidents (id, source, action, reason, engaged_at, phase, source_engaged, \
             orders_cancelled_at, flat_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
             ON CONFLICT (id) DO UPDATE SET source = excluded.source, action = excluded.action, \
             reason = excluded.reason, engaged_at = excluded.engaged_at, phase = excluded.phase, \
             source_engaged = excluded.source_engaged, orders_cancelled_at = excluded.orders_cancelled_at, \
             flat_at = excluded.flat_at",
        )
        .bind(incident.id.to_string())
        .bind(&incident.source)
        .bind(incident.action.to_string())
        .bind(&incident.reason)
        .bind(incident.engaged_at.to_string())
        .bind(incident.phase.to_string())
        .bind(i64::from(incident.source_engaged))
        .bind(text(incident.orders_cancelled_at))
        .bind(text(incident.flat_at));
        self.execute(put).await
    }

    fn read_incident(&self, row: &Row) -> Result<(IncidentRecord, Option<Timestamp>), LedgerError> {
        let record = IncidentRecord {
            id: self.parse(row, "id")?,
            source: self.column(row, "source")?,
            action: self.parse(row, "action")?,
            reason: self.column(row, "reason")?,
            engaged_at: self.parse(row, "engaged_at")?,
            phase: self.parse(row, "phase")?,
            source_engaged: self.column::<i64>(row, "source_engaged")? != 0,
            orders_cancelled_at: self.parse_option(row, "orders_cancelled_at")?,
            flat_at: self.parse_option(row, "flat_at")?,
        };
        Ok((record, self.parse_option(row, "released_at")?))
    }
}
