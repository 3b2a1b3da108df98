//! Changing the price or size of a resting order, which is asynchronous: an accepted request is not yet a changed order.

use rust_decimal::Decimal;
use strum::Display;
use uuid::Uuid;

use super::book::{OrderNumber, acceptable};
use super::journal::Kind;
use super::order::{Edit, Order, OrderConfiguration, Rung, Size, Status, Terms};
use super::place::check_increments;
use super::rejection::{Reason, Rejection};
use super::{Exchange, Now};

/// Why an edit is refused, in Coinbase's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum EditFailure {
    OrderNotFound,
    OnlyLimitOrderEditsSupported,
    OnlyOpenOrdersCanBeEdited,
    CannotEditFuturesOrder,
    CannotEditToBelowFilledSize,
    InvalidEditedSize,
    InvalidEditedPrice,
    EditRequestEqualToOriginalRequest,
    /// A rule that every order must pass; the other reason says which.
    CommanderRejectedEditOrder,
}

/// A refused edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EditRefused {
    pub failure: EditFailure,
    pub rule: Option<Reason>,
}

impl From<EditFailure> for EditRefused {
    fn from(failure: EditFailure) -> Self {
        Self { failure, rule: None }
    }
}

impl From<Rejection> for EditRefused {
    fn from(rejection: Rejection) -> Self {
        Self { failure: EditFailure::CommanderRejectedEditOrder, rule: Some(rejection.reason) }
    }
}

/// The new size and price of an order; both are needed, as on Coinbase.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    pub size: Option<Decimal>,
    pub price: Option<Decimal>,
}

impl Exchange {
    /// Queues the change of a resting limit order; [`Exchange::advance`] makes it after the delay, if it still can be.
    /// Until then the order works, and may fill, as it was.
    ///
    /// # Errors
    /// Why it cannot be edited so.
    pub fn edit(&mut self, now: Now, portfolio: Uuid, id: Uuid, change: Change) -> Result<(), EditRefused> {
        let (number, _) = self.check_edit(portfolio, id, change)?;
        let due = now.time.checked_add(self.edit_delay()).unwrap_or(now.time);
        let Some(order) = self.orders.get_mut(&number) else { return Err(EditFailure::OrderNotFound.into()) };
        order.status = Status::EditQueued;
        order.last_update = now.time;
        self.edits.insert((due, number), change);
        self.record(now, Kind::EditRequested, number, "");
        Ok(())
    }

    /// Makes the changes that are due. One that has become impossible leaves its order as it is.
    pub(super) fn run_edits(&mut self, now: Now) {
        while let Some(entry) = self.edits.first_entry().filter(|entry| entry.key().0 <= now.time) {
            let ((_, number), change) = entry.remove_entry();
            // Filled, cancelled or about to be, or expired meanwhile.
            let Some(order) = self.orders.get_mut(&number).filter(|o| o.status == Status::EditQueued) else { continue };
            order.status = Status::Open;
            order.last_update = now.time;
            let (portfolio, id) = (order.portfolio, order.id);
            match self.check_edit(portfolio, id, change) {
                Ok((_, rung)) => self.change(now, number, rung),
                Err(refused) => self.record(now, Kind::EditRefused, number, &refused.failure.to_string()),
            }
        }
    }

