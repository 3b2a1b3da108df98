//! Whatever an exchange, or somebody in its place, sends: the client answers with an error or with what it read, in time
//! and in bounded memory, and never panics.

mod input;

use std::time::Duration;

use arbbot_crds::arbbot::Endpoint;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::super::budget::Budget;
use super::super::jwt::{Signer, VenueClock};
use super::super::{ApiKey, Connector, Dial, Session, Settings, Transport, tls};
use super::*;
use crate::randomness::Randomness;
use input::{like, messages, valid};

/// Every call has a deadline of 5 s; listings make several.
const PATIENCE: Duration = Duration::from_secs(60);

fn settings(dir: &tempfile::TempDir) -> Settings {
    std::fs::write(dir.path().join("name"), "k").unwrap();
    std::fs::write(dir.path().join("privateKey"), "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=").unwrap();
    Settings {
        endpoint: Endpoint {
            name: "hostile".to_owned(),
            rest_url: "https://hostile".to_owned(),
            market_web_socket_url: "wss://hostile/ws".to_owned(),
            user_web_socket_url: "wss://hostile/ws/user".to_owned(),
        },
        ca_file: None,
        credentials_dir: dir.path().to_owned(),
        portfolio: "p".to_owned(),
        products: [SPOT.to_owned(), FUTURE.to_owned()],
        requests_per_second: 30,
    }
}

/// A pipe whose other end is served by `serve`.
fn dial<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(DuplexStream) -> F + Send + Sync + 'static,
) -> Transport {
    Transport::InProcess(Dial::new(move |_| {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        tokio::spawn(serve(theirs));
        Ok(ours)
    }))
}

/// A client of an exchange that answers every request with these bytes.
fn client(answer: impl Fn() -> Vec<u8> + Clone + Send + Sync + 'static) -> Coinbase {
    let dir = tempfile::tempdir().unwrap();
    settings(&dir);
    let transport = dial(move |mut pipe| {
        let answer = answer.clone();
        async move {
            let mut request = vec![0; 64 * 1024];
            // The bot may be gone before it has read everything.
            if pipe.read(&mut request).await.is_ok() {
                pipe.write_all(&answer()).await.ok();
            }
        }
    });
    let randomness = Randomness::seeded(1);
    let clock = Clock::driven_by_tokio(in_process::START.parse().unwrap());
    let signer = Signer::new(ApiKey::load(dir.path()).unwrap(), randomness);
    Coinbase::new(
        "https://hostile",
        &transport,
        tls::client_config(None).unwrap(),
        signer.into(),
        VenueClock::new(clock).into(),
        Budget::new(10_000).into(),
    )
    .unwrap()
}

fn http(status: u16, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} Hostile\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn paused<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().unwrap().block_on(future)
}

/// Makes every call there is; each ends in time.
async fn call_everything(exchange: &Coinbase) {
    let began = Instant::now();
    let everything = async {
        exchange.measure_time().await.ok();
        exchange.key_permissions().await.ok();
        if let Ok(product) = exchange.product(FUTURE).await {
            assert!(
                product.price_increment > dec!(0) && product.size_increment > dec!(0) && product.unit_base > dec!(0)
            );
        }
        exchange.order("o-1").await.ok();
        exchange.orders(&products(), Some(Timestamp::UNIX_EPOCH)).await.ok();
        exchange.holdings().await.ok();
        exchange.cancel(&["o-1".to_owned()]).await.ok();
        let order = NewOrder {
            client_order_id: "c-1".into(),
            product: SPOT.into(),
            side: Side::Buy,
            size: dec!(1),
            kind: OrderKind::Market,
        };
        let until = exchange.venue_clock().boottime() + Duration::from_secs(20);
        exchange.place(Cleared::until(order, until)).await.ok();
    };
    timeout(PATIENCE, everything).await.unwrap_or_else(|_| panic!("no end after {:?}", began.elapsed()));
}

fn check<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    if let Err(error) = TestRunner::new(config).run(&strategy, test) {
        panic!("{error}");
    }
}

#[test]
fn no_body_of_a_reply_makes_the_client_panic_or_hang() {
    let status = prop::sample::select(vec![200u16, 200, 200, 200, 201, 204, 301, 400, 401, 404, 429, 500, 503, 999]);
    check(150, (status, like(valid())), |(status, body)| {
        paused(async move { call_everything(&client(move || http(status, &body))).await });
        Ok(())
    });
}

#[test]
fn no_bytes_in_the_place_of_http_make_the_client_panic_or_hang() {
    let head = http(200, b"{}");
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        (prop::collection::vec(any::<u8>(), 0..40), any::<prop::sample::Index>()).prop_map(move |(odd, index)| {
            let mut bytes = head.clone();
            let at = index.index(bytes.len());
            bytes.splice(at..at, odd);
            bytes
        }),
    ];
    check(100, bytes, |bytes| {
        paused(async move { call_everything(&client(move || bytes.clone())).await });
        Ok(())
    });
}

