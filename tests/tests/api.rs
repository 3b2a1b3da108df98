//! What the API server itself accepts and refuses.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, ensure};
use arbbot_tests::harness::{Desk, Room, run};
use arbbot_tests::{objects, scenarios};
use serde_json::{Value, json};

fn main() -> ExitCode {
    run(
        12,
        scenarios![
            a_bad_value_is_refused_with_a_message_that_names_the_field,
            an_immutable_field_is_refused_with_a_message_that_says_what_to_do,
            a_kill_is_never_refused,
            a_kill_is_not_refused_on_an_object_that_a_newer_schema_would_refuse,
            defaults_are_filled_in_and_documented,
            a_bad_policy_is_refused_with_a_message_that_names_the_field,
        ],
    )
}

/// The message with which the API server refuses an object.
async fn refusal(room: &Room<'_>, object: &Value) -> Result<String> {
    let mut object = object.clone();
    object["metadata"]["namespace"] = json!(room.name);
    let output = room.desk.kubectl.output(&["create", "--dry-run=server", "-f", "-"], &object.to_string()).await?;
    ensure!(!output.success, "accepted: {object}");
    Ok(output.stderr)
}

async fn a_bad_value_is_refused_with_a_message_that_names_the_field(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("bad-values").await?;
    let (good, _) = room.draft("bot").await?;
    let limit = |name: &str, value: &str| json!({"spec": {"risk": {"limits": {name: value}}}});
    let cases = [
        (json!({"spec": {"risk": {"limits": {"maxPosition": "1"}}}}), "spec.risk.limits.maxPosition"),
        (json!({"spec": {"modus": "Halted"}}), "spec.modus"),
        (json!({"spec": {"mode": "Halt"}}), "spec.mode"),
        (limit("maxPositionNotional", "-5"), "spec.risk.limits.maxPositionNotional"),
        (limit("maxOrderNotional", "5k"), "spec.risk.limits.maxOrderNotional"),
        (limit("maxSlippageBps", "0.3%"), "spec.risk.limits.maxSlippageBps"),
        (limit("maxLeverage", "1.0000000001"), "spec.risk.limits.maxLeverage"),
        (json!({"spec": {"risk": {"limits": {"maxOpenOrders": -1}}}}), "spec.risk.limits.maxOpenOrders"),
        (json!({"spec": {"risk": {"limits": {"maxPositionNotional": 25000}}}}), "spec.risk.limits.maxPositionNotional"),
        (json!({"spec": {"killSwitch": {"deadline": "2 minutes"}}}), "spec.killSwitch.deadline"),
        (json!({"spec": {"killSwitch": {"slippageBps": "-50"}}}), "spec.killSwitch.slippageBps"),
        (json!({"spec": {"killSwitch": {"action": "Sell"}}}), "spec.killSwitch.action"),
        (json!({"spec": {"controlTimeouts": {"lease": "90s", "stale": "60s"}}}), "spec.controlTimeouts"),
        (json!({"spec": {"controlTimeouts": {"lease": "0s"}}}), "spec.controlTimeouts"),
        (json!({"spec": {"execution": "Backtest"}}), "spec.execution"),
        // Live needs a key and a portfolio; the message says what to do without.
        (json!({"spec": {"credentials": null}}), "set spec.execution to Paper"),
        (json!({"spec": {"venue": {"coinbase": {"portfolio": null}}}}), "set spec.execution to Paper"),
        (json!({"spec": {"execution": "Paper", "paper": {"balance": "-1"}}}), "spec.paper.balance"),
        (json!({"spec": {"execution": null}}), "spec.execution"),
        (json!({"spec": {"venue": {"coinbase": {"portfolio": "default"}}}}), "spec.venue.coinbase.portfolio"),
        (json!({"spec": {"venue": {"coinbase": {"requestsPerSecond": 0}}}}), "spec.venue.coinbase.requestsPerSecond"),
        (json!({"spec": {"strategy": {"fundingCarry": {"spotProduct": "btc-usd"}}}}), "fundingCarry.spotProduct"),
        (
            json!({"spec": {"strategy": {"fundingCarry": {"futureProduct": "BTC-PERP-INTX"}}}}),
            "INTX perpetuals over Advanced Trade ended on 1 October 2026",
        ),
        (json!({"spec": {"strategy": {"fundingCarry": {"targetNotional": null}}}}), "fundingCarry.targetNotional"),
        (json!({"spec": {"credentials": {"secretRef": {"name": ""}}}}), "spec.credentials.secretRef.name"),
        (json!({"spec": {"credentials": {"privateKey": "x"}}}), "spec.credentials.privateKey"),
        (json!({"spec": {"ledger": {"sqlite": {"size": "big"}}}}), "spec.ledger.sqlite.size"),
        (json!({"spec": {"ledger": {"postgres": {"secretRef": {"name": ""}}}}}), "spec.ledger.postgres.secretRef.name"),
        (
            json!({"spec": {"ledger": {"sqlite": {"size": "1Gi"}, "postgres": {"secretRef": {"name": "db"}}}}}),
            "one of sqlite and postgres",
        ),
        (json!({"spec": {"deletionPolicy": "Keep"}}), "spec.deletionPolicy"),
        (json!({"metadata": {"name": "a-name-of-more-than-forty-characters-xxxxx"}}), "metadata.name"),
    ];
    for (change, field) in cases {
        let mut object = good.clone();
        objects::merge(&mut object, &change);
        let message = refusal(&room, &object).await?;
        ensure!(message.contains(field), "the refusal of {change} does not name {field}: {message}");
    }
    let endpoint = json!({"spec": {"venue": {"coinbase": {"endpoints": [
        {"name": "x", "restUrl": "http://x", "marketWebSocketUrl": "wss://x", "userWebSocketUrl": "wss://x"},
    ]}}}});
    let mut object = good.clone();
    objects::merge(&mut object, &endpoint);
    let message = refusal(&room, &object).await?;
    ensure!(message.contains("spec.venue.coinbase.endpoints[0].restUrl"), "{message}");
    Ok(())
}

