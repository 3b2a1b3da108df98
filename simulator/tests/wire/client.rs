//! A client as a user would write it: the real binary, TLS with its CA, tokens signed by another library.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use exchange_simulator::process::Process;
use futures::{SinkExt, StreamExt};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use p256::pkcs8::EncodePrivateKey;
use reqwest::{Client, Method};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};

/// Longest wait for anything in these tests.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running simulator, ended when dropped.
pub struct Simulator {
    pub process: Process,
    pub address: String,
    pub data_dir: TempDir,
    http: Client,
}

/// An API key from its file.
#[derive(Clone)]
pub struct Key {
    pub name: String,
    private: EncodingKey,
}

impl Simulator {
    pub fn start(arguments: &[&str]) -> Self {
        // Another test of this process may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let data_dir = TempDir::new().unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_exchange-simulator"));
        let arguments = [&["--accounts", "2"], arguments].concat();
        let process = Process::start(program, "127.0.0.1:0", data_dir.path(), &arguments).unwrap();
        let ca = std::fs::read(data_dir.path().join("ca.crt")).unwrap();
        let http = Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()])
            .timeout(PATIENCE)
            .build()
            .unwrap();
        Self { address: process.address.clone(), process, data_dir, http }
    }

    pub fn key(&self, file: &str) -> Key {
        Key::read(&self.data_dir.path().join(file))
    }

    pub fn portfolio(&self, index: usize) -> String {
        let text = std::fs::read_to_string(self.data_dir.path().join("accounts.json")).unwrap();
        let accounts: Value = serde_json::from_str(&text).unwrap();
        accounts["portfolios"][index]["uuid"].as_str().unwrap().to_owned()
    }

    /// Sends a request with any token and returns status, body and headers.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<String>,
    ) -> (u16, Value, reqwest::header::HeaderMap) {
        let mut request = self.http.request(method, format!("https://{}{path}", self.address));
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json").body(body);
        }
        let reply = request.send().await.unwrap();
        let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
        let text = reply.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)), headers)
    }

    /// A request without a key; `fresh` wants no reply from a cache.
    pub async fn public(&self, path: &str, fresh: bool) -> (u16, Value, reqwest::header::HeaderMap) {
        let mut request = self.http.get(format!("https://{}/api/v3/brokerage{path}", self.address));
        if fresh {
            request = request.header("Cache-Control", "no-cache");
        }
        let reply = request.send().await.unwrap();
        let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
        (status, reply.json().await.unwrap(), headers)
    }

    pub async fn get(&self, key: &Key, path: &str) -> (u16, Value) {
        let token = key.rest_token("GET", &self.address, path);
        let (status, body, _) = self.send(Method::GET, &format!("/api/v3/brokerage{path}"), Some(&token), None).await;
        (status, body)
    }

    pub async fn post(&self, key: &Key, path: &str, body: Value) -> (u16, Value) {
        let token = key.rest_token("POST", &self.address, path);
        let path = format!("/api/v3/brokerage{path}");
        let (status, body, _) = self.send(Method::POST, &path, Some(&token), Some(body.to_string())).await;
        (status, body)
    }

    pub async fn order(&self, key: &Key, id: &str, product: &str, side: &str, configuration: Value) -> Value {
        let order = json!({
            "client_order_id": id,
            "product_id": product,
            "side": side,
            "order_configuration": configuration,
        });
        let (status, reply) = self.post(key, "/orders", order).await;
        assert_eq!(status, 200, "{reply}");
        reply
    }

    pub async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        self.admin_text(method, path, &body.map(|b| b.to_string()).unwrap_or_default()).await
    }

    pub async fn admin_text(&self, method: Method, path: &str, body: &str) -> Value {
        let token = std::fs::read_to_string(self.data_dir.path().join("admin.token")).unwrap();
        let path = format!("/_simulator{path}");
        let (status, reply, _) = self.send(method, &path, Some(token.trim()), Some(body.to_owned())).await;
        assert_eq!(status, 200, "{body}: {reply}");
        reply
    }

    /// A bare TLS connection, for what no HTTP client would send.
    pub fn connect(&self) -> rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream> {
        let tcp = std::net::TcpStream::connect(&self.address).unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = "127.0.0.1".try_into().unwrap();
        rustls::StreamOwned::new(rustls::ClientConnection::new(self.tls(), name).unwrap(), tcp)
    }

    fn tls(&self) -> Arc<rustls::ClientConfig> {
        let ca = std::fs::read(self.data_dir.path().join("ca.crt")).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
        Arc::new(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
    }

    pub async fn web_socket(&self, path: &str) -> Socket {
        let connector = Connector::Rustls(self.tls());
        let url = format!("wss://{}{path}", self.address);
        Socket(connect_async_tls_with_config(url, None, true, Some(connector)).await.unwrap().0)
    }
}

impl Key {
    pub fn read(path: &Path) -> Self {
        let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let pem = file["privateKey"].as_str().unwrap();
        let der = p256::SecretKey::from_sec1_pem(pem).unwrap().to_pkcs8_der().unwrap();
        Self { name: file["name"].as_str().unwrap().to_owned(), private: EncodingKey::from_ec_der(der.as_bytes()) }
    }

    pub fn token(&self, claims: &Value) -> String {
        self.token_as(&self.name, claims)
    }

    /// A token that names another key.
    pub fn token_as(&self, kid: &str, claims: &Value) -> String {
        let header = Header { alg: Algorithm::ES256, kid: Some(kid.to_owned()), ..Header::default() };
        jsonwebtoken::encode(&header, claims, &self.private).unwrap()
    }

    pub fn rest_token(&self, method: &str, address: &str, path: &str) -> String {
        let path = path.split('?').next().unwrap();
        let mut claims = self.claims();
        claims["uri"] = json!(format!("{method} {address}/api/v3/brokerage{path}"));
        self.token(&claims)
    }

    pub fn claims(&self) -> Value {
        let now = jiff::Timestamp::now().as_second();
        json!({"sub": self.name, "iss": "cdp", "nbf": now, "exp": now + 120})
    }
}

/// A WebSocket that checks every frame's envelope.
pub struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    pub async fn subscribe(&mut self, channel: &str, products: &[&str], jwt: Option<String>) {
        let mut message = json!({"type": "subscribe", "channel": channel, "product_ids": products});
        if let Some(jwt) = jwt {
            message["jwt"] = json!(jwt);
        }
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    /// The next frame; `None` when the exchange closed the connection.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            match tokio::time::timeout(PATIENCE, self.0.next()).await.unwrap() {
                Some(Ok(Message::Text(text))) => return Some(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// Frames until one satisfies the condition, that one included.
    pub async fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut frames = Vec::new();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !frames.last().is_some_and(&wanted) {
            assert!(tokio::time::Instant::now() < deadline, "nothing fitting among {frames:?}");
            frames.push(self.next().await.unwrap());
        }
        frames
    }
}
