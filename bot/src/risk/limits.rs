//! Pre-trade checks: the one function that admits an order.

use arbbot_crds::control::Control;
use arbbot_crds::limits::RiskLimits;
use rust_decimal::{Decimal, dec};

use crate::exchange::{NewOrder, Side};
use crate::risk::exposure::{Leg, worst_delta_base};
use crate::risk::gate::{Class, Contact, Denied, Permit, allowed};

const BPS: Decimal = dec!(10_000);

/// What the limits are measured against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    pub spot: Leg,
    pub future: Leg,
    /// Orders that work or may work.
    pub open_orders: u32,
    /// Orders sent in the last 60 s.
    pub orders_last_minute: u32,
    /// Collateral of the futures account as last read, in quote currency.
    pub futures_collateral_quote: Decimal,
    /// What spot buys take of it that it does not show yet: those filled since, and those that may still fill.
    pub spot_cost_quote: Decimal,
}

impl Exposure {
    /// The leg that trades the product.
    #[must_use]
    pub fn leg(&self, product: &str) -> Option<&Leg> {
        [&self.spot, &self.future].into_iter().find(|leg| leg.product.id == product)
    }

    /// Collateral once every spot buy has filled. Where both legs are paid for in one currency, spot is bought out of it:
    /// it is all cash of the account, in whichever of its wallets.
    #[must_use]
    pub fn collateral_at_least(&self) -> Decimal {
        let is_paid_from_it = self.spot.product.quote_currency == self.future.product.quote_currency;
        self.futures_collateral_quote - if is_paid_from_it { self.spot_cost_quote } else { Decimal::ZERO }
    }

    fn with(&self, product: &str, side: Side, size: Decimal, price: Decimal) -> Self {
        let mut after = self.clone();
        if side == Side::Buy && product == self.spot.product.id {
            after.spot_cost_quote += self.spot.notional(size, price);
        }
        for leg in [&mut after.spot, &mut after.future] {
            if leg.product.id == product {
                *leg = leg.with(side, size);
            }
        }
        after
    }
}

/// Admits an order of a class, or says what forbids it.
///
/// Every class obeys the mode (SAFETY §2) and the product's own rules. Enter and Hedge obey every limit; Trim, Reduce
/// and Kill obey none, but may never raise a leg or flip its sign.
///
/// # Errors
/// The order is not allowed; the error names the rule, the figures and the field.
pub fn admit(
    order: NewOrder,
    class: Class,
    exposure: &Exposure,
    control: &Control,
    contact: Contact,
) -> Result<Permit, Denied> {
    allowed(class, control, contact)?;
    let leg = exposure
        .leg(&order.product)
        .ok_or_else(|| denied("product", format!("{} is not a product of this bot", order.product)))?;
    valid(&order, leg)?;
    if class.raises() {
        within_limits(&order, leg, exposure, control)?;
    } else if order.size > leg.reducible(order.side) {
        let message = format!(
            "{} {} {} would raise or flip the leg: at most {} may be taken off it",
            order.side,
            order.size,
            order.product,
            leg.reducible(order.side)
        );
        return Err(denied("reduce-only", message));
    }
    let limits = class.raises().then(|| control.limits.clone());
    Ok(Permit { order, class, limits })
}

/// Admits an order that a person gives outside of any bot: only the product's own rules bind it.
///
/// # Errors
/// It breaks one of them.
pub fn admit_alone(order: NewOrder, leg: &Leg) -> Result<Permit, Denied> {
    valid(&order, leg)?;
    let class = if order.size <= leg.reducible(order.side) { Class::Reduce } else { Class::Enter };
    Ok(Permit { order, class, limits: None })
}

/// Whether what works of a product still fits the limits, should it fill: a limit may have been lowered, or the price
/// risen, since it was admitted. Without a fresh price nothing is said.
#[must_use]
pub fn still_fits(product: &str, exposure: &Exposure, limits: &RiskLimits) -> bool {
    let priced = |leg: &Leg| leg.highest_price(None);
    let Some((leg, price)) = exposure.leg(product).and_then(|leg| Some((leg, priced(leg)?))) else { return true };
    let future = &exposure.future;
    let futures_notional = future.notional(future.worst(), priced(future).unwrap_or(price));
    leg.notional(leg.worst(), price) <= limits.max_position_notional.0
        && futures_notional <= limits.max_leverage.0 * exposure.collateral_at_least()
        && worst_delta_base(&exposure.spot, &exposure.future) * price <= limits.max_leg_imbalance_notional.0
}

