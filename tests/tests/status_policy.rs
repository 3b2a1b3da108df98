//! What a bot's ServiceAccount may write in status, by the chart's ValidatingAdmissionPolicy. The bots here have no pod,
//! so that nobody else writes.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arbbot_crds::ArbBot;
use arbbot_crds::names::{MANAGER_BOT, MANAGER_OPERATOR};
use arbbot_tests::harness::{Bot, Desk, OPERATOR_NAMESPACE, Room, config, run_in_turn};
use arbbot_tests::kubectl::Output;
use arbbot_tests::measure::percentile;
use arbbot_tests::scenarios;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

const POLICY: &str = "validatingadmissionpolicy/arbbot-operator-bot-status";
const BINDING: &str = "validatingadmissionpolicybinding/arbbot-operator-bot-status";

fn main() -> ExitCode {
    run_in_turn(
        8,
        scenarios![
            a_bot_may_not_write_the_operators_part,
            a_bot_may_write_its_own_part,
            the_operator_and_people_are_not_touched,
            another_bots_account_may_write_nothing,
            the_api_server_finds_no_mistake_in_the_policy,
            a_policy_that_cannot_be_evaluated_lets_the_proof_of_a_kill_pass,
            the_policy_costs_a_status_write_next_to_nothing,
        ],
    )
}

/// A bot without a pod that the operator has reconciled: its account and Role are there, and so is the operator's part
/// of status.
async fn quiet_bot<'a>(room: &Room<'a>, name: &str) -> Result<Bot<'a>> {
    let bot = room.bot(name, json!({"spec": {"image": "registry.invalid/nothing:1"}})).await?;
    let judged = |bot: &ArbBot| {
        let status = bot.status.as_ref();
        status.is_some_and(|status| {
            status.observed_generation == bot.metadata.generation
                && status.conditions.iter().any(|condition| condition.type_ == "Stalled" && condition.status == "True")
        })
    };
    bot.wait("the operator has judged the bot", judged).await?;
    Ok(bot)
}

fn account_of(bot: &Bot<'_>) -> String {
    format!("--as=system:serviceaccount:{}:arbbot-{}", bot.namespace, bot.name)
}

/// Patches the bot's status as the account says, by server-side apply as bots do, without storing it.
async fn apply_as(room: &Room<'_>, bot: &Bot<'_>, account: &str, status: Value) -> Result<Output> {
    let object = json!({
        "apiVersion": "arbbot.io/v1alpha1", "kind": "ArbBot",
        "metadata": {"name": bot.name, "namespace": bot.namespace}, "status": status,
    });
    let manager = format!("--field-manager={MANAGER_BOT}");
    let arguments = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--subresource=status",
        "--dry-run=server",
        &manager,
        account,
        "-f",
        "-",
    ];
    room.desk.kubectl.output(&arguments, &object.to_string()).await
}

/// Patches the bot's status by a JSON merge patch, without storing it. Not by kubectl, which first reads the
/// subresource, and nobody may do that.
async fn merge_as(room: &Room<'_>, bot: &Bot<'_>, account: &str, status: Value) -> Result<Refusal> {
    patch_as(room, bot, account, &Patch::Merge(json!({"status": status}))).await
}

/// Why the API server refuses, if it does.
type Refusal = Option<String>;

async fn patch_as(room: &Room<'_>, bot: &Bot<'_>, account: &str, patch: &Patch<Value>) -> Result<Refusal> {
    let mut config = config(&room.desk.kubectl.kubeconfig).await?;
    config.auth_info.impersonate = account.strip_prefix("--as=").map(str::to_owned);
    let api: Api<ArbBot> = Api::namespaced(Client::try_from(config)?, &room.name);
    match api.patch_status(&bot.name, &PatchParams { dry_run: true, ..PatchParams::default() }, patch).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(Some(status.message)),
        Err(error) => Err(error.into()),
    }
}

