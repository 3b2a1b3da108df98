//! What is SQLite's own: the file, its modes and its schema.

use std::path::Path;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection as _, SqliteConnection};

use super::super::LedgerError;
use super::super::place::Source;
use super::connection::Connection;
use super::{MIGRATIONS, failed};

pub(super) async fn connect(source: &Source, path: &Path, create: bool) -> Result<Connection, LedgerError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(create)
        .foreign_keys(true)
        .disable_statement_logging();
    let mut connection = options.connect().await.map_err(|cause| failed(source, "open", cause))?;
    // Here and not by the options: a damaged file shows now, and its connection must end before it is renamed.
    let modes = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL";
    match sqlx::raw_sql(modes).execute(&mut connection).await {
        Ok(_) => Ok(Connection::Sqlite(connection)),
        Err(cause) => {
            if let Err(error) = connection.close().await {
                tracing::warn!(ledger = %source, %error, "the ledger was not closed in order");
            }
            Err(failed(source, "open", cause))
        }
    }
}

/// Checks the file and brings its schema up to date.
pub(super) async fn prepare(source: &Source, connection: &mut SqliteConnection) -> Result<(), LedgerError> {
    let check: String = value(source, connection, "PRAGMA quick_check(1)", "check itself").await?;
    if check != "ok" {
        return Err(LedgerError::Corrupt { ledger: source.to_string(), problem: check });
    }
    let version: i64 = value(source, connection, "PRAGMA user_version", "tell its schema").await?;
    let Some(missing) = usize::try_from(version).ok().and_then(|version| MIGRATIONS.get(version..)) else {
        return Err(LedgerError::NewerSchema { ledger: source.to_string(), version });
    };
    for migration in missing {
        let failed = |cause| failed(source, "take its schema", cause);
        let mut tx = connection.begin().await.map_err(failed)?;
        sqlx::raw_sql(*migration).execute(&mut *tx).await.map_err(failed)?;
        tx.commit().await.map_err(failed)?;
    }
    Ok(())
}

/// Writes what is committed by now into a new file, as one database without a log.
pub(super) async fn copy(source: &Source, connection: &mut SqliteConnection, to: &Path) -> Result<(), LedgerError> {
    let copy = sqlx::query("VACUUM INTO ?").bind(to.to_string_lossy().into_owned());
    copy.execute(connection).await.map(drop).map_err(|cause| failed(source, "copy itself", cause))
}

async fn value<T>(
    source: &Source,
    connection: &mut SqliteConnection,
    sql: &'static str,
    action: &'static str,
) -> Result<T, LedgerError>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite> + Send + Unpin,
{
    sqlx::query_scalar(sql).fetch_one(connection).await.map_err(|cause| failed(source, action, cause))
}
