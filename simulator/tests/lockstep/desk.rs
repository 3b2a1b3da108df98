//! A client of an exchange in the same runtime: HTTP/1.1 and WebSockets over an in-memory pipe.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use exchange_simulator::data_dir::Accounts;
use exchange_simulator::server::clock::Clock;
use exchange_simulator::server::{Options, Simulator};
use futures::{SinkExt, StreamExt};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use p256::pkcs8::EncodePrivateKey;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::OpCode;
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};

pub const START: &str = "2026-11-16T00:00:00Z"; // a Monday
pub const ADMIN: &str = "admin-token-of-a-test-that-is-long-enough";
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

/// An exchange and one client of it.
pub struct Desk {
    pub simulator: Arc<Simulator>,
    pub accounts: Accounts,
    key: EncodingKey,
}

impl Desk {
    pub fn open(seed: u64, tick: Duration) -> Self {
        let mut options = Options { tick, ..Options::default() };
        options.settings.seed = seed;
        Self::open_with(&options)
    }

    pub fn open_with(options: &Options) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(options.settings.seed);
        let (accounts, files) = Accounts::generate(2, &mut rng).unwrap();
        let file: Value = serde_json::from_str(&files[0].1).unwrap();
        let der = p256::SecretKey::from_sec1_pem(file["privateKey"].as_str().unwrap()).unwrap().to_pkcs8_der().unwrap();
        let clock = Clock::driven_by_tokio(START.parse().unwrap());
        let simulator = Simulator::start(&accounts, ADMIN.into(), options, clock).unwrap();
        Self { simulator: Arc::new(simulator), accounts, key: EncodingKey::from_ec_der(der.as_bytes()) }
    }

    pub fn now(&self) -> Timestamp {
        self.simulator.app.clock.now().time
    }

    fn connect(&self) -> DuplexStream {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let simulator = self.simulator.clone();
        tokio::spawn(async move { simulator.serve_connection(server, PEER).await });
        client
    }

    pub fn token(&self, uri: Option<&str>) -> String {
        let (name, now) = (&self.accounts.keys[0].name, self.now().as_second());
        let mut claims = json!({"sub": name, "iss": "cdp", "nbf": now, "exp": now + 120});
        if let Some(uri) = uri {
            claims["uri"] = json!(uri);
        }
        self.sign(&claims)
    }

    /// A token whose signature is right and one of whose claims is this.
    pub fn token_with(&self, claim: &str, value: Value) -> String {
        let (name, now) = (&self.accounts.keys[0].name, self.now().as_second());
        let mut claims = json!({"sub": name, "iss": "cdp", "nbf": now, "exp": now + 120, "uri": ""});
        claims[claim] = value;
        self.sign(&claims)
    }

    fn sign(&self, claims: &Value) -> String {
        let kid = Some(self.accounts.keys[0].name.clone());
        jsonwebtoken::encode(&Header { alg: Algorithm::ES256, kid, ..Header::default() }, claims, &self.key).unwrap()
    }

    /// One request on a connection of its own; status and body, `None` when the exchange cut the connection.
    pub async fn send(&self, method: &str, path: &str, token: &str, body: Option<&[u8]>) -> (u16, Value) {
        let mut stream = self.connect();
        let body = body.unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.unwrap();
        let reply = String::from_utf8(reply).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap_or((&reply, ""));
        let status = head.split(' ').nth(1).map_or(0, |s| s.parse().unwrap());
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    async fn rest(&self, method: &str, path: &str, body: Option<&[u8]>) -> (u16, Value) {
        let path = format!("/api/v3/brokerage{path}");
        let uri = format!("{method} localhost{}", path.split('?').next().unwrap());
        self.send(method, &path, &self.token(Some(&uri)), body).await
    }

    pub async fn try_post_bytes(&self, path: &str, body: &[u8]) -> (u16, Value) {
        self.rest("POST", path, Some(body)).await
    }

    pub async fn status(&self, method: &str, path: &str) -> u16 {
        self.rest(method, path, None).await.0
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, reply) = self.rest("GET", path, None).await;
        assert_eq!(status, 200, "{reply}");
        reply
    }

    pub async fn try_post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.rest("POST", path, Some(body.to_string().as_bytes())).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        let (status, reply) = self.try_post(path, &body).await;
        assert_eq!(status, 200, "{reply}");
        reply
    }

    /// The first portfolio's position as the exchange knows it.
    pub async fn position(&self, product: &str) -> String {
        self.truth().await["positions"][product].as_str().unwrap().to_owned()
    }

    pub async fn open_orders(&self) -> Vec<Value> {
        self.truth().await["open_orders"].as_array().unwrap().clone()
    }

    async fn truth(&self) -> Value {
        self.admin("GET", &format!("/portfolios/{}", self.accounts.portfolios[0].uuid), None).await
    }

    pub async fn order(&self, id: &str, product: &str, side: &str, configuration: Value) -> Value {
        let order = json!({
            "client_order_id": id, "product_id": product, "side": side, "order_configuration": configuration,
        });
        self.post("/orders", order).await
    }

    pub async fn admin(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let body = body.map(|b| b.to_string());
        let path = format!("/_simulator{path}");
        let (status, reply) = self.send(method, &path, ADMIN, body.as_deref().map(str::as_bytes)).await;
        assert_eq!(status, 200, "{reply}");
        reply
    }

    /// Hash of everything that happened.
    pub async fn journal_hash(&self) -> String {
        let (mut after, mut hash) = (0, Sha256::new());
        loop {
            let page = self.admin("GET", &format!("/journal?after={after}"), None).await;
            if page["events"].as_array().unwrap().is_empty() {
                assert!(after > 100, "only {after} events");
                return hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
            }
            hash.update(page["events"].to_string());
            after = page["next"].as_u64().unwrap();
        }
    }

    pub async fn web_socket(&self, path: &str) -> Socket {
        self.try_web_socket(path).await.unwrap()
    }

    /// # Errors
    /// The HTTP status that refuses it.
    pub async fn try_web_socket(&self, path: &str) -> Result<Socket, u16> {
        self.handshake(path).await.map(|stream| Socket::new(stream, true))
    }

    /// One that never reads.
    pub async fn deaf_web_socket(&self, path: &str) -> Socket {
        Socket::new(self.handshake(path).await.unwrap(), false)
    }

    async fn handshake(&self, path: &str) -> Result<WebSocketStream<DuplexStream>, u16> {
        match tokio_tungstenite::client_async(format!("ws://localhost{path}"), self.connect()).await {
            Ok((stream, _)) => Ok(stream),
            Err(tokio_tungstenite::tungstenite::Error::Http(reply)) => Err(reply.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// WebSocket connections that are open.
    pub fn connections(&self) -> usize {
        self.simulator.app.lock().0.hub.peers.len()
    }
}

/// A WebSocket whose frames are read in the background, as a client must, or it is cut off as too slow.
pub struct Socket {
    write: futures::stream::SplitSink<WebSocketStream<DuplexStream>, Message>,
    frames: tokio::sync::mpsc::UnboundedReceiver<Value>,
    reader: tokio::task::JoinHandle<()>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.reader.abort(); // it holds the other half of the connection
    }
}

impl Socket {
    fn new(stream: WebSocketStream<DuplexStream>, reads: bool) -> Self {
        let (write, mut read) = stream.split();
        let (sender, frames) = tokio::sync::mpsc::unbounded_channel();
        let reader = tokio::spawn(async move {
            if !reads {
                std::future::pending::<()>().await;
            }
            while let Some(Ok(message)) = read.next().await {
                if let Message::Text(text) = message {
                    let _ = sender.send(serde_json::from_str(&text).unwrap());
                }
            }
        });
        Self { write, frames, reader }
    }

    pub async fn subscribe(&mut self, channel: &str, products: &[&str], jwt: Option<String>) {
        let mut message = json!({"type": "subscribe", "channel": channel, "product_ids": products});
        if let Some(jwt) = jwt {
            message["jwt"] = json!(jwt);
        }
        self.send(message.to_string()).await;
    }

    pub async fn unsubscribe(&mut self, channel: &str, products: &[&str]) {
        let message = json!({"type": "unsubscribe", "channel": channel, "product_ids": products});
        self.send(message.to_string()).await;
    }

    async fn send(&mut self, text: String) {
        self.write.send(Message::text(text)).await.unwrap();
    }

    /// Any bytes: as text where they are, as a binary message, or past the protocol onto the stream.
    pub async fn send_bytes(&mut self, bytes: &[u8], raw: bool) -> Result<(), String> {
        let message = match std::str::from_utf8(bytes) {
            _ if raw => Message::Frame(Frame::from_payload(
                FrameHeader {
                    opcode: OpCode::from(bytes.first().copied().unwrap_or(1) & 0xf),
                    ..FrameHeader::default()
                },
                bytes.to_vec().into(),
            )),
            Ok(text) => Message::text(text),
            Err(_) => Message::binary(bytes.to_vec()),
        };
        self.write.send(message).await.map_err(|error| error.to_string())
    }

    /// Every frame so far.
    pub async fn drain(&mut self) -> Vec<Value> {
        let mut frames = Vec::new();
        while let Ok(frame) = self.frames.try_recv() {
            frames.push(frame);
        }
        frames
    }

    /// Waits until the exchange has closed the connection.
    pub async fn closed(&mut self) {
        while self.frames.recv().await.is_some() {}
    }
}
