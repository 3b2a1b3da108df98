use exchange_matching::fees::FeeRates;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use rust_decimal::{Decimal, dec};

use super::account::FeeSchedule;
use super::store::Book;
use super::venue::Venue;
use crate::exchange::{
    CarryTerms, FutureDetails, MarketEvent, NewOrder, OrderKind, OrderState, OrderStatus, Placed, Product, Side, Touch,
};
use crate::market::book::Level;

const SPOT: &str = "BTC-USD";
const FUTURE: &str = "BIP-20DEC30-CDE";
const START: &str = "2026-11-16T15:10:00Z";

fn product(id: &str) -> Product {
    let is_future = id == FUTURE;
    Product {
        id: id.to_owned(),
        base_currency: "BTC".to_owned(),
        quote_currency: "USD".to_owned(),
        price_increment: Decimal::ONE,
        size_increment: if is_future { Decimal::ONE } else { dec!(0.01) },
        min_size: if is_future { Decimal::ONE } else { dec!(0.01) },
        min_notional_quote: if is_future { Decimal::ZERO } else { Decimal::ONE },
        unit_base: if is_future { dec!(0.1) } else { Decimal::ONE },
        tradable: true,
        future: is_future.then_some(FutureDetails::in_session(true, terms("2026-11-16T15:00:00Z", dec!(0.0001)))),
    }
}

/// The future after an hour of this rate.
fn future_after(hour: &str, rate: Decimal) -> Product {
    let mut product = product(FUTURE);
    product.future.as_mut().unwrap().terms = terms(hour, rate);
    product
}

fn terms(hour: &str, rate: Decimal) -> CarryTerms {
    CarryTerms {
        long_margin: dec!(0.2),
        short_margin: dec!(0.3),
        funding_rate: rate,
        funding_time: Some(hour.parse().unwrap()),
    }
}

struct World {
    venue: Venue,
    now: Timestamp,
    orders: u32,
}

impl World {
    /// Books of 98–102 with 10 at each level, and 10,000 USD.
    fn new() -> Self {
        let account = super::account::Account::opened_with(dec!(10000));
        let book = Book { account, orders: Default::default() };
        let fees = FeeSchedule {
            spot: FeeRates { maker: dec!(0.001), taker: dec!(0.002) },
            future: FeeRates { maker: dec!(0.0005), taker: dec!(0.0006) },
        };
        let venue = Venue::new([SPOT, FUTURE].map(str::to_owned), book, fees);
        let mut world = Self { venue, now: START.parse().unwrap(), orders: 0 };
        for id in [SPOT, FUTURE] {
            world.venue.list(product(id), world.now);
            world.levels(id, true, &[(98, 10), (99, 10), (101, 10), (102, 10)]);
        }
        world
    }

    /// Levels below 100 are bids.
    fn levels(&mut self, product: &str, snapshot: bool, levels: &[(i64, i64)]) {
        let level = |(price, quantity): &(i64, i64)| Level {
            side: if *price < 100 { Side::Buy } else { Side::Sell },
            price: (*price).into(),
            quantity: (*quantity).into(),
        };
        self.shown(product, snapshot, levels.iter().map(level).collect());
    }

    fn shown(&mut self, product: &str, snapshot: bool, levels: Vec<Level>) {
        self.venue.hear(MarketEvent::Levels { product: product.to_owned(), snapshot, levels }, self.now);
    }

    fn trade(&mut self, product: &str, price: i64, size: i64) {
        let event = MarketEvent::Trade {
            product: product.to_owned(),
            price: price.into(),
            size: size.into(),
            at: Some(self.now),
        };
        self.venue.hear(event, self.now);
    }

    fn place(&mut self, product: &str, side: Side, size: Decimal, kind: OrderKind) -> Placed {
        self.orders += 1;
        let (client_order_id, product) = (format!("c{}", self.orders), product.to_owned());
        self.venue.place(&NewOrder { client_order_id, product, side, size, kind }, self.now)
    }

