//! The simulator in this process, and its own truth.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use exchange_simulator::data_dir::Accounts;
use exchange_simulator::exchange::journal::JournalEvent;
use exchange_simulator::exchange::portfolio::{Fill, Portfolio};
use exchange_simulator::server::{Options, Simulator, State, clock};
use k8s_openapi::jiff::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rust_decimal::{Decimal, dec};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::judge::accepted::{Price, Sample};

/// A Monday, with the futures session open.
pub const START: &str = "2026-11-16T15:00:00Z";
pub const SPOT: &str = "BTC-USD";
pub const FUTURE: &str = "BIP-20DEC30-CDE";
/// Base currency of a contract.
pub const CONTRACT: Decimal = dec!(0.01);
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 2);

/// What the exchange holds of the bot's account.
#[derive(Debug, PartialEq, Eq)]
pub struct Truth {
    pub spot: Decimal,
    pub contracts: Decimal,
    pub open_orders: usize,
    /// Fees paid.
    pub fees_quote: Decimal,
    /// What trading has brought in of quote currency, fees paid and funding left out: while a position is open its entry
    /// value is not yet part of the balance.
    pub cash_quote: Decimal,
    /// Funding paid.
    pub settled_quote: Decimal,
}

pub struct Exchange {
    pub simulator: Arc<Simulator>,
    pub accounts: Accounts,
    /// When it started.
    pub start: Timestamp,
    keys: Vec<(String, String)>,
    /// Quote currency at the start and what was added.
    deposit: Mutex<Decimal>,
}

impl Exchange {
    /// Starts an exchange; call it inside a runtime whose time is paused. The keys 0, 2 and 3 are of the first account.
    pub fn start(seed: u64, refuse_duplicates: bool) -> Self {
        let mut options = Options::default();
        options.settings.seed = seed;
        options.settings.refuse_duplicates = refuse_duplicates;
        Self::start_with(&options, START)
    }

    pub fn start_with(options: &Options, start: &str) -> Self {
        let mut rng = StdRng::seed_from_u64(options.settings.seed);
        let (mut accounts, keys) = Accounts::generate(4, &mut rng).unwrap();
        for key in [2, 3] {
            accounts.keys[key].portfolio = accounts.portfolios[0].uuid;
        }
        Self::of(accounts, keys, options, start.parse().unwrap())
    }

    /// Another exchange, where the same keys are of another portfolio.
    pub fn with_the_keys_of_another_portfolio(&self) -> Self {
        let mut accounts = self.accounts.clone();
        let other = accounts.portfolios[1].uuid;
        accounts.keys.iter_mut().for_each(|key| key.portfolio = other);
        let mut options = Options::default();
        options.settings.seed = 2;
        Self::of(accounts, self.keys.clone(), &options, self.start)
    }

    fn of(accounts: Accounts, keys: Vec<(String, String)>, options: &Options, start: Timestamp) -> Self {
        let clock = clock::Clock::driven_by_tokio(start);
        let simulator = Arc::new(Simulator::start(&accounts, "admin".into(), options, clock).unwrap());
        let exchange = Self { simulator, accounts, start, keys, deposit: Mutex::default() };
        let deposit = exchange.cash_quote();
        *exchange.deposit.lock().unwrap() = deposit;
        exchange
    }

