//! One order of the bot: its state, and what it may still do.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;

use crate::exchange::{NewOrder, OrderKind, OrderState, OrderStatus};
use crate::risk::Class;

/// What is known of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Admitted; its request may or may not have been sent.
    Intended,
    /// Sent without an answer: it may work.
    Unknown,
    /// As the venue shows it.
    Venue(OrderStatus),
    /// The venue or the gate refused it.
    Rejected,
    /// Proven not to be at the venue.
    NotPlaced,
}

impl State {
    /// Whether nothing can happen to the order any more.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Intended | Self::Unknown => false,
            Self::Venue(status) => status.is_terminal(),
            Self::Rejected | Self::NotPlaced => true,
        }
    }
}

/// One order of the bot.
#[derive(Clone, Debug)]
pub struct Order {
    pub order: NewOrder,
    pub class: Class,
    /// Epoch of the Lease under which it was minted.
    pub epoch: i64,
    /// The venue's id, once known.
    pub order_id: Option<String>,
    pub state: State,
    /// Cumulative.
    pub filled: Decimal,
    pub average_price: Decimal,
    pub fees_quote: Decimal,
    /// CLOCK_BOOTTIME at which it was minted.
    pub minted_at: Duration,
    /// CLOCK_BOOTTIME after which its request can no longer be accepted.
    pub token_expires: Duration,
    /// Whether only the venue remembered it; how it is executed is then not known.
    pub adopted: bool,
    /// When the venue says that it created it, where it is adopted: nobody else knows.
    pub created_at: Option<Timestamp>,
    pub(super) cancel_asked_at: Option<Duration>,
    pub(super) query_asked_at: Option<Duration>,
    pub(super) absent: u32,
    /// When it was first seen to have ended.
    pub(super) ended_at: Option<Duration>,
}

impl Order {
    /// An order that has just been admitted.
    #[must_use]
    pub fn intended(order: NewOrder, class: Class, epoch: i64, now: Duration) -> Self {
        Self {
            order,
            class,
            epoch,
            order_id: None,
            state: State::Intended,
            filled: Decimal::ZERO,
            average_price: Decimal::ZERO,
            fees_quote: Decimal::ZERO,
            minted_at: now,
            token_expires: now + crate::risk::gate::TOKEN_LIFE,
            adopted: false,
            created_at: None,
            cancel_asked_at: None,
            query_asked_at: None,
            absent: 0,
            ended_at: None,
        }
    }

    /// What may still fill.
    #[must_use]
    pub fn remaining(&self) -> Decimal {
        if self.state.is_terminal() { Decimal::ZERO } else { (self.order.size - self.filled).max(Decimal::ZERO) }
    }

    /// Whether it rests in the book until it is filled, cancelled or expired.
    #[must_use]
    pub fn rests(&self) -> bool {
        matches!(self.order.kind, OrderKind::PostOnly { .. })
    }

    /// Whether it may work at the exchange: it rests, or nothing but its existence is known.
    #[must_use]
    pub fn may_rest(&self) -> bool {
        self.rests() || self.adopted
    }

    /// Whether a halt must wait for its end: it may work, or it was not sent by the saga.
    #[must_use]
    pub fn holds_up_a_halt(&self) -> bool {
        self.may_rest() || self.class != Class::Kill
    }

    /// Signed sum of its fills.
    pub(super) fn owned(&self) -> Decimal {
        self.filled * self.order.side.sign()
    }

    /// What its fills brought in at a unit of one, fees excluded. While the exchange has not told their price it is the limit:
    /// they were not worse, and at no price at all a purchase would be a profit of all that it cost.
    pub(super) fn cash(&self) -> Decimal {
        let told = Some(self.average_price).filter(|price| !price.is_zero());
        -self.owned() * told.or(self.order.limit_price()).unwrap_or_default()
    }

    pub(super) fn apply(&mut self, seen: &OrderState) -> bool {
        let before = (self.state, self.filled, self.fees_quote, self.order_id.is_some());
        self.order_id = Some(seen.order_id.clone());
        if self.adopted {
            self.order.size = seen.size.unwrap_or(self.order.size);
            self.created_at = self.created_at.or(seen.created_at);
        }
        // Cumulative figures never go back, and what is over stays over: channels may be late or repeat themselves.
        if seen.filled >= self.filled {
            self.filled = seen.filled;
            // A fill without a price does not take back one that was told.
            if !seen.average_price.is_zero() {
                self.average_price = seen.average_price;
            }
            self.fees_quote = self.fees_quote.max(seen.fees_quote);
        }
        if !self.state.is_terminal() || !matches!(self.state, State::Venue(_)) {
            self.state = match seen.status {
                OrderStatus::Unknown => State::Unknown,
                status => State::Venue(status),
            };
        }
        self.absent = 0;
        before != (self.state, self.filled, self.fees_quote, true)
    }
}
