//! What is PostgreSQL's own: the session, who may write, and the schema.
//!
//! One process writes. While it runs, its session holds an advisory lock; the row of `writer` says who wrote last, so
//! that a process which was without connection finds out that another took over, and under which epoch the last intent
//! came, so that a process that is fenced out cannot write one.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, Row as _};
use tokio::time::{Instant, sleep};

use super::super::LedgerError;
use super::super::place::{Server, Source, fitting};
use super::connection::{Connection, Query, Sql, query, within};
use super::{MIGRATIONS, Transaction, failed};

/// How long a connection may take to be there.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a statement of the bot may take.
const WRITE: Duration = Duration::from_secs(5);
/// How long a statement of a reader may take, which may list a ledger of years.
const READ: Duration = Duration::from_secs(60);
/// How long the end of another process is waited for: the server may not have noticed it yet.
const HANDOVER: Duration = Duration::from_secs(2);

/// Connects to a ledger, as its one writer or to read beside it.
pub(super) async fn connect(server: &Server, writes: bool) -> Result<Connection, LedgerError> {
    let deadline = if writes { WRITE } else { READ };
    // A reader of this process must not be taken for its writer.
    let name = if writes { server.process() } else { "arb-bot" };
    let options = server.options()?.application_name(name).disable_statement_logging();
    let connection = within(CONNECT, options.connect()).await.map_err(|cause| error(server, "open", cause))?;
    let mut session = Session { server, connection, deadline };
    session.set_up().await?;
    if writes {
        session.lock().await?;
    } else if !session.has_schema(server.schema()).await? {
        return Err(LedgerError::Missing { ledger: server.to_string() });
    }
    Ok(Connection::Postgres(session.connection, deadline))
}

struct Session<'a> {
    server: &'a Server,
    connection: PgConnection,
    deadline: Duration,
}

