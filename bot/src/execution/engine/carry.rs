//! Whether the strategy raises, keeps or closes the position: funding, fees and collateral as the engine sees them.

use std::time::Duration;

use arbbot_crds::control::Control;
use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;

use super::{Command, Engine, Now, SNAPSHOT_SOON};
use crate::exchange::{ExchangeError, FeeRates, Product};
use crate::execution::kill::is_flat;
use crate::market::funding::Outlook;
use crate::market::{Basis, FundingHistory};
use crate::risk::Exposure;
use crate::strategy::funding_carry::Market;
use crate::strategy::funding_carry::collateral::{Shortage, shortage};
use crate::strategy::funding_carry::edge::{Cause, Inputs, Judgement, Stance, Terms, judge};

/// How often the fees are read: the tier follows the volume of thirty days.
const FEES_EVERY: Duration = Duration::from_secs(3600);
/// And after they could not be read.
const FEES_AGAIN: Duration = Duration::from_secs(10);

/// What the strategy decides on.
#[derive(Clone, Debug, Default)]
pub(super) struct Carry {
    history: FundingHistory,
    /// When the position was opened, from flat; None: there is none, or it was not yet looked at.
    entered_at: Option<Timestamp>,
    basis: Basis,
    fees: Option<FeeRates>,
    fees_due: Duration,
    /// What follows from the history, and under which terms.
    outlook: Option<(Option<Outlook>, Terms)>,
    judgement: Judgement,
    /// The words, and what they speak of: they change with the decision and with the hour, not with every price.
    why: String,
    said_of: Option<(Stance, Cause, Option<Outlook>, Terms)>,
    /// None: prices or holdings are not known.
    shortage: Option<Option<Shortage>>,
}

/// What the strategy has decided, for status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CarryView {
    pub stance: Stance,
    /// Empty until it was first decided.
    pub why: String,
    /// What the collateral lacks; None: it cannot be said, Some(None): nothing.
    pub shortage: Option<Option<Shortage>>,
}

impl Carry {
    pub(super) fn remember(&mut self, rates: impl IntoIterator<Item = (Timestamp, Decimal)>) {
        self.history = FundingHistory::recovered(rates);
    }

    pub(super) fn holding_since(&mut self, entered_at: Option<Timestamp>) {
        self.entered_at = entered_at;
    }

    pub(super) fn stance(&self) -> Stance {
        self.judgement.stance
    }

    pub(super) fn view(&self) -> CarryView {
        CarryView { stance: self.judgement.stance, why: self.why.clone(), shortage: self.shortage.clone() }
    }

    /// Takes in the funding that the product shows.
    pub(super) fn observe(&mut self, future: &Product, boot: Duration, commands: &mut Vec<Command>) {
        let Some(terms) = future.future.as_ref().map(|details| &details.terms) else { return };
        let rate = terms.funding_rate;
        // Beyond the whole value in an hour is no rate.
        let Some(hour) = terms.funding_time.filter(|_| rate.abs() < Decimal::ONE) else { return };
        if self.history.observe(hour, rate, boot) {
            self.outlook = None;
            commands.push(Command::Funding { hour, rate });
        }
    }

    /// Takes in the fees; those known before stay where they could not be read.
    pub(super) fn fees(&mut self, fees: Result<FeeRates, ExchangeError>, boot: Duration) {
        match fees {
            Ok(fees) => (self.fees, self.fees_due) = (Some(fees), boot + FEES_EVERY),
            // They are to be there as soon as the first snapshot is.
            Err(ExchangeError::NoSession) => self.fees_due = boot + SNAPSHOT_SOON,
            Err(_) => {}
        }
    }

    #[cfg(test)]
    pub(super) fn history_outlook(&self, terms: Terms) -> Option<Outlook> {
        self.history.outlook(terms.max_negative_hours)
    }

    #[cfg(test)]
    pub(super) fn entered_at(&self) -> Option<Timestamp> {
        self.entered_at
    }

