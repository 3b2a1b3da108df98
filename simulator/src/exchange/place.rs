//! Order entry: the rules an order must pass, then matching.

use rust_decimal::Decimal;
use rust_decimal::dec;
use uuid::Uuid;

use super::book::{Quantity, Side, Taker};
use super::journal::{JournalEvent, Kind};
use super::order::{Market as MarketOrder, OrderConfiguration, Plan, Rung, Size, StopDirection, Terms, TimeInForce};
use super::product::Product;
use super::rejection::{Reason, Rejection};
use super::rules;
use super::{Exchange, Now};

/// How much worse than its stop price a triggered bracket may trade.
pub(super) const STOP_BAND: Decimal = dec!(0.05);

/// An order as a client asks for it.
#[derive(Debug, Clone)]
pub struct NewOrder {
    pub client_order_id: String,
    pub product_id: String,
    pub side: Side,
    pub configuration: OrderConfiguration,
    /// It came through close_position.
    pub closing: bool,
}

/// An order that may be accepted, with what follows from its configuration.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    pub market: usize,
    pub terms: Terms,
    pub rungs: Vec<Rung>,
}

/// An accepted order, or the earlier one of the same client_order_id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    pub order_id: Uuid,
    pub duplicate: bool,
}

impl Exchange {
    /// Accepts and matches an order.
    ///
    /// # Errors
    /// The business reason it was refused for; a refusal is journaled and changes nothing else.
    pub fn place(&mut self, now: Now, portfolio: Uuid, new: NewOrder) -> Result<Placed, Rejection> {
        if let Some(&order_id) =
            self.portfolios.get(&portfolio).and_then(|p| p.client_order_ids.get(&new.client_order_id))
        {
            if !self.refuses_duplicates() {
                return Ok(Placed { order_id, duplicate: true });
            }
            let rejection =
                Rejection::new(Reason::DuplicateClientOrderId, "an order with this client_order_id already exists");
            if self.behaviour.refuse_duplicates {
                self.behaved("refuse_duplicates");
            }
            self.record_rejection(now, portfolio, &new, &rejection);
            return Err(rejection);
        }
        match self.check(now, portfolio, &new) {
            Ok(checked) => {
                let order_id = self.accept(now, portfolio, new, checked, false);
                self.run_triggers(now);
                self.fund_futures_of(portfolio);
                Ok(Placed { order_id, duplicate: false })
            }
            Err(rejection) => {
                if rejection.reason == Reason::UnsupportedOrderConfiguration && !self.behaviour.refuse_gtd.is_empty() {
                    self.behaved("refuse_gtd");
                }
                self.record_rejection(now, portfolio, &new, &rejection);
                Err(rejection)
            }
        }
    }

    /// Closes `size` contracts of a futures position (all of it when absent) at the market.
    ///
    /// # Errors
    /// `CannotCloseZeroPosition` when flat, and what [`Exchange::place`] refuses.
    pub fn close_position(
        &mut self,
        now: Now,
        portfolio: Uuid,
        client_order_id: String,
        product_id: String,
        size: Option<Decimal>,
    ) -> Result<(Placed, OrderConfiguration), Rejection> {
        let position = match self.market_index(&product_id) {
            Some(index) if self.markets[index].product.is_future() => self.position(portfolio, index),
            _ => {
                return Err(Rejection::new(Reason::InvalidProductId, format!("{product_id} is not a futures product")));
            }
        };
        let known = self.portfolios.get(&portfolio).is_some_and(|p| p.client_order_ids.contains_key(&client_order_id));
        let side = if position.is_sign_negative() { Side::Buy } else { Side::Sell };
        if self.behaviour.close_position_ignores_size && size.is_some() {
            self.behaved("close_position_ignores_size");
        }
        let size = size.filter(|_| !self.behaviour.close_position_ignores_size).unwrap_or(position.abs()).normalize();
        let configuration =
            OrderConfiguration::MarketMarketIoc(MarketOrder { base_size: Some(size), ..Default::default() });
        let new = NewOrder { client_order_id, product_id, side, configuration: configuration.clone(), closing: true };
        let refusal = if known {
            None
        } else if position.is_zero() {
            Some(Rejection::new(Reason::CannotCloseZeroPosition, "there is no position to close"))
        } else if size > position.abs() {
            let message = format!("size {size} exceeds the position of {} contracts", position.abs());
            Some(Rejection::new(Reason::PreviewInvalidBaseSizeTooLarge, message))
        } else {
            None
        };
        if let Some(rejection) = refusal {
            self.record_rejection(now, portfolio, &new, &rejection);
            return Err(rejection);
        }
        Ok((self.place(now, portfolio, new)?, configuration))
    }

    /// Refuses an order for a reason from outside (a fault), as if a rule had.
    pub fn refuse(&mut self, now: Now, portfolio: Uuid, new: &NewOrder, reason: Reason) -> Rejection {
        self.reject(now, portfolio, new, Rejection::new(reason, "injected by a fault of the simulator"))
    }

