//! The chain of entries: each changes the tables and is appended in the same transaction.

use arbbot_crds::status::LedgerStatus;
use k8s_openapi::jiff::Timestamp;

use super::super::record::Entry;
use super::super::{LedgerError, chain};
use super::Transaction;
use super::connection::{Query, Row, query};

/// An entry as it is stored: n, at, kind, payload, hash.
pub(in super::super) type StoredEntry = (i64, String, String, String, String);

impl Transaction<'_> {
    /// Changes the tables as the entry says and appends it to the chain; an entry that changes nothing is not
    /// appended, nor are the highs of the equity, which are kept beside it.
    pub async fn append(&mut self, entry: &Entry, now: Timestamp) -> Result<(), LedgerError> {
        if !self.apply(entry).await? {
            return Ok(());
        }
        let (kind, payload) = (entry.to_string(), entry.payload()?);
        let (at, head) = (now.to_string(), self.head().await?);
        let head = chain::append(&head, &at, &kind, &payload);
        let insert = query("INSERT INTO entries (n, at, kind, payload, hash) VALUES ($1, $2, $3, $4, $5)")
            .bind(head.entries)
            .bind(at)
            .bind(kind)
            .bind(payload)
            .bind(head.head);
        self.execute(insert).await
    }

    /// Whether the entry changed a table.
    async fn apply(&mut self, entry: &Entry) -> Result<bool, LedgerError> {
        match entry {
            Entry::Bound(binding) => self.bind(binding).await?,
            Entry::Adopted { bot_uid } => {
                self.execute(query("UPDATE binding SET bot_uid = $1").bind(bot_uid)).await?;
                // The claim was the predecessor's.
                self.execute(query("DELETE FROM claim")).await?;
                self.forget_epoch().await?;
            }
            Entry::Intent(order) => {
                if self.order(&order.client_order_id).await?.is_some() {
                    return Err(LedgerError::DuplicateOrder { client_order_id: order.client_order_id.clone() });
                }
                self.put_order(order).await?;
            }
            Entry::Imported(order) => {
                if self.order(&order.client_order_id).await?.is_some() {
                    return Ok(false);
                }
                self.put_order(order).await?;
            }
            Entry::Order(update) => {
                let Some(old) = self.order(&update.client_order_id).await? else {
                    return Err(LedgerError::UnknownOrder { client_order_id: update.client_order_id.clone() });
                };
                let new = old.updated(update)?;
                if new == old {
                    return Ok(false);
                }
                self.put_order(&new).await?;
            }
            Entry::Incident(incident) => match self.incident(&incident.id).await? {
                Some((_, Some(_))) => return Err(LedgerError::ReleasedIncident { id: incident.id.clone() }),
                Some((old, None)) => {
                    let new = old.updated(incident);
                    if new == old {
                        return Ok(false);
                    }
                    self.put_incident(&new).await?;
                }
                None => self.put_incident(incident).await?,
            },
            Entry::Released { id, at } => match self.incident(id).await? {
                None => return Err(LedgerError::UnknownIncident { id: id.clone() }),
                Some((_, Some(_))) => return Ok(false),
                Some((_, None)) => {
                    let release = query("UPDATE incidents SET released_at = $1 WHERE id = $2");
                    self.execute(release.bind(at.to_string()).bind(id.to_string())).await?;
                }
            },
            Entry::GuardTripped(trip) => return self.put_guard_trip(trip).await,
            Entry::GuardEnded { guard, tripped_at, at } => return self.end_guard_trip(guard, *tripped_at, *at).await,
            Entry::Equity(highs) => {
                self.put_equity(highs).await?;
                // It is not in the chain.
                return Ok(false);
            }
            Entry::Claim { account, product } => {
                let claim = Some((account.clone(), product.clone()));
                if self.claim().await? == claim {
                    return Ok(false);
                }
                let put = query(
                    "INSERT INTO claim (one, account, product) VALUES (1, $1, $2) \
                           ON CONFLICT (one) DO UPDATE SET account = excluded.account, product = excluded.product",
                );
                self.execute(put.bind(account).bind(product)).await?;
            }
            Entry::Postings(postings) => return self.post(postings).await,
            Entry::FundingRate { product, hour, rate } => {
                let known = "SELECT 1 FROM funding_rates WHERE product = $1 AND hour = $2";
                if self.optional(query(known).bind(product).bind(hour.to_string())).await?.is_some() {
                    return Ok(false);
                }
                let put = query("INSERT INTO funding_rates (product, hour, rate) VALUES ($1, $2, $3)");
                self.execute(put.bind(product).bind(hour.to_string()).bind(rate.to_string())).await?;
            }
        }
        Ok(true)
    }

    /// Number and hash of the last entry.
    pub async fn head(&mut self) -> Result<LedgerStatus, LedgerError> {
        let last = query("SELECT n, hash FROM entries ORDER BY n DESC LIMIT 1");
        let Some(row) = self.optional(last).await? else { return Ok(chain::genesis()) };
        Ok(LedgerStatus { entries: self.column(&row, "n")?, head: self.column(&row, "hash")? })
    }

    /// Hash of an entry.
    pub async fn hash(&mut self, n: i64) -> Result<Option<String>, LedgerError> {
        let row = self.optional(query("SELECT hash FROM entries WHERE n = $1").bind(n)).await?;
        row.map(|row| self.column(&row, "hash")).transpose()
    }

    /// The first entry of a kind, and the hash of the one before.
    pub async fn first_of(&mut self, kind: &str) -> Result<Option<(Option<String>, StoredEntry)>, LedgerError> {
        let select = "SELECT n, at, kind, payload, hash FROM entries WHERE kind = $1 ORDER BY n LIMIT 1";
        let Some(entry) = self.stored(query(select).bind(kind)).await?.pop() else { return Ok(None) };
        Ok(Some((self.hash(entry.0 - 1).await?, entry)))
    }

    /// Every entry as it is stored, in order.
    pub async fn entries(&mut self) -> Result<Vec<StoredEntry>, LedgerError> {
        self.stored(query("SELECT n, at, kind, payload, hash FROM entries ORDER BY n")).await
    }

    /// What the entries say of incidents, in order. One that cannot be read is the verification's to find: a kill goes on
    /// without it.
    pub async fn incident_entries(&mut self) -> Result<Vec<(Timestamp, Entry)>, LedgerError> {
        let select = "SELECT n, at, kind, payload, hash FROM entries WHERE kind = 'Incident' ORDER BY n";
        let stored = self.stored(query(select)).await?;
        let read =
            |(_, at, kind, payload, _): &StoredEntry| Some((at.parse().ok()?, Entry::parse(kind, payload).ok()?));
        Ok(stored.iter().filter_map(read).collect())
    }

    /// The next entries after this one, at most a thousand: a ledger of years is not in memory as a whole.
    pub async fn entries_after(&mut self, n: i64) -> Result<Vec<StoredEntry>, LedgerError> {
        let select = "SELECT n, at, kind, payload, hash FROM entries WHERE n > $1 ORDER BY n LIMIT 1000";
        self.stored(query(select).bind(n)).await
    }

    async fn stored(&mut self, entries: Query) -> Result<Vec<StoredEntry>, LedgerError> {
        let rows = self.all(entries).await?;
        let entry = |row: &Row| {
            let text = |name| self.column::<String>(row, name);
            Ok((self.column(row, "n")?, text("at")?, text("kind")?, text("payload")?, text("hash")?))
        };
        rows.iter().map(entry).collect()
    }
}
