//! The rules that an order must pass before it is matched.

use rust_decimal::Decimal;
use rust_decimal::dec;

use crate::book::{Book, Side, acceptable};
use crate::product::Product;
use crate::rejection::{Reason, Rejection};

/// Highest limit price accepted, in quote currency; far above any product, and far from an arithmetic overflow.
const MAX_PRICE: Decimal = Decimal::from_parts(100_000_000, 0, 0, false, 0);
/// How far beyond the market a limit price may be on the side that trades at once.
const PRICE_BAND: Decimal = dec!(0.1);

/// A price is in range and a whole multiple of the tick. `field` is its name for people.
///
/// # Errors
/// It is not.
pub fn price(product: &Product, field: &str, price: Decimal) -> Result<(), Rejection> {
    let reject = |reason, message: String| Err(Rejection::new(reason, message));
    if price <= Decimal::ZERO || price > MAX_PRICE {
        return reject(Reason::InvalidLimitPrice, format!("{field} {price} is out of range"));
    }
    if !(price % product.price_increment).is_zero() {
        let message = format!("{field} {price} is not a multiple of {}", product.price_increment);
        return reject(Reason::InvalidPricePrecision, message);
    }
    Ok(())
}

/// Tick, size increment and least and largest sizes of an order by base size.
///
/// # Errors
/// The first that does not hold.
pub fn increments(product: &Product, size: Decimal, limit_price: Option<Decimal>) -> Result<(), Rejection> {
    let reject = |reason, message: String| Err(Rejection::new(reason, message));
    if let Some(limit) = limit_price {
        price(product, "limit_price", limit)?;
    }
    // The minimum first: it is what Coinbase names for a zero size, whatever its precision.
    if size < product.base_min_size {
        let message = format!("base_size {size} is below {}", product.base_min_size);
        return reject(Reason::PreviewInvalidBaseSizeTooSmall, message);
    }
    if size > product.base_max_size {
        let message = format!("base_size {size} is above {}", product.base_max_size);
        return reject(Reason::PreviewInvalidBaseSizeTooLarge, message);
    }
    if !(size % product.base_increment).is_zero() {
        let message = format!("base_size {size} is not a multiple of {}", product.base_increment);
        return reject(Reason::InvalidSizePrecision, message);
    }
    limit_price.map_or(Ok(()), |limit| value(product, product.value(size, limit)))
}

/// A price that trades at once is not far from the market.
///
/// # Errors
/// It is.
pub fn band(product: &Product, side: Side, limit: Decimal, mark: Decimal) -> Result<(), Rejection> {
    let outside = match side {
        Side::Buy => limit > mark * (Decimal::ONE + PRICE_BAND),
        Side::Sell => limit < mark * (Decimal::ONE - PRICE_BAND),
    };
    let reason = match (product.is_future(), side) {
        (false, _) => Reason::LimitPriceTooFarFromMarket,
        (true, Side::Buy) => Reason::LimitOrderPriceExceedsPriceBandOnBuy,
        (true, Side::Sell) => Reason::LimitOrderPriceExceedsPriceBandOnSell,
    };
    let message = || format!("limit_price {limit} is more than 10 % beyond the market at {}", mark.round_dp(2));
    if outside { Err(Rejection::new(reason, message())) } else { Ok(()) }
}

/// A post-only order does not match at once, and a market order (no limit) does.
///
/// # Errors
/// It does, or does not.
pub fn book(book: &Book, side: Side, limit: Option<Decimal>, post_only: bool) -> Result<(), Rejection> {
    let crosses = book.best(side.opposite()).is_some_and(|best| acceptable(side, limit, best));
    if post_only && crosses {
        let message = "a post_only order at this price would match at once";
        return Err(Rejection::new(Reason::InvalidLimitPricePostOnly, message));
    }
    if limit.is_none() && !crosses {
        return Err(Rejection::new(Reason::InsufficientLiquidity, "nothing to trade against"));
    }
    Ok(())
}

/// A value is inside what the product takes in one order.
///
/// # Errors
/// It is not.
pub fn value(product: &Product, amount: Decimal) -> Result<(), Rejection> {
    if amount < product.quote_min_size {
        let message = format!("order value {amount} is below {}", product.quote_min_size);
        return Err(Rejection::new(Reason::PreviewInvalidQuoteSizeTooSmall, message));
    }
    if amount > product.quote_max_size {
        let message = format!("order value {amount} is above {}", product.quote_max_size);
        return Err(Rejection::new(Reason::PreviewInvalidQuoteSizeTooLarge, message));
    }
    Ok(())
}
