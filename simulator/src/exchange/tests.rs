//! Properties of the whole core: money is conserved, holds are exact, the same seed gives the same exchange.

mod commands;
mod configurations;
mod edits;
mod properties;
mod replay;
mod wallets;

use jiff::SignedDuration;
use rust_decimal::dec;

use super::order::configuration::{Limit, LimitGtd};
use super::order::{LimitGtc, Market as MarketOrder, OrderConfiguration, Status};
use super::product::listings;
use super::rejection::{Reason, Rejection};
use super::*;

const ALICE: Uuid = Uuid::from_u128(0xA11CE);
const BOB: Uuid = Uuid::from_u128(0xB0B);
const BTC: &str = "BTC-USD";
const BIP: &str = "BIP-20DEC30-CDE";
const DEPOSIT: Decimal = dec!(1000000);

/// An exchange with two clients and a clock that only the test moves.
struct World {
    exchange: Exchange,
    now: Now,
    orders: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Now { time: "2026-04-07T10:00:00Z".parse().unwrap(), monotonic_ns: 0, boottime_ns: 0 };
        let mut exchange = Exchange::new(Settings { seed, ..Settings::default() }, listings(), now);
        for id in [ALICE, BOB] {
            exchange.open_portfolio(now, id, "client", DEPOSIT);
        }
        Self { exchange, now, orders: 0 }
    }

    fn pass(&mut self, milliseconds: i64) {
        self.now.time = self.now.time.checked_add(SignedDuration::from_millis(milliseconds)).unwrap();
        self.now.monotonic_ns += u64::try_from(milliseconds).unwrap() * 1_000_000;
    }

    fn tick(&mut self) {
        self.pass(100);
        self.exchange.tick(self.now);
    }

    fn place(
        &mut self,
        owner: Uuid,
        product: &str,
        side: Side,
        configuration: OrderConfiguration,
    ) -> Result<Uuid, Rejection> {
        self.orders += 1;
        let new = NewOrder {
            client_order_id: format!("order-{}", self.orders),
            product_id: product.into(),
            side,
            configuration,
            closing: false,
        };
        self.exchange.place(self.now, owner, new).map(|p| p.order_id)
    }

    fn best(&self, product: &str, side: Side) -> Decimal {
        let market = &self.exchange.markets[self.exchange.market_index(product).unwrap()];
        market.book.best(side).unwrap()
    }

    fn status(&self, id: Uuid) -> Status {
        self.exchange.order(id).unwrap().status
    }

    /// Everything that must always be true.
    fn check(&self) {
        let exchange = &self.exchange;
        for currency in ["BTC", "ETH"] {
            let total: Decimal = exchange.portfolios.values().map(|p| p.balance(currency).total).sum();
            assert_eq!(total, Decimal::ZERO, "{currency} is conserved");
        }
        let cash: Decimal = exchange.portfolios.values().map(|p| p.balance("USD").total).sum();
        let positions = || exchange.portfolios.values().flat_map(|p| p.positions.values());
        let cost: Decimal = positions().map(|p| p.cost).sum();
        let clients = exchange.portfolios.values().filter(|p| !p.participant).count();
        let deposits = DEPOSIT * Decimal::from(clients);
        assert_eq!(cash - cost + exchange.fees_collected, deposits, "USD is conserved");
        assert_eq!(positions().map(|p| p.funding_accrued).sum::<Decimal>(), Decimal::ZERO, "funding is zero-sum");
        for (index, market) in exchange.markets.iter().enumerate() {
            let contracts: Decimal = exchange.portfolios.values().map(|p| p.contracts(index)).sum();
            assert_eq!(contracts, Decimal::ZERO, "every long has its short");
            if let (Some(bid), Some(ask)) = (market.book.best(Side::Buy), market.book.best(Side::Sell)) {
                assert!(bid < ask, "{} is crossed", market.product.id);
            }
        }
        for portfolio in exchange.portfolios.values() {
            let held: Decimal = exchange.open_orders_of(portfolio.id).map(|o| o.hold).sum();
            let holds: Decimal = portfolio.balances.values().map(|b| b.hold).sum();
            assert_eq!(held, holds, "holds belong to open orders");
            if !portfolio.participant {
                // A gap in the price can leave a liquidated account with less than nothing.
                let liquidated = exchange.orders_of(portfolio.id).any(|o| o.liquidation);
                for balance in portfolio.balances.values() {
                    assert!(balance.hold >= Decimal::ZERO && (balance.total >= Decimal::ZERO || liquidated));
                }
            }
        }
    }
}

fn gtc(size: Decimal, price: Decimal, post_only: bool) -> OrderConfiguration {
    OrderConfiguration::LimitLimitGtc(LimitGtc { base_size: Some(size), limit_price: Some(price), post_only })
}

fn market(size: Decimal) -> OrderConfiguration {
    OrderConfiguration::MarketMarketIoc(MarketOrder { base_size: Some(size), ..Default::default() })
}

