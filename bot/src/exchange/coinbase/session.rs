//! A session: one verified key at one endpoint, its REST client and its two WebSockets.
//!
//! A new key, endpoint or authority is used by opening a second session beside the first and changing over once it is
//! open; an order is never without a key that works.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arbbot_crds::arbbot::Endpoint;
use arbbot_crds::conditions::Reason;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::budget::Budget;
use super::jwt::{Signer, VenueClock};
use super::key::{ApiKey, KeyError};
use super::rest::Coinbase;
use super::tls::{self, CaError};
use super::transport::Transport;
use super::websocket::{Feed, Outlet};
use crate::clock::{BELIEVED, Clock};
use crate::exchange::{Exchange, ExchangeError, KeyPermissions, Link, VenueEvent};
use crate::randomness::Randomness;

/// How often the venue's time is measured again.
const MEASURE_TIME_EVERY: Duration = Duration::from_secs(300);
/// And while it differs by much from the machine's: one of the two was set.
const MEASURE_TIME_SOON: Duration = Duration::from_secs(10);

/// The least that a spec can give, in requests per second.
const LEAST_RATE: u32 = 5;

/// What a session is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub endpoint: Endpoint,
    /// PEM certificates to trust instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// Directory with the files `name` and `privateKey`.
    pub credentials_dir: PathBuf,
    /// UUID of the portfolio that the key must belong to.
    pub portfolio: String,
    /// Spot and future.
    pub products: [String; 2],
    /// The bot's share of the rate limit.
    pub requests_per_second: u32,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error(
        "the API key {fingerprint} may transfer funds, and a trading bot must not hold such a key: create one without \
         the permission transfer and put it into the Secret of spec.credentials.secretRef"
    )]
    MayTransfer { fingerprint: String },
    #[error(
        "the API key {fingerprint} may not both view and trade: create one with these permissions and put it into the \
         Secret of spec.credentials.secretRef"
    )]
    MayNotTrade { fingerprint: String },
    #[error(
        "the API key {fingerprint} belongs to the portfolio {actual}, but spec.venue.coinbase.portfolio is {expected}: \
         use a key of that portfolio"
    )]
    Portfolio { fingerprint: String, actual: String, expected: String },
}

impl SessionError {
    /// The reason for the conditions CredentialsValid and ExchangeConnected.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Key(error) => error.reason(),
            Self::Ca(_) | Self::Exchange(ExchangeError::Untrusted { .. }) => Reason::CertificateUntrusted,
            Self::Exchange(ExchangeError::Refused { .. }) => Reason::KeyRefused,
            Self::Exchange(_) => Reason::ExchangeUnreachable,
            Self::MayTransfer { .. } => Reason::KeyMayTransfer,
            Self::MayNotTrade { .. } => Reason::KeyMayNotTrade,
            Self::Portfolio { .. } => Reason::PortfolioMismatch,
        }
    }
}

/// Opens sessions: what all of them share.
#[derive(Clone, Debug)]
pub struct Connector {
    pub transport: Transport,
    pub clock: Clock,
    pub randomness: Randomness,
    /// Where the events of the WebSockets go.
    pub events: mpsc::Sender<VenueEvent>,
    budget: Arc<Budget>,
}

impl Connector {
    #[must_use]
    pub fn new(transport: Transport, clock: Clock, randomness: Randomness, events: mpsc::Sender<VenueEvent>) -> Self {
        // Each session sets the rate that its spec gives.
        Self { transport, clock, randomness, events, budget: Arc::new(Budget::new(LEAST_RATE)) }
    }

    pub(super) fn budget(&self) -> Arc<Budget> {
        Arc::clone(&self.budget)
    }

    /// The bot's share of the account's rate limit, in requests per second.
    pub(in crate::exchange) fn set_rate(&self, per_second: u32) {
        self.budget.set_rate(per_second);
    }
}

/// An open session. Dropping it ends its WebSockets; calls under way end by themselves.
#[derive(Debug)]
pub struct Session {
    exchange: Arc<Coinbase>,
    permissions: KeyPermissions,
    portfolio: String,
    outlet: Arc<Outlet>,
    /// The key and the authorities that it was opened with: their files may be others by now, or gone.
    signer: Arc<Signer>,
    tls: Arc<rustls::ClientConfig>,
    /// The WebSockets and the clock; aborted when dropped.
    _tasks: JoinSet<()>,
}

