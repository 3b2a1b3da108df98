//! What a portfolio can spend: spot holds come out of the spot wallet, futures margin out of both.

use rust_decimal::Decimal;
use rust_decimal::dec;

use super::book::{OrderNumber, Side};
use super::portfolio::Portfolio;
use super::{Exchange, Market};

/// Maintenance margin as a share of initial margin, the same on every product.
const MAINTENANCE: (Decimal, Decimal) = (Decimal::TWO, dec!(3));

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
                let of = |contracts| self.margin_of(market, portfolio, contracts);
                of(position + buys).max(of(position - sells))
            })
            .sum()
    }

    /// Margin of the positions alone.
    pub fn position_margin(&self, portfolio: &Portfolio) -> Decimal {
        portfolio.positions.iter().map(|(i, p)| self.margin_of(&self.markets[*i], portfolio, p.contracts)).sum()
    }

    /// Equity below which the positions are closed by the exchange.
    pub fn maintenance_margin(&self, portfolio: &Portfolio) -> Decimal {
        self.position_margin(portfolio) * MAINTENANCE.0 / MAINTENANCE.1
    }

    /// USD with unrealised profit and loss: what a liquidation is decided by.
    pub fn equity(&self, portfolio: &Portfolio) -> Decimal {
        portfolio.balance("USD").total + self.unrealized_pnl(portfolio)
    }

    /// Whether the overnight rates apply to a portfolio now.
    pub fn pays_overnight(&self, portfolio: &Portfolio) -> bool {
        self.calendar.window.overnight || !portfolio.intraday_margin
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

    /// USD free for a new spot order: what is in the spot wallet, less holds and what the futures wallet is short of.
    pub fn available_usd(&self, portfolio: &Portfolio) -> Decimal {
        let usd = portfolio.balance("USD");
        let spot = usd.total - usd.hold - portfolio.futures_usd;
        spot + self.futures_excess(portfolio).min(Decimal::ZERO)
    }

    /// USD that counts as futures collateral: total − spot holds + unrealised profit or loss.
    pub fn collateral(&self, portfolio: &Portfolio) -> Decimal {
        let usd = portfolio.balance("USD");
        usd.total - usd.hold + self.unrealized_pnl(portfolio)
    }

    fn margin_of(&self, market: &Market, portfolio: &Portfolio, contracts: Decimal) -> Decimal {
        margin_at(market, contracts, self.pays_overnight(portfolio))
    }

    fn working<'a>(&'a self, portfolio: &'a Portfolio) -> impl Iterator<Item = &'a super::order::Order> {
        portfolio.open.iter().filter_map(|n: &OrderNumber| self.orders.get(n))
    }
}

/// Initial margin of a signed number of contracts at the mark price.
pub fn margin_at(market: &Market, contracts: Decimal, overnight: bool) -> Decimal {
    market.product.initial_margin(contracts, market.mark(), overnight)
}
