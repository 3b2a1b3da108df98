//! Repair of an imbalance between the legs while entry is closed: trim the larger leg, never complete the smaller one.

use rust_decimal::Decimal;

use crate::exchange::{NewOrder, OrderKind, Side, Touch};
use crate::execution::grid::slice;
use crate::execution::ladder::taking;
use crate::risk::exposure::{Leg, delta_base};

/// An order that a plan wants; its id is minted when it is admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub product: String,
    pub side: Side,
    pub size: Decimal,
    pub kind: OrderKind,
}

impl Wanted {
    /// The order under its id.
    #[must_use]
    pub fn named(self, client_order_id: String) -> NewOrder {
        NewOrder { client_order_id, product: self.product, side: self.side, size: self.size, kind: self.kind }
    }
}

/// The trim that brings the legs back within `max_delta_notional`, if they are outside and it can be sent.
/// `touches` and `bounds_bps`, how far from the mid price it may fill, are those of spot and future.
#[must_use]
pub fn trim(
    spot: &Leg,
    future: &Leg,
    touches: (Option<Touch>, Option<Touch>),
    max_delta_notional: Decimal,
    max_order_notional: Decimal,
    bounds_bps: (Decimal, Decimal),
) -> Option<Wanted> {
    let delta = delta_base(spot, future);
    let (larger, touch, bound_bps) = match delta.is_sign_positive() {
        true => (spot, touches.0?, bounds_bps.0),
        false => (future, touches.1?, bounds_bps.1),
    };
    if delta.abs() * touch.mid() <= max_delta_notional {
        return None;
    }
    let side = larger.reducing_side()?;
    let excess = (delta.abs() / larger.product.unit_base).min(larger.reducible(side));
    let size = slice(&larger.product, excess, touch.mid(), max_order_notional)?;
    let kind = taking(larger, touch, side, size, bound_bps, OrderKind::Market);
    Some(Wanted { product: larger.product.id.clone(), side, size, kind })
}

#[cfg(test)]
mod tests {
    use rust_decimal::dec;

    use super::*;
    use crate::testing::{future_leg, spot_leg};

    fn touches() -> (Option<Touch>, Option<Touch>) {
        let touch = Some(Touch { best_bid: dec!(59995), best_ask: dec!(60005) });
        (touch, touch)
    }

    fn trimmed(spot: Decimal, contracts: Decimal) -> Option<(String, Side, Decimal)> {
        let max_delta_notional = dec!(600);
        trim(&spot_leg(spot), &future_leg(contracts), touches(), max_delta_notional, dec!(100000), (dec!(30), dec!(30)))
            .map(|wanted| (wanted.product, wanted.side, wanted.size))
    }

    #[test]
    fn the_larger_leg_is_trimmed() {
        assert_eq!(trimmed(dec!(0.05), dec!(-2)), Some(("BTC-USD".into(), Side::Sell, dec!(0.03))));
        assert_eq!(trimmed(dec!(0.01), dec!(-5)), Some(("BIP-20DEC30-CDE".into(), Side::Buy, dec!(4))));
    }

    #[test]
    fn a_small_difference_is_left_alone() {
        assert_eq!(trimmed(dec!(0.05), dec!(-4)), None);
    }
}
