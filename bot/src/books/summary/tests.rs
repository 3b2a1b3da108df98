use rust_decimal::dec;

use super::*;
use crate::exchange::Side;
use crate::ledger::{DecisionRecord, FundingRecord};

const FUTURE: &str = "BIP";

fn at(hour: i64) -> Timestamp {
    Timestamp::from_second(hour * 3600).unwrap()
}

fn fill(hour: i64, side: Side, price: Decimal, liquidity: Liquidity) -> FillRecord {
    FillRecord {
        order_id: format!("o-{hour}"),
        trade_id: hour.to_string(),
        client_order_id: format!("b-1-{hour}-Enter"),
        product: FUTURE.to_owned(),
        side,
        size: dec!(10),
        unit_base: dec!(0.01),
        price,
        fee_quote: dec!(1),
        liquidity,
        at: at(hour),
    }
}

fn point(hour: i64, equity_quote: Decimal) -> EquityRecord {
    let zero = Decimal::ZERO;
    EquityRecord {
        at: at(hour),
        equity_quote,
        cash_quote: zero,
        funding_quote: zero,
        fees_quote: zero,
        spot_base: zero,
        spot_mid: zero,
        contracts: dec!(-10),
        future_mid: dec!(70000),
    }
}

/// A short that is opened as maker in hour 2 and closed as taker in hour 26, with a loss and three hours of funding.
fn books() -> Books {
    let curve = [0, 5, 3, 9, 4].into_iter().cycle().take(48);
    let decision = |hour: i64, mid: Decimal, expected_price: Decimal| DecisionRecord {
        client_order_id: format!("b-1-{hour}-Enter"),
        mid,
        expected_price,
    };
    let decisions = [decision(2, dec!(69990), dec!(70000)), decision(26, dec!(70290), dec!(70295))];
    let funding =
        |hour, rate| FundingRecord::observed(FUTURE.to_owned(), at(hour), dec!(-10), dec!(0.01), dec!(70000), rate);
    Books {
        fills: vec![
            fill(2, Side::Sell, dec!(70000), Liquidity::Maker),
            fill(26, Side::Buy, dec!(70300), Liquidity::Taker),
        ],
        decisions: decisions.into_iter().map(|decision| (decision.client_order_id.clone(), decision)).collect(),
        funding: vec![
            funding(3, dec!(0.00003)),
            funding(4, dec!(-0.00001)),
            FundingRecord::missing(FUTURE.to_owned(), at(5), dec!(-10), dec!(0.01)),
        ],
        settlements: vec![SettlementRecord {
            product: FUTURE.to_owned(),
            window_end: at(12),
            since: None,
            accrued_quote: dec!(0.14),
            settled_quote: dec!(0.2),
            booked_at: at(12),
        }],
        equity: curve
            .enumerate()
            .map(|(hour, equity)| {
                let hour = i64::try_from(hour).unwrap();
                // The point of an hour with a fill was taken before it.
                let fees_quote = Decimal::from(i64::from(hour > 2) + i64::from(hour > 26));
                EquityRecord { fees_quote, ..point(hour, Decimal::from(equity)) }
            })
            .collect(),
        ..Books::default()
    }
}

#[test]
fn a_period_has_what_happened_in_it_and_nothing_else() {
    let first = Summary::of(&books(), FUTURE, Period { from: at(0), to: at(24) });
    assert_eq!((first.fills, first.fees_quote, first.realized_quote), (1, dec!(1), Decimal::ZERO));
    assert!(first.trips.is_empty());
    assert_eq!((first.maker_percent, first.slippage_realized_bps), (Some(dec!(100)), Some(dec!(-1.43))));
    assert_eq!((first.hours, first.hours_recorded, first.deployed_quote), (24, 24, dec!(7000)));
    let rate = first.funding.rate.unwrap();
    assert_eq!((rate.average, rate.max, rate.min), (dec!(0.00001), dec!(0.00003), dec!(-0.00001)));
    assert_eq!((first.funding.hours_observed, first.funding.hours_missing), (2, 1));
    assert_eq!((first.funding.accrued_quote, first.funding.adjustment_quote), (dec!(0.14), dec!(0.06)));

    let second = Summary::of(&books(), FUTURE, Period { from: at(24), to: at(48) });
    let [trip] = &second.trips[..] else { panic!("{second:?}") };
    assert_eq!(trip.result_quote, dec!(-30) - dec!(2) + dec!(0.14));
    assert_eq!((second.win_percent(), second.losing().count()), (Some(Decimal::ZERO), 1));
    assert_eq!((second.slippage_estimated_bps, second.slippage_realized_bps), (Some(dec!(0.71)), Some(dec!(1.42))));
    assert_eq!(second.funding.rate, None);
}

