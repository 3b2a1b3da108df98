//! Keeps a session with the exchange open: opens it, and changes over to a new key, endpoint or authority without a
//! gap. A new one that is refused leaves the old one in full use.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arbbot_crds::arbbot::ArbBot;
use arbbot_crds::conditions::Reason;
use arc_swap::ArcSwapOption;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::control::report::SessionFacts;
use crate::exchange::coinbase::rest::Coinbase;
use crate::exchange::coinbase::session::{Connector, Session, Settings};
use crate::exchange::{Exchange as _, ExchangeError};

/// How often the key in use is checked.
const CHECK_EVERY: Duration = Duration::from_secs(10);
/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest pause between attempts to open a session.
const RETRY_MOST: Duration = Duration::from_secs(10);

/// The REST client of the open session.
pub type Exchange = Arc<ArcSwapOption<Coinbase>>;

/// The session task.
pub struct SessionTask {
    pub connector: Connector,
    pub credentials_dir: PathBuf,
    pub ca_file: Option<PathBuf>,
    pub spec: watch::Receiver<ArbBot>,
    pub exchange: Exchange,
    pub facts: watch::Sender<SessionFacts>,
}

impl SessionTask {
    /// Runs until it is told to stop.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut session: Option<Session> = None;
        let mut tried: Option<(Settings, [u8; 32])> = None;
        let mut attempts = 0_u32;
        let mut retry_key = false;
        let mut checked = self.connector.clock.boottime();
        loop {
            let settings = self.settings();
            let wanted = (settings.clone(), Session::inputs_hash(&settings));
            if session.is_none() || tried.as_ref() != Some(&wanted) || std::mem::take(&mut retry_key) {
                let open = Session::open(settings.clone(), &self.connector);
                let opened = tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return,
                    opened = open => opened,
                };
                attempts = if opened.is_ok() { 0 } else { attempts.saturating_add(1) };
                match opened {
                    Ok(new) => {
                        tracing::info!(
                            fingerprint = new.fingerprint(),
                            endpoint = settings.endpoint.name,
                            "session opened"
                        );
                        self.exchange.store(Some(new.exchange()));
                        self.show_open(&new, &settings);
                        session = Some(new);
                    }
                    Err(error) => {
                        tracing::warn!(reason = %error.reason(), %error, kept = session.is_some(), "no new session");
                        // A key that was not refused for good is tried again.
                        retry_key = error.reason() == Reason::ExchangeUnreachable;
                        self.show_problem(error.reason(), error.to_string());
                    }
                }
                tried = Some(wanted);
            }
            let pause = if attempts == 0 || (session.is_some() && !retry_key) { LOOK_EVERY } else { retry(attempts) };
            tokio::select! {
                biased; // so that a run can be repeated
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                _ = self.spec.changed() => {}
            }
            if let Some(open) = &session {
                self.check(open, &mut checked).await;
            }
        }
    }

    /// Asks now and then whether the key in use is still accepted: a revoked key must show.
    async fn check(&self, session: &Session, checked: &mut Duration) {
        if self.connector.clock.boottime() < *checked + CHECK_EVERY {
            return;
        }
        *checked = self.connector.clock.boottime();
        match session.exchange().key_permissions().await {
            Err(error @ ExchangeError::Refused { .. }) => {
                self.facts.send_modify(|facts| facts.refused = Some(error.to_string()));
            }
            Ok(_) => {
                self.facts.send_if_modified(|facts| facts.refused.take().is_some());
            }
            // Whether the exchange can be reached at all is the engine's to say.
            Err(_) => {}
        }
    }

    fn settings(&mut self) -> Settings {
        let bot = self.spec.borrow_and_update();
        let venue = &bot.spec.venue.coinbase;
        let carry = &bot.spec.strategy.funding_carry;
        // The schema demands at least one endpoint; an object that has none is answered by "unreachable", not a panic.
        let endpoint = venue.endpoints.first().cloned().unwrap_or_else(|| arbbot_crds::arbbot::Endpoint {
            name: "none".to_owned(),
            rest_url: String::new(),
            market_web_socket_url: String::new(),
            user_web_socket_url: String::new(),
        });
        Settings {
            endpoint,
            ca_file: self.ca_file.clone(),
            credentials_dir: self.credentials_dir.clone(),
            portfolio: venue.portfolio.clone(),
            products: [carry.spot_product.clone(), carry.future_product.clone()],
            requests_per_second: venue.requests_per_second,
        }
    }

    fn show_open(&self, session: &Session, settings: &Settings) {
        self.facts.send_replace(SessionFacts {
            endpoint: settings.endpoint.name.clone(),
            fingerprint: session.fingerprint(),
            account: Some(session.permissions().portfolio.clone()),
            verified_at: Some(Time(self.connector.clock.now())),
            problem: None,
            refused: None,
            open: true,
        });
    }

    fn show_problem(&self, reason: Reason, why: String) {
        self.facts.send_modify(|facts| facts.problem = Some((reason, why)));
    }
}

fn retry(attempts: u32) -> Duration {
    (Duration::from_millis(500) * 2_u32.saturating_pow(attempts.min(6))).min(RETRY_MOST)
}
