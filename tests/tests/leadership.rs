//! Two operators side by side while the leader is lost in every way: never do both write, and no bot notices.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use arbbot_crds::ArbBot;
use arbbot_crds::names::LEADER_LEASE;
use arbbot_tests::api_proxy::{ApiProxy, Fault};
use arbbot_tests::audit::user;
use arbbot_tests::harness::{Bot, Desk, OPERATOR, OPERATOR_NAMESPACE, Patched, run_in_turn};
use arbbot_tests::measure::Journal;
use arbbot_tests::process_node::Running;
use arbbot_tests::scenarios;
use arbbot_tests::terms::{terms, violations};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::DeleteParams;
use rustix::process::Signal;
use serde_json::json;
use tokio::time::sleep;

fn main() -> ExitCode {
    run_in_turn(8, scenarios![two_operators_never_write_at_once_while_the_leader_is_lost_again_and_again])
}

/// How a leader is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Loss {
    /// SIGTERM: the Lease is given back.
    Terminated,
    /// SIGKILL.
    Killed,
    /// SIGSTOP until another leads, then SIGCONT.
    Frozen,
    /// Nothing arrives between it and the API server any more.
    CutOff,
    /// The API server answers it with 500.
    Refused,
    /// Somebody deletes the Lease. It is made again, or another leads after a while; never do two.
    Deleted,
}

const LOSSES: [Loss; 6] = [Loss::Terminated, Loss::Killed, Loss::Frozen, Loss::CutOff, Loss::Refused, Loss::Deleted];
const ROUNDS: usize = 4;
/// Of the election, so that the losses fit into minutes; the order of the defaults' sizes is kept.
const TIMES: [&str; 3] =
    ["--leader-elect-lease-duration=6s", "--leader-elect-renew-deadline=4s", "--leader-elect-retry-period=500ms"];
/// Longest hand-over after a Lease was given back.
const AFTER_RELEASE: Duration = Duration::from_secs(2);
/// Longest hand-over otherwise: the Lease, a look, a reconcile, and a machine that does other things, too.
const AFTER_EXPIRY: Duration = Duration::from_secs(12);
/// Longest time from a patch to the bot's acknowledgement, which needs no operator.
const ACKNOWLEDGED: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);

async fn two_operators_never_write_at_once_while_the_leader_is_lost_again_and_again(desk: Arc<Desk>) -> Result<()> {
    let proxy = ApiProxy::start(desk.node.api_server()).await?;
    desk.operator_arguments(&TIMES).await?;
    desk.put_operator_behind(&proxy).await?;
    desk.scale_operator(2).await?;
    let room = desk.room("leadership").await?;
    let bots = [room.bot("a", json!({})).await?, room.bot("b", json!({})).await?, room.bot("c", json!({})).await?];
    for bot in &bots {
        bot.wait_until_trading().await?;
    }
    let mut handovers: BTreeMap<Loss, Vec<Duration>> = BTreeMap::new();
    let mut acknowledged = Vec::new();
    for (number, loss) in std::iter::repeat_n(LOSSES, ROUNDS).flatten().enumerate() {
        let (leader, _) = leader(&desk).await?;
        let bot = &bots[number % bots.len()];
        let began = Instant::now();
        lose(&desk, &proxy, loss, &leader).await?;
        let patched = bot.patch(json!({"spec": {"mode": "ReduceOnly"}})).await?;
        acknowledged.push(until_acknowledged(bot, &patched).await?);
        let stopped = bot.stopped_ns(patched.generation).await?;
        until_reconciled(bot, &patched)
            .await
            .with_context(|| format!("loss {number}: {loss:?} of {}\n{}", leader.pod, last_words(&desk)))?;
        let took = began.elapsed();
        handovers.entry(loss).or_default().push(took);
        let limit = if loss == Loss::Terminated { AFTER_RELEASE } else { AFTER_EXPIRY };
        ensure!(
            took <= limit,
            "loss {number}: {loss:?} of {}: nobody reconciles for {took:?}, at most {limit:?}\n{}",
            leader.pod,
            last_words(&desk)
        );
        let until = recover(&desk, &proxy, loss, &leader, bot).await?;
        let events = bot.journal().await?;
        let raising = Journal(&events).raising(stopped, until).len();
        ensure!(raising == 0, "{raising} orders raised a leg of {} while it was ReduceOnly", bot.name);
    }
    report(&handovers, &acknowledged);
    let slowest = acknowledged.iter().max().copied().unwrap_or_default();
    ensure!(slowest <= ACKNOWLEDGED, "a bot acknowledged after {slowest:?}");
    judge(&desk)
}

