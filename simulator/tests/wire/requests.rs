//! What a request must be: tokens, permissions, strict bodies, limits.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::client::{PATIENCE, Simulator};
use super::{BTC, market};

#[tokio::test]
async fn tokens_that_are_not_exactly_right_are_refused() {
    let simulator = Simulator::start(&[]);
    let (key, other) = (simulator.key("key.json"), simulator.key("keys/1.json"));
    let path = "/api/v3/brokerage/accounts";
    let uri = format!("GET {}{path}", simulator.address);
    let with = |field: &str, value: Value| {
        let mut claims = key.claims();
        claims["uri"] = json!(uri);
        claims[field] = value;
        key.token(&claims)
    };
    let now = jiff::Timestamp::now().as_second();
    let forged = {
        let mut claims = key.claims();
        claims["uri"] = json!(uri);
        other.token_as(&key.name, &claims)
    };
    let bad = [
        ("no token", None),
        ("not a token", Some("x.y.z".to_owned())),
        ("another path", Some(key.rest_token("GET", &simulator.address, "/products"))),
        ("another method", Some(key.rest_token("POST", &simulator.address, "/accounts"))),
        ("another host", Some(key.rest_token("GET", "api.coinbase.com", "/accounts"))),
        ("expired", Some(with("exp", json!(now - 60)))),
        ("from the future", Some(with("nbf", json!(now + 60)))),
        ("too long", Some(with("exp", json!(now + 3600)))),
        ("another issuer", Some(with("iss", json!("me")))),
        ("another subject", Some(with("sub", json!("me")))),
        ("another key", Some(forged)),
    ];
    for (what, token) in bad {
        let (status, body, _) = simulator.send(Method::GET, path, token.as_deref(), None).await;
        assert_eq!((status, &body["error"]), (401, &json!("unauthenticated")), "{what}");
    }
    let (status, _) = simulator.get(&key, "/accounts?limit=1").await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn keys_do_what_their_permissions_say() {
    let simulator = Simulator::start(&[]);
    let viewer = simulator.key("keys/view-only.json");
    let (_, permissions) = simulator.get(&viewer, "/key_permissions").await;
    assert_eq!((&permissions["can_view"], &permissions["can_trade"]), (&json!(true), &json!(false)));
    let order = json!({"client_order_id": "x", "product_id": BTC, "side": "BUY", "order_configuration": market("1")});
    let (status, refused) = simulator.post(&viewer, "/orders", order).await;
    assert_eq!((status, &refused["error_details"]), (403, &json!("Missing required scopes")));
    let (_, transfer) = simulator.get(&simulator.key("keys/transfer.json"), "/key_permissions").await;
    assert_eq!(transfer["can_transfer"], true);
    assert_eq!(transfer["portfolio_uuid"], simulator.portfolio(0));
    // No API key opens the administrative interface.
    let token = simulator.key("key.json").rest_token("GET", &simulator.address, "/accounts");
    let (status, ..) = simulator.send(Method::GET, "/_simulator/clock", Some(&token), None).await;
    assert_eq!(status, 401);
}

#[tokio::test]
async fn bodies_are_read_strictly() {
    let simulator = Simulator::start(&["--rate-limit", "0"]);
    let key = simulator.key("key.json");
    let order = |change: fn(&mut Value)| {
        let mut order =
            json!({"client_order_id": "x", "product_id": BTC, "side": "BUY", "order_configuration": market("1")});
        change(&mut order);
        order
    };
    let cases = [
        (order(|o| o["reduceOnly"] = json!(true)), "unknown field \"reduceOnly\""),
        (order(|o| o["order_configuration"]["market_market_ioc"]["foo"] = json!(1)), "unknown field \"foo\""),
        (order(|o| o["order_configuration"] = json!({"bracket": {}})), "unknown field \"bracket\""),
        (order(|o| o["order_configuration"] = json!({"market_market_ioc": {"base_size": 1}})), "expected a string"),
        (order(|o| o["order_configuration"] = json!({"market_market_ioc": {"base_size": "-1"}})), "invalid decimal"),
        (order(|o| o["side"] = json!("HOLD")), "invalid value for enum field: \"HOLD\""),
        (order(|o| o["client_order_id"] = json!("")), "client_order_id is required"),
    ];
    for (body, expected) in cases {
        let (status, reply) = simulator.post(&key, "/orders", body).await;
        assert_eq!(status, 400, "{reply}");
        assert!(reply["error_details"].as_str().unwrap().contains(expected), "{reply}");
    }
    let (status, reply) = simulator.get(&key, "/orders/historical/batch?order_state=OPEN").await;
    assert_eq!((status, &reply["message"]), (400, &json!("unknown query parameter order_state")));
}

#[test]
fn a_get_whose_body_comes_late_keeps_its_connection() {
    let simulator = Simulator::start(&[]);
    let mut stream = simulator.connect();
    for _ in 0..3 {
        let head = "GET /api/v3/brokerage/time HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        stream.flush().unwrap();
        // Not waiting for anything: this is the pause between the packets of the official SDK.
        std::thread::sleep(Duration::from_millis(50));
        stream.write_all(b"{}").unwrap();
        stream.flush().unwrap();
        let mut reply = [0; 4096];
        let length = stream.read(&mut reply).unwrap();
        let reply = std::str::from_utf8(&reply[..length]).unwrap();
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    }
}

#[tokio::test]
async fn more_than_thirty_requests_a_second_are_limited_per_portfolio() {
    let simulator = Simulator::start(&[]);
    let (key, other) = (simulator.key("key.json"), simulator.key("keys/1.json"));
    let token = key.rest_token("GET", &simulator.address, "/key_permissions");
    let path = "/api/v3/brokerage/key_permissions";
    let requests = (0..60).map(|_| simulator.send(Method::GET, path, Some(&token), None));
    let replies = futures::future::join_all(requests).await;
    let (_, body, headers) = replies.iter().find(|r| r.0 == 429).unwrap();
    assert_eq!(body["errors"][0]["id"], "rate_limit_exceeded");
    assert_eq!(headers["x-ratelimit-limit"], "30");
    assert!(replies.iter().filter(|r| r.0 == 200).count() >= 30);
    assert_eq!(simulator.get(&other, "/key_permissions").await.0, 200);
}

#[tokio::test]
async fn ten_requests_a_second_without_a_key_are_answered_per_address() {
    let simulator = Simulator::start(&[]);
    let replies = futures::future::join_all((0..40).map(|_| simulator.public("/time", true))).await;
    let (_, body, headers) = replies.iter().find(|reply| reply.0 == 429).unwrap();
    assert_eq!(body["errors"][0]["id"], "rate_limit_exceeded");
    assert_eq!(headers["x-ratelimit-limit"], "10");
    assert!(replies.iter().filter(|reply| reply.0 == 200).count() >= 10);
    let key = simulator.key("key.json");
    assert_eq!(simulator.get(&key, "/key_permissions").await.0, 200, "requests with a key have their own limit");
}

#[tokio::test]
async fn public_replies_are_kept_for_a_second_unless_the_request_refuses_that() {
    let simulator = Simulator::start(&["--public-rate-limit", "0"]);
    let time = async |fresh| {
        let (status, body, _) = simulator.public("/time", fresh).await;
        assert_eq!(status, 200);
        body["epochMillis"].as_str().unwrap().parse::<i64>().unwrap()
    };
    let deadline = Instant::now() + PATIENCE;
    // Two requests that a busy machine does not keep a second apart.
    loop {
        let (first, second) = (time(false).await, time(false).await);
        if first == second {
            break;
        }
        assert!(Instant::now() < deadline, "no reply is kept");
    }
    let mut last = time(true).await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let next = time(true).await;
        assert!(next > last, "no-cache is answered afresh");
        last = next;
    }
    let kept = time(false).await;
    while time(false).await == kept {
        assert!(Instant::now() < deadline, "it is kept for ever");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(simulator.public("/market/products/BTC-USD", false).await.1["product_id"], BTC);
    assert_eq!(simulator.public("/market/products/ETH-USD", false).await.1["product_id"], "ETH-USD", "each its own");
}
