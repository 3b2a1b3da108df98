//! What is booked because of the hour: the funding of each one that has ended, and the settlement of the day.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;

use super::super::Shown;
use super::super::balance::PAID_WITHIN;
use super::super::calendar::{HOUR, last_daily_settlement};
use super::super::hours::{Hours, Rate};
use super::Keeper;
use crate::ledger::{FundingRecord, Posting, VariationRecord};

/// How long after a daily settlement its price is to be seen.
const PRICE_SHOWN_AFTER: SignedDuration = SignedDuration::from_secs(30);
/// How long an hour, or the settlement of a day, waits for fills that are outstanding before it is booked without them.
const LATEST_FILL: SignedDuration = SignedDuration::from_mins(5);

impl Keeper {
    /// Contracts held just before a moment.
    fn contracts_at(&self, at: Timestamp) -> Decimal {
        let later = self.moves.iter().filter(|(moved_at, _)| *moved_at >= at);
        self.account.held(&self.identity.future_product) - later.map(|(_, signed)| signed).sum::<Decimal>()
    }

    /// Books the daily settlement that is due, once its price is shown.
    pub(super) async fn daily_settlement(&mut self, shown: &Shown, now: Timestamp) {
        let Some(price) = shown.future.future.as_ref().and_then(|future| future.settlement_price) else { return };
        let due = last_daily_settlement(shown.at);
        if due <= self.settled_daily || !self.balance.is_open() {
            self.price = Some(price);
            return;
        }
        let waited = shown.at.duration_since(due);
        let contracts = self.contracts_at(due);
        let is_shown = waited >= PRICE_SHOWN_AFTER && (self.price != Some(price) || waited >= PAID_WITHIN);
        if !contracts.is_zero() {
            if !is_shown || (self.outstanding.count() > 0 && waited < LATEST_FILL) {
                return;
            }
            let variation =
                VariationRecord { product: self.identity.future_product.clone(), at: due, price, contracts };
            if !self.post(vec![Posting::Variation(variation.clone())]).await {
                return;
            }
            tracing::info!(%price, %contracts, at = %due, "the position was settled for the day");
            if self.account.is_past(due) {
                self.needs_reread = true;
                self.reread().await;
            } else {
                self.account.variation(&variation);
            }
        }
        (self.settled_daily, self.price) = (due, Some(price));
        self.trim_moves(now);
    }

    /// Accrues the funding of the hours that have ended.
    pub(super) async fn accrue(&mut self, shown: &Shown, now: Timestamp) {
        let Some(seen) = &shown.future.future else { return };
        let Some(hours) = &mut self.hours else { return };
        hours.observe(shown.at, seen.session_open);
        while let Some((hour, rate)) = self.hours.as_ref().and_then(|hours| Some((hours.next(), hours.due(now, seen)?)))
        {
            if self.outstanding.count() > 0 && now.duration_since(hour) < LATEST_FILL {
                return;
            }
            let contracts = self.contracts_at(hour);
            let (product, unit_base) = (self.identity.future_product.clone(), shown.future.unit_base);
            let record = match rate {
                Rate::Observed { rate, mark } => {
                    Some(FundingRecord::observed(product, hour, contracts, unit_base, mark, rate))
                }
                Rate::Missing => Some(FundingRecord::missing(product, hour, contracts, unit_base)),
                Rate::Closed => None,
            };
            if let Some(record) = record.filter(|_| !contracts.is_zero()) {
                if !self.post(vec![Posting::Funding(record.clone())]).await {
                    return;
                }
                self.account.funding(&record);
                self.accrued.push(record);
            }
            if let Some(hours) = &mut self.hours {
                hours.done();
            }
        }
        self.trim_moves(now);
    }

    fn trim_moves(&mut self, now: Timestamp) {
        let hours = self.hours.as_ref().map(Hours::next);
        let needed = hours.into_iter().chain([last_daily_settlement(now)]).min().unwrap_or(now);
        let kept = needed.checked_sub(HOUR).unwrap_or(needed);
        while self.moves.front().is_some_and(|(at, _)| *at < kept) {
            self.moves.pop_front();
        }
    }
}
