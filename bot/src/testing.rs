//! Fixtures for unit tests.

use std::time::Duration;

use rust_decimal::{Decimal, dec};

use crate::exchange::{CarryTerms, FeeRates, FutureDetails, Product, Touch};
use crate::risk::exposure::Leg;
use crate::strategy::funding_carry::Market;
use crate::strategy::funding_carry::edge::Terms;

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
        future: Some(FutureDetails::in_session(true, future_terms())),
        ..spot_product()
    }
}

pub fn spot_leg(owned: Decimal) -> Leg {
    Leg {
        product: spot_product().into(),
        owned,
        deficit: dec!(0),
        buys: dec!(0),
        sells: dec!(0),
        mid: Some(dec!(60000)),
        index: None,
    }
}

pub fn future_leg(owned: Decimal) -> Leg {
    Leg { product: future_product().into(), ..spot_leg(owned) }
}

/// What the strategy looks at while nothing but its target of 6000 holds it back.
pub fn market<'a>(spot: &'a Leg, future: &'a Leg) -> Market<'a> {
    let touch = Touch { best_bid: dec!(59995), best_ask: dec!(60005) };
    Market {
        spot,
        future,
        spot_touch: touch,
        future_touch: touch,
        target_notional: dec!(6000),
        max_position_notional: dec!(25000),
        max_order_notional: dec!(700),
        max_leg_imbalance_notional: dec!(5000),
        max_slippage_bps: dec!(30),
        collateral_quote: dec!(1_000_000),
        collateral_at_most_quote: dec!(1_000_000),
        collateral_at_least_quote: dec!(1_000_000),
        max_leverage: dec!(1.6),
        min_collateral_ratio: dec!(0.60),
    }
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

/// Fees of the tier of 1 to 15 million USD.
pub fn fee_rates() -> FeeRates {
    FeeRates {
        spot_maker: dec!(0.0008),
        spot_taker: dec!(0.0018),
        future_maker: dec!(0.000145),
        future_taker: dec!(0.000145),
    }
}

/// The defaults, but for the hours that have to be seen: the first one will do.
pub fn carry_terms() -> Terms {
    Terms {
        min_edge_bps: dec!(15),
        horizon_hours: dec!(1080),
        min_samples: 1,
        max_negative_hours: 12,
        min_hold: Duration::from_secs(24 * 3600),
        min_collateral_ratio: dec!(0.60),
    }
}
