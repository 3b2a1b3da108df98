//! What the clearing house does by itself: daily variation margin, and closing accounts that run out of collateral.

use rust_decimal::Decimal;
use uuid::Uuid;

use super::book::Side;
use super::order::{Market as MarketOrder, OrderConfiguration, Status};
use super::{Exchange, NewOrder, Now};

impl Exchange {
    /// Pays every position's profit or loss since the last settlement in cash, at the mark price.
    pub(super) fn settle_variation(&mut self) {
        for (index, market) in self.markets.iter_mut().enumerate().filter(|(_, m)| m.product.is_future()) {
            let mark = market.mark();
            market.settlement_price = mark;
            for portfolio in self.portfolios.values_mut() {
                let Some(position) = portfolio.positions.get_mut(&index) else { continue };
                let paid = position.settle_variation(market.product.multiplier(), mark);
                portfolio.pay_futures(paid);
            }
        }
    }

    /// Closes the futures of every client whose equity is below its maintenance margin.
    pub(super) fn liquidate(&mut self, now: Now) {
        let short: Vec<Uuid> = self
            .portfolios
            .values()
            .filter(|p| !p.participant && p.positions.values().any(|position| !position.contracts.is_zero()))
            .filter(|p| p.liquidating || self.equity(p) < self.maintenance_margin(p))
            .map(|p| p.id)
            .collect();
        for id in short {
            self.liquidate_one(now, id);
        }
    }

    fn liquidate_one(&mut self, now: Now, id: Uuid) {
        let Some(owner) = self.portfolios.get_mut(&id) else { return };
        owner.liquidating = true;
        let open: Vec<_> = owner.open.iter().copied().collect();
        for number in open {
            if self.orders.get(&number).is_some_and(|o| self.markets[o.market].product.is_future()) {
                self.close(now, number, Status::Cancelled, "liquidation");
            }
        }
        let positions: Vec<(usize, Decimal)> = self
            .portfolios
            .get(&id)
            .map(|p| p.positions.iter().map(|(index, p)| (*index, p.contracts)).collect())
            .unwrap_or_default();
        for (market, contracts) in positions.into_iter().filter(|(_, contracts)| !contracts.is_zero()) {
            let largest = self.markets[market].product.base_max_size;
            let base_size = Some(contracts.abs().min(largest).normalize());
            let new = NewOrder {
                client_order_id: format!("liquidation-{}", self.next_number),
                product_id: self.markets[market].product.id.clone(),
                side: if contracts.is_sign_negative() { Side::Buy } else { Side::Sell },
                configuration: OrderConfiguration::MarketMarketIoc(MarketOrder { base_size, ..Default::default() }),
                closing: true,
            };
            // A closed session or an empty book: the next step of the market tries again.
            if let Ok(checked) = self.check(now, id, &new) {
                self.accept(now, id, new, checked, true);
            }
        }
        let flat = |p: &super::portfolio::Portfolio| p.positions.values().all(|p| p.contracts.is_zero());
        if let Some(owner) = self.portfolios.get_mut(&id).filter(|p| flat(p)) {
            owner.liquidating = false;
        }
    }
}
