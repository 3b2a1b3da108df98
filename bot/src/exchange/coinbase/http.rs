//! One HTTP request: over pooled HTTP/2 with TLS, or over a pipe inside this process.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header;
use hyper_util::rt::TokioIo;
use reqwest::{Method, StatusCode, Url};

use super::tls::{causes, is_untrusted};
use super::transport::{Dial, Transport, authority};

/// Deadline of a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// How often an idle connection is asked whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Largest reply that is read, in bytes; a full page of orders is about half a million.
pub const MAX_REPLY: usize = 16 * 1024 * 1024;
const USER_AGENT: &str = concat!("arb-bot/", env!("CARGO_PKG_VERSION"));

/// A request with everything it carries.
#[derive(Debug)]
pub struct Request {
    pub method: Method,
    pub url: Url,
    /// JWT; without one the reply must not come from a cache.
    pub token: Option<String>,
    /// JSON.
    pub body: Option<Vec<u8>>,
}

impl Request {
    fn headers(&self) -> Vec<(header::HeaderName, String)> {
        let mut headers = vec![match &self.token {
            Some(token) => (header::AUTHORIZATION, format!("Bearer {token}")),
            // Public replies are cached for a second, and a cached time is wrong.
            None => (header::CACHE_CONTROL, "no-cache".to_owned()),
        }];
        if self.body.is_some() {
            headers.push((header::CONTENT_TYPE, "application/json".to_owned()));
        }
        headers
    }
}

/// Status and body, whatever they say.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub body: Vec<u8>,
}

/// Why there is no reply.
#[derive(Debug)]
pub enum HttpError {
    Untrusted(String),
    Timeout,
    Unreachable(String),
    TooLarge,
}

/// An HTTP client.
#[derive(Debug)]
pub enum Http {
    Network(reqwest::Client),
    InProcess(Dial),
}

impl Http {
    /// A client that has not yet connected.
    ///
    /// # Errors
    /// The TLS configuration cannot be used.
    pub fn new(transport: &Transport, mut tls: rustls::ClientConfig) -> Result<Self, String> {
        if let Transport::InProcess(dial) = transport {
            return Ok(Self::InProcess(dial.clone()));
        }
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(USER_AGENT)
            .https_only(true)
            // A token goes to the host it names and nowhere else.
            .redirect(reqwest::redirect::Policy::none())
            // An order is sent once; what may be repeated is repeated by the caller, visibly.
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            // Finds out within seconds that a pooled connection is dead.
            .http2_keep_alive_interval(KEEP_ALIVE)
            .http2_keep_alive_timeout(CONNECT)
            .http2_keep_alive_while_idle(true)
            .build();
        client.map(Self::Network).map_err(|error| causes(&error))
    }

    /// Sends once and reads the whole reply. The caller bounds the wait.
    ///
    /// # Errors
    /// There is no complete reply; the request may nevertheless have been carried out.
    pub async fn send(&self, request: Request) -> Result<Reply, HttpError> {
        match self {
            Self::Network(client) => over_network(client, request).await,
            Self::InProcess(dial) => in_process(dial, request).await,
        }
    }
}

async fn over_network(client: &reqwest::Client, request: Request) -> Result<Reply, HttpError> {
    let headers = request.headers();
    let mut builder = client.request(request.method, request.url);
    for (name, value) in headers {
        builder = builder.header(name, value);
    }
    if let Some(body) = request.body {
        builder = builder.body(body);
    }
    let mut response = builder.send().await.map_err(network_error)?;
    let status = response.status();
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => take(&mut body, &chunk)?,
            Ok(None) => break,
            // The status alone says what an error is.
            Err(_) if !status.is_success() => break,
            Err(error) => return Err(network_error(error)),
        }
    }
    Ok(Reply { status, body })
}

fn network_error(error: reqwest::Error) -> HttpError {
    let error = error.without_url();
    if is_untrusted(&error) {
        HttpError::Untrusted(causes(&error))
    } else if error.is_timeout() && !error.is_connect() {
        HttpError::Timeout
    } else {
        HttpError::Unreachable(causes(&error))
    }
}

async fn in_process(dial: &Dial, request: Request) -> Result<Reply, HttpError> {
    let unreachable = |error: &(dyn std::error::Error + 'static)| HttpError::Unreachable(causes(error));
    let authority = authority(&request.url);
    let path = match request.url.query() {
        Some(query) => format!("{}?{query}", request.url.path()),
        None => request.url.path().to_owned(),
    };
    let headers = request.headers();
    let mut builder = hyper::Request::builder().method(request.method).uri(path).header(header::HOST, &authority);
    for (name, value) in headers {
        builder = builder.header(name, value);
    }
    let body = Full::new(Bytes::from(request.body.unwrap_or_default()));
    let message = builder.header(header::USER_AGENT, USER_AGENT).body(body).map_err(|error| unreachable(&error))?;
    let pipe = dial.open(&authority).map_err(|error| unreachable(&error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(pipe)).await.map_err(|error| unreachable(&error))?;
    // Ends with the sender, at the end of this function.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the pipe to the exchange ended");
        }
    });
    let mut response = sender.send_request(message).await.map_err(|error| unreachable(&error))?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(frame) = response.frame().await {
        match frame.map(hyper::body::Frame::into_data) {
            Ok(Ok(chunk)) => take(&mut body, &chunk)?,
            Ok(Err(_)) => {}
            Err(_) if !status.is_success() => break,
            Err(error) => return Err(unreachable(&error)),
        }
    }
    Ok(Reply { status, body })
}

fn take(body: &mut Vec<u8>, chunk: &[u8]) -> Result<(), HttpError> {
    if body.len() + chunk.len() > MAX_REPLY {
        return Err(HttpError::TooLarge);
    }
    body.extend_from_slice(chunk);
    Ok(())
}
