//! Backups and what becomes of them.

use super::*;

async fn ledger_with_an_order() -> (TempDir, Ledger) {
    let (dir, ledger) = new_ledger(Kind::Sqlite).await;
    ledger.intent(&new_order("b-1-1"), Class::Enter, 1).await.unwrap();
    (dir, ledger)
}

#[tokio::test]
async fn a_backup_is_made_while_the_bot_writes_and_restores_what_it_held() {
    let (dir, ledger) = ledger_with_an_order().await;
    let (to, at) = (dir.path().join("backup.db"), ledger.head());
    assert_eq!(backup(dir.path(), &to).await.unwrap(), at);
    ledger.intent(&new_order("b-1-2"), Class::Enter, 1).await.unwrap();
    let error = restore(dir.path(), &to, Timestamp::UNIX_EPOCH).await.unwrap_err();
    assert_eq!(error.reason(), "LedgerLocked", "a bot has it");
    ledger.close().await;
    drop(ledger);
    let restored = restore(dir.path(), &to, Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(restored.head, at);
    let kept = restored.replaced.unwrap();
    assert!(kept.ends_with("ledger.db.replaced-19700101T000000Z"), "{kept}");
    let (ledger, recovered) = open(dir.path()).await;
    assert_eq!(recovered.orders.len(), 1);
    assert!(ledger.continues(&at).await.unwrap());
    assert_eq!(verify(dir.path()).await.unwrap(), ledger.head());
    let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: Vec<_> = names.filter(|name| name.contains("partial") || name.contains("restoring")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn no_file_is_overwritten_and_what_is_not_whole_is_neither_kept_nor_restored() {
    let (dir, ledger) = ledger_with_an_order().await;
    let to = dir.path().join("backup.db");
    std::fs::write(&to, "precious").unwrap();
    assert_eq!(backup(dir.path(), &to).await.unwrap_err().reason(), "FileExists");
    std::fs::remove_file(&to).unwrap();
    ledger.close().await;
    drop(ledger);
    let before = std::fs::read(dir.path().join(FILE)).unwrap();
    backup(dir.path(), &to).await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::copy(&to, elsewhere.path().join(FILE)).unwrap();
    tamper(elsewhere.path(), "UPDATE orders SET filled = '9'").await;
    let error = restore(dir.path(), &elsewhere.path().join(FILE), Timestamp::UNIX_EPOCH).await.unwrap_err();
    assert_eq!(error.reason(), "LedgerTampered");
    assert_eq!(std::fs::read(dir.path().join(FILE)).unwrap(), before, "the present one is untouched");
    let left = |dir: &Path| {
        dir.read_dir().unwrap().flatten().any(|entry| entry.path().extension().is_some_and(|e| e == "partial"))
    };
    assert!(!left(dir.path()), "nothing is left of what was refused");
    assert_eq!(backup(elsewhere.path(), &dir.path().join("b2")).await.unwrap_err().reason(), "LedgerTampered");
    assert!(!dir.path().join("b2").exists());
    assert_eq!(backup(&dir.path().join("none"), &dir.path().join("b3")).await.unwrap_err().reason(), "LedgerMissing");
    // What is named wrong is named, not the disk; so is a file with nothing in it.
    std::fs::write(elsewhere.path().join(FILE), "").unwrap();
    let empty = verify(elsewhere.path()).await.unwrap_err();
    assert!(empty.reason() == "LedgerMissing" && empty.to_string().contains("in the empty file"), "{empty}");
    let refused = restore(dir.path(), &elsewhere.path().join(FILE), Timestamp::UNIX_EPOCH).await.unwrap_err();
    assert!(refused.to_string().contains("no backup in the empty file"), "{refused}");
    assert!(history(elsewhere.path(), "any").await.unwrap().is_empty(), "as where there is none");
    assert_eq!(backup(dir.path(), &dir.path().join("none/b4")).await.unwrap_err().reason(), "PathMissing");
    let now = Timestamp::UNIX_EPOCH;
    assert_eq!(restore(dir.path(), &dir.path().join("none"), now).await.unwrap_err().reason(), "PathMissing");
    assert_eq!(verify(&to).await.unwrap_err().reason(), "NotADirectory");
}
