//! The ledger as a bot uses it: crashes, other bots, other processes, damaged files, full and hanging disks.

use std::path::Path;
use std::time::Duration;

use arbbot_crds::arbbot::KillAction;
use arbbot_crds::status::IncidentPhase;
use proptest::prelude::*;
use rust_decimal::Decimal;
use strum::IntoEnumIterator;
use tempfile::TempDir;

use super::*;
use crate::exchange::{OrderKind, OrderStatus, Side};

const SHORT: Duration = Duration::from_millis(50);

fn binding() -> Binding {
    Binding {
        bot_uid: "uid-1".to_owned(),
        execution: "Live".to_owned(),
        venue: "coinbase/api.coinbase.com".to_owned(),
        portfolio: "portfolio-1".to_owned(),
        spot_product: "BTC-USD".to_owned(),
        future_product: "BIP-20DEC30-CDE".to_owned(),
    }
}

fn new_order(id: &str) -> NewOrder {
    NewOrder {
        client_order_id: id.to_owned(),
        product: "BTC-USD".to_owned(),
        side: Side::Sell,
        size: Decimal::new(5, 2),
        kind: OrderKind::PostOnly {
            limit_price: Decimal::new(100_000, 0),
            expires_at: "2026-01-01T00:02:00Z".parse().unwrap(),
        },
    }
}

fn update(id: &str, status: RecordStatus, filled: i64) -> OrderUpdate {
    OrderUpdate {
        filled: Decimal::new(filled, 2),
        average_price: Decimal::new(100_000, 0),
        fees_quote: Decimal::new(filled, 1),
        ..OrderUpdate::local(id, status).with_order_id("venue-1")
    }
}

fn incident(id: &str, phase: IncidentPhase) -> IncidentRecord {
    IncidentRecord {
        id: id.parse().unwrap(),
        source: "ArbBot/carry".to_owned(),
        action: KillAction::Flatten,
        reason: "drill".to_owned(),
        engaged_at: "2026-01-01T00:00:00Z".parse().unwrap(),
        phase,
        source_engaged: true,
        orders_cancelled_at: None,
        flat_at: None,
    }
}

async fn open(dir: &Path) -> (Ledger, Recovered) {
    Ledger::open(dir, &binding(), Clock::manual()).await.unwrap()
}

async fn new_ledger() -> (TempDir, Ledger) {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, recovered) = open(dir.path()).await;
    assert!(recovered.fresh && recovered.orders.is_empty() && recovered.note.is_none());
    (dir, ledger)
}

/// Runs SQL as somebody else who has the file.
async fn tamper(dir: &Path, sql: &'static str) {
    use sqlx::{ConnectOptions, Connection};
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.join(FILE));
    let mut connection = options.connect().await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn what_was_written_is_there_after_a_crash() {
    let (dir, ledger) = new_ledger().await;
    ledger.intent(&new_order("b-1-7"), Class::Enter, 1).await.unwrap();
    ledger.order(&update("b-1-7", RecordStatus::Open, 2)).await.unwrap();
    ledger.open_incident(&incident("aaaaaaaa-3", IncidentPhase::CancellingOrders)).await.unwrap();
    ledger.open_incident(&incident("bbbbbbbb-1", IncidentPhase::CancellingOrders)).await.unwrap();
    ledger.release_incident(&"bbbbbbbb-1".parse().unwrap(), Timestamp::UNIX_EPOCH).await.unwrap();
    ledger.remember_claim("portfolio-1", "BIP-20DEC30-CDE").await.unwrap();
    let head = ledger.head();
    drop(ledger);

    let (ledger, recovered) = open(dir.path()).await;
    let order = &recovered.orders[0];
    assert_eq!((order.status, order.filled), (RecordStatus::Open, Decimal::new(2, 2)));
    assert_eq!(order.signed_filled(), Decimal::new(-2, 2));
    assert_eq!((order.class, order.epoch, order.kind.as_str()), (Some(Class::Enter), 1, "PostOnly"));
    assert_eq!(order.expires_at, Some("2026-01-01T00:02:00Z".parse().unwrap()));
    assert_eq!(recovered.incidents, vec![incident("aaaaaaaa-3", IncidentPhase::CancellingOrders)]);
    assert_eq!(recovered.released, vec!["bbbbbbbb-1".parse().unwrap()]);
    assert_eq!(recovered.claim, Some(("portfolio-1".to_owned(), "BIP-20DEC30-CDE".to_owned())));
    assert_eq!((recovered.next_sequence, recovered.fresh), (8, false));
    assert_eq!(ledger.head(), head);
    ledger.verify().await.unwrap();
}

