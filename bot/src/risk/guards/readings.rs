//! What the guards look at: one reading for each metric, made of the engine's figures and of the meters. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use arbbot_crds::guards::{Guard, GuardMetric};
use rust_decimal::Decimal;

use super::equity::Equity;
use super::meters::Meters;
use super::trades::Trades;
use crate::ledger::SettlementRecord;

/// A metric at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    Value(Decimal),
    /// There is nothing that could be bad: no position, or too small a sample. Better than any value.
    Nothing,
    /// It cannot be told now: a guard keeps its state.
    Unknown,
}

impl Reading {
    /// The value, where there is one.
    #[must_use]
    pub fn value(self) -> Option<Decimal> {
        match self {
            Self::Value(value) => Some(value),
            Self::Nothing | Self::Unknown => None,
        }
    }

    fn or_unknown(value: Option<Decimal>) -> Self {
        value.map_or(Self::Unknown, Self::Value)
    }

    fn or_nothing(value: Option<Decimal>) -> Self {
        value.map_or(Self::Nothing, Self::Value)
    }
}

/// A reading of every metric; one that is not there is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    pub of_metrics: BTreeMap<GuardMetric, Reading>,
    /// Of guards for which a metric counts from their release on, by name.
    pub of_guards: BTreeMap<(String, GuardMetric), Reading>,
}

impl Readings {
    /// What a guard looks at.
    #[must_use]
    pub fn of_guard(&self, guard: &Guard) -> Reading {
        let own = self.of_guards.get(&(guard.name.clone(), guard.metric)).copied();
        own.unwrap_or_else(|| self.of(guard.metric))
    }

    /// The reading of a metric.
    #[must_use]
    pub fn of(&self, metric: GuardMetric) -> Reading {
        self.of_metrics.get(&metric).copied().unwrap_or(Reading::Unknown)
    }
}

impl<const N: usize> From<[(GuardMetric, Reading); N]> for Readings {
    fn from(readings: [(GuardMetric, Reading); N]) -> Self {
        Self { of_metrics: readings.into(), of_guards: BTreeMap::new() }
    }
}

/// What the engine knows of position, prices and orders at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Whether the futures session is closed.
    pub session_closed: bool,
    /// The futures leg; None: its product or its price is not known.
    pub future: Option<FutureLeg>,
    /// Notional of the larger leg; None without prices.
    pub notional_quote: Option<Decimal>,
    /// `maxPositionNotional` in force.
    pub max_position_notional: Decimal,
    /// Positions that the whole account shows; None before the first listing.
    pub positions: Option<u32>,
    /// Whether the legs differ by more than is allowed; None: it cannot be told now.
    pub is_imbalanced: Option<bool>,
    /// Age of the oldest order that is neither proven placed nor proven not placed.
    pub unknown_order_age: Option<Duration>,
    /// Funding rate per hour of the hour that ended last.
    pub funding_rate: Option<Decimal>,
    /// Cash of all fills less fees, funding, and both legs at mid prices of this instant; None without fresh prices and
    /// before the books are read.
    pub equity_quote: Option<Decimal>,
    /// Whether nothing is owned.
    pub is_flat: bool,
    pub fees_quote: Decimal,
    /// Signed contracts owned.
    pub contracts: Decimal,
}

/// The futures leg and what stands behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FutureLeg {
    /// Notional at the mid price, in quote currency; zero: no position.
    pub notional_quote: Decimal,
    pub is_short: bool,
    /// Collateral with unrealised profit and loss, in quote currency.
    pub collateral_quote: Decimal,
    /// Initial margin as a fraction of the notional: the higher of intraday and overnight.
    pub margin_rate: Decimal,
}

/// Least funding, in quote currency, of which a drift is told.
const LEAST_FUNDING: Decimal = Decimal::ONE;
/// Maintenance margin as a fraction of the initial margin.
const MAINTENANCE: (Decimal, Decimal) = (Decimal::TWO, rust_decimal::dec!(3));

impl FutureLeg {
    /// Notional ÷ collateral. Without collateral it is beyond every threshold.
    fn leverage(&self) -> Reading {
        self.per_collateral(self.notional_quote)
    }

