//! Whether carrying the position pays: what funding is expected to bring over the horizon, less what it costs to open and
//! to close both legs. Pure.
//!
//! Per notional of one leg: cost = 2 × (spot fee + future fee) + both spreads + slippage; break-even = cost / rate;
//! edge = rate × horizon − cost (reference/coinbase.md §4). One leg rests and the other may have to take, each way: of
//! the two ways round the dearer counts.
//!
//! The basis is paid or earned, too: N × price × (basis in − basis out), and funding keeps it near 24 × the rate per hour
//! (the same place). A future that is sold for less than that is a cost of entering; one that is bought back for more is
//! a cost of leaving. What would be earned so is not counted on.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rust_decimal::{Decimal, dec};
use serde::{Deserialize, Serialize};

use crate::exchange::{FeeRates, Touch};
use crate::market::funding::{Outlook, WINDOW_HOURS};

/// What an order that takes eats of the book beyond the best price, over the whole round trip.
const SLIPPAGE_BPS: Decimal = dec!(2);
const BPS: Decimal = dec!(10000);
/// Basis that funding holds, in hours of its rate: the rate of an hour is the premium by 24.
const FAIR_BASIS_HOURS: Decimal = dec!(24);

/// `spec.strategy.fundingCarry.entry`, `.exit` and `.collateral`; hot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    pub min_edge_bps: Decimal,
    pub horizon_hours: Decimal,
    pub min_samples: usize,
    pub max_negative_hours: usize,
    /// A younger position is not closed for negative funding.
    pub min_hold: Duration,
    /// Free collateral, as a fraction of the futures notional.
    pub min_collateral_ratio: Decimal,
}

/// What the strategy makes of funding and costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stance {
    /// Raises nothing; what is there stays.
    #[default]
    Wait,
    /// Builds up to the target.
    Enter,
    /// Closes both legs.
    Exit,
}

/// Why the stance is what it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cause {
    #[default]
    NoFunding,
    FundingStale,
    FeesUnknown,
    FewSamples,
    TooLittle,
    Enough,
    Negative,
    /// Negative, but the position is young.
    MinHold {
        until: Timestamp,
    },
}

/// A decision, and the figures that it follows from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    pub stance: Stance,
    pub cause: Cause,
    /// Of the round trip, in basis points of notional.
    pub cost_bps: Decimal,
    /// Expected over the horizon, in basis points of notional.
    pub funding_bps: Decimal,
    /// What going on under negative funding is expected to cost, in basis points of notional.
    pub loss_bps: Decimal,
    /// How much dearer the future is than its funding explains, in basis points of the spot price; negative: cheaper.
    pub dear_bps: Decimal,
}

/// What the decision is made of.
#[derive(Clone, Copy, Debug)]
pub struct Inputs {
    /// None: no rate was ever seen.
    pub outlook: Option<Outlook>,
    pub is_stale: bool,
    pub fees: Option<FeeRates>,
    pub spot_touch: Touch,
    pub future_touch: Touch,
    /// (future − spot) / spot, as a fraction.
    pub basis: Decimal,
    /// Whether there is no position to close.
    pub is_flat: bool,
    /// When the position was opened, from flat; None: there is none.
    pub entered_at: Option<Timestamp>,
    pub now: Timestamp,
}

/// Cost of opening and closing both legs, in basis points of the notional of one.
#[must_use]
pub fn round_trip_bps(fees: &FeeRates, spot: Touch, future: Touch) -> Decimal {
    let FeeRates { spot_maker, spot_taker, future_maker, future_taker } = *fees;
    let one_way = (spot_maker + future_taker).max(spot_taker + future_maker);
    one_way * Decimal::TWO * BPS + spread_bps(spot) + spread_bps(future) + SLIPPAGE_BPS
}

fn spread_bps(touch: Touch) -> Decimal {
    let spread = (touch.best_ask - touch.best_bid) * BPS;
    spread.checked_div(touch.mid()).unwrap_or(BPS).max(Decimal::ZERO)
}

/// The stance under these inputs, after `before`.
///
/// Entry and exit are far apart. To enter, the edge must reach the minimum (while it builds, half of it will do); to leave,
/// funding must have been negative for long *and* promise to cost more than leaving does, and the position must have been
/// there for the minimum hold: each round trip costs its fees for certain.
#[must_use]
pub fn judge(before: Stance, terms: &Terms, inputs: &Inputs) -> Judgement {
    // Half-way out is no place to turn round: an exit ends with an edge, or when nothing is left to close.
    let leaving = before == Stance::Exit && !inputs.is_flat;
    let stance = if leaving { Stance::Exit } else { Stance::Wait };
    let blind = |cause| Judgement { stance, cause, ..Judgement::default() };
    let Some(outlook) = inputs.outlook else { return blind(Cause::NoFunding) };
    if inputs.is_stale {
        return blind(Cause::FundingStale);
    }
    let Some(fees) = inputs.fees else { return blind(Cause::FeesUnknown) };
    let cost_bps = round_trip_bps(&fees, inputs.spot_touch, inputs.future_touch);
    let funding_bps = outlook.rate * terms.horizon_hours * BPS;
    let loss_bps = -outlook.negative_rate * terms.loss_hours() * BPS;
    // A horizon of less than a day does not see the whole of it come back.
    let fair_basis = outlook.rate * terms.horizon_hours.min(FAIR_BASIS_HOURS);
    let dear_bps = (inputs.basis - fair_basis) * BPS;
    let decided = |stance, cause| Judgement { stance, cause, cost_bps, funding_bps, loss_bps, dear_bps };

    let edge = decided(Stance::Wait, Cause::TooLittle).edge_bps();
    let least = if before == Stance::Enter { terms.min_edge_bps / Decimal::TWO } else { terms.min_edge_bps };
    if outlook.samples >= terms.min_samples && edge >= least {
        return decided(Stance::Enter, Cause::Enough);
    }
    let long_negative = outlook.negative_hours >= terms.max_negative_hours;
    let leave = decided(Stance::Exit, Cause::Negative);
    if leaving {
        return leave;
    }
    if !inputs.is_flat && long_negative && loss_bps > leave.leaving_bps() {
        let young = inputs.held_until(terms).map(|until| decided(Stance::Wait, Cause::MinHold { until }));
        return young.unwrap_or(leave);
    }
    if outlook.samples < terms.min_samples {
        return decided(Stance::Wait, Cause::FewSamples);
    }
    decided(Stance::Wait, Cause::TooLittle)
}