    fn outlook(&mut self, terms: Terms) -> Option<Outlook> {
        let history = &self.history;
        let known = self.outlook.filter(|(_, of)| *of == terms);
        let (outlook, _) = known.unwrap_or_else(|| (history.outlook(terms.max_negative_hours), terms));
        self.outlook = Some((outlook, terms));
        outlook
    }

    /// Notes when the position began. `owned_since`: the bot's first order.
    pub(super) fn note_entry(&mut self, is_flat: bool, owned_since: Option<Timestamp>, wall: Timestamp) {
        let at_first_sight = self.said_of.is_none();
        // A position that is there at once and that no order of the ledger explains began nobody knows when.
        let began = owned_since.filter(|_| at_first_sight).unwrap_or(wall);
        // One that began while the clock was ahead is not held for longer than any other.
        self.entered_at = (!is_flat).then(|| self.entered_at.unwrap_or(began).min(wall));
    }

    fn judge(&mut self, terms: Terms, market: &Market<'_>, owned_since: Option<Timestamp>, now: Now) {
        let outlook = self.outlook(terms);
        let is_flat = is_flat(market.spot) && is_flat(market.future);
        self.note_entry(is_flat, owned_since, now.wall);
        let inputs = Inputs {
            outlook,
            is_stale: self.history.is_stale(now.boot, now.wall),
            fees: self.fees,
            spot_touch: market.spot_touch,
            future_touch: market.future_touch,
            basis: self.basis.observe(market.spot_touch, market.future_touch, now.boot),
            is_flat,
            entered_at: self.entered_at,
            now: now.wall,
        };
        self.judgement = judge(self.judgement.stance, &terms, &inputs);
        let Judgement { stance, cause, .. } = self.judgement;
        let said_of = Some((stance, cause, outlook, terms));
        if self.said_of != said_of {
            (self.why, self.said_of) = (self.judgement.why(&terms, outlook), said_of);
        }
        let was_short = matches!(self.shortage, Some(Some(_)));
        let target = if stance == Stance::Exit { Decimal::ZERO } else { market.target() };
        self.shortage = Some(shortage(market, market.short(), market.long(), target, was_short));
    }
}

impl Engine {
    /// Why the strategy wants what it wants; empty until it was first decided.
    #[must_use]
    pub fn why(&self) -> &str {
        &self.carry.why
    }

    /// What the strategy looks at; None without fresh prices of both legs.
    pub(super) fn market<'a>(&self, exposure: &'a Exposure, control: &Control, now: Now) -> Option<Market<'a>> {
        Some(Market {
            spot: &exposure.spot,
            future: &exposure.future,
            spot_touch: self.spot.touch(now.boot)?,
            future_touch: self.future.touch(now.boot)?,
            target_notional: self.params.target_notional,
            max_position_notional: control.limits.max_position_notional.0,
            max_order_notional: control.limits.max_order_notional.0,
            max_leg_imbalance_notional: control.limits.max_leg_imbalance_notional.0,
            max_slippage_bps: control.limits.max_slippage_bps.0,
            collateral_quote: exposure.futures_collateral_quote.min(self.collateral_before),
            collateral_at_most_quote: exposure.futures_collateral_quote.max(self.collateral_before),
            collateral_at_least_quote: exposure.futures_collateral_quote - self.spending.quote(),
            max_leverage: control.limits.max_leverage.0,
            min_collateral_ratio: self.params.carry.min_collateral_ratio,
        })
    }

    /// Decides anew, and asks for the fees when that is due.
    pub(super) fn judge_carry(
        &mut self,
        exposure: Option<&Exposure>,
        control: &Control,
        now: Now,
        commands: &mut Vec<Command>,
    ) {
        if now.boot >= self.carry.fees_due {
            self.carry.fees_due = now.boot + FEES_AGAIN;
            commands.push(Command::Fees);
        }
        match exposure.and_then(|exposure| self.market(exposure, control, now)) {
            Some(market) => self.carry.judge(self.params.carry, &market, self.owned_since, now),
            None => self.carry.shortage = None,
        }
    }
}
