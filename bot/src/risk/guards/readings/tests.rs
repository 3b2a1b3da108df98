use std::time::Duration;

use arbbot_crds::guards::defaults;
use proptest::prelude::*;
use rust_decimal::dec;
use strum::IntoEnumIterator as _;

use super::*;

fn leg(collateral: Decimal, margin_rate: Decimal, is_short: bool) -> FutureLeg {
    FutureLeg { notional_quote: dec!(1000), is_short, collateral_quote: collateral, margin_rate }
}

fn readings(figures: &Figures, capital: Decimal, loss: Decimal) -> Readings {
    let (meters, trades, mut equity) = (Meters::new(Duration::ZERO), Trades::default(), Equity::default());
    let at = k8s_openapi::jiff::Timestamp::UNIX_EPOCH;
    for _ in 0..3 {
        equity.note(at, Some(loss));
    }
    equity.note(at, Some(dec!(0)));
    let sources = Sources {
        figures,
        meters: &meters,
        equity: &equity,
        trades: &trades,
        capital,
        settlement: None,
        clock_skew: Some(Duration::from_millis(1500)),
        resident_memory: Some(250_000_000),
    };
    sources.readings(Duration::from_secs(7))
}

#[test]
fn the_liquidation_distance_is_that_of_the_reference() {
    // reference/coinbase.md §4: collateral 35 % of the notional, 10 % intraday and 30.6 % overnight; 15 % intraday.
    for (collateral, rate, expected) in
        [(dec!(350), dec!(0.1), dec!(26.6)), (dec!(350), dec!(0.306), dec!(12.1)), (dec!(150), dec!(0.1), dec!(7.8))]
    {
        let distance = leg(collateral, rate, true).liquidation_distance_percent().value().unwrap();
        assert_eq!(distance.round_dp(1), expected);
    }
    let long = leg(dec!(350), dec!(0.3), false).liquidation_distance_percent().value().unwrap();
    assert_eq!(long.round_dp(2), dec!(18.75), "1 - 0.65 / 0.8");
}

#[test]
fn every_metric_has_a_reading_and_without_data_it_is_what_the_page_says() {
    let idle = readings(&Figures { is_flat: true, ..Figures::default() }, dec!(25000), dec!(0));
    for metric in GuardMetric::iter() {
        assert!(idle.of_metrics.contains_key(&metric), "{metric}");
    }
    let of = |metric| idle.of(metric);
    use GuardMetric as M;
    for metric in [M::LiquidationDistancePercent, M::Leverage, M::MarginUsePercent, M::MakerRatioPercent] {
        assert_eq!(of(metric), Reading::Nothing, "{metric}");
    }
    for metric in [M::PositionCount, M::PositionLimitPercent, M::LegImbalanceSeconds, M::FundingRateAbs] {
        assert_eq!(of(metric), Reading::Unknown, "{metric}");
    }
    assert_eq!(of(M::MarketDataAgeSeconds), Reading::Value(dec!(7)), "from the start of the process");
    assert_eq!(of(M::WebSocketDownSeconds), Reading::Value(dec!(7)));
    assert_eq!(of(M::ClockSkewMilliseconds), Reading::Value(dec!(1500)));
    assert_eq!(of(M::ResidentMemoryMegabytes), Reading::Value(dec!(250)));
    let position = Figures { contracts: dec!(-3), ..Figures::default() };
    assert_eq!(readings(&position, dec!(1), dec!(0)).of(M::LiquidationDistancePercent), Reading::Unknown);
}

/// Invariant 12. Proven by mutation: a drift of zero.
#[test]
fn the_drift_of_a_settlement_is_of_the_larger_amount_and_too_little_money_says_nothing() {
    let drift = |accrued_quote, settled_quote| {
        let at = k8s_openapi::jiff::Timestamp::UNIX_EPOCH;
        drift_percent(&SettlementRecord {
            product: "F".to_owned(),
            window_end: at,
            since: None,
            accrued_quote,
            settled_quote,
            booked_at: at,
        })
    };
    assert_eq!(drift(dec!(8), dec!(10)), Some(dec!(20)));
    assert_eq!(drift(dec!(-10), dec!(-8)), Some(dec!(20)));
    assert_eq!(drift(dec!(0), dec!(3)), Some(dec!(100)), "hours that nobody saw");
    assert_eq!(drift(dec!(5), dec!(-5)), Some(dec!(200)), "a sign that is wrong");
    assert_eq!(drift(dec!(0.9), dec!(-0.9)), None);
}

#[test]
fn a_daily_loss_is_of_the_capital_and_without_capital_beyond_everything() {
    let loss = |capital| readings(&Figures::default(), capital, dec!(500)).of(GuardMetric::DailyLossPercent);
    assert_eq!(loss(dec!(25000)), Reading::Value(dec!(2)));
    assert_eq!(loss(dec!(0)), Reading::Value(Decimal::MAX));
}

proptest! {
    /// Fails when the collateral is divided by (mutation: `self.notional_quote.checked_div(self.collateral_quote)` for the
    /// cover) and when the margin is left out of a long (mutation: `Decimal::ONE - maintenance` to `Decimal::ONE`).
    #[test]
    fn less_collateral_or_more_margin_is_never_further_from_liquidation(
        collateral in 0i64..3000, less in 0i64..3000, rate in 1i64..90, more in 0i64..9, is_short in any::<bool>(),
    ) {
        let distance = |collateral: i64, rate: i64| {
            let leg = leg(collateral.into(), Decimal::new(rate, 2), is_short);
            leg.liquidation_distance_percent().value().unwrap()
        };
        prop_assert!(distance(collateral - less, rate) <= distance(collateral, rate));
        // What is beyond liquidation already gets no further by margin.
        if is_short || collateral <= 1000 {
            prop_assert!(distance(collateral, rate + more) <= distance(collateral, rate));
        }
        prop_assert_eq!(distance(collateral, rate) <= Decimal::ZERO, Decimal::from(collateral) <= Decimal::from(1000 * rate) / dec!(150));
    }

    /// Fails when a figure is read as another (mutation: FundingRateAbs without its abs).
    #[test]
    fn a_spike_of_funding_trips_whatever_its_sign(rate in 10i64..1000) {
        let guard = defaults().into_iter().find(|guard| guard.name == "funding-rate").unwrap();
        for rate in [rate, -rate] {
            let figures = Figures { funding_rate: Some(Decimal::new(rate, 4)), ..Figures::default() };
            let value = readings(&figures, dec!(1), dec!(0)).of(GuardMetric::FundingRateAbs).value().unwrap();
            prop_assert!(guard.is_beyond(value, guard.trip_at.unwrap().0));
        }
    }
}
