//! The ledger's tables: the same statements for SQLite and PostgreSQL.

mod books;
mod connection;
mod entries;
mod guards;
mod health;
mod incidents;
mod orders;
mod postgres;
mod row;
mod sqlite;

use std::fmt::Display;
use std::path::Path;

use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;

use super::LedgerError;
use super::place::Source;
use super::record::Binding;
use connection::{Connection, Query, Row, Sql, Value, query};
pub(super) use entries::StoredEntry;

/// Schema by version; a ledger of an older version gets what it lacks.
const MIGRATIONS: [&str; 4] = [
    include_str!("migrations/0001_ledger.sql"),
    include_str!("migrations/0002_guards.sql"),
    include_str!("migrations/0003_books.sql"),
    include_str!("migrations/0004_funding_rates.sql"),
];

/// Every table, as the migrations make them. What a table refers to comes before it.
pub(super) const TABLES: [&str; 15] = [
    "binding",
    "claim",
    "orders",
    "incidents",
    "entries",
    "guard_trips",
    "guard_equity",
    "fills",
    "decisions",
    "funding",
    "settlements",
    "variation",
    "flows",
    "equity",
    "funding_rates",
];

/// Rows of a table that are in memory at once when a ledger is copied.
const PAGE: usize = 1000;

/// Errors of SQLite that mean that the file is damaged: SQLITE_CORRUPT and SQLITE_NOTADB.
const DAMAGED: [u32; 2] = [11, 26];

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// The one writer, which begins a ledger where there is none.
    Create,
    /// The one writer.
    Write,
    /// Reads beside the writer.
    Read,
}

/// One connection to the ledger's records.
#[derive(Debug)]
pub(super) struct Store {
    source: Source,
    access: Access,
    connection: Connection,
}

impl Store {
    /// Connects. Every commit is on the disk before it returns: SQLite with WAL and synchronous=FULL, PostgreSQL with
    /// synchronous_commit.
    pub async fn connect(source: &Source, access: Access) -> Result<Self, LedgerError> {
        let connection = match source {
            Source::File(path) => sqlite::connect(source, path, access == Access::Create).await?,
            Source::Server(server) => postgres::connect(server, access != Access::Read).await?,
        };
        Ok(Self { source: source.clone(), access, connection })
    }

    /// Ends the connection; a dropped one ends some time later.
    pub async fn close(self) {
        if let Err(error) = self.connection.close().await {
            tracing::warn!(ledger = %self.source, %error, "the ledger was not closed in order; what was written is safe");
        }
    }

    /// Checks the ledger and brings its schema up to date.
    pub async fn prepare(&mut self) -> Result<(), LedgerError> {
        if let Connection::Sqlite(connection) = &mut self.connection {
            return sqlite::prepare(&self.source, connection).await;
        }
        let mut tx = self.begin().await?;
        tx.prepare_server().await?;
        tx.commit().await
    }

    /// Starts a transaction.
    pub async fn begin(&mut self) -> Result<Transaction<'_>, LedgerError> {
        let source = self.source.clone();
        let sql = self.connection.begin(self.access == Access::Read).await;
        let sql = sql.map_err(|cause| failed(&source, "start a transaction", cause))?;
        Ok(Transaction { source, sql })
    }

    /// Starts the transaction of a write: one of the process that has the ledger. The epoch is that of an intent.
    pub async fn begin_write(&mut self, epoch: Option<i64>) -> Result<Transaction<'_>, LedgerError> {
        let mut tx = self.begin().await?;
        match tx.fence(epoch).await {
            Ok(()) => Ok(tx),
            Err(error) if error.is_storage() => Err(error),
            Err(error) => {
                tx.rollback().await?;
                Err(error)
            }
        }
    }

    /// Writes what is committed by now into a new file, as one database without a log. Others may write meanwhile.
    pub async fn copy_to(&mut self, target: &Path) -> Result<(), LedgerError> {
        if let Connection::Sqlite(connection) = &mut self.connection {
            return sqlite::copy(&self.source, connection, target).await;
        }
        let mut file = Self::connect(&Source::File(target.to_owned()), Access::Create).await?;
        let copied = async {
            file.prepare().await?;
            let (mut from, mut to) = (self.begin().await?, file.begin().await?);
            from.copy_into(&mut to).await?;
            to.commit().await?;
            from.rollback().await
        };
        let copied = copied.await;
        file.close().await;
        copied
    }

    /// Lets this connection add no page beyond so many: a full disk.
    #[cfg(test)]
    pub async fn limit_pages(&mut self, pages: u32) {
        let pragma = format!("PRAGMA max_page_count = {pages}");
        let Connection::Sqlite(connection) = &mut self.connection else { panic!("only a file can be full") };
        sqlx::raw_sql(sqlx::AssertSqlSafe(pragma)).execute(connection).await.unwrap();
    }
}

/// A change in progress; dropped without [`Transaction::commit`] it did not happen.
pub(super) struct Transaction<'a> {
    source: Source,
    sql: Sql<'a>,
}

