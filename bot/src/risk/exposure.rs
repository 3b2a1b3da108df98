//! Exposure of the two legs: what is owned, and the worst that working and unknown orders can make of it.

use std::sync::Arc;

use rust_decimal::Decimal;

use crate::exchange::{Product, Side};

/// One leg, in units of its product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leg {
    pub product: Arc<Product>,
    /// Signed sum of the fills of the bot's own orders.
    pub owned: Decimal,
    /// How much of it the venue does not show; it is never sold or bought back.
    pub deficit: Decimal,
    /// What working and unknown buy orders may still fill.
    pub buys: Decimal,
    /// What working and unknown sell orders may still fill.
    pub sells: Decimal,
    /// Mid price, if the book is fresh.
    pub mid: Option<Decimal>,
    /// Price of the underlying by the venue's index, if it is known and fresh.
    pub index: Option<Decimal>,
}

impl Leg {
    /// What is owned and at the venue, signed.
    #[must_use]
    pub fn held(&self) -> Decimal {
        let size = (self.owned.abs() - self.deficit).max(Decimal::ZERO);
        if self.owned.is_sign_negative() { -size } else { size }
    }

    /// The leg with another order on top.
    #[must_use]
    pub fn with(&self, side: Side, size: Decimal) -> Self {
        let mut leg = self.clone();
        match side {
            Side::Buy => leg.buys += size,
            Side::Sell => leg.sells += size,
        }
        leg
    }

    /// Largest |position| over every subset of the orders that may fill.
    #[must_use]
    pub fn worst(&self) -> Decimal {
        (self.owned + self.buys).abs().max((self.owned - self.sells).abs())
    }

    /// Largest and smallest position over every subset of the orders, in base currency.
    fn range_base(&self) -> (Decimal, Decimal) {
        let unit = self.product.unit_base;
        ((self.held() - self.sells) * unit, (self.held() + self.buys) * unit)
    }

    /// How much an order on this side may take off the leg without raising or flipping it in any case.
    #[must_use]
    pub fn reducible(&self, side: Side) -> Decimal {
        let outstanding = match side {
            Side::Buy => self.buys,
            Side::Sell => self.sells,
        };
        let lowers = self.reducing_side() == Some(side);
        if lowers { (self.held().abs() - outstanding).max(Decimal::ZERO) } else { Decimal::ZERO }
    }

    /// The side that lowers the leg; None where there is nothing to lower.
    #[must_use]
    pub fn reducing_side(&self) -> Option<Side> {
        match self.held() {
            held if held.is_zero() => None,
            held if held.is_sign_positive() => Some(Side::Sell),
            _ => Some(Side::Buy),
        }
    }

    /// The price that limits are measured at: the highest of mid price, index and an order's limit price (SAFETY §2). None
    /// without a fresh mid price.
    #[must_use]
    pub fn highest_price(&self, limit: Option<Decimal>) -> Option<Decimal> {
        let mid = self.mid?;
        Some([self.index, limit].into_iter().flatten().fold(mid, Decimal::max))
    }

    /// Notional of a size at a price, in quote currency.
    #[must_use]
    pub fn notional(&self, size: Decimal, price: Decimal) -> Decimal {
        size.abs() * self.product.unit_base * price
    }
}

/// Difference between the legs as it stands: positive when spot is ahead. In base currency.
#[must_use]
pub fn delta_base(spot: &Leg, future: &Leg) -> Decimal {
    spot.held() * spot.product.unit_base + future.held() * future.product.unit_base
}

/// Largest |difference| between the legs over every subset of the orders that may fill. In base currency.
#[must_use]
pub fn worst_delta_base(spot: &Leg, future: &Leg) -> Decimal {
    let (spot_low, spot_high) = spot.range_base();
    let (future_low, future_high) = future.range_base();
    (spot_low + future_low).abs().max((spot_high + future_high).abs())
}
