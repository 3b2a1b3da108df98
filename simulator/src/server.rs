//! The exchange on the network: REST, WebSockets and the administrative interface on one TLS port.

pub mod admin;
pub mod auth;
pub mod caller;
pub mod clock;
pub mod error;
pub mod faults;
pub mod hub;
pub mod rate_limit;
pub mod rest;
pub mod shapes;
pub mod websocket;

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum_server::Handle;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use rust_decimal::Decimal;
use serde_json::json;

use crate::data_dir::DataDir;
use crate::exchange::product::listings;
use crate::exchange::{Exchange, Notice, Now, Settings};
use auth::ApiKeys;
use clock::Clock;
use faults::Faults;
use hub::{Frame, Hub, Topic};
use rate_limit::RateLimiter;

/// USD that every portfolio starts with.
const DEPOSIT: i64 = 1_000_000;
/// Time that open connections get after SIGTERM.
const GRACE: Duration = Duration::from_millis(300);

/// How to serve.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    pub listen: SocketAddr,
    pub settings: Settings,
    /// Exchange seconds per real second.
    pub speed: u32,
    /// Requests per second and portfolio; 0 for no limit.
    pub rate_limit: u32,
    /// Real time between two steps of the market.
    pub tick: Duration,
}

/// Everything that changes, behind one lock that is never held across an await.
pub struct State {
    pub exchange: Exchange,
    pub hub: Hub,
    pub faults: Faults,
    pub rate_limiter: RateLimiter,
    pub connections: u64,
}

pub struct App {
    state: Mutex<State>,
    pub clock: Clock,
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

    /// Runs a command on the exchange and tells listeners what it changed.
    pub fn command<T>(&self, command: impl FnOnce(&mut State, Now) -> T) -> T {
        let (mut state, now) = self.lock();
        let result = command(&mut state, now);
        state.publish();
        result
    }
}

impl State {
    /// Sends order updates and trades; book changes wait for the next tick.
    fn publish(&mut self) {
        let mut orders = Vec::new();
        let mut trades = Vec::new();
        for notice in self.exchange.take_notices() {
            match notice {
                Notice::Order { portfolio, order } if !orders.contains(&(portfolio, order)) => {
                    orders.push((portfolio, order));
                }
                Notice::Order { .. } => {}
                Notice::Trade(trade) => trades.push(trade),
            }
        }
        for (portfolio, number) in orders {
            let topic = Topic::User(portfolio);
            if self.hub.is_heard(topic)
                && let Some(events) = shapes::user::update(&self.exchange, portfolio, number)
            {
                self.hub.publish(topic, &Frame { channel: "user", events: events.into() });
            }
        }
        for market in 0..self.exchange.markets.len() {
            let of_market: Vec<_> = trades.iter().filter(|t| t.market == market).collect();
            if of_market.is_empty() {
                continue;
            }
            if self.hub.is_heard(Topic::MarketTrades(market)) {
                let events = shapes::market_data::trades(&self.exchange, "update", &of_market);
                self.hub
                    .publish(Topic::MarketTrades(market), &Frame { channel: "market_trades", events: events.into() });
            }
            if self.hub.is_heard(Topic::Ticker(market)) {
                let events = shapes::market_data::ticker(&self.exchange, "update", &[market]);
                self.hub.publish(Topic::Ticker(market), &Frame { channel: "ticker", events: events.into() });
            }
        }
    }

    fn publish_books(&mut self, now: Now) {
        for index in 0..self.exchange.markets.len() {
            let changes = self.exchange.markets[index].book.take_changes();
            if changes.is_empty() || !self.hub.is_heard(Topic::Level2(index)) {
                continue;
            }
            let product = &self.exchange.markets[index].product.id;
            let events = shapes::market_data::level2(product, "update", &changes, now.time);
            self.hub.publish(Topic::Level2(index), &Frame { channel: "l2_data", events: events.into() });
        }
    }
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When the data directory is not usable or the address cannot be bound.
pub async fn serve(data_dir: &DataDir, options: ServeOptions) -> anyhow::Result<()> {
    let accounts = data_dir.accounts()?;
    let clock = Clock::new(options.speed);
    let mut exchange = Exchange::new(options.settings.clone(), listings(), clock.now());
    for portfolio in &accounts.portfolios {
        exchange.open_portfolio(clock.now(), portfolio.uuid, &portfolio.name, Decimal::from(DEPOSIT));
    }
    let app = Arc::new(App {
        state: Mutex::new(State {
            exchange,
            hub: Hub::default(),
            faults: Faults::default(),
            rate_limiter: RateLimiter::new(options.rate_limit),
            connections: 0,
        }),
        clock,
        keys: ApiKeys::new(&accounts).map_err(anyhow::Error::msg)?,
        admin_token: data_dir.admin_token()?,
    });

    let tls = RustlsConfig::from_pem_file(data_dir.path("server.crt"), data_dir.path("server.key"))
        .await
        .context("server.crt or server.key in the data directory cannot be used")?;
    let listener = TcpListener::bind(options.listen).with_context(|| format!("cannot listen on {}", options.listen))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let handle = Handle::new();
    let router = router(app.clone());
    tokio::spawn(run_market(app, options.tick));
    tokio::spawn(shut_down_on_signal(handle.clone()));
    println!("{}", json!({"listening": address.to_string()}));
    tracing::info!(%address, portfolios = accounts.portfolios.len(), "serving");
    axum_server::from_tcp(listener)?
        .acceptor(RustlsAcceptor::new(tls).acceptor(NoDelayAcceptor::new()))
        .handle(handle)
        .serve(router.into_make_service())
        .await
        .context("the server ended")
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
        state.exchange.tick(now);
        state.publish();
        state.publish_books(now);
    }
}

async fn shut_down_on_signal(handle: Handle<SocketAddr>) {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        _ => tracing::error!("cannot listen for signals; the exchange ends at once"),
    }
    tracing::info!("ending");
    handle.graceful_shutdown(Some(GRACE));
}
