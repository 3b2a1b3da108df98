//! Keeps a session with the exchange open, and changes over to another key, endpoint or authority without a gap: the new
//! session is verified and its WebSockets are up before the old one ends. What is refused leaves the old one in full
//! use, and status says why.

mod show;
mod state;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arbbot_crds::arbbot::{ActiveKey, ArbBot, Endpoint, KeyFailover};
use arbbot_crds::conditions::Reason;
use arbbot_crds::status::CredentialsStatus;
use arc_swap::ArcSwapOption;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::state::{FailedOver, Inputs, Open, State, other};
use super::rest::Coinbase;
use super::session::{Connector, Session, SessionError, Settings};
use crate::exchange::{ExchangeError, SessionFacts};
use crate::risk::Gate;

/// How often files and spec are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the key in use is checked, and how often while it is refused.
const CHECK_EVERY: Duration = Duration::from_secs(10);
const CHECK_REFUSED_EVERY: Duration = Duration::from_millis(2500);
/// Longest pause between attempts to open the first session, or one that the network kept from being opened.
const RETRY_MOST: Duration = Duration::from_secs(10);
/// Pause after no other endpoint worked with the key in use.
const LEAVE_AGAIN: Duration = Duration::from_secs(2);
/// Pause after the exchange refused a wanted key: its permissions may be mended there without a new file.
const RETRY_REFUSED: Duration = Duration::from_secs(30);
/// How long a later endpoint of the list is used before an earlier one is tried again.
const PREFER_AGAIN: Duration = Duration::from_secs(60);
/// How long the WebSockets of a new session may take to come up beside an old one that works.
const UP_WITHIN: Duration = Duration::from_secs(10);

/// The session task.
pub struct SessionTask {
    pub connector: Connector,
    pub credentials_dir: PathBuf,
    /// Directory of the second key, where the spec names one.
    pub backup_credentials_dir: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub spec: watch::Receiver<ArbBot>,
    /// Told what an unfit key forbids.
    pub gate: Arc<Gate>,
    /// The REST client of the session in use.
    pub exchange: Arc<ArcSwapOption<Coinbase>>,
    pub facts: watch::Sender<SessionFacts>,
    /// What an earlier process left in status.
    pub before: Option<CredentialsStatus>,
}

/// What of the spec counts here.
struct Wanted {
    endpoints: Vec<Endpoint>,
    active: ActiveKey,
    failover: KeyFailover,
    max_age: Duration,
    portfolio: String,
    products: [String; 2],
    requests_per_second: u32,
}

impl SessionTask {
    /// Runs until it is told to stop.
    pub async fn run(mut self, shutdown: CancellationToken) {
        tokio::select! {
            biased; // so that a run can be repeated
            () = shutdown.cancelled() => {}
            () = self.keep_open() => {}
        }
    }

