//! The ledger as a bot uses it: crashes, other bots, other processes, damaged files, full and hanging disks; in SQLite's
//! file and on a PostgreSQL server.

/// The same test on a ledger of either kind.
macro_rules! on_both {
    ($test:ident) => {
        mod $test {
            #[tokio::test]
            async fn sqlite() {
                super::$test(super::Kind::Sqlite).await;
            }

            #[tokio::test]
            async fn postgres() {
                super::$test(super::Kind::Postgres).await;
            }
        }
    };
}

mod books;
mod copy;
mod damage;
mod disk;
mod guards;
mod postgres;
mod properties;
#[path = "../../tests/postgres/server.rs"]
mod server;
mod story;
mod tamper;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arbbot_crds::arbbot::KillAction;
use arbbot_crds::status::IncidentPhase;
use rust_decimal::{Decimal, dec};
use tempfile::TempDir;

use super::*;
use crate::exchange::{OrderKind, OrderStatus, Side};

const SHORT: Duration = Duration::from_millis(50);
/// What never takes so long but on a machine that is busy with something else.
const LONG: Duration = Duration::from_secs(30);

/// Where a ledger's records are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Sqlite,
    Postgres,
}

impl Kind {
    /// Directory of a ledger that nobody has opened yet.
    fn dir(self) -> TempDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::tempdir().unwrap();
        if self == Self::Postgres {
            let name = format!("bot-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            Server::of_bot(&database().1, "desk", &name).point(dir.path()).unwrap();
        }
        dir
    }
}

/// A server and the Secret of a database there, in which every test has a ledger of its own.
fn database() -> &'static (server::Server, PathBuf) {
    static DATABASE: OnceLock<(server::Server, PathBuf)> = OnceLock::new();
    DATABASE.get_or_init(|| {
        let server = server::Server::start(&["fsync=off"]);
        let secret = server.secret();
        (server, secret)
    })
}

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

/// As a kill's order is remembered, with a ledger that is given up soon and a journal that is waited for.
async fn kill_intent(ledger: &Ledger, id: &str) -> Result<(), LedgerError> {
    let record = OrderRecord::intended(&new_order(id), Class::Kill, 1, Timestamp::UNIX_EPOCH);
    ledger.write_or_journal(Entry::Intent(record), SHORT, LONG).await
}

/// As a latch is.
async fn latch(ledger: &Ledger, id: &str) -> Result<(), LedgerError> {
    let record = incident(id, IncidentPhase::CancellingOrders);
    ledger.write_or_journal(Entry::Incident(record), SHORT, LONG).await
}

