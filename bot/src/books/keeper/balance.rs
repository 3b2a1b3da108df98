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

impl Keeper {
    /// Compares the balance with the books, if it was shown after everything that they have.
    pub(super) async fn compare(&mut self, shown: &Shown) {
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
        match change {
            Change::Flow { quote } => self.flow(quote, shown.at, change).await,
            Change::Settled { window_end, quote } => self.settle(window_end, quote, shown).await,
        }
    }

    async fn flow(&mut self, quote: Decimal, at: Timestamp, change: Change) {
        if !self.post(vec![Posting::Flow(FlowRecord { at, quote })]).await {
            return;
        }
        if self.balance.is_open() {
            tracing::info!(%quote, "the balance changed by something that is not this bot's");
        } else {
            // The books begin: what was settled before is in the balance.
            self.hours = Some(Hours::after(at));
            self.settled_daily = self.settled_daily.max(at);
        }
        self.balance.booked(change);
    }

    /// Books what came when funding was due: the bot's funding, and what is not.
    async fn settle(&mut self, window_end: Timestamp, moved_quote: Decimal, shown: &Shown) {
        let inside: Vec<_> = self.accrued.iter().filter(|hour| hour.hour <= window_end).collect();
        let future = &self.identity.future_product;
        let last_price = self.account.leg(future).map(|leg| leg.last_price).unwrap_or_default();
        let price = shown.future.future.as_ref().and_then(|details| details.mark).unwrap_or(last_price);
        let held = shown.holdings.contracts.iter().filter(|(product, held)| *product != future && !held.is_zero());
        let others: Vec<_> = held.map(|(product, _)| product.as_str()).collect();
        let payment = Payment::of(moved_quote, &inside, price, &others);
        let settlement = SettlementRecord {
            product: future.clone(),
            window_end,
            since: self.settlement.as_ref().map(|settlement| settlement.window_end),
            accrued_quote: inside.iter().map(|hour| hour.accrued_quote).sum(),
            settled_quote: payment.settled_quote,
            booked_at: self.clock.now(),
        };
        let mut postings = vec![Posting::Settlement(settlement.clone())];
        let rest = Change::Flow { quote: payment.rest_quote };
        if !payment.rest_quote.is_zero() {
            postings.push(Posting::Flow(FlowRecord { at: shown.at, quote: payment.rest_quote }));
        }
        if !self.post(postings).await {
            return;
        }
        let (quote, adjustment) = (settlement.settled_quote, settlement.adjustment_quote());
        match payment.doubt {
            None => tracing::info!(%quote, %adjustment, %window_end, "funding was settled"),
            Some(doubt) => tracing::warn!(
                %moved_quote, %window_end, rest_quote = %payment.rest_quote,
                "what came when funding was due is not all this bot's: {doubt}; the estimate, {quote}, is booked as its \
                 funding and the rest as money of others"
            ),
        }
        self.balance.booked(rest);
        self.account.settled_quote += quote;
        self.accrued.retain(|hour| hour.hour > window_end);
        self.settlement = Some(settlement);
    }
}
