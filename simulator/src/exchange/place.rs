//! Order entry: the rules an order must pass, then matching.

use rust_decimal::Decimal;
use uuid::Uuid;

use super::book::{Quantity, Side, Taker, acceptable};
use super::journal::{JournalEvent, Kind};
use super::order::{Order, OrderConfiguration, Size, Status, Terms, TimeInForce};
use super::product::Product;
use super::rejection::{Reason, Rejection};
use super::{Exchange, Now};

/// Highest limit price accepted, in quote currency; far above any product, and far from an arithmetic overflow.
const MAX_PRICE: Decimal = Decimal::from_parts(100_000_000, 0, 0, false, 0);

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
            self.record_rejection(now, portfolio, &new, &rejection);
            return Err(rejection);
        }
        match self.check(now, portfolio, &new) {
            Ok((market, terms)) => {
                Ok(Placed { order_id: self.accept(now, portfolio, market, new, terms), duplicate: false })
            }
            Err(rejection) => {
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
        let size = size.filter(|_| !self.behaviour.close_position_ignores_size).unwrap_or(position.abs()).normalize();
        let configuration =
            OrderConfiguration::MarketMarketIoc(super::order::Market { base_size: Some(size), ..Default::default() });
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
        let rejection = Rejection::new(reason, "injected by a fault of the simulator");
        self.record_rejection(now, portfolio, new, &rejection);
        rejection
    }

    fn check(&self, now: Now, portfolio: Uuid, new: &NewOrder) -> Result<(usize, Terms), Rejection> {
        let reject = |reason, message: String| Err(Rejection::new(reason, message));
        let Some(market) = self.market_index(&new.product_id) else {
            return reject(Reason::InvalidProductId, format!("product {} does not exist", new.product_id));
        };
        if !self.portfolios.contains_key(&portfolio) {
            return reject(Reason::InvalidRequest, "portfolio does not exist".into());
        }
        let product = &self.markets[market].product;
        let terms = new.configuration.terms()?;
        if self.markets[market].is_closed(now.time) {
            return reject(Reason::InvalidFcmTradingSession, format!("the session of {} is closed", product.id));
        }
        if terms.reduce_only {
            return reject(Reason::ReduceOnlyNotAllowedOnVenue, "reduce_only is not available here".into());
        }
        if let TimeInForce::GoodUntilDate(end) = terms.time_in_force
            && end <= now.time
        {
            return reject(Reason::InvalidRequest, "end_time must be in the future".into());
        }
        self.check_behaviour(market, &terms)?;
        check_increments(product, new.side, &terms)?;
        self.check_book(market, new.side, &terms)?;
        self.check_funds(market, portfolio, new.side, &terms)?;
        Ok((market, terms))
    }

    fn check_book(&self, market: usize, side: Side, terms: &Terms) -> Result<(), Rejection> {
        let book = &self.markets[market].book;
        let crosses = book.best(side.opposite()).is_some_and(|best| acceptable(side, terms.limit_price, best));
        if terms.post_only && crosses {
            return Err(Rejection::new(
                Reason::InvalidLimitPricePostOnly,
                "a post_only order at this price would match at once",
            ));
        }
        if terms.limit_price.is_none() && !crosses {
            return Err(Rejection::new(Reason::InsufficientLiquidity, "nothing to trade against"));
        }
        Ok(())
    }

    fn check_funds(&self, market: usize, owner: Uuid, side: Side, terms: &Terms) -> Result<(), Rejection> {
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
        if self.cost(market, owner, terms) > self.available_usd(portfolio) { short_of(&product.quote) } else { Ok(()) }
    }

    /// Quote currency that a spot buy may cost, fee included.
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

    fn accept(&mut self, now: Now, portfolio: Uuid, market: usize, new: NewOrder, terms: Terms) -> Uuid {
        let number = self.next_number;
        self.next_number += 1;
        let client = self.is_client(portfolio);
        let id = if client { self.new_uuid() } else { Uuid::from_u128(u128::from(number)) };
        let product = &self.markets[market].product;
        let hold = match (product.is_future(), new.side, terms.size) {
            (true, ..) => Decimal::ZERO,
            (false, Side::Sell, Size::Base(size)) => size,
            (false, ..) => self.cost(market, portfolio, &terms),
        };
        let held_currency = if new.side == Side::Buy { product.quote.clone() } else { product.base.clone() };
        let order = Order {
            number,
            id,
            client_order_id: new.client_order_id,
            portfolio,
            market,
            side: new.side,
            configuration: new.configuration,
            terms,
            size: if let Size::Base(size) = terms.size { size } else { Decimal::ZERO },
            status: Status::Open,
            created: now.time,
            last_fill: None,
            last_update: now.time,
            filled_size: Decimal::ZERO,
            filled_value: Decimal::ZERO,
            fees: Decimal::ZERO,
            fills: 0,
            cancel_message: String::new(),
            hold,
            resting: false,
            closing: new.closing,
        };
        if let Some(owner) = self.portfolios.get_mut(&portfolio) {
            owner.balance_mut(&held_currency).hold += hold;
            owner.open.insert(number);
            if client {
                owner.client_order_ids.insert(order.client_order_id.clone(), id);
                owner.history.push_back(number);
            }
        }
        if client {
            self.numbers.insert(id, number);
        }
        self.orders.insert(number, order);
        self.record(now, Kind::OrderAccepted, number, "");
        self.execute(now, number);
        self.trim_history(portfolio);
        id
    }

    /// Matches a new order and rests, cancels or completes what is left of it.
    fn execute(&mut self, now: Now, number: u64) {
        let Some(order) = self.orders.get(&number) else { return };
        let (market, side, owner, terms) = (order.market, order.side, order.portfolio, order.terms);
        let quantity = match terms.size {
            Size::Base(size) => Quantity::Base(size),
            // The amount includes the fee, as on Coinbase.
            Size::Quote(amount) => Quantity::Quote {
                budget: amount.checked_div(Decimal::ONE + self.settings.spot_fees.taker).unwrap_or_default(),
                increment: self.markets[market].product.base_increment,
            },
        };
        let quantity = self.obtainable(owner, market, &terms, quantity);
        let taker = Taker { side, owner, limit: terms.limit_price, quantity };
        let book = &mut self.markets[market].book;
        if terms.time_in_force == TimeInForce::FillOrKill {
            let available: Decimal = book.preview(taker).iter().map(|(_, size)| size).sum();
            if Size::Base(available) != terms.size {
                self.close(now, number, Status::Cancelled, "fill or kill: not enough to fill it at once");
                return;
            }
        }
        let taken = book.take(taker);
        if let Size::Quote(_) = terms.size
            && let Some(order) = self.orders.get_mut(&number)
        {
            order.size = taken.matches.iter().map(|m| m.size).sum();
        }
        for matched in &taken.matches {
            self.settle(now, number, *matched);
        }
        let Some(order) = self.orders.get_mut(&number).filter(|o| !o.status.is_terminal()) else { return };
        match (terms.time_in_force, terms.limit_price) {
            _ if taken.self_trade => self.close(now, number, Status::Cancelled, "self-trade prevention: cancel newest"),
            (TimeInForce::GoodUntilCancelled | TimeInForce::GoodUntilDate(_), Some(price)) => {
                order.resting = true;
                let remaining = order.remaining();
                self.markets[market].book.add(side, price, number, owner, remaining);
                if let TimeInForce::GoodUntilDate(end) = terms.time_in_force {
                    self.expiries.insert((end, number));
                }
            }
            _ => self.close(now, number, Status::Cancelled, "immediate or cancel: the rest was not available"),
        }
    }

    fn record_rejection(&mut self, now: Now, portfolio: Uuid, new: &NewOrder, rejection: &Rejection) {
        let market = self.market_index(&new.product_id);
        let terms = new.configuration.terms().ok();
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

/// Tick, size increment and minimum rules.
fn check_increments(product: &Product, side: Side, terms: &Terms) -> Result<(), Rejection> {
    let reject = |reason, message: String| Err(Rejection::new(reason, message));
    if let Some(price) = terms.limit_price {
        if price <= Decimal::ZERO || price > MAX_PRICE {
            return reject(Reason::InvalidLimitPrice, format!("limit_price {price} is out of range"));
        }
        if !(price % product.price_increment).is_zero() {
            let message = format!("limit_price {price} is not a multiple of {}", product.price_increment);
            return reject(Reason::InvalidPricePrecision, message);
        }
    }
    match terms.size {
        Size::Quote(amount) => {
            if product.is_future() || side == Side::Sell {
                return reject(Reason::UnsupportedOrderConfiguration, "quote_size is only for spot market buys".into());
            }
            check_value(product, amount)?;
            if !(amount % Decimal::new(1, 2)).is_zero() {
                return reject(Reason::InvalidSizePrecision, format!("quote_size {amount} is not in cents"));
            }
            Ok(())
        }
        Size::Base(size) => {
            // The minimum first: it is what Coinbase names for a zero size, whatever its precision.
            if size < product.base_min_size {
                let message = format!("base_size {size} is below {}", product.base_min_size);
                return reject(Reason::PreviewInvalidBaseSizeTooSmall, message);
            }
            if size > product.base_max_size {
                let message = format!("base_size {size} is above {}", product.base_max_size);
                return reject(Reason::PreviewInvalidBaseSizeTooLarge, message);
            }
            if !(size % product.base_increment).is_zero() {
                let message = format!("base_size {size} is not a multiple of {}", product.base_increment);
                return reject(Reason::InvalidSizePrecision, message);
            }
            terms.limit_price.map_or(Ok(()), |price| check_value(product, product.value(size, price)))
        }
    }
}

fn check_value(product: &Product, value: Decimal) -> Result<(), Rejection> {
    if value < product.quote_min_size {
        let message = format!("order value {value} is below {}", product.quote_min_size);
        return Err(Rejection::new(Reason::PreviewInvalidQuoteSizeTooSmall, message));
    }
    if value > product.quote_max_size {
        let message = format!("order value {value} is above {}", product.quote_max_size);
        return Err(Rejection::new(Reason::PreviewInvalidQuoteSizeTooLarge, message));
    }
    Ok(())
}
