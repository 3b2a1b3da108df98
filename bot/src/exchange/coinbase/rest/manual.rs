//! What only a person at the command line asks for: previews, edits, and lists with every figure that the venue shows.
//! Amounts stay in the venue's own words, so that nothing is lost or rounded on its way to the screen.

use std::path::Path;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::budget::{Budget, Priority};
use super::super::jwt::{Signer, VenueClock};
use super::super::key::ApiKey;
use super::super::session::SessionError;
use super::super::tls;
use super::super::transport::Transport;
use super::super::wire::{self, nullable};
use super::{Call, Coinbase};
use crate::clock::Clock;
use crate::exchange::{ExchangeError, NewOrder};
use crate::randomness::Randomness;

/// Requests per second of a command: enough for all that one order asks for, and less than what an account has.
const RATE: u32 = 20;

/// An order with everything that a person asks about it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct OrderDetails {
    pub order_id: String,
    #[serde(default, deserialize_with = "nullable")]
    pub client_order_id: String,
    pub product_id: String,
    pub side: String,
    pub status: String,
    #[serde(default, deserialize_with = "nullable")]
    pub order_configuration: Value,
    #[serde(default, deserialize_with = "nullable")]
    pub filled_size: String,
    #[serde(default, deserialize_with = "nullable")]
    pub average_filled_price: String,
    #[serde(default, deserialize_with = "nullable")]
    pub total_fees: String,
    #[serde(default, deserialize_with = "nullable")]
    pub created_time: String,
    #[serde(default, deserialize_with = "nullable")]
    pub last_fill_time: String,
    #[serde(default, deserialize_with = "nullable")]
    pub last_update_time: String,
    #[serde(default, deserialize_with = "nullable")]
    pub reject_reason: String,
    #[serde(default, deserialize_with = "nullable")]
    pub reject_message: String,
    #[serde(default, deserialize_with = "nullable")]
    pub cancel_message: String,
}

impl OrderDetails {
    /// Kind of the order, as the venue names it, for example `limit_limit_gtc`.
    #[must_use]
    pub fn kind(&self) -> String {
        let names = self.order_configuration.as_object().map(|configuration| configuration.keys().cloned());
        names.into_iter().flatten().next().unwrap_or_default()
    }

    /// A field inside the order's one configuration, for example `limit_price`.
    #[must_use]
    pub fn term(&self, name: &str) -> String {
        let inner = self.order_configuration.as_object().and_then(|configuration| configuration.values().next());
        inner.and_then(|inner| inner.get(name)).and_then(Value::as_str).unwrap_or_default().to_owned()
    }
}

/// A fill.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Fill {
    #[serde(default, deserialize_with = "nullable")]
    pub trade_id: String,
    pub order_id: String,
    pub trade_time: String,
    pub price: String,
    pub size: String,
    #[serde(default, deserialize_with = "nullable")]
    pub commission: String,
    #[serde(default, deserialize_with = "nullable")]
    pub liquidity_indicator: String,
}

/// What an order would do.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Preview {
    #[serde(default, deserialize_with = "nullable")]
    pub order_total: String,
    #[serde(default, deserialize_with = "nullable")]
    pub commission_total: String,
    #[serde(default, deserialize_with = "nullable")]
    pub base_size: String,
    #[serde(default, deserialize_with = "nullable")]
    pub quote_size: String,
    #[serde(default, deserialize_with = "nullable")]
    pub best_bid: String,
    #[serde(default, deserialize_with = "nullable")]
    pub best_ask: String,
    #[serde(default, deserialize_with = "nullable")]
    pub slippage: String,
    #[serde(default, deserialize_with = "nullable")]
    pub order_margin_total: String,
    #[serde(default, deserialize_with = "nullable")]
    pub warning: Vec<String>,
    /// Why the venue would refuse it.
    #[serde(default, deserialize_with = "nullable")]
    pub errs: Vec<String>,
    /// The same of an edit.
    #[serde(default, deserialize_with = "nullable")]
    pub errors: Vec<EditError>,
}

impl Preview {
    /// Why the venue would refuse it; empty: it would not.
    #[must_use]
    pub fn refusals(&self) -> Vec<String> {
        self.errs.iter().cloned().chain(self.errors.iter().map(EditError::reason)).collect()
    }
}

/// Why an edit is refused.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct EditError {
    #[serde(default, deserialize_with = "nullable")]
    edit_failure_reason: String,
    #[serde(default, deserialize_with = "nullable")]
    preview_failure_reason: String,
}

