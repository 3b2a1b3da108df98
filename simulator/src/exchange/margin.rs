//! What a portfolio can spend: spot holds and futures margin come out of the same USD.

use rust_decimal::Decimal;

use super::book::{OrderNumber, Side};
use super::portfolio::Portfolio;
use super::{Exchange, Market};

impl Exchange {
    /// Initial margin of a portfolio in quote currency, over positions and working futures orders at their worst,
    /// with `extra` contracts added on one side of one market.
    pub fn initial_margin(&self, portfolio: &Portfolio, extra: Option<(usize, Side, Decimal)>) -> Decimal {
        self.markets
            .iter()
            .enumerate()
            .filter(|(_, m)| m.product.is_future())
            .map(|(index, market)| {
                let (mut buys, mut sells) = (Decimal::ZERO, Decimal::ZERO);
                let mut add = |side, size| match side {
                    Side::Buy => buys += size,
                    Side::Sell => sells += size,
                };
                for order in self.working(portfolio).filter(|o| o.market == index) {
                    add(order.side, order.remaining());
                }
                if let Some((_, side, size)) = extra.filter(|(m, ..)| *m == index) {
                    add(side, size);
                }
                let position = portfolio.contracts(index);
                margin_of(market, position + buys).max(margin_of(market, position - sells))
            })
            .sum()
    }

    /// Margin of the positions alone.
    pub fn position_margin(&self, portfolio: &Portfolio) -> Decimal {
        portfolio.positions.iter().map(|(index, p)| margin_of(&self.markets[*index], p.contracts)).sum()
    }

    /// Unrealised profit and accrued funding of all positions, in quote currency.
    pub fn unrealized_pnl(&self, portfolio: &Portfolio) -> Decimal {
        portfolio
            .positions
            .iter()
            .map(|(index, p)| {
                let market = &self.markets[*index];
                p.unrealized_pnl(market.product.multiplier(), market.mark()) + p.funding_accrued
            })
            .sum()
    }

    /// USD free for a new spot order: total − holds − futures margin, less any unrealised loss.
    pub fn available_usd(&self, portfolio: &Portfolio) -> Decimal {
        let usd = portfolio.balance("USD");
        usd.total - usd.hold - self.initial_margin(portfolio, None) + self.unrealized_pnl(portfolio).min(Decimal::ZERO)
    }

    /// USD that counts as futures collateral: total − spot holds + unrealised profit or loss.
    pub fn collateral(&self, portfolio: &Portfolio) -> Decimal {
        let usd = portfolio.balance("USD");
        usd.total - usd.hold + self.unrealized_pnl(portfolio)
    }

    fn working<'a>(&'a self, portfolio: &'a Portfolio) -> impl Iterator<Item = &'a super::order::Order> {
        portfolio.open.iter().filter_map(|n: &OrderNumber| self.orders.get(n))
    }
}

/// Initial margin of a signed number of contracts at the mark price.
fn margin_of(market: &Market, contracts: Decimal) -> Decimal {
    let Some(terms) = &market.product.future else { return Decimal::ZERO };
    let rate = if contracts.is_sign_negative() { terms.intraday_margin.short } else { terms.intraday_margin.long };
    market.product.value(contracts.abs(), market.mark()) * rate
}