fn denied(limit: &'static str, message: String) -> Denied {
    Denied::Limit { limit, message }
}

/// The product's own rules: tick, increment, smallest size.
fn valid(order: &NewOrder, leg: &Leg) -> Result<(), Denied> {
    let product = &leg.product;
    let off = |value: Decimal, step: Decimal| step > Decimal::ZERO && !(value % step).is_zero();
    if order.size <= Decimal::ZERO || order.size < product.min_size || off(order.size, product.size_increment) {
        let message = format!(
            "size {} of {} is not a multiple of {} of at least {}",
            order.size, product.id, product.size_increment, product.min_size
        );
        return Err(denied("size", message));
    }
    match order.limit_price() {
        Some(price) if price <= Decimal::ZERO || off(price, product.price_increment) => {
            let message = format!("price {price} of {} is not a multiple of {}", product.id, product.price_increment);
            Err(denied("price", message))
        }
        Some(price) if leg.notional(order.size, price) < product.min_notional_quote => {
            let message = format!("notional of {} {} is below {}", order.size, product.id, product.min_notional_quote);
            Err(denied("notional", message))
        }
        _ => Ok(()),
    }
}

fn within_limits(order: &NewOrder, leg: &Leg, exposure: &Exposure, control: &Control) -> Result<(), Denied> {
    let limits = &control.limits;
    let Some((mid, price)) = leg.mid.zip(leg.highest_price(order.limit_price())) else {
        return Err(denied("market-data", format!("the book of {} is not fresh", order.product)));
    };
    let after = exposure.with(&order.product, order.side, order.size, price);
    let check = |limit: &'static str, value: Decimal, most: Decimal| {
        if value > most {
            Err(denied(limit, format!("{} would be above the limit of {most}", value.round_dp(4))))
        } else {
            Ok(())
        }
    };
    check("maxOrderNotional", leg.notional(order.size, price), limits.max_order_notional.0)?;
    check("maxOpenOrders", (exposure.open_orders + 1).into(), limits.max_open_orders.into())?;
    check("maxOrdersPerMinute", (exposure.orders_last_minute + 1).into(), limits.max_orders_per_minute.into())?;
    within_slippage(order, mid, limits.max_slippage_bps.0)?;
    if let Some(after) = after.leg(&order.product) {
        check("maxPositionNotional", after.notional(after.worst(), price), limits.max_position_notional.0)?;
    }
    let is_future = exposure.future.product.id == order.product;
    let other = exposure.future.highest_price(None).filter(|_| !is_future);
    let futures_price = other.unwrap_or(price);
    let futures_notional = after.future.notional(after.future.worst(), futures_price);
    let allowed_notional = limits.max_leverage.0 * after.collateral_at_least();
    check("maxLeverage", futures_notional, allowed_notional)?;
    let imbalance = worst_delta_base(&after.spot, &after.future) * price;
    check("maxLegImbalanceNotional", imbalance, limits.max_leg_imbalance_notional.0)
}

/// Whether the limit price is at most so many basis points on the wrong side of the mid price.
fn within_slippage(order: &NewOrder, mid: Decimal, most_bps: Decimal) -> Result<(), Denied> {
    let limit = "maxSlippageBps";
    let Some(price) = order.limit_price() else {
        let message =
            format!("an order at the market has no bound, and the limit is {most_bps}; give it a limit price");
        return Err(denied(limit, message));
    };
    let worse = (price - mid) * order.side.sign();
    // Multiplied on both sides: nothing is divided where nothing is denied. A mid price is above zero, and prices and limits
    // are far below what a product of both could not hold.
    if worse * BPS <= most_bps * mid {
        return Ok(());
    }
    let value = (worse * BPS / mid).round_dp(4);
    Err(denied(limit, format!("{value} would be above the limit of {most_bps}")))
}

#[cfg(test)]
mod tests;
