//! What a patch costs, and that nothing is written when nothing happens: a frozen market, 20 bots with positions and
//! resting orders, six minutes, and the API server's own count of writes.
//!
//! Leases are heartbeats and do not count, and no stage is measured across the turn of an hour: the calendar does not
//! freeze, and funding then accrues to every position. `make test` runs this file beside the others: it mostly waits.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use arbbot_crds::ArbBot;
use arbbot_tests::api_server_metrics::Requests;
use arbbot_tests::audit::{Request, user};
use arbbot_tests::harness::{Bot, Desk, OPERATOR, OPERATOR_NAMESPACE, Room, Setup};
use arbbot_tests::objects;
use arbbot_tests::programs::Programs;
use arbbot_tests::waiting::wait_for;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const BOTS: usize = 20;
const SIX_MINUTES: Duration = Duration::from_secs(360);
/// Figures that the market moved are written up to a minute later.
const FIGURES: Duration = Duration::from_secs(65);
const PATIENCE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_secs(1);
/// No stage takes longer.
const STAGE: SignedDuration = SignedDuration::from_mins(9);
/// After this time the funding of an hour that has ended is known, and written.
const BOOKED: SignedDuration = SignedDuration::from_secs(120);
const HOUR: SignedDuration = SignedDuration::from_hours(1);
/// Lines of a log that a failure shows of the time before the stage.
const LINES_BEFORE: usize = 30;
const POLICY: &str = "desk-ceiling";

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_market_costs_no_write_and_a_patch_one_by_the_operator_and_one_by_the_bot() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let programs = Programs::build()?;
    let setup =
        Setup { programs: &programs, directory: directory.path(), accounts: BOTS + 1, fsync: false, audit: true };
    let desk = Desk::start(setup, |_| Ok(())).await?;
    let room = desk.room("frozen").await?;
    let mut policy = objects::policy(POLICY);
    objects::merge(&mut policy, &json!({"spec": {"risk": {"limits": {"maxOrdersPerMinute": 5000}}}}));
    room.apply(&policy).await?;
    let bots = trading_bots(&room).await?;

    desk.exchange.admin.freeze_market(true).await?;
    wait_until_quiet(&desk).await?;
    a_spec_patch_costs_two_writes(&desk, &bots).await?;
    a_policy_patch_costs_two_writes_for_each_bot(&desk, &room, &bots).await?;
    six_minutes_without_a_write(&desk, &bots).await
}

/// Switches the guards off that tell how busy this machine is: a warning of theirs would be written, rightly.
fn of_the_machine() -> Value {
    let guards = [
        ("api-latency", "ApiLatencyP95Milliseconds"),
        ("loop-p95", "LoopLatencyP95Milliseconds"),
        ("loop-p99", "LoopLatencyP99Milliseconds"),
        ("evaluations", "EvaluationsPerMinute"),
    ];
    let off = |(name, metric)| json!({"name": name, "metric": metric, "action": "Warn"});
    Value::from_iter(guards.map(off))
}

/// Bots that have far to go to their target, so that orders always rest. Half of them place theirs again every ten
/// seconds, far more often than by default; the others' rest for as long as can be.
async fn trading_bots<'a>(room: &Room<'a>) -> Result<Vec<Bot<'a>>> {
    let mut bots = Vec::new();
    for number in 0..BOTS {
        let max_rest = if number < BOTS / 2 { "10m" } else { "10s" };
        let changes = json!({"spec": {
            "controlTimeouts": {"lease": "30s", "stale": "60s", "lost": "5m"},
            "strategy": {"fundingCarry": {"targetNotional": "300000", "orders": {"maxRest": max_rest}}},
            "risk": {"limits": {"maxPositionNotional": "300000", "maxOrdersPerMinute": 6000}, "guards": of_the_machine()},
        }});
        bots.push(room.bot(&format!("bot-{number:02}"), changes).await?);
    }
    for bot in &bots {
        bot.wait_until_trading().await?;
        room.kubectl(&["wait", "--for=condition=Ready", &format!("arbbot/{}", bot.name), "--timeout=60s"]).await?;
    }
    Ok(bots)
}

/// What was counted as a stage began, and when.
struct Stage {
    before: Requests,
    at: Timestamp,
}

impl Stage {
    /// Begins in an hour that lasts until its end, with everything written that is to be written.
    async fn begin(desk: &Desk) -> Result<Self> {
        if let Some(wait) = until_clear_of_the_hour(Timestamp::now()) {
            sleep(wait).await;
            wait_until_quiet(desk).await?;
        }
        Ok(Self { before: Requests::now(&desk.client).await?, at: Timestamp::now() })
    }