fn condition(type_: &str, status: &str) -> Value {
    json!({
        "type": type_, "status": status, "reason": "Test", "message": "a test",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

/// Waits until the API server enforces the policy, or does not: it learns of a change within a second or two.
async fn wait_until_enforced(room: &Room<'_>, bot: &Bot<'_>, enforced: bool) -> Result<()> {
    let limit = Instant::now() + Duration::from_secs(30);
    let account = account_of(bot);
    while merge_as(room, bot, &account, json!({"observedGeneration": 99})).await?.is_some() != enforced {
        ensure!(Instant::now() < limit, "the policy's enforcement is not {enforced} within 30 s");
    }
    Ok(())
}

async fn a_bot_may_not_write_the_operators_part(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("policy-forbids").await?;
    let bot = quiet_bot(&room, "bot").await?;
    let account = account_of(&bot);
    wait_until_enforced(&room, &bot, true).await?;
    let incident = json!({
        "id": "a-1", "kind": "KillSwitch", "source": "ArbBot/bot", "startedAt": "2026-01-01T00:00:00Z",
    });
    let cases = [
        (json!({"observedGeneration": 99}), "status.bot.appliedGeneration"),
        (json!({"effective": {"mode": "Halted", "limits": {}}}), "status.bot.effectiveMode"),
        (json!({"claim": {"account": "mine", "product": "BIP-20DEC30-CDE", "granted": true}}), "status.bot.account"),
        (json!({"incidents": [incident]}), "status.killSwitch.incidents"),
        (json!({"conditions": [condition("Ready", "True")]}), "Ready is the operator's"),
        (json!({"conditions": [condition("Reconciling", "False")]}), "Reconciling is the operator's"),
        (json!({"conditions": [condition("Stalled", "False")]}), "Stalled is the operator's"),
        (json!({"conditions": [condition("PreflightPassed", "True")]}), "PreflightPassed is the operator's"),
    ];
    for (status, says) in cases {
        let refused = apply_as(&room, &bot, &account, status.clone()).await?;
        ensure!(!refused.success, "accepted: {status}");
        ensure!(refused.stderr.contains(says), "the refusal of {status} does not say {says:?}: {}", refused.stderr);
    }
    // A merge patch replaces the whole list, and can also remove.
    for status in [
        json!({"observedGeneration": null}),
        json!({"claim": null}),
        json!({"claim": {"account": "another"}}),
        json!({"effective": null}),
        json!({"conditions": []}),
        json!({"conditions": null}),
        json!(null),
        json!({"conditions": [condition("Halted", "True")]}),
    ] {
        let refused = merge_as(&room, &bot, &account, status.clone()).await?;
        let by_policy = refused.as_ref().is_some_and(|message| message.contains("ValidatingAdmissionPolicy"));
        ensure!(by_policy, "{status}: {refused:?}");
    }
    // Nor does it help to take the operator's name.
    let object = json!({
        "apiVersion": "arbbot.io/v1alpha1", "kind": "ArbBot",
        "metadata": {"name": "bot", "namespace": bot.namespace}, "status": {"bot": {"version": "1"}},
    });
    let manager = format!("--field-manager={MANAGER_OPERATOR}");
    let arguments =
        ["apply", "--server-side", "--force-conflicts", "--subresource=status", "--dry-run=server", &manager, &account];
    let taken = desk.kubectl.output(&[&arguments[..], &["-f", "-"]].concat(), &object.to_string()).await?;
    ensure!(!taken.success, "as the manager {MANAGER_OPERATOR} a bot may remove the operator's part");
    Ok(())
}

async fn a_bot_may_write_its_own_part(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("policy-allows").await?;
    let bot = quiet_bot(&room, "bot").await?;
    let account = account_of(&bot);
    wait_until_enforced(&room, &bot, true).await?;
    let latch = json!({
        "id": "a-1", "source": "ArbBot/bot", "phase": "Finished", "action": "Flatten",
        "engagedAt": "2026-01-01T00:00:00Z", "flatAt": "2026-01-01T00:00:01Z",
    });
    let conditions: Vec<_> = [
        "ControlApplied",
        "Trading",
        "Halted",
        "Flat",
        "WithinRiskLimits",
        "CredentialsValid",
        "ExchangeConnected",
        "PositionsReconciled",
        "CollateralSufficient",
        "OfANewerBot",
    ]
    .map(|type_| condition(type_, "True"))
    .into();
    for status in [
        json!({"bot": {"appliedGeneration": 1, "effectiveMode": "Flatten", "openOrders": 0}}),
        json!({"killSwitch": {"incidents": [latch]}}),
        json!({"credentials": {"fingerprint": "0123456789ab"}}),
        json!({"conditions": conditions}),
        json!({}),
    ] {
        let accepted = apply_as(&room, &bot, &account, status.clone()).await?;
        ensure!(accepted.success, "refused: {status}: {}", accepted.stderr);
    }
    Ok(())
}

async fn the_operator_and_people_are_not_touched(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("policy-operator").await?;
    let bot = quiet_bot(&room, "bot").await?;
    wait_until_enforced(&room, &bot, true).await?;
    let operator = format!("--as=system:serviceaccount:{OPERATOR_NAMESPACE}:arbbot-operator");
    for account in [operator.as_str(), "as the administrator"] {
        let status = json!({"observedGeneration": 99, "conditions": [condition("Ready", "True")]});
        let refused = merge_as(&room, &bot, account, status).await?;
        ensure!(refused.is_none(), "{account}: {refused:?}");
    }
    Ok(())
}

async fn another_bots_account_may_write_nothing(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("policy-others").await?;
    let one = quiet_bot(&room, "one").await?;
    let other = quiet_bot(&room, "other").await?;
    let refused = merge_as(&room, &one, &account_of(&other), json!({"bot": {"version": "1"}})).await?;
    ensure!(refused.as_ref().is_some_and(|message| message.contains("cannot patch resource")), "{refused:?}");
    Ok(())
}

async fn the_api_server_finds_no_mistake_in_the_policy(desk: Arc<Desk>) -> Result<()> {
    let checked = ["wait", "--for=jsonpath={.status.observedGeneration}=1", POLICY, "--timeout=60s"];
    desk.kubectl.run(&checked).await?;
    let warnings = ["get", POLICY, "-o", "jsonpath={.status.typeChecking.expressionWarnings}"];
    let warnings = desk.kubectl.run(&warnings).await?;
    ensure!(warnings.is_empty(), "{warnings}");
    Ok(())
}

/// As after an edit by hand, or on an API server that lacks a function.
async fn a_policy_that_cannot_be_evaluated_lets_the_proof_of_a_kill_pass(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("policy-broken").await?;
    let bot = quiet_bot(&room, "bot").await?;
    wait_until_enforced(&room, &bot, true).await?;
    let sound = desk.kubectl.run(&["get", POLICY, "-o", "json"]).await?;
    let sound: Value = serde_json::from_str(&sound)?;
    // The first rule fails when it is evaluated.
    let broken = json!([{
        "op": "replace", "path": "/spec/validations/0/expression", "value": "object.status.nothing.of.the.kind == 1",
    }]);
    desk.kubectl.run(&["patch", POLICY, "--type=json", "-p", &broken.to_string()]).await?;
    let passes = async {
        wait_until_enforced(&room, &bot, false).await?;
        let proof = json!({"conditions": [condition("Flat", "True")]});
        let accepted = apply_as(&room, &bot, &account_of(&bot), proof).await?;
        ensure!(accepted.success, "{}", accepted.stderr);
        Ok(())
    };
    let passes = passes.await;
    let restore = json!({"spec": {"validations": sound["spec"]["validations"]}}).to_string();
    desk.kubectl.run(&["patch", POLICY, "--type=merge", "-p", &restore]).await?;
    wait_until_enforced(&room, &bot, true).await?;
    passes
}

/// Milliseconds that status writes by the bot's account take.
async fn latencies(api: &Api<ArbBot>, name: &str, writes: usize) -> Result<Vec<f64>> {
    let mut latencies = Vec::with_capacity(writes);
    for index in 0..writes {
        let body = json!({
            "apiVersion": "arbbot.io/v1alpha1", "kind": "ArbBot", "metadata": {"name": name},
            "status": {"bot": {"appliedGeneration": index}, "conditions": [
                condition("Halted", if index % 2 == 0 { "True" } else { "False" }), condition("Flat", "True"),
            ]},
        });
        let started = Instant::now();
        api.patch_status(name, &PatchParams::apply(MANAGER_BOT).force(), &Patch::Apply(&body)).await?;
        latencies.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(latencies)
}

async fn the_policy_costs_a_status_write_next_to_nothing(desk: Arc<Desk>) -> Result<()> {
    const WRITES: usize = 150;
    let room = desk.room("policy-latency").await?;
    let bot = quiet_bot(&room, "bot").await?;
    wait_until_enforced(&room, &bot, true).await?;
    // As the bot's own account, with its own token: what is measured includes the authorization by its Role.
    let account = format!("arbbot-{}", bot.name);
    let token = room.kubectl(&["create", "token", &account]).await?;
    let mut config = config(&desk.kubectl.kubeconfig).await?;
    config.auth_info = kube::config::AuthInfo { token: Some(token.trim().to_owned().into()), ..Default::default() };
    let api: Api<ArbBot> = Api::namespaced(Client::try_from(config)?, &room.name);
    let binding = desk.kubectl.run(&["get", BINDING, "-o", "json"]).await?;
    let mut binding: Value = serde_json::from_str(&binding)?;
    for field in ["resourceVersion", "uid", "creationTimestamp", "managedFields"] {
        binding["metadata"].as_object_mut().context("metadata")?.remove(field);
    }
    let (mut with, mut without) = (Vec::new(), Vec::new());
    latencies(&api, &bot.name, 20).await?;
    for _ in 0..2 {
        with.extend(latencies(&api, &bot.name, WRITES).await?);
        desk.kubectl.run(&["delete", BINDING]).await?;
        let gone = wait_until_enforced(&room, &bot, false).await;
        let measured = latencies(&api, &bot.name, WRITES).await;
        desk.kubectl.apply(&binding).await?;
        gone?;
        without.extend(measured?);
        wait_until_enforced(&room, &bot, true).await?;
    }
    let figure = |samples: &[f64], percent| percentile(samples, percent).unwrap_or_default();
    let (p50, p50_without) = (figure(&with, 50), figure(&without, 50));
    println!(
        "status write of a bot: p50 {p50:.2} ms, p99 {:.2} ms; without the policy p50 {p50_without:.2} ms, p99 {:.2} ms",
        figure(&with, 99),
        figure(&without, 99),
    );
    // Generous, because other tests run beside this one; the policy itself takes a fraction of a millisecond.
    ensure!(p50 < p50_without * 1.5 + 2.0, "p50 {p50:.2} ms with and {p50_without:.2} ms without the policy");
    Ok(())
}
