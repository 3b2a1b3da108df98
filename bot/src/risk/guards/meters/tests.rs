use rust_decimal::dec;

use super::*;
use crate::exchange::NewOrder;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ok() -> Result<(), ExchangeError> {
    Ok(())
}

fn failed() -> Result<(), ExchangeError> {
    Err(ExchangeError::Timeout { call: String::new(), seconds: 5 })
}

#[test]
fn the_error_rate_needs_a_sample_and_forgets_after_five_minutes() {
    let mut meters = Meters::new(at(0));
    for n in 0..19 {
        meters.called(at(n), Duration::from_millis(10 * n), &if n < 5 { failed() } else { ok() });
    }
    assert_eq!(meters.error_rate_percent(), None);
    meters.called(at(19), Duration::ZERO, &ok());
    assert_eq!(meters.error_rate_percent(), Some(dec!(25)));
    // Calls that were not made, and answers of the exchange, are no errors.
    meters.called(at(20), Duration::ZERO, &Err::<(), _>(ExchangeError::NoSession));
    assert_eq!(meters.error_rate_percent(), Some(dec!(25)));
    for n in 20..25 {
        let message = String::new();
        let answered = Err::<(), _>(ExchangeError::BadRequest { call: String::new(), message });
        meters.called(at(n), Duration::from_millis(1), &answered);
    }
    assert_eq!(meters.error_rate_percent(), Some(dec!(20)));
    assert_eq!(meters.api_latency_p95_ms(), Some(dec!(170)), "the 19th of the 20 that were answered");
    meters.second(at(304 + 1), None);
    assert_eq!(meters.error_rate_percent(), Some(dec!(0)), "those of the first five seconds are too old");
}

#[test]
fn a_connection_that_is_down_counts_once_and_from_when_it_was_lost() {
    let mut meters = Meters::new(at(0));
    assert_eq!(meters.down_for(at(9)), Some(at(9)), "it was never up");
    for link in [Link::MarketWebSocket, Link::UserWebSocket] {
        meters.link(at(10), link, false);
    }
    assert_eq!((meters.down_for(at(10)), meters.disconnects()), (None, 0));
    meters.link(at(20), Link::UserWebSocket, true);
    meters.link(at(25), Link::UserWebSocket, true);
    meters.link(at(25), Link::Rest, true);
    assert_eq!((meters.down_for(at(30)), meters.disconnects()), (Some(at(10)), 1));
    meters.second(at(20 + 3601), None);
    assert_eq!(meters.disconnects(), 0);
}

fn ended(id: &str, size: Decimal, filled: Decimal, price: Decimal, rests: bool) -> Order {
    let expires_at = k8s_openapi::jiff::Timestamp::UNIX_EPOCH;
    let kind = match rests {
        true => OrderKind::PostOnly { limit_price: price, expires_at },
        false => OrderKind::ImmediateOrCancel { limit_price: price },
    };
    let (client_order_id, product) = (id.to_owned(), "S".to_owned());
    let order = NewOrder { client_order_id, product, side: Side::Sell, size, kind };
    let mut order = Order::intended(order, Class::Enter, 1, at(0));
    (order.filled, order.average_price) = (filled, price);
    order.state = State::Venue(OrderStatus::Filled);
    order
}

#[test]
fn slippage_fill_rate_and_maker_ratio_are_weighted_by_notional_and_leave_kills_out() {
    let mut meters = Meters::new(at(0));
    let mut take = |id: &str, order: &Order| {
        meters.decided(id, dec!(100), dec!(1));
        meters.order(at(1), order);
        // News of what has ended changes nothing.
        meters.order(at(2), order);
    };
    for n in 0..9 {
        let id = format!("taken {n}");
        take(&id, &ended(&id, dec!(1), dec!(1), dec!(99.9), false));
    }
    let id = "half";
    take(id, &ended(id, dec!(22), dec!(11), dec!(100.1), false));
    for n in 0..10 {
        let id = format!("made {n}");
        take(&id, &ended(&id, dec!(8), dec!(8), dec!(100), true));
    }
    let mut kill = ended("kill", dec!(1000), dec!(1000), dec!(50), false);
    kill.class = Class::Kill;
    take("kill", &kill);
    assert_eq!(meters.slippage_bps(), Some(dec!(-1)), "(9 × 10 - 11 × 10) ÷ 20");
    assert_eq!(meters.fill_rate_percent().unwrap().round_dp(2), dec!(64.52), "20 of 31");
    assert_eq!(meters.maker_ratio_percent(), Some(dec!(80)));
}