    /// # Errors
    /// Another hour has begun meanwhile, so that what was written says nothing.
    fn is_of_one_hour(&self) -> Result<()> {
        let hour = |at: Timestamp| at.as_second().div_euclid(HOUR.as_secs());
        let (at, now) = (self.at, Timestamp::now());
        ensure!(hour(at) == hour(now), "the stage of {at} went on until {now}, in another hour: longer than STAGE");
        Ok(())
    }
}

/// How long until a stage may begin: not while funding of the hour before is still written, nor so late that the next hour
/// might begin in it.
fn until_clear_of_the_hour(now: Timestamp) -> Option<Duration> {
    let since = SignedDuration::from_secs(now.as_second().rem_euclid(HOUR.as_secs()));
    let wait = if since < BOOKED {
        BOOKED - since
    } else if HOUR - since <= STAGE {
        HOUR - since + BOOKED
    } else {
        return None;
    };
    Some(wait.unsigned_abs())
}

#[test]
fn no_stage_begins_just_after_an_hour_nor_so_late_that_the_next_may_begin_in_it() {
    for (minute, second, seconds) in [(0, 0, 120), (1, 59, 1), (51, 0, 540 + 120), (59, 59, 1 + 120)] {
        let at = Timestamp::from_second(7 * 3600 + minute * 60 + second).unwrap();
        assert_eq!(until_clear_of_the_hour(at), Some(Duration::from_secs(seconds)), "{minute}:{second}");
    }
    for (minute, second) in [(2, 0), (30, 0), (50, 59)] {
        assert_eq!(until_clear_of_the_hour(Timestamp::from_second(minute * 60 + second).unwrap()), None);
    }
}

/// Waits until what the market moved, or an hour that turned, is written.
async fn wait_until_quiet(desk: &Desk) -> Result<()> {
    let limit = Instant::now() + PATIENCE;
    let mut last = Requests::now(&desk.client).await?;
    let (mut since, mut at) = (Instant::now(), Timestamp::now());
    while since.elapsed() < FIGURES {
        sleep(POLL).await;
        let now = Requests::now(&desk.client).await?;
        if (&now - &last).writes().total() > 0 {
            if Instant::now() > limit {
                bail!("the writes do not end; the last:\n{}", writers(desk, at)?);
            }
            (last, since, at) = (now, Instant::now(), Timestamp::now());
        }
    }
    Ok(())
}