#[test]
fn an_order_at_the_touch_is_filled_within_seconds() {
    for (product, size) in [(BTC, dec!(0.05)), (BIP, dec!(5))] {
        for side in [Side::Buy, Side::Sell] {
            let mut waits = Vec::new();
            for seed in 0..20 {
                let mut world = World::new(seed);
                if side == Side::Sell && product == BTC {
                    world.place(ALICE, BTC, Side::Buy, market(dec!(0.1))).unwrap();
                    world.tick();
                }
                let price = world.best(product, side);
                let mut id = world.place(ALICE, product, side, gtc(size, price, true)).unwrap();
                let mut ticks = 0;
                // Follow the touch every two seconds, as a maker would.
                while world.status(id) != Status::Filled && ticks < 1200 {
                    world.tick();
                    ticks += 1;
                    if ticks % 20 == 0 && world.exchange.request_cancel(world.now, ALICE, id).is_ok() {
                        world.tick();
                        let left = world.exchange.order(id).unwrap().remaining();
                        if left.is_zero() {
                            break;
                        }
                        let price = world.best(product, side);
                        id = world.place(ALICE, product, side, gtc(left, price, true)).unwrap();
                    }
                }
                waits.push(ticks);
            }
            waits.sort_unstable();
            assert!(waits[10] <= 50, "{product} {side}: ticks until filled {waits:?}");
            assert!(waits[19] <= 300, "{product} {side}: ticks until filled {waits:?}");
        }
    }
}

#[test]
fn a_frozen_market_stands_still_and_goes_on_afterwards() {
    let mut world = World::new(7);
    let trades = |world: &World| (world.exchange.next_trade, world.exchange.markets[0].index);
    world.exchange.frozen = true;
    let before = trades(&world);
    (0..100).for_each(|_| world.tick());
    assert_eq!(trades(&world), before);
    world.exchange.frozen = false;
    (0..100).for_each(|_| world.tick());
    assert_ne!(trades(&world), before);
}

#[test]
fn a_cancel_is_accepted_first_and_happens_later() {
    let mut world = World::new(1);
    let id = world.place(ALICE, BTC, Side::Buy, gtc(dec!(0.1), dec!(60000), true)).unwrap();
    world.exchange.request_cancel(world.now, ALICE, id).unwrap();
    assert_eq!(world.status(id), Status::CancelQueued);
    assert_eq!(
        world.exchange.request_cancel(world.now, ALICE, id),
        Err(super::cancel::CancelFailure::DuplicateCancelRequest)
    );
    world.pass(5);
    world.exchange.advance(world.now);
    assert_eq!(world.status(id), Status::Cancelled);
    assert_eq!(world.exchange.portfolios[&ALICE].balance("USD"), Balance { total: DEPOSIT, hold: Decimal::ZERO });
}

#[test]
fn nobody_cancels_an_order_of_another_portfolio() {
    let mut world = World::new(1);
    let id = world.place(ALICE, BTC, Side::Buy, gtc(dec!(0.1), dec!(60000), true)).unwrap();
    let failure = world.exchange.request_cancel(world.now, BOB, id);
    assert_eq!(failure, Err(super::cancel::CancelFailure::UnknownCancelOrder));
}

#[test]
fn a_dated_order_expires_by_itself() {
    let mut world = World::new(1);
    let end_time = world.now.time.checked_add(SignedDuration::from_secs(2));
    let configuration = OrderConfiguration::LimitLimitGtd(LimitGtd {
        base_size: Some(dec!(1)),
        limit_price: Some(dec!(60000)),
        end_time: end_time.ok(),
        post_only: true,
    });
    let id = world.place(ALICE, BIP, Side::Buy, configuration).unwrap();
    world.pass(1999);
    world.exchange.advance(world.now);
    assert_eq!(world.status(id), Status::Open);
    world.pass(1);
    world.exchange.advance(world.now);
    assert_eq!(world.status(id), Status::Expired);
}

#[test]
fn a_repeated_client_order_id_gives_the_first_order_or_is_refused() {
    let mut world = World::new(1);
    let first = world.place(ALICE, BTC, Side::Buy, gtc(dec!(0.1), dec!(60000), true)).unwrap();
    world.orders -= 1;
    assert_eq!(world.place(ALICE, BTC, Side::Buy, gtc(dec!(0.1), dec!(60000), true)).unwrap(), first);
    assert_eq!(world.exchange.open_orders_of(ALICE).count(), 1);
    world.exchange.settings.refuse_duplicates = true;
    world.orders -= 1;
    let refused = world.place(ALICE, BTC, Side::Buy, gtc(dec!(0.1), dec!(60000), true)).unwrap_err();
    assert_eq!(refused.reason, Reason::DuplicateClientOrderId);
}