/// A point a second after an hour began, as a bot takes it: what fills and funding of the books had made by then, at a price.
fn point_of(books: &Books, hour: i64, future_mid: Decimal) -> EquityRecord {
    let taken_at = at(hour).checked_add(SignedDuration::from_secs(1)).unwrap();
    let account = Account::until(books, FUTURE, taken_at);
    let hours: Decimal =
        books.funding.iter().filter(|funding| funding.hour < at(hour)).map(|funding| funding.accrued_quote).sum();
    let paid = books.settlements.iter().filter(|paid| paid.booked_at < taken_at);
    let funding_quote = hours + paid.map(SettlementRecord::adjustment_quote).sum::<Decimal>();
    let value = account.leg(FUTURE).map_or(Decimal::ZERO, |leg| leg.value_quote(future_mid));
    EquityRecord {
        at: taken_at,
        equity_quote: account.net_quote() + value + funding_quote,
        cash_quote: account.net_quote(),
        funding_quote,
        fees_quote: account.fees_quote,
        contracts: account.held(FUTURE),
        future_mid,
        ..point(hour, Decimal::ZERO)
    }
}

/// Proven by mutation: with fees, realised profit or funding of the period instead of the measured time, or with the last
/// point before the period as its beginning, this fails.
#[test]
fn a_profit_and_its_parts_are_of_the_same_time() {
    // A short of hour 20 (in its fifth minute) that is closed at a loss of 10 in the seventh: the report is of then.
    let minute = |minutes: i64| at(20).checked_add(SignedDuration::from_mins(minutes)).unwrap();
    let mut books = Books {
        fills: vec![
            FillRecord { at: minute(5), ..fill(20, Side::Sell, dec!(70000), Liquidity::Maker) },
            FillRecord { at: minute(7), ..fill(21, Side::Buy, dec!(70100), Liquidity::Taker) },
        ],
        ..Books::default()
    };
    let flat = (18..=20).map(|hour| point_of(&books, hour, dec!(70000))).collect();
    books.equity = flat;
    let now = Summary::of(&books, FUTURE, Period { from: at(-3), to: at(21) });
    assert_eq!((now.profit_quote, now.unrealized_quote), (Some(Decimal::ZERO), Some(Decimal::ZERO)), "flat: {now:?}");
    assert_eq!((now.realized_quote, now.fees_quote, now.trips.len()), (Decimal::ZERO, Decimal::ZERO, 1));
    assert_eq!(now.measured.unwrap().to, books.equity[2].at, "it says how far the figures go");
    // An hour later it is all there, and the report on the hours before stays what it was.
    books.equity.push(point_of(&books, 21, dec!(70100)));
    let then = Summary::of(&books, FUTURE, Period { from: at(-3), to: at(21) });
    assert_eq!((then.profit_quote, then.unrealized_quote), (Some(dec!(-12)), Some(Decimal::ZERO)));
    assert_eq!((then.realized_quote, then.fees_quote, then.funding_quote), (dec!(-10), dec!(2), Some(Decimal::ZERO)));
}

