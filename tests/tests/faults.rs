//! The operator behind an API server that refuses, cuts, delays and forgets: it comes to the same end as without, and asks
//! for no more than a few times as much. One fault after the other, each with the same story.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use arbbot_crds::names::{child_name, ledger_claim_name};
use arbbot_tests::api_proxy::{ApiProxy, Fault, Tally};
use arbbot_tests::harness::{Desk, Room, run_in_turn};
use arbbot_tests::process_node::Running;
use arbbot_tests::snapshot::{self, Snapshot, differences};
use arbbot_tests::{objects, scenarios};
use serde_json::json;
use tokio::sync::OnceCell;
use tokio::time::sleep;

fn main() -> ExitCode {
    run_in_turn(
        80,
        scenarios![
            writes_that_conflict,
            resource_versions_that_are_too_old,
            an_api_server_that_wants_less,
            an_api_server_that_fails,
            requests_that_are_never_answered,
            connections_that_break_in_the_middle_of_an_answer,
            answers_that_come_late_and_in_pieces,
            watches_that_fall_silent,
        ],
    )
}

/// Bots that never run, because nobody has their image: what is made for them can be looked at in peace.
const IDLE: [&str; 5] = ["a", "b", "c", "d", "gone"];
/// How long a namespace must stay as it is before that counts as the end.
const CALM: Duration = Duration::from_secs(3);
/// Longest way to the end, and to the bots that trade before it: an object that fails eight times in a row waits for a minute, and a watch that falls silent is
/// noticed after 20 s, several of them one after the other. The number of requests is bounded below.
const LIMIT: Duration = Duration::from_secs(200);
/// How often a fault must have struck at least.
const STRUCK: u64 = 5;
/// Times the requests of the run without a fault.
const REQUESTS: u64 = 5;

/// The run without a fault, and the proxy of all runs.
struct Clean {
    proxy: ApiProxy,
    end: Snapshot,
    requests: u64,
}

static CLEAN: OnceCell<Clean> = OnceCell::const_new();

async fn writes_that_conflict(desk: Arc<Desk>) -> Result<()> {
    same_end(&desk, Fault::Conflict, 30).await
}

async fn resource_versions_that_are_too_old(desk: Arc<Desk>) -> Result<()> {
    same_end(&desk, Fault::Gone, 20).await
}

async fn an_api_server_that_wants_less(desk: Arc<Desk>) -> Result<()> {
    same_end(&desk, Fault::TooManyRequests, 25).await
}

async fn an_api_server_that_fails(desk: Arc<Desk>) -> Result<()> {
    same_end(&desk, Fault::InternalError, 25).await
}

async fn requests_that_are_never_answered(desk: Arc<Desk>) -> Result<()> {
    same_end(&desk, Fault::Hang, 5).await
}

async fn connections_that_break_in_the_middle_of_an_answer(desk: Arc<Desk>) -> Result<()> {
    same_end(&desk, Fault::Cut, 15).await
}

async fn answers_that_come_late_and_in_pieces(desk: Arc<Desk>) -> Result<()> {
    same_end(&desk, Fault::Slow, 100).await
}

async fn watches_that_fall_silent(desk: Arc<Desk>) -> Result<()> {
    // What a watch has missed comes event by event when it goes on, and each may silence it for another 20 s: with ten in a
    // hundred it goes nine events in that time, and the story took up to its limit.
    same_end(&desk, Fault::SilentWatches, 3).await
}

/// Runs the story under a fault and compares its end with the one without.
async fn same_end(desk: &Desk, fault: Fault, percent: u32) -> Result<()> {
    let clean = CLEAN.get_or_try_init(|| run_without_fault(desk)).await?;
    let room = desk.room(&format!("story-under-{}", format!("{fault:?}").to_lowercase())).await?;
    clean.proxy.take_tally();
    clean.proxy.set_some(fault, percent, 42);
    let began = Instant::now();
    let told = tell(&room).await;
    let ended = match told {
        Ok(()) => until_end(&room, &clean.end).await,
        Err(error) => Err(error),
    };
    clean.proxy.set(Fault::None);
    let tally = clean.proxy.take_tally();
    report(&format!("{fault:?} {percent} %"), began.elapsed(), &tally);
    ended.map_err(|error| anyhow!("{error:#}\nthe operator's log ends with\n{}", tail(&desk.operator_log())))?;
    clear(&room).await?;
    ensure!(tally.struck >= STRUCK, "the fault struck {} times only, so little was shown", tally.struck);
    let limit = clean.requests * REQUESTS;
    ensure!(
        tally.total() <= limit,
        "{} requests; {} without a fault, at most {limit} with one",
        tally.total(),
        clean.requests
    );
    Ok(())
}

async fn run_without_fault(desk: &Desk) -> Result<Clean> {
    let proxy = ApiProxy::start(desk.node.api_server()).await?;
    desk.put_operator_behind(&proxy).await?;
    let room = desk.room("story-without-a-fault").await?;
    proxy.take_tally();
    let began = Instant::now();
    tell(&room).await?;
    let end = until_calm(&room).await?;
    let tally = proxy.take_tally();
    report("no fault", began.elapsed(), &tally);
    clear(&room).await?;
    Ok(Clean { proxy, end, requests: tally.total() })
}

