//! Disks that hang, are full or gone: orders wait for them, a kill does not.

use super::store::Access;
use super::*;

on_both!(a_kill_does_not_wait_for_a_ledger_that_hangs);
async fn a_kill_does_not_wait_for_a_ledger_that_hangs(kind: Kind) {
    let (dir, ledger) = new_ledger(kind).await;
    let hanging = ledger.inner.store.lock().await;
    kill_intent(&ledger, "kill-1").await.unwrap();
    latch(&ledger, "aaaaaaaa-3").await.unwrap();
    let again = kill_intent(&ledger, "kill-1").await.unwrap_err();
    assert_eq!((again.reason(), ledger.journaled()), ("OrderDuplicate", 2));
    drop(hanging);
    ledger.remember_claim("a", "p").await.unwrap();
    assert_eq!(ledger.journaled(), 0, "the next write takes the journal in");
    ledger.order(&update("kill-1", RecordStatus::Filled, 5)).await.unwrap();
    verify(dir.path()).await.unwrap();
    drop(ledger);
    let (_ledger, recovered) = open(dir.path()).await;
    assert_eq!((recovered.orders.len(), recovered.incidents.len()), (1, 1), "each is there once");
}

on_both!(a_crash_with_records_in_the_journal_loses_none);
async fn a_crash_with_records_in_the_journal_loses_none(kind: Kind) {
    let (dir, ledger) = new_ledger(kind).await;
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
    let (dir, ledger) = new_ledger(Kind::Sqlite).await;
    let mut big = new_order("b-1-1");
    big.product = "x".repeat(1 << 16);
    fill(&ledger).await;
    let error = ledger.intent(&big, Class::Enter, 1).await.unwrap_err();
    assert!(error.is_storage(), "{error}");
    assert!(error.to_string().contains("full"), "{error}");

    fill(&ledger).await;
    big.client_order_id = "kill-1".to_owned();
    ledger.intent_or_journal(&big, Class::Kill, 1, KILL_DEADLINE * 20).await.unwrap();
    assert_eq!(ledger.journaled(), 1);
    // A leg that stands alone is repaired, too.
    fill(&ledger).await;
    big.client_order_id = "trim-1".to_owned();
    ledger.intent_or_journal(&big, Class::Trim, 1, KILL_DEADLINE * 20).await.unwrap();
    assert_eq!(ledger.journaled(), 2);
    let problem = ledger.problems().borrow().clone().expect("no problem");
    assert_eq!(problem.kind, ProblemKind::Unwritable);

    // There is space again: the write connects anew, and takes the journal in.
    ledger.intent(&new_order("b-1-2"), Class::Enter, 1).await.unwrap();
    assert_eq!((ledger.journaled(), ledger.problems().borrow().clone()), (0, None));
    verify(dir.path()).await.unwrap();
    drop(ledger);
    let (_, recovered) = open(dir.path()).await;
    let ids: Vec<_> = recovered.orders.iter().map(|order| order.client_order_id.as_str()).collect();
    assert_eq!(ids, ["kill-1", "trim-1", "b-1-2"]);
    assert_eq!(recovered.orders[1].class, Some(Class::Trim));
}

/// Proven by mutation: `cleared` whoever found it; a refusal or a write that changed nothing taken for one that succeeded;
/// `try_again` saying that all is well while a write is under way.
#[tokio::test]
async fn what_a_check_or_a_write_found_is_cleared_only_by_what_disproves_it() {
    let (_dir, ledger) = new_ledger(Kind::Sqlite).await;
    let kind = || ledger.problems().borrow().as_ref().map(|problem| problem.kind);
    ledger.remember_claim("a", "p").await.unwrap();

    // A write that hangs is over with one that succeeds, not with what writes nothing.
    ledger.does_not_answer(SHORT);
    ledger.remember_claim("a", "p").await.unwrap();
    ledger.order(&update("none", RecordStatus::Open, 0)).await.unwrap_err();
    assert_eq!(kind(), Some(ProblemKind::Unwritable));
    {
        let _under_way = ledger.inner.store.lock().await;
        ledger.check().await;
        assert_eq!(kind(), Some(ProblemKind::Unwritable), "who is busy has not succeeded");
    }
    ledger.intent(&new_order("b-1-1"), Class::Enter, 1).await.unwrap();
    assert_eq!(kind(), None);

    // On a nearly full disk a small write succeeds.
    ledger.inner.health.too_full();
    ledger.intent(&new_order("b-1-2"), Class::Enter, 1).await.unwrap();
    assert_eq!(kind(), Some(ProblemKind::Unwritable));
    ledger.check().await;
    assert_eq!(kind(), None, "there is room, and a write succeeds");

    // A look at a volume that hangs: no second thread waits for it, and a write does not end it.
    let looking = std::sync::Arc::clone(&ledger.inner.health.looking).lock_owned().await;
    ledger.check().await;
    ledger.intent(&new_order("b-1-3"), Class::Enter, 1).await.unwrap();
    assert_eq!(kind(), Some(ProblemKind::Unwritable));
    drop(looking);
    ledger.check().await;
    assert_eq!(kind(), None);
}

/// Lets the present connection add no page.
async fn fill(ledger: &Ledger) {
    let mut guard = ledger.inner.store.lock().await;
    if guard.is_none() {
        *guard = Some(Store::connect(&ledger.inner.source, Access::Write).await.unwrap());
    }
    guard.as_mut().unwrap().limit_pages(1).await;
}

#[tokio::test]
async fn a_lost_directory_is_an_error_that_names_it() {
    let (dir, ledger) = new_ledger(Kind::Sqlite).await;
    *ledger.inner.store.lock().await = None;
    std::fs::remove_file(dir.path().join(FILE)).unwrap();
    let error = ledger.remember_claim("a", "p").await.unwrap_err();
    assert!(error.is_storage() && error.to_string().contains(FILE), "{error}");
}
