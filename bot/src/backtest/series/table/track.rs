//! One product of a table: what is shown of it and what of that is new. Pure.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;

use crate::exchange::{FutureDetails, MarketEvent, Product, Side, Touch};
use crate::market::book::Level;

/// How often a product is told again for its price alone.
const MARK_EVERY: SignedDuration = SignedDuration::from_secs(5);

/// One product.
pub struct Track {
    /// As the remark says.
    pub product: Option<Product>,
    /// With the end of the last hour that it is of.
    rate: Option<(Decimal, Timestamp)>,
    /// What is shown: price and size of the best bid and of the best offer.
    shown: Option<[(Decimal, Decimal); 2]>,
    /// Whether the book was lost since the last price.
    pub lost: bool,
    pub last_mid: Option<Decimal>,
    /// What was last told of the product, and when.
    told: Option<(Timestamp, Product)>,
}

impl Track {
    pub fn new() -> Self {
        Self { product: None, rate: None, shown: None, lost: true, last_mid: None, told: None }
    }

    pub fn touch(&self) -> Option<Touch> {
        let [(best_bid, _), (best_ask, _)] = self.shown?;
        Some(Touch { best_bid, best_ask })
    }

    /// Base currency in one unit of size.
    pub fn unit_base(&self) -> Decimal {
        self.product.as_ref().map_or(Decimal::ONE, |product| product.unit_base)
    }

    /// A rate was written, for this hour.
    pub fn see_rate(&mut self, rate: Decimal, hour: Timestamp) {
        self.rate = Some((rate, self.rate.map_or(hour, |(_, shown)| shown.max(hour))));
    }

    /// The rate is that of the hours up to this one, too. Returns whether it was not yet.
    pub fn keep_rate(&mut self, until: Timestamp) -> bool {
        let Some((_, hour)) = self.rate.as_mut().filter(|(_, hour)| *hour < until) else { return false };
        *hour = until;
        true
    }

    /// The product with its price and with the funding of the last hour whose rate is known, where that is new.
    pub fn tell(&mut self, at: Timestamp) -> Option<Product> {
        let mut product = self.product.clone()?;
        if let Some(future) = &mut product.future {
            future.mark = self.last_mid;
            if let Some((rate, hour)) = self.rate {
                future.terms.funding_rate = rate;
                future.terms.funding_time = Some(hour);
            }
        }
        if let Some((told_at, told)) = &self.told {
            let only_the_mark = told.future.is_some() && {
                let mut as_told = product.clone();
                as_told.future = as_told
                    .future
                    .map(|future| FutureDetails { mark: told.future.as_ref().and_then(|told| told.mark), ..future });
                as_told == *told
            };
            if *told == product || (only_the_mark && at.duration_since(*told_at) < MARK_EVERY) {
                return None;
            }
        }
        self.told = Some((at, product.clone()));
        Some(product)
    }

    /// The levels that change: a price that is no longer the best is not known to have anything.
    pub fn show(&mut self, id: &str, shown: [(Decimal, Decimal); 2]) -> Option<MarketEvent> {
        let snapshot = std::mem::take(&mut self.lost);
        let before = self.shown.replace(shown).filter(|_| !snapshot);
        let mut levels = Vec::new();
        for (index, side) in [Side::Buy, Side::Sell].into_iter().enumerate() {
            let (price, quantity) = shown[index];
            let was = before.map(|before| before[index]);
            if was == Some((price, quantity)) {
                continue;
            }
            if let Some((old, _)) = was.filter(|(old, _)| *old != price) {
                levels.push(Level { side, price: old, quantity: Decimal::ZERO });
            }
            levels.push(Level { side, price, quantity });
        }
        (!levels.is_empty()).then(|| MarketEvent::Levels { product: id.to_owned(), snapshot, levels })
    }

    pub fn hide(&mut self, id: &str) -> Option<MarketEvent> {
        let shown = self.shown.take()?;
        let gone = |(side, (price, _)): (Side, (Decimal, Decimal))| Level { side, price, quantity: Decimal::ZERO };
        let levels = [Side::Buy, Side::Sell].into_iter().zip(shown).map(gone).collect();
        // The next prices are added to what is left: nothing.
        Some(MarketEvent::Levels { product: id.to_owned(), snapshot: false, levels })
    }
}