    /// Journals a refusal that something else than the order itself is the reason for.
    pub fn reject(&mut self, now: Now, portfolio: Uuid, new: &NewOrder, rejection: Rejection) -> Rejection {
        self.record_rejection(now, portfolio, new, &rejection);
        rejection
    }

    /// Every rule that a new order must pass.
    pub(super) fn check(&self, now: Now, portfolio: Uuid, new: &NewOrder) -> Result<Checked, Rejection> {
        let reject = |reason, message: String| Err(Rejection::new(reason, message));
        let Some(market) = self.market_index(&new.product_id) else {
            return reject(Reason::InvalidProductId, format!("product {} does not exist", new.product_id));
        };
        let Some(owner) = self.portfolios.get(&portfolio) else {
            return reject(Reason::InvalidRequest, "portfolio does not exist".into());
        };
        let product = &self.markets[market].product;
        let terms = new.configuration.terms(new.side)?;
        if self.markets[market].is_closed(now.time) {
            return reject(Reason::InvalidFcmTradingSession, format!("the session of {} is closed", product.id));
        }
        if owner.liquidating && product.is_future() && !new.closing {
            return reject(Reason::InLiquidation, "the futures account is being liquidated".into());
        }
        if terms.reduce_only {
            return reject(Reason::ReduceOnlyNotAllowedOnVenue, "reduce_only is not available here".into());
        }
        // Known from the venue: fill or kill at the market is for perpetuals that this exchange does not list.
        if matches!(new.configuration, OrderConfiguration::MarketMarketFok(_)) {
            return reject(Reason::UnsupportedOrderConfiguration, "market_market_fok is not available here".into());
        }
        if let TimeInForce::GoodUntilDate(end) = terms.time_in_force
            && end <= now.time
        {
            return reject(Reason::InvalidRequest, "end_time must be in the future".into());
        }
        self.check_behaviour(market, &terms)?;
        check_increments(product, new.side, &terms)?;
        let rungs = new.configuration.rungs(product, &terms)?;
        if terms.plan == Plan::Scaled {
            for rung in &rungs {
                let part = Terms { size: Size::Base(rung.remaining), limit_price: Some(rung.price), ..terms };
                check_increments(product, new.side, &part)?;
            }
        }
        self.check_plan(market, new.side, &terms)?;
        self.check_band(market, new.side, &terms)?;
        self.check_book(market, new.side, &terms)?;
        self.check_funds(market, portfolio, new.side, &terms, &rungs)?;
        Ok(Checked { market, terms, rungs })
    }

    /// The prices of a stop or a bracket fit each other and the last trade.
    fn check_plan(&self, market: usize, side: Side, terms: &Terms) -> Result<(), Rejection> {
        let (product, last) = (&self.markets[market].product, self.markets[market].last_price);
        let reject = |reason, message: &str| Err(Rejection::new(reason, message));
        let limit = terms.limit_price.unwrap_or_default();
        let (Plan::Stop { price: stop, .. } | Plan::Bracket { stop }) = terms.plan else { return Ok(()) };
        rules::price(product, "stop price", stop)?;
        match terms.plan {
            Plan::Stop { direction: StopDirection::Up, .. } if stop <= last => {
                reject(Reason::StopPriceBelowLastTradePrice, "stop_price of a stop up must be above the last trade")
            }
            Plan::Stop { direction: StopDirection::Down, .. } if stop >= last => {
                reject(Reason::StopPriceAboveLastTradePrice, "stop_price of a stop down must be below the last trade")
            }
            Plan::Stop { .. } if side == Side::Buy && stop > limit => {
                reject(Reason::StopPriceAboveLimitPrice, "limit_price of a buy must not be below stop_price")
            }
            Plan::Stop { .. } if side == Side::Sell && stop < limit => {
                reject(Reason::StopPriceBelowLimitPrice, "limit_price of a sell must not be above stop_price")
            }
            Plan::Bracket { .. } if (side == Side::Sell) != (limit > stop) || limit == stop => {
                reject(Reason::InvalidBracketPrices, "stop_trigger_price must be on the losing side of limit_price")
            }
            _ => Ok(()),
        }
    }

    /// A price that trades at once must not be far from the market.
    pub(super) fn check_band(&self, market: usize, side: Side, terms: &Terms) -> Result<(), Rejection> {
        let (Some(limit), Plan::Direct) = (terms.limit_price, terms.plan) else { return Ok(()) };
        rules::band(&self.markets[market].product, side, limit, self.markets[market].mark())
    }

    fn check_book(&self, market: usize, side: Side, terms: &Terms) -> Result<(), Rejection> {
        rules::book(&self.markets[market].book, side, terms.limit_price, terms.post_only)
    }