impl Session {
    /// Reads the key, verifies at the exchange what it may do and whose it is, then starts the WebSockets. Until
    /// [`Self::put_in_use`] they tell of nothing but orders.
    ///
    /// # Errors
    /// A file cannot be used, the exchange cannot be reached or is not trusted, or the key is not fit for a trading
    /// bot. Nothing was started then.
    pub async fn open(settings: Settings, connector: &Connector) -> Result<Self, SessionError> {
        let key = ApiKey::load(&settings.credentials_dir)?;
        let signer = Arc::new(Signer::new(key, connector.randomness.clone()));
        let tls = Arc::new(tls::client_config(settings.ca_file.as_deref())?);
        Self::open_with(signer, tls, settings, connector).await
    }

    /// Opens a session with the key and the authorities of this one, whatever their files say by now.
    ///
    /// # Errors
    /// As [`Self::open`], but of no file.
    pub async fn elsewhere(&self, settings: Settings, connector: &Connector) -> Result<Self, SessionError> {
        Self::open_with(Arc::clone(&self.signer), Arc::clone(&self.tls), settings, connector).await
    }

    async fn open_with(
        signer: Arc<Signer>,
        tls: Arc<rustls::ClientConfig>,
        settings: Settings,
        connector: &Connector,
    ) -> Result<Self, SessionError> {
        connector.set_rate(settings.requests_per_second);
        let venue = Arc::new(VenueClock::new(connector.clock.clone()));
        let exchange = Coinbase::new(
            &settings.endpoint.rest_url,
            &connector.transport,
            rustls::ClientConfig::clone(&tls),
            Arc::clone(&signer),
            Arc::clone(&venue),
            Arc::clone(&connector.budget),
        )?;
        exchange.measure_time().await?;
        let permissions = exchange.key_permissions().await?;
        verify(&permissions, &settings.portfolio, signer.key().fingerprint())?;

        let outlet = Arc::new(Outlet::new(connector.events.clone()));
        let mut tasks = JoinSet::new();
        let Endpoint { market_web_socket_url, user_web_socket_url, .. } = settings.endpoint;
        for (link, url) in [(Link::MarketWebSocket, market_web_socket_url), (Link::UserWebSocket, user_web_socket_url)]
        {
            let feed = Feed {
                link,
                url,
                products: settings.products.clone(),
                transport: connector.transport.clone(),
                randomness: connector.randomness.clone(),
                tls: Arc::clone(&tls),
                signer: Some(Arc::clone(&signer)),
                venue: Arc::clone(&venue),
                outlet: Arc::clone(&outlet),
                tape: None,
            };
            tasks.spawn(feed.run());
        }
        let exchange = Arc::new(exchange);
        tasks.spawn(keep_time(Arc::clone(&exchange)));
        Ok(Self { exchange, permissions, portfolio: settings.portfolio, outlet, signer, tls, _tasks: tasks })
    }

    /// Waits until both WebSockets are up.
    ///
    /// # Errors
    /// They are not after so long, and why.
    pub async fn up_within(&self, patience: Duration) -> Result<(), String> {
        self.outlet.up_within(patience).await
    }

    /// From now on its WebSockets tell everything.
    pub async fn put_in_use(&self) {
        self.outlet.put_in_use().await;
    }

    /// From now on its WebSockets tell of nothing but orders. Calls under way go on.
    pub async fn put_out_of_use(&self) {
        self.outlet.put_out_of_use().await;
    }

    /// Asks the exchange whether the key is still fit.
    ///
    /// # Errors
    /// It is not, or the exchange does not say.
    pub async fn check(&self) -> Result<(), SessionError> {
        let permissions = self.exchange.key_permissions().await?;
        verify(&permissions, &self.portfolio, self.fingerprint())
    }

    /// Why the endpoint counts as failing; None while it works.
    #[must_use]
    pub fn failing(&self) -> Option<String> {
        self.exchange.failing().or_else(|| self.outlet.failing())
    }

