//! Children and objects that somebody has changed.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arbbot_tests::exchange::Portfolio;
use arbbot_tests::harness::{Desk, Room};
use arbbot_tests::objects;
use serde_json::{Value, json};

use super::{DEPLOYMENT, ready_because};

/// Everything that an operator restores. The Deployment's selector and the claim's spec cannot be edited at all.
const CHILDREN: [&str; 7] = [
    "serviceaccount/arbbot-bot",
    "role/arbbot-bot",
    "rolebinding/arbbot-bot",
    "service/arbbot-bot",
    "networkpolicy/arbbot-bot",
    "persistentvolumeclaim/arbbot-bot-ledger",
    DEPLOYMENT,
];

async fn child(room: &Room<'_>, name: &str) -> Result<Option<Value>> {
    let text = room.kubectl(&["get", name, "--ignore-not-found", "-o", "json"]).await?;
    if text.is_empty() { Ok(None) } else { Ok(Some(serde_json::from_str(&text)?)) }
}

/// What was wanted of it, without what every write changes.
fn content(child: &Value) -> Value {
    let mut content = child.clone();
    if let Some(object) = content.as_object_mut() {
        object.remove("status");
        let labels = object.remove("metadata").map(|metadata| metadata["labels"].clone());
        object.insert("labels".to_owned(), labels.unwrap_or_default());
    }
    content
}

pub async fn every_child_changed_by_hand_is_restored_and_then_nothing_is_written(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("drift").await?;
    let bot = room.trading_bot("bot").await?;
    bot.wait("available", |bot| ready_because(bot, "Available")).await?;
    let mut wanted = Vec::new();
    for name in CHILDREN {
        wanted.push(content(&child(&room, name).await?.with_context(|| format!("{name} is missing"))?));
    }
    let edits: [(&str, Value); 6] = [
        ("serviceaccount/arbbot-bot", json!({"automountServiceAccountToken": true})),
        ("role/arbbot-bot", json!({"rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]})),
        ("service/arbbot-bot", json!({"spec": {"externalName": null, "sessionAffinity": "ClientIP"}})),
        ("networkpolicy/arbbot-bot", json!({"spec": {"policyTypes": ["Ingress", "Egress"]}})),
        ("persistentvolumeclaim/arbbot-bot-ledger", json!({"metadata": {"labels": {"arbbot.io/bot": "other"}}})),
        (DEPLOYMENT, json!({"spec": {"replicas": 3}})),
    ];
    for (name, edit) in edits {
        room.kubectl(&["patch", name, "--type=merge", "-p", &edit.to_string()]).await?;
    }
    room.kubectl(&["set", "env", DEPLOYMENT, "FOREIGN=1"]).await?;
    restored(&room, &wanted).await.context("after edits")?;
    // The claim outlives everything, and the account is last: its end takes the running bot's token with it.
    for name in
        CHILDREN.into_iter().filter(|name| !name.starts_with("persistent") && !name.starts_with("serviceaccount"))
    {
        room.kubectl(&["delete", name, "--cascade=foreground", "--wait=false"]).await?;
    }
    restored(&room, &wanted).await.context("after deletions")?;
    bot.wait_exchange("both legs are there", Portfolio::is_carrying).await?;
    bot.wait("available", |bot| ready_because(bot, "Available")).await?;
    let versions = async || {
        let mut versions = Vec::new();
        for name in CHILDREN.into_iter().filter(|name| *name != DEPLOYMENT) {
            versions.push(child(&room, name).await?.map(|child| child["metadata"]["resourceVersion"].clone()));
        }
        // Its status is Kubernetes' own.
        versions.push(child(&room, DEPLOYMENT).await?.map(|child| child["metadata"]["generation"].clone()));
        Ok::<_, anyhow::Error>(versions)
    };
    let before = versions().await?;
    // A change that reconciles the bot and is none of the children's business.
    let patched = bot.patch(json!({"spec": {"logLevel": "debug"}})).await?;
    bot.wait("reconciled", |bot| {
        bot.status.as_ref().and_then(|status| status.observed_generation) >= Some(patched.generation)
    })
    .await?;
    ensure!(versions().await? == before, "a child was written again");
    room.kubectl(&["delete", "serviceaccount/arbbot-bot"]).await?;
    restored(&room, &wanted).await.context("after the account's deletion")
}

async fn restored(room: &Room<'_>, wanted: &[Value]) -> Result<()> {
    for (name, wanted) in CHILDREN.iter().zip(wanted) {
        let what = format!("{name} is {wanted}");
        eventually!(&what, {
            let live = child(room, name).await?.filter(|child| child["metadata"]["deletionTimestamp"].is_null());
            live.filter(|live| without_given(&content(live)) == without_given(wanted))
        });
    }
    Ok(())
}

/// Without what the API server chooses anew for each object.
fn without_given(content: &Value) -> Value {
    let mut content = content.clone();
    if let Some(spec) = content.get_mut("spec").and_then(Value::as_object_mut) {
        for given in ["clusterIP", "clusterIPs", "volumeName"] {
            spec.remove(given);
        }
    }
    content
}

async fn stored_loosely(room: &Room<'_>, odd: &Value) -> Result<()> {
    eventually!("the loose schema is served", room.apply(odd).await.ok());
    Ok(())
}

pub async fn an_object_that_nobody_can_read_says_so_and_stops_no_other(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("unreadable").await?;
    let bot = room.bot("bot", json!({})).await?;
    // What an older, laxer schema would have let in: the schema is loosened for a moment.
    let crd = "crd/arbbots.arbbot.io";
    let mode = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/logLevel";
    let enum_of = format!("{mode}/enum");
    let strict = desk.kubectl.run(&["get", crd, "-o", "json"]).await?;
    let strict: Value = serde_json::from_str(&strict)?;
    let values = strict.pointer(&enum_of).context("logLevel has no enum")?.clone();
    let remove = json!([{"op": "remove", "path": enum_of}]).to_string();
    let restore = json!([{"op": "add", "path": enum_of, "value": values}]).to_string();
    desk.kubectl.run(&["patch", crd, "--type=json", "-p", &remove]).await?;
    let (mut odd, account) = room.draft("odd").await?;
    objects::merge(&mut odd, &json!({"spec": {"logLevel": "verbose"}}));
    let stored = stored_loosely(&room, &odd).await;
    desk.kubectl.run(&["patch", crd, "--type=json", "-p", &restore]).await?;
    stored?;
    let shown = eventually!("the odd bot says that it cannot be read", {
        let odd = child(&room, "arbbot/odd").await?.context("the odd bot is gone")?;
        let conditions = odd["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let invalid = |c: &&Value| c["type"] == "Stalled" && c["status"] == "True" && c["reason"] == "InvalidSpec";
        conditions.iter().find(invalid).map(|c| c["message"].to_string())
    });
    ensure!(shown.contains("verbose"), "the message names nothing: {shown}");
    bot.wait_until_trading().await?;
    let repair = r#"{"spec":{"logLevel":"info"}}"#;
    room.kubectl(&["patch", "arbbot/odd", "--type=merge", "-p", repair]).await?;
    room.handle("odd", &account).wait_until_trading().await
}
