//! What is booked because of the balance: what came when funding was due, and what is not this bot's.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;

use super::super::Shown;
use super::super::balance::{Accrued, Change, Payment, Reading};
use super::super::calendar::{HOUR, last_daily_settlement};
use super::super::hours::Hours;
use super::Keeper;
use crate::ledger::{FlowRecord, Posting, SettlementRecord};

/// Difference of two clocks up to which a bot trades.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_secs(30);

/// What the balance says is to be booked. A write that was not confirmed may have come in all the same, so it is repeated
/// as it is: under its keys it counts once.
#[derive(Clone, Debug)]
pub(super) struct Booking {
    settlement: Option<SettlementRecord>,
    flow: Option<FlowRecord>,
}

impl Keeper {
    /// Compares the balance with the books, if it was shown after everything that they have.
    pub(super) async fn compare(&mut self, shown: &Shown) {
        if let Some(booking) = self.unconfirmed.take() {
            return self.book(booking).await;
        }
        // The exchange's clock is in the fills and the bot's in what was shown: the first comparison, of which nothing
        // before can tell that it is wrong, leaves them room.
        let room = if self.balance.is_compared() { SignedDuration::ZERO } else { CLOCKS_DIFFER };
        if shown.at.checked_sub(room).is_ok_and(|at| self.account.is_past(at)) {
            return;
        }
        let due = last_daily_settlement(shown.at);
        let settles_daily = shown.future.future.as_ref().is_some_and(|future| future.settlement_price.is_some());
        let unsettled = settles_daily && self.balance.is_open() && due > self.settled_daily;
        if self.outstanding.count() > 0 || self.needs_reread || unsettled {
            return;
        }
        let of = |currency: &str| shown.holdings.balances.get(currency).copied().unwrap_or_default();
        let (spot, future) = (self.identity.spot_product.clone(), self.identity.future_product.clone());
        let reading = Reading {
            at: shown.at,
            quote: of(&shown.spot.quote_currency),
            base: of(&shown.spot.base_currency),
            contracts: shown.holdings.contracts.get(&future).copied().unwrap_or_default(),
        };
        let until = self.hours.as_ref().and_then(|hours| hours.next().checked_sub(HOUR).ok());
        let accrued =
            Accrued { until: until.unwrap_or(Timestamp::MIN), first: self.accrued.first().map(|hour| hour.hour) };
        let Some(change) = self.balance.read(reading, &self.account, (&spot, &future), accrued) else { return };
        let booking = match change {
            Change::Flow { quote } => Booking { settlement: None, flow: Some(FlowRecord { at: shown.at, quote }) },
            Change::Settled { window_end, quote } => self.settled(window_end, quote, shown),
        };
        self.book(booking).await;
    }

    /// What came when funding was due: the bot's funding, and what is not.
    fn settled(&self, window_end: Timestamp, moved_quote: Decimal, shown: &Shown) -> Booking {
        let inside: Vec<_> = self.accrued.iter().filter(|hour| hour.hour <= window_end).collect();
        let future = &self.identity.future_product;
        let last_price = self.account.leg(future).map(|leg| leg.last_price).unwrap_or_default();
        let price = shown.future.future.as_ref().and_then(|details| details.mark).unwrap_or(last_price);
        let held = shown.holdings.contracts.iter().filter(|(product, held)| *product != future && !held.is_zero());
        let others: Vec<_> = held.map(|(product, _)| product.as_str()).collect();
        let Payment { settled_quote, rest_quote, doubt } = Payment::of(moved_quote, &inside, price, &others);
        if let Some(doubt) = doubt {
            tracing::warn!(
                %moved_quote, %window_end, %rest_quote,
                "what came when funding was due is not all this bot's: {doubt}; the estimate, {settled_quote}, is booked \
                 as its funding and the rest as money of others"
            );
        }
        let settlement = SettlementRecord {
            product: future.clone(),
            window_end,
            since: self.settlement.as_ref().map(|settlement| settlement.window_end),
            accrued_quote: inside.iter().map(|hour| hour.accrued_quote).sum(),
            settled_quote,
            booked_at: self.clock.now(),
        };
        let flow = (!rest_quote.is_zero()).then_some(FlowRecord { at: shown.at, quote: rest_quote });
        Booking { settlement: Some(settlement), flow }
    }

    /// Writes it, and counts it once it is written.
    async fn book(&mut self, booking: Booking) {
        let postings = booking.settlement.iter().cloned().map(Posting::Settlement);
        if !self.post(postings.chain(booking.flow.iter().cloned().map(Posting::Flow)).collect()).await {
            self.unconfirmed = Some(booking);
            return;
        }
        if let Some(settlement) = booking.settlement {
            let (quote, adjustment) = (settlement.settled_quote, settlement.adjustment_quote());
            tracing::info!(%quote, %adjustment, window_end = %settlement.window_end, "funding was settled");
            self.account.settled_quote += quote;
            self.accrued.retain(|hour| hour.hour > settlement.window_end);
            self.settlement = Some(settlement);
        }
        let Some(FlowRecord { at, quote }) = booking.flow else { return };
        if self.balance.is_open() {
            tracing::info!(%quote, "the balance changed by something that is not this bot's");
        } else {
            // The books begin: what was settled before is in the balance.
            self.hours = Some(Hours::after(at));
            self.settled_daily = self.settled_daily.max(at);
        }
        self.balance.booked(quote);
    }
}