#[test]
fn an_order_that_would_have_crossed_is_no_failure_and_one_without_an_answer_is_not_counted() {
    let mut meters = Meters::new(at(0));
    let rejected = |reason: &str| Ok(Placed::Rejected { reason: reason.to_owned(), message: String::new() });
    for n in 0..18 {
        meters.answered(at(n), &Ok(Placed::Accepted { order_id: String::new() }));
        meters.answered(at(n), &rejected("INVALID_LIMIT_PRICE_POST_ONLY"));
        meters.answered(at(n), &rejected("PREVIEW_INVALID_LIMIT_PRICE_POST_ONLY"));
        meters.answered(at(n), &Err(ExchangeError::Timeout { call: String::new(), seconds: 5 }));
    }
    assert_eq!(meters.order_success_percent(), None);
    for n in 18..20 {
        meters.answered(at(n), &rejected("INSUFFICIENT_FUND"));
    }
    assert_eq!(meters.order_success_percent(), Some(dec!(90)));
}

/// Fails when the age is counted from the beginning (mutation: `None => {}` in second): an imbalance of 20 s at 17:00 would
/// be one of an hour when the market opens.
#[test]
fn an_imbalance_keeps_its_age_while_nobody_knows_and_ends_when_it_is_known_to() {
    let mut meters = Meters::new(at(0));
    for second in 10..=30 {
        meters.second(at(second), Some(true));
    }
    assert_eq!(meters.imbalanced_for(), at(20));
    for second in 31..3631 {
        meters.second(at(second), None);
    }
    assert_eq!(meters.imbalanced_for(), at(20), "the market is closed");
    for second in 3631..=3635 {
        meters.second(at(second), Some(true));
    }
    assert_eq!(meters.imbalanced_for(), at(24));
    meters.second(at(3636), Some(false));
    assert_eq!(meters.imbalanced_for(), at(0));
}

/// Fails when a release forgets every window (mutation: `*self = Self::new(now)` in restart): a tripped guard on the errors
/// would read Nothing and end by itself while the exchange fails.
#[test]
fn a_release_begins_the_window_of_its_own_metric_anew_and_of_no_other() {
    let mut meters = Meters::new(at(0));
    for n in 0..20 {
        meters.called::<()>(at(n), at(1), &Ok(()));
        meters.answered(at(n), &Ok(Placed::Accepted { order_id: String::new() }));
    }
    for metric in [GuardMetric::LiquidationDistancePercent, GuardMetric::DisconnectsPerHour, GuardMetric::Leverage] {
        meters.restart(metric);
    }
    assert_eq!((meters.error_rate_percent(), meters.order_success_percent()), (Some(dec!(0)), Some(dec!(100))));
    meters.restart(GuardMetric::ErrorRatePercent);
    assert_eq!((meters.error_rate_percent(), meters.order_success_percent()), (None, Some(dec!(100))));
    assert_eq!(meters.api_latency_p95_ms(), Some(dec!(1000)));
}

#[test]
fn the_slowest_turn_of_each_second_counts() {
    let mut meters = Meters::new(at(0));
    for second in 1..=100 {
        for millis in [1, second] {
            meters.turned(Duration::from_millis(millis));
        }
        meters.second(at(second), None);
    }
    assert_eq!(meters.loop_latency_ms(95), Some(dec!(95)));
    assert_eq!(meters.loop_latency_ms(99), Some(dec!(99)));
    assert_eq!(meters.turns_per_minute(), Some(dec!(122)), "a minute and the second it begins with");
}