fn update(id: &str, status: RecordStatus, filled: i64) -> OrderUpdate {
    OrderUpdate {
        filled: Decimal::new(filled, 2),
        average_price: Decimal::new(100_000, 0),
        fees_quote: Decimal::new(filled, 1),
        client_order_id: id.to_owned(),
        order_id: Some("venue-1".to_owned()),
        status,
        reason: None,
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
    open_as(dir, &binding(), Clock::manual()).await.unwrap()
}

/// Opens a ledger whose late writes may still be ending.
async fn open_as(dir: &Path, binding: &Binding, clock: Clock) -> Result<(Ledger, Recovered), LedgerError> {
    for _ in 0..500 {
        match Ledger::open(dir, binding, clock.clone()).await {
            Err(LedgerError::Locked { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
            opened => return opened,
        }
    }
    panic!("the ledger stays locked");
}

async fn new_ledger(kind: Kind) -> (TempDir, Ledger) {
    let dir = kind.dir();
    let (ledger, recovered) = open(dir.path()).await;
    assert!(recovered.orders.is_empty() && recovered.note.is_none());
    (dir, ledger)
}

/// Runs SQL as somebody else who has the file, or is allowed to on the server.
async fn tamper(dir: &Path, sql: &str) {
    use sqlx::{ConnectOptions, Connection};
    if let Source::Server(server) = Place::from(dir).source().unwrap() {
        database().0.sql("bots0", &format!("SET search_path = \"{}\"; {sql}", server.schema()));
        return;
    }
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.join(FILE));
    let mut connection = options.connect().await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

on_both!(what_was_written_is_there_after_a_crash);
async fn what_was_written_is_there_after_a_crash(kind: Kind) {
    let (dir, ledger) = new_ledger(kind).await;
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
    assert_eq!(order.side, Side::Sell);
    assert_eq!((order.class, order.epoch, order.kind.as_str()), (Some(Class::Enter), 1, "PostOnly"));
    assert_eq!(order.expires_at, Some("2026-01-01T00:02:00Z".parse().unwrap()));
    assert_eq!(recovered.incidents, vec![incident("aaaaaaaa-3", IncidentPhase::CancellingOrders)]);
    assert_eq!(recovered.released, vec!["bbbbbbbb-1".parse().unwrap()]);
    assert_eq!(recovered.claim, Some(("portfolio-1".to_owned(), "BIP-20DEC30-CDE".to_owned())));
    assert_eq!(ledger.head(), head);
    verify(dir.path()).await.unwrap();
}

/// Names the directory in which the test below, run as a process to be killed, writes orders.
const VICTIM: &str = "ARBBOT_LEDGER_TEST_VICTIM";

on_both!(a_killed_process_has_every_order_that_it_was_told_is_durable);
async fn a_killed_process_has_every_order_that_it_was_told_is_durable(kind: Kind) {
    use std::io::BufRead;
    if let Some(dir) = std::env::var_os(VICTIM) {
        let (ledger, _) = open(Path::new(&dir)).await;
        for n in 0.. {
            let order = new_order(&format!("b-1-{n}"));
            ledger.intent(&order, Class::Enter, 1).await.unwrap();
            println!("\ndurable {}", order.client_order_id);
        }
    }
    let dir = kind.dir();
    let mut victim = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("ledger::tests::a_killed_process_has_every_order_that_it_was_told_is_durable::sqlite")
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
    let (_ledger, recovered) = open(dir.path()).await;
    let there: Vec<_> = recovered.orders.iter().map(|order| &order.client_order_id).collect();
    assert!(durable.iter().all(|id| there.contains(&id)));
    verify(dir.path()).await.unwrap();
}

on_both!(an_order_id_is_used_once);
async fn an_order_id_is_used_once(kind: Kind) {
    let (dir, ledger) = new_ledger(kind).await;
    ledger.intent(&new_order("b-1-1"), Class::Enter, 1).await.unwrap();
    let head = ledger.head();
    let again = ledger.intent(&new_order("b-1-1"), Class::Enter, 1).await.unwrap_err();
    assert_eq!(again.reason(), "OrderDuplicate");
    let kill = ledger.intent_or_journal(&new_order("b-1-1"), Class::Kill, 1, KILL_DEADLINE).await.unwrap_err();
    assert_eq!((kill.reason(), ledger.journaled()), ("OrderDuplicate", 0), "a refusal does not go to the journal");
    assert_eq!(ledger.head(), head);
    drop(ledger);
    let (ledger, _) = open(dir.path()).await;
    assert!(ledger.intent(&new_order("b-1-1"), Class::Enter, 2).await.is_err(), "after a restart too");
}

on_both!(the_same_news_twice_adds_no_entry);
async fn the_same_news_twice_adds_no_entry(kind: Kind) {
    let (_dir, ledger) = new_ledger(kind).await;
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

on_both!(the_funding_rate_of_an_hour_is_kept_once_and_outlives_a_restart);
async fn the_funding_rate_of_an_hour_is_kept_once_and_outlives_a_restart(kind: Kind) {
    let (dir, ledger) = new_ledger(kind).await;
    let hour = |n: i64| Timestamp::from_second(n * 3600).unwrap();
    for (n, rate) in [(1, dec!(0.00001)), (3, dec!(-0.00002)), (1, dec!(0.9))] {
        ledger.funding_rate("F", hour(n), rate).await.unwrap();
    }
    verify(dir.path()).await.unwrap();
    drop(ledger);
    let (ledger, recovered) = open(dir.path()).await;
    drop(ledger);
    assert_eq!(recovered.funding_rates, [(hour(3), dec!(-0.00002)), (hour(1), dec!(0.00001))]);
    tamper(dir.path(), "UPDATE funding_rates SET rate = '1'").await;
    assert_eq!(verify(dir.path()).await.unwrap_err().reason(), "LedgerTampered");
}

on_both!(a_second_order_under_one_id_is_an_error);
async fn a_second_order_under_one_id_is_an_error(kind: Kind) {
    let (_dir, ledger) = new_ledger(kind).await;
    ledger.intent(&new_order("b-1-1"), Class::Enter, 1).await.unwrap();
    ledger.order(&update("b-1-1", RecordStatus::Open, 0)).await.unwrap();
    let other = OrderUpdate { order_id: Some("venue-2".to_owned()), ..update("b-1-1", RecordStatus::Open, 0) };
    assert_eq!(ledger.order(&other).await.unwrap_err().reason(), "OrderTwiceAtExchange");
}

on_both!(an_order_found_at_the_exchange_is_taken_in_once);
async fn an_order_found_at_the_exchange_is_taken_in_once(kind: Kind) {
    let (dir, ledger) = new_ledger(kind).await;
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
    verify(dir.path()).await.unwrap();
    let orders = ledger.inner.store.lock().await.as_mut().unwrap().begin().await.unwrap().orders().await.unwrap();
    assert_eq!(orders.len(), 1);
    assert_eq!((orders[0].side, orders[0].filled, orders[0].status), (Side::Buy, Decimal::TWO, RecordStatus::Filled));
}

on_both!(a_released_incident_is_not_opened_again_by_old_news);
async fn a_released_incident_is_not_opened_again_by_old_news(kind: Kind) {
    let (dir, ledger) = new_ledger(kind).await;
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
    verify(dir.path()).await.unwrap();
}

on_both!(a_ledger_opens_only_for_what_it_belongs_to);
async fn a_ledger_opens_only_for_what_it_belongs_to(kind: Kind) {
    let (dir, ledger) = new_ledger(kind).await;
    drop(ledger);
    let others = [
        ("spec.execution", Binding { execution: "Paper".to_owned(), ..binding() }),
        ("spec.venue", Binding { venue: "coinbase/other".to_owned(), ..binding() }),
        ("portfolio", Binding { portfolio: "portfolio-2".to_owned(), ..binding() }),
        ("spot product", Binding { spot_product: "ETH-USD".to_owned(), ..binding() }),
        ("future product", Binding { future_product: "ETP-20DEC30-CDE".to_owned(), ..binding() }),
    ];
    for (field, other) in others {
        let error = open_as(dir.path(), &other, Clock::manual()).await.unwrap_err();
        assert_eq!(error.reason(), "LedgerBoundToOther");
        assert!(error.to_string().contains(field), "{error}");
    }
}

on_both!(a_new_bot_of_the_same_name_adopts_the_ledger);
async fn a_new_bot_of_the_same_name_adopts_the_ledger(kind: Kind) {
    let (dir, ledger) = new_ledger(kind).await;
    ledger.intent(&new_order("b-1-1"), Class::Enter, 1).await.unwrap();
    let before = ledger.head();
    drop(ledger);
    let successor = Binding { bot_uid: "uid-2".to_owned(), ..binding() };
    let (ledger, recovered) = open_as(dir.path(), &successor, Clock::manual()).await.unwrap();
    assert_eq!((recovered.orders.len(), recovered.note), (1, None));
    assert_eq!(ledger.head().entries, before.entries + 1, "the adoption is on record");
    assert!(ledger.continues(&before).await.unwrap());
    assert_eq!(verify(dir.path()).await.unwrap(), ledger.head());
}

#[tokio::test]
async fn two_processes_never_share_a_ledger() {
    let (dir, ledger) = new_ledger(Kind::Sqlite).await;
    let error = Ledger::open(dir.path(), &binding(), Clock::manual()).await.unwrap_err();
    assert_eq!(error.reason(), "LedgerLocked");
    assert!(error.to_string().contains(&dir.path().join(FILE).display().to_string()), "{error}");
    drop(ledger);
    open(dir.path()).await;
}

/// Fails when the lock ends only with the last copy of its file.
#[test]
fn a_child_that_is_being_started_does_not_keep_the_ledger_locked() {
    let dir = tempfile::tempdir().unwrap();
    let source = Place::from(dir.path()).source().unwrap();
    let lock = Lock::take(dir.path(), &source).unwrap();
    assert_eq!(Lock::take(dir.path(), &source).unwrap_err().reason(), "LedgerLocked");
    let _of_the_child = lock.0.try_clone().unwrap();
    drop(lock);
    Lock::take(dir.path(), &source).unwrap();
}
