//! Products.

use k8s_openapi::jiff::Timestamp;
use rust_decimal::{Decimal, dec};
use serde::Deserialize;

use super::{decimal, nullable, time_or_none};
use crate::exchange::{CarryTerms, FutureDetails, Product};

/// Bounds of a product's rules: increments, least sizes and contract sizes.
const LEAST_RULE: Decimal = dec!(0.0000000001);
const LARGEST_RULE: Decimal = dec!(1_000_000);

/// GET /products/{id}.
#[derive(Deserialize)]
pub struct WireProduct {
    product_id: String,
    /// Of the last trade, and the middle of the best prices; the latter may be empty.
    #[serde(default, deserialize_with = "decimal")]
    price: Decimal,
    #[serde(default, deserialize_with = "decimal")]
    mid_market_price: Decimal,
    #[serde(deserialize_with = "decimal")]
    price_increment: Decimal,
    #[serde(deserialize_with = "decimal")]
    base_increment: Decimal,
    #[serde(default, deserialize_with = "decimal")]
    base_min_size: Decimal,
    #[serde(default, deserialize_with = "decimal")]
    quote_min_size: Decimal,
    #[serde(default, deserialize_with = "nullable")]
    base_currency_id: String,
    #[serde(default, deserialize_with = "nullable")]
    quote_currency_id: String,
    #[serde(default, deserialize_with = "nullable")]
    is_disabled: bool,
    #[serde(default, deserialize_with = "nullable")]
    trading_disabled: bool,
    #[serde(default, deserialize_with = "nullable")]
    cancel_only: bool,
    #[serde(default, deserialize_with = "nullable")]
    post_only: bool,
    #[serde(default, deserialize_with = "nullable")]
    auction_mode: bool,
    #[serde(default, deserialize_with = "nullable")]
    view_only: bool,
    #[serde(default, deserialize_with = "nullable")]
    product_venue: String,
    fcm_trading_session_details: Option<Session>,
    future_product_details: Option<Future>,
}

#[derive(Deserialize)]
struct Session {
    is_session_open: bool,
    #[serde(default, deserialize_with = "time_or_none")]
    open_time: Option<Timestamp>,
    maintenance: Option<Maintenance>,
}

#[derive(Deserialize)]
struct Maintenance {
    #[serde(default, deserialize_with = "time_or_none")]
    end_time: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Future {
    #[serde(deserialize_with = "decimal")]
    contract_size: Decimal,
    #[serde(default, deserialize_with = "nullable")]
    contract_root_unit: String,
    intraday_margin_rate: Option<Margin>,
    overnight_margin_rate: Option<Margin>,
    /// Of the hour that ended at `funding_time`. On US futures it stands here and not in perpetual_details.
    #[serde(default, deserialize_with = "decimal")]
    funding_rate: Decimal,
    #[serde(default, deserialize_with = "time_or_none")]
    funding_time: Option<Timestamp>,
    /// Of the underlying.
    #[serde(default, deserialize_with = "decimal")]
    index_price: Decimal,
    /// Of the last daily settlement.
    #[serde(default, deserialize_with = "decimal")]
    settlement_price: Decimal,
}

/// Initial margin as a fraction of notional.
#[derive(Deserialize)]
struct Margin {
    #[serde(default, deserialize_with = "decimal")]
    long_margin_rate: Decimal,
    #[serde(default, deserialize_with = "decimal")]
    short_margin_rate: Decimal,
}

impl WireProduct {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.product_id
    }

    /// Where the product trades: CBE (spot), FCM (US derivatives), INTX (ended).
    pub fn venue(&self) -> &str {
        &self.product_venue
    }

    /// `now` in venue time.
    pub fn into_product(self, now: Timestamp) -> Result<Product, String> {
        // Post-only and auction phases take no order that completes a hedge.
        let closed = self.is_disabled
            || self.trading_disabled
            || self.cancel_only
            || self.post_only
            || self.auction_mode
            || self.view_only;
        // Rules beyond these are no product's, and sizes computed from them would leave the range of a Decimal.
        let positive = |name: &str, value: Decimal| {
            if value >= LEAST_RULE && value <= LARGEST_RULE {
                Ok(value)
            } else {
                Err(format!("{name} of {} is {value}, not between {LEAST_RULE} and {LARGEST_RULE}", self.product_id))
            }
        };
        for (name, value) in [("base_min_size", self.base_min_size), ("quote_min_size", self.quote_min_size)] {
            if !value.is_zero() {
                positive(name, value)?;
            }
        }
        let price_increment = positive("price_increment", self.price_increment)?;
        let size_increment = positive("base_increment", self.base_increment)?;
        let unit_base = match &self.future_product_details {
            Some(future) => positive("contract_size", future.contract_size)?,
            None => Decimal::ONE,
        };
        let session = self.fcm_trading_session_details;
        let price = Some(self.mid_market_price).filter(|mid| *mid > Decimal::ZERO).unwrap_or(self.price);
        let future = self.future_product_details.as_ref().map(|future| FutureDetails {
            // A future without session details is not known to be open.
            session_open: session.as_ref().is_some_and(|session| session.is_session_open),
            reopens_at: session.as_ref().and_then(|session| session.reopens_at(now)),
            opened_at: session.as_ref().filter(|session| session.is_session_open).and_then(|session| session.open_time),
            mark: Some(price).filter(|price| *price > Decimal::ZERO),
            index: Some(future.index_price).filter(|price| *price > Decimal::ZERO),
            settlement_price: Some(future.settlement_price).filter(|price| *price > Decimal::ZERO),
            terms: future.terms(),
        });
        let root = self.future_product_details.map(|future| future.contract_root_unit);
        Ok(Product {
            base_currency: root.unwrap_or(self.base_currency_id),
            quote_currency: self.quote_currency_id,
            price_increment,
            size_increment,
            min_size: self.base_min_size.max(size_increment),
            min_notional_quote: self.quote_min_size,
            unit_base,
            tradable: !closed,
            future,
            id: self.product_id,
        })
    }
}

impl Future {
    fn terms(&self) -> CarryTerms {
        let rates = [&self.intraday_margin_rate, &self.overnight_margin_rate];
        let worst = |of: fn(&Margin) -> Decimal| rates.into_iter().flatten().map(of).max();
        CarryTerms {
            // What is not said may be the whole notional.
            long_margin: worst(|rate| rate.long_margin_rate).unwrap_or(Decimal::ONE),
            short_margin: worst(|rate| rate.short_margin_rate).unwrap_or(Decimal::ONE),
            funding_rate: self.funding_rate,
            funding_time: self.funding_time,
        }
    }
}

impl Session {
    fn reopens_at(&self, now: Timestamp) -> Option<Timestamp> {
        if self.is_session_open {
            return None;
        }
        let maintenance = self.maintenance.as_ref().and_then(|maintenance| maintenance.end_time);
        // The later of what is still to come: a session that opens inside a maintenance opens after it.
        self.open_time.into_iter().chain(maintenance).filter(|time| *time > now).max()
    }
}