impl EditError {
    fn reason(&self) -> String {
        let specific = !self.preview_failure_reason.is_empty() && !self.preview_failure_reason.starts_with("UNKNOWN_");
        match (specific, self.edit_failure_reason.is_empty()) {
            (true, false) => format!("{} ({})", self.edit_failure_reason, self.preview_failure_reason),
            (true, true) => self.preview_failure_reason.clone(),
            (false, _) => self.edit_failure_reason.clone(),
        }
    }
}

#[derive(Deserialize)]
struct Edited {
    success: bool,
    #[serde(default, deserialize_with = "nullable")]
    errors: Vec<EditError>,
}

/// What is there of one currency.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Balance {
    pub currency: String,
    pub available_balance: Amount,
    #[serde(default, deserialize_with = "nullable")]
    pub hold: Amount,
}

/// A number and its currency, or a plain number.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Amount {
    #[serde(default, deserialize_with = "nullable")]
    pub value: String,
}

/// A futures position.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Position {
    pub product_id: String,
    #[serde(default, deserialize_with = "nullable")]
    pub side: String,
    pub number_of_contracts: String,
    #[serde(default, deserialize_with = "nullable")]
    pub avg_entry_price: String,
    #[serde(default, deserialize_with = "nullable")]
    pub current_price: String,
    #[serde(default, deserialize_with = "nullable")]
    pub unrealized_pnl: String,
    #[serde(default, deserialize_with = "nullable")]
    pub daily_realized_pnl: String,
}

#[derive(Deserialize)]
struct Positions {
    #[serde(default, deserialize_with = "nullable")]
    positions: Vec<Position>,
}

/// The futures account, in quote currency.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct FuturesBalance {
    pub total_usd_balance: Amount,
    #[serde(default, deserialize_with = "nullable")]
    pub futures_buying_power: Amount,
    #[serde(default, deserialize_with = "nullable")]
    pub available_margin: Amount,
    #[serde(default, deserialize_with = "nullable")]
    pub initial_margin: Amount,
    #[serde(default, deserialize_with = "nullable")]
    pub unrealized_pnl: Amount,
    #[serde(default, deserialize_with = "nullable")]
    pub liquidation_buffer_amount: Amount,
}

#[derive(Deserialize)]
struct BalanceSummary {
    balance_summary: FuturesBalance,
}

/// Fees as fractions of value.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct FeeTier {
    #[serde(default, deserialize_with = "nullable")]
    pub pricing_tier: String,
    pub maker_fee_rate: String,
    pub taker_fee_rate: String,
}

#[derive(Deserialize)]
struct TransactionSummary {
    fee_tier: FeeTier,
}

#[derive(Deserialize)]
struct BestBidAsk {
    #[serde(default, deserialize_with = "nullable")]
    pricebooks: Vec<PriceBook>,
}

#[derive(Deserialize)]
pub(super) struct PriceBook {
    product_id: String,
    #[serde(default, deserialize_with = "nullable")]
    bids: Vec<Level>,
    #[serde(default, deserialize_with = "nullable")]
    asks: Vec<Level>,
}

#[derive(Deserialize)]
struct Level {
    price: String,
}

impl PriceBook {
    /// Best bid and offer; empty where there is none.
    pub(super) fn best(self) -> (String, String) {
        let first = |levels: Vec<Level>| levels.into_iter().next().map(|level| level.price).unwrap_or_default();
        (first(self.bids), first(self.asks))
    }
}

impl Coinbase {
    /// A client for one command, with the key of a directory. It has talked to nobody yet.
    ///
    /// # Errors
    /// The key, the authority or the URL cannot be used; the error names it and the remedy.
    pub fn for_command(
        rest_url: &str,
        ca_file: Option<&Path>,
        credentials_dir: &Path,
        clock: Clock,
    ) -> Result<Self, SessionError> {
        let signer = Arc::new(Signer::new(ApiKey::load(credentials_dir)?, Randomness::system()));
        let tls = tls::client_config(ca_file)?;
        let venue = Arc::new(VenueClock::new(clock));
        Ok(Self::new(rest_url, &Transport::Network, tls, signer, venue, Arc::new(Budget::new(RATE)))?)
    }

    /// What the venue would make of an order. Nothing is placed.
    ///
    /// # Errors
    /// The venue does not answer, or refuses the request.
    pub async fn preview(&self, order: &NewOrder) -> Result<Preview, ExchangeError> {
        let (path, mut body) = wire::new_order(order, true);
        if path != ["orders"] {
            let message = "close_position has no preview; preview the same size as a market order".to_owned();
            return Err(ExchangeError::BadRequest { call: "POST /orders/preview".to_owned(), message });
        }
        if let Some(body) = body.as_object_mut() {
            body.remove("client_order_id");
        }
        let call = Call { method: Method::POST, body: Some(body), ..Call::get(&["orders", "preview"], &[]) };
        self.rest.call(&call).await
    }

