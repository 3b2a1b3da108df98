//! The program exchange-simulator, started for one test.

use std::path::Path;
use std::time::Duration;

use arbbot_crds::arbbot::Endpoint;
use exchange_simulator::process::{self, Process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::{Settings, tls};

/// What a request of its administration may take at most, on a machine that builds something else beside it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running simulator; dropping it ends it.
pub struct Simulator {
    process: Process,
    data: TempDir,
    /// host:port
    pub address: String,
}

impl Simulator {
    pub fn start(arguments: &[&str]) -> Self {
        Self::serve(tempfile::tempdir().unwrap(), "127.0.0.1:0", arguments)
    }

    /// Starts with the data of one that ended, where that one was.
    pub fn restart(data: TempDir, address: &str) -> Self {
        Self::serve(data, address, &[])
    }

    fn serve(data: TempDir, listen: &str, arguments: &[&str]) -> Self {
        let arguments = [&["--accounts", "2"], arguments].concat();
        let process = Process::start(&process::program().unwrap(), listen, data.path(), &arguments).unwrap();
        Self { address: process.address.clone(), process, data }
    }

    /// Ends it and keeps its data.
    pub fn end(self) -> TempDir {
        drop(self.process);
        self.data
    }

    /// A session with the key `keys/<key>.json`, whose files are a copy of its own.
    pub fn settings(&self, key: &str) -> Settings {
        let file: Value = read_json(&self.data.path().join(format!("keys/{key}.json")));
        let dir = tempfile::tempdir_in(self.data.path()).unwrap().keep();
        for name in ["name", "privateKey"] {
            std::fs::write(dir.join(name), file[name].as_str().unwrap()).unwrap();
        }
        Settings {
            endpoint: Endpoint {
                name: "simulator".to_owned(),
                rest_url: format!("https://{}", self.address),
                market_web_socket_url: format!("wss://{}/ws", self.address),
                user_web_socket_url: format!("wss://{}/ws/user", self.address),
            },
            ca_file: Some(self.data.path().join("ca.crt")),
            credentials_dir: dir,
            portfolio: self.portfolio(0),
            products: [super::SPOT.to_owned(), super::FUTURE.to_owned()],
            requests_per_second: 30,
        }
    }

    pub fn rename_key(&self, settings: &Settings, name: &str) {
        std::fs::write(settings.credentials_dir.join("name"), name).unwrap();
    }

    pub fn portfolio(&self, index: usize) -> String {
        let accounts: Value = read_json(&self.data.path().join("accounts.json"));
        accounts["portfolios"][index]["uuid"].as_str().unwrap().to_owned()
    }

    /// Switches a fault on, or all off.
    pub async fn fault(&self, fault: &Value) {
        self.admin("faults", fault).await;
    }

    /// Places a resting order of the first portfolio behind the bot's back.
    pub async fn place_foreign(&self, client_order_id: &str, product: &str) {
        let order = json!({"portfolio": self.portfolio(0), "product_id": product, "side": "BUY", "size": "0.001",
            "price": "50000", "client_order_id": client_order_id});
        let placed = self.admin("place", &order).await;
        assert_eq!(placed["success"], true, "{placed}");
    }

    async fn admin(&self, what: &str, body: &Value) -> Value {
        let token = std::fs::read_to_string(self.data.path().join("admin.token")).unwrap();
        let tls = tls::client_config(Some(&self.data.path().join("ca.crt"))).unwrap();
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap();
        let url = format!("https://{}/_simulator/{what}", self.address);
        let reply = client.post(url).bearer_auth(token.trim()).json(body).timeout(PATIENCE).send().await.unwrap();
        assert!(reply.status().is_success(), "{}: {}", reply.status(), reply.text().await.unwrap());
        reply.json().await.unwrap()
    }
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
