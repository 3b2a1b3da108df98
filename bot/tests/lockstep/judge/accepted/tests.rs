//! The judge is fed one violation of each kind and must count it, and nothing else.

mod exits;

use arbbot_crds::arbbot::{KillAction, Mode};
use arbbot_crds::control::{Restriction, effective};
use rust_decimal::dec;
use serde_json::{Value, json};

use super::*;

const SPOT: &str = "BTC-USD";
const FUTURE: &str = "BIP";
const FAR: i64 = 600;

/// A run that is written by hand: seconds, and what happened.
struct Run {
    judge: Judge,
    orders: u64,
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
}

impl Run {
    /// An active bot; a bitcoin is 70,000, a contract of a hundredth 700, the collateral 100,000.
    fn active() -> Self {
        let judge = Judge::new(Account {
            uid8: "0a1b2c3d".into(),
            spot: SPOT.into(),
            future: FUTURE.into(),
            contract_base: dec!(0.01),
            leg_timeout: Duration::from_secs(20),
        });
        let mut run = Self { judge, orders: 0 };
        run.control(0, &[]);
        run.prices(0, dec!(70000));
        run
    }

    fn control(&mut self, seconds: i64, restrictions: &[Restriction]) {
        self.judge.acknowledged(at(seconds), effective(&RiskLimits::default(), restrictions));
    }

    /// Ceilings on the limits, as a policy sets them.
    fn limits(&mut self, seconds: i64, ceilings: &Value) {
        let ceilings = serde_json::from_value(ceilings.clone()).unwrap();
        self.control(seconds, &[Restriction { ceilings, ..Restriction::entry("test", Entry::Active, "test") }]);
    }

    fn mode(&mut self, seconds: i64, mode: Mode) {
        self.control(seconds, &[Restriction::mode("test", mode, "test")]);
    }

    fn kill(&mut self, seconds: i64) {
        self.control(seconds, &[Restriction::kill("test", KillAction::Flatten, "test")]);
    }

    fn prices(&mut self, seconds: i64, price: Decimal) {
        let price = Price { mid: price, index: price };
        self.judge.sampled(Sample { time: at(seconds), spot: price, future: price, collateral_quote: dec!(100000) });
    }

    /// An order is accepted at the limit price of 70,000. Returns its id.
    fn order(&mut self, seconds: i64, class: Class, side: Side, product: &str, size: Decimal) -> String {
        self.priced(seconds, class, side, product, size, Some(dec!(70000)))
    }

    fn priced(
        &mut self,
        seconds: i64,
        class: Class,
        side: Side,
        product: &str,
        size: Decimal,
        price: Option<Decimal>,
    ) -> String {
        self.orders += 1;
        let id = format!("0a1b2c3d-1-{}-{class}", self.orders);
        let open_orders = self.judge.working.len() + 1;
        let event =
            JournalEvent { price, open_orders, ..event(Kind::OrderAccepted, seconds, &id, product, side, size) };
        self.prices(seconds, dec!(70000));
        self.judge.happened(&event);
        id
    }

    fn filled(&mut self, seconds: i64, id: &str, product: &str, side: Side, size: Decimal) {
        let before = self.judge.positions[self.judge.leg(product).unwrap() as usize];
        let filled = JournalEvent { filled: size, ..event(Kind::Fill, seconds, id, product, side, size) };
        let moved =
            JournalEvent { kind: Kind::PositionChanged, position: before + side.sign() * size, ..filled.clone() };
        self.judge.happened(&filled);
        self.judge.happened(&moved);
    }

    /// A bot that holds both legs: five contracts.
    fn holding() -> Self {
        let mut run = Self::active();
        for (side, product, size) in [(Side::Buy, SPOT, dec!(0.05)), (Side::Sell, FUTURE, dec!(5))] {
            let id = run.order(0, Class::Enter, side, product, size);
            run.filled(0, &id, product, side, size);
        }
        assert_eq!(run.found(), (Vec::new(), Vec::new()));
        run
    }

    /// The same, but the future is larger by so many contracts: they were not yet hedged.
    fn ahead_by(contracts: Decimal) -> Self {
        let mut run = Self::holding();
        let id = run.order(0, Class::Enter, Side::Sell, FUTURE, contracts);
        run.filled(0, &id, FUTURE, Side::Sell, contracts);
        assert_eq!(run.found(), (Vec::new(), Vec::new()));
        run
    }

    /// Limits that were broken, and rules of orders.
    fn found(&self) -> (Vec<&'static str>, Vec<&'static str>) {
        let rules = |findings: &[Finding]| findings.iter().map(|finding| finding.rule).collect();
        (rules(&self.judge.verdict.limit_violations), rules(&self.judge.verdict.wrong_orders))
    }
}

fn event(kind: Kind, seconds: i64, id: &str, product: &str, side: Side, size: Decimal) -> JournalEvent {
    JournalEvent {
        seq: 0,
        monotonic_ns: 0,
        boottime_ns: 0,
        time: at(seconds),
        portfolio: Default::default(),
        kind,
        order_id: None,
        client_order_id: id.into(),
        product_id: product.into(),
        side,
        size,
        price: None,
        filled: Decimal::ZERO,
        position: Decimal::ZERO,
        open_orders: 0,
        reason: String::new(),
    }
}

