//! Products: the increments, limits and margin rates that orders are checked against.

use jiff::Timestamp;
use rust_decimal::Decimal;

/// A product's trading rules. Sizes are in base units for spot and in contracts for futures.
#[derive(Debug, Clone)]
pub struct Product {
    pub id: String,
    /// Base currency code, for example `BTC`; for a future, the root of its contract.
    pub base: String,
    pub quote: String,
    pub price_increment: Decimal,
    pub base_increment: Decimal,
    pub base_min_size: Decimal,
    pub base_max_size: Decimal,
    /// Smallest order value in quote currency; 0 where only the size is limited.
    pub quote_min_size: Decimal,
    pub quote_max_size: Decimal,
    /// Set for US perpetual-style futures, absent for spot.
    pub future: Option<FutureTerms>,
}

/// Contract terms of a US perpetual-style future (venue `cde`, reached through the FCM).
#[derive(Debug, Clone)]
pub struct FutureTerms {
    pub contract_code: String,
    /// Base units per contract.
    pub contract_size: Decimal,
    pub expiry: Timestamp,
    /// Spot product that gives the index price.
    pub spot_product: String,
    pub intraday_margin: MarginRate,
    pub overnight_margin: MarginRate,
}

/// Initial margin as a fraction of notional.
#[derive(Debug, Clone, Copy)]
pub struct MarginRate {
    pub long: Decimal,
    pub short: Decimal,
}

impl Product {
    /// Base units per unit of size: 1 for spot, the contract size for futures.
    pub fn multiplier(&self) -> Decimal {
        self.future.as_ref().map_or(Decimal::ONE, |f| f.contract_size)
    }

    /// Value in quote currency of `size` at `price`.
    pub fn value(&self, size: Decimal, price: Decimal) -> Decimal {
        size * self.multiplier() * price
    }

    pub fn is_future(&self) -> bool {
        self.future.is_some()
    }

    /// `price` rounded down to the tick.
    pub fn round_price(&self, price: Decimal) -> Decimal {
        (price - price % self.price_increment).normalize()
    }

    /// `size` rounded down to the size increment.
    pub fn round_size(&self, size: Decimal) -> Decimal {
        (size - size % self.base_increment).normalize()
    }

    /// Initial margin of a signed number of contracts at a mark price, in quote currency; 0 for spot.
    pub fn initial_margin(&self, contracts: Decimal, mark: Decimal, overnight: bool) -> Decimal {
        let Some(terms) = &self.future else { return Decimal::ZERO };
        let rates = if overnight { terms.overnight_margin } else { terms.intraday_margin };
        let rate = if contracts.is_sign_negative() { rates.short } else { rates.long };
        self.value(contracts.abs(), mark) * rate
    }
}