impl Transaction<'_> {
    /// The ledger, for people.
    pub fn ledger(&self) -> String {
        self.source.to_string()
    }

    pub async fn commit(self) -> Result<(), LedgerError> {
        self.sql.commit().await.map_err(|cause| failed(&self.source, "commit", cause))
    }

    pub async fn rollback(self) -> Result<(), LedgerError> {
        self.sql.rollback().await.map_err(|cause| failed(&self.source, "roll back", cause))
    }

    /// Adds every row of every table that there is to another ledger, which has none, in the same order.
    pub async fn copy_into(&mut self, to: &mut Transaction<'_>) -> Result<(), LedgerError> {
        for table in TABLES {
            if !self.has_table(table).await? {
                continue;
            }
            let select =
                format!("SELECT rowid AS number_of_row, * FROM {table} WHERE rowid > $1 ORDER BY rowid LIMIT {PAGE}");
            let mut last = i64::MIN;
            loop {
                let rows = self.all(query(select.clone()).bind(last)).await?;
                for row in &rows {
                    last = self.column(row, "number_of_row")?;
                    let values = row.values().map_err(|cause| self.unreadable(table, &cause))?;
                    to.insert(table, values).await?;
                }
                if rows.len() < PAGE {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn insert(&mut self, table: &str, values: Vec<(String, Value)>) -> Result<(), LedgerError> {
        let values = values.into_iter().filter(|(column, _)| !matches!(&**column, "number_of_row" | "rowid"));
        let (columns, values): (Vec<_>, Vec<_>) = values.unzip();
        let places: Vec<_> = (1..=columns.len()).map(|n| format!("${n}")).collect();
        let insert = format!("INSERT INTO {table} ({}) VALUES ({})", columns.join(", "), places.join(", "));
        self.execute(values.into_iter().fold(query(insert), Query::bind)).await
    }

    /// What the ledger belongs to; None in a new one.
    pub async fn binding(&mut self) -> Result<Option<Binding>, LedgerError> {
        let Some(row) = self.optional(query("SELECT * FROM binding")).await? else { return Ok(None) };
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
        let Some(row) = self.optional(query("SELECT account, product FROM claim")).await? else {
            return Ok(None);
        };
        Ok(Some((self.column(&row, "account")?, self.column(&row, "product")?)))
    }

    /// The newest hours, at most so many, their products and funding rates.
    pub async fn funding_rates(&mut self, most: u32) -> Result<Vec<(String, Timestamp, Decimal)>, LedgerError> {
        if !self.has_table("funding_rates").await? {
            return Ok(Vec::new());
        }
        // Whole hours in UTC sort as their text does.
        let select = query("SELECT product, hour, rate FROM funding_rates ORDER BY hour DESC LIMIT $1");
        let rows = self.all(select.bind(i64::from(most))).await?;
        let read = |row| Ok((self.column(row, "product")?, self.parse(row, "hour")?, self.parse(row, "rate")?));
        rows.iter().map(read).collect()
    }

    /// A ledger of an older release lacks tables until a bot of this one has opened it.
    async fn has_table(&mut self, name: &str) -> Result<bool, LedgerError> {
        let known = query(self.sql.table_by_name()).bind(name);
        Ok(self.optional(known).await?.is_some())
    }

    async fn bind(&mut self, binding: &Binding) -> Result<(), LedgerError> {
        let insert = query(
            "INSERT INTO binding (one, bot_uid, execution, venue, portfolio, spot_product, future_product) \
             VALUES (1, $1, $2, $3, $4, $5, $6)",
        )
        .bind(&binding.bot_uid)
        .bind(&binding.execution)
        .bind(&binding.venue)
        .bind(&binding.portfolio)
        .bind(&binding.spot_product)
        .bind(&binding.future_product);
        self.execute(insert).await
    }

    async fn execute(&mut self, query: Query) -> Result<(), LedgerError> {
        self.sql.execute(query).await.map(drop).map_err(|cause| failed(&self.source, "write", cause))
    }

    async fn optional(&mut self, query: Query) -> Result<Option<Row>, LedgerError> {
        self.sql.optional(query).await.map_err(|cause| failed(&self.source, "read", cause))
    }

    async fn all(&mut self, query: Query) -> Result<Vec<Row>, LedgerError> {
        self.sql.all(query).await.map_err(|cause| failed(&self.source, "read", cause))
    }
}

fn text<T: Display>(value: Option<T>) -> Option<String> {
    value.map(|value| value.to_string())
}

fn failed(source: &Source, action: &'static str, cause: sqlx::Error) -> LedgerError {
    let ledger = source.to_string();
    if source.is_server() {
        return LedgerError::Server { ledger, action, cause };
    }
    let code = cause.as_database_error().and_then(|error| error.code());
    // The extended code has the primary code in its lowest byte.
    let primary = code.and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff);
    match primary {
        Some(code) if DAMAGED.contains(&code) => LedgerError::Corrupt { ledger, problem: cause.to_string() },
        _ => LedgerError::Database { ledger, action, cause },
    }
}
