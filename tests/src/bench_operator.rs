//! `make bench-operator`: what one operator costs with many bots, on a real API server.
//!
//! etcd and kube-apiserver only: no controller manager and no pods, so nothing else writes. The operator runs as a
//! process with a token of its ServiceAccount and the rules it is shipped with. The bench plays administrator, pods and
//! bots. The floor is a process that only lists and watches the same objects; machines are noisy, so read ratios to it.

mod floor;
mod observer;
mod population;
mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use kube::Client;
use tokio::time::{Instant, sleep};

use crate::api_server_metrics::Requests;
use crate::clock::{milliseconds, monotonic_ns};
use crate::cluster::{Cluster, Kind, Options};
use crate::harness::{MANIFESTS, config};
use crate::kubectl::Kubectl;
use crate::operator_process::{self, Metrics, Operator, Usage};
use crate::process_node::ApiServer;
use crate::programs::Programs;
use crate::progress::Progress;

pub use floor::run as floor;
use observer::Observer;
use population::Population;
pub use report::Report;

const RECONCILES: &str = "arbbot_operator_reconciles_total";
/// Policies are reconciled, too.
const BOTS_ONLY: &str = "kind=\"ArbBot\"";
const RECONCILE_SECONDS: &str = "arbbot_operator_reconcile_seconds";
/// How long everything that takes its time may take.
const PATIENCE: Duration = Duration::from_secs(900);
const POLL: Duration = Duration::from_millis(50);
/// A cold start is over when the operator does nothing for so long.
const REST: Duration = Duration::from_secs(2);
/// "Nothing": fewer reconciles than this share of the bots, because some bot is always looked at again.
const RESTING_SHARE: f64 = 0.01;
/// Changes under way at once.
const CHANGES_AT_ONCE: usize = 4;

/// How large a run is.
#[derive(Clone, Debug)]
pub struct Size {
    pub bots: usize,
    /// Patches of specs.
    pub changes: usize,
    /// How long nothing happens.
    pub idle: Duration,
}

/// The API server, as administrator.
struct Bench<'a> {
    size: &'a Size,
    client: Client,
    population: Population,
    observer: Observer,
    operator: PathBuf,
    kubeconfig: PathBuf,
    directory: &'a Path,
}

/// A moment: what the API server has answered so far, and what the operator has done and used.
struct Moment {
    requests: Requests,
    metrics: Metrics,
    usage: Usage,
}

/// Runs the bench with everything in `directory`.
///
/// # Errors
/// Something does not work.
pub async fn run(size: &Size, programs: &Programs, directory: &Path, progress: &mut Progress) -> Result<Report> {
    let mut report = Report::new(size.bots, size.changes)?;
    progress.step("Kubernetes: etcd and kube-apiserver, nothing else");
    let options = Options::new(directory, Kind::ControlPlaneOnly).without_fsync().without_controllers();
    let cluster = Cluster::start(options).await?;
    let kubectl = Kubectl::new(cluster.kubectl(), cluster.kubeconfig_path());
    let kube = config(cluster.kubeconfig_path()).await?;
    let client = Client::try_from(kube.clone())?;
    install(&kubectl).await?;
    let kubeconfig = operator_process::kubeconfig(&kubectl, &ApiServer::of(&kube), &directory.join("operator")).await?;
    let bench = Bench {
        size,
        client: client.clone(),
        population: Population::new(client.clone(), size.bots),
        // A client of its own, so that its watch shares nothing with who patches.
        observer: Observer::start(Client::try_from(kube)?),
        operator: programs.path("arbbot-operator")?,
        kubeconfig,
        directory,
    };

    progress.step(&format!("{} ArbBots with Leases and the bots' status", size.bots));
    bench.population.create().await?;
    progress.step("First sync: the operator makes every child");
    bench.first_sync(&mut report).await?;
    progress.step("Cold start: the operator again, everything is there");
    let operator = bench.cold_start(&mut report).await?;
    progress.step(&format!("Idle for {} s", size.idle.as_secs()));
    bench.idle(&operator, &mut report).await?;
    progress.step(&format!("{} patches of specs", size.changes));
    bench.change(&operator, &mut report).await?;
    operator.stop().await;
    progress.step("Floor: a bare watch of the same objects");
    report.floor(&floor::measure(&programs.path("bench-operator")?, cluster.kubeconfig_path()).await?);
    progress.done();
    Ok(report)
}

/// What the README's installation applies. The operator's Deployment stays an object: nothing makes pods of it here.
async fn install(kubectl: &Kubectl) -> Result<()> {
    kubectl.run(&["apply", "--server-side", "-k", MANIFESTS]).await?;
    let crds = ["crd/arbbots.arbbot.io", "crd/arbpolicies.arbbot.io"];
    kubectl.run(&["wait", "--for=condition=Established", "--timeout=30s", crds[0], crds[1]]).await?;
    Ok(())
}

