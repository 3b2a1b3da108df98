//! The prices that an order works at.

use rust_decimal::Decimal;

use super::Rung;
use super::configuration::{OrderConfiguration, Scaled, Size, Terms};
use crate::exchange::product::Product;
use crate::exchange::rejection::{Reason, Rejection};

/// Orders that one scaled order may consist of.
const MAX_ORDERS: u32 = 50;

impl OrderConfiguration {
    /// One price for a limit order, none for a market order, several for a scaled one.
    ///
    /// # Errors
    /// What is wrong with the description of a scaled order.
    pub fn rungs(&self, product: &Product, terms: &Terms) -> Result<Vec<Rung>, Rejection> {
        let (Size::Base(size), Some(price)) = (terms.size, terms.limit_price) else { return Ok(Vec::new()) };
        match self {
            Self::ScaledLimitGtc(scaled) => scaled.rungs(product, size),
            _ => Ok(vec![Rung { price, remaining: size }]),
        }
    }
}

impl Scaled {
    fn rungs(&self, product: &Product, total: Decimal) -> Result<Vec<Rung>, Rejection> {
        let rungs = if self.orders.is_empty() { self.spread(product, total)? } else { self.listed()? };
        let mut prices: Vec<Decimal> = rungs.iter().map(|r| r.price).collect();
        prices.sort_unstable();
        prices.dedup();
        if prices.len() < rungs.len() {
            return Err(Rejection::new(Reason::InvalidPricePrecision, "two orders of the scale have the same price"));
        }
        Ok(rungs)
    }

    fn listed(&self) -> Result<Vec<Rung>, Rejection> {
        if self.orders.len() > MAX_ORDERS as usize {
            return Err(Rejection::new(Reason::InvalidRequest, format!("a scale has at most {MAX_ORDERS} orders")));
        }
        let rung =
            |price: Option<Decimal>, remaining: Option<Decimal>| Some(Rung { price: price?, remaining: remaining? });
        let rungs: Option<Vec<Rung>> = self.orders.iter().map(|o| rung(o.limit_price, o.base_size)).collect();
        rungs.ok_or_else(|| Rejection::new(Reason::InvalidRequest, "orders need base_size and limit_price each"))
    }

    /// Prices at equal distances, sizes equal, rising or falling with the price.
    fn spread(&self, product: &Product, total: Decimal) -> Result<Vec<Rung>, Rejection> {
        let invalid = |message: &str| Rejection::new(Reason::InvalidRequest, message);
        let (Some(low), Some(high)) = (self.min_price, self.max_price) else {
            return Err(invalid("scaled_limit_gtc needs orders, or min_price and max_price"));
        };
        let orders = self.num_orders;
        if !(2..=MAX_ORDERS).contains(&orders) || high <= low {
            return Err(invalid("scaled_limit_gtc needs num_orders from 2 to 50 and max_price above min_price"));
        }
        if !matches!(self.price_distribution.as_str(), "" | "FLAT") {
            return Err(Rejection::new(Reason::UnsupportedOrderConfiguration, "price_distribution must be FLAT"));
        }
        let weight = |i: u32| match self.size_distribution.as_str() {
            "" | "UNKNOWN_DISTRIBUTION" | "EVENLY_SPLIT" => Some(1),
            "INCREASING" => Some(i + 1),
            "DECREASING" => Some(orders - i),
            _ => None,
        };
        let weights: Option<Vec<u32>> = (0..orders).map(weight).collect();
        let weights =
            weights.ok_or_else(|| invalid("size_distribution must be EVENLY_SPLIT, INCREASING or DECREASING"))?;
        let sum = Decimal::from(weights.iter().sum::<u32>());
        let overflow = || invalid("the size or the prices of the scale are out of range");
        let step = (high - low) / Decimal::from(orders - 1);
        let mut left = total;
        let mut rungs = Vec::with_capacity(weights.len());
        for (i, weight) in weights.iter().enumerate() {
            let last = i + 1 == weights.len();
            let share =
                total.checked_mul(Decimal::from(*weight)).and_then(|s| s.checked_div(sum)).ok_or_else(overflow)?;
            let remaining = if last { left } else { product.round_size(share) };
            let price = if last { high } else { product.round_price(low + step * Decimal::from(i)) };
            left -= remaining;
            rungs.push(Rung { price, remaining });
        }
        Ok(rungs)
    }
}
