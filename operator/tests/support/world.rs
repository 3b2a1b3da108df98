//! The whole operator in this process, against the API server in memory.

use std::time::Duration;

use arbbot_operator::args::Args;
use arbbot_operator::run::run;
use arbbot_operator::telemetry;
use clap::Parser as _;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::api_server::ApiServer;

/// An election that fits into a test.
pub const LEASE: Duration = Duration::from_secs(4);
/// The leader gives up so long after its last renewal.
pub const DEADLINE: Duration = Duration::from_secs(2);
pub const PATIENCE: Duration = Duration::from_secs(30);

/// One replica.
pub struct Operator {
    shutdown: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Operator {
    pub fn start(server: &ApiServer, name: &str, arguments: &[&str]) -> Self {
        let shutdown = CancellationToken::new();
        let fixed = ["arbbot-operator", "--listen=127.0.0.1:0", "--leader-election-namespace=system"];
        let identity = format!("--identity={name}");
        let times = [
            "--leader-elect-lease-duration=4s",
            "--leader-elect-renew-deadline=2s",
            "--leader-elect-retry-period=200ms",
        ];
        let all = fixed.iter().chain(&[identity.as_str()]).chain(&times).chain(arguments).copied().collect::<Vec<_>>();
        let args = Args::parse_from(all);
        let (client, token) = (server.client(), shutdown.clone());
        let task = tokio::spawn(async move { run(client, &args, args.timing()?, telemetry::start(), token).await });
        Self { shutdown, task }
    }

    /// SIGTERM. Returns how long it took to end.
    pub async fn stop(self) -> Duration {
        let begun = Instant::now();
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("it does not end").unwrap().unwrap();
        begun.elapsed()
    }

    /// SIGKILL.
    pub fn kill(self) {
        self.task.abort();
    }
}

/// Waits for a condition.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "it never came to pass: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until nothing is asked of the server for half a second, except by watches and the election.
pub async fn until_quiet(server: &ApiServer) {
    let (mut last, mut since) = (0, Instant::now());
    let begun = Instant::now();
    while since.elapsed() < Duration::from_millis(700) {
        let requests = server.state().requests.iter().filter(|(_, path)| !path.contains("leases")).count();
        if requests != last {
            (last, since) = (requests, Instant::now());
        }
        assert!(begun.elapsed() < PATIENCE, "it never rests");
        sleep(Duration::from_millis(20)).await;
    }
}
