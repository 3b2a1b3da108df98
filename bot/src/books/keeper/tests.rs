use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rust_decimal::dec;
use tempfile::TempDir;

use super::*;
use crate::control::fixtures;
use crate::exchange::paper::Paper;
use crate::exchange::{Fill, Holdings, Liquidity, Side};
use crate::ledger::Binding;
use crate::risk::gate::Gate;
use crate::testing::{future_product, spot_product};

const SPOT: &str = "BTC-USD";
const FUTURE: &str = "BIP-20DEC30-CDE";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

async fn keeper() -> (TempDir, Keeper) {
    let dir = tempfile::tempdir().unwrap();
    let binding = Binding {
        bot_uid: "uid-1".to_owned(),
        execution: "Live".to_owned(),
        venue: "coinbase/api.coinbase.com".to_owned(),
        portfolio: "portfolio-1".to_owned(),
        spot_product: SPOT.to_owned(),
        future_product: FUTURE.to_owned(),
    };
    let (ledger, _) = Ledger::open(dir.path(), &binding, Clock::manual()).await.unwrap();
    let identity = Identity { uid8: "b".to_owned(), spot_product: SPOT.to_owned(), future_product: FUTURE.to_owned() };
    let keeper = Keeper::new(identity, ledger, Clock::manual(), &Books::default(), &[]);
    (dir, keeper)
}

fn sold(n: i64, time: &str) -> FillRecord {
    let fill = Fill {
        order_id: format!("o-{n}"),
        trade_id: n.to_string(),
        product: FUTURE.to_owned(),
        side: Side::Sell,
        size: Decimal::ONE,
        price: dec!(70000),
        fee_quote: dec!(0.1),
        liquidity: Liquidity::Maker,
        at: at(time),
    };
    FillRecord::new(fill, format!("b-1-{n}-Enter"), dec!(0.01))
}