    async fn keep_open(&mut self) {
        let mut state = State::default();
        self.resume_failover(&mut state);
        loop {
            let wanted = self.wanted();
            self.connector.set_rate(wanted.requests_per_second);
            self.step(&mut state, &wanted).await;
            self.show(&mut state, &wanted);
            tokio::select! {
                biased;
                // It fails only once the control task has ended, and the program with it.
                Ok(()) = self.spec.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    fn now(&self) -> Duration {
        self.connector.clock.boottime()
    }

    fn wanted(&mut self) -> Wanted {
        let bot = self.spec.borrow_and_update();
        let (venue, credentials) = (&bot.spec.venue.coinbase, &bot.spec.credentials);
        Wanted {
            endpoints: venue.endpoints.clone(),
            active: credentials.active,
            failover: credentials.failover,
            max_age: credentials.max_age.0,
            portfolio: venue.portfolio.clone().unwrap_or_default(),
            products: bot.spec.products(),
            requests_per_second: venue.requests_per_second,
        }
    }

    /// A key that an earlier process had left for the other one is not taken up again by a restart.
    fn resume_failover(&mut self, state: &mut State) {
        let wanted = self.wanted();
        let before = self.before.as_ref().and_then(|before| before.active);
        if wanted.failover == KeyFailover::OnRefused && before.is_some_and(|before| before != wanted.active) {
            let hash = self.inputs(wanted.active).hash;
            let why = format!("the exchange had refused the {} key before this start", wanted.active);
            state.failed_over = Some(FailedOver { from: wanted.active, hash, why });
        }
    }

    async fn step(&mut self, state: &mut State, wanted: &Wanted) {
        let refused_key = state.failed_over.as_ref().map(|failed_over| self.inputs(failed_over.from));
        state.end_failover(wanted.active, refused_key.as_ref());
        let key = if state.failed_over.is_some() { other(wanted.active) } else { wanted.active };
        let inputs = self.inputs(key);
        if state.tried.as_ref() != Some(&(inputs.clone(), wanted.endpoints.clone())) {
            state.tried = Some((inputs.clone(), wanted.endpoints.clone()));
            (state.retry_at, state.prefer_at, state.attempts) = (Duration::ZERO, Duration::ZERO, 0);
        }
        match &state.open {
            None => self.open_first(state, wanted, &inputs).await,
            Some(open) if open.inputs != inputs => {
                self.change_key(state, wanted, &inputs).await;
                self.leave_with_the_key_in_use(state, wanted, &inputs).await;
            }
            Some(_) => self.change_endpoint(state, wanted, &inputs).await,
        }
        self.check(state, wanted).await;
    }

    /// Opens a session where there is none: at the first endpoint that works.
    async fn open_first(&self, state: &mut State, wanted: &Wanted, inputs: &Inputs) {
        if self.now() < state.retry_at {
            return;
        }
        let mut refused = None;
        for endpoint in &wanted.endpoints {
            match self.open(wanted, endpoint, inputs).await {
                Ok(open) => {
                    state.solved();
                    return self.put_in_use(state, open).await;
                }
                Err(error) => {
                    if matches!(error, SessionError::Exchange(ExchangeError::Refused { .. })) {
                        refused = Some(error.to_string());
                    }
                    state.problem = Some((error.reason(), error.to_string()));
                }
            }
        }
        state.attempts = state.attempts.saturating_add(1);
        // While a refusal may lead to the other key, it is asked for again as often as a key in use is.
        let counts = refused.is_some() && wanted.failover == KeyFailover::OnRefused;
        let pause = if counts { CHECK_REFUSED_EVERY } else { retry(state.attempts) };
        state.retry_at = self.now() + pause;
        if let Some(why) = refused {
            state.refusals.count(self.now());
            self.fail_over(state, wanted, inputs, &why).await;
        }
    }

    /// The files of the key or of the authority changed, or the other key is wanted.
    async fn change_key(&self, state: &mut State, wanted: &Wanted, inputs: &Inputs) {
        if self.now() < state.retry_at {
            return;
        }
        state.attempts = state.attempts.saturating_add(1);
        let endpoint = match &state.open {
            Some(open) if wanted.endpoints.contains(&open.endpoint) => open.endpoint.clone(),
            _ => match wanted.endpoints.first() {
                Some(first) => first.clone(),
                None => return,
            },
        };
        let opened = match self.open(wanted, &endpoint, inputs).await {
            Ok(open) => self.take_over(state, open).await,
            Err(error) => Err((error.reason(), error.to_string())),
        };
        match opened {
            Ok(()) => state.solved(),
            Err((reason, why)) => {
                let pause = match reason {
                    Reason::ExchangeUnreachable => retry(state.attempts),
                    _ => RETRY_REFUSED,
                };
                state.retry_at = self.now() + pause;
                state.problem = Some((reason, why));
            }
        }
    }

    /// While the wanted key cannot be used, the one in use stays in full use (SAFETY §8): it, too, leaves an endpoint that
    /// fails or is no longer listed.
    async fn leave_with_the_key_in_use(&self, state: &mut State, wanted: &Wanted, inputs: &Inputs) {
        let Some(open) = state.open.as_ref().filter(|open| open.inputs != *inputs) else { return };
        let is_listed = wanted.endpoints.contains(&open.endpoint);
        if self.now() < state.leave_at || (is_listed && open.session.failing().is_none()) {
            return;
        }
        for endpoint in wanted.endpoints.iter().filter(|endpoint| **endpoint != open.endpoint) {
            let settings = self.settings(wanted, endpoint, &open.inputs);
            match open.session.elsewhere(settings, &self.connector).await {
                Ok(session) => {
                    let open = Open { session, endpoint: endpoint.clone(), inputs: open.inputs.clone() };
                    return self.put_in_use(state, open).await;
                }
                Err(error) => tracing::warn!(endpoint = endpoint.name, %error, "no new session with the key in use"),
            }
        }
        state.leave_at = self.now() + LEAVE_AGAIN;
    }

    /// Leaves an endpoint that fails or is no longer listed, and goes back to one that is preferred.
    async fn change_endpoint(&self, state: &mut State, wanted: &Wanted, inputs: &Inputs) {
        let Some(open) = &state.open else { return };
        let now = self.now();
        let place = wanted.endpoints.iter().position(|endpoint| *endpoint == open.endpoint);
        let failing = open.session.failing();
        let candidates = match (place, &failing) {
            _ if now < state.retry_at => return,
            (None, _) => wanted.endpoints.clone(),
            (Some(_), Some(_)) => wanted.endpoints.iter().filter(|e| **e != open.endpoint).cloned().collect(),
            (Some(place), None) if now >= state.prefer_at => wanted.endpoints.iter().take(place).cloned().collect(),
            (Some(_), None) => {
                state.problem = None;
                return;
            }
        };
        state.prefer_at = now + PREFER_AGAIN;
        if let (Some(cause), false) = (&failing, candidates.is_empty()) {
            tracing::warn!(endpoint = open.endpoint.name, cause, "the endpoint fails; the others are tried");
        }
        let mut problem = None;
        for endpoint in candidates {
            let opened = match self.open(wanted, &endpoint, inputs).await {
                Ok(open) => self.take_over(state, open).await,
                Err(error) => Err((error.reason(), error.to_string())),
            };
            match opened {
                Ok(()) => return state.solved(),
                Err(error) => problem = Some(error),
            }
        }
        if problem.is_some() {
            state.attempts = state.attempts.saturating_add(1);
            state.retry_at = self.now() + retry(state.attempts);
        }
        // That an endpoint which is only preferred does not work yet is no problem.
        state.problem = problem.filter(|_| place.is_none() || failing.is_some());
    }

    /// Asks now and then whether the key in use is still fit: one that was revoked must show.
    async fn check(&self, state: &mut State, wanted: &Wanted) {
        let now = self.now();
        let Some(open) = &state.open else { return };
        let refused = open.session.exchange().is_refused();
        let due = if refused { state.checked_at + CHECK_REFUSED_EVERY } else { state.checked_at + CHECK_EVERY };
        if now < due {
            return;
        }
        state.checked_at = now;
        match open.session.check().await {
            Ok(()) => {
                state.refusals.clear();
                state.unfit = None;
            }
            Err(SessionError::Exchange(error @ ExchangeError::Refused { .. })) => {
                state.refusals.count(now);
                state.unfit = Some((Reason::KeyRefused, error.to_string()));
                let inputs = open.inputs.clone();
                self.fail_over(state, wanted, &inputs, &error.to_string()).await;
            }
            // Whether the exchange can be reached at all is the engine's to say.
            Err(SessionError::Exchange(_)) => {}
            Err(error) => {
                state.refusals.clear();
                state.unfit = Some((error.reason(), error.to_string()));
            }
        }
    }

    /// Changes to the other key once this one was refused often and long enough.
    async fn fail_over(&self, state: &mut State, wanted: &Wanted, refused: &Inputs, why: &str) {
        let has_other = self.backup_credentials_dir.is_some();
        if wanted.failover != KeyFailover::OnRefused || !has_other || !state.refusals.are_enough(self.now()) {
            return;
        }
        let inputs = self.inputs(other(refused.key));
        let endpoint = state.open.as_ref().map(|open| open.endpoint.clone());
        let Some(endpoint) = endpoint.or_else(|| wanted.endpoints.first().cloned()) else { return };
        match self.open(wanted, &endpoint, &inputs).await {
            Ok(open) => {
                tracing::error!(from = %refused.key, to = %inputs.key, why, "the key is refused; the other one takes over");
                state.solved();
                state.failed_over = (inputs.key != wanted.active).then(|| FailedOver {
                    from: refused.key,
                    hash: refused.hash,
                    why: format!("the {} key is refused: {why}", refused.key),
                });
                self.put_in_use(state, open).await;
            }
            Err(error) => {
                let both = format!("{why}; nor can the {} key be used: {error}", inputs.key);
                if state.open.is_some() {
                    state.unfit = Some((Reason::KeyRefused, both));
                } else {
                    state.problem = Some((Reason::KeyRefused, both));
                }
            }
        }
    }

    async fn open(&self, wanted: &Wanted, endpoint: &Endpoint, inputs: &Inputs) -> Result<Open, SessionError> {
        match Session::open(self.settings(wanted, endpoint, inputs), &self.connector).await {
            Ok(session) => Ok(Open { session, endpoint: endpoint.clone(), inputs: inputs.clone() }),
            Err(error) => {
                tracing::warn!(endpoint = endpoint.name, key = %inputs.key, reason = %error.reason(), %error, "no new session");
                Err(error)
            }
        }
    }

    fn settings(&self, wanted: &Wanted, endpoint: &Endpoint, inputs: &Inputs) -> Settings {
        Settings {
            endpoint: endpoint.clone(),
            ca_file: self.ca_file.clone(),
            credentials_dir: self.dir(inputs.key).to_owned(),
            portfolio: wanted.portfolio.clone(),
            products: wanted.products.clone(),
            requests_per_second: wanted.requests_per_second,
        }
    }

    /// Puts a new session in the place of one that may still work: then only once its WebSockets are up.
    async fn take_over(&self, state: &mut State, new: Open) -> Result<(), (Reason, String)> {
        let works = state.open.as_ref().is_some_and(|old| old.session.failing().is_none()) && state.unfit.is_none();
        if works && let Err(cause) = new.session.up_within(UP_WITHIN).await {
            let why = format!("the WebSockets of {} do not come up: {cause}", new.endpoint.name);
            tracing::warn!(why, "no new session");
            return Err((Reason::ExchangeUnreachable, why));
        }
        self.put_in_use(state, new).await;
        Ok(())
    }

    async fn put_in_use(&self, state: &mut State, new: Open) {
        if let Some(old) = &state.open {
            old.session.put_out_of_use().await;
        }
        new.session.put_in_use().await;
        self.exchange.store(Some(new.session.exchange()));
        let fingerprint = new.session.fingerprint();
        tracing::info!(fingerprint, key = %new.inputs.key, endpoint = new.endpoint.name, "session in use");
        if state.fingerprint != fingerprint {
            let before = self.before.as_ref().filter(|before| before.fingerprint == fingerprint);
            let accepted_before = before.and_then(|before| before.verified_at.clone());
            state.verified_at = Some(accepted_before.unwrap_or_else(|| Time(self.connector.clock.now())));
            state.fingerprint = fingerprint;
        }
        state.unfit = None;
        state.refusals.clear();
        state.checked_at = self.now();
        state.prefer_at = self.now() + PREFER_AGAIN;
        state.open = Some(new);
    }

    fn dir(&self, key: ActiveKey) -> &Path {
        match (key, &self.backup_credentials_dir) {
            (ActiveKey::Backup, Some(backup)) => backup,
            // Without a directory of its own it is missing there, and the error names the file.
            (ActiveKey::Backup, None) => Path::new(arbbot_crds::names::BACKUP_CREDENTIALS_DIR),
            (ActiveKey::Primary, _) => &self.credentials_dir,
        }
    }

    fn inputs(&self, key: ActiveKey) -> Inputs {
        Inputs { key, hash: Session::inputs_hash(self.dir(key), self.ca_file.as_deref()) }
    }
}

fn retry(attempts: u32) -> Duration {
    (Duration::from_millis(500) * 2_u32.saturating_pow(attempts.min(6))).min(RETRY_MOST)
}
