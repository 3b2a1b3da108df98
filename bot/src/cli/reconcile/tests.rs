use rust_decimal::dec;

use super::*;
use crate::exchange::{Liquidity, NewOrder, OrderKind, OrderStatus, Side};
use crate::execution::orders::mint_id;
use crate::risk::Class;

const SPOT: &str = "BTC-USD";
const FUTURE: &str = "BIP-20DEC30-CDE";

fn binding() -> Binding {
    Binding {
        bot_uid: "aaaaaaaa-0000-0000-0000-000000000000".to_owned(),
        execution: "Live".to_owned(),
        venue: "coinbase/api.coinbase.com".to_owned(),
        portfolio: "portfolio-1".to_owned(),
        spot_product: SPOT.to_owned(),
        future_product: FUTURE.to_owned(),
    }
}

fn id(uid8: &str, sequence: u64) -> String {
    mint_id(uid8, 1, sequence, Class::Enter)
}

fn record(sequence: u64, product: &str, side: Side, filled: Decimal) -> OrderRecord {
    let kind = OrderKind::Market;
    let (client_order_id, product) = (id("aaaaaaaa", sequence), product.to_owned());
    let order = NewOrder { client_order_id, product, side, size: filled, kind };
    OrderRecord {
        status: RecordStatus::Filled,
        filled,
        ..OrderRecord::intended(&order, Class::Enter, 1, "2026-01-01T00:00:00Z".parse().unwrap())
    }
}

fn seen(record: &OrderRecord) -> OrderState {
    OrderState {
        order_id: format!("venue-{}", record.client_order_id),
        client_order_id: record.client_order_id.clone(),
        product: record.product.clone(),
        side: record.side,
        status: OrderStatus::Filled,
        filled: record.filled,
        average_price: dec!(60000),
        fees_quote: dec!(0),
        size: Some(record.size),
        created_at: None,
    }
}

/// A hedged position of two contracts, the same on both sides.
struct Case {
    orders: Vec<OrderRecord>,
    fills: Vec<FillRecord>,
    shown: Shown,
}

impl Case {
    fn new() -> Self {
        let orders = vec![record(1, SPOT, Side::Buy, dec!(0.02)), record(2, FUTURE, Side::Sell, dec!(2))];
        let shown: Vec<_> = orders.iter().map(seen).collect();
        let fill = |order: &OrderState| FillRecord {
            trade_id: "1".to_owned(),
            order_id: order.order_id.clone(),
            client_order_id: order.client_order_id.clone(),
            product: order.product.clone(),
            side: order.side,
            size: order.filled,
            unit_base: dec!(1),
            price: dec!(60000),
            fee_quote: dec!(0),
            liquidity: Liquidity::Maker,
            at: "2026-01-01T00:00:00Z".parse().unwrap(),
        };
        let fills: Vec<_> = shown.iter().map(fill).collect();
        let traded = fills.iter().map(|fill| (fill.order_id.clone(), fill.trade_id.clone())).collect();
        let holdings = Holdings {
            contracts: [(FUTURE.to_owned(), dec!(-2))].into(),
            balances: [("BTC".to_owned(), dec!(0.02))].into(),
            futures_collateral_quote: dec!(0),
        };
        Self { orders, fills, shown: Shown { orders: shown, holdings, traded } }
    }

    fn rows(&self, result: Verdict) -> Vec<(&'static str, String)> {
        let ledger = Ledger { orders: &self.orders, fills: &self.fills };
        let rows = compare(&binding(), "BTC", &ledger, &self.shown);
        rows.iter().filter(|row| row.result == result).map(Row::about).collect()
    }
}

#[test]
fn what_agrees_is_no_difference() {
    assert_eq!(Case::new().rows(Verdict::Differs), []);
    assert_eq!(Case::new().rows(Verdict::Matches).len(), 2, "position and balance");
    assert!(summaries(&[]).iter().all(|row| row.result == Verdict::Matches));
}