    fn margin_use_percent(&self) -> Reading {
        self.per_collateral(self.notional_quote * self.margin_rate * Decimal::ONE_HUNDRED)
    }

    fn per_collateral(&self, what: Decimal) -> Reading {
        if self.notional_quote.is_zero() {
            return Reading::Nothing;
        }
        if self.collateral_quote <= Decimal::ZERO {
            return Reading::Value(Decimal::MAX);
        }
        Reading::Value(what.checked_div(self.collateral_quote).unwrap_or(Decimal::MAX))
    }

    /// How far the price may move against the leg until its collateral is the maintenance margin, in per cent
    /// (reference/coinbase.md §4: P_liq = (E + q·P) ÷ (q·(1 + m)) for a short; a long is its mirror).
    fn liquidation_distance_percent(&self) -> Reading {
        if self.notional_quote.is_zero() {
            return Reading::Nothing;
        }
        let (numerator, denominator) = MAINTENANCE;
        let maintenance = self.margin_rate * numerator / denominator;
        let Some(cover) = self.collateral_quote.checked_div(self.notional_quote) else {
            return Reading::Value(Decimal::ZERO);
        };
        let distance = if self.is_short {
            (cover + Decimal::ONE).checked_div(maintenance + Decimal::ONE).map(|ratio| ratio - Decimal::ONE)
        } else {
            (Decimal::ONE - cover).checked_div(Decimal::ONE - maintenance).map(|ratio| Decimal::ONE - ratio)
        };
        Reading::Value(distance.unwrap_or_default() * Decimal::ONE_HUNDRED)
    }
}

/// Everything that readings are made of.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    pub figures: &'a Figures,
    pub meters: &'a Meters,
    pub equity: &'a Equity,
    pub trades: &'a Trades,
    /// `spec.risk.capital`.
    pub capital: Decimal,
    /// The last settlement of funding.
    pub settlement: Option<&'a SettlementRecord>,
    /// Difference between the venue's clock and the machine's.
    pub clock_skew: Option<Duration>,
    /// In bytes.
    pub resident_memory: Option<u64>,
}

