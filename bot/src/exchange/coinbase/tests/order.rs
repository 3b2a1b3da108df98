//! Orders from their placement to their end, and the listings that show them.

use k8s_openapi::jiff::SignedDuration;
use rust_decimal::dec;
use serde_json::json;

use super::in_process::Venue;
use super::simulator::Simulator;
use super::*;

#[tokio::test]
async fn an_order_without_a_turn_is_proven_not_placed_and_a_cancel_has_its_turn() {
    let simulator = Simulator::start(&[]);
    let settings = Settings { requests_per_second: 5, ..simulator.settings("0") };
    let exchange = Open::new(settings).await.session.exchange();
    let error = loop {
        match exchange.place(resting("quote", dec!(50000))).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ExchangeError::RateLimited { .. }) && error.proves_not_placed(), "{error}");
    exchange.cancel(&["b0f4a1c2-0000-0000-0000-000000000000".to_owned()]).await.unwrap();
}

/// Invariant 14. Proven by mutation: with the call of a cancel of normal priority it waits behind the quotes.
#[tokio::test(start_paused = true)]
async fn a_cancel_goes_at_once_while_quotes_wait_for_the_budget() {
    let venue = Venue::open(1);
    let (sender, mut events) = mpsc::channel(1024);
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    let settings = Settings { requests_per_second: 5, ..venue.settings() };
    let exchange = Session::open(settings, &venue.connector(sender)).await.unwrap().exchange();
    let began = Instant::now();
    for _ in 0..3 {
        let quote = |n: usize| {
            let expires_at = venue.clock.now().checked_add(SignedDuration::from_secs(60)).unwrap();
            let kind = OrderKind::PostOnly { limit_price: dec!(50000), expires_at };
            let order = NewOrder {
                client_order_id: format!("quote-{n}"),
                product: SPOT.into(),
                side: Side::Buy,
                size: dec!(0.01),
                kind,
            };
            Cleared::until(order, venue.clock.boottime() + Duration::from_secs(20))
        };
        let mut placed = 0;
        while exchange.place(quote(placed)).await.is_ok() {
            placed += 1;
            assert!(placed < 100, "the budget has no end");
        }
        let asked = Instant::now();
        exchange.cancel(&["b0f4a1c2-0000-0000-0000-000000000000".to_owned()]).await.unwrap();
        assert!(asked.elapsed() < Duration::from_millis(100), "it waited for {:?}", asked.elapsed());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_resting_order_is_listed_until_it_is_cancelled() {
    let simulator = Simulator::start(&[]);
    let mut open = Open::new(simulator.settings("0")).await;
    let touch = open.touch(SPOT).await;
    open.link_up(Link::UserWebSocket).await;
    let exchange = open.session.exchange();
    let since = exchange.venue_clock().now().checked_sub(SignedDuration::from_secs(5)).unwrap();

    let order_id = accepted(&exchange, resting("rest-1", touch.best_bid - dec!(5000))).await;
    assert_eq!(open.order("rest-1", OrderStatus::Open).await.order_id, order_id);
    let listed = exchange.orders(&products(), Some(since)).await.unwrap();
    let [listed] = listed.as_slice() else { panic!("{listed:?}") };
    assert_eq!((listed.client_order_id.as_str(), listed.status), ("rest-1", OrderStatus::Open));
    assert_eq!((listed.size, listed.filled), (Some(dec!(0.01)), dec!(0)));

    assert_eq!(exchange.cancel(std::slice::from_ref(&order_id)).await.unwrap(), []);
    open.order("rest-1", OrderStatus::Cancelled).await;
    assert_eq!(ended(&exchange, &order_id).await.status, OrderStatus::Cancelled);
    let again = exchange.cancel(&[order_id.clone(), "no-such-order".to_owned()]).await;
    assert!(again.is_err() || again.is_ok_and(|refused| refused.iter().any(|(id, _)| id == "no-such-order")));
}

#[tokio::test]
async fn a_resting_order_expires_by_itself() {
    let simulator = Simulator::start(&[]);
    let mut open = Open::new(simulator.settings("0")).await;
    let touch = open.touch(SPOT).await;
    open.link_up(Link::UserWebSocket).await;
    let exchange = open.session.exchange();
    let expires_at = exchange.venue_clock().now().checked_add(SignedDuration::from_secs(2)).unwrap();
    let kind = OrderKind::PostOnly { limit_price: touch.best_bid - dec!(5000), expires_at };
    accepted(&exchange, order("short", SPOT, Side::Buy, dec!(0.01), kind)).await;
    open.order("short", OrderStatus::Expired).await;
}

#[tokio::test]
async fn a_post_only_order_that_would_take_is_rejected() {
    let simulator = Simulator::start(&[]);
    let mut open = Open::new(simulator.settings("0")).await;
    let touch = open.touch(SPOT).await;
    let crossing = resting("cross", touch.best_ask + dec!(5000));
    let Placed::Rejected { reason, .. } = open.session.exchange().place(crossing).await.unwrap() else {
        panic!("a post-only order took")
    };
    assert_eq!(reason, "INVALID_LIMIT_PRICE_POST_ONLY");
}

#[tokio::test]
async fn an_order_that_takes_changes_the_holdings() {
    let simulator = Simulator::start(&[]);
    let mut open = Open::new(simulator.settings("0")).await;
    let touch = open.touch(SPOT).await;
    open.link_up(Link::UserWebSocket).await;
    let exchange = open.session.exchange();
    let before = exchange.holdings().await.unwrap();
    assert_eq!((before.balances["BTC"], before.balances["USD"]), (dec!(0), dec!(1_000_000)));
    assert_eq!(before.futures_collateral_quote, dec!(1_000_000));
    let fees = exchange.fee_rates().await.unwrap();
    assert!(fees.spot_taker > fees.spot_maker && fees.future_taker > dec!(0) && fees.future_taker < fees.spot_taker);

    let kind = OrderKind::ImmediateOrCancel { limit_price: touch.best_ask + dec!(500) };
    accepted(&exchange, order("buy", SPOT, Side::Buy, dec!(0.01), kind)).await;
    let bought = open.order("buy", OrderStatus::Filled).await;
    assert_eq!(bought.filled, dec!(0.01));
    assert!(bought.average_price > dec!(0) && bought.fees_quote > dec!(0));
    accepted(&exchange, order("short", FUTURE, Side::Sell, dec!(3), OrderKind::Market)).await;
    open.order("short", OrderStatus::Filled).await;

    let during = exchange.holdings().await.unwrap();
    assert_eq!((during.balances["BTC"], during.contracts[FUTURE]), (dec!(0.01), dec!(-3)));

    accepted(&exchange, order("close", FUTURE, Side::Buy, dec!(2), OrderKind::ClosePosition)).await;
    assert_eq!(open.order("close", OrderStatus::Filled).await.side, Side::Buy);
    accepted(&exchange, order("sell", SPOT, Side::Sell, dec!(0.01), OrderKind::Market)).await;
    open.order("sell", OrderStatus::Filled).await;
    let after = exchange.holdings().await.unwrap();
    assert_eq!((after.balances["BTC"], after.contracts[FUTURE]), (dec!(0), dec!(-1)));
    assert_eq!(exchange.orders(&products(), None).await.unwrap().len(), 4);
    assert_eq!(exchange.orders(&[FUTURE.to_owned()], None).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_reply_that_is_lost_leaves_the_order_unknown_and_the_list_tells() {
    let simulator = Simulator::start(&["--refuse-duplicates"]);
    let mut open = Open::new(simulator.settings("0")).await;
    let touch = open.touch(SPOT).await;
    let exchange = open.session.exchange();
    simulator.fault(&json!({"kind": "drop_replies", "count": 1})).await;
    let price = touch.best_bid - dec!(5000);
    let error = exchange.place(resting("lost", price)).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Timeout { .. }) && !error.proves_not_placed(), "{error}");
    let listed = exchange.orders(&products(), None).await.unwrap();
    assert_eq!(listed.iter().map(|order| order.client_order_id.as_str()).collect::<Vec<_>>(), ["lost"]);
    // The same id again is answered with DUPLICATE_CLIENT_ORDER_ID, which is no proof of anything.
    let error = exchange.place(resting("lost", price)).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Unreadable { .. }) && !error.proves_not_placed(), "{error}");
    assert_eq!(exchange.orders(&products(), None).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_long_list_is_read_to_its_end() {
    let simulator = Simulator::start(&[]);
    let exchange = Open::new(simulator.settings("0")).await.session.exchange();
    let count = 300;
    for i in 0..count {
        simulator.place_foreign(&format!("foreign-{i}"), SPOT).await;
    }
    let mut ids: Vec<String> =
        exchange.orders(&products(), None).await.unwrap().into_iter().map(|order| order.client_order_id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count);
}