#[test]
fn a_position_is_closed_with_its_profit_and_only_once() {
    let mut world = World::new(1);
    world.place(ALICE, BIP, Side::Sell, market(dec!(10))).unwrap();
    let index = world.exchange.market_index(BIP).unwrap();
    assert_eq!(world.exchange.position(ALICE, index), dec!(-10));
    let mut close = |id: &str, size| {
        let placed = world.exchange.close_position(world.now, ALICE, id.into(), BIP.into(), size);
        placed.map_err(|e| e.reason)
    };
    assert_eq!(close("c1", Some(dec!(11))).unwrap_err(), Reason::PreviewInvalidBaseSizeTooLarge);
    close("c2", Some(dec!(4))).unwrap();
    close("c3", None).unwrap();
    assert_eq!(close("c4", None).unwrap_err(), Reason::CannotCloseZeroPosition);
    close("c3", None).unwrap();
    assert_eq!(world.exchange.position(ALICE, index), dec!(0));
    world.check();
}

#[test]
fn a_closed_session_takes_cancels_but_no_orders() {
    let mut world = World::new(1);
    let id = world.place(ALICE, BIP, Side::Buy, gtc(dec!(1), dec!(60000), true)).unwrap();
    let index = world.exchange.market_index(BIP).unwrap();
    let until = world.now.time.checked_add(SignedDuration::from_secs(60)).unwrap();
    world.exchange.close_session(index, Some(until));
    let refused = world.place(ALICE, BIP, Side::Buy, market(dec!(1))).unwrap_err();
    assert_eq!(refused.reason, Reason::InvalidFcmTradingSession);
    world.place(ALICE, BTC, Side::Buy, market(dec!(0.01))).unwrap();
    world.exchange.request_cancel(world.now, ALICE, id).unwrap();
    world.tick();
    assert_eq!(world.status(id), Status::Cancelled);
    world.pass(60_000);
    world.place(ALICE, BIP, Side::Buy, market(dec!(1))).unwrap();
}

#[test]
fn a_short_is_paid_funding_while_the_future_is_dear() {
    let mut world = World::new(1);
    world.place(ALICE, BIP, Side::Sell, market(dec!(10))).unwrap();
    let before = world.exchange.portfolios[&ALICE].balance("USD").total;
    for _ in 0..150 {
        world.pass(60_000);
        world.tick();
    }
    let portfolio = &world.exchange.portfolios[&ALICE];
    let position = portfolio.positions.values().next().unwrap();
    assert!(position.funding_settled > Decimal::ZERO, "settled at 12:00 UTC");
    assert_eq!(portfolio.balance("USD").total, before + position.funding_settled);
    world.check();
}

#[test]
fn orders_that_break_a_rule_are_refused_with_its_name() {
    let mut world = World::new(1);
    let ask = world.best(BTC, Side::Sell);
    let cases = [
        (BTC, Side::Buy, gtc(dec!(0.1), dec!(60000.001), false), Reason::InvalidPricePrecision),
        (BIP, Side::Buy, gtc(dec!(1), dec!(60001), false), Reason::InvalidPricePrecision),
        (BIP, Side::Buy, gtc(dec!(1.5), dec!(60000), false), Reason::InvalidSizePrecision),
        (BTC, Side::Buy, gtc(dec!(0.000001), dec!(60000), false), Reason::PreviewInvalidBaseSizeTooSmall),
        (BTC, Side::Buy, gtc(dec!(0.00002), dec!(10), false), Reason::PreviewInvalidQuoteSizeTooSmall),
        (BTC, Side::Buy, gtc(dec!(0.1), ask, true), Reason::InvalidLimitPricePostOnly),
        (BTC, Side::Sell, market(dec!(0.1)), Reason::InsufficientFund),
        (BTC, Side::Buy, gtc(dec!(20), dec!(60000), false), Reason::InsufficientFund),
        (BIP, Side::Sell, gtc(dec!(4000), dec!(200000), true), Reason::InvalidRequest),
        ("DOGE-USD", Side::Buy, market(dec!(1)), Reason::InvalidProductId),
    ];
    for (product, side, configuration, reason) in cases {
        let refused = world.place(ALICE, product, side, configuration.clone()).map_err(|e| e.reason);
        if reason == Reason::InvalidRequest {
            // Four thousand contracts need 857,000 USD of overnight margin: allowed once, not twice.
            assert!(refused.is_ok());
            let again = world.place(ALICE, product, side, configuration).unwrap_err();
            assert_eq!(again.reason, Reason::PreviewInsufficientFundsForFutures);
        } else {
            assert_eq!(refused, Err(reason));
        }
    }
    let reduce = MarketOrder { base_size: Some(dec!(1)), reduce_only: Some(true), ..Default::default() };
    let refused = world.place(ALICE, BIP, Side::Buy, OrderConfiguration::MarketMarketIoc(reduce)).unwrap_err();
    assert_eq!(refused.reason, Reason::ReduceOnlyNotAllowedOnVenue);
    world.check();
}
