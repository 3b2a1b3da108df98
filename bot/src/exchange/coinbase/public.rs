//! A session without a key: public market data of two products at one endpoint.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arbbot_crds::arbbot::Endpoint;
use tokio::task::JoinSet;

use super::jwt::VenueClock;
use super::rest::PublicRest;
use super::session::{Connector, SessionError};
use super::tls;
use super::websocket::{Feed, Outlet, Tape};
use crate::exchange::{Link, VenueEvent};

/// An open session. Dropping it ends its WebSocket; calls under way end by themselves.
#[derive(Debug)]
pub struct PublicSession {
    data: Arc<PublicRest>,
    outlet: Arc<Outlet>,
    _tasks: JoinSet<()>,
}

impl PublicSession {
    /// Reaches the endpoint, then starts its WebSocket: `tape` hears the market, `connector.events` the best prices and
    /// how the connection is.
    ///
    /// # Errors
    /// The exchange cannot be reached or is not trusted. Nothing was started then.
    pub async fn open(
        endpoint: &Endpoint,
        ca_file: Option<&Path>,
        products: [String; 2],
        tape: Tape,
        connector: &Connector,
    ) -> Result<Self, SessionError> {
        let tls = tls::client_config(ca_file)?;
        let venue = Arc::new(VenueClock::new(connector.clock.clone()));
        let (budget, rest_url) = (connector.budget(), &endpoint.rest_url);
        let data = PublicRest::new(rest_url, &connector.transport, tls.clone(), Arc::clone(&venue), budget)?;
        data.measure_time().await?;
        let outlet = Arc::new(Outlet::new(connector.events.clone()));
        // There is no user channel to wait for.
        outlet.tell(VenueEvent::Link { link: Link::UserWebSocket, down: None }).await;
        outlet.put_in_use().await;
        let mut tasks = JoinSet::new();
        let feed = Feed {
            link: Link::MarketWebSocket,
            url: endpoint.market_web_socket_url.clone(),
            products,
            transport: connector.transport.clone(),
            randomness: connector.randomness.clone(),
            tls: Arc::new(tls),
            signer: None,
            venue,
            outlet: Arc::clone(&outlet),
            tape: Some(tape),
        };
        tasks.spawn(feed.run());
        Ok(Self { data: Arc::new(data), outlet, _tasks: tasks })
    }

    /// Waits until the WebSocket is up.
    ///
    /// # Errors
    /// It is not after so long, and why.
    pub async fn up_within(&self, patience: Duration) -> Result<(), String> {
        self.outlet.up_within(patience).await
    }

    /// The REST client.
    #[must_use]
    pub fn data(&self) -> Arc<PublicRest> {
        Arc::clone(&self.data)
    }

    /// Why the endpoint counts as failing; None while it works.
    #[must_use]
    pub fn failing(&self) -> Option<String> {
        self.data.failing().or_else(|| self.outlet.failing())
    }
}
