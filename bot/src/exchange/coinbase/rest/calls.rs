//! The client of one key: what each of its calls asks for, and what the reply means.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::json;

use super::super::budget::{Budget, Priority};
use super::super::jwt::{Signer, VenueClock};
use super::super::transport::Transport;
use super::super::wire;
use super::{Authentication, Call, Rest, unreadable};
use crate::exchange::{
    Exchange, ExchangeError, FeeRates, Fill, Holdings, KeyPermissions, OrderKind, OrderState, Placed, Product,
};
use crate::risk::{Class, Cleared};

/// Orders in one batch_cancel.
const CANCEL_BATCH: usize = 100;
/// Orders in one request for fills: their ids stand in the URL.
const FILLS_BATCH: usize = 100;

/// The REST client of one key at one endpoint.
#[derive(Debug)]
pub struct Coinbase {
    pub(super) rest: Rest,
    signer: Arc<Signer>,
    /// Products that refuse orders which expire by themselves.
    resting: Mutex<BTreeSet<String>>,
}

impl Coinbase {
    /// A client that has not yet talked to anybody.
    ///
    /// # Errors
    /// The URL or the TLS configuration cannot be used.
    pub fn new(
        rest_url: &str,
        transport: &Transport,
        tls: rustls::ClientConfig,
        signer: Arc<Signer>,
        venue: Arc<VenueClock>,
        budget: Arc<Budget>,
    ) -> Result<Self, ExchangeError> {
        let rest = Rest::new(rest_url, transport, tls, Some(Arc::clone(&signer)), venue, budget)?;
        Ok(Self { rest, signer, resting: Mutex::default() })
    }

    /// Fingerprint of the key in use.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.signer.key().fingerprint()
    }

    /// Why the endpoint counts as failing; None while it answers.
    #[must_use]
    pub fn failing(&self) -> Option<String> {
        self.rest.failing()
    }

    /// Whether the exchange refused the key at the last call.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.rest.refused.load(Ordering::Relaxed)
    }

    fn resting(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Products on which a resting order does not expire by itself, because the venue refuses that.
    #[must_use]
    pub fn without_expiry(&self) -> Vec<String> {
        self.resting().iter().cloned().collect()
    }

    /// The venue's time, as measured.
    #[must_use]
    pub fn venue_clock(&self) -> &VenueClock {
        &self.rest.venue
    }

    /// Measures the venue's time (GET /time, without authentication).
    ///
    /// # Errors
    /// The venue did not answer.
    pub async fn measure_time(&self) -> Result<(), ExchangeError> {
        self.rest.measure_time().await
    }
}

impl Coinbase {
    async fn cancel_batch(&self, order_ids: &[String]) -> Result<Vec<(String, String)>, ExchangeError> {
        let call = Call {
            method: Method::POST,
            body: Some(json!({"order_ids": order_ids})),
            priority: Priority::Reserved,
            ..Call::get(&["orders", "batch_cancel"], &[])
        };
        let cancels: wire::Cancels = self.rest.call(&call).await?;
        let refused = |id: &String| match cancels.results.iter().find(|result| result.order_id == *id) {
            Some(result) if result.success => None,
            Some(result) => Some((id.clone(), result.failure_reason.clone())),
            None => Some((id.clone(), "NOT_IN_REPLY".to_owned())),
        };
        Ok(order_ids.iter().filter_map(refused).collect())
    }
}

/// A product as GET /products/{id} or its public form shows it.
pub(in super::super) fn read_product(product: wire::WireProduct, now: Timestamp) -> Result<Product, ExchangeError> {
    let id = product.id().to_owned();
    let call = format!("GET /products/{id}");
    if product.venue() == "INTX" {
        let message = format!(
            "{id} is an INTX perpetual, and INTX perpetuals over Advanced Trade ended on 2026-10-01; choose a US \
             perpetual-style future, for example BIP-20DEC30-CDE"
        );
        return Err(ExchangeError::BadRequest { call, message });
    }
    product.into_product(now).map_err(unreadable(&call))
}

impl Exchange for Coinbase {
    async fn key_permissions(&self) -> Result<KeyPermissions, ExchangeError> {
        Ok(self.rest.get::<wire::Permissions>(&["key_permissions"], &[]).await?.into())
    }

    fn clock_skew(&self) -> Option<SignedDuration> {
        Some(self.rest.venue.skew())
    }

    async fn product(&self, id: &str) -> Result<Product, ExchangeError> {
        let product: wire::WireProduct = self.rest.get(&["products", id], &[]).await?;
        read_product(product, self.rest.venue.now())
    }

    async fn orders(&self, products: &[String], since: Option<Timestamp>) -> Result<Vec<OrderState>, ExchangeError> {
        // The engine mixes times of both clocks here: the earlier of the two readings misses nothing.
        let since = since.map(|since| since.min(self.rest.venue.of(since)).to_string());
        // Without order_status: that filter hides orders that are pending or queued.
        let mut query: Vec<(&str, &str)> = products.iter().map(|id| ("product_ids", id.as_str())).collect();
        query.extend(since.as_deref().map(|since| ("start_date", since)));
        self.rest
            .pages(&["orders", "historical", "batch"], &query, <OrderState as TryFrom<wire::Order>>::try_from)
            .await
    }