async fn an_immutable_field_is_refused_with_a_message_that_says_what_to_do(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("immutable").await?;
    let bot = room.bot("bot", json!({})).await?;
    let cases = [
        (
            json!({"venue": {"coinbase": {"portfolio": "00000000-0000-0000-0000-000000000000"}}}),
            "create another ArbBot",
        ),
        (json!({"execution": "Paper"}), "create another ArbBot"),
        (json!({"venue": {"coinbase": {"portfolio": null}}}), "create another ArbBot"),
        (json!({"strategy": {"fundingCarry": {"spotProduct": "ETH-USD"}}}), "create another ArbBot"),
        (json!({"strategy": {"fundingCarry": {"futureProduct": "ETP-20DEC30-CDE"}}}), "create another ArbBot"),
        (json!({"ledger": {"sqlite": {"size": "2Gi"}}}), "resize the PersistentVolumeClaim"),
        (json!({"ledger": {"sqlite": null, "postgres": {"secretRef": {"name": "db"}}}}), "create another ArbBot"),
    ];
    for (change, advice) in cases {
        let error = bot.patch(json!({"spec": change})).await.err().map(|error| format!("{error:#}"));
        let error = error.unwrap_or_default();
        ensure!(error.contains("immutable") && error.contains(advice), "{change}: {error:?}");
    }
    Ok(())
}

async fn a_kill_is_never_refused(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("never-refused").await?;
    let kill = r#"{"spec":{"killSwitch":{"engaged":true}}}"#;
    for mode in ["Active", "ReduceOnly", "Halted"] {
        let name = format!("bot-{}", mode.to_lowercase());
        let bot = room.bot(&name, json!({"spec": {"mode": mode}})).await?;
        let patch = ["patch", "arbbot", &name, "--type=merge", "--field-manager=arb-incident", "-p", kill];
        room.kubectl(&patch).await?;
        let spec = bot.get().await?.spec;
        ensure!(spec.kill_switch.engaged && spec.kill_switch.reason == "unspecified", "{:?}", spec.kill_switch);
    }
    room.apply(&objects::policy("policy")).await?;
    room.kubectl(&["patch", "arbpolicy/policy", "--type=merge", "-p", kill]).await?;
    Ok(())
}

async fn a_kill_is_not_refused_on_an_object_that_a_newer_schema_would_refuse(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("newer-schema").await?;
    let bot = room.bot("bot", json!({"spec": {"venue": {"coinbase": {"requestsPerSecond": 6}}}})).await?;
    let field = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/venue/properties/coinbase/properties/requestsPerSecond/minimum";
    let newer = json!([{"op": "replace", "path": field, "value": 8}]).to_string();
    let older = json!([{"op": "replace", "path": field, "value": 5}]).to_string();
    desk.kubectl.run(&["patch", "crd", "arbbots.arbbot.io", "--type=json", "-p", &newer]).await?;
    let refused = async {
        // The new schema is in force once it refuses what it should.
        let (mut object, _) = room.draft("other").await?;
        object["spec"]["venue"]["coinbase"]["requestsPerSecond"] = json!(6);
        object["metadata"]["namespace"] = json!(room.name);
        for _ in 0..100 {
            let dry_run = ["create", "--dry-run=server", "-f", "-"];
            if !desk.kubectl.output(&dry_run, &object.to_string()).await?.success {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        anyhow::bail!("the newer schema does not come into force")
    };
    let killed = async {
        refused.await?;
        bot.patch(json!({"spec": {"killSwitch": {"engaged": true}}})).await
    };
    let killed = killed.await;
    desk.kubectl.run(&["patch", "crd", "arbbots.arbbot.io", "--type=json", "-p", &older]).await?;
    killed.map(|_| ())
}

async fn defaults_are_filled_in_and_documented(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("defaults").await?;
    let bot = room.bot("bot", json!({})).await?;
    let spec = json!(bot.get().await?.spec);
    for (pointer, value) in [
        ("/mode", json!("Active")),
        ("/killSwitch/engaged", json!(false)),
        ("/killSwitch/action", json!("Flatten")),
        ("/risk/limits/maxPositionNotional", json!("25000")),
        ("/deletionPolicy", json!("Drain")),
        ("/logLevel", json!("info")),
    ] {
        ensure!(spec.pointer(pointer) == Some(&value), "{pointer} is {:?}", spec.pointer(pointer));
    }
    let explained = room.kubectl(&["explain", "arbbot.spec.risk.limits.maxPositionNotional"]).await?;
    ensure!(explained.contains("quote") && explained.contains("25000"), "{explained}");
    Ok(())
}

async fn a_bad_policy_is_refused_with_a_message_that_names_the_field(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("bad-policies").await?;
    for (change, field) in [
        (json!({"spec": {"mode": "Stop"}}), "spec.mode"),
        (json!({"spec": {"risk": {"limits": {"maxOrderNotional": "-1"}}}}), "spec.risk.limits.maxOrderNotional"),
        (json!({"spec": {"killSwitch": {"engage": true}}}), "spec.killSwitch.engage"),
    ] {
        let mut policy = objects::policy("policy");
        objects::merge(&mut policy, &change);
        let message = refusal(&room, &policy).await?;
        ensure!(message.contains(field), "the refusal of {change} does not name {field}: {message}");
    }
    Ok(())
}
