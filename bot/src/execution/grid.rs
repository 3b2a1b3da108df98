//! Prices and sizes on a product's grid.

use rust_decimal::Decimal;

use crate::exchange::{Product, Side, Touch};

/// The largest multiple of `step` that is at most `value`.
#[must_use]
pub fn floor_to(value: Decimal, step: Decimal) -> Decimal {
    if step <= Decimal::ZERO { value } else { (value / step).floor() * step }
}

/// The smallest multiple of `step` that is at least `value`.
#[must_use]
pub fn ceil_to(value: Decimal, step: Decimal) -> Decimal {
    if step <= Decimal::ZERO { value } else { (value / step).ceil() * step }
}

/// Limit price of an order that takes from the book, at most `bps` basis points from the mid price.
#[must_use]
pub fn taking_price(product: &Product, touch: Touch, side: Side, bps: Decimal) -> Decimal {
    let price = touch.mid() * (Decimal::ONE + side.sign() * bps / Decimal::from(10_000));
    match side {
        Side::Buy => floor_to(price, product.price_increment),
        Side::Sell => ceil_to(price, product.price_increment).max(product.price_increment),
    }
}

/// Limit price of an order that joins the best price of its own side.
#[must_use]
pub fn joining_price(touch: Touch, side: Side) -> Decimal {
    match side {
        Side::Buy => touch.best_bid,
        Side::Sell => touch.best_ask,
    }
}

/// The largest size on the product's grid that is at most `size` and at most `max_notional` (but never below one step
/// of it: a limit slices an exit, it never denies it). None where not even the venue's smallest order is left.
#[must_use]
pub fn slice(product: &Product, size: Decimal, price: Decimal, max_notional: Decimal) -> Option<Decimal> {
    let unit_notional = product.unit_base * price;
    let most = if unit_notional > Decimal::ZERO { max_notional / unit_notional } else { size };
    let smallest = smallest(product, price);
    let cut = floor_to(size.min(most.max(smallest)), product.size_increment);
    (cut >= smallest && cut > Decimal::ZERO).then_some(cut)
}

/// The smallest size that the venue takes at this price.
#[must_use]
pub fn smallest(product: &Product, price: Decimal) -> Decimal {
    let unit_notional = product.unit_base * price;
    let by_notional = if unit_notional > Decimal::ZERO {
        ceil_to(product.min_notional_quote / unit_notional, product.size_increment)
    } else {
        Decimal::ZERO
    };
    product.min_size.max(product.size_increment).max(by_notional)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rust_decimal::dec;

    use super::*;
    use crate::testing::{future_product, spot_product};

    #[test]
    fn a_taking_price_stays_inside_its_bound_and_on_the_grid() {
        let touch = Touch { best_bid: dec!(59990), best_ask: dec!(60010) };
        assert_eq!(taking_price(&future_product(), touch, Side::Buy, dec!(50)), dec!(60300));
        assert_eq!(taking_price(&future_product(), touch, Side::Sell, dec!(49)), dec!(59710));
    }

    #[test]
    fn an_exit_is_sliced_but_never_denied() {
        let future = future_product();
        assert_eq!(slice(&future, dec!(20), dec!(60000), dec!(5000)), Some(dec!(8)));
        assert_eq!(slice(&future, dec!(20), dec!(60000), dec!(0)), Some(dec!(1)));
        assert_eq!(slice(&spot_product(), dec!(0.000001), dec!(60000), dec!(5000)), None, "dust");
    }

    proptest! {
        #[test]
        fn a_slice_is_on_the_grid_and_never_more_than_asked(size in 0u64..100_000_000_000, price in 1u32..1_000_000, max in 0u32..100_000) {
            let product = spot_product();
            let (size, price) = (Decimal::new(size.cast_signed(), 9), Decimal::from(price));
            if let Some(cut) = slice(&product, size, price, max.into()) {
                prop_assert!(cut <= size && (cut % product.size_increment).is_zero() && cut >= product.min_size);
            }
        }
    }
}