    /// What the venue would make of an edit. Nothing changes.
    ///
    /// # Errors
    /// The venue does not answer, or refuses the request.
    pub async fn preview_edit(&self, order_id: &str, price: &str, size: &str) -> Result<Preview, ExchangeError> {
        let body = json!({"order_id": order_id, "price": price, "size": size});
        let call = Call { method: Method::POST, body: Some(body), ..Call::get(&["orders", "edit_preview"], &[]) };
        self.rest.call(&call).await
    }

    /// Changes price and size of a resting order that is good till cancelled. It is said once: saying it twice after a
    /// lost reply could undo a fill's effect on the size. Returns the venue's reasons where it refuses.
    ///
    /// # Errors
    /// The venue does not answer: the order tells whether it was changed.
    pub async fn edit(&self, order_id: &str, price: &str, size: &str) -> Result<Vec<String>, ExchangeError> {
        let body = json!({"order_id": order_id, "price": price, "size": size});
        let call = Call {
            method: Method::POST,
            body: Some(body),
            priority: Priority::Normal,
            repeatable: false,
            ..Call::get(&["orders", "edit"], &[])
        };
        let edited: Edited = self.rest.call(&call).await?;
        Ok(match (edited.success, edited.errors.is_empty()) {
            (true, _) => Vec::new(),
            (false, true) => vec!["UNKNOWN_EDIT_ORDER_FAILURE_REASON".to_owned()],
            (false, false) => edited.errors.iter().map(EditError::reason).collect(),
        })
    }

    /// Orders of every status, newest first as the venue lists them.
    ///
    /// # Errors
    /// The venue does not answer, or with something unreadable.
    pub async fn order_details(
        &self,
        product: Option<&str>,
        since: Option<Timestamp>,
    ) -> Result<Vec<OrderDetails>, ExchangeError> {
        let since = since.map(|since| since.to_string());
        let mut query: Vec<(&str, &str)> = product.map(|id| ("product_ids", id)).into_iter().collect();
        query.extend(since.as_deref().map(|since| ("start_date", since)));
        self.rest.pages(&["orders", "historical", "batch"], &query, Ok).await
    }

    /// One order by the venue's id.
    ///
    /// # Errors
    /// There is none, or the venue does not answer.
    pub async fn order_detail(&self, order_id: &str) -> Result<OrderDetails, ExchangeError> {
        #[derive(Deserialize)]
        struct One {
            order: OrderDetails,
        }
        Ok(self.rest.get::<One>(&["orders", "historical", order_id], &[]).await?.order)
    }

    /// The fills of an order.
    ///
    /// # Errors
    /// The venue does not answer, or with something unreadable.
    pub async fn fills(&self, order_id: &str) -> Result<Vec<Fill>, ExchangeError> {
        self.rest.pages(&["orders", "historical", "fills"], &[("order_ids", order_id)], Ok).await
    }

    /// Every account: what is there of each currency.
    ///
    /// # Errors
    /// The venue does not answer, or with something unreadable.
    pub async fn balances(&self) -> Result<Vec<Balance>, ExchangeError> {
        self.rest.pages(&["accounts"], &[], Ok).await
    }

    /// The futures positions.
    ///
    /// # Errors
    /// The venue does not answer, or with something unreadable.
    pub async fn positions(&self) -> Result<Vec<Position>, ExchangeError> {
        Ok(self.rest.get::<Positions>(&["cfm", "positions"], &[]).await?.positions)
    }

    /// The futures account.
    ///
    /// # Errors
    /// The venue does not answer, or with something unreadable.
    pub async fn futures_balance(&self) -> Result<FuturesBalance, ExchangeError> {
        Ok(self.rest.get::<BalanceSummary>(&["cfm", "balance_summary"], &[]).await?.balance_summary)
    }

    /// The fees of spot, or of US futures.
    ///
    /// # Errors
    /// The venue does not answer, or with something unreadable.
    pub async fn fees(&self, futures: bool) -> Result<FeeTier, ExchangeError> {
        let query: &[_] =
            if futures { &[("product_type", "FUTURE"), ("product_venue", "FCM")] } else { &[("product_type", "SPOT")] };
        Ok(self.rest.get::<TransactionSummary>(&["transaction_summary"], query).await?.fee_tier)
    }

    /// Best bid and best ask of a product; empty where a side of its book is.
    ///
    /// # Errors
    /// The venue does not answer, or does not know the product.
    pub async fn best_bid_ask(&self, product: &str) -> Result<(String, String), ExchangeError> {
        let best: BestBidAsk = self.rest.get(&["best_bid_ask"], &[("product_ids", product)]).await?;
        let book = best.pricebooks.into_iter().find(|book| book.product_id == product);
        Ok(book.map(PriceBook::best).unwrap_or_default())
    }
}