/// A limit that a further contract is beyond, by its limit price, for a bot that has five: 3,500 on each leg.
fn beyond_each_limit() -> [(&'static str, Value, Decimal); 7] {
    [
        ("maxOrderNotional", json!({"maxOrderNotional": "699"}), dec!(70000)),
        ("maxPositionNotional", json!({"maxPositionNotional": "4199"}), dec!(70000)),
        ("maxLeverage", json!({"maxLeverage": "0.0419"}), dec!(70000)),
        ("maxLegImbalanceNotional", json!({"maxLegImbalanceNotional": "699"}), dec!(70000)),
        ("maxOpenOrders", json!({"maxOpenOrders": 0}), dec!(70000)),
        ("maxOrdersPerMinute", json!({"maxOrdersPerMinute": 0}), dec!(70000)),
        ("maxSlippageBps", json!({"maxSlippageBps": "9"}), dec!(69930)),
    ]
}

#[test]
fn an_order_beyond_a_limit_that_was_acknowledged_two_seconds_before_is_counted() {
    for (limit, ceilings, price) in beyond_each_limit() {
        let mut run = Run::holding();
        run.limits(FAR, &ceilings);
        run.priced(FAR + 2, Class::Hedge, Side::Sell, FUTURE, dec!(1), Some(price));
        assert_eq!(run.found(), (vec![limit], vec![]), "{ceilings}");
    }
}

#[test]
fn the_same_order_is_not_counted_before_that_nor_within_the_limit_nor_after_it_was_loosened() {
    for (limit, ceilings, price) in beyond_each_limit() {
        let mut run = Run::holding();
        run.priced(FAR - 300, Class::Hedge, Side::Sell, FUTURE, dec!(1), Some(price));
        run.limits(FAR, &ceilings);
        run.priced(FAR + 1, Class::Hedge, Side::Sell, FUTURE, dec!(1), Some(price));
        assert_eq!(run.found(), (vec![], vec![]), "{limit}");

        let mut run = Run::holding();
        run.limits(FAR, &ceilings);
        run.limits(FAR + 60, &json!({}));
        run.priced(FAR + 60, Class::Hedge, Side::Sell, FUTURE, dec!(1), Some(price));
        assert_eq!(run.found(), (vec![], vec![]), "{limit}");
    }
}

#[test]
fn an_order_at_the_market_that_raises_a_leg_has_no_bound() {
    let mut run = Run::holding();
    run.priced(FAR, Class::Hedge, Side::Buy, SPOT, dec!(0.001), None);
    assert_eq!(run.found(), (vec!["maxSlippageBps"], vec![]));
}

#[test]
fn working_orders_count_as_if_they_fill() {
    let mut run = Run::holding();
    run.limits(FAR, &json!({"maxPositionNotional": "4200"}));
    let first = run.order(FAR + 10, Class::Hedge, Side::Sell, FUTURE, dec!(1));
    assert_eq!(run.found(), (vec![], vec![]));
    run.order(FAR + 11, Class::Hedge, Side::Sell, FUTURE, dec!(1));
    assert_eq!(run.found(), (vec!["maxPositionNotional"], vec![]));

    let mut run = Run::holding();
    run.limits(FAR, &json!({"maxPositionNotional": "4200"}));
    let cancelled = run.order(FAR + 10, Class::Hedge, Side::Sell, FUTURE, dec!(1));
    run.judge.happened(&event(Kind::OrderCancelled, FAR + 11, &cancelled, FUTURE, Side::Sell, dec!(1)));
    run.order(FAR + 12, Class::Hedge, Side::Sell, FUTURE, dec!(1));
    assert_eq!((run.found(), first), ((vec![], vec![]), cancelled), "the first did not fill");
}

#[test]
fn what_lowers_a_leg_breaks_no_limit() {
    for (limit, ceilings, _) in beyond_each_limit() {
        let mut run = Run::holding();
        run.limits(FAR, &ceilings);
        run.priced(FAR + 10, Class::Reduce, Side::Buy, FUTURE, dec!(5), None);
        run.order(FAR + 11, Class::Trim, Side::Sell, SPOT, dec!(0.05));
        assert_eq!(run.found(), (vec![], vec![]), "{limit}");
    }
}

#[test]
fn a_price_that_moved_since_the_decision_is_no_violation_but_one_that_never_was_is() {
    let mut run = Run::holding();
    run.limits(FAR, &json!({"maxOrderNotional": "705"}));
    run.prices(FAR + 30, dec!(70000));
    run.prices(FAR + 31, dec!(71000));
    run.priced(FAR + 31, Class::Hedge, Side::Sell, FUTURE, dec!(1), Some(dec!(70400)));
    assert_eq!(run.found(), (vec![], vec![]));
    run.priced(FAR + 40, Class::Hedge, Side::Sell, FUTURE, dec!(1), Some(dec!(70600)));
    assert_eq!(run.found(), (vec!["maxOrderNotional"], vec![]));
}

#[test]
fn a_class_that_the_mode_does_not_allow_is_counted() {
    use Class::{Enter, Hedge, Kill, Reduce, Trim};
    let wrong = |mode: Option<Mode>| match mode {
        None => vec![Enter, Hedge, Reduce],
        Some(Mode::Active) => vec![Kill],
        Some(Mode::ReduceOnly | Mode::Stopped) => vec![Enter, Hedge, Kill],
        Some(Mode::Halted) => vec![Enter, Hedge, Reduce, Kill],
    };
    for mode in [None, Some(Mode::Active), Some(Mode::ReduceOnly), Some(Mode::Stopped), Some(Mode::Halted)] {
        for class in [Enter, Hedge, Reduce, Trim, Kill] {
            let mut run = Run::holding();
            match mode {
                Some(mode) => run.mode(FAR, mode),
                None => run.kill(FAR),
            }
            run.order(FAR + 1, class, Side::Buy, FUTURE, dec!(1));
            assert!(!run.found().1.contains(&"class") || class == Kill, "{mode:?} {class}: within the bound");
            let mut run = Run::holding();
            match mode {
                Some(mode) => run.mode(FAR, mode),
                None => run.kill(FAR),
            }
            run.order(FAR + 2, class, Side::Buy, FUTURE, dec!(1));
            assert_eq!(run.found().1.contains(&"class"), wrong(mode).contains(&class), "{mode:?} {class}");
        }
    }
}

#[test]
fn an_order_that_raises_or_flips_a_leg_after_the_stop_is_counted() {
    for (side, product, size) in [
        (Side::Sell, FUTURE, dec!(1)),  // raises
        (Side::Buy, FUTURE, dec!(6)),   // flips
        (Side::Buy, SPOT, dec!(0.001)), // raises
        (Side::Sell, SPOT, dec!(0.06)), // flips
    ] {
        for class in [Class::Trim, Class::Reduce] {
            let mut run = Run::holding();
            run.mode(FAR, Mode::ReduceOnly);
            run.order(FAR + 2, class, side, product, size);
            assert_eq!(run.found().1, ["reduce-only"], "{class} {side} {size} {product}");
        }
        // A class that lowers may raise in no mode.
        let mut run = Run::holding();
        run.order(FAR, Class::Reduce, side, product, size);
        assert_eq!(run.found().1, ["reduce-only"], "{side} {size} {product}");
        let mut run = Run::holding();
        run.kill(FAR);
        run.order(FAR + 2, Class::Kill, side, product, size);
        assert_eq!(run.found().1, ["reduce-only"], "{side} {size} {product}");
    }
}

#[test]
fn two_exits_that_together_flip_a_leg_are_counted() {
    let mut run = Run::holding();
    run.order(FAR, Class::Reduce, Side::Buy, FUTURE, dec!(3));
    assert_eq!(run.found().1, [""; 0]);
    run.order(FAR, Class::Reduce, Side::Buy, FUTURE, dec!(3));
    assert_eq!(run.found().1, ["reduce-only"]);
}

#[test]
fn a_halted_bot_trims_for_leg_timeout_and_no_longer() {
    let mut run = Run::ahead_by(dec!(2));
    run.mode(FAR, Mode::Halted);
    run.order(FAR + 21, Class::Trim, Side::Buy, FUTURE, dec!(1));
    assert_eq!(run.found().1, [""; 0]);
    // Another halt at the same time begins nothing anew.
    run.mode(FAR + 22, Mode::Halted);
    run.order(FAR + 25, Class::Trim, Side::Buy, FUTURE, dec!(1));
    assert_eq!(run.found().1, ["legTimeout"]);
}

#[test]
fn a_second_order_of_an_id_and_an_order_of_an_older_epoch_are_counted() {
    let mut run = Run::holding();
    let id = run.order(FAR, Class::Reduce, Side::Buy, FUTURE, dec!(1));
    run.judge.happened(&event(Kind::OrderAccepted, FAR + 1, &id, FUTURE, Side::Buy, dec!(1)));
    assert_eq!(run.found().1, ["one order per intent"]);

    let mut run = Run::holding();
    for (epoch, expected) in [(2, &[][..]), (1, &["one trader"][..])] {
        let id = format!("0a1b2c3d-{epoch}-9{epoch}-Reduce");
        run.judge.happened(&event(Kind::OrderAccepted, FAR, &id, FUTURE, Side::Buy, dec!(1)));
        assert_eq!(run.found().1, expected);
    }
}

#[test]
fn nothing_is_allowed_before_a_control_was_acknowledged_and_others_orders_are_not_judged() {
    let mut run = Run::active();
    run.judge.controls.clear();
    run.order(1, Class::Enter, Side::Buy, SPOT, dec!(0.001));
    assert!(run.found().1.contains(&"class"), "{:?}", run.found());

    let mut run = Run::active();
    run.kill(1);
    run.judge.happened(&event(Kind::OrderAccepted, FAR, "liquidation", FUTURE, Side::Buy, dec!(100)));
    assert_eq!(run.found(), (vec![], vec![]));
}
