//! What the engine keeps of one leg.

use std::sync::Arc;
use std::time::Duration;

use rust_decimal::Decimal;

use crate::exchange::{Product, Touch};
use crate::execution::ladder::Attempts;

use super::TOUCH_FRESH;

#[derive(Clone, Debug)]
pub(super) struct LegState {
    pub(super) product: Option<Arc<Product>>,
    pub(super) touch: Option<(Touch, Duration)>,
    /// The last mid price that was ever known: for what people read, and for the size of orders at market.
    pub(super) last_mid: Option<Decimal>,
    pub(super) attempts: Attempts,
    /// What the venue showed less than owned, at the last snapshot.
    pub(super) deficit: Decimal,
    /// Not before this: the last placement was refused.
    pub(super) not_before: Duration,
}

impl LegState {
    pub(super) fn new() -> Self {
        Self {
            product: None,
            touch: None,
            last_mid: None,
            attempts: Attempts::default(),
            deficit: Decimal::ZERO,
            not_before: Duration::ZERO,
        }
    }

    pub(super) fn touch(&self, now: Duration) -> Option<Touch> {
        self.touch.filter(|(_, at)| now.saturating_sub(*at) < TOUCH_FRESH).map(|(touch, _)| touch)
    }
}