    /// The state of an order that is taken.
    fn taken(&mut self, product: &str, side: Side, size: Decimal, kind: OrderKind) -> OrderState {
        let Placed::Accepted { order_id } = self.place(product, side, size, kind) else { panic!("refused") };
        self.venue.order_by_id(&order_id).unwrap()
    }

    fn rest(&mut self, side: Side, size: i64, price: i64) -> OrderState {
        let expires_at = self.now + SignedDuration::from_secs(60);
        self.taken(SPOT, side, size.into(), OrderKind::PostOnly { limit_price: price.into(), expires_at })
    }

    fn filled(&self, order: &OrderState) -> Decimal {
        self.venue.order_by_id(&order.order_id).unwrap().filled
    }
}

fn ioc(price: i64) -> OrderKind {
    OrderKind::ImmediateOrCancel { limit_price: price.into() }
}

fn reason(placed: Placed) -> String {
    match placed {
        Placed::Rejected { reason, .. } => reason,
        Placed::Accepted { order_id } => panic!("accepted as {order_id}"),
    }
}

#[test]
fn a_taker_gets_the_depth_that_is_shown_at_its_prices_and_the_rest_is_cancelled() {
    let mut world = World::new();
    let order = world.taken(SPOT, Side::Buy, dec!(15), ioc(102));
    assert_eq!((order.status, order.filled), (OrderStatus::Filled, dec!(15)));
    // 10 at 101 and 5 at 102.
    assert_eq!(order.average_price * dec!(15), dec!(1520));
    assert_eq!(order.fees_quote, dec!(3.04));
    let rest = world.taken(SPOT, Side::Buy, dec!(15), ioc(102));
    assert_eq!((rest.status, rest.filled), (OrderStatus::Cancelled, dec!(5)), "nobody fills twice from one level");
    assert_eq!(reason(world.place(SPOT, Side::Buy, dec!(1), OrderKind::Market)), "INSUFFICIENT_LIQUIDITY");
    world.levels(SPOT, false, &[(101, 0)]);
    world.levels(SPOT, false, &[(101, 4)]);
    assert_eq!(world.taken(SPOT, Side::Buy, dec!(9), ioc(101)).filled, dec!(4), "what is new there can be taken");
}

#[test]
fn a_maker_waits_behind_what_was_there_before_it() {
    let mut world = World::new();
    let order = world.rest(Side::Buy, 3, 99);
    world.trade(SPOT, 101, 50);
    world.trade(SPOT, 99, 10);
    assert_eq!(world.filled(&order), Decimal::ZERO, "only what was ahead has traded");
    // What joins behind it, or leaves, changes nothing.
    world.levels(SPOT, false, &[(99, 70)]);
    world.trade(SPOT, 99, 1);
    assert_eq!(world.filled(&order), dec!(1));
    world.trade(SPOT, 98, 1);
    assert_eq!(world.filled(&order), dec!(2), "a trade beyond its price would have met it first");
    world.trade(SPOT, 98, 7);
    let order = world.venue.order_by_id(&order.order_id).unwrap();
    assert_eq!((order.status, order.average_price, order.fees_quote), (OrderStatus::Filled, dec!(99), dec!(0.297)));
}

#[test]
fn a_trade_beyond_the_price_fills_although_much_was_ahead() {
    let mut world = World::new();
    let order = world.rest(Side::Buy, 3, 99);
    world.trade(SPOT, 98, 2);
    assert_eq!(world.filled(&order), dec!(2));
}

#[test]
fn the_other_side_that_reaches_a_resting_order_fills_it_once() {
    let mut world = World::new();
    let order = world.rest(Side::Buy, 5, 99);
    let level = |side, price: i64, quantity: i64| Level { side, price: price.into(), quantity: quantity.into() };
    world.shown(SPOT, false, vec![level(Side::Buy, 99, 0), level(Side::Sell, 99, 2)]);
    assert_eq!(world.filled(&order), dec!(2));
    world.shown(SPOT, false, vec![level(Side::Sell, 99, 2)]);
    assert_eq!(world.filled(&order), dec!(2), "the same two again");
    world.shown(SPOT, false, vec![level(Side::Sell, 99, 3)]);
    assert_eq!(world.filled(&order), dec!(3));
}

