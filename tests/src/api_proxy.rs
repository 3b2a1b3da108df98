//! A proxy in front of the API server that can go wrong in ways a network does.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use futures::{Stream, StreamExt, stream};
use tokio::sync::watch;

use crate::process_node::ApiServer;

/// No request of ours is larger.
const MAX_BODY: usize = 4 << 20;

/// What the proxy does to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Watches stay open and tell nothing any more; every other request passes.
    SilentWatches,
    /// No request is answered.
    Hang,
}

/// A running proxy; it ends when it is dropped.
pub struct ApiProxy {
    fault: watch::Sender<Fault>,
    server: ApiServer,
    handle: Handle<SocketAddr>,
}

struct Upstream {
    url: String,
    client: reqwest::Client,
    fault: watch::Receiver<Fault>,
}

impl ApiProxy {
    /// # Errors
    /// No port is free, or the API server's certificate authority cannot be read.
    pub async fn start(upstream: &ApiServer) -> Result<Self> {
        let certificate = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let (pem, key) = (certificate.cert.pem(), certificate.signing_key.serialize_pem());
        let tls = RustlsConfig::from_pem(pem.clone().into_bytes(), key.into_bytes()).await?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let url = format!("https://{}", listener.local_addr()?);
        let (fault, seen) = watch::channel(Fault::None);
        let upstream =
            Arc::new(Upstream { url: upstream.url.clone(), client: client(&upstream.authority)?, fault: seen });
        let router = Router::new().fallback(forward).with_state(upstream);
        let handle = Handle::new();
        let serving = axum_server::from_tcp_rustls(listener, tls)?.handle(handle.clone());
        tokio::spawn(serving.serve(router.into_make_service()));
        Ok(Self { fault, server: ApiServer { url, authority: pem }, handle })
    }

    /// How the proxy is reached.
    pub fn server(&self) -> &ApiServer {
        &self.server
    }

    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        self.handle.shutdown();
    }
}

/// A client that trusts only this authority.
pub fn client(authority: &str) -> Result<reqwest::Client> {
    let certificates = reqwest::Certificate::from_pem_bundle(authority.as_bytes()).context("read a CA")?;
    reqwest::Client::builder().no_proxy().tls_certs_only(certificates).build().map_err(|error| anyhow!(error))
}

async fn forward(State(upstream): State<Arc<Upstream>>, request: Request) -> Response {
    if *upstream.fault.borrow() == Fault::Hang {
        std::future::pending::<()>().await;
    }
    match pass(&upstream, request).await {
        Ok(response) => response,
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
    }
}

async fn pass(upstream: &Upstream, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let is_watch = path.contains("watch=true") || path.contains("watch=1");
    let body = to_bytes(body, MAX_BODY).await?;
    let url = format!("{}{path}", upstream.url);
    let request = upstream.client.request(parts.method, url).headers(end_to_end(parts.headers)).body(body);
    let reply = request.send().await?;
    let (status, headers) = (reply.status(), end_to_end(reply.headers().clone()));
    let chunks = reply.bytes_stream();
    let body =
        if is_watch { Body::from_stream(audible(chunks, upstream.fault.clone())) } else { Body::from_stream(chunks) };
    Ok((status, headers, body).into_response())
}

/// Headers that concern more than one connection.
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    for name in [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH] {
        headers.remove(name);
    }
    headers
}

/// The chunks of a watch until it is to fall silent; then nothing, not even its end.
fn audible<S: Stream + Send + 'static>(chunks: S, fault: watch::Receiver<Fault>) -> impl Stream<Item = S::Item> {
    stream::unfold((Box::pin(chunks), fault), |(mut chunks, fault)| async move {
        let chunk = chunks.next().await;
        if *fault.borrow() == Fault::SilentWatches {
            std::future::pending::<()>().await;
        }
        chunk.map(|chunk| (chunk, (chunks, fault)))
    })
}
