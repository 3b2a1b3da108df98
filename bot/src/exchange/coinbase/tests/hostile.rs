//! Whatever an exchange, or somebody in its place, sends: the client answers with an error or with what it read, in time
//! and in bounded memory, and never panics.

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

/// Every call has a deadline of 5 s; listings make several.
const PATIENCE: Duration = Duration::from_secs(60);

/// Replies as they should be, one for each call.
fn valid() -> Vec<Value> {
    let order = json!({
        "order_id": "o-1", "client_order_id": "c-1", "product_id": "BTC-USD", "side": "BUY", "status": "OPEN",
        "order_configuration": {"limit_limit_gtd": {"base_size": "0.5", "limit_price": "1"}}, "filled_size": "0.25",
        "average_filled_price": "68930.12", "total_fees": "1.5", "created_time": "2026-04-07T12:00:00.123456Z",
    });
    let amount = json!({"value": "1000000.5", "currency": "USD"});
    let account = json!({"uuid": "u", "currency": "USD", "available_balance": amount, "hold": amount});
    let future = json!({
        "product_id": "BIP-20DEC30-CDE", "price_increment": "5", "base_increment": "1", "base_min_size": "1",
        "quote_min_size": "", "base_currency_id": "", "quote_currency_id": "USD", "product_venue": "FCM",
        "fcm_trading_session_details": {"is_session_open": false, "open_time": "2026-04-07T12:00:00Z",
            "maintenance": {"start_time": "", "end_time": "2026-04-07T12:00:00Z"}},
        "future_product_details": {"contract_size": "0.01", "contract_root_unit": "BTC"},
    });
    vec![
        json!({"iso": "2026-04-07T12:00:00Z", "epochSeconds": "1775563200", "epochMillis": "1775563200000"}),
        json!({"can_view": true, "can_trade": true, "can_transfer": false, "portfolio_uuid": "p"}),
        future,
        json!({"order": order}),
        json!({"orders": [order, order], "has_next": true, "cursor": "next"}),
        json!({"accounts": [account], "has_next": false, "cursor": ""}),
        json!({"positions": [{"product_id": "BIP-20DEC30-CDE", "side": "SHORT", "number_of_contracts": "3"}]}),
        json!({"balance_summary": {"total_usd_balance": amount, "unrealized_pnl": amount}}),
        json!({"success": true, "success_response": {"order_id": "o-1"}, "error_response": null}),
        json!({"success": false, "error_response": {"error": "INSUFFICIENT_FUND", "message": "m"}}),
        json!({"results": [{"success": true, "failure_reason": "", "order_id": "o-1"}]}),
        json!({"errors": [{"id": "rate_limit_exceeded", "message": "Too many requests"}]}),
    ]
}

/// Messages as they should be.
fn messages() -> Vec<Value> {
    let message = |sequence: u64, channel: &str, event: Value| {
        json!({"channel": channel, "client_id": "", "timestamp": "2026-04-07T12:00:00Z",
            "sequence_num": sequence, "events": [event]})
    };
    let level = |side: &str, price: &str| json!({"side": side, "price_level": price, "new_quantity": "0.5"});
    vec![
        message(0, "subscriptions", json!({"subscriptions": {"level2": ["BTC-USD"], "user": ["u"]}})),
        message(1, "heartbeats", json!({"current_time": "t", "heartbeat_counter": 1})),
        message(
            2,
            "l2_data",
            json!({"type": "snapshot", "product_id": "BTC-USD", "updates": [level("bid", "99"), level("offer", "101")]}),
        ),
        message(3, "l2_data", json!({"type": "update", "product_id": "BTC-USD", "updates": [level("offer", "100.5")]})),
        message(
            4,
            "user",
            json!({"type": "snapshot", "orders": [{"order_id": "o", "client_order_id": "c", "product_id": "BTC-USD",
                "order_side": "BUY", "status": "OPEN", "cumulative_quantity": "0.1", "avg_price": "1"}]}),
        ),
        json!({"type": "error", "message": "authentication failure"}),
    ]
}

/// A value that nobody expects.
fn odd() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        "[-+]?[0-9]{0,40}[.]?[0-9]{0,40}([eE][-+]?[0-9]{1,12})?".prop_map(Value::from),
        Just(json!("79228162514264337593543950335")),
        Just(json!("1e28")),
        Just(json!("-999999999999")),
        Just(json!("0.0000000000000000000000000001")),
        Just(json!([])),
        Just(json!({})),
        Just(json!([[[[[[]]]]]])),
        Just(json!("9".repeat(1000))),
        Just(json!("9999-12-31T23:59:59.999999999Z")),
        Just(json!("-9999-01-01T00:00:00Z")),
    ]
}

/// Puts a value somewhere into another.
fn replace(value: &mut Value, path: &[prop::sample::Index], odd: Value) {
    let Some((index, rest)) = path.split_first() else {
        *value = odd;
        return;
    };
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let at = index.index(fields.len());
            if let Some((_, field)) = fields.iter_mut().nth(at) {
                replace(field, rest, odd);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let at = index.index(items.len());
            replace(&mut items[at], rest, odd);
        }
        _ => *value = odd,
    }
}

/// Something like one of these, or nothing of the kind.
fn like(good: Vec<Value>) -> impl Strategy<Value = Vec<u8>> {
    let mutated = (
        prop::sample::select(good.clone()),
        prop::collection::vec((prop::collection::vec(any::<prop::sample::Index>(), 1..5), odd()), 0..4),
    )
        .prop_map(|(mut value, changes)| {
            for (path, odd) in changes {
                replace(&mut value, &path, odd);
            }
            value.to_string().into_bytes()
        });
    let broken =
        (prop::sample::select(good), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..6))
            .prop_map(|(value, changes)| {
                let mut bytes = value.to_string().into_bytes();
                for (index, byte, how) in changes {
                    let at = index.index(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
                    match how {
                        0 if !bytes.is_empty() => bytes[at] = byte,
                        1 => bytes.insert(at, byte),
                        _ => bytes.truncate(at),
                    }
                }
                bytes
            });
    prop_oneof![4 => mutated, 2 => broken, 1 => prop::collection::vec(any::<u8>(), 0..200)]
}

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
