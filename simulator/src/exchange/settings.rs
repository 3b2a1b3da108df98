//! What an exchange starts with.

use std::sync::Arc;

use exchange_matching::fees::FeeRates;
use market_recording::Series;
use rust_decimal::Decimal;
use rust_decimal::dec;

/// What is kept, so that a long run stays bounded in memory; the oldest goes first.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Events of the journal.
    pub journal: usize,
    /// Terminal orders, and fills, of each portfolio. With an order its client_order_id is forgotten.
    pub history: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self { journal: 200_000, history: 20_000 }
    }
}

/// What a seeded exchange starts with.
#[derive(Debug, Clone)]
pub struct Settings {
    pub seed: u64,
    pub spot_fees: FeeRates,
    pub future_fees: FeeRates,
    /// A repeated client_order_id is refused instead of answered with the old order.
    pub refuse_duplicates: bool,
    /// How long an accepted cancel or edit takes to happen.
    pub cancel_delay: jiff::SignedDuration,
    pub retention: Retention,
    /// Funding rate per hour shown until the first hour has been measured.
    pub initial_funding_rate: Decimal,
    /// Futures are closed on Fridays from 17:00 to 18:00 in New York.
    pub weekly_break: bool,
    /// Prices and funding rates that the markets follow.
    pub replay: Option<Arc<Series>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 1,
            // Coinbase's 1–15 M$ tier: at the entry tier fees exceed six weeks of funding and nothing would trade.
            spot_fees: FeeRates { maker: dec!(0.0008), taker: dec!(0.0018) },
            future_fees: FeeRates { maker: dec!(0.0005), taker: dec!(0.0006) },
            refuse_duplicates: false,
            retention: Retention::default(),
            cancel_delay: jiff::SignedDuration::from_millis(5),
            initial_funding_rate: dec!(0.000032),
            weekly_break: true,
            replay: None,
        }
    }
}
