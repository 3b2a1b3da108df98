//! A person's desk: a simulator, keys, the file of an ArbBot, and the programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use exchange_simulator::process::{self, Process};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// What anything may take at most, on a machine that builds something else beside it.
const PATIENCE: Duration = Duration::from_secs(90);

/// A process that ends with the test.
pub struct Running(Child);

impl Running {
    /// Ends it as a service manager does and waits until it is gone.
    pub fn stop(mut self) {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, Signal::TERM).unwrap();
        let status = self.ended();
        assert!(status.success(), "{status}");
    }

    /// kill -9.
    pub fn crash(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Waits until it ends by itself.
    pub fn ended(&mut self) -> std::process::ExitStatus {
        wait("the process to end", || self.0.try_wait().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Polls until there is a value; fails after a while that is long for anything here.
pub fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub struct Desk {
    dir: TempDir,
    pub address: String,
    pub portfolio: String,
    _simulator: Process,
}

impl Desk {
    pub fn new() -> Self {
        Self::with_simulator(&[])
    }

    /// A desk whose simulator replays a recording.
    pub fn replaying(recording: &Path) -> Self {
        Self::with_simulator(&["--replay", recording.to_str().unwrap()])
    }

    fn with_simulator(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let limits = ["--rate-limit", "0", "--web-socket-rate-limit", "0", "--public-rate-limit", "0"];
        let (data, arguments) = (dir.path().join("simulator"), [&limits, arguments].concat());
        let simulator = Process::start(&process::program().unwrap(), "127.0.0.1:0", &data, &arguments).unwrap();
        let address = simulator.address.clone();
        let accounts: Value =
            serde_json::from_slice(&fs::read(dir.path().join("simulator/accounts.json")).unwrap()).unwrap();
        let portfolio = accounts["portfolios"][0]["uuid"].as_str().unwrap().to_owned();
        for key in ["0", "transfer", "view-only"] {
            let file = fs::read(dir.path().join(format!("simulator/keys/{key}.json"))).unwrap();
            let key_file: Value = serde_json::from_slice(&file).unwrap();
            fs::create_dir(dir.path().join(format!("key-{key}"))).unwrap();
            for name in ["name", "privateKey"] {
                fs::write(dir.path().join(format!("key-{key}/{name}")), key_file[name].as_str().unwrap()).unwrap();
            }
        }
        let desk = Self { dir, address, portfolio, _simulator: simulator };
        desk.write_bot("");
        desk
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The text of an ArbBot; `more` are further lines of its spec.
    pub fn bot(&self, more: &str) -> String {
        let Self { address, portfolio, .. } = self;
        format!(
            "apiVersion: arbbot.io/v1alpha1
kind: ArbBot
metadata: {{name: carry}}
spec:
  execution: Live
  venue:
    coinbase:
      portfolio: {portfolio}
      requestsPerSecond: 30
      endpoints:
      - name: simulator
        restUrl: https://{address}
        marketWebSocketUrl: wss://{address}/ws
        userWebSocketUrl: wss://{address}/ws/user
  strategy:
    fundingCarry: {{spotProduct: BTC-USD, futureProduct: BIP-20DEC30-CDE, targetNotional: '3000', entry: {{minSamples: 1}}, orders: {{legTimeout: 2s}}}}
  credentials: {{secretRef: {{name: key}}}}
{more}"
        )
    }

    /// The text of an ArbBot that trades on paper, without key and portfolio.
    pub fn paper_bot(&self, more: &str) -> String {
        let live = self.bot(more);
        let without = live.lines().filter(|line| !line.contains("portfolio:") && !line.contains("secretRef"));
        without.map(|line| line.replace("execution: Live", "execution: Paper") + "\n").collect()
    }

    /// Kind of every event that the exchange's journal holds of the account.
    pub fn journal(&self) -> Vec<Value> {
        let token = fs::read_to_string(self.path("simulator/admin.token")).unwrap();
        let url = format!("https://{}/_simulator/journal?portfolio={}&after=0", self.address, self.portfolio);
        let header = format!("Authorization: Bearer {}", token.trim());
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--fail", "--header", &header, "--cacert"]).arg(self.path("simulator/ca.crt")).arg(url);
        let output = curl.output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let page: Value = serde_json::from_slice(&output.stdout).unwrap();
        page["events"].as_array().unwrap().clone()
    }

    /// Puts another text in the place of bot.yaml, as editors and ConfigMaps do: by a rename.
    pub fn write_file(&self, text: &str) {
        fs::write(self.path("bot.yaml.new"), text).unwrap();
        fs::rename(self.path("bot.yaml.new"), self.path("bot.yaml")).unwrap();
    }

    pub fn write_bot(&self, more: &str) {
        self.write_file(&self.bot(more));
    }

    /// Asks the simulator's administration for something.
    pub fn admin(&self, what: &str, body: &Value) {
        let token = fs::read_to_string(self.path("simulator/admin.token")).unwrap();
        // Another test of this process may have been first.
        rustls::crypto::ring::default_provider().install_default().ok();
        let ca = reqwest::Certificate::from_pem(&fs::read(self.path("simulator/ca.crt")).unwrap()).unwrap();
        let client = reqwest::Client::builder().tls_certs_only([ca]).timeout(PATIENCE).build().unwrap();
        let request = client.post(format!("https://{}/_simulator/{what}", self.address)).bearer_auth(token.trim());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let reply = runtime.block_on(async { request.json(body).send().await }).unwrap();
        assert!(reply.status().is_success(), "{}", reply.status());
    }

    /// A command of arb-bot with the key.
    pub fn with_key(&self, key: &str, arguments: &[&str]) -> Output {
        let mut command = self.arb_bot(arguments);
        command.arg("--credentials").arg(self.path(&format!("key-{key}")));
        command.arg("--ca-file").arg(self.path("simulator/ca.crt")).arg("-f").arg(self.path("bot.yaml"));
        command.output().unwrap()
    }

    /// A command of arb-bot without further flags.
    pub fn arb_bot(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_arb-bot"));
        command.args(arguments).env_remove("RUST_LOG").current_dir(self.dir.path());
        command
    }

    /// The rows that a command prints, which must succeed.
    pub fn rows(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.with_key("0", &[arguments, &["--output", "json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What a command says that must fail.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.with_key("0", arguments);
        assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        stderr(&output)
    }

    /// Starts the bot from the file, with the state directory.
    pub fn run(&self, state: &str) -> Running {
        let log = fs::File::options().create(true).append(true).open(self.path("bot.log")).unwrap();
        Running(self.run_command(state).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    pub fn run_command(&self, state: &str) -> Command {
        let mut command = self.arb_bot(&["run", "--listen", "127.0.0.1:0", "-f", "bot.yaml", "--state-dir", state]);
        command.args(["--lock-dir", "locks", "--credentials", "key-0", "--ca-file", "simulator/ca.crt"]);
        command.args(["--ledger-secret-dir", "ledger-secret"]);
        command
    }

    /// What `arb-bot status` shows: value and message by name.
    pub fn status(&self, state: &str) -> Vec<Value> {
        let output = self.arb_bot(&["status", "--output", "json", "--state-dir", state]).output().unwrap();
        // Before the first write there is none.
        if output.status.success() { serde_json::from_slice(&output.stdout).unwrap() } else { Vec::new() }
    }

    /// Waits until a row of the status has the value.
    pub fn wait_for(&self, state: &str, what: &str, value: &str) -> Value {
        let row = |rows: &[Value]| rows.iter().find(|row| row["what"] == what && row["value"] == value).cloned();
        let mut last = Vec::new();
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            last = self.status(state);
            if let Some(row) = row(&last) {
                return row;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let log = fs::read_to_string(self.path("bot.log")).unwrap_or_default();
        let log: String = log.lines().rev().take(15).collect::<Vec<_>>().join("\n");
        panic!("{what} does not become {value}: {last:#?}\n{log}");
    }

    /// Waits until the bot has both legs.
    pub fn wait_for_position(&self, state: &str) {
        wait("a position", || {
            let rows = self.status(state);
            let value = |what: &str| {
                let row = rows.iter().find(|row| row["what"] == what);
                row.and_then(|row| row["value"].as_str()).unwrap_or("0").to_owned()
            };
            (value("futureContracts") == "-4" && value("spotBase") == "0.04").then_some(())
        });
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
