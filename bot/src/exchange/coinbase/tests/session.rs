//! Sessions: what opens one, what refuses to, and what happens when it is lost.

use std::time::Duration;

use arbbot_crds::conditions::Reason;
use k8s_openapi::jiff::SignedDuration;
use rust_decimal::dec;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::simulator::Simulator;
use super::*;

#[tokio::test]
async fn a_session_tells_best_prices_and_that_its_links_are_up() {
    let simulator = Simulator::start(&[]);
    let mut open = Open::new(simulator.settings("0")).await;
    assert!(open.session.permissions().can_trade);
    assert_eq!(open.session.fingerprint().len(), 12);
    open.link_up(Link::MarketWebSocket).await;
    open.link_up(Link::UserWebSocket).await;
    for product in products() {
        let touch = open.touch(&product).await;
        assert!(touch.best_bid < touch.best_ask);
    }
}

#[tokio::test(start_paused = true)]
async fn an_exchange_in_this_process_is_the_same_one() {
    let begin = std::time::Instant::now();
    let venue = in_process::Venue::open(1);
    let (events, receiver) = mpsc::channel(1024);
    let session = Session::open(venue.settings(), &venue.connector(events)).await.unwrap();
    session.put_in_use().await;
    let mut open = Open { session, events: receiver, told: Vec::new() };
    open.link_up(Link::UserWebSocket).await;
    let touch = open.touch(SPOT).await;
    let exchange = open.session.exchange();
    let expires_at = venue.clock.now().checked_add(SignedDuration::from_secs(60)).unwrap();
    let kind = OrderKind::PostOnly { limit_price: touch.best_bid - dec!(5000), expires_at };
    let rest = NewOrder { client_order_id: "a".into(), product: SPOT.into(), side: Side::Buy, size: dec!(0.01), kind };
    let order_id = accepted(&exchange, Cleared::until(rest, venue.clock.boottime() + Duration::from_secs(20))).await;
    open.order("a", OrderStatus::Open).await;
    // Nobody waits for the two minutes that pass here.
    open.events.close();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(exchange.order(&order_id).await.unwrap().status, OrderStatus::Expired);
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_session_that_is_dropped_goes_silent() {
    let simulator = Simulator::start(&[]);
    let mut open = Open::new(simulator.settings("0")).await;
    open.link_up(Link::UserWebSocket).await;
    drop(open.session);
    let silent = async { while open.events.recv().await.is_some() {} };
    timeout(PATIENCE, silent).await.expect("its WebSockets live on");
}

#[tokio::test]
async fn a_second_session_opens_beside_the_first_and_outlives_it() {
    let simulator = Simulator::start(&[]);
    let first = Open::new(simulator.settings("0")).await;
    let mut second = Open::new(simulator.settings("0")).await;
    second.link_up(Link::UserWebSocket).await;
    let under_way = first.session.exchange();
    let (during, ()) = tokio::join!(under_way.holdings(), async { drop(first) });
    during.unwrap();
    let touch = second.touch(SPOT).await;
    accepted(&second.session.exchange(), resting("second", touch.best_bid - dec!(5000))).await;
    second.order("second", OrderStatus::Open).await;
}

#[tokio::test]
async fn a_key_that_is_not_fit_is_refused_with_the_reason_and_the_remedy() {
    let simulator = Simulator::start(&[]);
    let other = Settings { portfolio: simulator.portfolio(1), ..simulator.settings("0") };
    let unknown = simulator.settings("0");
    simulator.rename_key(&unknown, "organizations/x/apiKeys/y");
    let missing = simulator.settings("0");
    std::fs::remove_file(missing.credentials_dir.join("privateKey")).unwrap();
    let malformed = simulator.settings("0");
    std::fs::write(malformed.credentials_dir.join("privateKey"), "not a key").unwrap();
    for (settings, reason, says) in [
        (simulator.settings("transfer"), Reason::KeyMayTransfer, "without the permission transfer"),
        (simulator.settings("view-only"), Reason::KeyMayNotTrade, "permissions"),
        (other, Reason::PortfolioMismatch, "use a key of that portfolio"),
        (unknown, Reason::KeyRefused, "secretRef"),
        (missing, Reason::SecretMissing, "privateKey"),
        (malformed, Reason::KeyUnreadable, "privateKey"),
    ] {
        let error = refused(settings).await;
        assert_eq!(error.reason(), reason, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[tokio::test]
async fn an_exchange_that_is_not_the_one_configured_is_not_trusted() {
    let (simulator, other) = (Simulator::start(&[]), Simulator::start(&[]));
    for ca_file in [None, other.settings("0").ca_file] {
        let error = refused(Settings { ca_file, ..simulator.settings("0") }).await;
        assert_eq!(error.reason(), Reason::CertificateUntrusted, "{error}");
        assert!(error.to_string().contains("caBundle"), "{error}");
    }
    let empty = simulator.settings("0").credentials_dir.join("name");
    let error = refused(Settings { ca_file: Some(empty), ..simulator.settings("0") }).await;
    assert_eq!(error.reason(), Reason::CertificateUntrusted, "{error}");
    assert!(error.to_string().contains("it holds no certificate"), "{error}");
}

#[tokio::test]
async fn an_exchange_that_is_not_there_is_unreachable() {
    let simulator = Simulator::start(&[]);
    let settings = simulator.settings("0");
    let _data = simulator.end();
    let error = refused(settings).await;
    assert_eq!(error.reason(), Reason::ExchangeUnreachable);
    assert!(error.to_string().contains("cannot be reached"), "{error}");
}

#[tokio::test]
async fn a_bot_whose_clock_is_decades_wrong_signs_tokens_that_are_valid() {
    let simulator = Simulator::start(&[]);
    let (sender, _events) = mpsc::channel(1024);
    let session = Session::open(simulator.settings("0"), &network(Clock::manual(), sender)).await.unwrap();
    let exchange = session.exchange();
    exchange.holdings().await.unwrap();
    assert!(exchange.venue_clock().skew() < SignedDuration::from_hours(-24 * 365));
}

#[tokio::test]
async fn a_lost_connection_makes_the_books_unknown_and_comes_back() {
    let simulator = Simulator::start(&[]);
    let mut open = Open::new(simulator.settings("0")).await;
    open.touch(FUTURE).await;
    open.link_up(Link::UserWebSocket).await;
    open.told.clear();
    let address = simulator.address.clone();
    let data = simulator.end();
    open.link_down(Link::MarketWebSocket).await;
    open.link_down(Link::UserWebSocket).await;
    for product in products() {
        let unknown = VenueEvent::Touch { product, touch: None };
        assert!(open.told.contains(&unknown), "{unknown:?} was not told");
    }
    open.told.clear();
    let _simulator = Simulator::restart(data, &address);
    open.touch(FUTURE).await;
    open.link_up(Link::UserWebSocket).await;
}