    fn account<'a>(&self, state: &'a State) -> &'a Portfolio {
        &state.exchange.portfolios[&self.accounts.portfolios[0].uuid]
    }

    /// Prices and the account's collateral now.
    pub fn sample(&self) -> Sample {
        let (state, now) = self.simulator.app.lock();
        let price = |product: &str| {
            let market = state.exchange.markets.iter().find(|market| market.product.id == product).unwrap();
            Price { mid: market.mark(), index: market.index }
        };
        let collateral_quote = state.exchange.equity(self.account(&state));
        Sample { time: now.time, spot: price(SPOT), future: price(FUTURE), collateral_quote }
    }

    /// What the account is worth: USD, futures with accrued funding, and spot, both legs at mid.
    pub fn equity_quote(&self) -> Decimal {
        let spot = self.sample().spot.mid;
        let (state, _) = self.simulator.app.lock();
        let account = self.account(&state);
        state.exchange.equity(account) + account.balance("BTC").total * spot
    }

    /// Funding of the account that is not yet paid.
    pub fn accrued_quote(&self) -> Decimal {
        let (state, _) = self.simulator.app.lock();
        self.account(&state).positions.values().map(|position| position.funding_accrued).sum()
    }

    /// What happened to the account since an event of the journal.
    pub fn journal_after(&self, seq: u64) -> Vec<JournalEvent> {
        let (state, _) = self.simulator.app.lock();
        state.exchange.journal.after(seq, Some(self.accounts.portfolios[0].uuid)).cloned().collect()
    }

    /// See [`Truth::cash_quote`].
    fn cash_quote(&self) -> Decimal {
        let (state, _) = self.simulator.app.lock();
        let portfolio = self.account(&state);
        let positions = portfolio.positions.values().map(|position| position.cost + position.funding_settled);
        portfolio.balance("USD").total - positions.sum::<Decimal>() - *self.deposit.lock().unwrap()
    }

    /// Somebody moves money into the account.
    pub fn deposit(&self, quote: Decimal) {
        let mut state = self.simulator.app.lock().0;
        let portfolio = state.exchange.portfolios.get_mut(&self.accounts.portfolios[0].uuid).unwrap();
        portfolio.balance_mut("USD").total += quote;
        *self.deposit.lock().unwrap() += quote;
    }

    /// Funding that was paid to the bot's account.
    pub fn settled_quote(&self) -> Decimal {
        let (state, _) = self.simulator.app.lock();
        self.account(&state).positions.values().map(|position| position.funding_settled).sum()
    }

    /// Order, trade, size, price and fee of every fill of the bot's account.
    pub fn fills(&self) -> BTreeSet<(String, String, Decimal, Decimal, Decimal)> {
        let (state, _) = self.simulator.app.lock();
        let named =
            |fill: &Fill| (fill.order.to_string(), fill.trade_id.to_string(), fill.size, fill.price, fill.commission);
        self.account(&state).fills.iter().map(named).collect()
    }

    fn fees_quote(&self) -> Decimal {
        self.account(&self.simulator.app.lock().0).fees
    }

    /// Whether the futures session is closed, and whether the overnight margin applies.
    pub fn session(&self) -> (bool, bool) {
        let (state, now) = self.simulator.app.lock();
        let future = state.exchange.markets.iter().find(|market| market.product.id == FUTURE).unwrap();
        (future.is_closed(now.time), state.exchange.calendar.window.overnight)
    }

    pub fn portfolio(&self) -> String {
        self.accounts.portfolios[0].uuid.to_string()
    }

    /// The name of a key.
    pub fn key_name(&self, key: &str) -> String {
        self.key(key)["name"].as_str().unwrap().to_owned()
    }

    /// A key's secret half.
    pub fn private_key(&self, key: &str) -> String {
        self.key(key)["privateKey"].as_str().unwrap().to_owned()
    }

    fn key(&self, key: &str) -> Value {
        let file = format!("keys/{key}.json");
        let (_, text) = self.keys.iter().find(|(name, _)| *name == file).unwrap();
        serde_json::from_str(text).unwrap()
    }

    /// Writes a key's two files into a directory.
    pub fn put_key(&self, key: &str, dir: &Path) {
        let key = self.key(key);
        std::fs::create_dir_all(dir).unwrap();
        for name in ["name", "privateKey"] {
            std::fs::write(dir.join(name), key[name].as_str().unwrap()).unwrap();
        }
    }

    /// Switches a fault on, or all off.
    pub async fn fault(&self, fault: Value) {
        self.admin("POST", "faults", Some(fault)).await;
    }

    /// What the account holds.
    pub async fn truth(&self) -> Truth {
        let shown = self.admin("GET", &format!("portfolios/{}", self.portfolio()), None).await;
        let decimal = |value: &Value| value.as_str().map_or(Decimal::ZERO, |text| text.parse().unwrap());
        Truth {
            spot: decimal(&shown["balances"]["BTC"]["total"]),
            contracts: decimal(&shown["positions"][FUTURE]),
            open_orders: shown["open_orders"].as_array().unwrap().len(),
            fees_quote: self.fees_quote(),
            cash_quote: self.cash_quote(),
            settled_quote: self.settled_quote(),
        }
    }

    /// How many orders were accepted under each client_order_id.
    pub async fn accepted(&self) -> BTreeMap<String, usize> {
        let mut accepted = BTreeMap::new();
        for event in self.transcript().await.iter().filter(|event| event["kind"] == "order_accepted") {
            *accepted.entry(event["client_order_id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        accepted
    }

    /// Filled size and fees of every order of the bot's account.
    pub fn orders(&self) -> BTreeMap<String, (Decimal, Decimal)> {
        let (state, _) = self.simulator.app.lock();
        let orders = state.exchange.orders_of(self.accounts.portfolios[0].uuid);
        orders.map(|order| (order.client_order_id.clone(), (order.filled_size, order.fees))).collect()
    }

    /// How many faults the scenario will still bring.
    pub async fn scenario(&self) -> u64 {
        self.admin("GET", "scenario", None).await["steps"].as_array().unwrap().len() as u64
    }

    /// How often each kind of the exchange's faults took effect.
    pub async fn struck(&self) -> BTreeMap<String, u64> {
        serde_json::from_value(self.admin("GET", "faults", None).await["struck"].take()).unwrap()
    }

    /// Everything that happened to the bot's account.
    pub async fn transcript(&self) -> Vec<Value> {
        let (mut events, mut after) = (Vec::new(), 0);
        loop {
            let path = format!("journal?portfolio={}&after={after}", self.portfolio());
            let mut page = self.admin("GET", &path, None).await;
            let found = page["events"].as_array_mut().unwrap();
            if found.is_empty() {
                return events;
            }
            events.append(found);
            after = page["next"].as_u64().unwrap();
        }
    }

    async fn admin(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (mut ours, theirs) = tokio::io::duplex(64 * 1024);
        let simulator = Arc::clone(&self.simulator);
        tokio::spawn(async move { simulator.serve_connection(theirs, PEER).await });
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = format!(
            "{method} /_simulator/{path} HTTP/1.1\r\nHost: simulator\r\nAuthorization: Bearer admin\r\n\
             Content-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        ours.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        ours.read_to_string(&mut reply).await.unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{method} {path}: {reply}");
        serde_json::from_str(body).unwrap()
    }
}