async fn in_the_file(dir: &Path, sql: &'static str) {
    use sqlx::{ConnectOptions, Connection};
    let mut connection =
        sqlx::sqlite::SqliteConnectOptions::new().filename(dir.join("ledger.db")).connect().await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn round(keeper: &mut Keeper) {
    round_with(keeper, |_| {}).await;
}

async fn round_with(keeper: &mut Keeper, what_the_engine_knows: impl Fn(&mut View)) {
    let clock = keeper.clock.clone();
    let mut view = fixtures::view(&clock, &Gate::new(clock.clone()).current().0);
    what_the_engine_knows(&mut view);
    keeper.round::<Paper>(None, &watch::channel(view).1).await;
}

/// Proven by mutation: with a `reread` that is asked for once, as its fill is booked, this fails.
#[tokio::test]
async fn a_late_fill_is_in_the_account_also_where_the_ledger_could_not_be_read_at_first() {
    let (dir, mut keeper) = keeper().await;
    assert!(keeper.book_fills(vec![sold(2, "2026-11-20T11:30:00Z")]).await);
    in_the_file(dir.path(), "ALTER TABLE flows RENAME TO away").await;
    assert!(keeper.book_fills(vec![sold(1, "2026-11-20T11:00:00Z")]).await, "it is written");
    assert!(keeper.book_fills(vec![sold(3, "2026-11-20T11:40:00Z")]).await);
    round(&mut keeper).await;
    assert!(keeper.view().problem.is_some());
    in_the_file(dir.path(), "ALTER TABLE away RENAME TO flows").await;
    round(&mut keeper).await;
    assert_eq!((keeper.account.held(FUTURE), keeper.account.fees_quote), (dec!(-3), dec!(0.3)));
    assert_eq!(keeper.view().problem, None);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(line)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Proven by mutation: without the warning in `round` this fails, and without `logged` the line comes each second.
#[tokio::test]
async fn after_a_minute_the_log_says_once_that_an_order_lacks_fills() {
    let (_dir, mut keeper) = keeper().await;
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    // Beside a single subscriber tracing asks the thread that first meets a place in the code, which may be another
    // test's, whether anybody listens: a second one makes it ask them all.
    let _second = tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(std::io::sink).finish());
    let _logging = tracing::subscriber::set_default(subscriber);
    let text = || String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let order_id = "o-1".to_owned();
    let said =
        Cumulative { client_order_id: "b-1-1-Enter".to_owned(), order_id, filled: dec!(2), fees_quote: dec!(0.2) };
    keeper.hear(News::Order(said)).await;
    round(&mut keeper).await;
    assert!(!text().contains("do not add up"), "{}", text());
    for _ in 0..90 {
        keeper.clock.advance(Duration::from_secs(1));
        round(&mut keeper).await;
    }
    assert_eq!(text().matches("the books do not add up: order b-1-1-Enter shows 2 filled").count(), 1, "{}", text());
}

/// Proven by mutation: with the whole of it settled this fails.
#[tokio::test]
async fn a_trade_of_another_bot_at_midnight_is_no_funding_and_is_booked_once() {
    let (_dir, mut keeper) = keeper().await;
    let (midnight, mut shown) = (at("2026-11-21T00:00:00Z"), shown("2026-11-20T20:00:00Z", dec!(1000)));
    for _ in 0..2 {
        keeper.compare(&shown).await;
    }
    assert!(keeper.book_fills(vec![sold(1, "2026-11-20T20:30:00Z")]).await);
    let (mark, rate) = (dec!(70000), dec!(0.00002));
    let hour = FundingRecord::observed(FUTURE.to_owned(), midnight, dec!(-1), dec!(0.01), mark, rate);
    assert!(keeper.post(vec![Posting::Funding(hour.clone())]).await);
    (keeper.accrued, keeper.hours) = (vec![hour.clone()], Some(Hours::after(midnight)));
    keeper.settled_daily = midnight;
    // The fee of the one fill, its own funding (0.014), and what another bot paid for spot.
    shown.holdings.contracts.insert(FUTURE.to_owned(), dec!(-1));
    shown.holdings.balances.insert("USD".to_owned(), dec!(1000) - dec!(0.1) + dec!(0.014) - dec!(500));
    for time in ["2026-11-21T00:00:20Z", "2026-11-21T00:05:00Z"] {
        shown.at = at(time);
        for _ in 0..4 {
            keeper.compare(&shown).await;
        }
    }
    let (books, _) = keeper.ledger.books().await.unwrap();
    let [settlement] = &books.settlements[..] else { panic!("{:#?}", books.settlements) };
    assert_eq!((settlement.settled_quote, settlement.adjustment_quote()), (hour.accrued_quote, Decimal::ZERO));
    let flows: Vec<_> = books.flows.iter().map(|flow| flow.quote).collect();
    assert_eq!(flows, [dec!(1000), dec!(-500)]);
    assert_eq!(keeper.view().funding_quote, dec!(0.014));
}

/// As a server does that is cut off between a commit and its answer. Proven by mutation: without `unconfirmed` the second
/// write has a time of its own, so that the ledger has the money twice.
#[tokio::test]
async fn a_write_that_came_in_without_an_answer_is_booked_once() {
    let (dir, mut keeper) = keeper().await;
    keeper.compare(&shown("2026-11-21T10:00:00Z", dec!(1000))).await;
    in_the_file(dir.path(), "ALTER TABLE flows RENAME TO away").await;
    keeper.compare(&shown("2026-11-21T10:00:10Z", dec!(1000))).await;
    assert!(keeper.view().problem.is_some() && !keeper.balance.is_open());
    let committed = "ALTER TABLE away RENAME TO flows; INSERT INTO flows VALUES ('2026-11-21T10:00:10Z', '1000')";
    in_the_file(dir.path(), committed).await;
    for time in ["2026-11-21T10:00:20Z", "2026-11-21T10:00:30Z", "2026-11-21T10:00:40Z"] {
        keeper.compare(&shown(time, dec!(1000))).await;
    }
    keeper.compare(&shown("2026-11-21T10:00:50Z", dec!(900))).await;
    keeper.compare(&shown("2026-11-21T10:01:00Z", dec!(900))).await;
    let (books, _) = keeper.ledger.books().await.unwrap();
    assert_eq!(books.flows.iter().map(|flow| flow.quote).collect::<Vec<_>>(), [dec!(1000), dec!(-100)]);
}

/// The fills could not be read for longer than a settlement of the day waits for them. Fails when `settled_daily` stays: what
/// the exchange paid out for the position is then money from outside.
#[tokio::test]
async fn a_fill_from_before_the_settlement_of_the_day_is_settled_when_it_comes() {
    for before in [false, true] {
        let (_dir, mut keeper) = keeper().await;
        let mut shown = shown("2026-11-20T20:00:00Z", dec!(100000));
        for _ in 0..2 {
            keeper.compare(&shown).await;
        }
        if before {
            assert!(keeper.book_fills(vec![sold(1, "2026-11-20T20:30:00Z")]).await);
        }
        let price = |shown: &mut Shown, price| {
            shown.future.future.as_mut().unwrap().settlement_price = Some(price);
        };
        price(&mut shown, dec!(70000));
        keeper.daily_settlement(&shown, shown.at).await;
        // 17:00 in New York.
        let due = at("2026-11-20T22:00:00Z");
        price(&mut shown, dec!(71000));
        shown.at = at("2026-11-20T22:06:00Z");
        keeper.daily_settlement(&shown, shown.at).await;
        assert_eq!(
            (keeper.settled_daily, keeper.ledger.books().await.unwrap().0.variation.len()),
            (due, usize::from(before))
        );
        assert!(keeper.book_fills(vec![sold(2, "2026-11-20T21:59:50Z")]).await);
        round(&mut keeper).await;
        let contracts = if before { dec!(-2) } else { dec!(-1) };
        shown.holdings.contracts.insert(FUTURE.to_owned(), contracts);
        // Each contract lost ten by the settlement, and its fee.
        let lost = contracts * (dec!(10) + dec!(0.1));
        shown.holdings.balances.insert("USD".to_owned(), dec!(100000) + lost);
        for time in ["2026-11-20T22:07:00Z", "2026-11-20T22:31:00Z", "2026-11-20T22:32:00Z", "2026-11-20T22:33:00Z"] {
            shown.at = at(time);
            keeper.daily_settlement(&shown, shown.at).await;
            keeper.compare(&shown).await;
        }
        assert_eq!(keeper.settled_daily, due);
        let (books, _) = keeper.ledger.books().await.unwrap();
        assert_eq!(books.flows.iter().map(|flow| flow.quote).collect::<Vec<_>>(), [dec!(100000)]);
        assert_eq!(keeper.account, Account::until(&books, FUTURE, Timestamp::MAX), "as after a restart");
    }
}

/// Fails when the balance is compared before the engine knows every order: an unknown fill is then money from outside.
#[tokio::test]
async fn after_a_start_the_balance_says_nothing_before_everything_is_known() {
    let (_dir, mut keeper) = keeper().await;
    let knows: [fn(&mut View); 4] = [
        |view| (view.seen_exchange, view.reconciliation) = (false, Reconciliation::Matches),
        |view| (view.seen_exchange, view.reconciliation) = (true, Reconciliation::Differs("spot".to_owned())),
        |view| (view.seen_exchange, view.unknown_orders, view.reconciliation) = (true, 1, Reconciliation::Matches),
        |view| (view.seen_exchange, view.reconciliation) = (true, Reconciliation::Matches),
    ];
    for (round, what) in knows.iter().enumerate() {
        for _ in 0..3 {
            keeper.see(shown("2026-11-21T10:00:00Z", dec!(1000)));
            round_with(&mut keeper, what).await;
        }
        let (books, _) = keeper.ledger.books().await.unwrap();
        assert_eq!(books.flows.len(), usize::from(round == 3), "round {round}");
    }
    // Once is enough: what differs later is told from it.
    assert!(keeper.is_matched);
}

/// As a bot does that was killed in the middle of a fill. Fails when what was shown before a fill is compared with books that
/// have it: for want of anything before, its spot counts as another's, and what it cost as money from outside.
#[tokio::test]
async fn what_was_shown_before_a_fill_says_nothing_to_books_that_have_it() {
    let (_dir, mut keeper) = keeper().await;
    let mut shown = shown("2026-11-21T10:00:00Z", dec!(100000));
    for _ in 0..2 {
        keeper.compare(&shown).await;
    }
    let bought = FillRecord {
        product: SPOT.to_owned(),
        side: Side::Buy,
        size: dec!(0.02),
        unit_base: Decimal::ONE,
        ..sold(1, "2026-11-21T10:27:10Z")
    };
    assert!(keeper.book_fills(vec![bought]).await);
    let (books, orders) = keeper.ledger.books().await.unwrap();
    let mut keeper = Keeper::new(keeper.identity, keeper.ledger, keeper.clock, &books, &orders);
    // The exchange's clock may be some seconds behind.
    for time in ["2026-11-21T10:27:09Z", "2026-11-21T10:27:20Z"] {
        shown.at = at(time);
        for _ in 0..40 {
            keeper.compare(&shown).await;
        }
    }
    shown.holdings.balances = BTreeMap::from([("USD".to_owned(), dec!(98599.9)), ("BTC".to_owned(), dec!(0.02))]);
    shown.at = at("2026-11-21T10:27:41Z");
    for _ in 0..40 {
        keeper.compare(&shown).await;
    }
    let (books, _) = keeper.ledger.books().await.unwrap();
    assert_eq!(books.flows.iter().map(|flow| flow.quote).collect::<Vec<_>>(), [dec!(100000)]);
    assert!(keeper.balance.is_compared());
}

/// What the exchange shows of an account without positions.
fn shown(time: &str, quote: Decimal) -> Shown {
    let balances = BTreeMap::from([("USD".to_owned(), quote)]);
    let holdings = Holdings { balances, ..Holdings::default() };
    Shown { at: at(time), holdings, spot: spot_product(), future: future_product() }
}
