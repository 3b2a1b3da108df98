//! The metrics that a guard can watch, and what each means: docs/guards.md is made of it.

use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumString};

/// What a guard watches: a closed list.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    EnumString,
    EnumIter,
)]
pub enum GuardMetric {
    DailyLossPercent,
    HourlyLossQuote,
    SingleTradeLossQuote,
    WinRatePercent,
    TransactionCostQuote,
    Leverage,
    MarginUsePercent,
    LiquidationDistancePercent,
    PositionLimitPercent,
    PositionCount,
    LegImbalanceSeconds,
    FundingRateAbs,
    FundingDriftPercent,
    MarketDataAgeSeconds,
    WebSocketDownSeconds,
    DisconnectsPerHour,
    ErrorRatePercent,
    ApiLatencyP95Milliseconds,
    ClockSkewMilliseconds,
    OrderSuccessRatePercent,
    UnknownOrderAgeSeconds,
    SlippageBps,
    FillRatePercent,
    MakerRatioPercent,
    ExecutionsPerDay,
    EvaluationsPerMinute,
    LoopLatencyP95Milliseconds,
    LoopLatencyP99Milliseconds,
    ResidentMemoryMegabytes,
}

/// Which way a metric gets worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worse {
    Higher,
    Lower {
        /// The best value that there can be, in the metric's unit; None where there is no bound.
        best: Option<Decimal>,
    },
}

/// What a metric is, for docs/guards.md.
#[derive(Clone, Copy, Debug)]
pub struct Meaning {
    /// How it is computed.
    pub formula: &'static str,
    pub unit: &'static str,
    /// What it looks back on; "now" for what is true at one instant.
    pub window: &'static str,
    /// Least sample that it is computed of.
    pub sample: &'static str,
    /// What a guard does when there is nothing to compute it of.
    pub without_data: &'static str,
    pub worse: Worse,
}

impl GuardMetric {
    /// Which way it gets worse.
    #[must_use]
    pub const fn worse(self) -> Worse {
        self.meaning().worse
    }

    /// Whether it is about lost money or liquidation: a person looks at it before the bot goes on.
    #[must_use]
    pub const fn is_about_loss(self) -> bool {
        matches!(
            self,
            Self::DailyLossPercent
                | Self::HourlyLossQuote
                | Self::SingleTradeLossQuote
                | Self::LiquidationDistancePercent
        )
    }

