//! Who is asking: authentication, permissions, rate limit and faults, before any handler runs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use uuid::Uuid;

use super::App;
use super::cache;
use super::error::ApiError;
use super::rate_limit::Allowance;

/// Largest request body, in bytes; an order is a few hundred.
const MAX_BODY: usize = 64 * 1024;
/// Time a client has to send its body.
const BODY: Duration = Duration::from_secs(10);

/// An authenticated key, available to handlers as a request extension.
#[derive(Debug, Clone)]
pub struct Caller {
    pub portfolio: Uuid,
    pub can_view: bool,
    pub can_trade: bool,
    pub can_transfer: bool,
}

/// Reads a request's body before anything answers it.
///
/// The official SDK sends a body even with GET, in a packet of its own. A reply that overtakes an unread body makes
/// the server close the connection, and the client's next request on it fails.
pub async fn buffered(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    match tokio::time::timeout(BODY, axum::body::to_bytes(body, MAX_BODY)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(parts, bytes.into())).await,
        Ok(Err(_)) => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}

/// Lets through requests with a valid token whose key may view (GET) or trade (anything else).
pub async fn authenticated(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let caller = match authenticate(&app, &request) {
        Ok(caller) => caller,
        Err(error) => return error.into_response(),
    };
    let portfolio = caller.portfolio;
    let (allowance, gate) = {
        let (mut state, now) = app.lock();
        let gate = state.faults.gate(Some(portfolio), request.method().as_str(), &full_path(&request), now.time);
        (state.rate_limiter.take(portfolio, now.monotonic_ns), gate)
    };
    let limited = allowance.is_some_and(|a| !a.allowed);
    let permitted = if request.method().is_safe() { caller.can_view } else { caller.can_trade };
    request.extensions_mut().insert(caller);
    let mut response = if limited {
        ApiError::RateLimited.into_response()
    } else if !permitted {
        ApiError::MissingScopes.into_response()
    } else {
        gate.pass(request, next).await
    };
    if let Some(allowance) = allowance {
        add_headers(response.headers_mut(), allowance);
    }
    response
}

/// Rate limit, cache and faults for requests that need no key. A cached reply counts, too: Coinbase does not say, and a
/// client that is right here is right there.
pub async fn public(
    State(app): State<Arc<App>>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    request: Request,
    next: Next,
) -> Response {
    let path = full_path(&request);
    let uri = format!("{path}?{}", request.uri().query().unwrap_or_default());
    let cacheable = !cache::refuses(request.headers());
    let (allowance, kept, gate) = {
        let (mut state, now) = app.lock();
        let allowance = state.public_rate_limiter.take(address(peer), now.monotonic_ns);
        let gate = state.faults.gate(None, request.method().as_str(), &path, now.time);
        let kept = state.cache.get(&uri, now.monotonic_ns).filter(|_| cacheable && !gate.strikes());
        (allowance, kept, gate)
    };
    let mut response = if allowance.is_some_and(|a| !a.allowed) {
        ApiError::RateLimited.into_response()
    } else if let Some(kept) = kept {
        kept
    } else {
        match cache::whole(gate.pass(request, next).await).await {
            Ok((parts, body)) => {
                let (mut state, now) = app.lock();
                state.cache.put(uri, &parts, &body, now.monotonic_ns);
                Response::from_parts(parts, body.into())
            }
            Err(response) => response,
        }
    };
    if let Some(allowance) = allowance {
        add_headers(response.headers_mut(), allowance);
    }
    response
}

/// Who is counted.
pub fn address(peer: Option<Extension<ConnectInfo<SocketAddr>>>) -> IpAddr {
    peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |Extension(ConnectInfo(peer))| peer.ip())
}

fn authenticate(app: &App, request: &Request) -> Result<Caller, ApiError> {
    let uri = format!("{} {}{}", request.method(), authority(request.headers(), request.uri()), full_path(request));
    let result = bearer(request.headers())
        .ok_or(super::auth::AuthError::Missing)
        .and_then(|token| app.keys.verify(token, Some(&uri), app.clock.token_time()));
    let key = result.map_err(|error| {
        tracing::info!(%uri, %error, "unauthorized");
        ApiError::Unauthorized
    })?;
    let (mut state, now) = app.lock();
    if state.faults.revoked(key.portfolio, &key.name, now.time) {
        return Err(ApiError::Unauthorized);
    }
    Ok(Caller {
        portfolio: state.faults.portfolio_of(key.portfolio, &key.name, now.time),
        can_view: key.can_view,
        can_trade: key.can_trade,
        can_transfer: key.can_transfer,
    })
}

pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// Host and port the client addressed: the Host header of HTTP/1, the authority of HTTP/2.
fn authority<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> &'a str {
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
    host.or_else(|| uri.authority().map(|a| a.as_str())).unwrap_or_default()
}

/// The path as sent; inside a nested router the request's own URI has lost its prefix.
fn full_path(request: &Request) -> String {
    let original = request.extensions().get::<axum::extract::OriginalUri>();
    original.map_or_else(|| request.uri().path().to_owned(), |uri| uri.path().to_owned())
}

fn add_headers(headers: &mut HeaderMap, allowance: Allowance) {
    headers.insert("x-ratelimit-limit", HeaderValue::from(allowance.limit));
    headers.insert("x-ratelimit-remaining", HeaderValue::from(allowance.remaining));
    headers.insert("x-ratelimit-reset", HeaderValue::from(allowance.reset_seconds));
}