    async fn order(&self, order_id: &str) -> Result<OrderState, ExchangeError> {
        let one: wire::OneOrder = self.rest.get(&["orders", "historical", order_id], &[]).await?;
        one.order.try_into().map_err(unreadable("GET /orders/historical/{order_id}"))
    }

    async fn fills(&self, order_ids: &[String]) -> Result<Vec<Fill>, ExchangeError> {
        let mut fills = Vec::new();
        for ids in order_ids.chunks(FILLS_BATCH) {
            let query: Vec<(&str, &str)> = ids.iter().map(|id| ("order_ids", id.as_str())).collect();
            let path = ["orders", "historical", "fills"];
            fills.extend(self.rest.pages(&path, &query, <Fill as TryFrom<wire::WireFill>>::try_from).await?);
        }
        Ok(fills)
    }

    async fn fee_rates(&self) -> Result<FeeRates, ExchangeError> {
        let path = ["transaction_summary"];
        let future = [("product_type", "FUTURE"), ("product_venue", "FCM")];
        let (spot, future) = tokio::try_join!(
            self.rest.get::<wire::TransactionSummary>(&path, &[("product_type", "SPOT")]),
            self.rest.get::<wire::TransactionSummary>(&path, &future),
        )?;
        let read = |summary: &wire::TransactionSummary| {
            summary.maker_and_taker().map_err(unreadable("GET /transaction_summary"))
        };
        let ((spot_maker, spot_taker), (future_maker, future_taker)) = (read(&spot)?, read(&future)?);
        Ok(FeeRates { spot_maker, spot_taker, future_maker, future_taker })
    }

    async fn holdings(&self) -> Result<Holdings, ExchangeError> {
        let (accounts, positions, summary) = tokio::try_join!(
            self.rest.pages(&["accounts"], &[], |account: wire::Account| Ok((account.total(), account.currency))),
            self.rest.get::<wire::Positions>(&["cfm", "positions"], &[]),
            self.rest.get::<wire::BalanceSummary>(&["cfm", "balance_summary"], &[]),
        )?;
        let mut holdings = Holdings {
            contracts: positions.contracts().map_err(unreadable("GET /cfm/positions"))?,
            futures_collateral_quote: summary.collateral(),
            ..Holdings::default()
        };
        for (total, currency) in accounts {
            *holdings.balances.entry(currency).or_default() += total;
        }
        Ok(holdings)
    }

    async fn place(&self, cleared: Cleared) -> Result<Placed, ExchangeError> {
        let token_until = cleared.expires_at();
        let mut order = cleared.order().clone();
        let mut expires = true;
        if let OrderKind::PostOnly { expires_at, .. } = &mut order.kind {
            // By the venue's clock: an order must not outlive its bot because the machine's runs ahead.
            *expires_at = self.rest.venue.of(*expires_at);
            expires = !self.resting().contains(&order.product);
        }
        let (path, body) = wire::new_order(&order, expires);
        let priority = priority(&order.kind, cleared.class());
        let call = Call {
            method: Method::POST,
            path,
            query: &[],
            body: Some(body),
            priority,
            authentication: Authentication::TokenUntil(token_until),
            repeatable: false,
        };
        let reply: wire::CreateOrder = self.rest.call(&call).await?;
        let placed = reply.into_placed().map_err(unreadable(&call.name()))?;
        if let (OrderKind::PostOnly { .. }, true, Placed::Rejected { reason, .. }) = (&order.kind, expires, &placed)
            && reason == wire::UNSUPPORTED
        {
            tracing::warn!(
                product = order.product,
                "orders that expire by themselves are refused; the next ones rest until they are cancelled"
            );
            self.resting().insert(order.product);
        }
        Ok(placed)
    }

    async fn cancel(&self, order_ids: &[String]) -> Result<Vec<(String, String)>, ExchangeError> {
        let mut refused = Vec::new();
        let mut failure = None;
        // One batch that fails must not keep the others from being cancelled.
        for batch in order_ids.chunks(CANCEL_BATCH) {
            match self.cancel_batch(batch).await {
                Ok(batch) => refused.extend(batch),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(refused), Err)
    }
}

/// The part that is kept is for what lowers a leg at once: neither quotes nor an entry under way may use it up.
fn priority(kind: &OrderKind, class: Class) -> Priority {
    match kind {
        _ if class.raises() => Priority::Normal,
        OrderKind::PostOnly { .. } | OrderKind::GoodTillCancelled { .. } => Priority::Normal,
        OrderKind::ImmediateOrCancel { .. } | OrderKind::Market | OrderKind::ClosePosition => Priority::Reserved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rust_decimal::Decimal;

    #[test]
    fn only_what_lowers_a_leg_at_once_uses_the_part_that_is_kept() {
        let taking = OrderKind::ImmediateOrCancel { limit_price: Decimal::ONE };
        for (class, expected) in [
            (Class::Enter, Priority::Normal),
            (Class::Hedge, Priority::Normal),
            (Class::Trim, Priority::Reserved),
            (Class::Reduce, Priority::Reserved),
            (Class::Kill, Priority::Reserved),
        ] {
            assert_eq!(priority(&taking, class), expected, "{class}");
            let resting = OrderKind::GoodTillCancelled { limit_price: Decimal::ONE, post_only: false };
            assert_eq!(priority(&resting, class), Priority::Normal, "{class}");
        }
    }
}