    /// Gives an order a new size and price. It keeps its place in the queue only if it gets smaller at the same price;
    /// otherwise it arrives anew and may trade.
    fn change(&mut self, now: Now, number: OrderNumber, rung: Rung) {
        let Some(order) = self.orders.get_mut(&number) else { return };
        let portfolio = order.portfolio;
        let old = order.rungs.first().copied().unwrap_or(rung);
        order.edits.push(Edit { price: old.price, size: order.size, time: now.time });
        order.size = order.filled_size + rung.remaining;
        order.last_update = now.time;
        order.terms.size = Size::Base(order.size);
        order.terms.limit_price = Some(rung.price);
        if let OrderConfiguration::LimitLimitGtc(limit) = &mut order.configuration {
            (limit.base_size, limit.limit_price) = (Some(order.size), Some(rung.price));
        }
        order.rungs = vec![rung];
        let (market, side, terms) = (order.market, order.side, order.terms);
        let hold = self.hold(market, portfolio, side, &Terms { size: Size::Base(rung.remaining), ..terms }, &[rung]);
        let product = self.markets[market].product.clone();
        let currency = super::settle::held_currency(side, &product.base, &product.quote);
        if let (Some(order), Some(owner)) = (self.orders.get_mut(&number), self.portfolios.get_mut(&portfolio)) {
            owner.balance_mut(currency).hold += hold - order.hold;
            order.hold = hold;
        }
        self.record(now, Kind::OrderEdited, number, "");
        let book = &mut self.markets[market].book;
        if old.price == rung.price && rung.remaining <= old.remaining {
            book.reduce(side, rung.price, number, rung.remaining);
            return;
        }
        book.remove(side, old.price, number);
        if let Some(order) = self.orders.get_mut(&number) {
            order.resting = false;
        }
        self.execute(now, number);
        self.run_triggers(now);
    }

    /// The order and where it would work after the change.
    ///
    /// # Errors
    /// Why it cannot be edited so.
    pub fn check_edit(&self, portfolio: Uuid, id: Uuid, change: Change) -> Result<(OrderNumber, Rung), EditRefused> {
        let order = self.order(id).filter(|o| o.portfolio == portfolio).ok_or(EditFailure::OrderNotFound)?;
        let market = &self.markets[order.market];
        if !matches!(order.configuration, OrderConfiguration::LimitLimitGtc(_)) {
            return Err(EditFailure::OnlyLimitOrderEditsSupported.into());
        }
        if order.status != Status::Open {
            return Err(EditFailure::OnlyOpenOrdersCanBeEdited.into());
        }
        if market.product.is_future() {
            return Err(EditFailure::CannotEditFuturesOrder.into());
        }
        let size = change.size.filter(|size| *size > Decimal::ZERO).ok_or(EditFailure::InvalidEditedSize)?;
        let price = change.price.filter(|price| *price > Decimal::ZERO).ok_or(EditFailure::InvalidEditedPrice)?;
        if size <= order.filled_size {
            return Err(EditFailure::CannotEditToBelowFilledSize.into());
        }
        if size == order.size && Some(price) == order.terms.limit_price {
            return Err(EditFailure::EditRequestEqualToOriginalRequest.into());
        }
        let terms = Terms { size: Size::Base(size), limit_price: Some(price), ..order.terms };
        check_increments(&market.product, order.side, &terms)?;
        self.check_band(order.market, order.side, &terms)?;
        self.check_post_only(order, price)?;
        let rung = Rung { price, remaining: size - order.filled_size };
        self.check_edited_funds(order, &terms, rung)?;
        Ok((order.number, rung))
    }

    fn check_post_only(&self, order: &Order, price: Decimal) -> Result<(), Rejection> {
        let best = self.markets[order.market].book.best(order.side.opposite());
        if order.terms.post_only && best.is_some_and(|best| acceptable(order.side, Some(price), best)) {
            return Err(Rejection::new(Reason::InvalidLimitPricePostOnly, "the edited order would match at once"));
        }
        Ok(())
    }

    /// What the order reserves now counts as free.
    fn check_edited_funds(&self, order: &Order, terms: &Terms, rung: Rung) -> Result<(), Rejection> {
        let Some(owner) = self.portfolios.get(&order.portfolio) else { return Ok(()) };
        let product = &self.markets[order.market].product;
        let terms = Terms { size: Size::Base(rung.remaining), ..*terms };
        let needed = self.hold(order.market, order.portfolio, order.side, &terms, &[rung]);
        let free = match order.side {
            super::book::Side::Buy => self.available_usd(owner),
            super::book::Side::Sell => {
                let balance = owner.balance(&product.base);
                balance.total - balance.hold
            }
        };
        if needed > free + order.hold {
            return Err(Rejection::new(Reason::InsufficientFund, "Insufficient balance in source account"));
        }
        Ok(())
    }
}
