//! The ledger's tables in SQLite.

mod row;

use std::fmt::Display;
use std::path::{Path, PathBuf};

use arbbot_crds::incident::IncidentId;
use arbbot_crds::status::LedgerStatus;
use k8s_openapi::jiff::Timestamp;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use super::record::{Binding, Entry, IncidentRecord, OrderRecord};
use super::{LedgerError, chain};

/// Schema by version; a ledger of an older version gets what it lacks.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/0001_ledger.sql")];

/// Errors of SQLite that mean that the file is damaged: SQLITE_CORRUPT and SQLITE_NOTADB.
const DAMAGED: [u32; 2] = [11, 26];

/// One connection to the ledger's file.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    connection: SqliteConnection,
}

impl Store {
    /// Connects. Every commit is on the disk before it returns (WAL with synchronous=FULL).
    pub async fn connect(path: &Path, create: bool) -> Result<Self, LedgerError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(create)
            .foreign_keys(true)
            .disable_statement_logging();
        let connection = options.connect().await.map_err(|cause| failed(path, "open", cause))?;
        let mut store = Self { path: path.to_owned(), connection };
        // Here and not by the options: a damaged file shows now, and its connection must end before it is renamed.
        let modes = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL";
        match sqlx::raw_sql(modes).execute(&mut store.connection).await {
            Ok(_) => Ok(store),
            Err(cause) => {
                store.close().await;
                Err(failed(path, "open", cause))
            }
        }
    }

    /// Ends the connection; a dropped one ends some time later.
    pub async fn close(self) {
        if let Err(error) = self.connection.close().await {
            tracing::warn!(path = %self.path.display(), %error, "the ledger was not closed in order; what was written is safe");
        }
    }

    /// Checks the file and brings its schema up to date.
    pub async fn prepare(&mut self) -> Result<(), LedgerError> {
        let check: String = self.value("PRAGMA quick_check(1)", "check itself").await?;
        if check != "ok" {
            return Err(self.corrupt(check));
        }
        let version: i64 = self.value("PRAGMA user_version", "tell its schema").await?;
        let Some(missing) = usize::try_from(version).ok().and_then(|version| MIGRATIONS.get(version..)) else {
            return Err(LedgerError::NewerSchema { path: self.path.clone(), version });
        };
        for migration in missing {
            let mut tx = self.begin().await?;
            let done = sqlx::raw_sql(*migration).execute(&mut *tx.sql).await;
            done.map_err(|cause| failed(&tx.path, "take its schema", cause))?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// Starts a transaction.
    pub async fn begin(&mut self) -> Result<Transaction<'_>, LedgerError> {
        let path = self.path.clone();
        let sql = self.connection.begin().await.map_err(|cause| failed(&path, "start a transaction", cause))?;
        Ok(Transaction { path, sql })
    }

    /// Writes what is committed by now into a new file, as one database without a log. Others may write meanwhile.
    pub async fn copy_to(&mut self, target: &Path) -> Result<(), LedgerError> {
        let copy = sqlx::query("VACUUM INTO ?").bind(target.to_string_lossy().into_owned());
        copy.execute(&mut self.connection).await.map(drop).map_err(|cause| failed(&self.path, "copy itself", cause))
    }

    async fn value<T>(&mut self, sql: &'static str, action: &'static str) -> Result<T, LedgerError>
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite> + Send + Unpin,
    {
        let value = sqlx::query_scalar(sql).fetch_one(&mut self.connection).await;
        value.map_err(|cause| failed(&self.path, action, cause))
    }

    /// Lets this connection add no page beyond so many: a full disk.
    #[cfg(test)]
    pub async fn limit_pages(&mut self, pages: u32) {
        let pragma = format!("PRAGMA max_page_count = {pages}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(pragma)).execute(&mut self.connection).await.unwrap();
    }

    fn corrupt(&self, problem: String) -> LedgerError {
        LedgerError::Corrupt { path: self.path.clone(), problem }
    }
}

/// An entry as it is stored: n, at, kind, payload, hash.
pub(super) type StoredEntry = (i64, String, String, String, String);

/// A change in progress; dropped without [`Transaction::commit`] it did not happen.
pub(super) struct Transaction<'a> {
    path: PathBuf,
    sql: sqlx::Transaction<'a, sqlx::Sqlite>,
}