/// Proven by mutation: an imported order dated at its import (`OrderRecord::imported`).
#[test]
fn the_listing_reaches_back_to_an_old_order_that_was_taken_in_from_the_exchange() {
    let (created, now): (Timestamp, Timestamp) =
        ("2026-01-01T00:00:00Z".parse().unwrap(), "2026-01-09T00:00:00Z".parse().unwrap());
    let old = OrderState { created_at: Some(created), ..seen(&record(1, SPOT, Side::Buy, dec!(0.02))) };
    let imported = OrderRecord::imported(&old, 1, now);
    let since = listed_since(&[OrderRecord { created_at: now, ..imported.clone() }, imported]).unwrap();
    assert!(since < created && now.duration_since(since).as_hours() < 8 * 24 + 1);
    assert_eq!(listed_since(&[]), None, "an empty ledger knows no beginning");
}

#[test]
fn contracts_and_missing_spot_differ_and_more_spot_is_not_the_bots() {
    let mut case = Case::new();
    case.shown.holdings.contracts.insert(FUTURE.to_owned(), dec!(-3));
    case.shown.holdings.balances.insert("BTC".to_owned(), dec!(0.01));
    assert_eq!(case.rows(Verdict::Differs), [("position", FUTURE.to_owned()), ("balance", "BTC".to_owned())]);
    case.shown.holdings.balances.insert("BTC".to_owned(), dec!(0.03));
    assert_eq!(case.rows(Verdict::NotOurs), [("balance", "BTC".to_owned())]);
}

#[test]
fn an_order_is_missed_on_either_side_and_so_is_a_fill_of_it() {
    let mut case = Case::new();
    let lost = case.orders.remove(0);
    assert!(case.rows(Verdict::Differs).contains(&("order", lost.client_order_id.clone())), "the ledger lost it");
    let mut case = Case::new();
    case.shown.orders.remove(0);
    assert!(case.rows(Verdict::Differs).contains(&("order", lost.client_order_id)), "the exchange does not show it");
    let mut case = Case::new();
    case.fills.remove(0);
    let missing = format!("trade 1 of order venue-{}", id("aaaaaaaa", 1));
    assert_eq!(case.rows(Verdict::Differs), [("fill", missing)]);
}

#[test]
fn an_order_that_the_exchange_refused_need_not_be_there() {
    let mut case = Case::new();
    let refused = OrderRecord { status: RecordStatus::Rejected, ..record(3, SPOT, Side::Buy, dec!(0)) };
    case.orders.push(refused);
    assert_eq!(case.rows(Verdict::Differs), []);
}

#[test]
fn an_order_of_another_bot_differs_and_one_by_hand_does_not() {
    let mut case = Case::new();
    let works = |id: String| OrderState {
        order_id: id.clone(),
        client_order_id: id,
        status: OrderStatus::Open,
        filled: dec!(0),
        ..seen(&record(9, SPOT, Side::Buy, dec!(1)))
    };
    case.shown.orders.push(works(id("bbbbbbbb", 1)));
    case.shown.orders.push(works("by-hand".to_owned()));
    assert_eq!(case.rows(Verdict::Differs), [("order of others", id("bbbbbbbb", 1))]);
    assert_eq!(case.rows(Verdict::NotOurs), [("order of others", "by-hand".to_owned())]);
}

/// Fails if the second look is taken as it is.
#[test]
fn only_what_two_looks_show_is_a_difference() {
    let row = |name: &str, result| Row {
        what: "fill",
        name: name.to_owned(),
        ledger: String::new(),
        exchange: String::new(),
        result,
    };
    let first = [row("a", Verdict::Differs), row("b", Verdict::Differs)];
    let second = vec![row("b", Verdict::Differs), row("c", Verdict::Differs), row("d", Verdict::NotOurs)];
    let rows = confirmed(&first, second);
    let names: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["b", "d"]);
    assert_eq!(summaries(&rows).iter().map(|row| row.result).collect::<Vec<_>>(), [Verdict::Matches, Verdict::Differs]);
}
