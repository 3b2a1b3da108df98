//! What the simulator lists.

use jiff::Timestamp;
use rust_decimal::Decimal;
use rust_decimal::dec;

pub use exchange_matching::product::{FutureTerms, MarginRate, Product};

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
