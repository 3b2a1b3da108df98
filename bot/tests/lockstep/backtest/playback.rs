//! A recorded exchange, as a bot on paper hears it: over REST and WebSocket, at the same times.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arb_bot::exchange::venue::Dial;
use arb_bot::exchange::venue::market_data::Raw;
use arb_bot::exchange::{MarketEvent, Side, VenueEvent};
use arb_bot::market::book::Level;
use futures::SinkExt;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::series;
use crate::exchange::{FUTURE, SPOT};

const HEARTBEAT: Duration = Duration::from_secs(1);
const PIPE: usize = 16 << 20;

/// What an exchange says, and when.
pub type Said = Arc<Vec<(Timestamp, Raw)>>;

/// A transcript's lines with their times.
pub fn said_by_transcript(path: &Path) -> Said {
    let text = fs::read_to_string(path).unwrap();
    let line = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        (value["at"].as_str().unwrap().parse().unwrap(), serde_json::from_value(value).unwrap())
    };
    Arc::new(text.lines().map(line).collect())
}

/// What an exchange says over REST and WebSocket that has nothing but what a table tells.
pub fn said_by_table(path: &Path) -> Said {
    let text = fs::read_to_string(path).unwrap();
    let rules = |line: &str| {
        let (head, rules) = line.strip_prefix('#')?.split_once('{')?;
        let id = head.split_whitespace().next_back()?.to_owned();
        Some((id, serde_json::from_str::<Value>(&format!("{{{rules}")).unwrap()))
    };
    let rules: BTreeMap<String, Value> = text.lines().filter_map(rules).collect();
    let mut series = series(path);
    let mut said = Vec::new();
    let mut messages = 0_u64;
    while let Some(moment) = series.advance().unwrap() {
        let mut say = |channel: &str, event: Value| {
            let message = json!({"channel": channel, "sequence_num": messages, "events": [event]});
            messages += 1;
            (moment.at, Raw::Frame { text: message.to_string() })
        };
        for product in &moment.products {
            let mut shown = rules[&product.id].clone();
            shown["product_id"] = json!(product.id);
            if let Some(future) = &product.future {
                shown["mid_market_price"] = json!(future.mark.unwrap_or_default().to_string());
                let details = &mut shown["future_product_details"];
                details["funding_rate"] = json!(future.terms.funding_rate.to_string());
                details["funding_time"] = json!(future.terms.funding_time);
            }
            said.push((moment.at, Raw::Reply { product: product.id.clone(), text: shown.to_string() }));
        }
        if moment.events.iter().any(|event| matches!(event, VenueEvent::Link { .. })) {
            said.push(say("subscriptions", json!({"subscriptions": {"level2": [SPOT, FUTURE]}})));
        }
        if moment.market.is_empty() && !moment.events.is_empty() {
            said.push(say("heartbeats", json!({})));
        }
        for event in &moment.market {
            let MarketEvent::Levels { product, snapshot, levels } = event else { panic!("{event:?}") };
            let level = |level: &Level| {
                let side = if level.side == Side::Buy { "bid" } else { "offer" };
                json!({"side": side, "price_level": level.price.to_string(), "new_quantity": level.quantity.to_string()})
            };
            let updates: Vec<_> = levels.iter().map(level).collect();
            let kind = if *snapshot { "snapshot" } else { "update" };
            said.push(say("l2_data", json!({"type": kind, "product_id": product, "updates": updates})));
        }
    }
    Arc::new(said)
}

/// An exchange that says what was said, at the same times; what was before `start` at once. Call it inside a runtime.
pub fn playback(lines: Said, start: Timestamp) -> Dial {
    let origin = Instant::now();
    Dial::new(move |host| {
        let (bot, ours) = tokio::io::duplex(PIPE);
        let lines = Arc::clone(&lines);
        if host == "stream" {
            tokio::spawn(stream(ours, lines, start, origin));
        } else {
            tokio::spawn(answer(ours, lines, start, origin));
        }
        Ok(bot)
    })
}

async fn stream(pipe: DuplexStream, lines: Said, start: Timestamp, origin: Instant) {
    let mut socket = tokio_tungstenite::accept_async(pipe).await.unwrap();
    let now = start + origin.elapsed();
    let lost_by_now = |(at, raw): &(Timestamp, Raw)| *at <= now && matches!(raw, Raw::Lost { .. });
    let first = lines.iter().rposition(lost_by_now).map_or(0, |lost| lost + 1);
    let mut has_spoken = first == 0;
    for (at, raw) in &lines[first..] {
        let due = origin + Duration::try_from(at.duration_since(start)).unwrap_or_default();
        match raw {
            Raw::Frame { text } => {
                if !has_spoken {
                    stay_alive(&mut socket, due).await;
                }
                has_spoken = true;
                sleep_until(due).await;
                if socket.send(Message::text(text.clone())).await.is_err() {
                    return;
                }
            }
            Raw::Lost { .. } if has_spoken => return sleep_until(due).await,
            _ => {}
        }
    }
    std::future::pending().await
}

/// When a bot tries to connect again is its own affair; so that it is connected when the recorder was, it connects at once and
/// hears nothing of the market until then.
async fn stay_alive(socket: &mut WebSocketStream<DuplexStream>, until: Instant) {
    while Instant::now() + HEARTBEAT < until {
        sleep(HEARTBEAT).await;
        // A bot that has gone is noticed by who sends next.
        socket.send(Message::text(json!({"channel": "heartbeats", "events": [{}]}).to_string())).await.ok();
    }
}

async fn answer(mut pipe: DuplexStream, lines: Said, start: Timestamp, origin: Instant) {
    let mut request = vec![0; 4096];
    let read = pipe.read(&mut request).await.unwrap();
    let request = String::from_utf8_lossy(&request[..read]).into_owned();
    let path = request.split(' ').nth(1).unwrap();
    let now = start + origin.elapsed();
    let body = match path.strip_prefix("/api/v3/brokerage/market/products/") {
        None => json!({"epochMillis": now.as_millisecond().to_string()}).to_string(),
        Some(id) => {
            let known = lines.iter().take_while(|(at, _)| *at <= now);
            let reply = |(_, raw): &(Timestamp, Raw)| match raw {
                Raw::Reply { product, text } if product == id => Some(text.clone()),
                _ => None,
            };
            known.filter_map(reply).last().unwrap()
        }
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    pipe.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
}
