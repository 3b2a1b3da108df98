//! What an order would do, without placing it.

use rust_decimal::Decimal;
use uuid::Uuid;

use super::book::{Quantity, Side, Taker};
use super::margin::margin_at;
use super::order::{Rung, Size, Terms};
use super::rejection::Rejection;
use super::{Exchange, NewOrder, Now};

/// An order as it would be filled against the book of this moment; what would rest counts at its limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preview {
    /// Base units or contracts.
    pub base_size: Decimal,
    /// Value in quote currency, fee not included.
    pub quote_size: Decimal,
    pub commission: Decimal,
    /// Average price; 0 when nothing could be filled.
    pub average_price: Decimal,
    /// Distance of the average price from the best price, as a fraction.
    pub slippage: Decimal,
    /// Initial margin that the order needs; futures only.
    pub margin: Decimal,
}

impl Exchange {
    /// # Errors
    /// Why [`Exchange::place`] would refuse it now.
    pub fn preview(&self, now: Now, portfolio: Uuid, new: &NewOrder) -> Result<Preview, Rejection> {
        let checked = self.check(now, portfolio, new)?;
        Ok(self.preview_of(checked.market, portfolio, new.side, &checked.terms, &checked.rungs))
    }

    pub fn preview_of(&self, index: usize, owner: Uuid, side: Side, terms: &Terms, rungs: &[Rung]) -> Preview {
        let market = &self.markets[index];
        let product = &market.product;
        let rates = if product.is_future() { self.settings.future_fees } else { self.settings.spot_fees };
        let mut preview = Preview::default();
        let mut add = |price: Decimal, size: Decimal, rate: Decimal| {
            let value = product.value(size, price);
            preview.base_size += size;
            preview.quote_size += value;
            preview.commission += value * rate;
        };
        let fills = |limit, quantity| market.book.preview(Taker { side, owner, limit, quantity });
        for rung in rungs {
            let taken = fills(Some(rung.price), Quantity::Base(rung.remaining));
            let size: Decimal = taken.iter().map(|(_, size)| size).sum();
            taken.into_iter().for_each(|(price, size)| add(price, size, rates.taker));
            add(rung.price, rung.remaining - size, rates.maker);
        }
        if rungs.is_empty() {
            let quantity = match terms.size {
                Size::Base(size) => Quantity::Base(size),
                Size::Quote(amount) => Quantity::Quote {
                    budget: amount.checked_div(Decimal::ONE + rates.taker).unwrap_or_default(),
                    increment: product.base_increment,
                },
            };
            fills(None, quantity).into_iter().for_each(|(price, size)| add(price, size, rates.taker));
        }
        preview.average_price =
            preview.quote_size.checked_div(preview.base_size * product.multiplier()).unwrap_or_default();
        let best = market.book.best(side.opposite()).filter(|_| !preview.base_size.is_zero());
        preview.slippage = best
            .and_then(|best| ((preview.average_price - best) * side.sign()).checked_div(best))
            .unwrap_or_default()
            .max(Decimal::ZERO);
        let overnight = self.portfolios.get(&owner).is_some_and(|p| self.pays_overnight(p));
        preview.margin = margin_at(market, preview.base_size * side.sign(), overnight);
        preview
    }
}
