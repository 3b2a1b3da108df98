//! The client against the real exchange simulator. They are here, not in `bot/tests`, because only the crate's own
//! tests can make a [`Cleared`].

mod capture;
mod hostile;
mod in_process;
mod pooling;
mod simulator;

use std::time::Duration;

use arbbot_crds::conditions::Reason;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rust_decimal::{Decimal, dec};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use self::simulator::Simulator;
use super::{Coinbase, Connector, Session, SessionError, Settings, Transport};
use crate::clock::Clock;
use crate::exchange::{
    Exchange, ExchangeError, Link, NewOrder, OrderKind, OrderState, OrderStatus, Placed, Side, Touch, VenueEvent,
};
use crate::randomness::Randomness;
use crate::risk::Cleared;

const SPOT: &str = "BTC-USD";
const FUTURE: &str = "BIP-20DEC30-CDE";
/// What a test waits at most for something to happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// A session and everything it told so far.
struct Open {
    session: Session,
    events: mpsc::Receiver<VenueEvent>,
    told: Vec<VenueEvent>,
}

impl Open {
    async fn new(settings: Settings) -> Self {
        let (sender, events) = mpsc::channel(1024);
        let session = Session::open(settings, &network(Clock::system(), sender)).await.unwrap();
        session.put_in_use().await;
        Self { session, events, told: Vec::new() }
    }

    /// Waits until `find` finds something, from the newest event to the oldest.
    async fn wait<T>(&mut self, what: &str, find: impl Fn(&VenueEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self.told.iter().rev().find_map(&find) {
                return found;
            }
            let event = timeout_at(deadline, self.events.recv()).await;
            self.told.push(event.unwrap_or_else(|_| panic!("{what} does not happen")).expect("the session ended"));
        }
    }

    /// Waits until the book of a product is known.
    async fn touch(&mut self, product: &str) -> Touch {
        self.wait(&format!("a touch of {product}"), |event| match event {
            VenueEvent::Touch { product: of, touch } if of == product => *touch,
            _ => None,
        })
        .await
    }

    async fn link_up(&mut self, link: Link) {
        self.wait(&format!("{link} up"), |event| (*event == VenueEvent::Link { link, down: None }).then_some(())).await;
    }

    async fn link_down(&mut self, link: Link) {
        self.wait(&format!("{link} down"), |event| match event {
            VenueEvent::Link { link: of, down: Some(_) } if *of == link => Some(()),
            _ => None,
        })
        .await;
    }

    async fn order(&mut self, client_order_id: &str, status: OrderStatus) -> OrderState {
        self.wait(&format!("{client_order_id} is {status}"), |event| match event {
            VenueEvent::Order(order) if order.client_order_id == client_order_id && order.status == status => {
                Some(order.clone())
            }
            _ => None,
        })
        .await
    }
}

fn network(clock: Clock, events: mpsc::Sender<VenueEvent>) -> Connector {
    Connector::new(Transport::Network, clock, Randomness::system(), events)
}

async fn refused(settings: Settings) -> SessionError {
    let (sender, _events) = mpsc::channel(1);
    Session::open(settings, &network(Clock::system(), sender)).await.unwrap_err()
}

fn order(id: &str, product: &str, side: Side, size: Decimal, kind: OrderKind) -> Cleared {
    Cleared::for_test(NewOrder { client_order_id: id.into(), product: product.into(), side, size, kind })
}

fn resting(id: &str, price: Decimal) -> Cleared {
    let expires_at = Timestamp::now().checked_add(SignedDuration::from_secs(60)).unwrap();
    order(id, SPOT, Side::Buy, dec!(0.01), OrderKind::PostOnly { limit_price: price, expires_at })
}

async fn accepted(exchange: &Coinbase, cleared: Cleared) -> String {
    match exchange.place(cleared).await.unwrap() {
        Placed::Accepted { order_id } => order_id,
        rejected @ Placed::Rejected { .. } => panic!("{rejected:?}"),
    }
}

fn products() -> Vec<String> {
    vec![SPOT.to_owned(), FUTURE.to_owned()]
}

/// Asks for an order until it is terminal.
async fn ended(exchange: &Coinbase, order_id: &str) -> OrderState {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let order = exchange.order(order_id).await.unwrap();
        if order.status.is_terminal() {
            return order;
        }
        assert!(Instant::now() < deadline, "{order:?} does not end");
    }
}

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
async fn a_product_has_its_rules() {
    let simulator = Simulator::start(&[]);
    let exchange = Open::new(simulator.settings("0")).await.session.exchange();
    let spot = exchange.product(SPOT).await.unwrap();
    assert_eq!((spot.price_increment, spot.unit_base, spot.base_currency.as_str()), (dec!(0.01), dec!(1), "BTC"));
    assert!(spot.tradable && spot.future.is_none());
    let future = exchange.product(FUTURE).await.unwrap();
    assert_eq!((future.price_increment, future.size_increment, future.unit_base), (dec!(5), dec!(1), dec!(0.01)));
    assert_eq!(future.base_currency, "BTC");
    assert!(future.future.unwrap().session_open);
    let error = exchange.product("NO-SUCH").await.unwrap_err();
    assert!(matches!(error, ExchangeError::BadRequest { .. }), "{error}");

    simulator.fault(&json!({"kind": "session_closed", "seconds": 60})).await;
    let details = exchange.product(FUTURE).await.unwrap().future.unwrap();
    assert!(!details.session_open && details.reopens_at.unwrap() > Timestamp::now());
    let sell = order("closed", FUTURE, Side::Sell, dec!(1), OrderKind::Market);
    let Placed::Rejected { reason, .. } = exchange.place(sell).await.unwrap() else { panic!("accepted") };
    assert_eq!(reason, "INVALID_FCM_TRADING_SESSION");
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
async fn a_revoked_key_and_an_exchange_in_trouble_are_told_apart() {
    let simulator = Simulator::start(&[]);
    let exchange = Open::new(simulator.settings("0")).await.session.exchange();
    simulator.fault(&json!({"kind": "key_revoked"})).await;
    let error = exchange.holdings().await.unwrap_err();
    assert!(matches!(error, ExchangeError::Refused { status: 401, .. }), "{error}");
    let error = exchange.place(resting("revoked", dec!(1000))).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Refused { .. }) && error.proves_not_placed(), "{error}");

    simulator.fault(&json!({"clear": true})).await;
    simulator.fault(&json!({"kind": "rest_unavailable"})).await;
    let error = exchange.place(resting("down", dec!(1000))).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Server { status: 503, .. }) && !error.proves_not_placed(), "{error}");
    let error = exchange.cancel(&["x".to_owned()]).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Server { .. }), "{error}");
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

/// A second venue needs no change outside its own folder but the choice in `exchange.rs`.
#[test]
fn nothing_outside_this_folder_names_its_types() {
    fn look(dir: &std::path::Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("exchange/coinbase") {
                look(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("exchange/coinbase.rs")
            {
                let text = std::fs::read_to_string(&path).unwrap();
                let names = |line: &&str| {
                    line.contains("coinbase::") || line.contains(": Coinbase") || line.contains("<Coinbase")
                };
                found.extend(text.lines().filter(names).map(|line| format!("{}: {line}", path.display())));
            }
        }
    }
    let mut found = Vec::new();
    look(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.is_empty(), "{found:#?}");
}
