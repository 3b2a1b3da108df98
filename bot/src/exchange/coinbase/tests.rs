//! The client against the real exchange simulator. They are here, not in `bot/tests`, because only the crate's own
//! tests can make a [`Cleared`].

mod capture;
mod hostile;
mod in_process;
mod order;
mod pooling;
mod session;
mod simulator;

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rust_decimal::{Decimal, dec};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

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
