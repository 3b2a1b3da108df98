//! The REST client: how a call is made.

mod calls;
pub mod manual;
mod public;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::{Method, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};

use super::budget::{Budget, Priority};
use super::circuit::Circuit;
use super::http::{Http, HttpError, MAX_REPLY, Reply, Request};
use super::jwt::{Signer, TOKEN_LIFE, VenueClock};
use super::transport::{Transport, authority};
use super::wire;
use crate::exchange::ExchangeError;
pub use calls::Coinbase;
pub(super) use calls::read_product;
pub use public::PublicRest;

/// Deadline of every call, its waiting for its turn included.
const DEADLINE: Duration = Duration::from_secs(5);
/// Pause before the one repetition after HTTP 429, and before the one after a failure of the exchange or the network.
const RATE_LIMIT_PAUSE: Duration = Duration::from_millis(500);
const FAILURE_PAUSE: Duration = Duration::from_millis(200);
/// Items asked for in a page.
const PAGE: &str = "250";
/// Pages and items after which a list is given up.
const MAX_PAGES: usize = 4_000;
const MAX_ITEMS: usize = 1_000_000;

/// Makes the calls at one endpoint. Without a key only the public ones.
#[derive(Debug)]
pub struct Rest {
    http: Http,
    /// Up to and without the resource: `https://host/api/v3/brokerage`.
    root: Url,
    signer: Option<Arc<Signer>>,
    venue: Arc<VenueClock>,
    budget: Arc<Budget>,
    circuit: Circuit,
    /// Whether the last authenticated call was refused.
    refused: AtomicBool,
}

/// One call.
struct Call<'a> {
    method: Method,
    /// Below the root.
    path: &'a [&'a str],
    query: &'a [(&'a str, &'a str)],
    body: Option<Value>,
    priority: Priority,
    authentication: Authentication,
    /// Whether saying it twice does the same as saying it once.
    repeatable: bool,
}

#[derive(Clone, Copy)]
enum Authentication {
    None,
    /// A token of the usual life.
    Token,
    /// A token that expires at this CLOCK_BOOTTIME at the latest.
    TokenUntil(Duration),
}

impl<'a> Call<'a> {
    fn get(path: &'a [&'a str], query: &'a [(&'a str, &'a str)]) -> Self {
        Self {
            method: Method::GET,
            path,
            query,
            body: None,
            priority: Priority::Normal,
            authentication: Authentication::Token,
            repeatable: true,
        }
    }

    /// The call as messages name it.
    fn name(&self) -> String {
        format!("{} /{}", self.method, self.path.join("/"))
    }
}

impl Rest {
    /// What has not yet talked to anybody.
    ///
    /// # Errors
    /// The URL or the TLS configuration cannot be used.
    pub fn new(
        rest_url: &str,
        transport: &Transport,
        tls: rustls::ClientConfig,
        signer: Option<Arc<Signer>>,
        venue: Arc<VenueClock>,
        budget: Arc<Budget>,
    ) -> Result<Self, ExchangeError> {
        let unreachable = |cause: String| ExchangeError::Unreachable { url: rest_url.to_owned(), cause };
        let root = format!("{}/api/v3/brokerage", rest_url.trim_end_matches('/'));
        let root = Url::parse(&root).map_err(|error| unreachable(error.to_string()))?;
        if root.scheme() != "https" || root.host_str().is_none() {
            return Err(unreachable("it is not an https:// URL".to_owned()));
        }
        let http = Http::new(transport, tls).map_err(unreachable)?;
        Ok(Self { http, root, signer, venue, budget, circuit: Circuit::default(), refused: AtomicBool::new(false) })
    }

    /// Why the endpoint counts as failing; None while it answers.
    #[must_use]
    pub fn failing(&self) -> Option<String> {
        self.circuit.failing()
    }

    /// The venue's time, as measured.
    #[must_use]
    pub fn venue_clock(&self) -> &Arc<VenueClock> {
        &self.venue
    }

    /// Measures the venue's time (GET /time, without authentication).
    ///
    /// # Errors
    /// The venue did not answer.
    pub async fn measure_time(&self) -> Result<(), ExchangeError> {
        self.measure_time_until(Instant::now() + DEADLINE).await
    }

