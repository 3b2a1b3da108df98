//! Fixtures for unit tests.

use rust_decimal::{Decimal, dec};

use crate::exchange::{CarryTerms, FutureDetails, Product};
use crate::risk::exposure::Leg;

/// BTC-USD as Coinbase describes it.
pub fn spot_product() -> Product {
    Product {
        id: "BTC-USD".into(),
        base_currency: "BTC".into(),
        quote_currency: "USD".into(),
        price_increment: dec!(0.01),
        size_increment: dec!(0.00000001),
        min_size: dec!(0.00001),
        min_notional_quote: dec!(1),
        unit_base: dec!(1),
        tradable: true,
        future: None,
    }
}

/// The nano Bitcoin perpetual-style future.
pub fn future_product() -> Product {
    Product {
        id: "BIP-20DEC30-CDE".into(),
        price_increment: dec!(5),
        size_increment: dec!(1),
        min_size: dec!(1),
        min_notional_quote: dec!(0),
        unit_base: dec!(0.01),
        future: Some(FutureDetails { session_open: true, reopens_at: None, terms: future_terms() }),
        ..spot_product()
    }
}

pub fn spot_leg(owned: Decimal) -> Leg {
    Leg { product: spot_product(), owned, deficit: dec!(0), buys: dec!(0), sells: dec!(0), mid: Some(dec!(60000)) }
}

pub fn future_leg(owned: Decimal) -> Leg {
    Leg { product: future_product(), owned, deficit: dec!(0), buys: dec!(0), sells: dec!(0), mid: Some(dec!(60000)) }
}

/// Overnight margin of the fixture of 2026-04-07 and a funding that carries its costs within the default horizon.
pub fn future_terms() -> CarryTerms {
    CarryTerms {
        long_margin: dec!(0.25),
        short_margin: dec!(0.306),
        funding_rate: dec!(0.00003),
        funding_time: Some("2026-04-07T12:00:00Z".parse().unwrap()),
    }
}
