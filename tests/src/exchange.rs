//! The exchange of tests and demos: `exchange-simulator`, and its administrator's view of what really happened.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use reqwest::{Method, Url};
use rust_decimal::Decimal;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::api_proxy;
use crate::child::{Child, Parent, Program};

/// Spot product of the tests' bots.
pub const SPOT: &str = "BTC-USD";
/// Futures product of the tests' bots; one contract is 0.01 BTC.
pub const FUTURE: &str = "BIP-20DEC30-CDE";

const START_DEADLINE: Duration = Duration::from_secs(30);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A key file as Coinbase lets one download it.
#[derive(Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyFile {
    pub name: String,
    pub private_key: String,
}

/// One portfolio and its trading key.
#[derive(Clone)]
pub struct Account {
    pub portfolio: String,
    pub key: KeyFile,
}

/// What happened to an order or a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    OrderAccepted,
    OrderRejected,
    CancelRequested,
    OrderCancelled,
    OrderExpired,
    Fill,
    PositionChanged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Side {
    Buy,
    Sell,
}

/// One event of the exchange's own journal. Sizes are base units for spot and contracts for futures.
#[derive(Clone, Debug, Deserialize)]
pub struct JournalEvent {
    pub seq: u64,
    /// `CLOCK_MONOTONIC` of this host.
    pub monotonic_ns: u64,
    pub portfolio: String,
    pub kind: Kind,
    /// Absent for an order that was refused.
    #[serde(default)]
    pub order_id: Option<String>,
    pub client_order_id: String,
    pub product_id: String,
    pub side: Side,
    pub size: Decimal,
    pub price: Option<Decimal>,
    /// Filled size of the order so far; for a fill, of this fill.
    pub filled: Decimal,
    /// Signed position in the product after the event.
    pub position: Decimal,
    /// Orders of the portfolio that are not terminal after the event.
    pub open_orders: u32,
    #[serde(default)]
    pub reason: String,
}

/// A portfolio as the exchange sees it now.
#[derive(Clone, Debug, Deserialize)]
pub struct Portfolio {
    pub open_orders: Vec<Value>,
    pub positions: std::collections::BTreeMap<String, Decimal>,
}

impl Portfolio {
    /// Signed position in a product.
    pub fn position(&self, product: &str) -> Decimal {
        self.positions.get(product).copied().unwrap_or_default()
    }

    /// No order works, and no position is left but dust of the spot leg.
    pub fn is_flat(&self) -> bool {
        self.open_orders.is_empty() && self.positions.iter().all(|(product, size)| is_flat(product, *size))
    }

    /// Both legs are there.
    pub fn is_carrying(&self) -> bool {
        self.positions.iter().filter(|(product, size)| !is_flat(product, **size)).count() == 2
    }
}

/// Whether a product is a future.
pub fn is_future(product: &str) -> bool {
    product.ends_with("-CDE")
}

/// Whether a position is none: no contract, or less spot than the smallest order.
pub fn is_flat(product: &str, size: Decimal) -> bool {
    let smallest = match product {
        "BTC-USD" => Decimal::new(1, 5),
        "ETH-USD" => Decimal::new(1, 4),
        _ => Decimal::ONE,
    };
    size.abs() < smallest
}

/// The administrator's side of a simulator.
#[derive(Clone)]
pub struct Admin {
    url: Url,
    token: String,
    client: reqwest::Client,
}

#[derive(Deserialize)]
struct JournalPage {
    events: Vec<JournalEvent>,
    next: u64,
}

impl Admin {
    /// `authority` is where the simulator listens: `host:port`.
    ///
    /// # Errors
    /// The data directory is not one of the simulator.
    pub fn new(authority: &str, data: &Path) -> Result<Self> {
        Ok(Self {
            url: Url::parse(&format!("https://{authority}/_simulator/"))?,
            token: read(&data.join("admin.token"))?.trim().to_owned(),
            client: api_proxy::client(&read(&data.join("ca.crt"))?)?,
        })
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<Value>) -> Result<T> {
        let url = self.url.join(path)?;
        let mut request = self.client.request(method, url.clone()).bearer_auth(&self.token).timeout(REQUEST_TIMEOUT);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let reply = request.send().await.with_context(|| format!("ask the exchange: {url}"))?;
        let status = reply.status();
        let text = reply.text().await?;
        if !status.is_success() {
            bail!("the exchange answers {status} to {url}: {text}");
        }
        serde_json::from_str(&text).with_context(|| format!("{url} answers {text}"))
    }

    /// Every event of a portfolio with a sequence number above `after`, oldest first.
    ///
    /// # Errors
    /// The exchange does not answer.
    pub async fn journal(&self, portfolio: &str, after: u64) -> Result<Vec<JournalEvent>> {
        let mut events = Vec::new();
        let mut after = after;
        loop {
            let path = format!("journal?portfolio={portfolio}&after={after}");
            let page: JournalPage = self.call(Method::GET, &path, None).await?;
            let last = page.events.is_empty() || page.next <= after;
            events.extend(page.events);
            if last {
                return Ok(events);
            }
            after = page.next;
        }
    }