/// Proven by mutation: without the adjustment of a settlement in the funding this fails: unrealised takes it.
#[test]
fn what_is_paid_beyond_the_estimate_is_funding_and_days_add_up() {
    let mut books = books();
    books.equity = (0..49).map(|hour| point_of(&books, hour, dec!(70000) + Decimal::from(hour * 10))).collect();
    let first = Summary::of(&books, FUTURE, Period { from: at(0), to: at(24) });
    assert_eq!((first.funding_quote, first.fees_quote), (Some(dec!(0.2)), dec!(1)));
    assert_eq!(first.unrealized_quote, Some(dec!(-24)), "a short of 0.1, and the price rose by 240");
    assert_eq!(first.profit_quote, Some(dec!(-24.8)));
    let second = Summary::of(&books, FUTURE, Period { from: at(24), to: at(48) });
    assert_eq!((second.realized_quote, second.unrealized_quote), (dec!(-30), Some(dec!(24))));
    assert_eq!(
        (second.profit_quote, second.funding_quote, second.fees_quote),
        (Some(dec!(-7)), Some(Decimal::ZERO), dec!(1))
    );
    assert_eq!(first.measured.unwrap().to, second.measured.unwrap().from);
    let both = Summary::of(&books, FUTURE, Period { from: at(0), to: at(48) });
    assert_eq!(both.profit_quote, Some(dec!(-31.8)));
    let before = Summary::of(&books, FUTURE, Period { from: at(-24), to: at(0) });
    assert_eq!((before.profit_quote, before.measured), (None, None), "there was no bot");
}

/// Fails with the contract size of the period's own fills: the leg counts as nothing.
#[test]
fn a_leg_that_is_held_through_a_period_without_a_fill_has_its_value() {
    let held = Summary::of(&books(), FUTURE, Period { from: at(3), to: at(24) });
    assert_eq!((held.fills, held.deployed_quote), (0, dec!(7000)));
}

/// Fails without `follows`, as the tail counts then, and without `is_an_hour`, as a late point does.
#[test]
fn a_sharpe_is_of_changes_that_are_an_hours() {
    let late = |minutes: i64, point: EquityRecord| {
        let at = point.at.checked_add(SignedDuration::from_mins(minutes)).unwrap();
        EquityRecord { at, ..point }
    };
    let mut points: Vec<_> = (0..20).map(|hour| point(hour, Decimal::from(hour % 3))).collect();
    let mut changes: Vec<_> = (1..20).map(|hour| Decimal::from(hour % 3 - (hour - 1) % 3)).collect();
    assert_eq!(hourly_changes(&points), changes);
    // Sixty hours without the bot; an hour whose prices came late; and where a backtest ends.
    points.extend([point(79, dec!(500)), point(80, dec!(501)), late(40, point(81, dec!(900)))]);
    points.extend([point(82, dec!(1000)), late(1, point(83, dec!(1002))), late(58, point(83, dec!(4000)))]);
    changes.extend([dec!(1), dec!(2)]);
    assert_eq!(hourly_changes(&points), changes);
    // The profit is of all of it.
    let books = Books { equity: points, ..Books::default() };
    let summary = Summary::of(&books, FUTURE, Period { from: at(0), to: at(84) });
    assert_eq!((summary.profit_quote, summary.sharpe), (Some(dec!(4000)), None), "21 changes are too few");
}

/// Fails when a single point is taken for a curve that never fell.
#[test]
fn of_a_single_point_neither_profit_nor_drawdown_is_known() {
    let of = |equity| {
        let books = Books { equity, ..Books::default() };
        let summary = Summary::of(&books, FUTURE, Period { from: at(0), to: at(4) });
        (summary.profit_quote, summary.max_drawdown_quote)
    };
    assert_eq!(of(vec![point(1, dec!(7))]), (None, None));
    assert_eq!(of(vec![point(1, dec!(7)), point(2, dec!(5))]), (Some(dec!(-2)), Some(dec!(2))));
}

#[test]
fn a_drawdown_is_from_a_peak_and_few_changes_have_no_sharpe() {
    assert_eq!(performance::max_drawdown(&[dec!(0), dec!(5), dec!(3), dec!(9), dec!(2), dec!(8)]), dec!(7));
    assert_eq!(performance::max_drawdown(&[]), dec!(0));
    assert_eq!(sharpe(&[dec!(1), dec!(2), dec!(3)]), None);
    assert_eq!(sharpe(&[dec!(1); 30]), None, "nothing moved: there is no deviation to measure by");
    let rising: Vec<_> = (0..30).map(|n| Decimal::from(2 + n % 2)).collect();
    assert!(sharpe(&rising).unwrap() > Decimal::ONE);
    let falling: Vec<_> = rising.iter().map(|change| -change).collect();
    assert_eq!(sharpe(&falling), sharpe(&rising).map(|sharpe| -sharpe));
}