#[test]
fn a_body_without_an_end_is_given_up_at_its_limit() {
    paused(async {
        let endless = || {
            let mut bytes = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"a\": \"".to_vec();
            bytes.resize(20 * 1024 * 1024, b'a');
            bytes
        };
        let error = client(endless).key_permissions().await.unwrap_err();
        assert!(error.to_string().contains("larger than 16777216 bytes"), "{error}");
        assert!(!error.proves_not_placed());
    });
}

#[test]
fn a_list_without_an_end_is_given_up() {
    paused(async {
        // The cursor never changes.
        let page = json!({"orders": [], "has_next": true, "cursor": "again"}).to_string();
        let error = client(move || http(200, page.as_bytes())).orders(&products(), None).await.unwrap_err();
        assert!(error.to_string().contains("no cursor that leads to it"), "{error}");
        // It always does.
        let count = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let pages = move || {
            let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            http(200, json!({"orders": [], "has_next": true, "cursor": n.to_string()}).to_string().as_bytes())
        };
        let error = client(pages).orders(&products(), None).await.unwrap_err();
        assert!(error.to_string().contains("no end"), "{error}");
    });
}

#[test]
fn no_message_makes_a_connection_panic() {
    check(2000, prop::collection::vec(like(messages()), 1..6), |sent| {
        for link in [Link::MarketWebSocket, Link::UserWebSocket] {
            let mut channels = super::super::websocket::Channels::new(link, &[SPOT.to_owned(), FUTURE.to_owned()]);
            for text in messages().iter().take(5).map(Value::to_string) {
                channels.hear(&text).unwrap();
            }
            for bytes in &sent {
                for event in
                    channels.hear(&String::from_utf8_lossy(bytes)).map(|heard| heard.events).unwrap_or_default()
                {
                    if let VenueEvent::Touch { touch: Some(touch), .. } = event {
                        prop_assert!(touch.best_bid < touch.best_ask && touch.mid() > dec!(0));
                    }
                }
            }
            channels.down("the end");
        }
        Ok(())
    });
}

/// Opens a session whose WebSockets get these bytes after the handshake, raw, and returns what they told.
async fn web_socket_gets(bytes: Vec<u8>) -> Vec<VenueEvent> {
    let permissions = valid()[1].clone();
    let transport = dial(move |mut pipe| {
        let (bytes, permissions) = (bytes.clone(), permissions.clone());
        async move {
            let mut request = vec![0; 64 * 1024];
            let Ok(length) = pipe.read(&mut request).await else { return };
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let answer = if let Some(key) = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")) {
                let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.trim().as_bytes());
                let head = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: {accept}\r\n\r\n"
                );
                [head.into_bytes(), bytes].concat()
            } else if request.contains("/time") {
                http(200, valid()[0].to_string().as_bytes())
            } else {
                http(200, permissions.to_string().as_bytes())
            };
            pipe.write_all(&answer).await.ok();
            // Stays open, so that silence is what ends it.
            while pipe.read(&mut vec![0; 1024]).await.is_ok_and(|length| length > 0) {}
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let (sender, mut receiver) = mpsc::channel(4096);
    let clock = Clock::driven_by_tokio(in_process::START.parse().unwrap());
    let connector = Connector::new(transport, clock, Randomness::seeded(1), sender);
    let session = Session::open(settings(&dir), &connector).await.unwrap();
    session.put_in_use().await;
    let mut told = Vec::new();
    let listen = async {
        while let Some(event) = receiver.recv().await {
            told.push(event);
        }
    };
    timeout(Duration::from_secs(30), listen).await.ok();
    told
}

/// A frame of the server: text or binary, final.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    [&[0x80 | opcode, 126], &length.to_be_bytes()[..], payload].concat()
}

#[test]
fn no_bytes_on_a_websocket_make_it_panic() {
    let frames = (0u8..16, like(messages())).prop_map(|(opcode, payload)| frame(opcode, &payload));
    let stream = prop_oneof![
        prop::collection::vec(frames, 1..5).prop_map(|frames| frames.concat()),
        prop::collection::vec(any::<u8>(), 0..300),
    ];
    check(60, stream, |bytes| {
        paused(web_socket_gets(bytes));
        Ok(())
    });
}

#[test]
fn a_frame_that_says_it_is_huge_ends_the_connection() {
    // A text frame of 2^62 bytes.
    let bytes = [&[0x81, 127][..], &(1u64 << 62).to_be_bytes()].concat();
    let told = paused(web_socket_gets(bytes));
    let says = |event: &VenueEvent| match event {
        VenueEvent::Link { down: Some(cause), .. } => cause.contains("too long") || cause.contains("too big"),
        _ => false,
    };
    assert!(told.iter().any(says), "{told:?}");
}
