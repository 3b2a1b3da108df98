//! Any sequence of commands: every configuration, cancels, edits, closes, jumps of the price, long waits, closed
//! sessions, liquidations. After each, everything that must always be true.

use proptest::prelude::*;

use super::super::edit::Change;
use super::super::order::configuration::{Bracket, BracketGtd, Scaled, StopDirection, StopLimit, StopLimitGtd, Twap};
use super::super::order::{Order, Rung};
use super::super::place::worst_price;
use super::*;

#[derive(Debug, Clone)]
enum Command {
    Place { owner: bool, product: u8, buy: bool, kind: u8, offset: i64, size: u32, repeat: bool },
    Cancel { nth: usize },
    Edit { nth: usize, offset: i64, size: u32 },
    Close { owner: bool, size: Option<u8> },
    Jump { bps: i32 },
    CloseSession,
    Setting { owner: bool, intraday: bool },
    Tick { count: u8 },
    Hours { count: u8 },
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        8 => (any::<bool>(), 0..4u8, any::<bool>(), 0..12u8, -40..40i64, 1..3000u32, prop::bool::weighted(0.1)).prop_map(
            |(owner, product, buy, kind, offset, size, repeat)| Command::Place {
                owner, product, buy, kind, offset, size, repeat
            }
        ),
        2 => (0..50usize).prop_map(|nth| Command::Cancel { nth }),
        2 => (0..50usize, -40..40i64, 1..3000u32).prop_map(|(nth, offset, size)| Command::Edit { nth, offset, size }),
        1 => (any::<bool>(), prop::option::of(1..20u8)).prop_map(|(owner, size)| Command::Close { owner, size }),
        1 => (-2500..3500i32).prop_map(|bps| Command::Jump { bps }),
        1 => Just(Command::CloseSession),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(owner, intraday)| Command::Setting { owner, intraday }),
        4 => (1..4u8).prop_map(|count| Command::Tick { count }),
        1 => (1..30u8).prop_map(|count| Command::Hours { count }),
    ]
}

fn who(owner: bool) -> Uuid {
    if owner { ALICE } else { BOB }
}

impl World {
    fn obey(&mut self, command: &Command) {
        match *command {
            Command::Place { owner, product, buy, kind, offset, size, repeat } => {
                let side = if buy { Side::Buy } else { Side::Sell };
                if repeat {
                    self.orders = self.orders.saturating_sub(1);
                }
                let (id, configuration) = self.ask(product, side, kind, offset, size);
                let _ = self.place(who(owner), &id, side, configuration);
            }
            Command::Cancel { nth } => {
                if let Some((owner, id)) = self.nth_open(nth) {
                    let _ = self.exchange.request_cancel(self.now, owner, id);
                }
            }
            Command::Edit { nth, offset, size } => {
                if let Some((owner, id)) = self.nth_open(nth) {
                    let order = self.exchange.order(id).unwrap();
                    let listed = &self.exchange.markets[order.market];
                    let tick = listed.product.price_increment;
                    let price = listed.product.round_price(listed.mark()) + Decimal::from(offset) * tick;
                    let change = Change { size: Some(Decimal::new(i64::from(size), 4)), price: Some(price) };
                    let _ = self.exchange.edit(self.now, owner, id, change);
                }
            }
            Command::Close { owner, size } => {
                self.orders += 1;
                let id = format!("order-{}", self.orders);
                let _ = self.exchange.close_position(self.now, who(owner), id, BIP.into(), size.map(Decimal::from));
            }
            Command::Jump { bps } => self.exchange.jump_index(0, bps),
            Command::CloseSession => {
                let until = self.now.time.checked_add(SignedDuration::from_secs(1)).unwrap();
                self.exchange.close_session(1, Some(until));
            }
            Command::Setting { owner, intraday } => {
                self.exchange.portfolios.get_mut(&who(owner)).unwrap().intraday_margin = intraday;
            }
            Command::Tick { count } => (0..count).for_each(|_| self.tick()),
            Command::Hours { count } => {
                for _ in 0..count {
                    self.pass(3_600_000);
                    self.tick();
                }
            }
        }
    }

