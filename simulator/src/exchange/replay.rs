//! Markets that follow a recording instead of a random walk.

use rust_decimal::Decimal;

use super::{Exchange, Now, Settings};

impl Settings {
    /// The funding rate that a future shows first.
    pub(super) fn first_funding_rate(&self, product: &str) -> Decimal {
        let recorded = self.replay.as_ref().and_then(|series| series.funding_rate(product, jiff::SignedDuration::ZERO));
        recorded.unwrap_or(self.initial_funding_rate)
    }
}

impl Exchange {
    /// Takes over what the recording says of a product now; false where it says nothing of its price.
    pub(super) fn follow_recording(&mut self, index: usize, now: Now) -> bool {
        let Some(series) = &self.settings.replay else { return false };
        let market = &mut self.markets[index];
        market.recorded = series.quote(&market.product.id, now.time.duration_since(self.started));
        market.recorded.is_some()
    }
}
