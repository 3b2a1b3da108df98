//! Public replies are kept for a second, as Coinbase's are: who asks again within it gets the same reply, unless the
//! request says `cache-control: no-cache`.

use std::collections::HashMap;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::response::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// How long a reply is kept, in nanoseconds.
const KEPT_NS: u64 = 1_000_000_000;
/// Replies kept, and the largest of them in bytes; more are not kept, so that nobody fills the memory.
const REPLIES: usize = 1_000;
const LARGEST: usize = 1024 * 1024;

/// Replies by path and query.
#[derive(Debug, Default)]
pub struct Cache(HashMap<String, Kept>);

#[derive(Debug)]
struct Kept {
    until_ns: u64,
    parts: Parts,
    body: Bytes,
}

impl Cache {
    /// The reply that is still kept.
    pub fn get(&self, uri: &str, now_ns: u64) -> Option<Response> {
        let kept = self.0.get(uri).filter(|kept| now_ns < kept.until_ns)?;
        Some(Response::from_parts(kept.parts.clone(), Body::from(kept.body.clone())))
    }

    /// Keeps a good reply.
    pub fn put(&mut self, uri: String, parts: &Parts, body: &Bytes, now_ns: u64) {
        if self.0.len() >= REPLIES {
            self.0.retain(|_, kept| now_ns < kept.until_ns);
        }
        if self.0.len() < REPLIES && parts.status == StatusCode::OK {
            let kept = Kept { until_ns: now_ns + KEPT_NS, parts: parts.clone(), body: body.clone() };
            self.0.insert(uri, kept);
        }
    }
}

/// Whether a request wants a reply of its own.
pub fn refuses(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut directives = values.flat_map(|value| value.split(',')).map(str::trim);
    directives.any(|directive| directive.eq_ignore_ascii_case("no-cache") || directive.eq_ignore_ascii_case("no-store"))
}

/// A reply as bytes, so that it can be kept.
pub async fn whole(response: Response) -> Result<(Parts, Bytes), Response> {
    let (parts, body) = response.into_parts();
    match to_bytes(body, LARGEST).await {
        Ok(bytes) => Ok((parts, bytes)),
        Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR.into_response()),
    }
}