impl Terms {
    /// How far negative funding is taken to go on: a few hours of it say nothing of a time longer than what is looked
    /// back on.
    fn loss_hours(&self) -> Decimal {
        self.horizon_hours.min(WINDOW_HOURS.into())
    }
}

impl Inputs {
    /// The end of the minimum hold; None where it is over.
    fn held_until(&self, terms: &Terms) -> Option<Timestamp> {
        let until = self.entered_at?.checked_add(terms.min_hold).ok()?;
        (self.now < until).then_some(until)
    }
}

impl Judgement {
    /// What closing both legs costs, in basis points of notional.
    fn leaving_bps(&self) -> Decimal {
        self.cost_bps / Decimal::TWO + self.dear_bps.max(Decimal::ZERO)
    }

    /// What entering is expected to bring, in basis points of notional.
    fn edge_bps(&self) -> Decimal {
        self.funding_bps - self.cost_bps + self.dear_bps.min(Decimal::ZERO)
    }

    /// The decision in words, for the condition `Trading` and the log.
    #[must_use]
    pub fn why(&self, terms: &Terms, outlook: Option<Outlook>) -> String {
        let least = terms.min_edge_bps.normalize();
        let edge = shown(self.edge_bps());
        let doing = if self.stance == Stance::Exit { "closing both legs goes on" } else { "waiting" };
        match self.cause {
            Cause::NoFunding => format!("{doing}: the exchange has not yet shown a funding rate"),
            Cause::FundingStale => format!("{doing}: the exchange has shown no new funding rate for more than 2 h"),
            Cause::FeesUnknown => format!("{doing}: the fees of this account are not yet known"),
            Cause::FewSamples => {
                let seen = outlook.map_or(0, |outlook| outlook.samples);
                format!("waiting: {seen} of {} hours of funding seen (entry.minSamples)", terms.min_samples)
            }
            Cause::TooLittle => {
                let figures = self.figures(terms, outlook);
                format!("waiting: the edge of {edge} bps is below entry.minEdgeBps {least}: {figures}")
            }
            Cause::Enough => {
                format!("building or holding the target: edge {edge} bps: {}", self.figures(terms, outlook))
            }
            Cause::Negative => format!("closing both legs: {}", self.loss(terms, outlook)),
            Cause::MinHold { until } => {
                let until = until.strftime("%Y-%m-%dT%H:%M:%SZ");
                let loss = self.loss(terms, outlook);
                format!("holding: nothing is closed for negative funding until {until} (exit.minHold): {loss}")
            }
        }
    }

    fn loss(&self, terms: &Terms, outlook: Option<Outlook>) -> String {
        let (loss, hours) = (shown(self.loss_bps), terms.loss_hours().normalize());
        let (leaving, figures) = (shown(self.leaving_bps()), self.figures(terms, outlook));
        format!("negative funding is expected to cost {loss} bps over {hours} h, leaving {leaving} bps: {figures}")
    }

    fn figures(&self, terms: &Terms, outlook: Option<Outlook>) -> String {
        let rate = outlook.map_or(Decimal::ZERO, |outlook| outlook.rate);
        let break_even = match self.cost_bps.checked_div(rate * BPS) {
            Some(hours) if rate > Decimal::ZERO => format!("break-even after {} h", hours.ceil().normalize()),
            _ => "no break-even".to_owned(),
        };
        let (funding, cost) = (shown(self.funding_bps), shown(self.cost_bps));
        let hours = terms.horizon_hours.normalize();
        let basis = match self.dear_bps.round_dp(1) {
            fair if fair.is_zero() => String::new(),
            dear => {
                let which = if dear.is_sign_negative() { "cheaper" } else { "dearer" };
                format!("the future {} bps {which} than funding explains, ", dear.abs().normalize())
            }
        };
        format!("{funding} bps of funding over {hours} h, {cost} bps for the round trip, {basis}{break_even}")
    }
}

fn shown(bps: Decimal) -> Decimal {
    bps.round_dp(1).normalize()
}

#[cfg(test)]
mod tests;