    async fn measure_time_until(&self, until: Instant) -> Result<(), ExchangeError> {
        let call = Call { authentication: Authentication::None, ..Call::get(&["time"], &[]) };
        let asked = self.venue.boottime();
        let time: wire::Time = parse(&call, &self.attempt(&call, until).await?)?;
        let shown = time.timestamp().map_err(|cause| ExchangeError::Unreadable { call: call.name(), cause })?;
        self.venue.measured(shown, asked, self.venue.boottime());
        Ok(())
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, &str)]) -> Result<T, ExchangeError> {
        self.call(&Call::get(path, query)).await
    }

    /// Every item of a list, page by page; each is read at once, so that a long list is never held as JSON.
    async fn pages<T: DeserializeOwned, U>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        read: impl Fn(T) -> Result<U, String>,
    ) -> Result<Vec<U>, ExchangeError> {
        let unreadable = |cause: &str| {
            let call = Call::get(path, &[]).name();
            ExchangeError::Unreadable { call, cause: cause.to_owned() }
        };
        let mut items = Vec::new();
        let mut cursor = String::new();
        for _ in 0..MAX_PAGES {
            let mut query = [query, &[("limit", PAGE)]].concat();
            if !cursor.is_empty() {
                query.push(("cursor", &cursor));
            }
            let page: wire::Page<T> = self.get(path, &query).await?;
            let has_next = page.has_next();
            for item in page.items {
                items.push(read(item).map_err(|cause| unreadable(&cause))?);
            }
            if !has_next {
                return Ok(items);
            }
            if page.cursor.is_empty() || page.cursor == cursor {
                return Err(unreadable("there is a next page, but no cursor that leads to it"));
            }
            if items.len() > MAX_ITEMS {
                break;
            }
            cursor = page.cursor;
        }
        Err(unreadable("the list has no end"))
    }

    /// Calls, and where that is harmless repeats once: after 401 with a fresh token and a fresh idea of the venue's
    /// time, after 429 and after a failure of the exchange or the network with a pause. An order is never repeated.
    async fn call<T: DeserializeOwned>(&self, call: &Call<'_>) -> Result<T, ExchangeError> {
        let until = Instant::now() + DEADLINE;
        let mut result = self.attempt(call, until).await;
        if call.repeatable
            && let Err(error) = &result
            && self.prepare_to_repeat(error, until).await
        {
            result = self.attempt(call, until).await;
        }
        let refused = matches!(result, Err(ExchangeError::Refused { .. }));
        if refused || result.is_ok() {
            self.refused.store(refused, Ordering::Relaxed);
        }
        parse(call, &result?)
    }

    /// Waits until a repetition makes sense; false where it never does.
    async fn prepare_to_repeat(&self, error: &ExchangeError, until: Instant) -> bool {
        let pause = match error {
            ExchangeError::Refused { status: 401, .. } => {
                if let Err(error) = self.measure_time_until(until).await {
                    tracing::warn!(%error, "the venue's time could not be measured after a refused token");
                }
                Duration::ZERO
            }
            ExchangeError::RateLimited { .. } => RATE_LIMIT_PAUSE,
            ExchangeError::Unreachable { .. } | ExchangeError::Server { .. } => FAILURE_PAUSE,
            _ => return false,
        };
        if Instant::now() + pause >= until {
            return false;
        }
        sleep(pause).await;
        true
    }

    /// One attempt: a turn in the budget, a token, a request, the body of a 2xx reply.
    async fn attempt(&self, call: &Call<'_>, until: Instant) -> Result<Vec<u8>, ExchangeError> {
        // An order does not wait: the gate that cleared it may close meanwhile. Whoever wants it asks the gate again.
        let turn = if call.repeatable {
            timeout_at(until, self.budget.acquire(call.priority)).await.is_ok()
        } else {
            self.budget.try_acquire(call.priority)
        };
        if !turn {
            return Err(ExchangeError::RateLimited { call: call.name() });
        }
        // Cancels and closes always try.
        if call.priority == Priority::Normal
            && let Err(cause) = self.circuit.admit(Instant::now())
        {
            return Err(ExchangeError::CircuitOpen { url: self.url(), cause });
        }
        let request = self.request(call)?;
        let result = timeout_at(until, self.send(call, request))
            .await
            .unwrap_or_else(|_| Err(ExchangeError::Timeout { call: call.name(), seconds: DEADLINE.as_secs() }));
        match &result {
            Err(
                error @ (ExchangeError::Unreachable { .. }
                | ExchangeError::Untrusted { .. }
                | ExchangeError::Timeout { .. }
                | ExchangeError::Server { .. }),
            ) => self.circuit.failed(error.to_string(), Instant::now()),
            // Whatever else it says, the endpoint answers.
            _ => self.circuit.succeeded(),
        }
        if matches!(result, Err(ExchangeError::RateLimited { .. })) {
            self.budget.exhausted();
        }
        result
    }

    fn url(&self) -> String {
        self.root.origin().ascii_serialization()
    }

    fn request(&self, call: &Call<'_>) -> Result<Request, ExchangeError> {
        let refuse = |message: String| ExchangeError::BadRequest { call: call.name(), message };
        let mut url = self.root.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => segments.extend(call.path),
            Err(()) => return Err(refuse("the endpoint's URL cannot have a path".to_owned())),
        };
        // Without the query: the token does not cover it.
        let uri = format!("{} {}{}", call.method, authority(&url), url.path());
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(call.query);
        }
        let now = self.venue.boottime();
        let expires = match call.authentication {
            Authentication::None => None,
            Authentication::Token => Some(now.saturating_add(TOKEN_LIFE)),
            Authentication::TokenUntil(at) => Some(at),
        };
        let sign = |at| {
            let signer = self.signer.as_ref().ok_or_else(|| "it needs a key, and there is none".to_owned())?;
            signer.token(Some(uri), self.venue.at(now), self.venue.at(at)).map_err(|error| error.to_string())
        };
        let token = expires.map(sign).transpose().map_err(refuse)?;
        let body = call.body.as_ref().map(|body| body.to_string().into_bytes());
        Ok(Request { method: call.method.clone(), url, token, body })
    }

    async fn send(&self, call: &Call<'_>, request: Request) -> Result<Vec<u8>, ExchangeError> {
        match self.http.send(request).await {
            Ok(Reply { status, body }) if status.is_success() => Ok(body),
            Ok(Reply { status, body }) => Err(refusal(call, status, wire::ErrorBody::read(&body))),
            Err(error) => Err(self.transport_error(call, error)),
        }
    }

    fn transport_error(&self, call: &Call<'_>, error: HttpError) -> ExchangeError {
        let url = self.url();
        match error {
            HttpError::Untrusted(cause) => ExchangeError::Untrusted { url, cause },
            HttpError::Unreachable(cause) => ExchangeError::Unreachable { url, cause },
            HttpError::Timeout => ExchangeError::Timeout { call: call.name(), seconds: DEADLINE.as_secs() },
            HttpError::TooLarge => {
                let cause = format!("the reply is larger than {MAX_REPLY} bytes");
                ExchangeError::Unreadable { call: call.name(), cause }
            }
        }
    }
}

/// What a status that is not 2xx means. Only those that say that the request was not carried out are a refusal; after
/// any other (a conflict, a gateway's time-out) its outcome is open.
fn refusal(call: &Call<'_>, status: StatusCode, message: String) -> ExchangeError {
    let call = call.name();
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ExchangeError::Refused { status: status.as_u16(), message },
        StatusCode::TOO_MANY_REQUESTS => ExchangeError::RateLimited { call },
        StatusCode::BAD_REQUEST
        | StatusCode::NOT_FOUND
        | StatusCode::METHOD_NOT_ALLOWED
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNSUPPORTED_MEDIA_TYPE
        | StatusCode::UNPROCESSABLE_ENTITY => ExchangeError::BadRequest { call, message },
        _ => ExchangeError::Server { call, status: status.as_u16(), message },
    }
}

fn parse<T: DeserializeOwned>(call: &Call<'_>, body: &[u8]) -> Result<T, ExchangeError> {
    serde_json::from_slice(body)
        .map_err(|error| ExchangeError::Unreadable { call: call.name(), cause: error.to_string() })
}

fn unreadable(call: &str) -> impl Fn(String) -> ExchangeError {
    move |cause| ExchangeError::Unreadable { call: call.to_owned(), cause }
}
