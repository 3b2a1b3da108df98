//! Somebody changes a table and leaves the chain alone.

use arbbot_crds::guards::GuardAction;
use sqlx::{ConnectOptions, Connection, Row};

use super::*;
use crate::ledger::EquityHigh;

/// Tables that no entry is about (docs/ledger.md names them), and the chain itself, of which `damage` tells.
const NOT_OF_THE_CHAIN: [&str; 2] = ["guard_equity", "entries"];

/// A ledger with a row in every table.
async fn with_one_of_each(kind: Kind) -> TempDir {
    let (dir, ledger) = new_ledger(kind).await;
    let trip = guards::trip("loss", GuardAction::ReduceOnly, Timestamp::UNIX_EPOCH, Some("aaaaaaaa-3"));
    ledger.intent(&new_order("b-1-1"), Class::Enter, 1).await.unwrap();
    ledger.order(&update("b-1-1", RecordStatus::Open, 2)).await.unwrap();
    ledger.open_incident(&incident("aaaaaaaa-3", IncidentPhase::Flattening)).await.unwrap();
    ledger.remember_claim("portfolio-1", "BIP-20DEC30-CDE").await.unwrap();
    ledger.guard_tripped(&trip).await.unwrap();
    ledger.keep_equity(&[EquityHigh { at: Timestamp::UNIX_EPOCH, equity_quote: dec!(7) }]).await.unwrap();
    ledger.post(books::one_of_each()).await.unwrap();
    ledger.funding_rate("BIP-20DEC30-CDE", Timestamp::UNIX_EPOCH, dec!(0.00001)).await.unwrap();
    ledger.close().await;
    dir
}

/// The columns of a table, of which the first is of its key, and what each is changed into: what still can be read, unless
/// it is one of few names.
async fn columns(table: &str) -> Vec<(String, String)> {
    let (dir, ledger) = new_ledger(Kind::Sqlite).await;
    ledger.close().await;
    let mut connection =
        sqlx::sqlite::SqliteConnectOptions::new().filename(dir.path().join(FILE)).connect().await.unwrap();
    let columns = sqlx::query("SELECT name, type FROM pragma_table_info($1) WHERE name <> 'one'");
    let rows = columns.bind(table).fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let changed = |name: &str, of: &str| match name {
        "at" | "hour" | "since" | "window_end" => "'2020-02-02T02:02:02Z'".to_owned(),
        _ if name.ends_with("_at") => "'2020-02-02T02:02:02Z'".to_owned(),
        "side" => "'BUY'".to_owned(),
        _ if of == "INTEGER" => format!("1 - {name}"),
        _ => format!("coalesce({name}, '') || '1'"),
    };
    let column = |row: &sqlx::sqlite::SqliteRow| {
        let (name, of): (String, String) = (row.get("name"), row.get("type"));
        (name.clone(), changed(&name, &of))
    };
    rows.iter().map(column).collect()
}

on_both!(whatever_is_changed_in_a_table_is_found);
/// Fails for the table that `Tables` does not replay or compare, and for the column that is not read.
///
/// Proven by mutation: `Entry::Bound` or `Entry::Adopted` replaying nothing, `differs` without the binding, the funding
/// rates without their product.
async fn whatever_is_changed_in_a_table_is_found(kind: Kind) {
    let dir = with_one_of_each(kind).await;
    verify(dir.path()).await.unwrap();
    for table in store::TABLES.into_iter().filter(|table| !NOT_OF_THE_CHAIN.contains(table)) {
        let columns = columns(table).await;
        let names: Vec<_> = columns.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(", ");
        let (key, another) = &columns[0];
        let is_one_row = matches!(table, "binding" | "claim");
        let mut changes = vec![format!("DELETE FROM {table}")];
        changes.extend(columns.iter().map(|(column, to)| format!("UPDATE {table} SET {column} = {to}")));
        if !is_one_row {
            let rest = names.replacen(key, another, 1);
            changes.push(format!("INSERT INTO {table} ({names}) SELECT {rest} FROM {table}"));
        }
        tamper(dir.path(), &format!("CREATE TABLE kept AS SELECT * FROM {table}")).await;
        for change in changes {
            tamper(dir.path(), &change).await;
            let error = verify(dir.path()).await.expect_err(&change);
            assert!(["LedgerTampered", "LedgerCorrupt"].contains(&error.reason()), "{change}: {error}");
            let names = if is_one_row { format!("one, {names}") } else { names.clone() };
            let undo = format!("DELETE FROM {table}; INSERT INTO {table} ({names}) SELECT {names} FROM kept");
            tamper(dir.path(), &undo).await;
        }
        tamper(dir.path(), "DROP TABLE kept").await;
        verify(dir.path()).await.unwrap();
    }
}

on_both!(a_ledger_whose_binding_was_changed_is_refused_at_the_start);
/// Proven by mutation: `belongs_to` taking the table's word, or the word of an entry that does not follow.
async fn a_ledger_whose_binding_was_changed_is_refused_at_the_start(kind: Kind) {
    let (live, paper) = (binding(), Binding { execution: "Paper".to_owned(), ..binding() });
    for change in [
        "UPDATE binding SET execution = 'Live'",
        "UPDATE binding SET execution = 'Live'; UPDATE entries SET payload = replace(payload, 'Paper', 'Live')",
        "DELETE FROM binding",
        "DELETE FROM binding; DELETE FROM entries WHERE n = 1",
    ] {
        let dir = kind.dir();
        let (ledger, _) = open_as(dir.path(), &paper, Clock::manual()).await.unwrap();
        ledger.intent(&new_order("b-1-1"), Class::Enter, 1).await.unwrap();
        ledger.close().await;
        drop(ledger);
        tamper(dir.path(), change).await;
        for wanted in [&live, &paper] {
            let error = open_as(dir.path(), wanted, Clock::manual()).await.unwrap_err();
            assert_eq!(error.reason(), "LedgerTampered", "{change}: {error}");
        }
        assert_eq!(verify(dir.path()).await.unwrap_err().reason(), "LedgerTampered", "{change}");
    }
}

/// What a kill did without a ledger is written before the ledger that takes its place is bound.
#[tokio::test]
async fn a_ledger_that_began_with_a_kill_journal_opens_again() {
    let (dir, ledger) = new_ledger(Kind::Sqlite).await;
    let latch = incident("aaaaaaaa-3", IncidentPhase::CancellingOrders);
    ledger.inner.journal.append(Entry::Incident(latch), KILL_DEADLINE).await.unwrap();
    ledger.close().await;
    drop(ledger);
    std::fs::remove_file(dir.path().join(FILE)).unwrap();
    for _ in 0..2 {
        let (ledger, recovered) = open(dir.path()).await;
        assert_eq!((recovered.incidents.len(), ledger.head().entries), (1, 2));
        verify(dir.path()).await.unwrap();
    }
}
