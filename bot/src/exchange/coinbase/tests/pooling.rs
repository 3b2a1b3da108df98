//! REST goes over one HTTP/2 connection, however many calls there are.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::Version;
use axum_server::tls_rustls::RustlsConfig;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use exchange_simulator::data_dir::DataDir;
use futures::future::join_all;
use serde_json::json;

use super::super::budget::Budget;
use super::super::jwt::{Signer, VenueClock};
use super::super::{ApiKey, tls};
use super::*;

/// Over what the requests came.
#[derive(Debug, Default)]
struct Seen {
    peers: BTreeSet<SocketAddr>,
    versions: Vec<Version>,
}

type Shared = Arc<Mutex<Seen>>;

async fn key_permissions(
    State(seen): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> String {
    let mut seen = seen.lock().unwrap();
    seen.peers.insert(peer);
    seen.versions.push(request.version());
    json!({"can_view": true, "can_trade": true, "can_transfer": false, "portfolio_uuid": "p"}).to_string()
}

/// A server with the certificate of a simulator, and a client of it.
async fn server(seen: &Shared) -> (Coinbase, axum_server::Handle<SocketAddr>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::new(dir.path());
    data.init(1, &[]).unwrap();
    let config = RustlsConfig::from_pem_file(data.path("server.crt"), data.path("server.key")).await.unwrap();
    let router = Router::new().fallback(key_permissions).with_state(Arc::clone(seen));
    let handle = axum_server::Handle::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let serving = axum_server::from_tcp_rustls(listener, config)
        .unwrap()
        .handle(handle.clone())
        .serve(router.into_make_service_with_connect_info::<SocketAddr>());
    tokio::spawn(serving);

    std::fs::write(dir.path().join("name"), "organizations/o/apiKeys/k").unwrap();
    std::fs::write(dir.path().join("privateKey"), STANDARD.encode([7; 32])).unwrap();
    let key = ApiKey::load(dir.path()).unwrap();
    let client = Coinbase::new(
        &format!("https://{address}"),
        &Transport::Network,
        tls::client_config(Some(&data.path("ca.crt"))).unwrap(),
        Arc::new(Signer::new(key, Randomness::seeded(1))),
        Arc::new(VenueClock::new(Clock::system())),
        Arc::new(Budget::new(1_000)),
    );
    (client.unwrap(), handle)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_go_over_one_connection_of_http_2() {
    let seen = Shared::default();
    let (client, handle) = server(&seen).await;
    client.key_permissions().await.unwrap();
    for _ in 0..5 {
        for result in join_all((0..40).map(|_| client.key_permissions())).await {
            result.unwrap();
        }
    }
    {
        let seen = seen.lock().unwrap();
        assert_eq!(seen.versions.len(), 201);
        assert!(seen.versions.iter().all(|version| *version == Version::HTTP_2), "{:?}", seen.versions);
        assert_eq!(seen.peers.len(), 1, "one connection: {:?}", seen.peers);
    }
    handle.shutdown();
}