    /// The REST client.
    #[must_use]
    pub fn exchange(&self) -> Arc<Coinbase> {
        Arc::clone(&self.exchange)
    }

    /// Fingerprint of the key.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.exchange.fingerprint()
    }

    /// What the key may do, as the exchange said when the session was opened.
    #[must_use]
    pub fn permissions(&self) -> &KeyPermissions {
        &self.permissions
    }

    /// A hash over the contents of the files that a session reads when it is opened: a change of it asks for a new
    /// session. A file that cannot be read counts as such.
    #[must_use]
    pub fn inputs_hash(credentials_dir: &Path, ca_file: Option<&Path>) -> [u8; 32] {
        let files = [Some(credentials_dir.join("name")), Some(credentials_dir.join("privateKey"))];
        let files = files.into_iter().chain([ca_file.map(Path::to_owned)]);
        let mut hash = Sha256::new();
        for file in files.flatten() {
            match std::fs::read(file) {
                // Each content has its length before it, so that none can be mistaken for another two.
                Ok(content) => {
                    hash.update([1]);
                    hash.update(content.len().to_le_bytes());
                    hash.update(content);
                }
                Err(_) => hash.update([0]),
            }
        }
        hash.finalize().into()
    }
}

/// Follows the venue's clock, so that a drift is not first seen as an order whose token is refused.
async fn keep_time(exchange: Arc<Coinbase>) {
    loop {
        let (began, is_off) = (tokio::time::Instant::now(), || exchange.venue_clock().skew().abs() > BELIEVED);
        while began.elapsed() < if is_off() { MEASURE_TIME_SOON } else { MEASURE_TIME_EVERY } {
            tokio::time::sleep(MEASURE_TIME_SOON).await;
        }
        if let Err(error) = exchange.measure_time().await {
            tracing::warn!(%error, "the venue's time could not be measured; the last measurement stays in use");
        }
    }
}

fn verify(permissions: &KeyPermissions, portfolio: &str, fingerprint: String) -> Result<(), SessionError> {
    if permissions.can_transfer {
        return Err(SessionError::MayTransfer { fingerprint });
    }
    if !permissions.can_trade || !permissions.can_view {
        return Err(SessionError::MayNotTrade { fingerprint });
    }
    if !permissions.portfolio.eq_ignore_ascii_case(portfolio) {
        let (actual, expected) = (permissions.portfolio.clone(), portfolio.to_owned());
        return Err(SessionError::Portfolio { fingerprint, actual, expected });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permissions(can_view: bool, can_trade: bool, can_transfer: bool) -> KeyPermissions {
        KeyPermissions { portfolio: "p".to_owned(), can_view, can_trade, can_transfer }
    }

    /// Invariant 13. Proven by mutation: a key of any portfolio taken (and `keys` of the lockstep tests with it).
    #[test]
    fn only_a_key_that_trades_this_portfolio_and_cannot_transfer_is_taken() {
        let reason = |permissions, portfolio| verify(&permissions, portfolio, "f".to_owned()).map_err(|e| e.reason());
        assert_eq!(reason(permissions(true, true, false), "p"), Ok(()));
        assert_eq!(reason(permissions(true, true, true), "p"), Err(Reason::KeyMayTransfer));
        assert_eq!(reason(permissions(true, false, false), "p"), Err(Reason::KeyMayNotTrade));
        assert_eq!(reason(permissions(false, true, false), "p"), Err(Reason::KeyMayNotTrade));
        assert_eq!(reason(permissions(true, true, false), "q"), Err(Reason::PortfolioMismatch));
    }

    #[test]
    fn any_change_of_a_file_changes_the_hash() {
        let dir = tempfile::tempdir().unwrap();
        let ca_file = dir.path().join("ca.crt");
        let hash = || Session::inputs_hash(dir.path(), Some(&ca_file));
        let mut seen = vec![hash()];
        for (file, content) in [("name", "a"), ("name", ""), ("privateKey", "b"), ("ca.crt", "c"), ("name", "b")] {
            std::fs::write(dir.path().join(file), content).unwrap();
            let now = hash();
            assert!(!seen.contains(&now), "{file} {content:?}");
            seen.push(now);
        }
    }
}