    /// An order near the market in any of the twelve configurations.
    fn ask(&self, product: u8, side: Side, kind: u8, offset: i64, size: u32) -> (String, OrderConfiguration) {
        use OrderConfiguration as O;
        let listed = &self.exchange.markets[usize::from(product)];
        let (product, mark) = (&listed.product, listed.mark());
        let at = |ticks: i64| product.round_price(mark) + Decimal::from(ticks) * product.price_increment;
        let size = if product.is_future() { Decimal::from(1 + size / 30) } else { Decimal::new(i64::from(size), 4) };
        let (base_size, limit_price) = (Some(size), Some(at(offset)));
        let away = side.sign() * dec!(100);
        let stop = |distance: Decimal| Some(product.round_price(mark + away * distance));
        let direction = if side == Side::Buy { StopDirection::Up } else { StopDirection::Down };
        let end_time = self.now.time.checked_add(SignedDuration::from_secs(2)).ok();
        let limit = Limit { base_size, limit_price };
        let configuration = match kind {
            0 => market(size),
            1 => O::SorLimitIoc(limit),
            2 => O::LimitLimitFok(limit),
            3 => O::LimitLimitGtd(LimitGtd { base_size, limit_price, end_time, post_only: false }),
            4 => gtc(size, at(offset), true),
            5 => gtc(size, at(offset), false),
            6 => O::StopLimitStopLimitGtc(StopLimit {
                base_size,
                limit_price: stop(dec!(1.5)),
                stop_price: stop(dec!(1)),
                stop_direction: direction,
            }),
            7 => O::StopLimitStopLimitGtd(StopLimitGtd {
                base_size,
                limit_price: stop(dec!(1.5)),
                stop_price: stop(dec!(0.2)),
                end_time,
                stop_direction: direction,
            }),
            8 => O::TriggerBracketGtc(Bracket {
                base_size,
                limit_price: stop(dec!(-1)),
                stop_trigger_price: stop(dec!(1)),
            }),
            9 => O::TriggerBracketGtd(BracketGtd {
                base_size,
                limit_price: stop(dec!(-1)),
                stop_trigger_price: stop(dec!(0.3)),
                end_time,
            }),
            10 => O::TwapLimitGtd(Twap {
                base_size,
                limit_price: Some(at(offset)),
                start_time: Some(self.now.time),
                end_time,
                number_buckets: "5".into(),
                ..Twap::default()
            }),
            _ => O::ScaledLimitGtc(Scaled {
                base_size,
                num_orders: 3,
                min_price: Some(at(offset - 20)),
                max_price: Some(at(offset)),
                ..Scaled::default()
            }),
        };
        (product.id.clone(), configuration)
    }

    fn nth_open(&self, nth: usize) -> Option<(Uuid, Uuid)> {
        let open = |owner| self.exchange.open_orders_of(owner).map(move |o| (owner, o.id));
        let all: Vec<_> = open(ALICE).chain(open(BOB)).collect();
        all.get(nth.checked_rem(all.len())?).copied()
    }

    fn check_orders(&self) {
        for owner in [ALICE, BOB] {
            let portfolio = &self.exchange.portfolios[&owner];
            let mut ids = BTreeSet::new();
            for order in self.exchange.orders_of(owner) {
                self.check_order(order);
                assert!(ids.insert(order.client_order_id.clone()), "one order for {}", order.client_order_id);
                let fills = portfolio.fills.iter().filter(|f| f.order == order.id);
                let (size, value) = fills.fold((Decimal::ZERO, Decimal::ZERO), |(size, value), fill| {
                    let product = &self.exchange.markets[fill.market].product;
                    (size + fill.size, value + product.value(fill.size, fill.price))
                });
                assert_eq!((size, value), (order.filled_size, order.filled_value), "fills add up to their order");
            }
            let listed = self.exchange.orders_of(owner).filter(|o| !o.status.is_terminal()).count();
            assert_eq!(listed, portfolio.open.len(), "open orders are the ones that are not terminal");
        }
    }