/// Names the directory in which the test below, run as a process to be killed, writes orders.
const VICTIM: &str = "ARBBOT_LEDGER_TEST_VICTIM";

#[tokio::test]
async fn a_killed_process_has_every_order_that_it_was_told_is_durable() {
    use std::io::BufRead;
    if let Some(dir) = std::env::var_os(VICTIM) {
        let (ledger, _) = open(Path::new(&dir)).await;
        for n in 0.. {
            let order = new_order(&format!("b-1-{n}"));
            ledger.intent(&order, Class::Enter, 1).await.unwrap();
            println!("\ndurable {}", order.client_order_id);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut victim = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("ledger::tests::a_killed_process_has_every_order_that_it_was_told_is_durable")
        .env(VICTIM, dir.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let output = std::io::BufReader::new(victim.stdout.take().unwrap());
    let lines = output.lines().map_while(Result::ok);
    let durable = lines.filter_map(|line| line.strip_prefix("durable ").map(str::to_owned));
    let durable: Vec<_> = durable.take(50).collect();
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert_eq!(durable.len(), 50);
    let (ledger, recovered) = open(dir.path()).await;
    let there: Vec<_> = recovered.orders.iter().map(|order| &order.client_order_id).collect();
    assert!(durable.iter().all(|id| there.contains(&id)));
    ledger.verify().await.unwrap();
}

#[tokio::test]
async fn an_order_id_is_used_once() {
    let (dir, ledger) = new_ledger().await;
    ledger.intent(&new_order("b-1-1"), Class::Enter, 1).await.unwrap();
    let head = ledger.head();
    let again = ledger.intent(&new_order("b-1-1"), Class::Enter, 1).await.unwrap_err();
    assert_eq!(again.reason(), "OrderDuplicate");
    let kill = ledger.intent_for_kill(&new_order("b-1-1"), 1, KILL_DEADLINE).await.unwrap_err();
    assert_eq!((kill.reason(), ledger.journaled()), ("OrderDuplicate", 0), "a refusal does not go to the journal");
    assert_eq!(ledger.head(), head);
    drop(ledger);
    let (ledger, _) = open(dir.path()).await;
    assert!(ledger.intent(&new_order("b-1-1"), Class::Enter, 2).await.is_err(), "after a restart too");
}

#[tokio::test]
async fn the_same_news_twice_adds_no_entry() {
    let (_dir, ledger) = new_ledger().await;
    let unknown = ledger.order(&update("b-1-1", RecordStatus::Open, 0)).await.unwrap_err();
    assert_eq!(unknown.reason(), "OrderNotInLedger");
    ledger.intent(&new_order("b-1-1"), Class::Enter, 1).await.unwrap();
    ledger.order(&update("b-1-1", RecordStatus::Filled, 5)).await.unwrap();
    ledger.open_incident(&incident("aaaaaaaa-3", IncidentPhase::Flattening)).await.unwrap();
    ledger.remember_claim("a", "p").await.unwrap();
    let head = ledger.head();
    ledger.order(&update("b-1-1", RecordStatus::Filled, 5)).await.unwrap();
    ledger.order(&update("b-1-1", RecordStatus::Open, 3)).await.unwrap();
    ledger.open_incident(&incident("aaaaaaaa-3", IncidentPhase::Flattening)).await.unwrap();
    ledger.remember_claim("a", "p").await.unwrap();
    assert_eq!(ledger.head(), head);
}

#[tokio::test]
async fn a_second_order_under_one_id_is_an_error() {
    let (_dir, ledger) = new_ledger().await;
    ledger.intent(&new_order("b-1-1"), Class::Enter, 1).await.unwrap();
    ledger.order(&update("b-1-1", RecordStatus::Open, 0)).await.unwrap();
    let other = OrderUpdate::local("b-1-1", RecordStatus::Open).with_order_id("venue-2");
    assert_eq!(ledger.order(&other).await.unwrap_err().reason(), "OrderTwiceAtExchange");
}

#[tokio::test]
async fn an_order_found_at_the_exchange_is_taken_in_once() {
    let (_dir, ledger) = new_ledger().await;
    let mut state = OrderState {
        order_id: "venue-1".to_owned(),
        client_order_id: "b-1-9".to_owned(),
        product: "BTC-USD".to_owned(),
        side: Side::Buy,
        status: OrderStatus::Open,
        filled: Decimal::ONE,
        average_price: Decimal::TEN,
        fees_quote: Decimal::ZERO,
        size: Some(Decimal::TWO),
        created_at: None,
    };
    ledger.import(&state, 1).await.unwrap();
    state.filled = Decimal::TWO;
    state.status = OrderStatus::Filled;
    ledger.import(&state, 1).await.unwrap();
    ledger.verify().await.unwrap();
    let orders = ledger.inner.store.lock().await.as_mut().unwrap().begin().await.unwrap().orders().await.unwrap();
    assert_eq!(orders.len(), 1);
    assert_eq!((orders[0].signed_filled(), orders[0].status), (Decimal::TWO, RecordStatus::Filled));
}

#[tokio::test]
async fn a_released_incident_is_not_opened_again_by_old_news() {
    let (_dir, ledger) = new_ledger().await;
    let mut record = incident("aaaaaaaa-3", IncidentPhase::CancellingOrders);
    ledger.open_incident(&record).await.unwrap();
    record.phase = IncidentPhase::Finished;
    record.action = KillAction::CancelOrders;
    ledger.update_incident(&record).await.unwrap();
    let stored = {
        let mut store = ledger.inner.store.lock().await;
        store.as_mut().unwrap().begin().await.unwrap().incidents().await.unwrap()
    };
    assert_eq!(stored[0].0.action, KillAction::Flatten, "the action of a running kill never falls");
    ledger.release_incident(&record.id, Timestamp::UNIX_EPOCH).await.unwrap();
    ledger.release_incident(&record.id, Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(ledger.open_incident(&record).await.unwrap_err().reason(), "IncidentReleased");
    let unknown = ledger.release_incident(&"cccccccc-1".parse().unwrap(), Timestamp::UNIX_EPOCH).await;
    assert_eq!(unknown.unwrap_err().reason(), "IncidentNotInLedger");
    ledger.verify().await.unwrap();
}

#[tokio::test]
async fn a_ledger_opens_only_for_what_it_belongs_to() {
    let (dir, ledger) = new_ledger().await;
    drop(ledger);
    let others = [
        ("spec.execution", Binding { execution: "Paper".to_owned(), ..binding() }),
        ("spec.venue", Binding { venue: "coinbase/other".to_owned(), ..binding() }),
        ("portfolio", Binding { portfolio: "portfolio-2".to_owned(), ..binding() }),
        ("spot product", Binding { spot_product: "ETH-USD".to_owned(), ..binding() }),
        ("future product", Binding { future_product: "ETP-20DEC30-CDE".to_owned(), ..binding() }),
    ];
    for (field, other) in others {
        let error = Ledger::open(dir.path(), &other, Clock::manual()).await.unwrap_err();
        assert_eq!(error.reason(), "LedgerBoundToOther");
        assert!(error.to_string().contains(field), "{error}");
    }
}

#[tokio::test]
async fn a_new_bot_of_the_same_name_adopts_the_ledger() {
    let (dir, ledger) = new_ledger().await;
    ledger.intent(&new_order("b-1-1"), Class::Enter, 1).await.unwrap();
    let before = ledger.head();
    drop(ledger);
    let successor = Binding { bot_uid: "uid-2".to_owned(), ..binding() };
    let (ledger, recovered) = Ledger::open(dir.path(), &successor, Clock::manual()).await.unwrap();
    assert_eq!((recovered.orders.len(), recovered.fresh), (1, false));
    assert_eq!(ledger.head().entries, before.entries + 1, "the adoption is on record");
    assert!(ledger.continues(&before).await.unwrap());
}

#[tokio::test]
async fn two_processes_never_share_a_ledger() {
    let (dir, ledger) = new_ledger().await;
    let error = Ledger::open(dir.path(), &binding(), Clock::manual()).await.unwrap_err();
    assert_eq!(error.reason(), "LedgerLocked");
    assert!(error.to_string().contains(&dir.path().join(FILE).display().to_string()), "{error}");
    drop(ledger);
    open(dir.path()).await;
}

#[tokio::test]
async fn a_changed_file_is_found() {
    for (sql, what) in [
        ("UPDATE entries SET payload = replace(payload, 'Enter', 'Kill') WHERE kind = 'Intent'", "an entry"),
        ("UPDATE entries SET at = '2020-01-01T00:00:00Z' WHERE n = 2", "a time"),
        ("DELETE FROM entries WHERE n = 2", "an entry cut out"),
        ("UPDATE orders SET filled = '9'", "an order"),
        ("DELETE FROM orders", "an order that is gone"),
        ("UPDATE incidents SET released_at = '2026-01-01T00:00:00Z'", "a latch"),
        ("DELETE FROM incidents", "a latch that is gone"),
        ("INSERT INTO claim VALUES (1, 'a', 'p')", "a claim"),
    ] {
        let (dir, ledger) = new_ledger().await;
        ledger.intent(&new_order("b-1-1"), Class::Enter, 1).await.unwrap();
        ledger.open_incident(&incident("aaaaaaaa-3", IncidentPhase::Flattening)).await.unwrap();
        ledger.verify().await.unwrap();
        tamper(dir.path(), sql).await;
        assert_eq!(ledger.verify().await.unwrap_err().reason(), "LedgerTampered", "{what}");
    }
}

#[tokio::test]
async fn a_tail_that_was_cut_off_is_found_by_the_head_in_the_status() {
    let (dir, ledger) = new_ledger().await;
    ledger.intent(&new_order("b-1-1"), Class::Enter, 1).await.unwrap();
    let anchored = ledger.head();
    assert!(ledger.continues(&anchored).await.unwrap());
    tamper(dir.path(), "DELETE FROM orders; DELETE FROM entries WHERE kind = 'Intent'").await;
    ledger.verify().await.expect("by itself a shorter chain is a whole one");
    assert!(!ledger.continues(&anchored).await.unwrap());
}

#[tokio::test]
async fn a_damaged_file_is_kept_and_a_new_ledger_begun() {
    let (dir, ledger) = new_ledger().await;
    ledger.intent(&new_order("b-1-1"), Class::Enter, 1).await.unwrap();
    ledger.close().await;
    drop(ledger);
    for round in 1..=2 {
        std::fs::write(dir.path().join(FILE), b"this was a ledger, and a long text is needed to make it no database")
            .unwrap();
        let (ledger, recovered) = open(dir.path()).await;
        assert!(recovered.fresh && recovered.orders.is_empty());
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
    let (dir, ledger) = new_ledger().await;
    for n in 0..50 {
        ledger.intent(&new_order(&format!("b-1-{n}")), Class::Enter, 1).await.unwrap();
    }
    ledger.close().await;
    drop(ledger);
    let path = dir.path().join(FILE);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    file.write_all_at(&[0xA5; 4096], length / 2 / 4096 * 4096).unwrap();
    let (ledger, recovered) = open(dir.path()).await;
    assert!(recovered.fresh && recovered.note.is_some());
    ledger.verify().await.unwrap();
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_damage_and_a_newer_schema_is_not() {
    let (dir, ledger) = new_ledger().await;
    ledger.intent(&new_order("b-1-1"), Class::Enter, 1).await.unwrap();
    drop(ledger);
    tamper(dir.path(), "PRAGMA user_version = 99").await;
    let error = Ledger::open(dir.path(), &binding(), Clock::manual()).await.unwrap_err();
    assert_eq!(error.reason(), "LedgerSchemaNewer");
    tamper(dir.path(), "PRAGMA user_version = 1; UPDATE orders SET status = 'Lost'").await;
    let (_ledger, recovered) = open(dir.path()).await;
    assert!(recovered.fresh && recovered.note.unwrap().contains("column status"));
}

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
    ledger.verify().await.unwrap();
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
    ledger.verify().await.unwrap();
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
    ledger.verify().await.unwrap();
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

/// What may happen to a ledger.
#[derive(Clone, Debug)]
enum Step {
    Intent(usize),
    Order(usize, RecordStatus, i64),
    Kill(usize, IncidentPhase),
    Release(usize),
    Claim(usize),
    Crash,
}

fn any_step() -> impl Strategy<Value = Step> {
    let status = prop::sample::select(RecordStatus::iter().collect::<Vec<_>>());
    let phase = prop::sample::select(vec![IncidentPhase::CancellingOrders, IncidentPhase::Finished]);
    prop_oneof![
        (0_usize..3).prop_map(Step::Intent),
        (0_usize..3, status, 0_i64..6).prop_map(|(n, status, filled)| Step::Order(n, status, filled)),
        (0_usize..2, phase).prop_map(|(n, phase)| Step::Kill(n, phase)),
        (0_usize..2).prop_map(Step::Release),
        (0_usize..2).prop_map(Step::Claim),
        Just(Step::Crash),
    ]
}

/// Takes the steps; refusals are part of life, failures of the disk are not.
async fn walk(dir: &Path, steps: Vec<Step>) -> Ledger {
    let (mut ledger, _) = open(dir).await;
    for step in steps {
        let order = |n| format!("b-1-{n}");
        let id = |n| format!("aaaaaaaa-{n}");
        let done = match step {
            Step::Intent(n) => ledger.intent(&new_order(&order(n)), Class::Enter, 1).await,
            Step::Order(n, status, filled) => ledger.order(&update(&order(n), status, filled)).await,
            Step::Kill(n, phase) => ledger.open_incident(&incident(&id(n), phase)).await,
            Step::Release(n) => ledger.release_incident(&id(n).parse().unwrap(), Timestamp::UNIX_EPOCH).await,
            Step::Claim(n) => ledger.remember_claim(&order(n), "p").await,
            Step::Crash => {
                let head = ledger.head();
                drop(ledger);
                ledger = open(dir).await.0;
                assert_eq!(ledger.head(), head, "a crash neither adds nor loses an entry");
                Ok(())
            }
        };
        assert!(!done.is_err_and(|error| error.is_storage()));
    }
    ledger
}

fn any_update() -> impl Strategy<Value = OrderUpdate> {
    let status = prop::sample::select(RecordStatus::iter().collect::<Vec<_>>());
    (status, 0_i64..6).prop_map(|(status, filled)| update("b-1-1", status, filled))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever happens, the tables are what the entries say, and the chain holds.
    #[test]
    fn the_tables_follow_from_the_entries(steps in prop::collection::vec(any_step(), 0..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            walk(dir.path(), steps).await.verify().await.unwrap();
        });
    }
}

proptest! {
    /// News that come late, twice or in another order never take anything back.
    #[test]
    fn a_record_never_goes_backwards(updates in prop::collection::vec(any_update(), 0..20)) {
        let order = new_order("b-1-1");
        let mut record = OrderRecord::intended(&order, Class::Enter, 1, Timestamp::UNIX_EPOCH);
        for update in updates {
            let new = record.updated(&update).unwrap();
            prop_assert_eq!(&new.updated(&update).unwrap(), &new, "the same update twice changes nothing");
            prop_assert!(new.filled >= record.filled && new.fees_quote >= record.fees_quote);
            prop_assert_eq!(new.filled, record.filled.max(update.filled));
            let ended = record.status.is_terminal();
            let concluded = matches!(record.status, RecordStatus::NotPlaced | RecordStatus::Rejected);
            if ended && !concluded {
                prop_assert_eq!(new.status, record.status, "an end at the exchange is final");
            }
            if concluded && new.status != record.status {
                prop_assert!(new.order_id.is_some(), "only the exchange itself overrules the bot's conclusion");
            }
            prop_assert!(!matches!(new.status, RecordStatus::Intended) || record.status == RecordStatus::Intended);
            record = new;
        }
    }

    /// The sums do not depend on the order in which the news came.
    #[test]
    fn fills_do_not_depend_on_the_order_of_the_news(
        (updates, shuffled) in prop::collection::vec(any_update(), 0..10)
            .prop_flat_map(|updates| (Just(updates.clone()), Just(updates).prop_shuffle()))
    ) {
        let start = OrderRecord::intended(&new_order("b-1-1"), Class::Enter, 1, Timestamp::UNIX_EPOCH);
        let end = |updates: &[OrderUpdate]| {
            updates.iter().try_fold(start.clone(), |record, update| record.updated(update))
        };
        let (a, b) = (end(&updates).unwrap(), end(&shuffled).unwrap());
        prop_assert_eq!((a.filled, a.fees_quote), (b.filled, b.fees_quote));
        prop_assert_eq!(a.status.is_terminal(), b.status.is_terminal());
    }
}
