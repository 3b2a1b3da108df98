//! Objects that the operator cannot work with: each is told of on the object itself, and no other bot suffers.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use arbbot_crds::conditions::ConditionType;
use arbbot_tests::harness::{Bot, Desk, Room, condition_is, run_in_turn};
use arbbot_tests::kstatus::{Verdict, verdict};
use arbbot_tests::waiting::wait_for;
use arbbot_tests::{crds, objects, scenarios};
use serde_json::{Value, json};

/// Longer than the 40 characters that leave room for the names of children.
const LONG_NAME: &str = "a-name-that-is-too-long-for-the-names-of-its-children";

fn main() -> ExitCode {
    run_in_turn(
        16,
        scenarios![
            a_name_that_is_too_long_is_refused_with_the_reason,
            a_bot_stored_under_a_laxer_schema_is_named_and_the_others_go_on,
            a_namespace_where_the_operator_may_not_write_is_named_and_the_others_go_on,
        ],
    )
}

async fn a_name_that_is_too_long_is_refused_with_the_reason(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("long-name").await?;
    let (mut object, _) = room.draft("bot").await?;
    object["metadata"]["name"] = json!(LONG_NAME);
    let Err(error) = room.apply(&object).await else { bail!("the API server stored {LONG_NAME}") };
    let text = format!("{error:#}");
    ensure!(text.contains("40") && text.contains("name"), "{text}");
    Ok(())
}

/// What an early release may have stored: the name of the object, its changes, and a word of the message it gets.
fn stored_under_a_laxer_schema() -> [(&'static str, Value, &'static str); 4] {
    [
        ("unknown-mode", json!({"spec": {"mode": "Sideways"}}), "mode"),
        (
            "number-for-text",
            json!({"spec": {"strategy": {"fundingCarry": {"targetNotional": 10000}}}}),
            "targetNotional",
        ),
        ("no-strategy", json!({"spec": {"strategy": null}}), "strategy"),
        (LONG_NAME, json!({}), "40"),
    ]
}

async fn a_bot_stored_under_a_laxer_schema_is_named_and_the_others_go_on(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("lax").await?;
    let healthy = room.trading_bot("healthy").await?;
    let (draft, _) = room.draft("draft").await?;
    // Nobody has looked at them before the schema that refuses them is there.
    desk.scale_operator(0).await?;
    crds::allow_any_spec(&desk.kubectl).await?;
    let stored = store(&room, &draft).await;
    crds::install(&desk.kubectl).await?;
    stored?;
    crds::wait_until_accepted(&desk.kubectl, &invalid(&room, &draft), false).await?;
    desk.scale_operator(1).await?;

    for (name, _, word) in stored_under_a_laxer_schema() {
        wait_stalled(&room, name, "InvalidSpec", word).await.with_context(|| format!("ArbBot {name}"))?;
    }
    goes_on(&room, &healthy).await?;
    // A restarted operator lists them all at once.
    desk.scale_operator(0).await?;
    desk.scale_operator(1).await?;
    let other = room.trading_bot("after-restart").await?;
    goes_on(&room, &other).await?;
    // They are gone when a person deletes them: they never ran.
    for (name, ..) in stored_under_a_laxer_schema() {
        room.kubectl(&["delete", &format!("arbbot/{name}"), "--timeout=30s"]).await?;
    }
    Ok(())
}

async fn store(room: &Room<'_>, draft: &Value) -> Result<()> {
    crds::wait_until_accepted(&room.desk.kubectl, &invalid(room, draft), true).await?;
    for (name, changes, _) in stored_under_a_laxer_schema() {
        let mut object = draft.clone();
        objects::merge(&mut object, &changes);
        object["metadata"]["name"] = json!(name);
        // An account of its own, as far as anybody can tell.
        object["spec"]["venue"]["coinbase"]["portfolio"] = json!(format!("portfolio-of-{name}"));
        room.apply(&object).await?;
    }
    Ok(())
}

fn invalid(room: &Room<'_>, draft: &Value) -> Value {
    let mut object = draft.clone();
    objects::merge(
        &mut object,
        &json!({"metadata": {"name": "probe", "namespace": room.name}, "spec": {"mode": "Sideways"}}),
    );
    object
}

