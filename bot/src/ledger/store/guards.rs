//! The tables of the guards.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::super::LedgerError;
use super::super::guard::{EquityHigh, GuardTrip};
use super::connection::{Row, query};
use super::{Transaction, text};

/// How long a high of the equity is kept.
const KEPT: SignedDuration = SignedDuration::from_hours(25);

impl Transaction<'_> {
    /// Notes a trip; returns whether it is new.
    pub(super) async fn put_guard_trip(&mut self, trip: &GuardTrip) -> Result<bool, LedgerError> {
        let known = query("SELECT 1 FROM guard_trips WHERE guard = $1 AND tripped_at = $2");
        if self.optional(known.bind(&trip.guard).bind(trip.tripped_at.to_string())).await?.is_some() {
            return Ok(false);
        }
        let put = query(
            "INSERT INTO guard_trips (guard, tripped_at, metric, action, value, threshold, incident) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(&trip.guard)
        .bind(trip.tripped_at.to_string())
        .bind(trip.metric.to_string())
        .bind(trip.action.to_string())
        .bind(trip.value.to_string())
        .bind(trip.threshold.to_string())
        .bind(text(trip.incident.as_ref()));
        self.execute(put).await?;
        Ok(true)
    }

    /// Notes the end of a trip; returns whether it was under way.
    pub(super) async fn end_guard_trip(
        &mut self,
        guard: &str,
        tripped_at: Timestamp,
        at: Timestamp,
    ) -> Result<bool, LedgerError> {
        let open = query("SELECT 1 FROM guard_trips WHERE guard = $1 AND tripped_at = $2 AND ended_at IS NULL");
        if self.optional(open.bind(guard).bind(tripped_at.to_string())).await?.is_none() {
            return Ok(false);
        }
        let end = query("UPDATE guard_trips SET ended_at = $1 WHERE guard = $2 AND tripped_at = $3");
        self.execute(end.bind(at.to_string()).bind(guard).bind(tripped_at.to_string())).await?;
        Ok(true)
    }

    /// Every trip, oldest first, with the time of its end. One of a newer release, with a metric or an action that is not
    /// known here, is left out: status remembers what a person must release.
    pub async fn guard_trips(&mut self) -> Result<Vec<(GuardTrip, Option<Timestamp>)>, LedgerError> {
        if !self.has_table("guard_trips").await? {
            return Ok(Vec::new());
        }
        let rows = self.all(query("SELECT * FROM guard_trips ORDER BY rowid")).await?;
        let mut trips = Vec::with_capacity(rows.len());
        for row in &rows {
            match self.read_guard_trip(row) {
                Ok(trip) => trips.push(trip),
                Err(error) => tracing::error!(%error, "a trip of a guard cannot be read; it is left out"),
            }
        }
        Ok(trips)
    }

    fn read_guard_trip(&self, row: &Row) -> Result<(GuardTrip, Option<Timestamp>), LedgerError> {
        let trip = GuardTrip {
            guard: self.column(row, "guard")?,
            metric: self.parse(row, "metric")?,
            action: self.parse(row, "action")?,
            value: self.parse(row, "value")?,
            threshold: self.parse(row, "threshold")?,
            tripped_at: self.parse(row, "tripped_at")?,
            incident: self.parse_option(row, "incident")?,
        };
        Ok((trip, self.parse_option(row, "ended_at")?))
    }

    /// Keeps highs of the equity, and forgets those of more than a day ago.
    pub(super) async fn put_equity(&mut self, highs: &[EquityHigh]) -> Result<(), LedgerError> {
        for EquityHigh { at, equity_quote } in highs {
            let put = query(
                "INSERT INTO guard_equity (at, equity_quote) VALUES ($1, $2) \
                             ON CONFLICT (at) DO UPDATE SET equity_quote = excluded.equity_quote",
            );
            self.execute(put.bind(at.to_string()).bind(equity_quote.to_string())).await?;
        }
        let oldest = highs.iter().map(|high| high.at).max().and_then(|at| at.checked_sub(KEPT).ok());
        if let Some(oldest) = oldest {
            let old = query("DELETE FROM guard_equity WHERE at < $1").bind(oldest.to_string());
            self.execute(old).await?;
        }
        Ok(())
    }

    /// The highs of the equity, oldest first.
    pub async fn equity(&mut self) -> Result<Vec<EquityHigh>, LedgerError> {
        let rows = self.all(query("SELECT * FROM guard_equity ORDER BY at")).await?;
        let read = |row| Ok(EquityHigh { at: self.parse(row, "at")?, equity_quote: self.parse(row, "equity_quote")? });
        rows.iter().map(read).collect()
    }
}