#[test]
fn a_trade_from_before_an_order_does_not_fill_it() {
    let mut world = World::new();
    let order = world.rest(Side::Buy, 3, 99);
    let at = Some(world.now - SignedDuration::from_millis(1));
    let early = MarketEvent::Trade { product: SPOT.to_owned(), price: dec!(98), size: dec!(9), at };
    world.venue.hear(early, world.now);
    assert_eq!(world.filled(&order), Decimal::ZERO);
}

#[test]
fn the_rules_of_the_exchange_hold() {
    let mut world = World::new();
    let post_only = |price: i64| OrderKind::PostOnly { limit_price: price.into(), expires_at: Timestamp::MAX };
    assert_eq!(reason(world.place(SPOT, Side::Buy, dec!(1), post_only(101))), "INVALID_LIMIT_PRICE_POST_ONLY");
    assert_eq!(reason(world.place(SPOT, Side::Buy, dec!(0.005), ioc(101))), "PREVIEW_INVALID_BASE_SIZE_TOO_SMALL");
    assert_eq!(reason(world.place(SPOT, Side::Buy, dec!(1.001), ioc(101))), "INVALID_SIZE_PRECISION");
    let odd = OrderKind::ImmediateOrCancel { limit_price: dec!(100.5) };
    assert_eq!(reason(world.place(SPOT, Side::Buy, dec!(1), odd)), "INVALID_PRICE_PRECISION");
    assert_eq!(reason(world.place(SPOT, Side::Buy, dec!(1), ioc(120))), "LIMIT_PRICE_TOO_FAR_FROM_MARKET");
    assert_eq!(reason(world.place(SPOT, Side::Sell, dec!(1), ioc(99))), "INSUFFICIENT_FUND");
    assert_eq!(reason(world.place(SPOT, Side::Buy, dec!(100), ioc(101))), "INSUFFICIENT_FUND");
    assert_eq!(reason(world.place(FUTURE, Side::Buy, dec!(1), OrderKind::ClosePosition)), "CANNOT_CLOSE_ZERO_POSITION");
    let too_many = reason(world.place(FUTURE, Side::Sell, dec!(4000), ioc(99)));
    assert_eq!(too_many, "PREVIEW_INSUFFICIENT_FUNDS_FOR_FUTURES");
    let mut closed = product(FUTURE);
    closed.future.as_mut().unwrap().session_open = false;
    world.venue.list(closed, world.now);
    assert_eq!(reason(world.place(FUTURE, Side::Sell, dec!(1), ioc(99))), "INVALID_FCM_TRADING_SESSION");
    world.venue.hear(MarketEvent::Lost, world.now);
    assert_eq!(reason(world.place(SPOT, Side::Buy, dec!(1), ioc(101))), "INSUFFICIENT_LIQUIDITY");
}

#[test]
fn the_same_client_order_id_is_the_same_order() {
    let mut world = World::new();
    let first = world.place(SPOT, Side::Buy, dec!(1), ioc(101));
    world.orders -= 1;
    assert_eq!(world.place(SPOT, Side::Buy, dec!(1), ioc(101)), first);
    assert_eq!(world.venue.holdings().balances["BTC"], dec!(1));
}

#[test]
fn a_resting_order_expires_and_a_cancelled_one_is_gone() {
    let mut world = World::new();
    let (first, second) = (world.rest(Side::Buy, 1, 99), world.rest(Side::Buy, 1, 98));
    world.venue.cancel(&first.order_id).unwrap();
    assert_eq!(world.venue.cancel(&first.order_id).unwrap_err(), "COMMANDER_REJECTED_CANCEL_ORDER");
    assert_eq!(world.venue.cancel("paper-77").unwrap_err(), "UNKNOWN_CANCEL_ORDER");
    world.now += SignedDuration::from_secs(60);
    world.trade(SPOT, 90, 99);
    let status = |order: &OrderState| world.venue.order_by_id(&order.order_id).unwrap().status;
    assert_eq!((status(&first), status(&second)), (OrderStatus::Cancelled, OrderStatus::Expired));
    assert_eq!(world.filled(&second), Decimal::ZERO);
}