async fn lose(desk: &Desk, proxy: &ApiProxy, loss: Loss, leader: &Running) -> Result<()> {
    ensure!(desk.node.containers().iter().any(|c| c.pod == leader.pod), "the leader {} does not run", leader.pod);
    match loss {
        Loss::Terminated => leader.child.signal(Signal::TERM),
        Loss::Killed => leader.kill(),
        Loss::Frozen => leader.pause(),
        Loss::CutOff => proxy.set_for(&leader.pod, Fault::Unreachable),
        Loss::Refused => proxy.set_for(&leader.pod, Fault::InternalError),
        Loss::Deleted => {
            let leases: Api<Lease> = Api::namespaced(desk.client.clone(), OPERATOR_NAMESPACE);
            leases.delete(LEADER_LEASE, &DeleteParams::default()).await?;
        }
    }
    Ok(())
}

/// Lets the lost one come back, waits until both are ready, and lets the bot go on. Returns when that was patched.
async fn recover(desk: &Desk, proxy: &ApiProxy, loss: Loss, lost: &Running, bot: &Bot<'_>) -> Result<u64> {
    if loss == Loss::Frozen {
        lost.resume();
    }
    proxy.set(Fault::None);
    desk.scale_operator(2).await?;
    let patched = bot.patch(json!({"spec": {"mode": "Active"}})).await?;
    until_acknowledged(bot, &patched).await?;
    Ok(patched.sent_ns)
}

/// The leader's container, and what the Lease calls it.
async fn leader(desk: &Desk) -> Result<(Running, String)> {
    let leases: Api<Lease> = Api::namespaced(desk.client.clone(), OPERATOR_NAMESPACE);
    let began = Instant::now();
    loop {
        let lease = leases.get_opt(LEADER_LEASE).await?;
        let holder = lease.and_then(|lease| lease.spec).and_then(|spec| spec.holder_identity).unwrap_or_default();
        let found =
            desk.node.containers().into_iter().find(|c| c.namespace == OPERATOR_NAMESPACE && holder.contains(&c.pod));
        if let Some(found) = found {
            return Ok((found, holder));
        }
        ensure!(began.elapsed() < AFTER_EXPIRY, "no replica leads; the Lease names {holder:?}");
        sleep(POLL).await;
    }
}

async fn until_acknowledged(bot: &Bot<'_>, patched: &Patched) -> Result<Duration> {
    let acknowledged = |bot: &ArbBot| {
        let said = bot.status.as_ref().and_then(|status| status.bot.as_ref());
        said.and_then(|bot| bot.applied_generation) >= Some(patched.generation)
    };
    let began = Instant::now();
    bot.wait("the bot has acknowledged", acknowledged).await?;
    Ok(began.elapsed())
}

/// A leader has seen the change.
async fn until_reconciled(bot: &Bot<'_>, patched: &Patched) -> Result<()> {
    let reconciled =
        |bot: &ArbBot| bot.status.as_ref().and_then(|status| status.observed_generation) >= Some(patched.generation);
    bot.wait("an operator has reconciled the change", reconciled).await.map(|_| ())
}

/// The end of each replica's log.
fn last_words(desk: &Desk) -> String {
    let logs = desk.operators().into_iter().map(|running| {
        let log = running.log();
        let lines: Vec<_> = log.lines().collect();
        format!("{}:\n  {}\n", running.pod, lines[lines.len().saturating_sub(15)..].join("\n  "))
    });
    logs.collect()
}

fn report(handovers: &BTreeMap<Loss, Vec<Duration>>, acknowledged: &[Duration]) {
    println!();
    for (loss, times) in handovers {
        let times: Vec<_> = times.iter().map(|time| format!("{:.2}", time.as_secs_f64())).collect();
        println!("{loss:?}: a change is reconciled {} s after the loss", times.join(", "));
    }
    let mut sorted = acknowledged.to_vec();
    sorted.sort();
    let (middle, last) = (sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
    println!("bots acknowledged {} patches meanwhile: median {middle:?}, slowest {last:?}", sorted.len());
}

/// What the API server wrote down.
fn judge(desk: &Desk) -> Result<()> {
    let account = user(OPERATOR_NAMESPACE, OPERATOR);
    let requests: Vec<_> = desk.audit()?.into_iter().filter(|request| request.user == account).collect();
    let (terms, violations) = (terms(&requests), violations(&requests));
    let writes = requests.iter().filter(|request| request.is_write()).count();
    let released = terms.iter().filter(|term| term.was_released()).count();
    println!(
        "{} terms of leadership ({released} given back), {writes} writes of {} requests",
        terms.len(),
        requests.len()
    );
    let pods: std::collections::BTreeSet<_> = terms.iter().map(|term| &term.pod).collect();
    ensure!(pods.len() > 1, "only one pod has ever led");
    if !violations.is_empty() {
        bail!("{} violations:\n{}", violations.len(), violations.join("\n"));
    }
    Ok(())
}
