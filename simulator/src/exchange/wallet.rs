//! The two USD wallets of an account. Spot money moves to the futures wallet by itself when margin needs it; what is in
//! excess there comes back only by a sweep.

use rust_decimal::Decimal;
use uuid::Uuid;

use super::portfolio::Portfolio;
use super::{Exchange, Now};

impl Exchange {
    /// USD of the futures wallet beyond what margin and unrealised losses need; negative when it is short.
    pub fn futures_excess(&self, portfolio: &Portfolio) -> Decimal {
        let loss = self.unrealized_pnl(portfolio).min(Decimal::ZERO);
        portfolio.futures_usd + loss - self.initial_margin(portfolio, None)
    }

    /// Moves to every client's futures wallet what it is short of, as far as the spot wallet goes.
    pub(super) fn fund_futures(&mut self) {
        let clients: Vec<Uuid> = self.portfolios.values().filter(|p| !p.participant).map(|p| p.id).collect();
        clients.into_iter().for_each(|id| self.fund_futures_of(id));
    }

    pub(super) fn fund_futures_of(&mut self, id: Uuid) {
        let Some(portfolio) = self.portfolios.get(&id).filter(|p| !p.participant) else { return };
        let idle = portfolio.futures_usd.is_zero() && portfolio.positions.is_empty() && portfolio.open.is_empty();
        if idle {
            return;
        }
        let usd = portfolio.balance("USD");
        let spot = (usd.total - usd.hold - portfolio.futures_usd).max(Decimal::ZERO);
        let moved = (-self.futures_excess(portfolio)).clamp(Decimal::ZERO, spot);
        if let Some(portfolio) = self.portfolios.get_mut(&id) {
            portfolio.futures_usd += moved;
        }
    }

    /// Makes the sweeps that are due: what was asked for, or as much of it as is in excess.
    pub(super) fn run_sweeps(&mut self, now: Now) {
        let due = |p: &&Portfolio| p.sweep.as_ref().is_some_and(|sweep| sweep.scheduled <= now.time);
        let swept: Vec<(Uuid, Decimal)> = self
            .portfolios
            .values()
            .filter(due)
            .map(|p| {
                let wanted = p.sweep.as_ref().and_then(|sweep| sweep.amount);
                let excess = self.futures_excess(p).max(Decimal::ZERO);
                (p.id, wanted.map_or(excess, |wanted| wanted.min(excess)))
            })
            .collect();
        for (id, amount) in swept {
            if let Some(portfolio) = self.portfolios.get_mut(&id) {
                portfolio.futures_usd -= amount;
                portfolio.sweep = None;
            }
        }
    }
}
