//! Load on an exchange in the same process: orders over HTTP/1.1 and listeners on WebSockets, through in-memory pipes.
//! Everything is there but TCP and TLS: tokens with signatures that are checked, strict JSON, matching, journal.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use exchange_simulator::data_dir::Accounts;
use exchange_simulator::server::clock::Clock;
use exchange_simulator::server::{Options, Simulator};
use futures::{SinkExt, StreamExt};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use p256::pkcs8::EncodePrivateKey;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
/// A token is used for this long; it would live for 120 s.
const TOKEN: Duration = Duration::from_secs(60);
/// Orders that rest at once, for each worker, before they are cancelled.
pub const RESTING: usize = 10;

/// An exchange under load.
pub struct Load {
    pub simulator: Arc<Simulator>,
    accounts: Accounts,
    keys: Vec<EncodingKey>,
    frames: Arc<AtomicU64>,
}

/// What a run did.
pub struct Done {
    pub orders: u64,
    /// Entries of the journal.
    pub events: u64,
    /// WebSocket frames that arrived.
    pub frames: u64,
}

impl Load {
    /// `workers` accounts on an exchange without limits of requests.
    pub fn new(workers: usize, options: Options, clock: Clock) -> Self {
        let options = Options { rate_limit: 0, web_socket_rate_limit: 0, ..options };
        let (accounts, files) = Accounts::generate(workers, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
        let keys = files[..workers].iter().map(|(_, file)| key(file)).collect();
        let simulator = Simulator::start(&accounts, "x".repeat(32), &options, clock).unwrap();
        Self { simulator: Arc::new(simulator), accounts, keys, frames: Arc::default() }
    }

    /// Entries of the journal so far.
    pub fn events(&self) -> u64 {
        self.simulator.app.lock().0.exchange.journal.last()
    }

    /// Places, fills and cancels until there are so many more events, with somebody listening for each account.
    pub async fn run(&self, events: u64) -> Done {
        let (before, heard) = (self.events(), self.frames.load(Ordering::Relaxed));
        let listeners: Vec<_> = (0..self.keys.len()).map(|index| self.listen(index)).collect();
        let workers = (0..self.keys.len()).map(|index| self.work(index, before + events));
        let orders = futures::future::join_all(workers).await.into_iter().sum();
        let done = Done { orders, events: self.events() - before, frames: self.frames.load(Ordering::Relaxed) - heard };
        for listener in listeners {
            assert!(!listener.is_finished(), "a listener was cut off");
            listener.abort();
        }
        done
    }

    async fn work(&self, index: usize, until: u64) -> u64 {
        let mut client = self.client(index);
        let mut orders = 0;
        while self.events() < until {
            let mut placed = Vec::with_capacity(RESTING);
            for _ in 0..RESTING {
                let order = client.resting();
                placed.push(id(&client.post("/orders", &order).await));
            }
            for side in ["BUY", "SELL", "BUY", "SELL", "BUY", "SELL"] {
                let order = client.order("BIP-20DEC30-CDE", side, json!({"market_market_ioc": {"base_size": "1"}}));
                id(&client.post("/orders", &order).await);
            }
            client.cancel(&placed).await;
            orders += RESTING as u64 + 6;
        }
        orders
    }

    /// A connection of one of the accounts.
    pub fn client(&self, index: usize) -> Client {
        Client {
            stream: connect(&self.simulator),
            simulator: self.simulator.clone(),
            name: self.accounts.keys[index].name.clone(),
            key: self.keys[index].clone(),
            tokens: Vec::new(),
            orders: 0,
        }
    }

    /// Reads user, level2 and heartbeats and checks that no frame is missing.
    fn listen(&self, index: usize) -> tokio::task::JoinHandle<()> {
        let (stream, frames) = (connect(&self.simulator), self.frames.clone());
        let token = self.client(index).sign(None);
        tokio::spawn(async move {
            let (mut socket, _) = tokio_tungstenite::client_async("ws://localhost/ws", stream).await.unwrap();
            for channel in ["user", "level2", "heartbeats"] {
                let products: &[&str] = if channel == "level2" { &["BTC-USD"] } else { &[] };
                let message = json!({"type": "subscribe", "channel": channel, "product_ids": products, "jwt": token});
                socket.send(Message::text(message.to_string())).await.unwrap();
            }
            let mut expected = 0;
            while let Some(Ok(Message::Text(text))) = socket.next().await {
                let number = text.split(r#""sequence_num":"#).nth(1).and_then(|rest| rest.split(',').next());
                assert_eq!(number.unwrap().parse(), Ok(expected), "{text}");
                expected += 1;
                frames.fetch_add(1, Ordering::Relaxed);
            }
        })
    }
}

/// One account's connection.
pub struct Client {
    stream: DuplexStream,
    simulator: Arc<Simulator>,
    name: String,
    key: EncodingKey,
    /// By URI, with the time they were signed at.
    tokens: Vec<(String, Instant, String)>,
    orders: u64,
}

impl Client {
    /// An order that rests far from the market; every second one until 2030, unless it is cancelled.
    pub fn resting(&mut self) -> Value {
        let mut terms = json!({"base_size": "0.001", "limit_price": "30000", "post_only": true});
        if self.orders.is_multiple_of(2) {
            return self.order("BTC-USD", "BUY", json!({"limit_limit_gtc": terms}));
        }
        terms["end_time"] = json!("2030-01-01T00:00:00Z");
        self.order("BTC-USD", "BUY", json!({"limit_limit_gtd": terms}))
    }

    fn order(&mut self, product: &str, side: &str, configuration: Value) -> Value {
        self.orders += 1;
        json!({
            "client_order_id": format!("{}-{}", self.simulator.app.clock.now().time, self.orders),
            "product_id": product,
            "side": side,
            "order_configuration": configuration,
        })
    }

    /// Cancels orders and waits until they are.
    pub async fn cancel(&mut self, ids: &[String]) {
        let reply = self.post("/orders/batch_cancel", &json!({"order_ids": ids})).await;
        assert!(reply["results"].as_array().unwrap().iter().all(|r| r["success"] == true), "{reply}");
        tokio::time::sleep(Duration::from_millis(6)).await;
    }

    pub async fn post(&mut self, path: &str, body: &Value) -> Value {
        let token = self.token("POST", path);
        let body = body.to_string();
        let request = format!(
            "POST /api/v3/brokerage{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await.unwrap();
        let reply = self.reply().await;
        serde_json::from_str(&reply).unwrap_or_else(|_| panic!("{reply}"))
    }

    /// The body of the next reply.
    async fn reply(&mut self) -> String {
        let (mut bytes, mut length) = (Vec::with_capacity(2048), None);
        loop {
            assert!(self.stream.read_buf(&mut bytes).await.unwrap() > 0, "the exchange closed the connection");
            let text = std::str::from_utf8(&bytes).unwrap();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = *length.get_or_insert_with(|| {
                let line = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                line.unwrap().parse::<usize>().unwrap()
            });
            if body.len() == length {
                assert!(head.starts_with("HTTP/1.1 200"), "{text}");
                return body.to_owned();
            }
        }
    }

    /// The token of a request, signed unless a fresh one is there.
    pub fn token(&mut self, method: &str, path: &str) -> String {
        let uri = format!("{method} localhost/api/v3/brokerage{path}");
        self.tokens.retain(|(_, signed, _)| signed.elapsed() < TOKEN);
        if let Some((_, _, token)) = self.tokens.iter().find(|(of, ..)| *of == uri) {
            return token.clone();
        }
        let token = self.sign(Some(&uri));
        self.tokens.push((uri, Instant::now(), token.clone()));
        token
    }

    fn sign(&self, uri: Option<&str>) -> String {
        let now = self.simulator.app.clock.token_time();
        let mut claims = json!({"sub": self.name, "iss": "cdp", "nbf": now, "exp": now + 120});
        if let Some(uri) = uri {
            claims["uri"] = json!(uri);
        }
        let header = Header { alg: Algorithm::ES256, kid: Some(self.name.clone()), ..Header::default() };
        jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
    }
}

/// The id of an order that must have been accepted.
pub fn id(reply: &Value) -> String {
    let id = reply["success_response"]["order_id"].as_str();
    id.unwrap_or_else(|| panic!("an order was refused: {reply}")).to_owned()
}

fn key(file: &str) -> EncodingKey {
    let file: Value = serde_json::from_str(file).unwrap();
    let pem = file["privateKey"].as_str().unwrap();
    EncodingKey::from_ec_der(p256::SecretKey::from_sec1_pem(pem).unwrap().to_pkcs8_der().unwrap().as_bytes())
}

fn connect(simulator: &Arc<Simulator>) -> DuplexStream {
    let (client, server) = tokio::io::duplex(256 * 1024);
    let simulator = simulator.clone();
    tokio::spawn(async move { simulator.serve_connection(server, PEER).await });
    client
}

/// Memory of this process, in MiB.
pub fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}