/// Creates bots, changes them, edits and deletes their children, halts them by a policy, deletes two, and lets the operator
/// begin anew in the middle of it.
async fn tell(room: &Room<'_>) -> Result<()> {
    let absent = json!({"spec": {"image": "nowhere.invalid/absent:1"}});
    for name in IDLE {
        room.bot(name, absent.clone()).await?;
    }
    let (stays, leaves) = (room.bot("stays", json!({})).await?, room.bot("leaves", json!({})).await?);
    tokio::try_join!(stays.wait_until_trading_for(LIMIT), leaves.wait_until_trading_for(LIMIT))?;
    for name in IDLE {
        // The last of its children.
        exists(room, &format!("deployment/{}", child_name(name))).await?;
    }
    room.desk.operators().iter().for_each(Running::kill);

    let merge = |patch| ["--type=merge".to_owned(), format!("-p={patch}")];
    for (object, patch) in [
        ("arbbot/a".to_owned(), json!({"spec": {"podTemplate": {"labels": {"team": "x"}}}})),
        ("arbbot/b".to_owned(), json!({"spec": {"resources": {"requests": {"cpu": "20m"}}}})),
        ("arbbot/stays".to_owned(), json!({"spec": {"logLevel": "debug"}})),
        ("arbbot/leaves".to_owned(), json!({"spec": {"deletionPolicy": "Flatten"}})),
        (format!("role/{}", child_name("a")), json!({"rules": []})),
        (format!("service/{}", child_name("b")), json!({"metadata": {"labels": {"arbbot.io/bot": "edited"}}})),
        (format!("deployment/{}", child_name("c")), json!({"spec": {"template": {"spec": {"hostNetwork": true}}}})),
        (format!("pvc/{}", ledger_claim_name("d")), json!({"metadata": {"labels": {"arbbot.io/bot": "edited"}}})),
    ] {
        let [kind, patch] = merge(patch);
        room.kubectl(&["patch", &object, &kind, &patch]).await?;
    }
    for (kind, bot) in
        [("service", "a"), ("rolebinding", "b"), ("role", "c"), ("serviceaccount", "d"), ("deployment", "d")]
    {
        room.kubectl(&["delete", kind, &child_name(bot), "--wait=false"]).await?;
    }
    let mut policy = objects::policy("desk");
    policy["spec"]["mode"] = json!("Halted");
    room.apply(&policy).await?;
    room.kubectl(&["delete", "arbbot/gone", "arbbot/leaves", "--wait=false"]).await?;
    Ok(())
}

async fn exists(room: &Room<'_>, object: &str) -> Result<()> {
    let began = Instant::now();
    while !room.try_kubectl(&["get", object]).await?.success {
        ensure!(began.elapsed() < LIMIT, "not within {} s: {object}", LIMIT.as_secs());
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// Waits until nothing changes any more, and everything is done.
async fn until_calm(room: &Room<'_>) -> Result<Snapshot> {
    let began = Instant::now();
    let (mut last, mut since) = (Snapshot::new(), Instant::now());
    loop {
        let now = snapshot::take(&room.desk.client, &room.name).await?;
        let gone = !now.contains_key("ArbBot/gone") && !now.contains_key("ArbBot/leaves");
        if !gone || now != last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() > CALM {
            return Ok(last);
        }
        ensure!(began.elapsed() < LIMIT, "without a fault it does not come to an end: {last:#?}");
        sleep(Duration::from_millis(300)).await;
    }
}

async fn until_end(room: &Room<'_>, end: &Snapshot) -> Result<()> {
    let began = Instant::now();
    loop {
        let now = snapshot::take(&room.desk.client, &room.name).await?;
        let differences = differences(end, &now);
        if differences.is_empty() {
            return Ok(());
        }
        if began.elapsed() > LIMIT {
            bail!("after {} s it is not as without the fault:\n{}", LIMIT.as_secs(), differences.join("\n"));
        }
        sleep(Duration::from_millis(300)).await;
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// The bots of one run should not run beside the next.
async fn clear(room: &Room<'_>) -> Result<()> {
    room.desk.kubectl.run(&["delete", "namespace", &room.name, "--timeout=90s"]).await.map(|_| ())
}

fn report(what: &str, took: Duration, tally: &Tally) {
    let mut most: Vec<_> = tally.requests.iter().collect();
    most.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let mut writes = BTreeMap::new();
    for (call, count) in &tally.requests {
        if !matches!(call.verb, "get" | "list" | "watch") {
            *writes.entry(call.verb).or_insert(0) += count;
        }
    }
    let most: Vec<_> = most.iter().take(4).map(|(call, count)| format!("{count} {call}")).collect();
    println!(
        "\n{what}: {:.1} s, {} requests ({}), writes {writes:?}, struck {}",
        took.as_secs_f64(),
        tally.total(),
        most.join(", "),
        tally.struck
    );
}
