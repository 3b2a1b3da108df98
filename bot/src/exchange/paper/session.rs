//! Keeps the market data of a paper account open: the first endpoint that works, the next when it fails. Needs no key.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arbbot_crds::arbbot::{ArbBot, Endpoint, Execution, PAPER_ACCOUNT};
use arc_swap::ArcSwapOption;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Paper, Source};
use crate::clock::Clock;
use crate::exchange::venue::{Connector, PublicSession, SessionError, Transport};
use crate::exchange::{Link, SessionFacts, VenueEvent};
use crate::randomness::Randomness;

/// How often time passes on paper, and how often endpoint and spec are looked at.
const TICK: Duration = Duration::from_millis(100);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pause between two attempts to open a session.
const RETRY: Duration = Duration::from_secs(2);
/// Events of the market data that may wait.
const QUEUE: usize = 4096;

/// What the session of a paper account needs.
pub struct PaperTask {
    pub paper: Arc<Paper>,
    /// Changes of the account's orders.
    pub told: mpsc::UnboundedReceiver<VenueEvent>,
    pub transport: Transport,
    pub clock: Clock,
    pub randomness: Randomness,
    /// Where the engine hears of it.
    pub events: mpsc::Sender<VenueEvent>,
    pub ca_file: Option<PathBuf>,
    pub spec: watch::Receiver<ArbBot>,
    /// Set while a session is open.
    pub exchange: Arc<ArcSwapOption<Paper>>,
    pub facts: watch::Sender<SessionFacts>,
}

impl PaperTask {
    /// Runs until it is told to stop.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { paper, told, transport, clock, randomness, events, ca_file, spec, exchange, facts } = self;
        let (market, market_told) = mpsc::channel(QUEUE);
        let connector = Connector::new(transport, clock, randomness, market);
        let keeper = Keeper { paper: Arc::clone(&paper), connector, ca_file, spec, exchange, facts };
        let pass_on = relay(&paper, told, market_told, &events);
        tokio::select! {
            biased; // so that a run can be repeated
            () = shutdown.cancelled() => {}
            () = pass_on => {}
            () = keeper.keep_open() => {}
        }
    }
}

/// Tells the engine what becomes of the account's orders and what the market says, and lets time pass on paper.
pub async fn relay(
    paper: &Paper,
    mut told: mpsc::UnboundedReceiver<VenueEvent>,
    mut market: mpsc::Receiver<VenueEvent>,
    events: &mpsc::Sender<VenueEvent>,
) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        let event = tokio::select! {
            biased;
            // Fills first: what the market says next is measured against them.
            Some(event) = told.recv() => event,
            Some(event) = market.recv() => with_own_orders(paper, event),
            _ = ticks.tick() => {
                paper.tick();
                continue;
            }
        };
        // The engine ends only with the program.
        events.send(event).await.ok();
    }
}

/// A real exchange shows an account's own orders in its book.
fn with_own_orders(paper: &Paper, event: VenueEvent) -> VenueEvent {
    match event {
        VenueEvent::Touch { product, touch: Some(touch) } => {
            let touch = Some(paper.with_own_orders(&product, touch));
            VenueEvent::Touch { product, touch }
        }
        other => other,
    }
}

/// Opens sessions one after the other.
struct Keeper {
    paper: Arc<Paper>,
    connector: Connector,
    ca_file: Option<PathBuf>,
    spec: watch::Receiver<ArbBot>,
    exchange: Arc<ArcSwapOption<Paper>>,
    facts: watch::Sender<SessionFacts>,
}

impl Keeper {
    async fn keep_open(mut self) {
        let mut from = 0;
        loop {
            let endpoints = self.endpoints();
            let Some(endpoint) = endpoints.get(from % endpoints.len().max(1)).cloned() else {
                tokio::time::sleep(RETRY).await;
                continue;
            };
            match self.open(&endpoint).await {
                Ok(session) => {
                    let why = self.while_it_works(&session, &endpoint).await;
                    tracing::warn!(endpoint = endpoint.name, why, "another session for market data is opened");
                    self.paper.use_data(None);
                    self.exchange.store(None);
                    drop(session);
                    let down = VenueEvent::Link { link: Link::MarketWebSocket, down: Some(why) };
                    self.connector.events.send(down).await.ok();
                }
                Err(error) => {
                    tracing::warn!(endpoint = endpoint.name, %error, "no market data");
                    self.show(&endpoint, Some(&error));
                    tokio::time::sleep(RETRY).await;
                }
            }
            from = if self.endpoints() == endpoints { from + 1 } else { 0 };
        }
    }

    fn endpoints(&mut self) -> Vec<Endpoint> {
        self.spec.borrow_and_update().spec.venue.coinbase.endpoints.clone()
    }

    async fn open(&mut self, endpoint: &Endpoint) -> Result<PublicSession, SessionError> {
        let (products, rate) = {
            let bot = self.spec.borrow();
            (bot.spec.products(), bot.spec.venue.coinbase.requests_per_second)
        };
        self.connector.set_rate(rate);
        let paper = Arc::clone(&self.paper);
        let tape = Arc::new(move |event| paper.hear(event));
        PublicSession::open(endpoint, self.ca_file.as_deref(), products, tape, &self.connector).await
    }

    /// Puts a session in use until it fails or is not wanted any more; says why.
    async fn while_it_works(&mut self, session: &PublicSession, endpoint: &Endpoint) -> String {
        self.paper.use_data(Some(Source::Exchange(session.data())));
        self.exchange.store(Some(Arc::clone(&self.paper)));
        self.show(endpoint, None);
        tracing::info!(endpoint = endpoint.name, "market data in use; orders go to the paper account");
        loop {
            {
                let bot = self.spec.borrow_and_update();
                self.paper.set_fees(&bot.spec.paper.clone().unwrap_or_default().fees);
                if !bot.spec.venue.coinbase.endpoints.contains(endpoint) {
                    return format!("the endpoint {} is no longer listed", endpoint.name);
                }
                self.connector.set_rate(bot.spec.venue.coinbase.requests_per_second);
            }
            if let Some(why) = session.failing() {
                return why;
            }
            tokio::select! {
                biased;
                // It fails only once the control task has ended, and the program with it.
                Ok(()) = self.spec.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    fn show(&self, endpoint: &Endpoint, problem: Option<&SessionError>) {
        self.facts.send_replace(SessionFacts {
            execution: Some(Execution::Paper),
            endpoint: endpoint.name.clone(),
            account: Some(PAPER_ACCOUNT.to_owned()),
            problem: problem.map(|error| (error.reason(), error.to_string())),
            open: problem.is_none(),
            ..SessionFacts::default()
        });
    }
}
