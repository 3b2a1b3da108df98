//! The books in the ledger: once each, verified, and in a ledger that an older bot wrote.

use sqlx::{ConnectOptions, Connection};

use super::*;
use crate::exchange::Liquidity;
use crate::ledger::chain;
use crate::ledger::record::Entry;

fn fill(trade: i64) -> FillRecord {
    FillRecord {
        order_id: "venue-1".to_owned(),
        trade_id: trade.to_string(),
        client_order_id: "b-1-7".to_owned(),
        product: "BTC-USD".to_owned(),
        side: Side::Sell,
        size: Decimal::new(1, 2),
        unit_base: Decimal::ONE,
        price: Decimal::from(100_000 + trade),
        fee_quote: Decimal::new(trade, 1),
        liquidity: Liquidity::Maker,
        at: Timestamp::from_second(trade).unwrap(),
    }
}

pub(super) fn one_of_each() -> Vec<Posting> {
    let (product, at) = ("BIP-20DEC30-CDE".to_owned(), Timestamp::from_second(43_200).unwrap());
    let one = Decimal::ONE;
    let client_order_id = "b-1-7".to_owned();
    vec![
        Posting::Fill(fill(1)),
        Posting::Decision(DecisionRecord { client_order_id, mid: one, expected_price: one }),
        Posting::Funding(FundingRecord::observed(product.clone(), at, -one, one, one, one)),
        Posting::Settlement(SettlementRecord {
            product: product.clone(),
            window_end: at,
            since: None,
            accrued_quote: one,
            settled_quote: Decimal::TWO,
            booked_at: at,
        }),
        Posting::Variation(VariationRecord { product, at, price: one, contracts: -one }),
        Posting::Flow(FlowRecord { at, quote: one }),
        Posting::Equity(EquityRecord {
            at,
            equity_quote: one,
            cash_quote: one,
            funding_quote: one,
            fees_quote: one,
            spot_base: one,
            spot_mid: one,
            contracts: one,
            future_mid: one,
        }),
    ]
}

on_both!(what_is_posted_twice_is_there_once_and_the_chain_does_not_grow);
async fn what_is_posted_twice_is_there_once_and_the_chain_does_not_grow(kind: Kind) {
    let (dir, ledger) = new_ledger(kind).await;
    ledger.post(one_of_each()).await.unwrap();
    let head = ledger.head();
    ledger.post(one_of_each()).await.unwrap();
    assert_eq!(ledger.head(), head);
    // Part of it is new, and another word on a fill that is there takes nothing back.
    ledger
        .post(vec![Posting::Fill(fill(2)), Posting::Fill(FillRecord { size: Decimal::TEN, ..fill(1) })])
        .await
        .unwrap();
    let (books, _) = ledger.books().await.unwrap();
    assert_eq!(books.fills, [fill(1), fill(2)]);
    assert_eq!(ledger.fills_of("venue-1").await.unwrap().len(), 2);
    assert_eq!((books.funding.len(), books.settlements.len(), books.variation.len()), (1, 1, 1));
    assert_eq!((books.flows.len(), books.equity.len(), books.decisions.len()), (1, 1, 1));
    assert_eq!(books.settlements[0].adjustment_quote(), Decimal::ONE);
    assert_eq!(verify(dir.path()).await.unwrap(), ledger.head());
}

on_both!(a_fill_that_somebody_changed_is_found);
async fn a_fill_that_somebody_changed_is_found(kind: Kind) {
    let (dir, ledger) = new_ledger(kind).await;
    ledger.post(one_of_each()).await.unwrap();
    ledger.close().await;
    tamper(dir.path(), "UPDATE fills SET price = '1'").await;
    let error = verify(dir.path()).await.unwrap_err().to_string();
    assert!(error.contains("fill venue-1 1 is not what the entries say"), "{error}");
}

/// Writes what a bot of schema 1 left behind: a short futures position that is open.
async fn write_with_schema_1(dir: &Path) -> LedgerHead {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.join(FILE)).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    sqlx::raw_sql(include_str!("../migrations/0001_ledger.sql")).execute(&mut connection).await.unwrap();
    let filled = OrderUpdate { order_id: Some("venue-1".to_owned()), ..update("b-1-7", RecordStatus::Filled, 5) };
    let record = OrderRecord::intended(&new_order("b-1-7"), Class::Enter, 1, Timestamp::UNIX_EPOCH);
    let entries = [Entry::Bound(binding()), Entry::Intent(record), Entry::Order(filled)];
    let mut head = chain::genesis();
    for entry in entries {
        let (at, kind, payload) = (Timestamp::UNIX_EPOCH.to_string(), entry.to_string(), entry.payload().unwrap());
        head = chain::append(&head, &at, &kind, &payload);
        let insert = sqlx::query("INSERT INTO entries VALUES (?, ?, ?, ?, ?)").bind(head.entries);
        insert.bind(at).bind(kind).bind(payload).bind(&head.head).execute(&mut connection).await.unwrap();
    }
    let tables = "INSERT INTO binding VALUES (1, 'uid-1', 'Live', 'coinbase/api.coinbase.com', 'portfolio-1', 'BTC-USD', \
                  'BIP-20DEC30-CDE'); \
                  INSERT INTO orders VALUES ('b-1-7', 1, 'Enter', 'BTC-USD', 'SELL', '0.05', 'PostOnly', '100000', \
                  '2026-01-01T00:02:00Z', '1970-01-01T00:00:00Z', 'venue-1', 'Filled', '0.05', '100000', '0.5', NULL)";
    sqlx::raw_sql(tables).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    head
}

#[tokio::test]
async fn a_ledger_of_schema_1_can_be_verified_and_read_before_it_is_upgraded() {
    let dir = tempfile::tempdir().unwrap();
    let head = write_with_schema_1(dir.path()).await;
    assert_eq!(verify(dir.path()).await.unwrap(), head);
    assert_eq!(crate::ledger::books(dir.path()).await.unwrap().fills, []);
    assert_eq!(orders(dir.path()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_ledger_of_schema_1_with_an_open_position_is_upgraded_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let head = write_with_schema_1(dir.path()).await;
    let (ledger, recovered) = open(dir.path()).await;
    assert_eq!(recovered.note, None, "it is whole");
    assert_eq!((recovered.orders.len(), recovered.orders[0].filled), (1, Decimal::new(5, 2)));
    assert!(ledger.continues(&head).await.unwrap(), "the chain goes on where it was");
    verify(dir.path()).await.unwrap();
    let (books, orders) = ledger.books().await.unwrap();
    assert_eq!((books.fills.len(), orders.len()), (0, 1), "its fills come from the exchange's history");
    ledger.post(vec![Posting::Fill(fill(1))]).await.unwrap();
    assert_eq!(verify(dir.path()).await.unwrap(), ledger.head());
    // Once more: there is nothing left to upgrade.
    drop(ledger);
    let (ledger, _) = open(dir.path()).await;
    assert_eq!(ledger.books().await.unwrap().0.fills, [fill(1)]);
}
