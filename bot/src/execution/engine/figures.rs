//! What the guards look at of position, prices and orders.

use std::time::Duration;

use rust_decimal::Decimal;

use super::leg::LegState;
use super::{Engine, Now};
use crate::execution::kill::is_flat;
use crate::execution::orders::{Order, State};
use crate::risk::Exposure;
use crate::risk::exposure::{Leg, delta_base};
use crate::risk::gate::TOKEN_LIFE;
use crate::risk::guards::readings::{Figures, FutureLeg};
use arbbot_crds::control::Control;

/// Farthest apart that two prices are of one instant: the heartbeats of a connection confirm both once a second.
const ONE_INSTANT: Duration = Duration::from_secs(2);

impl Engine {
    /// The figures of this instant. `funding_quote`: what the books say; None: they are not read yet.
    #[must_use]
    pub fn figures(&self, control: &Control, funding_quote: Option<Decimal>, now: Now) -> Figures {
        let exposure = self.exposure(now);
        let limits = &control.limits;
        let session_closed = self.session_closed().is_some();
        let future_details = self.future.product.as_ref().and_then(|product| product.future.as_ref());
        let (_, contracts) = self.owned();
        let unanswered = |order: &&Order| {
            order.state == State::Unknown || (order.state == State::Intended && order.order_id.is_none())
        };
        // From when its request can have been sent; of one that an earlier process sent, from this one's start.
        let asked = |order: &Order| order.token_expires.saturating_sub(TOKEN_LIFE);
        let oldest = self.orders.live().filter(unanswered).map(asked).min();
        Figures {
            session_closed,
            future: exposure.as_ref().and_then(future_leg),
            notional_quote: exposure.as_ref().and_then(larger_notional),
            max_position_notional: limits.max_position_notional.0,
            positions: self.positions(),
            is_imbalanced: exposure
                .as_ref()
                .filter(|_| !session_closed)
                .and_then(|exposure| is_imbalanced(exposure, limits.max_delta_notional.0)),
            unknown_order_age: oldest.map(|at| now.boot.saturating_sub(at)),
            funding_rate: future_details.map(|details| details.terms.funding_rate),
            equity_quote: exposure.as_ref().zip(funding_quote).and_then(|(exposure, funding_quote)| {
                Some(self.traded_quote(exposure, session_closed)? + funding_quote)
            }),
            is_flat: self.is_flat(now),
            fees_quote: self.orders.fees_quote(),
            contracts,
        }
    }

    /// Whether a product is the spot leg.
    #[must_use]
    pub fn is_spot(&self, product: &str) -> bool {
        product == self.id.spot_product
    }

    /// The mid price of a product, if its best prices are fresh.
    #[must_use]
    pub fn mid(&self, product: &str, now: Now) -> Option<Decimal> {
        let leg = if self.is_spot(product) { &self.spot } else { &self.future };
        leg.touch(now.boot).map(|touch| touch.mid())
    }

    /// Base currency in one unit of a product's size, once the product is known.
    #[must_use]
    pub fn unit_base(&self, product: &str) -> Option<Decimal> {
        let leg = if self.is_spot(product) { &self.spot } else { &self.future };
        leg.product.as_ref().map(|product| product.unit_base)
    }

    /// Cash of all fills less fees and both legs at the mid prices of one instant (SAFETY §7). A position has none while one of
    /// its prices is old or they were told at different times, or the market of the future is closed.
    fn traded_quote(&self, exposure: &Exposure, session_closed: bool) -> Option<Decimal> {
        let legs = [&exposure.spot, &exposure.future];
        let cash = |leg: &Leg| self.orders.cash_quote(&leg.product.id, leg.product.unit_base);
        let mut equity = legs.into_iter().map(cash).sum::<Decimal>() - self.orders.fees_quote();
        if legs.into_iter().all(is_flat) && exposure.spot.owned.is_zero() {
            return Some(equity);
        }
        let told_at = |leg: &LegState| leg.touch.map(|(_, at)| at);
        let apart = told_at(&self.spot)?.abs_diff(told_at(&self.future)?);
        if apart > ONE_INSTANT {
            return None;
        }
        for leg in legs {
            equity += leg.owned * leg.product.unit_base * leg.mid.filter(|_| !session_closed)?;
        }
        Some(equity)
    }

    /// Futures products with contracts and currencies with a balance, the quote currency aside.
    fn positions(&self) -> Option<u32> {
        let (holdings, spot) = (self.holdings.as_ref()?, self.spot.product.as_ref()?);
        let contracts = holdings.contracts.values().filter(|contracts| !contracts.is_zero()).count();
        let is_position =
            |(currency, balance): &(&String, &Decimal)| **currency != spot.quote_currency && !balance.is_zero();
        u32::try_from(contracts + holdings.balances.iter().filter(is_position).count()).ok()
    }
}

fn future_leg(exposure: &Exposure) -> Option<FutureLeg> {
    let leg = &exposure.future;
    let details = leg.product.future.as_ref()?;
    let is_short = leg.owned.is_sign_negative();
    Some(FutureLeg {
        notional_quote: if leg.owned.is_zero() { Decimal::ZERO } else { leg.notional(leg.owned, leg.mid?) },
        is_short,
        collateral_quote: exposure.futures_collateral_quote,
        margin_rate: if is_short { details.terms.short_margin } else { details.terms.long_margin },
    })
}

fn larger_notional(exposure: &Exposure) -> Option<Decimal> {
    let notional = |leg: &Leg| match leg.owned.is_zero() {
        true => Some(Decimal::ZERO),
        false => Some(leg.notional(leg.owned, leg.mid?)),
    };
    Some(notional(&exposure.spot)?.max(notional(&exposure.future)?))
}

/// Whether the legs differ by more than the limit and by more than one contract.
fn is_imbalanced(exposure: &Exposure, max_delta_notional: Decimal) -> Option<bool> {
    let (spot, future) = (&exposure.spot, &exposure.future);
    let delta = delta_base(spot, future);
    if delta.is_zero() {
        return Some(false);
    }
    let mid = spot.mid?.max(future.mid?);
    Some(delta.abs() * mid > max_delta_notional && delta.abs() > future.product.unit_base)
}
