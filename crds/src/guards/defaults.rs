//! The guards that are in force unless the spec has one of the same name.

use rust_decimal::{Decimal, dec};

use super::{Guard, GuardAction, GuardMetric, confirmations};
use crate::decimal::DecimalString;

/// The shipped guards. What only describes the shape of a strategy, or what the bot compensates by itself, warns.
#[must_use]
pub fn defaults() -> Vec<Guard> {
    use GuardAction::{Halt, ReduceOnly, Restart, Warn};
    #[allow(clippy::enum_glob_use)]
    use GuardMetric::*;
    let d = |at: Decimal| Some(at);
    let all = [
        ("daily-loss", DailyLossPercent, d(dec!(1)), d(dec!(2)), ReduceOnly),
        ("trade-loss", SingleTradeLossQuote, None, d(dec!(500)), Warn),
        ("win-rate", WinRatePercent, d(dec!(50)), d(dec!(40)), Warn),
        ("leverage", Leverage, None, d(dec!(3)), ReduceOnly),
        ("margin-use", MarginUsePercent, d(dec!(70)), d(dec!(80)), ReduceOnly),
        ("liquidation-distance", LiquidationDistancePercent, d(dec!(30)), d(dec!(20)), ReduceOnly),
        // At its limit the position grows no further anyway; ReduceOnly would keep its second leg from following.
        ("position-limit", PositionLimitPercent, d(dec!(75)), d(dec!(90)), Warn),
        ("position-count", PositionCount, d(dec!(10)), d(dec!(20)), Warn),
        ("leg-imbalance", LegImbalanceSeconds, d(dec!(60)), d(dec!(120)), ReduceOnly),
        ("funding-rate", FundingRateAbs, None, d(dec!(0.001)), ReduceOnly),
        ("funding-drift", FundingDriftPercent, d(dec!(10)), d(dec!(50)), Warn),
        ("market-data", MarketDataAgeSeconds, d(dec!(10)), d(dec!(30)), ReduceOnly),
        ("websocket-down", WebSocketDownSeconds, d(dec!(30)), d(dec!(300)), ReduceOnly),
        ("websocket-restart", WebSocketDownSeconds, None, d(dec!(900)), Restart),
        ("disconnects", DisconnectsPerHour, d(dec!(3)), d(dec!(10)), ReduceOnly),
        ("error-rate", ErrorRatePercent, d(dec!(10)), d(dec!(25)), Halt),
        ("api-latency", ApiLatencyP95Milliseconds, d(dec!(500)), d(dec!(1000)), Warn),
        ("clock-skew", ClockSkewMilliseconds, d(dec!(1000)), d(dec!(10000)), Warn),
        ("order-success", OrderSuccessRatePercent, d(dec!(95)), d(dec!(90)), ReduceOnly),
        ("unknown-order", UnknownOrderAgeSeconds, d(dec!(30)), d(dec!(120)), ReduceOnly),
        ("slippage", SlippageBps, d(dec!(30)), d(dec!(50)), ReduceOnly),
        ("fill-rate", FillRatePercent, d(dec!(95)), d(dec!(90)), Warn),
        ("maker-ratio", MakerRatioPercent, d(dec!(80)), d(dec!(60)), Warn),
        ("executions", ExecutionsPerDay, d(dec!(20)), None, Warn),
        ("evaluations", EvaluationsPerMinute, d(dec!(20)), None, Warn),
        ("loop-p95", LoopLatencyP95Milliseconds, d(dec!(100)), None, Warn),
        ("loop-p99", LoopLatencyP99Milliseconds, d(dec!(200)), None, Warn),
        ("memory", ResidentMemoryMegabytes, d(dec!(300)), d(dec!(400)), Warn),
    ];
    let guard =
        |(name, metric, warn_at, trip_at, action): (&str, GuardMetric, Option<Decimal>, Option<Decimal>, _)| Guard {
            name: name.to_owned(),
            metric,
            warn_at: warn_at.map(DecimalString),
            trip_at: trip_at.map(DecimalString),
            action,
            confirmations: confirmations(),
            release: None,
        };
    all.into_iter().map(guard).collect()
}
