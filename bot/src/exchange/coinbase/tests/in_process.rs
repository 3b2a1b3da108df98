//! The simulator in this process: the same requests, frames and tokens over pipes, on one paused clock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arbbot_crds::arbbot::Endpoint;
use exchange_simulator::data_dir::Accounts;
use exchange_simulator::server::{Options, Simulator, clock};
use k8s_openapi::jiff::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::super::{Connector, Dial, Settings, Transport};
use crate::clock::Clock;
use crate::exchange::VenueEvent;
use crate::randomness::Randomness;

/// A Monday, with the futures session open.
pub const START: &str = "2026-11-16T15:00:00Z";
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

/// An exchange, and what a bot needs to reach it.
pub struct Venue {
    pub simulator: Arc<Simulator>,
    pub accounts: Accounts,
    pub clock: Clock,
    pub seed: u64,
    /// No new pipe can be opened while it is set.
    pub unreachable: Arc<AtomicBool>,
    keys: Vec<(String, String)>,
    dir: TempDir,
}

impl Venue {
    /// Starts an exchange; call it inside a runtime whose time is paused.
    pub fn open(seed: u64) -> Self {
        let mut options = Options::default();
        options.settings.seed = seed;
        Self::open_with(options)
    }

    pub fn open_with(options: Options) -> Self {
        let seed = options.settings.seed;
        let (accounts, keys) = Accounts::generate(2, &mut StdRng::seed_from_u64(seed)).unwrap();
        let start: Timestamp = START.parse().unwrap();
        let clock = clock::Clock::driven_by_tokio(start);
        let simulator = Simulator::start(&accounts, "admin".into(), &options, clock).unwrap();
        Self {
            simulator: Arc::new(simulator),
            accounts,
            clock: Clock::driven_by_tokio(start),
            seed,
            unreachable: Arc::default(),
            keys,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// How a bot reaches it.
    pub fn connector(&self, events: mpsc::Sender<VenueEvent>) -> Connector {
        let (simulator, unreachable) = (Arc::clone(&self.simulator), Arc::clone(&self.unreachable));
        let dial = Dial::new(move |_| {
            if unreachable.load(Ordering::Relaxed) {
                return Err(std::io::ErrorKind::ConnectionRefused.into());
            }
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            let simulator = Arc::clone(&simulator);
            tokio::spawn(async move { simulator.serve_connection(theirs, PEER).await });
            Ok(ours)
        });
        let randomness = Randomness::seeded(self.seed);
        Connector::new(Transport::InProcess(dial), self.clock.clone(), randomness, events)
    }

    pub fn portfolio(&self) -> String {
        self.accounts.portfolios[0].uuid.to_string()
    }

    /// Writes a key's two files into a directory.
    pub fn put_key(&self, key: &str, dir: &std::path::Path) {
        let file = format!("keys/{key}.json");
        let (_, text) = self.keys.iter().find(|(name, _)| *name == file).unwrap();
        let key: Value = serde_json::from_str(text).unwrap();
        std::fs::create_dir_all(dir).unwrap();
        for name in ["name", "privateKey"] {
            std::fs::write(dir.join(name), key[name].as_str().unwrap()).unwrap();
        }
    }

    /// A session with the key of the first portfolio.
    pub fn settings(&self) -> Settings {
        let dir = self.dir.path().join("primary");
        self.put_key("0", &dir);
        Settings {
            endpoint: Endpoint {
                name: "simulator".to_owned(),
                rest_url: "https://simulator".to_owned(),
                market_web_socket_url: "wss://simulator/ws".to_owned(),
                user_web_socket_url: "wss://simulator/ws/user".to_owned(),
            },
            ca_file: None,
            credentials_dir: dir,
            portfolio: self.portfolio(),
            products: [super::SPOT.to_owned(), super::FUTURE.to_owned()],
            requests_per_second: 30,
        }
    }
}