impl Transaction<'_> {
    pub async fn commit(self) -> Result<(), LedgerError> {
        self.sql.commit().await.map_err(|cause| failed(&self.path, "commit", cause))
    }

    pub async fn rollback(self) -> Result<(), LedgerError> {
        self.sql.rollback().await.map_err(|cause| failed(&self.path, "roll back", cause))
    }

    /// Changes the tables as the entry says and appends it to the chain; an entry that changes nothing is not
    /// appended.
    pub async fn append(&mut self, entry: &Entry, now: Timestamp) -> Result<(), LedgerError> {
        if !self.apply(entry).await? {
            return Ok(());
        }
        let (kind, payload) = (entry.to_string(), entry.payload()?);
        let (at, head) = (now.to_string(), self.head().await?);
        let head = chain::append(&head, &at, &kind, &payload);
        let insert = sqlx::query("INSERT INTO entries (n, at, kind, payload, hash) VALUES (?, ?, ?, ?, ?)")
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
                self.execute(sqlx::query("UPDATE binding SET bot_uid = ?").bind(bot_uid)).await?;
                // The claim was the predecessor's.
                self.execute(sqlx::query("DELETE FROM claim")).await?;
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
                    let release = sqlx::query("UPDATE incidents SET released_at = ? WHERE id = ?");
                    self.execute(release.bind(at.to_string()).bind(id.to_string())).await?;
                }
            },
            Entry::Claim { account, product } => {
                let claim = Some((account.clone(), product.clone()));
                if self.claim().await? == claim {
                    return Ok(false);
                }
                let put = sqlx::query("INSERT OR REPLACE INTO claim (one, account, product) VALUES (1, ?, ?)");
                self.execute(put.bind(account).bind(product)).await?;
            }
        }
        Ok(true)
    }

    /// Number and hash of the last entry.
    pub async fn head(&mut self) -> Result<LedgerStatus, LedgerError> {
        let last = sqlx::query("SELECT n, hash FROM entries ORDER BY n DESC LIMIT 1");
        let Some(row) = self.optional(last).await? else { return Ok(chain::genesis()) };
        Ok(LedgerStatus { entries: self.column(&row, "n")?, head: self.column(&row, "hash")? })
    }

    /// Hash of an entry.
    pub async fn hash(&mut self, n: i64) -> Result<Option<String>, LedgerError> {
        let row = self.optional(sqlx::query("SELECT hash FROM entries WHERE n = ?").bind(n)).await?;
        row.map(|row| self.column(&row, "hash")).transpose()
    }

    /// Every entry as it is stored, in order.
    pub async fn entries(&mut self) -> Result<Vec<StoredEntry>, LedgerError> {
        let entries = sqlx::query_as("SELECT n, at, kind, payload, hash FROM entries ORDER BY n");
        entries.fetch_all(&mut *self.sql).await.map_err(|cause| failed(&self.path, "list its entries", cause))
    }

    /// The next entries after this one, at most a thousand: a ledger of years is not in memory as a whole.
    pub async fn entries_after(&mut self, n: i64) -> Result<Vec<StoredEntry>, LedgerError> {
        let entries =
            sqlx::query_as("SELECT n, at, kind, payload, hash FROM entries WHERE n > ? ORDER BY n LIMIT 1000").bind(n);
        entries.fetch_all(&mut *self.sql).await.map_err(|cause| failed(&self.path, "list its entries", cause))
    }

    /// What the ledger belongs to; None in a new one.
    pub async fn binding(&mut self) -> Result<Option<Binding>, LedgerError> {
        let Some(row) = self.optional(sqlx::query("SELECT * FROM binding")).await? else { return Ok(None) };
        Ok(Some(Binding {
            bot_uid: self.column(&row, "bot_uid")?,
            execution: self.column(&row, "execution")?,
            venue: self.column(&row, "venue")?,
            portfolio: self.column(&row, "portfolio")?,
            spot_product: self.column(&row, "spot_product")?,
            future_product: self.column(&row, "future_product")?,
        }))
    }

    /// Account and product of the claim that was granted last.
    pub async fn claim(&mut self) -> Result<Option<(String, String)>, LedgerError> {
        let Some(row) = self.optional(sqlx::query("SELECT account, product FROM claim")).await? else {
            return Ok(None);
        };
        Ok(Some((self.column(&row, "account")?, self.column(&row, "product")?)))
    }

    /// Every order, oldest first.
    pub async fn orders(&mut self) -> Result<Vec<OrderRecord>, LedgerError> {
        let rows = self.all(sqlx::query("SELECT * FROM orders ORDER BY rowid")).await?;
        rows.iter().map(|row| self.read_order(row)).collect()
    }

    /// Every incident, with the time of its release.
    pub async fn incidents(&mut self) -> Result<Vec<(IncidentRecord, Option<Timestamp>)>, LedgerError> {
        let rows = self.all(sqlx::query("SELECT * FROM incidents ORDER BY rowid")).await?;
        rows.iter().map(|row| self.read_incident(row)).collect()
    }

    async fn order(&mut self, client_order_id: &str) -> Result<Option<OrderRecord>, LedgerError> {
        let select = sqlx::query("SELECT * FROM orders WHERE client_order_id = ?").bind(client_order_id);
        let row = self.optional(select).await?;
        row.map(|row| self.read_order(&row)).transpose()
    }

    async fn incident(&mut self, id: &IncidentId) -> Result<Option<(IncidentRecord, Option<Timestamp>)>, LedgerError> {
        let row = self.optional(sqlx::query("SELECT * FROM incidents WHERE id = ?").bind(id.to_string())).await?;
        row.map(|row| self.read_incident(&row)).transpose()
    }

    async fn bind(&mut self, binding: &Binding) -> Result<(), LedgerError> {
        let insert = sqlx::query(
            "INSERT INTO binding (one, bot_uid, execution, venue, portfolio, spot_product, future_product) \
             VALUES (1, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&binding.bot_uid)
        .bind(&binding.execution)
        .bind(&binding.venue)
        .bind(&binding.portfolio)
        .bind(&binding.spot_product)
        .bind(&binding.future_product);
        self.execute(insert).await
    }

    async fn put_order(&mut self, order: &OrderRecord) -> Result<(), LedgerError> {
        // An upsert, not REPLACE: the rowid keeps the order in which the orders were created.
        let put = sqlx::query(
            "INSERT INTO orders (client_order_id, epoch, class, product, side, size, kind, limit_price, expires_at, \
             created_at, order_id, status, filled, average_price, fees_quote, reason) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (client_order_id) DO UPDATE SET order_id = excluded.order_id, status = excluded.status, \
             filled = excluded.filled, average_price = excluded.average_price, fees_quote = excluded.fees_quote, \
             reason = excluded.reason",
        )
        .bind(&order.client_order_id)
        .bind(order.epoch)
        .bind(text(order.class))
        .bind(&order.product)
        .bind(order.side.to_string())
        .bind(order.size.to_string())
        .bind(&order.kind)
        .bind(text(order.limit_price))
        .bind(text(order.expires_at))
        .bind(order.created_at.to_string())
        .bind(&order.order_id)
        .bind(order.status.to_string())
        .bind(order.filled.to_string())
        .bind(order.average_price.to_string())
        .bind(order.fees_quote.to_string())
        .bind(&order.reason);
        self.execute(put).await
    }

    async fn put_incident(&mut self, incident: &IncidentRecord) -> Result<(), LedgerError> {
        let put = sqlx::query(
            "INSERT INTO incidents (id, source, action, reason, engaged_at, phase, source_engaged, \
             orders_cancelled_at, flat_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) \
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
        .bind(incident.source_engaged)
        .bind(text(incident.orders_cancelled_at))
        .bind(text(incident.flat_at));
        self.execute(put).await
    }

    async fn execute(&mut self, query: Query<'_>) -> Result<(), LedgerError> {
        query.execute(&mut *self.sql).await.map(drop).map_err(|cause| failed(&self.path, "write", cause))
    }

    async fn optional(&mut self, query: Query<'_>) -> Result<Option<SqliteRow>, LedgerError> {
        query.fetch_optional(&mut *self.sql).await.map_err(|cause| failed(&self.path, "read", cause))
    }

    async fn all(&mut self, query: Query<'_>) -> Result<Vec<SqliteRow>, LedgerError> {
        query.fetch_all(&mut *self.sql).await.map_err(|cause| failed(&self.path, "read", cause))
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

fn text<T: Display>(value: Option<T>) -> Option<String> {
    value.map(|value| value.to_string())
}

fn failed(path: &Path, action: &'static str, cause: sqlx::Error) -> LedgerError {
    let path = path.to_owned();
    let code = cause.as_database_error().and_then(|error| error.code());
    // The extended code has the primary code in its lowest byte.
    let primary = code.and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff);
    match primary {
        Some(code) if DAMAGED.contains(&code) => LedgerError::Corrupt { path, problem: cause.to_string() },
        _ => LedgerError::Database { path, action, cause },
    }
}