async fn six_minutes_without_a_write(desk: &Desk, bots: &[Bot<'_>]) -> Result<()> {
    let stage = Stage::begin(desk).await?;
    sleep(SIX_MINUTES).await;
    let writes = (&Requests::now(&desk.client).await? - &stage.before).writes();
    stage.is_of_one_hour()?;
    ensure!(writes.total() == 0, "writes while nothing happened:\n{writes}by:\n{}", writers(desk, stage.at)?);
    // Not because nobody was there.
    desk.check()?;
    for bot in bots {
        // Both orders may just be placed again.
        wait_for(&format!("{} trades", bot.name), || async {
            let portfolio = bot.portfolio().await?;
            Ok(portfolio.is_carrying() && !portfolio.open_orders.is_empty())
        })
        .await?;
        bot.container()?;
    }
    let leases = desk.audit()?.into_iter().filter(|request| request.is_write() && request.object.resource == "leases");
    ensure!(leases.filter(|lease| lease.received > stage.at).count() > BOTS, "the bots' heartbeats are missing");
    Ok(())
}

async fn a_spec_patch_costs_two_writes(desk: &Desk, bots: &[Bot<'_>]) -> Result<()> {
    let stage = Stage::begin(desk).await?;
    for bot in bots {
        let patched = bot.patch(json!({"spec": {"risk": {"limits": {"maxOrdersPerMinute": 4000}}}})).await?;
        bot.wait("reported", |bot| is_reported(bot, patched.generation)).await?;
    }
    wait_until_quiet(desk).await?;
    let mut expected = two_for_each(bots);
    expected.extend(bots.iter().map(|bot| (format!("admin patch arbbots {}", bot.name), 1)));
    check(desk, bots, &stage, &expected).await
}

async fn a_policy_patch_costs_two_writes_for_each_bot(desk: &Desk, room: &Room<'_>, bots: &[Bot<'_>]) -> Result<()> {
    let stage = Stage::begin(desk).await?;
    let patch = r#"{"spec":{"risk":{"limits":{"maxOrdersPerMinute":3000}}}}"#;
    room.kubectl(&["patch", &format!("arbpolicy/{POLICY}"), "--type=merge", "-p", patch]).await?;
    for bot in bots {
        bot.wait("the policy is applied", |bot| limit_of(bot) == json!(3000)).await?;
    }
    wait_until_quiet(desk).await?;
    let mut expected = two_for_each(bots);
    expected.insert(format!("admin patch arbpolicies {POLICY}"), 1);
    // How many writes the counts of the policy's own status take depends on when the bots answer.
    check(desk, bots, &stage, &expected).await
}

/// One status write by the operator and one by each bot.
fn two_for_each(bots: &[Bot<'_>]) -> BTreeMap<String, u64> {
    let by = |who: &str, bot: &Bot<'_>| (format!("{who} patch arbbots/status {}", bot.name), 1);
    bots.iter().flat_map(|bot| [by("operator", bot), by("bot", bot)]).collect()
}

/// Compares what was written since the stage began with what was expected; the API server's count must agree with its
/// audit log.
async fn check(desk: &Desk, bots: &[Bot<'_>], stage: &Stage, expected: &BTreeMap<String, u64>) -> Result<()> {
    stage.is_of_one_hour()?;
    let Stage { before, at } = stage;
    let counted = (&Requests::now(&desk.client).await? - before).writes();
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    for request in written(desk, *at)? {
        *found.entry(short(&request)).or_default() += 1;
    }
    let logged: u64 = found.values().sum();
    ensure!(counted.total() == logged, "the API server counts\n{counted}and logs {logged} writes:\n{found:#?}");
    found.retain(|write, _| *write != format!("operator patch arbpolicies/status {POLICY}"));
    let differ = |(write, count): &(&String, &u64)| expected.get(*write) != Some(*count);
    let unexpected: Vec<_> = found.iter().filter(differ).collect();
    let missing: Vec<_> = expected.keys().filter(|write| !found.contains_key(*write)).collect();
    if unexpected.is_empty() && missing.is_empty() {
        return Ok(());
    }
    let of_them = |bot: &&Bot<'_>| unexpected.iter().any(|(write, _)| write.ends_with(&bot.name));
    let logs: Vec<_> =
        bots.iter().filter(of_them).map(|bot| format!("{}:\n{}", bot.name, log_since(bot, *at))).collect();
    bail!("since {at} more or less often: {unexpected:#?}, not at all: {missing:#?}\n{}", logs.join("\n"))
}

/// What a bot has logged since, and a little of what it was like before.
fn log_since(bot: &Bot<'_>, since: Timestamp) -> String {
    let log = bot.log();
    let lines: Vec<_> = log.lines().collect();
    let is_later = |line: &&str| {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        line["timestamp"].as_str().and_then(|at| at.parse().ok()).is_some_and(|at: Timestamp| at >= since)
    };
    let first = lines.iter().position(is_later).unwrap_or(lines.len());
    lines[first.saturating_sub(LINES_BEFORE)..].join("\n")
}

/// What was written since, without leases and without what was refused.
fn written(desk: &Desk, since: Timestamp) -> Result<Vec<Request>> {
    let mut requests = desk.audit()?;
    requests.retain(|request| request.is_write() && request.received >= since && request.object.resource != "leases");
    Ok(requests)
}

/// Who wrote what, and how often.
fn writers(desk: &Desk, since: Timestamp) -> Result<String> {
    let mut writes: BTreeMap<String, u64> = BTreeMap::new();
    for request in written(desk, since)? {
        *writes.entry(format!("{} {} {}", request.user, request.verb, request.object.resource)).or_default() += 1;
    }
    Ok(writes.iter().map(|(write, count)| format!("  {count} × {write}\n")).collect())
}

fn short(request: &Request) -> String {
    let who = match request.user.as_str() {
        who if who == user(OPERATOR_NAMESPACE, OPERATOR) => "operator",
        who if who.starts_with("system:serviceaccount:frozen:arbbot-") => "bot",
        who => who,
    };
    format!("{who} {} {} {}", request.verb, request.object.resource, request.object.name)
}

/// Whether operator and bot have both answered this generation.
fn is_reported(bot: &ArbBot, generation: i64) -> bool {
    let Some(status) = &bot.status else { return false };
    let applied = status.bot.as_ref().and_then(|bot| bot.applied_generation);
    status.observed_generation >= Some(generation) && applied >= Some(generation)
}

/// The rate limit in force, as the operator reports it.
fn limit_of(bot: &ArbBot) -> Value {
    let effective = bot.status.as_ref().and_then(|status| status.effective.as_ref());
    effective.map_or(Value::Null, |effective| json!(effective.limits)["maxOrdersPerMinute"].clone())
}