#[test]
fn two_orders_of_the_account_do_not_trade_with_each_other() {
    let mut world = World::new();
    world.rest(Side::Buy, 1, 99);
    world.levels(SPOT, false, &[(99, 0), (98, 0)]);
    world.taken(SPOT, Side::Buy, dec!(1), ioc(101));
    let sell = world.taken(SPOT, Side::Sell, dec!(1), ioc(99));
    assert_eq!((sell.status, sell.filled), (OrderStatus::Cancelled, Decimal::ZERO));
}

#[test]
fn the_own_order_is_seen_among_the_best_prices() {
    let mut world = World::new();
    let touch = Touch { best_bid: dec!(98), best_ask: dec!(101) };
    world.rest(Side::Buy, 1, 99);
    assert_eq!(world.venue.with_own_orders(SPOT, touch).best_bid, dec!(99));
    let crossing = Touch { best_bid: dec!(97), best_ask: dec!(99) };
    assert_eq!(world.venue.with_own_orders(SPOT, crossing), crossing);
}

#[test]
fn a_short_earns_funding_each_hour_and_is_paid_at_noon_and_midnight() {
    let mut world = World::new();
    world.taken(FUTURE, Side::Sell, dec!(10), ioc(99));
    let cash = world.venue.account().cash;
    let mut hour = |time: &str, rate| {
        world.venue.list(future_after(time, rate), world.now);
        // Seen twice, booked once.
        world.venue.list(future_after(time, rate), world.now);
        (world.venue.account().positions[FUTURE].funding_accrued, world.venue.account().cash)
    };
    // 10 contracts × 0.1 × 100 × 0.0002
    assert_eq!(hour("2026-11-16T16:00:00Z", dec!(0.0002)), (dec!(0.02), cash));
    assert_eq!(hour("2026-11-16T17:00:00Z", dec!(-0.0001)), (dec!(0.01), cash));
    assert_eq!(hour("2026-11-17T00:00:00Z", dec!(0.0001)), (Decimal::ZERO, cash + dec!(0.02)));
}

#[derive(Clone, Debug)]
enum Step {
    Place { future: bool, buy: bool, size: i64, price: i64, kind: u8 },
    Cancel(usize),
    Level { future: bool, price: i64, quantity: i64 },
    Trade { future: bool, price: i64, size: i64 },
    Restart,
    Hour,
}

fn step() -> impl Strategy<Value = Step> {
    let price = 95..106i64;
    prop_oneof![
        6 => (any::<bool>(), any::<bool>(), 1..8i64, price.clone(), 0..4u8)
            .prop_map(|(future, buy, size, price, kind)| Step::Place { future, buy, size, price, kind }),
        1 => (0..20usize).prop_map(Step::Cancel),
        4 => (any::<bool>(), price.clone(), 0..12i64)
            .prop_map(|(future, price, quantity)| Step::Level { future, price, quantity }),
        4 => (any::<bool>(), price, 1..12i64).prop_map(|(future, price, size)| Step::Trade { future, price, size }),
        1 => Just(Step::Restart),
        1 => Just(Step::Hour),
    ]
}

