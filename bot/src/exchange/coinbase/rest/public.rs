//! The public calls: market data without a key. There is nothing here that could place an order.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::super::budget::Budget;
use super::super::jwt::VenueClock;
use super::super::session::SessionError;
use super::super::tls;
use super::super::transport::Transport;
use super::super::wire;
use super::calls::read_product;
use super::manual::PriceBook;
use super::{Authentication, Call, Rest};
use crate::clock::Clock;
use crate::exchange::{ExchangeError, Product};

/// Public market data at one endpoint.
#[derive(Debug)]
pub struct PublicRest {
    rest: Rest,
}

/// Requests per second of a command: what one address may ask without a key.
const RATE: u32 = 10;

#[derive(Deserialize)]
struct ProductBook {
    pricebook: PriceBook,
}

impl PublicRest {
    /// A client that has not yet talked to anybody.
    ///
    /// # Errors
    /// The URL or the TLS configuration cannot be used.
    pub fn new(
        rest_url: &str,
        transport: &Transport,
        tls: rustls::ClientConfig,
        venue: Arc<VenueClock>,
        budget: Arc<Budget>,
    ) -> Result<Self, ExchangeError> {
        Ok(Self { rest: Rest::new(rest_url, transport, tls, None, venue, budget)? })
    }

    /// A client for one command.
    ///
    /// # Errors
    /// The authority or the URL cannot be used.
    pub fn for_command(rest_url: &str, ca_file: Option<&Path>, clock: Clock) -> Result<Self, SessionError> {
        let (tls, venue) = (tls::client_config(ca_file)?, Arc::new(VenueClock::new(clock)));
        Ok(Self::new(rest_url, &Transport::Network, tls, venue, Arc::new(Budget::new(RATE)))?)
    }

    /// Best bid and offer, each as the venue writes it; empty where there is none.
    ///
    /// # Errors
    /// The venue does not answer, or does not know the product.
    pub async fn best_bid_ask(&self, id: &str) -> Result<(String, String), ExchangeError> {
        let query = [("product_id", id), ("limit", "1")];
        let path = ["market", "product_book"];
        let call = Call { authentication: Authentication::None, ..Call::get(&path, &query) };
        let book: ProductBook = self.rest.call(&call).await?;
        Ok(book.pricebook.best())
    }

    /// A product's rules and state.
    ///
    /// # Errors
    /// The venue does not answer, or does not offer it.
    pub async fn product(&self, id: &str) -> Result<Product, ExchangeError> {
        let path = ["market", "products", id];
        let call = Call { authentication: Authentication::None, ..Call::get(&path, &[]) };
        let product: wire::WireProduct = self.rest.call(&call).await?;
        read_product(product, self.rest.venue_clock().now())
    }

    /// Measures the venue's time.
    ///
    /// # Errors
    /// The venue did not answer.
    pub async fn measure_time(&self) -> Result<(), ExchangeError> {
        self.rest.measure_time().await
    }

    /// The venue's time, as measured.
    #[must_use]
    pub fn venue_clock(&self) -> &Arc<VenueClock> {
        self.rest.venue_clock()
    }

    /// Why the endpoint counts as failing; None while it answers.
    #[must_use]
    pub fn failing(&self) -> Option<String> {
        self.rest.failing()
    }
}