impl Session<'_> {
    /// A commit is on the disk when it returns, whatever the server's default. A session whose client is gone or frozen
    /// ends soon, and with it its locks.
    async fn set_up(&mut self) -> Result<(), LedgerError> {
        let settings = format!(
            "SET synchronous_commit = on; SET client_min_messages = warning; SET statement_timeout = {}; \
             SET lock_timeout = '2s'; SET idle_in_transaction_session_timeout = '30s'; SET tcp_keepalives_idle = 10; \
             SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; SET tcp_user_timeout = '20s'; \
             SET search_path = {}",
            self.deadline.as_millis(),
            quoted(self.server.schema()),
        );
        let set = within(self.deadline, sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut self.connection));
        set.await.map(drop).map_err(|cause| error(self.server, "set its session up", cause))
    }

    /// Takes the lock that keeps a second process out. An earlier session of this process may still hold it on a server
    /// that has not noticed its end: it is ended.
    async fn lock(&mut self) -> Result<(), LedgerError> {
        let until = Instant::now() + HANDOVER;
        loop {
            let row = self.one(
                query(
                    "SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS held, current_setting('fsync') AS fsync",
                )
                .bind(format!("arbbot ledger {}", self.server.schema())),
            );
            let row = row.await?;
            let read = |cause| error(self.server, "lock itself", cause);
            if row.try_get::<String, _>("fsync").map_err(read)? == "off" {
                tracing::warn!(ledger = %self.server, "the server runs with fsync = off: it may lose what it acknowledged");
            }
            if row.try_get("held").map_err(read)? {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(LedgerError::Locked { ledger: self.server.to_string() });
            }
            let earlier = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                           WHERE application_name = $1 AND usename = current_user AND pid <> pg_backend_pid()";
            self.one(query(earlier).bind(self.server.process())).await?;
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn has_schema(&mut self, name: &str) -> Result<bool, LedgerError> {
        let known = query("SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1) AS known").bind(name);
        self.one(known).await?.try_get("known").map_err(|cause| error(self.server, "look for its schema", cause))
    }

    async fn one(&mut self, query: Query) -> Result<PgRow, LedgerError> {
        let row = within(self.deadline, query.postgres().fetch_one(&mut self.connection)).await;
        row.map_err(|cause| error(self.server, "answer", cause))
    }
}

fn error(server: &Server, action: &'static str, cause: sqlx::Error) -> LedgerError {
    LedgerError::Server { ledger: server.to_string(), action, cause }
}

impl Transaction<'_> {
    /// Brings the schema up to date and makes this process the writer.
    pub async fn prepare_server(&mut self) -> Result<(), LedgerError> {
        let Source::Server(server) = self.source.clone() else { return Ok(()) };
        if !self.has_schema(server.schema()).await? {
            self.run(format!("CREATE SCHEMA {}", quoted(server.schema()))).await?;
        }
        if !self.has_table("writer").await? {
            let writer = "CREATE TABLE writer (one BIGINT NOT NULL PRIMARY KEY CHECK (one = 1), version BIGINT NOT NULL, \
                          epoch BIGINT NOT NULL, holder TEXT NOT NULL); INSERT INTO writer VALUES (1, 0, 0, '')";
            self.run(writer.to_owned()).await?;
        }
        let row = self.optional(query("SELECT version FROM writer FOR UPDATE")).await?;
        let version = row.map_or(Ok(0), |row| self.column::<i64>(&row, "version"))?;
        let Some(missing) = usize::try_from(version).ok().and_then(|version| MIGRATIONS.get(version..)) else {
            return Err(LedgerError::NewerSchema { ledger: server.to_string(), version });
        };
        for migration in missing {
            self.run(translated(migration)).await?;
        }
        let version = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
        let claim = query("UPDATE writer SET version = $1, holder = $2").bind(version).bind(server.process());
        self.execute(claim).await
    }

    /// Makes sure that this process is still the writer, and nobody else until the end of this transaction. The epoch is
    /// that of an intent: it is refused once one of a later epoch was written.
    pub(super) async fn fence(&mut self, epoch: Option<i64>) -> Result<(), LedgerError> {
        let Source::Server(server) = self.source.clone() else { return Ok(()) };
        let row = self.optional(query("SELECT epoch FROM writer WHERE holder = $1 FOR UPDATE").bind(server.process()));
        let Some(row) = row.await? else { return Err(LedgerError::TakenOver { ledger: server.to_string() }) };
        let newest: i64 = self.column(&row, "epoch")?;
        match epoch {
            Some(epoch) if epoch < newest => Err(LedgerError::Fenced { ledger: server.to_string(), epoch, newest }),
            Some(epoch) if epoch > newest => self.execute(query("UPDATE writer SET epoch = $1").bind(epoch)).await,
            _ => Ok(()),
        }
    }

    /// A new bot of the same name counts its epochs from one again.
    pub(super) async fn forget_epoch(&mut self) -> Result<(), LedgerError> {
        match self.source {
            Source::File(_) => Ok(()),
            Source::Server(_) => self.execute(query("UPDATE writer SET epoch = 0")).await,
        }
    }

    /// Gives the schema a name that is free and says why. Returns the name, if there was a schema.
    pub async fn set_aside(&mut self, why: &str, now: Timestamp) -> Result<Option<String>, LedgerError> {
        let Source::Server(server) = self.source.clone() else { return Ok(None) };
        if !self.has_schema(server.schema()).await? {
            return Ok(None);
        }
        let base = format!("{}.{why}-{}", server.schema(), now.strftime("%Y%m%dT%H%M%SZ"));
        let mut kept = fitting(&base);
        let mut n = 2;
        while self.has_schema(&kept).await? {
            kept = fitting(&format!("{base}-{n}"));
            n += 1;
        }
        self.run(format!("ALTER SCHEMA {} RENAME TO {}", quoted(server.schema()), quoted(&kept))).await?;
        Ok(Some(kept))
    }

    async fn has_schema(&mut self, name: &str) -> Result<bool, LedgerError> {
        Ok(self.optional(query("SELECT 1 FROM pg_namespace WHERE nspname = $1").bind(name)).await?.is_some())
    }

    async fn run(&mut self, statements: String) -> Result<(), LedgerError> {
        self.sql.run(statements).await.map_err(|cause| failed(&self.source, "take its schema", cause))
    }
}

impl Sql<'_> {
    /// The statement that finds a table by its name.
    pub(super) fn table_by_name(&self) -> &'static str {
        match self {
            Sql::Sqlite(_) => "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = $1",
            Sql::Postgres(..) => "SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename = $1",
        }
    }
}

/// A migration as PostgreSQL has it: whole numbers of 64 bits, text that sorts by its bytes, and the number of a row,
/// which SQLite gives every table, as a column.
fn translated(migration: &str) -> String {
    let statements = migration.lines().filter(|line| !line.starts_with("PRAGMA")).map(|line| format!("{line}\n"));
    statements
        .collect::<String>()
        .replace("INTEGER", "BIGINT")
        .replace(" TEXT", " TEXT COLLATE \"C\"")
        .replace(") STRICT;", ", rowid BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY);")
}

/// A name as it stands in a statement.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
