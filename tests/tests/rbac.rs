//! Nobody asks for what is not granted, and nothing is granted that nobody uses: told by the API server's audit log of
//! everything that an operator and its bots do in their lives.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use arbbot_crds::ArbBot;
use arbbot_crds::conditions::{ConditionType, Reason, find};
use arbbot_crds::names::{LABEL_BOT, child_name};
use arbbot_tests::audit::{Request, user};
use arbbot_tests::harness::{Desk, OPERATOR, OPERATOR_NAMESPACE, PATIENCE, Room, run_in_turn};
use arbbot_tests::rbac::{Grant, Permission, grants};
use arbbot_tests::{objects, scenarios};
use jiff::Timestamp;
use serde_json::json;
use tokio::time::sleep;

fn main() -> ExitCode {
    run_in_turn(16, scenarios![every_permission_is_used_and_no_other_is_asked_for])
}

/// A time in which the bots of a namespace have no Role: what they ask for is refused, and they are not to blame.
struct RoleGone {
    namespace: &'static str,
    since: Timestamp,
    /// None: for ever.
    until: Option<Timestamp>,
}

impl RoleGone {
    fn explains(&self, request: &Request) -> bool {
        is_of_bot(&request.user)
            && request.object.namespace == self.namespace
            && request.received >= self.since
            && self.until.is_none_or(|until| request.received <= until)
    }
}

async fn every_permission_is_used_and_no_other_is_asked_for(desk: Arc<Desk>) -> Result<()> {
    let lives = tokio::try_join!(
        children_are_edited_and_deleted(&desk),
        a_desk_is_halted_by_a_policy(&desk),
        a_secret_is_missing(&desk),
        a_pod_is_replaced(&desk),
        a_killed_bot_is_deleted(&desk),
        an_orphan_is_left(&desk),
        a_namespace_ends(&desk),
    );
    let (mut role_gone, (), (), (), (), (), ended) = lives?;
    role_gone.push(ended);
    the_operator_is_replaced(&desk).await?;
    // The last words of all may still be under way.
    sleep(Duration::from_secs(1)).await;
    let requests = desk.audit()?;
    let granted = grants(&desk.client).await?;
    let operator = user(OPERATOR_NAMESPACE, OPERATOR);
    let (of_operator, others): (Vec<Grant>, Vec<Grant>) = granted.into_iter().partition(|g| g.user == operator);
    let of_bots: Vec<Grant> = others.into_iter().filter(|grant| is_of_bot(&grant.user)).collect();
    ensure!(!of_operator.is_empty() && !of_bots.is_empty(), "no grant was found");

    let mut findings = refused(&requests, &operator, &role_gone);
    let to_bots: BTreeSet<&Permission> = of_bots.iter().map(|grant| &grant.permission).collect();
    let unused_by_bots = unused(&of_bots, &requests);
    findings.extend(unused_by_bots.iter().map(|p| format!("no bot uses what each bot's Role grants: {p}")));
    for permission in unused(&of_operator, &requests) {
        // Who grants a permission must hold it.
        if to_bots.contains(&permission) {
            println!("held only because it is granted to each bot: {permission}");
        } else {
            let role = of_operator.iter().find(|grant| grant.permission == permission).map(|grant| &grant.role);
            findings.push(format!(
                "the operator never uses what {} grants: {permission}",
                role.cloned().unwrap_or_default()
            ));
        }
    }
    println!(
        "{} requests of pods, {} permissions of the operator, {} of each bot",
        requests.len(),
        of_operator.len(),
        to_bots.len()
    );
    ensure!(findings.is_empty(), "{}", findings.join("\n"));
    Ok(())
}

fn is_of_bot(user: &str) -> bool {
    user.rsplit(':').next().is_some_and(|account| account.starts_with(&child_name("")))
}

/// What was asked for and not granted.
fn refused(requests: &[Request], operator: &str, role_gone: &[RoleGone]) -> Vec<String> {
    let ours = requests.iter().filter(|request| request.user == operator || is_of_bot(&request.user));
    let refused = ours.filter(|request| request.forbidden && !role_gone.iter().any(|gone| gone.explains(request)));
    refused.map(|request| format!("it is asked for and not granted: {request}")).collect()
}

/// Permissions of which no grant was used.
fn unused(grants: &[Grant], requests: &[Request]) -> BTreeSet<Permission> {
    let all: BTreeSet<_> = grants.iter().map(|grant| grant.permission.clone()).collect();
    let used = grants.iter().filter(|grant| requests.iter().any(|request| grant.is_used_by(request)));
    let used: BTreeSet<_> = used.map(|grant| grant.permission.clone()).collect();
    all.difference(&used).cloned().collect()
}

