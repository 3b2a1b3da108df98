//! Files that were damaged, changed or cut.

use std::fs::OpenOptions;

use super::*;

on_both!(a_changed_chain_is_found);
async fn a_changed_chain_is_found(kind: Kind) {
    for (sql, what) in [
        ("UPDATE entries SET payload = replace(payload, 'Enter', 'Kill') WHERE kind = 'Intent'", "an entry"),
        ("UPDATE entries SET at = '2020-01-01T00:00:00Z' WHERE n = 2", "a time"),
        ("DELETE FROM entries WHERE n = 2", "an entry cut out"),
        ("INSERT INTO claim VALUES (1, 'a', 'p')", "a claim"),
    ] {
        let (dir, ledger) = new_ledger(kind).await;
        ledger.intent(&new_order("b-1-1"), Class::Enter, 1).await.unwrap();
        ledger.open_incident(&incident("aaaaaaaa-3", IncidentPhase::Flattening)).await.unwrap();
        verify(dir.path()).await.unwrap();
        tamper(dir.path(), sql).await;
        assert_eq!(verify(dir.path()).await.unwrap_err().reason(), "LedgerTampered", "{what}");
    }
}

on_both!(a_tail_that_was_cut_off_is_found_by_the_head_in_the_status);
async fn a_tail_that_was_cut_off_is_found_by_the_head_in_the_status(kind: Kind) {
    let (dir, ledger) = new_ledger(kind).await;
    ledger.intent(&new_order("b-1-1"), Class::Enter, 1).await.unwrap();
    let anchored = ledger.head();
    assert!(ledger.continues(&anchored).await.unwrap());
    tamper(dir.path(), "DELETE FROM orders; DELETE FROM entries WHERE kind = 'Intent'").await;
    verify(dir.path()).await.expect("by itself a shorter chain is a whole one");
    assert!(!ledger.continues(&anchored).await.unwrap());
}

#[tokio::test]
async fn a_damaged_file_is_kept_and_a_new_ledger_begun() {
    let (dir, ledger) = new_ledger(Kind::Sqlite).await;
    ledger.intent(&new_order("b-1-1"), Class::Enter, 1).await.unwrap();
    ledger.close().await;
    drop(ledger);
    for round in 1..=2 {
        std::fs::write(dir.path().join(FILE), b"this was a ledger, and a long text is needed to make it no database")
            .unwrap();
        let (ledger, recovered) = open(dir.path()).await;
        assert!(recovered.orders.is_empty());
        assert!(recovered.note.unwrap().contains("ledger.db.corrupt-19700101T000000Z"));
        ledger.intent(&new_order("b-1-1"), Class::Enter, 1).await.unwrap();
        ledger.close().await;
        let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let kept = names.filter(|name| name.to_string_lossy().starts_with("ledger.db.corrupt-")).count();
        assert_eq!(kept, round, "none is overwritten");
    }
}

#[tokio::test]
async fn a_damaged_page_is_found_when_the_ledger_is_opened() {
    use std::os::unix::fs::FileExt;
    let (dir, ledger) = new_ledger(Kind::Sqlite).await;
    for n in 0..50 {
        ledger.intent(&new_order(&format!("b-1-{n}")), Class::Enter, 1).await.unwrap();
    }
    ledger.close().await;
    drop(ledger);
    let path = dir.path().join(FILE);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    file.write_all_at(&[0xA5; 4096], length / 2 / 4096 * 4096).unwrap();
    let (_ledger, recovered) = open(dir.path()).await;
    assert!(recovered.orders.is_empty() && recovered.note.is_some());
    verify(dir.path()).await.unwrap();
}

on_both!(a_record_that_cannot_be_read_is_damage_and_a_newer_schema_is_not);
async fn a_record_that_cannot_be_read_is_damage_and_a_newer_schema_is_not(kind: Kind) {
    let (dir, ledger) = new_ledger(kind).await;
    ledger.intent(&new_order("b-1-1"), Class::Enter, 1).await.unwrap();
    drop(ledger);
    let (newer, known) = match kind {
        Kind::Sqlite => ("PRAGMA user_version = 99", "PRAGMA user_version = 4"),
        Kind::Postgres => ("UPDATE writer SET version = 99", "UPDATE writer SET version = 4"),
    };
    tamper(dir.path(), newer).await;
    let error = open_as(dir.path(), &binding(), Clock::manual()).await.unwrap_err();
    assert_eq!(error.reason(), "LedgerSchemaNewer");
    tamper(dir.path(), known).await;
    tamper(dir.path(), "UPDATE orders SET status = 'Lost'").await;
    let (_ledger, recovered) = open(dir.path()).await;
    assert!(recovered.orders.is_empty() && recovered.note.unwrap().contains("column status"));
}