    /// What it is.
    #[must_use]
    #[allow(clippy::too_many_lines)] // one table
    pub const fn meaning(self) -> Meaning {
        match self {
            Self::DailyLossPercent => Meaning {
                formula: "Fall of the equity from its peak in the window, ÷ `spec.risk.capital` × 100. Equity is the cash of the bot's own fills less fees, plus funding paid and accrued, plus both legs at mid prices of one instant (told at most 2 s apart); a peak is what three readings in a row have reached; deposits and withdrawals are not in it",
                unit: "%",
                window: "rolling 24 h, in buckets of 5 min; kept in the ledger, so that neither midnight nor a restart starts it anew",
                sample: "3 readings",
                without_data: "keeps its state: without fresh prices of both legs, while the futures session is closed, or before the ledger's books are read",
                worse: Worse::Higher,
            },
            Self::HourlyLossQuote => Meaning {
                formula: "Fall of the equity from its peak in the window",
                unit: "quote currency",
                window: "rolling hour, in buckets of 5 min; kept in the ledger",
                sample: "3 readings",
                without_data: "keeps its state: as DailyLossPercent",
                worse: Worse::Higher,
            },
            Self::SingleTradeLossQuote => Meaning {
                formula: "Loss of the worst round trip that was closed in the window: equity at its end less equity at its beginning, both flat",
                unit: "quote currency",
                window: "24 h, since the process began",
                sample: "1 round trip",
                without_data: "counts as good",
                worse: Worse::Higher,
            },
            Self::WinRatePercent => Meaning {
                formula: "Round trips that ended with a profit, ÷ all",
                unit: "%",
                window: "the last 50 round trips, since the process began",
                sample: "10 round trips",
                without_data: "counts as good",
                worse: Worse::Lower { best: Some(Decimal::ONE_HUNDRED) },
            },
            Self::TransactionCostQuote => Meaning {
                formula: "Fees paid",
                unit: "quote currency",
                window: "24 h, since the process began",
                sample: "1",
                without_data: "counts as good",
                worse: Worse::Higher,
            },
            Self::Leverage => Meaning {
                formula: "Notional of the futures leg ÷ futures collateral",
                unit: "×",
                window: "now",
                sample: "—",
                without_data: "keeps its state: without prices; counts as good: without a futures position",
                worse: Worse::Higher,
            },
            Self::MarginUsePercent => Meaning {
                formula: "Initial margin of the futures leg, at the higher of the intraday and the overnight rate, ÷ futures collateral × 100",
                unit: "%",
                window: "now",
                sample: "—",
                without_data: "keeps its state: without prices; counts as good: without a futures position",
                worse: Worse::Higher,
            },
            Self::LiquidationDistancePercent => Meaning {
                formula: "How far the price may move against the futures leg until its collateral is the maintenance margin, ⅔ of the initial margin at the higher of the intraday and the overnight rate: short (E÷N + 1) ÷ (1 + m) − 1, long 1 − (1 − E÷N) ÷ (1 − m), with collateral E, notional N and margin m",
                unit: "%",
                window: "now",
                sample: "—",
                without_data: "keeps its state: without prices; counts as good: without a futures position",
                worse: Worse::Lower { best: None },
            },
            Self::PositionLimitPercent => Meaning {
                formula: "Notional of the larger leg ÷ `maxPositionNotional` in force × 100",
                unit: "%",
                window: "now",
                sample: "—",
                without_data: "keeps its state: without prices",
                worse: Worse::Higher,
            },
            Self::PositionCount => Meaning {
                formula: "Futures products with contracts and currencies with a balance, the quote currency aside, on the whole account",
                unit: "positions",
                window: "now, as of the last listing",
                sample: "—",
                without_data: "keeps its state: before the first listing",
                worse: Worse::Higher,
            },
            Self::LegImbalanceSeconds => Meaning {
                formula: "How long the legs have differed by more than `maxDeltaNotional` and one contract",
                unit: "s",
                window: "now",
                sample: "—",
                without_data: "keeps its state: without prices, or while the futures session is closed",
                worse: Worse::Higher,
            },
            Self::FundingRateAbs => Meaning {
                formula: "Absolute value of the funding rate of the hour that ended last",
                unit: "fraction per hour",
                window: "now",
                sample: "—",
                without_data: "keeps its state: before the product is read",
                worse: Worse::Higher,
            },
            Self::FundingDriftPercent => Meaning {
                formula: "Difference between the funding that was paid at the last settlement and what was accrued for its hours, ÷ the larger of both × 100. Hours that nobody saw accrue nothing, and a deposit in the minutes of a settlement is taken for funding: both show here",
                unit: "%",
                window: "the last settlement, of 00:00 or 12:00 UTC",
                sample: "1 in quote currency, paid or accrued",
                without_data: "counts as good",
                worse: Worse::Higher,
            },
            Self::MarketDataAgeSeconds => Meaning {
                formula: "Age of the older of the two products' best prices; a heartbeat of the connection confirms them. Of the spot product alone while the futures session is closed",
                unit: "s",
                window: "now",
                sample: "—",
                without_data: "counts from the start of the process",
                worse: Worse::Higher,
            },
            Self::WebSocketDownSeconds => Meaning {
                formula: "How long the WebSocket that is down longest has been down",
                unit: "s",
                window: "now",
                sample: "—",
                without_data: "counts as good: while both are up",
                worse: Worse::Higher,
            },
            Self::DisconnectsPerHour => Meaning {
                formula: "Times that a WebSocket was lost",
                unit: "per hour",
                window: "60 min, since the process began",
                sample: "—",
                without_data: "0",
                worse: Worse::Higher,
            },
            Self::ErrorRatePercent => Meaning {
                formula: "Calls to the exchange without a business answer (no connection, time-out, 5xx, 429, refused key, unreadable) ÷ all calls × 100",
                unit: "%",
                window: "5 min",
                sample: "20 calls",
                without_data: "counts as good",
                worse: Worse::Higher,
            },
            Self::ApiLatencyP95Milliseconds => Meaning {
                formula: "95th percentile of the time to an answer, of all calls that were answered",
                unit: "ms",
                window: "5 min",
                sample: "20 calls",
                without_data: "counts as good",
                worse: Worse::Higher,
            },
            Self::ClockSkewMilliseconds => Meaning {
                formula: "Absolute difference between the venue's clock, measured every 5 min, and the machine's. Tokens are made in the venue's time, so a skew shifts records, not orders",
                unit: "ms",
                window: "now",
                sample: "1 measurement",
                without_data: "keeps its state",
                worse: Worse::Higher,
            },
            Self::OrderSuccessRatePercent => Meaning {
                formula: "Orders that the exchange accepted ÷ orders that it answered × 100; post-only orders that would have crossed are left out",
                unit: "%",
                window: "60 min",
                sample: "20 orders",
                without_data: "counts as good",
                worse: Worse::Lower { best: Some(Decimal::ONE_HUNDRED) },
            },
            Self::UnknownOrderAgeSeconds => Meaning {
                formula: "Age of the oldest order that is neither proven placed nor proven not placed",
                unit: "s",
                window: "now",
                sample: "—",
                without_data: "counts as good: while there is none",
                worse: Worse::Higher,
            },
            Self::SlippageBps => Meaning {
                formula: "Mean difference between the fill price and the mid price at the decision, weighted by notional; positive is worse. Of orders that take, kills aside",
                unit: "bps",
                window: "60 min",
                sample: "5 orders",
                without_data: "counts as good",
                worse: Worse::Higher,
            },
            Self::FillRatePercent => Meaning {
                formula: "Filled share of the notional that orders were to take at once, kills aside",
                unit: "%",
                window: "24 h, since the process began",
                sample: "10 orders",
                without_data: "counts as good",
                worse: Worse::Lower { best: Some(Decimal::ONE_HUNDRED) },
            },
            Self::MakerRatioPercent => Meaning {
                formula: "Share of the filled notional that rested in the book, kills aside",
                unit: "%",
                window: "24 h, since the process began",
                sample: "20 filled orders",
                without_data: "counts as good",
                worse: Worse::Lower { best: Some(Decimal::ONE_HUNDRED) },
            },
            Self::ExecutionsPerDay => Meaning {
                formula: "Times that the futures leg was opened or closed",
                unit: "per day",
                window: "24 h, since the process began",
                sample: "—",
                without_data: "0",
                worse: Worse::Higher,
            },
            Self::EvaluationsPerMinute => Meaning {
                formula: "Turns of the engine",
                unit: "per minute",
                window: "60 s",
                sample: "60 s",
                without_data: "counts as good",
                worse: Worse::Lower { best: None },
            },
            Self::LoopLatencyP95Milliseconds => Meaning {
                formula: "95th percentile of the slowest turn of the engine in each second",
                unit: "ms",
                window: "5 min",
                sample: "60 s",
                without_data: "counts as good",
                worse: Worse::Higher,
            },
            Self::LoopLatencyP99Milliseconds => Meaning {
                formula: "99th percentile of the slowest turn of the engine in each second",
                unit: "ms",
                window: "5 min",
                sample: "60 s",
                without_data: "counts as good",
                worse: Worse::Higher,
            },
            Self::ResidentMemoryMegabytes => Meaning {
                formula: "Resident memory of the process, in 10⁶ bytes",
                unit: "MB",
                window: "now",
                sample: "—",
                without_data: "keeps its state",
                worse: Worse::Higher,
            },
        }
    }
}
