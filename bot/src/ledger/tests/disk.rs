//! Disks that hang, are full or gone: orders wait for them, a kill does not.

use super::*;

#[tokio::test]
async fn a_kill_does_not_wait_for_a_ledger_that_hangs() {
    let (dir, ledger) = new_ledger().await;
    let hanging = ledger.inner.store.lock().await;
    ledger.intent_for_kill(&new_order("kill-1"), 1, SHORT).await.unwrap();
    ledger.open_incident(&incident("aaaaaaaa-3", IncidentPhase::CancellingOrders)).await.unwrap();
    let again = ledger.intent_for_kill(&new_order("kill-1"), 1, SHORT).await.unwrap_err();
    assert_eq!((again.reason(), ledger.journaled()), ("OrderDuplicate", 2));
    drop(hanging);
    ledger.remember_claim("a", "p").await.unwrap();
    assert_eq!(ledger.journaled(), 0, "the next write takes the journal in");
    ledger.order(&update("kill-1", RecordStatus::Filled, 5)).await.unwrap();
    verify(dir.path()).await.unwrap();
    drop(ledger);
    let recovered = reopen(dir.path()).await;
    assert_eq!((recovered.orders.len(), recovered.incidents.len()), (1, 1), "each is there once");
}

/// Opens a ledger whose late writes may still be ending.
async fn reopen(dir: &Path) -> Recovered {
    for _ in 0..500 {
        match Ledger::open(dir, &binding(), Clock::manual()).await {
            Err(LedgerError::Locked { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
            opened => return opened.unwrap().1,
        }
    }
    panic!("the ledger stays locked");
}

#[tokio::test]
async fn a_crash_with_records_in_the_journal_loses_none() {
    let (dir, ledger) = new_ledger().await;
    let record = OrderRecord::intended(&new_order("kill-1"), Class::Kill, 1, Timestamp::UNIX_EPOCH);
    let latch = incident("aaaaaaaa-3", IncidentPhase::CancellingOrders);
    ledger.inner.journal.append(Entry::Intent(record.clone()), KILL_DEADLINE).await.unwrap();
    ledger.inner.journal.append(Entry::Incident(latch.clone()), KILL_DEADLINE).await.unwrap();
    drop(ledger);
    let (ledger, recovered) = open(dir.path()).await;
    assert_eq!((recovered.orders, recovered.incidents), (vec![record], vec![latch]));
    assert_eq!(ledger.journaled(), 0);
    verify(dir.path()).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_stops_orders_but_not_a_kill() {
    let (dir, ledger) = new_ledger().await;
    let mut big = new_order("b-1-1");
    big.product = "x".repeat(1 << 16);
    fill(&ledger).await;
    let error = ledger.intent(&big, Class::Enter, 1).await.unwrap_err();
    assert!(error.is_storage(), "{error}");
    assert!(error.to_string().contains("full"), "{error}");

    fill(&ledger).await;
    big.client_order_id = "kill-1".to_owned();
    ledger.intent_for_kill(&big, 1, KILL_DEADLINE * 20).await.unwrap();
    assert_eq!(ledger.journaled(), 1);

    // There is space again: the write connects anew, and takes the journal in.
    ledger.intent(&new_order("b-1-2"), Class::Enter, 1).await.unwrap();
    assert_eq!(ledger.journaled(), 0);
    verify(dir.path()).await.unwrap();
    drop(ledger);
    let (_, recovered) = open(dir.path()).await;
    let ids: Vec<_> = recovered.orders.iter().map(|order| order.client_order_id.as_str()).collect();
    assert_eq!(ids, ["kill-1", "b-1-2"]);
}

/// Lets the present connection add no page.
async fn fill(ledger: &Ledger) {
    let mut guard = ledger.inner.store.lock().await;
    if guard.is_none() {
        *guard = Some(Store::connect(&ledger.inner.path, false).await.unwrap());
    }
    guard.as_mut().unwrap().limit_pages(1).await;
}

#[tokio::test]
async fn a_lost_directory_is_an_error_that_names_it() {
    let (dir, ledger) = new_ledger().await;
    *ledger.inner.store.lock().await = None;
    std::fs::remove_file(dir.path().join(FILE)).unwrap();
    let error = ledger.remember_claim("a", "p").await.unwrap_err();
    assert!(error.is_storage() && error.to_string().contains(FILE), "{error}");
}
