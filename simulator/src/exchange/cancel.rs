//! Cancelling, which is asynchronous: an accepted request is not yet a cancelled order. And expiry.

use jiff::Timestamp;
use strum::Display;
use uuid::Uuid;

use super::book::OrderNumber;
use super::journal::Kind;
use super::order::Status;
use super::{Exchange, Now};

/// Why a cancel request is refused, in Coinbase's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum CancelFailure {
    UnknownCancelOrder,
    DuplicateCancelRequest,
    OrderIsFullyFilled,
    CommanderRejectedCancelOrder,
}

impl Exchange {
    /// Queues the cancel of an order of this portfolio; [`Exchange::advance`] performs it after the delay.
    ///
    /// # Errors
    /// Why there is nothing to cancel.
    pub fn request_cancel(&mut self, now: Now, portfolio: Uuid, id: Uuid) -> Result<(), CancelFailure> {
        let number = self.numbers.get(&id).copied().ok_or(CancelFailure::UnknownCancelOrder)?;
        let order = self
            .orders
            .get_mut(&number)
            .filter(|o| o.portfolio == portfolio)
            .ok_or(CancelFailure::UnknownCancelOrder)?;
        match order.status {
            Status::CancelQueued => return Err(CancelFailure::DuplicateCancelRequest),
            Status::Filled => return Err(CancelFailure::OrderIsFullyFilled),
            status if status.is_terminal() => return Err(CancelFailure::CommanderRejectedCancelOrder),
            _ => {}
        }
        order.status = Status::CancelQueued;
        order.last_update = now.time;
        let due = now.time.checked_add(self.cancel_delay()).unwrap_or(now.time);
        if self.behaviour.cancel_delay.is_some() {
            self.behaved("slow_cancels");
        }
        self.cancels.insert((due, number));
        self.record(now, Kind::CancelRequested, number, "");
        Ok(())
    }

    pub(super) fn run_timers(&mut self, now: Now) {
        while let Some(number) = pop_due(&mut self.cancels, now.time) {
            self.close(now, number, Status::Cancelled, "User requested cancel");
        }
        self.run_edits(now);
        self.run_slices(now);
        while let Some(number) = pop_due(&mut self.expiries, now.time) {
            self.close(now, number, Status::Expired, "end_time reached");
        }
        self.run_triggers(now);
    }
}

fn pop_due(timers: &mut std::collections::BTreeSet<(Timestamp, OrderNumber)>, now: Timestamp) -> Option<OrderNumber> {
    if timers.first().is_none_or(|(due, _)| *due > now) {
        return None;
    }
    timers.pop_first().map(|(_, number)| number)
}