impl Sources<'_> {
    /// The reading of every metric at `now` (CLOCK_BOOTTIME).
    #[must_use]
    pub fn readings(&self, now: Duration) -> Readings {
        use strum::IntoEnumIterator as _;
        let of_guards = self.equity.of_guards().flat_map(|(guard, day, hour)| {
            [
                ((guard.to_owned(), GuardMetric::DailyLossPercent), self.percent_of_capital(day)),
                ((guard.to_owned(), GuardMetric::HourlyLossQuote), Reading::or_unknown(hour)),
            ]
        });
        Readings {
            of_metrics: GuardMetric::iter().map(|metric| (metric, self.reading(metric, now))).collect(),
            of_guards: of_guards.collect(),
        }
    }

    fn reading(&self, metric: GuardMetric, now: Duration) -> Reading {
        let Self { figures, meters, equity, trades, .. } = self;
        match metric {
            GuardMetric::DailyLossPercent => self.percent_of_capital(equity.daily_loss_quote()),
            GuardMetric::HourlyLossQuote => Reading::or_unknown(equity.hourly_loss_quote()),
            GuardMetric::SingleTradeLossQuote => Reading::or_nothing(trades.worst_loss_quote(now)),
            GuardMetric::WinRatePercent => Reading::or_nothing(trades.win_rate_percent()),
            GuardMetric::TransactionCostQuote => Reading::or_nothing(trades.fees_quote(now, figures.fees_quote)),
            GuardMetric::Leverage => self.of_future(FutureLeg::leverage),
            GuardMetric::MarginUsePercent => self.of_future(FutureLeg::margin_use_percent),
            GuardMetric::LiquidationDistancePercent => self.of_future(FutureLeg::liquidation_distance_percent),
            GuardMetric::PositionLimitPercent => self.position_limit_percent(),
            GuardMetric::PositionCount => Reading::or_unknown(figures.positions.map(Decimal::from)),
            GuardMetric::LegImbalanceSeconds => match figures.is_imbalanced {
                None => Reading::Unknown,
                Some(_) => Reading::Value(seconds(meters.imbalanced_for())),
            },
            GuardMetric::FundingRateAbs => Reading::or_unknown(figures.funding_rate.map(|rate| rate.abs())),
            GuardMetric::FundingDriftPercent => Reading::or_nothing(self.settlement.and_then(drift_percent)),
            GuardMetric::MarketDataAgeSeconds => Reading::Value(seconds(self.price_age(now))),
            GuardMetric::WebSocketDownSeconds => Reading::or_nothing(meters.down_for(now).map(seconds)),
            GuardMetric::DisconnectsPerHour => Reading::Value(meters.disconnects().into()),
            GuardMetric::ErrorRatePercent => Reading::or_nothing(meters.error_rate_percent()),
            GuardMetric::ApiLatencyP95Milliseconds => Reading::or_nothing(meters.api_latency_p95_ms()),
            GuardMetric::ClockSkewMilliseconds => Reading::or_unknown(self.clock_skew.map(milliseconds)),
            GuardMetric::OrderSuccessRatePercent => Reading::or_nothing(meters.order_success_percent()),
            GuardMetric::UnknownOrderAgeSeconds => Reading::or_nothing(figures.unknown_order_age.map(seconds)),
            GuardMetric::SlippageBps => Reading::or_nothing(meters.slippage_bps()),
            GuardMetric::FillRatePercent => Reading::or_nothing(meters.fill_rate_percent()),
            GuardMetric::MakerRatioPercent => Reading::or_nothing(meters.maker_ratio_percent()),
            GuardMetric::ExecutionsPerDay => Reading::Value(trades.executions().into()),
            GuardMetric::EvaluationsPerMinute => Reading::or_nothing(meters.turns_per_minute()),
            GuardMetric::LoopLatencyP95Milliseconds => Reading::or_nothing(meters.loop_latency_ms(95)),
            GuardMetric::LoopLatencyP99Milliseconds => Reading::or_nothing(meters.loop_latency_ms(99)),
            GuardMetric::ResidentMemoryMegabytes => {
                Reading::or_unknown(self.resident_memory.map(|bytes| Decimal::from(bytes) / Decimal::from(1_000_000)))
            }
        }
    }

    /// Without capital any loss is beyond every threshold.
    fn percent_of_capital(&self, loss: Option<Decimal>) -> Reading {
        match loss {
            None => Reading::Unknown,
            Some(loss) if loss.is_zero() => Reading::Value(Decimal::ZERO),
            Some(loss) => {
                let percent = (loss * Decimal::ONE_HUNDRED).checked_div(self.capital);
                Reading::Value(percent.unwrap_or(Decimal::MAX))
            }
        }
    }

    fn of_future(&self, reading: impl Fn(&FutureLeg) -> Reading) -> Reading {
        match &self.figures.future {
            Some(leg) => reading(leg),
            None if self.figures.contracts.is_zero() => Reading::Nothing,
            None => Reading::Unknown,
        }
    }

    fn position_limit_percent(&self) -> Reading {
        let Some(notional) = self.figures.notional_quote else { return Reading::Unknown };
        if notional.is_zero() {
            return Reading::Value(Decimal::ZERO);
        }
        let percent = (notional * Decimal::ONE_HUNDRED).checked_div(self.figures.max_position_notional);
        Reading::Value(percent.unwrap_or(Decimal::MAX))
    }

    /// Age of the older prices. The future has none while its session is closed.
    fn price_age(&self, now: Duration) -> Duration {
        let [spot, future] = self.meters.price_ages(now);
        if self.figures.session_closed { spot } else { spot.max(future) }
    }
}

/// How far a settlement was from its estimate; None: it was of too little money to say.
fn drift_percent(settlement: &SettlementRecord) -> Option<Decimal> {
    let larger = settlement.accrued_quote.abs().max(settlement.settled_quote.abs());
    let drift = settlement.adjustment_quote().abs() * Decimal::ONE_HUNDRED;
    if larger < LEAST_FUNDING { None } else { drift.checked_div(larger) }
}

fn seconds(duration: Duration) -> Decimal {
    milliseconds(duration) / Decimal::ONE_THOUSAND
}

fn milliseconds(duration: Duration) -> Decimal {
    Decimal::from(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