    fn check_funds(
        &self,
        market: usize,
        owner: Uuid,
        side: Side,
        terms: &Terms,
        rungs: &[Rung],
    ) -> Result<(), Rejection> {
        let Some(portfolio) = self.portfolios.get(&owner).filter(|p| !p.participant) else { return Ok(()) };
        let product = &self.markets[market].product;
        let short_of = |what: &str| {
            Err(Rejection::new(Reason::InsufficientFund, format!("Insufficient balance in source account: {what}")))
        };
        if product.is_future() {
            let Size::Base(size) = terms.size else { return Ok(()) };
            let before = self.initial_margin(portfolio, None);
            let after = self.initial_margin(portfolio, Some((market, side, size)));
            if after > before && after > self.collateral(portfolio) {
                return Err(Rejection::new(
                    Reason::PreviewInsufficientFundsForFutures,
                    format!("initial margin would be {} USD", after.round_dp(2)),
                ));
            }
            return Ok(());
        }
        if side == Side::Sell {
            let balance = portfolio.balance(&product.base);
            let Size::Base(size) = terms.size else { return Ok(()) };
            return if size > balance.total - balance.hold { short_of(&product.base) } else { Ok(()) };
        }
        let cost = self.hold(market, owner, side, terms, rungs);
        if cost > self.available_usd(portfolio) { short_of(&product.quote) } else { Ok(()) }
    }

    /// What a new order reserves of its spot balance: quote currency with the fee for a buy, base for a sell.
    pub(super) fn hold(&self, market: usize, owner: Uuid, side: Side, terms: &Terms, rungs: &[Rung]) -> Decimal {
        match (side, terms.size) {
            _ if self.markets[market].product.is_future() => Decimal::ZERO,
            (Side::Sell, Size::Base(size)) => size,
            _ if rungs.is_empty() => self.cost(market, owner, terms),
            _ => rungs
                .iter()
                .map(|r| self.held_for(r.remaining, worst_price(&self.markets[market].product, terms, r.price)))
                .sum(),
        }
    }

    /// What a spot buy of `size` at `price` reserves.
    pub(super) fn held_for(&self, size: Decimal, price: Decimal) -> Decimal {
        size * price * (Decimal::ONE + self.settings.spot_fees.taker)
    }

    /// Quote currency that a spot buy at the market may cost, fee included.
    fn cost(&self, market: usize, owner: Uuid, terms: &Terms) -> Decimal {
        let with_fee = |value: Decimal| value * (Decimal::ONE + self.settings.spot_fees.taker);
        match (terms.size, terms.limit_price) {
            (Size::Quote(budget), _) => budget,
            (Size::Base(size), Some(price)) => with_fee(size * price),
            (Size::Base(size), None) => {
                let taker = Taker { side: Side::Buy, owner, limit: None, quantity: Quantity::Base(size) };
                with_fee(self.markets[market].book.preview(taker).iter().map(|(price, size)| price * size).sum())
            }
        }
    }

    fn record_rejection(&mut self, now: Now, portfolio: Uuid, new: &NewOrder, rejection: &Rejection) {
        let market = self.market_index(&new.product_id);
        let terms = new.configuration.terms(new.side).ok();
        let event = JournalEvent {
            seq: 0,
            monotonic_ns: 0,
            boottime_ns: 0,
            time: now.time,
            portfolio,
            kind: Kind::OrderRejected,
            order_id: None,
            client_order_id: new.client_order_id.clone(),
            product_id: new.product_id.clone(),
            side: new.side,
            size: terms.map_or(Decimal::ZERO, |t| match t.size {
                Size::Base(size) | Size::Quote(size) => size,
            }),
            price: terms.and_then(|t| t.limit_price),
            filled: Decimal::ZERO,
            position: market.map_or(Decimal::ZERO, |m| self.position(portfolio, m)),
            open_orders: self.portfolios.get(&portfolio).map_or(0, |p| p.open.len()),
            reason: rejection.to_string(),
        };
        if self.is_client(portfolio) {
            self.journal.push(now, event);
        }
    }
}

/// Price that a spot buy may have to pay for what it wants at `price`: a bracket's stop is worse than its limit.
pub(super) fn worst_price(product: &Product, terms: &Terms, price: Decimal) -> Decimal {
    match terms.plan {
        Plan::Bracket { stop } => {
            price.max(product.round_price(stop * (Decimal::ONE + STOP_BAND)) + product.price_increment)
        }
        _ => price,
    }
}

/// Tick, size increment and minimum rules.
pub(super) fn check_increments(product: &Product, side: Side, terms: &Terms) -> Result<(), Rejection> {
    match terms.size {
        Size::Quote(amount) => {
            if let Some(price) = terms.limit_price {
                rules::price(product, "limit_price", price)?;
            }
            let reject = |reason, message: String| Err(Rejection::new(reason, message));
            if product.is_future() || side == Side::Sell {
                return reject(Reason::UnsupportedOrderConfiguration, "quote_size is only for spot market buys".into());
            }
            rules::value(product, amount)?;
            if !(amount % Decimal::new(1, 2)).is_zero() {
                return reject(Reason::InvalidSizePrecision, format!("quote_size {amount} is not in cents"));
            }
            Ok(())
        }
        Size::Base(size) => rules::increments(product, size, terms.limit_price),
    }
}
