//! Nothing that a bot says contains a key or a token (invariant 13): log, status, ledger, and what its parts print.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;

use super::bot::Bot;
use super::exchange::Exchange;
use super::network::Network;
use super::{machine, paused};

#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Said {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Everything that the bot has said so far, but its log.
async fn shown(bot: &Bot, machine: &super::Machine<'_>) -> String {
    let entries = arb_bot::ledger::entries(&machine.dir.join("ledger")).await.unwrap();
    let facts = bot.facts.borrow().clone();
    format!("{} {facts:?} {:?} {:?} {entries:?}", json!(bot.status()), bot.view.borrow(), bot.gate.restrictions())
}

/// Proven by mutation: the token of a request in a log line (`Rest::request`).
#[test]
fn no_key_and_no_token_is_in_anything_that_a_bot_says() {
    let said = Said::default();
    // More than the bot's own filter ever lets through: that of every library.
    let log = tracing_subscriber::fmt().with_max_level(Level::TRACE).with_writer(said.clone()).finish();
    // Beside a single subscriber tracing asks the thread that first meets a place in the code, which may be another
    // test's, whether anybody listens: a second one makes it ask them all.
    let _second = tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(std::io::sink).finish());
    let (secrets, shown) = tracing::subscriber::with_default(log, || {
        paused(async {
            let (exchange, network) = (Exchange::start(7, false), Network::new(7));
            let dir = tempfile::tempdir().unwrap();
            let machine = machine(&exchange, &network, 7, dir.path());
            let primary = dir.path().join("primary");
            let bot = Bot::start(&machine, 1).await;
            bot.wait("it trades", |view| view.open_orders > 0).await;
            let mut all = shown(&bot, &machine).await;
            // Another key; one that is no key; refusals of all kinds; replies that are nonsense.
            exchange.put_key("2", &primary);
            tokio::time::sleep(Duration::from_secs(30)).await;
            all += &shown(&bot, &machine).await;
            let half = "c2VjcmV0LXRoYXQtbXVzdC1ub3QtYmUtc2hvd24".repeat(3);
            std::fs::write(primary.join("privateKey"), format!("-----BEGIN EC PRIVATE KEY-----\n{half}\n")).unwrap();
            tokio::time::sleep(Duration::from_secs(30)).await;
            all += &shown(&bot, &machine).await;
            for fault in [
                json!({"kind": "rest_error", "status": 401, "rate": 0.5}),
                json!({"kind": "rest_error", "status": 403, "rate": 0.5}),
                json!({"kind": "rest_error", "status": 500, "rate": 0.5}),
                json!({"kind": "websocket_disconnect"}),
            ] {
                exchange.fault(fault).await;
                tokio::time::sleep(Duration::from_secs(20)).await;
                exchange.fault(json!({"clear": true})).await;
            }
            network.mangle(0.2);
            tokio::time::sleep(Duration::from_secs(20)).await;
            all += &shown(&bot, &machine).await;
            bot.kill().await;
            let keys = ["0", "2"].map(|key| exchange.private_key(key));
            let lines = keys.iter().flat_map(|key| key.lines()).filter(|line| !line.starts_with("-----"));
            let mut secrets: Vec<String> = lines.map(str::to_owned).collect();
            secrets.push(half);
            (secrets, all)
        })
    });
    let log = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
    assert!(log.len() > 10_000 && shown.len() > 1_000, "nothing was said: {} and {}", log.len(), shown.len());
    assert!(secrets.len() >= 3 && secrets.iter().all(|secret| secret.len() > 15), "{}", secrets.len());
    for (place, text) in [("log", &log), ("status", &shown)] {
        for secret in &secrets {
            // A part of it is as bad as all of it.
            assert!(!text.contains(&secret[..16]), "a private key is in the {place}");
        }
        // Every token begins with its header, which is the JSON of an object.
        let token = text.find("eyJ").map(|at| text[at.saturating_sub(200)..].chars().take(260).collect::<String>());
        assert_eq!(token, None, "a token is in the {place}");
    }
}
