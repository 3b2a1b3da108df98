//! Where a paper account reads products and the venue's time: at the exchange, or in a recording of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::jiff::Timestamp;

use crate::exchange::venue::PublicRest;
use crate::exchange::{ExchangeError, Product};

/// Where a paper account reads products and the venue's time.
#[derive(Debug)]
pub enum Source {
    /// Market data of the session that is open.
    Exchange(Arc<PublicRest>),
    /// A recording that is played; its time is the bot's.
    Recording(Arc<Recorded>),
}

impl Source {
    pub(super) async fn product(&self, id: &str) -> Result<Product, ExchangeError> {
        match self {
            Self::Exchange(rest) => rest.product(id).await,
            Self::Recording(recorded) => recorded.product(id),
        }
    }

    /// The venue's time now, where it is not the bot's.
    pub(super) fn now(&self) -> Option<Timestamp> {
        match self {
            Self::Exchange(rest) => Some(rest.venue_clock().now()),
            Self::Recording(_) => None,
        }
    }

    /// The venue's time at a time of the bot's clock.
    pub(super) fn venue_time(&self, at: Timestamp) -> Timestamp {
        match self {
            Self::Exchange(rest) => rest.venue_clock().of(at),
            Self::Recording(_) => at,
        }
    }
}

/// The products as a recording shows them now.
#[derive(Debug, Default)]
pub struct Recorded(Mutex<BTreeMap<String, Product>>);

impl Recorded {
    /// From now on a product is shown so.
    pub fn show(&self, product: Product) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(product.id.clone(), product);
    }

    fn product(&self, id: &str) -> Result<Product, ExchangeError> {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = || ExchangeError::Unreadable {
            call: format!("GET /products/{id}"),
            cause: "the recording has not shown it yet".to_owned(),
        };
        shown.get(id).cloned().ok_or_else(missing)
    }
}