/// This bot stays: what its Role grants is read from the cluster at the end. Returns when it had none.
async fn children_are_edited_and_deleted(desk: &Desk) -> Result<Vec<RoleGone>> {
    let namespace = "children";
    let room = desk.room(namespace).await?;
    let bot = room.trading_bot("bot").await?;
    let child = child_name("bot");
    let account = user(namespace, &child);
    let may_read = ["auth", "can-i", "get", "arbbots.arbbot.io/bot", "--as", &account].map(str::to_owned);
    let mut role_gone = Vec::new();
    for kind in ["service", "rolebinding", "role", "serviceaccount", "deployment"] {
        let name = format!("{kind}/{child}");
        room.kubectl(&["label", &name, &format!("{LABEL_BOT}=edited"), "--overwrite"]).await?;
        until(&room, &format!("{name} is as it was"), &label_of(&name), |label| label == "bot").await?;
        let uid = room.kubectl(&["get", &name, "-o=jsonpath={.metadata.uid}"]).await?;
        let since = Timestamp::now();
        room.kubectl(&["delete", &name, "--wait=false"]).await?;
        let uid_of = vec!["get".to_owned(), name.clone(), "-o=jsonpath={.metadata.uid}".to_owned()];
        until(&room, &format!("{name} is there again"), &uid_of, |now| !now.is_empty() && now != uid).await?;
        if kind.starts_with("role") {
            until(&room, "the bot may read its ArbBot again", &may_read, |answer| answer == "yes").await?;
            role_gone.push(RoleGone { namespace, since, until: Some(Timestamp::now()) });
        }
    }
    bot.wait_condition(ConditionType::Ready, "True").await?;
    Ok(role_gone)
}

fn label_of(name: &str) -> Vec<String> {
    let path = LABEL_BOT.replace('.', "\\.");
    vec!["get".to_owned(), name.to_owned(), format!("-o=jsonpath={{.metadata.labels.{path}}}")]
}

/// Asks kubectl until the answer is as wanted.
async fn until(room: &Room<'_>, what: &str, arguments: &[String], wanted: impl Fn(&str) -> bool) -> Result<()> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let began = Instant::now();
    loop {
        let output = room.try_kubectl(&arguments).await?;
        if output.success && wanted(output.stdout.trim()) {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            bail!("not within {} s: {what}: {}{}", PATIENCE.as_secs(), output.stdout, output.stderr);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn a_desk_is_halted_by_a_policy(desk: &Desk) -> Result<()> {
    let room = desk.room("policy").await?;
    let bot = room.bot("bot", json!({})).await?;
    bot.wait_condition(ConditionType::Ready, "True").await?;
    room.apply(&objects::policy("desk")).await?;
    room.kubectl(&["patch", "arbpolicy/desk", "--type=merge", "-p", r#"{"spec":{"mode":"Halted"}}"#]).await?;
    bot.wait_condition(ConditionType::Halted, "True").await?;
    // The bot obeys before the operator has counted it.
    room.kubectl(&["wait", "arbpolicy/desk", "--for=jsonpath={.status.bots.halted}=1", "--timeout=30s"]).await?;
    room.kubectl(&["delete", "arbpolicy/desk"]).await?;
    bot.wait_condition(ConditionType::Halted, "False").await?;
    Ok(())
}

async fn a_secret_is_missing(desk: &Desk) -> Result<()> {
    let room = desk.room("no-secret").await?;
    let bot = room.bot("bot", json!({"spec": {"credentials": {"secretRef": {"name": "absent"}}}})).await?;
    let named = |bot: &ArbBot| {
        let conditions = bot.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        find(conditions, ConditionType::Stalled).is_some_and(|c| c.reason == Reason::SecretMissing.to_string())
    };
    bot.wait("the missing Secret is named", named).await?;
    bot.delete().await?;
    bot.wait_gone().await
}

async fn a_pod_is_replaced(desk: &Desk) -> Result<()> {
    let room = desk.room("replaced").await?;
    let bot = room.trading_bot("bot").await?;
    // A frozen bot does not release its Lease: the operator says that it has ended.
    bot.container()?.pause();
    let before = bot.container()?.pod;
    room.kubectl(&["delete", "pod", &before, "--grace-period=2", "--wait=false"]).await?;
    let began = Instant::now();
    while bot.container().map_or(true, |container| container.pod == before) {
        ensure!(began.elapsed() < PATIENCE, "no other pod runs");
        sleep(Duration::from_millis(100)).await;
    }
    bot.wait_condition(ConditionType::Ready, "True").await?;
    Ok(())
}

async fn a_killed_bot_is_deleted(desk: &Desk) -> Result<()> {
    let room = desk.room("killed").await?;
    let bot = room.trading_bot("bot").await?;
    bot.kill().await?;
    bot.wait_kill_finished().await?;
    bot.patch(json!({"spec": {"deletionPolicy": "Flatten"}})).await?;
    bot.delete().await?;
    bot.wait_gone().await
}

async fn an_orphan_is_left(desk: &Desk) -> Result<()> {
    let room = desk.room("orphan").await?;
    let bot = room.trading_bot("bot").await?;
    bot.patch(json!({"spec": {"deletionPolicy": "Orphan"}})).await?;
    bot.delete().await?;
    bot.wait_gone().await
}

/// A terminating namespace takes its bots' Roles away before it ends them.
async fn a_namespace_ends(desk: &Desk) -> Result<RoleGone> {
    let namespace = "ending";
    let room = desk.room(namespace).await?;
    let bot = room.trading_bot("bot").await?;
    let since = Timestamp::now();
    desk.kubectl.run(&["delete", "namespace", namespace, "--wait=false"]).await?;
    bot.wait_gone().await?;
    Ok(RoleGone { namespace, since, until: None })
}

async fn the_operator_is_replaced(desk: &Desk) -> Result<()> {
    let deployment = format!("deployment/{OPERATOR}");
    desk.kubectl.run(&["-n", OPERATOR_NAMESPACE, "rollout", "restart", &deployment]).await?;
    desk.kubectl.run(&["-n", OPERATOR_NAMESPACE, "rollout", "status", &deployment, "--timeout=60s"]).await?;
    Ok(())
}
