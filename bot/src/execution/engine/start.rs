//! What an engine begins with.

use arbbot_crds::status::DrainStatus;
use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::{Engine, Identity, Now, Params};
use crate::execution::orders::{Orders, entered_at};
use crate::ledger::OrderRecord;

/// What an engine begins with: two that begin with the same decide the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Start {
    pub at: Now,
    pub identity: Identity,
    pub params: Params,
    /// Every order that the ledger knows.
    pub orders: Vec<OrderRecord>,
    /// Since when the order history is to be read.
    pub owned_since: Option<Timestamp>,
    /// Ends of the last week's hours and their funding rates.
    pub funding_rates: Vec<(Timestamp, Decimal)>,
    /// The drain that an earlier process described in status.
    pub drain: Option<DrainStatus>,
}

impl Start {
    /// An engine that knows nothing but its spec.
    #[must_use]
    pub fn anew(identity: Identity, params: Params, at: Now) -> Self {
        let (orders, funding_rates) = (Vec::new(), Vec::new());
        Self { at, identity, params, orders, owned_since: None, funding_rates, drain: None }
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> Engine {
        let orders = Orders::recovered(&self.orders, self.at.boot, self.at.wall);
        Engine::new(self.identity.clone(), self.params.clone(), orders, self.owned_since)
            .remembering(self.funding_rates.iter().copied())
            .holding_since(entered_at(&self.orders, &self.identity.future_product))
            .resuming(self.drain.clone())
    }
}