proptest! {
    // Each step is on the disk.
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// What the account holds is what its orders say and nothing else: no fill, fee or funding is lost or made up, and a
    /// restart changes nothing.
    #[test]
    fn money_and_positions_are_the_sum_of_the_fills(steps in prop::collection::vec(step(), 1..80)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("paper.jsonl");
        let (mut store, _) = super::store::Store::open(path.clone(), dec!(10000)).unwrap();
        let mut world = World::new();
        let fees = world.venue.fees;
        let mut hours: i64 = 0;
        for step in steps {
            world.now += SignedDuration::from_secs(7);
            let id = |future| if future { FUTURE } else { SPOT };
            match step {
                Step::Place { future, buy, size, price, kind } => {
                    let limit_price = Decimal::from(price);
                    let expires_at = world.now + SignedDuration::from_secs(60);
                    let kind = match kind {
                        0 => OrderKind::PostOnly { limit_price, expires_at },
                        1 => OrderKind::GoodTillCancelled { limit_price, post_only: false },
                        2 => OrderKind::ImmediateOrCancel { limit_price },
                        _ if future && price < 100 => OrderKind::ClosePosition,
                        _ => OrderKind::Market,
                    };
                    world.place(id(future), if buy { Side::Buy } else { Side::Sell }, size.into(), kind);
                }
                Step::Cancel(number) => drop(world.venue.cancel(&format!("paper-{number}"))),
                Step::Level { future, price, quantity } => world.levels(id(future), false, &[(price, quantity)]),
                Step::Trade { future, price, size } => world.trade(id(future), price, size),
                Step::Hour => {
                    hours += 1;
                    let time: Timestamp = "2026-11-16T15:00:00Z".parse().unwrap();
                    let time = (time + SignedDuration::from_hours(hours)).to_string();
                    world.venue.list(future_after(&time, dec!(0.0003)), world.now);
                }
                Step::Restart => {
                    let (opened, book) = super::store::Store::open(path.clone(), Decimal::ZERO).unwrap();
                    store = opened;
                    if !book.orders.is_empty() {
                        prop_assert_eq!(&book.account, world.venue.account());
                        let before = world.venue.orders_since(&[SPOT.to_owned(), FUTURE.to_owned()], None);
                        world.venue = Venue::new([SPOT, FUTURE].map(str::to_owned), book, fees);
                        prop_assert_eq!(before, world.venue.orders_since(&[SPOT.to_owned(), FUTURE.to_owned()], None));
                        for id in [SPOT, FUTURE] {
                            world.venue.list(product(id), world.now);
                            world.levels(id, true, &[(98, 10), (99, 10), (101, 10), (102, 10)]);
                        }
                    }
                }
            }
            if let Some(changed) = world.venue.take_changes() {
                store.write(world.venue.account(), changed.iter().filter_map(|number| world.venue.order(*number)));
            }
            let orders = world.venue.orders_since(&[SPOT.to_owned(), FUTURE.to_owned()], None);
            let account = world.venue.account();
            let (mut cash, mut base, mut contracts, mut paid) = (dec!(10000), Decimal::ZERO, Decimal::ZERO, Decimal::ZERO);
            for order in &orders {
                let raw = world.venue.order(order.order_id["paper-".len()..].parse().unwrap()).unwrap();
                prop_assert!(order.filled <= order.size.unwrap());
                prop_assert_eq!(order.status == OrderStatus::Filled, order.filled == order.size.unwrap());
                let unit = if order.product == FUTURE { dec!(0.1) } else { Decimal::ONE };
                cash -= order.side.sign() * raw.filled_value * unit + order.fees_quote;
                paid += order.fees_quote;
                let owned = if order.product == FUTURE { &mut contracts } else { &mut base };
                *owned += order.side.sign() * order.filled;
                if let Some(limit) = raw.limit.filter(|_| !order.filled.is_zero()) {
                    let worse = order.side.sign() * (raw.filled_value - limit * order.filled);
                    prop_assert!(worse <= Decimal::ZERO, "never worse than its limit");
                }
            }
            let position = account.positions.get(FUTURE).cloned().unwrap_or_default();
            prop_assert_eq!(account.fees, paid);
            prop_assert_eq!(account.cash, cash + position.cost + position.funding_settled);
            prop_assert_eq!((account.base_of("BTC"), position.contracts), (base, contracts));
            prop_assert!(base >= Decimal::ZERO, "nothing is sold that is not there");
        }
    }
}