async fn a_namespace_where_the_operator_may_not_write_is_named_and_the_others_go_on(desk: Arc<Desk>) -> Result<()> {
    let (room, other) = (desk.room("forbidden").await?, desk.room("allowed").await?);
    let healthy = other.trading_bot("healthy").await?;
    for object in no_deployments_in(&room.name) {
        desk.kubectl.apply(&object).await?;
    }
    // The API server takes a policy up a moment after it was stored.
    let probe = ["create", "deployment", "probe", "--image=none", "--dry-run=server"];
    wait_for("the policy denies Deployments", || async { Ok(!room.try_kubectl(&probe).await?.success) }).await?;
    let bot = room.bot("bot", json!({})).await?;
    wait_stalled(&room, "bot", "Forbidden", "deployments").await?;
    wait_stalled(&room, "bot", "Forbidden", &room.name).await?;
    goes_on(&other, &healthy).await?;
    for object in no_deployments_in(&room.name) {
        let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
        desk.kubectl.run(&["delete", &kind, "no-deployments"]).await?;
    }
    bot.wait("Ready once it is allowed", |bot| condition_is(bot, ConditionType::Ready, "True")).await?;
    Ok(())
}

/// An administrator's rule that nobody may create Deployments in a namespace: the API server answers 403.
fn no_deployments_in(namespace: &str) -> [Value; 2] {
    let metadata = json!({"name": "no-deployments"});
    let api_version = "admissionregistration.k8s.io/v1";
    let rule = json!({
        "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"],
    });
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
    [
        json!({
            "apiVersion": api_version, "kind": "ValidatingAdmissionPolicy", "metadata": metadata,
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [rule], "namespaceSelector": selector},
                "validations": [{"expression": "false", "reason": "Forbidden", "message": "not here"}],
            },
        }),
        json!({
            "apiVersion": api_version, "kind": "ValidatingAdmissionPolicyBinding", "metadata": metadata,
            "spec": {"policyName": "no-deployments", "validationActions": ["Deny"]},
        }),
    ]
}

/// The bot obeys, a new one starts, and a kill works.
async fn goes_on(room: &Room<'_>, bot: &Bot<'_>) -> Result<()> {
    let patched = bot.patch(json!({"spec": {"risk": {"limits": {"maxOpenOrders": 6}}}})).await?;
    let reported = |bot: &arbbot_crds::ArbBot| {
        bot.status.as_ref().and_then(|status| status.observed_generation) >= Some(patched.generation)
    };
    bot.wait("the operator reports the change", reported).await?;
    bot.kill().await?;
    bot.wait_kill_finished().await?;
    let fresh = room.bot(&format!("after-{}", bot.name), json!({})).await?;
    fresh.wait("Ready", |bot| condition_is(bot, ConditionType::Ready, "True")).await?;
    Ok(())
}

/// Waits until an ArbBot is Stalled for a reason, with a word in the message, by its live object and by an Event.
async fn wait_stalled(room: &Room<'_>, name: &str, reason: &str, word: &str) -> Result<()> {
    let object = format!("arbbot/{name}");
    wait_for(&format!("{object} is Stalled: {reason} with {word:?}"), || named_is(room, &object, reason, word)).await?;
    let live: Value = serde_json::from_str(&room.kubectl(&["get", &object, "-o", "json"]).await?)?;
    ensure!(verdict(&live) == Verdict::Failed, "kstatus says {:?} of {live}", verdict(&live));
    wait_for(&format!("an Event says {reason} of {name}"), || async {
        let columns = "custom-columns=R:.reason,O:.involvedObject.name,M:.message,N:.note";
        let events = room.kubectl(&["get", "events", "-o", columns]).await?;
        Ok(events.lines().any(|line| line.contains(reason) && line.contains(name)))
    })
    .await
}

async fn named_is(room: &Room<'_>, object: &str, reason: &str, word: &str) -> Result<bool> {
    let object = serde_json::from_str(&room.kubectl(&["get", object, "-o", "json"]).await?)?;
    Ok(stalled(&object).is_some_and(|(why, message)| why == reason && message.contains(word)))
}

/// Reason and message of the condition Stalled, if it is True.
fn stalled(object: &Value) -> Option<(String, String)> {
    let conditions = object["status"]["conditions"].as_array()?;
    let stalled =
        conditions.iter().find(|condition| condition["type"] == "Stalled" && condition["status"] == "True")?;
    Some((stalled["reason"].as_str()?.to_owned(), stalled["message"].as_str()?.to_owned()))
}
