//! The two databases behind one set of statements: how a statement is sent, and what comes back.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{
    AssertSqlSafe, Column as _, Connection as _, Decode, PgConnection, Postgres, Row as _, Sqlite, SqliteConnection,
    Type, TypeInfo as _,
};
use tokio::time::timeout;

/// A connection to one of the two.
#[derive(Debug)]
pub(in super::super) enum Connection {
    Sqlite(SqliteConnection),
    /// With how long it waits for an answer.
    Postgres(PgConnection, Duration),
}

impl Connection {
    /// Begins a transaction. One that only reads sees one moment, whatever others write.
    pub async fn begin(&mut self, reads_only: bool) -> Result<Sql<'_>, sqlx::Error> {
        match self {
            Self::Sqlite(connection) => connection.begin().await.map(Sql::Sqlite),
            Self::Postgres(connection, deadline) => {
                let begin = if reads_only {
                    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
                } else {
                    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
                };
                let begun = within(*deadline, connection.begin_with(begin)).await?;
                Ok(Sql::Postgres(begun, *deadline))
            }
        }
    }

    pub async fn close(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(connection) => connection.close().await,
            Self::Postgres(connection, deadline) => within(deadline, connection.close()).await,
        }
    }
}

/// A transaction of one of the two.
pub(in super::super) enum Sql<'a> {
    Sqlite(sqlx::Transaction<'a, Sqlite>),
    Postgres(sqlx::Transaction<'a, Postgres>, Duration),
}

impl Sql<'_> {
    /// Number of rows that the statement changed.
    pub async fn execute(&mut self, query: Query) -> Result<u64, sqlx::Error> {
        match self {
            Self::Sqlite(sql) => query.sqlite().execute(&mut **sql).await.map(|done| done.rows_affected()),
            Self::Postgres(sql, deadline) => {
                within(*deadline, query.postgres().execute(&mut **sql)).await.map(|done| done.rows_affected())
            }
        }
    }

    pub async fn optional(&mut self, query: Query) -> Result<Option<Row>, sqlx::Error> {
        match self {
            Self::Sqlite(sql) => Ok(query.sqlite().fetch_optional(&mut **sql).await?.map(Row::Sqlite)),
            Self::Postgres(sql, deadline) => {
                Ok(within(*deadline, query.postgres().fetch_optional(&mut **sql)).await?.map(Row::Postgres))
            }
        }
    }

    pub async fn all(&mut self, query: Query) -> Result<Vec<Row>, sqlx::Error> {
        match self {
            Self::Sqlite(sql) => Ok(query.sqlite().fetch_all(&mut **sql).await?.into_iter().map(Row::Sqlite).collect()),
            Self::Postgres(sql, deadline) => {
                let rows = within(*deadline, query.postgres().fetch_all(&mut **sql)).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// Statements without values.
    pub async fn run(&mut self, statements: String) -> Result<(), sqlx::Error> {
        let statements = sqlx::raw_sql(AssertSqlSafe(statements));
        match self {
            Self::Sqlite(sql) => statements.execute(&mut **sql).await.map(drop),
            Self::Postgres(sql, deadline) => within(*deadline, statements.execute(&mut **sql)).await.map(drop),
        }
    }

    pub async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(sql) => sql.commit().await,
            Self::Postgres(sql, deadline) => within(deadline, sql.commit()).await,
        }
    }

    pub async fn rollback(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(sql) => sql.rollback().await,
            Self::Postgres(sql, deadline) => within(deadline, sql.rollback()).await,
        }
    }
}

/// Waits for a server no longer than this.
pub(super) async fn within<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", deadline.as_secs()));
    timeout(deadline, work).await.unwrap_or_else(|_| Err(sqlx::Error::Io(late())))
}

/// What a column may hold.
#[derive(Clone, Debug)]
pub(in super::super) enum Value {
    Text(Option<String>),
    Integer(i64),
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(Some(text.clone()))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<&Option<String>> for Value {
    fn from(text: &Option<String>) -> Self {
        Self::Text(text.clone())
    }
}

impl From<i64> for Value {
    fn from(integer: i64) -> Self {
        Self::Integer(integer)
    }
}

/// A statement that both databases read, with `$1`, `$2`, … for its values.
pub(in super::super) struct Query {
    sql: Cow<'static, str>,
    values: Vec<Value>,
}

/// A statement without values yet.
pub(in super::super) fn query(sql: impl Into<Cow<'static, str>>) -> Query {
    Query { sql: sql.into(), values: Vec::new() }
}

impl Query {
    /// Adds the next value.
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    fn sqlite(self) -> sqlx::query::Query<'static, Sqlite, SqliteArguments> {
        self.values.into_iter().fold(sqlx::query(AssertSqlSafe(self.sql.into_owned())), |query, value| match value {
            Value::Text(text) => query.bind(text),
            Value::Integer(integer) => query.bind(integer),
        })
    }

    pub(super) fn postgres(self) -> sqlx::query::Query<'static, Postgres, PgArguments> {
        self.values.into_iter().fold(sqlx::query(AssertSqlSafe(self.sql.into_owned())), |query, value| match value {
            Value::Text(text) => query.bind(text),
            Value::Integer(integer) => query.bind(integer),
        })
    }
}

/// What a column can be read as.
pub(in super::super) trait Readable:
    for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres>
{
}

impl<T> Readable for T where T: for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres>
{}

/// A row of one of the two.
pub(in super::super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    pub fn get<T: Readable>(&self, column: &str) -> Result<T, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    /// Every column with its name.
    pub fn values(&self) -> Result<Vec<(String, Value)>, sqlx::Error> {
        let columns: Vec<_> = match self {
            Self::Sqlite(row) => {
                row.columns().iter().map(|c| (c.name().to_owned(), c.type_info().name() == "INTEGER")).collect()
            }
            Self::Postgres(row) => {
                row.columns().iter().map(|c| (c.name().to_owned(), c.type_info().name() == "INT8")).collect()
            }
        };
        let value = |(name, is_integer): (String, bool)| {
            let value = if is_integer { Value::Integer(self.get(&name)?) } else { Value::Text(self.get(&name)?) };
            Ok((name, value))
        };
        columns.into_iter().map(value).collect()
    }
}
