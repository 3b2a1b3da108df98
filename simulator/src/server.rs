//! The exchange on the network: REST, WebSockets and the administrative interface behind one router.
//!
//! [`Simulator`] is the whole server without a socket, for tests that run bot and exchange in one runtime;
//! [`listen::serve`] puts it on a TLS port.

pub mod admin;
pub mod auth;
mod cache;
pub mod caller;
pub mod clock;
pub mod error;
pub mod faults;
pub mod hub;
pub mod listen;
pub mod publish;
pub mod rate_limit;
pub mod rest;
pub mod scenario;
pub mod shapes;
mod shown;
pub mod tape;
pub mod websocket;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::connect_info::ConnectInfo;
use axum::{Extension, Router};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rust_decimal::Decimal;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::data_dir::Accounts;
use crate::exchange::product::listings;
use crate::exchange::{Exchange, Now, Settings};
use auth::ApiKeys;
use cache::Cache;
use clock::Clock;
use faults::Faults;
use hub::Hub;
use publish::Feeds;
use rate_limit::RateLimiter;
use scenario::Scenario;
use shown::Shown;
use websocket::limits::Limits;

/// USD that every portfolio starts with.
const DEPOSIT: i64 = 1_000_000;

/// What the exchange is like; where it listens is not part of it.
#[derive(Debug, Clone)]
pub struct Options {
    pub settings: Settings,
    /// Requests per second and portfolio; 0 for no limit.
    pub rate_limit: u32,
    /// Requests without a key per second and address; 0 for no limit.
    pub public_rate_limit: u32,
    /// WebSocket connections, and messages without a token, per second and address; 0 for no limit.
    pub web_socket_rate_limit: u32,
    /// Time between two steps of the market, on tokio's clock.
    pub tick: Duration,
    /// The text of a scenario that begins at once; none when empty.
    pub scenario: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            rate_limit: 30,
            public_rate_limit: 10,
            web_socket_rate_limit: 8,
            tick: Duration::from_millis(100),
            scenario: String::new(),
        }
    }
}

/// Everything that changes, behind one lock that is never held across an await.
pub struct State {
    pub exchange: Exchange,
    pub hub: Hub,
    pub faults: Faults,
    pub scenario: Scenario,
    pub rate_limiter: RateLimiter<Uuid>,
    pub public_rate_limiter: RateLimiter<IpAddr>,
    pub cache: Cache,
    pub feeds: Feeds,
    pub shown: Shown,
    pub web_socket_limits: Limits,
}

pub struct App {
    state: Mutex<State>,
    pub clock: Clock,
    /// Whether a fault may concern WebSockets: their frames need not ask when there is none.
    pub web_socket_faults: AtomicBool,
    pub keys: ApiKeys,
    pub admin_token: String,
}

impl App {
    /// Locks the state and reads the clock under the lock, so that times rise in the order things happen.
    pub fn lock(&self) -> (MutexGuard<'_, State>, Now) {
        // A poisoned lock means a handler panicked mid-change; going on is better than an exchange that is gone.
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state, self.clock.now())
    }

    /// Whether a panic happened while the state was locked: a bug of the simulator.
    pub fn has_panicked(&self) -> bool {
        self.state.is_poisoned()
    }

    /// Runs a command on the exchange and tells listeners what it changed.
    pub fn command<T>(&self, command: impl FnOnce(&mut State, Now) -> T) -> T {
        let (mut state, now) = self.lock();
        let result = command(&mut state, now);
        state.publish();
        result
    }
}

/// A running exchange: its markets move until it is dropped.
pub struct Simulator {
    pub app: Arc<App>,
    router: Router,
    tasks: [JoinHandle<()>; 2],
}

impl Simulator {
    /// Starts the markets on the current runtime.
    ///
    /// # Errors
    /// Names the key whose public half cannot be read, or the step of the scenario that is wrong.
    pub fn start(accounts: &Accounts, admin_token: String, options: &Options, clock: Clock) -> Result<Self, String> {
        let scenario = Scenario::read(&options.scenario, options.settings.seed, clock.now().time)?;
        let mut exchange = Exchange::new(options.settings.clone(), listings(), clock.now());
        for portfolio in &accounts.portfolios {
            exchange.open_portfolio(clock.now(), portfolio.uuid, &portfolio.name, Decimal::from(DEPOSIT));
        }
        let app = Arc::new(App {
            state: Mutex::new(State {
                feeds: Feeds::new(exchange.markets.len()),
                shown: Shown::default(),
                exchange,
                hub: Hub::default(),
                faults: Faults::new(options.settings.seed),
                scenario,
                rate_limiter: RateLimiter::new(options.rate_limit),
                public_rate_limiter: RateLimiter::new(options.public_rate_limit),
                cache: Cache::default(),
                web_socket_limits: Limits::new(options.web_socket_rate_limit),
            }),
            clock,
            web_socket_faults: AtomicBool::new(false),
            keys: ApiKeys::new(accounts)?,
            admin_token,
        });
        let tasks = [
            tokio::spawn(run_market(app.clone(), options.tick)),
            tokio::spawn(publish::run(app.clone(), options.tick)),
        ];
        Ok(Self { router: router(app.clone()), app, tasks })
    }

    /// REST, WebSockets and the administrative interface. Requests need a [`ConnectInfo`] of [`SocketAddr`].
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// Serves HTTP/1.1 with upgrades on one connection until it ends. `peer` is who is counted for limits.
    pub async fn serve_connection(&self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: SocketAddr) {
        let service = TowerToHyperService::new(self.router().layer(Extension(ConnectInfo(peer))));
        let http = hyper::server::conn::http1::Builder::new();
        if let Err(error) = http.serve_connection(TokioIo::new(io), service).with_upgrades().await {
            tracing::debug!(%error, "connection ended");
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn router(app: Arc<App>) -> Router {
    Router::new()
        .nest("/api/v3/brokerage", rest::router(app.clone()))
        .nest("/_simulator", admin::router(app.clone()))
        .layer(axum::middleware::from_fn(caller::buffered))
        .merge(websocket::router())
        .with_state(app)
}

/// The exchange's heartbeat: markets move and book changes go out.
async fn run_market(app: Arc<App>, tick: Duration) {
    let mut interval = tokio::time::interval(tick);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let (mut state, now) = app.lock();
        app.run_scenario(&mut state, now);
        app.apply_faults(&mut state, now);
        state.exchange.tick(now);
        state.show_books(now);
        state.publish();
        state.publish_books(now);
    }
}
