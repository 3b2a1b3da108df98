//! What the paper venue refuses: by the product's rules, and by the account's money.

use exchange_matching::product::Product as Rules;
use exchange_matching::rejection::{Reason, Rejection};
use exchange_matching::rules;
use rust_decimal::Decimal;

use super::super::account::{PaperOrder, matching_side};
use super::super::market::Market;
use super::{Venue, Wanted, is_open};
use crate::exchange::{NewOrder, Side};

impl Venue {
    /// Every rule that a new order must pass.
    pub(super) fn check(&self, new: &NewOrder, wanted: &Wanted) -> Result<(), Rejection> {
        let reject = |reason, message: String| Err(Rejection::new(reason, message));
        let Some((market, product)) = self.markets.get(&new.product).and_then(|m| Some((m, m.product.as_ref()?)))
        else {
            return reject(Reason::InvalidProductId, format!("product {} is not known here", new.product));
        };
        let Some(rules) = market.rules().filter(|_| product.tradable) else {
            return reject(Reason::UntradableProduct, format!("{} takes no orders now", product.id));
        };
        if !is_open(market) {
            return reject(Reason::InvalidFcmTradingSession, format!("the session of {} is closed", product.id));
        }
        let (true, Some(mark)) = (market.is_known(), market.mark()) else {
            return reject(Reason::InsufficientLiquidity, format!("there is no market data of {} now", product.id));
        };
        if wanted.closes {
            self.check_close(new)?;
        }
        let side = matching_side(new.side);
        rules::increments(rules, new.size, wanted.limit)?;
        if let Some(limit) = wanted.limit {
            rules::band(rules, side, limit, mark)?;
        }
        rules::book(&market.liquidity(new.side, new.size), side, wanted.limit, wanted.post_only)?;
        self.check_funds(new, wanted, market, rules)
    }

    fn check_close(&self, new: &NewOrder) -> Result<(), Rejection> {
        let position = self.account.contracts(&new.product);
        if position.is_zero() || (position.is_sign_positive() != (new.side == Side::Sell)) {
            return Err(Rejection::new(Reason::CannotCloseZeroPosition, "there is no position to close"));
        }
        if new.size > position.abs() {
            let message = format!("size {} exceeds the position of {} contracts", new.size, position.abs());
            return Err(Rejection::new(Reason::PreviewInvalidBaseSizeTooLarge, message));
        }
        Ok(())
    }

    fn check_funds(&self, new: &NewOrder, wanted: &Wanted, market: &Market, rules: &Rules) -> Result<(), Rejection> {
        if rules.is_future() {
            let (before, after) = (self.margin(None), self.margin(Some(new)));
            if after > before && after > self.account.cash - self.held() + self.unrealized() {
                let message = format!("initial margin would be {} USD", after.round_dp(2));
                return Err(Rejection::new(Reason::PreviewInsufficientFundsForFutures, message));
            }
            return Ok(());
        }
        let short_of = |what: &str| {
            let message = format!("Insufficient balance in the paper account: {what}");
            Err(Rejection::new(Reason::InsufficientFund, message))
        };
        if new.side == Side::Sell {
            let offered = self.open_orders(&new.product).filter(|order| !order.buy).map(PaperOrder::remaining);
            let free = self.account.base_of(&rules.base) - offered.sum::<Decimal>();
            return if new.size > free { short_of(&rules.base) } else { Ok(()) };
        }
        let value = match wanted.limit {
            Some(limit) => new.size * limit,
            None => {
                let matches = market.liquidity(new.side, new.size).depth(matching_side(Side::Sell), usize::MAX);
                matches.iter().map(|(price, size)| price * size).sum()
            }
        };
        let cost = value * (Decimal::ONE + self.fees.spot.taker);
        let free = self.account.cash - self.held() - self.margin(None) + self.unrealized().min(Decimal::ZERO);
        if cost > free { short_of(&rules.quote) } else { Ok(()) }
    }

    /// Quote currency that resting spot buys reserve.
    pub(super) fn held(&self) -> Decimal {
        let spot = |id: &str| self.markets.get(id).and_then(Market::rules).is_some_and(|rules| !rules.is_future());
        let buys = self.orders.values().filter(|order| order.is_open() && order.buy && spot(&order.product));
        let with_fee = Decimal::ONE + self.fees.spot.taker;
        buys.map(|order| order.remaining() * order.limit.unwrap_or_default() * with_fee).sum()
    }

    /// Initial margin over positions and working futures orders at their worst, with an order added.
    pub(super) fn margin(&self, extra: Option<&NewOrder>) -> Decimal {
        let of = |(id, market): (&String, &Market)| {
            let (Some(rules), Some(mark)) = (market.rules(), market.mark()) else { return Decimal::ZERO };
            let working = |side: Side| {
                let orders = self.open_orders(id).filter(|order| order.side() == side).map(PaperOrder::remaining);
                let extra = extra.filter(|new| new.product == *id && new.side == side).map(|new| new.size);
                orders.chain(extra).sum::<Decimal>()
            };
            let position = self.account.contracts(id);
            let margin = |contracts| rules.initial_margin(contracts, mark, true);
            margin(position + working(Side::Buy)).max(margin(position - working(Side::Sell)))
        };
        self.markets.iter().map(of).sum()
    }

    /// Profit or loss of the positions at their marks, with what funding accrued.
    pub(super) fn unrealized(&self) -> Decimal {
        let of = |(id, position): (&String, &exchange_matching::position::Position)| {
            let Some((rules, mark)) = self.markets.get(id).and_then(|m| Some((m.rules()?, m.mark()?))) else {
                return position.funding_accrued;
            };
            position.unrealized_pnl(rules.multiplier(), mark) + position.funding_accrued
        };
        self.account.positions.iter().map(of).sum()
    }
}