impl Bench<'_> {
    async fn start(&self, log: &str) -> Result<Operator> {
        Operator::start(&self.operator, &self.kubeconfig, &self.directory.join(log), &[]).await
    }

    async fn moment(&self, operator: &Operator) -> Result<Moment> {
        let (requests, metrics) = (Requests::now(&self.client).await?, operator.metrics().await?);
        Ok(Moment { requests, metrics, usage: operator.usage()? })
    }

    async fn first_sync(&self, report: &mut Report) -> Result<()> {
        let operator = self.start("first-sync.log").await?;
        self.observer.wait_reported(self.size.bots, false, PATIENCE).await?;
        report.first_sync(operator.age_s(), operator.usage()?);
        self.population.make_pods_ready().await?;
        self.observer.wait_reported(self.size.bots, true, PATIENCE).await?;
        self.wait_for_rest(&operator).await?;
        operator.stop().await;
        Ok(())
    }

    async fn cold_start(&self, report: &mut Report) -> Result<Operator> {
        let before = Requests::now(&self.client).await?;
        let operator = self.start("operator.log").await?;
        while !operator.readiness().await?.0 {
            sleep(POLL).await;
        }
        report.synced(operator.age_s());
        let cold_start_s = self.wait_for_rest(&operator).await?;
        let now = self.moment(&operator).await?;
        report.cold_start(cold_start_s, &(&now.requests - &before), now.usage);
        Ok(operator)
    }

    async fn idle(&self, operator: &Operator, report: &mut Report) -> Result<()> {
        let before = self.moment(operator).await?;
        sleep(self.size.idle).await;
        let after = self.moment(operator).await?;
        let requests = &after.requests - &before.requests;
        if requests.writes().total() > 0 {
            eprintln!("Writes while nothing happened:\n{}", requests.writes());
        }
        let reconciles = after.metrics.sum(RECONCILES) - before.metrics.sum(RECONCILES);
        report.idle(
            self.size.idle.as_secs_f64(),
            &requests,
            after.usage,
            after.usage.cpu_s - before.usage.cpu_s,
            reconciles,
        );
        Ok(())
    }

    async fn change(&self, operator: &Operator, report: &mut Report) -> Result<()> {
        let before = self.moment(operator).await?;
        let changes = stream::iter(0..self.size.changes).map(|number| self.change_one(number));
        let delays: Vec<f64> = changes.buffer_unordered(CHANGES_AT_ONCE).try_collect().await?;
        // What a change still causes belongs to it.
        self.wait_for_rest(operator).await?;
        let after = self.moment(operator).await?;
        // Each change is two writes of ours: the patch, and the bot's word.
        let requests = &after.requests - &before.requests;
        let writes = requests.writes().total() as f64 - 2.0 * self.size.changes as f64;
        report.changes(&delays, writes, after.usage.cpu_s - before.usage.cpu_s)?;
        let quantile = |percent| after.metrics.quantile_ms(&before.metrics, RECONCILE_SECONDS, percent);
        report.reconciles(quantile(50.0), quantile(99.0));
        Ok(())
    }

    /// Tightens a bot and acknowledges as the bot; milliseconds from then until the operator's report is visible.
    async fn change_one(&self, number: usize) -> Result<f64> {
        let bot = number % self.size.bots;
        let patched = self.population.tighten(bot, 4000 - number).await?;
        self.population.acknowledge(bot, patched.generation).await?;
        let acknowledged = monotonic_ns();
        let seen = self.observer.wait_observed(&population::key(bot), patched.generation).await?;
        Ok(milliseconds(acknowledged.min(seen), seen))
    }

    /// Waits until every bot was reconciled and the operator rests; returns at which age it last did something.
    async fn wait_for_rest(&self, operator: &Operator) -> Result<f64> {
        let limit = Instant::now() + PATIENCE;
        let bots = self.size.bots as f64;
        let (mut resting_since, mut before) = (Instant::now(), 0.0);
        let mut ended_s = operator.age_s();
        loop {
            let metrics = operator.metrics().await?;
            let (reconciles, of_bots) = (metrics.sum(RECONCILES), metrics.sum_of(RECONCILES, BOTS_ONLY));
            if reconciles - before > bots * RESTING_SHARE || of_bots < bots {
                (resting_since, before) = (Instant::now(), reconciles);
                ended_s = operator.age_s();
            } else if resting_since.elapsed() > REST {
                return Ok(ended_s);
            }
            if Instant::now() > limit {
                bail!("the operator does not come to rest: {reconciles} reconciles of {bots} bots");
            }
            sleep(POLL).await;
        }
    }
}