    /// # Errors
    /// The exchange does not answer.
    pub async fn portfolio(&self, portfolio: &str) -> Result<Portfolio> {
        self.call(Method::GET, &format!("portfolios/{portfolio}"), None).await
    }

    /// Places an order that is not a bot's, as the account's owner might by hand.
    ///
    /// # Errors
    /// The exchange refuses it.
    pub async fn place(&self, portfolio: &str, product: &str, side: &str, size: &str, price: &str) -> Result<()> {
        let order = json!({
            "portfolio": portfolio, "product_id": product, "side": side, "size": size, "price": price,
        });
        let reply: Value = self.call(Method::POST, "place", Some(order)).await?;
        if reply["success"] == true { Ok(()) } else { bail!("the exchange refuses the order: {reply}") }
    }

    /// Lets prices stand still and nobody but clients trade, or go on.
    ///
    /// # Errors
    /// The exchange does not answer.
    pub async fn freeze_market(&self, frozen: bool) -> Result<()> {
        self.call::<Value>(Method::POST, "market", Some(json!({"frozen": frozen}))).await.map(|_| ())
    }

    /// Injects a fault, for example `{"kind": "rest_unavailable", "portfolio": …}`.
    ///
    /// # Errors
    /// The simulator does not know it.
    pub async fn fault(&self, fault: Value) -> Result<()> {
        self.call::<Value>(Method::POST, "faults", Some(fault)).await.map(|_| ())
    }
}

/// A running simulator; it ends when this is dropped.
pub struct Exchange {
    pub admin: Admin,
    authority: String,
    directory: PathBuf,
    _child: Child,
    _parent: Parent,
}

impl Exchange {
    /// Starts the program on a free port with its data in `directory`.
    ///
    /// # Errors
    /// It does not listen within 30 s.
    pub async fn start(program: &Path, directory: &Path, accounts: usize) -> Result<Self> {
        let data = directory.join("data");
        fs::create_dir_all(&data).with_context(|| format!("create {}", data.display()))?;
        let (log, output) = (directory.join("exchange-simulator.log"), directory.join("listening.json"));
        let _ = fs::remove_file(&output); // of an earlier run
        let parent = Parent::new()?;
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--accounts", &accounts.to_string()];
        let mut arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        // All bots of a test share one address, and with it its limits per second; and a test must not depend on the
        // day of the week.
        let limits = ["--web-socket-rate-limit", "0", "--public-rate-limit", "0"];
        arguments.extend(limits.into_iter().chain(["--always-open", "--data-dir"]).map(OsString::from));
        arguments.push(data.clone().into());
        let program = Program {
            path: program.to_owned(),
            arguments,
            log: log.clone(),
            output: Some(output.clone()),
            ..Program::default()
        };
        let child = parent.start(&program).await?;
        let authority = listening(&output, &child, &log).await?;
        let admin = Admin::new(&authority, &data)?;
        Ok(Self { admin, authority, directory: data, _child: child, _parent: parent })
    }

    /// Where it listens: `host:port`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The simulator's data directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

async fn listening(output: &Path, child: &Child, log: &Path) -> Result<String> {
    #[derive(Deserialize)]
    struct Listening {
        listening: String,
    }
    let limit = Instant::now() + START_DEADLINE;
    loop {
        let text = fs::read_to_string(output).unwrap_or_default();
        if let Some(line) = text.lines().next().filter(|_| text.ends_with('\n')) {
            let line: Listening = serde_json::from_str(line).with_context(|| format!("the simulator says {line}"))?;
            return Ok(line.listening);
        }
        if !child.is_running() || Instant::now() > limit {
            bail!("exchange-simulator does not listen; see {}", log.display());
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// The accounts of a simulator's data directory, in the order of their keys.
///
/// # Errors
/// It is not a data directory of the simulator.
pub fn accounts(data: &Path) -> Result<Vec<Account>> {
    let list: Value = serde_json::from_str(&read(&data.join("accounts.json"))?)?;
    let portfolios = list["portfolios"].as_array().ok_or_else(|| anyhow!("accounts.json has no portfolios"))?;
    portfolios
        .iter()
        .enumerate()
        .map(|(index, portfolio)| {
            let portfolio = portfolio["uuid"].as_str().unwrap_or_default().to_owned();
            Ok(Account { portfolio, key: key(data, &index.to_string())? })
        })
        .collect()
}

/// A key file by name: the number of an account, `transfer`, or `view-only`.
///
/// # Errors
/// There is no such key.
pub fn key(data: &Path, name: &str) -> Result<KeyFile> {
    Ok(serde_json::from_str(&read(&data.join(format!("keys/{name}.json")))?)?)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}