    fn check_order(&self, order: &Order) {
        assert!(order.filled_size <= order.size, "{order:?}");
        if order.status.is_terminal() {
            assert_eq!(order.hold, Decimal::ZERO, "an order that ended holds nothing");
            return;
        }
        if !order.rungs.is_empty() {
            let left: Decimal = order.rungs.iter().map(|r| r.remaining).sum();
            assert_eq!(left, order.remaining(), "what remains is what still works: {order:?}");
        }
        let product = &self.exchange.markets[order.market].product;
        let fee = Decimal::ONE + self.exchange.settings.spot_fees.taker;
        let cost = |r: &Rung| r.remaining * worst_price(product, &order.terms, r.price) * fee;
        let needed = match order.side {
            _ if product.is_future() => Decimal::ZERO,
            Side::Sell => order.remaining(),
            Side::Buy => order.rungs.iter().map(cost).sum(),
        };
        assert_eq!(order.hold, needed, "an order holds what it still needs: {order:?}");
    }

    /// Fills since `before` trades: none worse than its order's limit.
    fn check_prices(&self, before: u64) {
        for owner in [ALICE, BOB] {
            for fill in self.exchange.portfolios[&owner].fills.iter().filter(|f| f.trade_id >= before) {
                let order = self.exchange.order(fill.order).unwrap();
                let worst = order.rungs.iter().map(|r| r.price);
                let limit = if order.side == Side::Buy { worst.max() } else { worst.min() };
                let within = super::super::book::acceptable(order.side, limit, fill.price);
                assert!(within, "{fill:?} is worse than the limit of {order:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_asked_money_is_conserved_and_every_order_is_in_order(
        seed in any::<u64>(),
        commands in prop::collection::vec(command(), 1..60),
    ) {
        let mut world = World::new(seed);
        world.check();
        for command in &commands {
            let before = world.exchange.next_trade;
            world.obey(command);
            world.check();
            world.check_orders();
            world.check_prices(before);
        }
    }

    /// Of two resting orders on one side the better price, and at one price the older, is filled first.
    #[test]
    fn who_was_first_at_the_best_price_is_filled_first(
        makers in prop::collection::vec((any::<bool>(), 0..3i64, 1..5u32), 2..12),
        take in 1..20u32,
    ) {
        let mut world = World::new(3);
        world.exchange.frozen = true;
        world.exchange.open_portfolio(world.now, TAKER, "taker", DEPOSIT);
        let offer = world.best(BTC, Side::Sell);
        let tick = world.exchange.markets[0].product.price_increment;
        for owner in [ALICE, BOB] {
            world.place(owner, BTC, Side::Buy, market(dec!(1))).unwrap();
        }
        let bid = world.best(BTC, Side::Buy);
        let best = world.best(BTC, Side::Sell).min(offer);
        prop_assume!(best - bid > tick * dec!(4));
        let mut queue = Vec::new();
        for (owner, ticks, size) in makers {
            let price = bid + tick * Decimal::from(1 + ticks);
            let size = Decimal::new(i64::from(size), 3);
            let id = world.place(who(owner), BTC, Side::Sell, gtc(size, price, true)).unwrap();
            queue.push((price, queue.len(), id));
        }
        queue.sort_unstable();
        world.place(TAKER, BTC, Side::Buy, market(Decimal::new(i64::from(take), 3))).unwrap();
        let left = queue.iter().map(|(_, _, id)| world.exchange.order(*id).unwrap());
        let left: Vec<(Decimal, Decimal)> = left.map(|o| (o.filled_size, o.size)).collect();
        // Filled ones first, then at most one in part, then untouched ones.
        let touched = left.iter().take_while(|(filled, size)| filled == size).count();
        let rest = left.iter().skip(touched + 1);
        prop_assert!(rest.clone().all(|(filled, _)| filled.is_zero()), "{left:?}");
        world.check();
    }
}

const TAKER: Uuid = Uuid::from_u128(0x7A4E8);
