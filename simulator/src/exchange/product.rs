//! Products: what can be traded and the increments, limits and margin rates that orders are checked against.

use jiff::Timestamp;
use rust_decimal::Decimal;
use rust_decimal::dec;

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
}

/// A product with the price its index starts at, in quote currency.
#[derive(Debug, Clone)]
pub struct Listing {
    pub product: Product,
    pub start_price: Decimal,
}

/// The products every simulator lists: BTC and ETH, each as spot and as a perpetual-style future.
pub fn listings() -> Vec<Listing> {
    vec![
        Listing { product: spot("BTC", dec!(0.00000001), dec!(0.00001), dec!(3400)), start_price: dec!(70000) },
        Listing { product: future("BIP-20DEC30-CDE", "BIP", "BTC", dec!(0.01), dec!(5)), start_price: dec!(70000) },
        Listing { product: spot("ETH", dec!(0.00000001), dec!(0.0001), dec!(50000)), start_price: dec!(3500) },
        Listing { product: future("ETP-20DEC30-CDE", "ETP", "ETH", dec!(0.1), dec!(0.5)), start_price: dec!(3500) },
    ]
}

fn spot(base: &str, base_increment: Decimal, base_min_size: Decimal, base_max_size: Decimal) -> Product {
    Product {
        id: format!("{base}-USD"),
        base: base.into(),
        quote: "USD".into(),
        price_increment: dec!(0.01),
        base_increment,
        base_min_size,
        base_max_size,
        quote_min_size: dec!(1),
        quote_max_size: dec!(150000000),
        future: None,
    }
}

fn future(id: &str, code: &str, base: &str, contract_size: Decimal, price_increment: Decimal) -> Product {
    Product {
        id: id.into(),
        base: base.into(),
        quote: "USD".into(),
        price_increment,
        base_increment: dec!(1),
        base_min_size: dec!(1),
        base_max_size: dec!(10000),
        quote_min_size: dec!(0),
        quote_max_size: dec!(100000000),
        future: Some(FutureTerms {
            contract_code: code.into(),
            contract_size,
            expiry: Timestamp::constant(1_924_016_400, 0), // 2030-12-20T17:00:00Z, the date in the product's name
            spot_product: format!("{base}-USD"),
            // Rates of the recorded BIP product; overnight is the one that liquidates a thin account.
            intraday_margin: MarginRate { long: dec!(0.1), short: dec!(0.1) },
            overnight_margin: MarginRate { long: dec!(0.247), short: dec!(0.306) },
        }),
    }
}
