//! The whole operator against an API server in memory: what it does when things go wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

use std::time::Duration;

use arbbot_crds::conditions::{ConditionType, find, is_true};
use axum::http::Method;
use serde_json::json;
use tokio::time::sleep;

#[path = "support/api_server.rs"]
mod api_server;
#[path = "support/world.rs"]
mod world;

use api_server::{ApiServer, BOTS, Fault, LEADER, bot};
use world::{Operator, until, until_quiet};

fn is_ready(server: &ApiServer, name: &str) -> bool {
    server.bot(name).status.is_some_and(|status| is_true(&status.conditions, ConditionType::Ready))
}

const CARRY: &str = "/apis/arbbot.io/v1alpha1/namespaces/desk/arbbots/carry";
const STATUS: &str = "/apis/arbbot.io/v1alpha1/namespaces/desk/arbbots/carry/status";

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_becomes_ready_then_nothing_is_asked_and_one_change_is_one_write() {
    let server = ApiServer::with_bot();
    let operator = Operator::start(&server, "a", &[]);
    until("the bot is ready", || is_ready(&server, "carry")).await;
    until_quiet(&server).await;
    server.take_writes();
    // An event that changes nothing: it is decided from the caches.
    server.edit(CARRY, |bot| bot["metadata"]["labels"] = json!({"team": "a"}));
    until_quiet(&server).await;
    let requests: Vec<_> =
        server.state().requests.iter().filter(|(_, path)| !path.contains("leases")).cloned().collect();
    assert_eq!(requests, [], "nothing was to be done");

    server.edit(CARRY, |bot| {
        bot["spec"]["logLevel"] = json!("debug");
        bot["status"]["bot"]["appliedGeneration"] = json!(2);
    });
    until("the change is reported", || server.bot("carry").status.unwrap().observed_generation == Some(2)).await;
    until_quiet(&server).await;
    assert_eq!(server.take_writes(), [STATUS]);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_is_behind_our_own_write_causes_no_second_one() {
    let server = ApiServer::with_bot();
    let operator = Operator::start(&server, "a", &[]);
    until("the bot is ready", || is_ready(&server, "carry")).await;
    until_quiet(&server).await;
    server.edit(CARRY, |bot| {
        bot["spec"]["logLevel"] = json!("debug");
        bot["status"]["bot"]["appliedGeneration"] = json!(2);
    });
    server.state().silent = true;
    server.take_writes();
    until("the change is reported", || server.bot("carry").status.unwrap().observed_generation == Some(2)).await;
    server.take_writes();
    // The watch of Services goes on, that of ArbBots has shown nothing of our write: the bot is looked at again.
    server.state().silent = false;
    let service = "/api/v1/namespaces/desk/services/arbbot-carry";
    server.edit(service, |service| service["metadata"]["annotations"]["x"] = json!("y"));
    until_quiet(&server).await;
    assert_eq!(server.take_writes(), Vec::<String>::new());
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_cannot_be_read_says_so_and_no_other_suffers() {
    let server = ApiServer::with_bot();
    let mut odd = bot("odd", "99999999-2222-3333-4444-555555555555");
    odd["spec"]["mode"] = json!("Paused");
    server.put(&format!("{BOTS}/odd"), odd);
    let operator = Operator::start(&server, "a", &[]);
    until("the other bot is ready", || is_ready(&server, "carry")).await;
    let stalled = || {
        let state = server.state();
        let conditions = state.objects[&format!("{BOTS}/odd")]["status"]["conditions"].clone();
        conditions
            .as_array()
            .is_some_and(|all| all.iter().any(|c| c["type"] == "Stalled" && c["reason"] == "InvalidSpec"))
    };
    until("the odd bot is stalled", stalled).await;
    until_quiet(&server).await;
    server.take_writes();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(server.take_writes(), Vec::<String>::new(), "once is enough");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_definitions_are_waited_for_and_do_not_keep_the_process() {
    let server = ApiServer::with_bot();
    server.fail(|_, path| path.contains("arbbot.io").then_some(Fault::Code(404)));
    let operator = Operator::start(&server, "a", &[]);
    until("the bots were asked for", || server.state().requests.iter().any(|(_, path)| path.ends_with("/arbbots")))
        .await;
    assert!(operator.stop().await < Duration::from_secs(3), "a list that never succeeds must not hold up the end");

    let operator = Operator::start(&server, "b", &[]);
    sleep(Duration::from_millis(300)).await;
    server.heal();
    until("the bot is ready once they are installed", || is_ready(&server, "carry")).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_in_time_while_the_api_server_hangs() {
    let server = ApiServer::with_bot();
    let operator = Operator::start(&server, "a", &[]);
    until("the bot is ready", || is_ready(&server, "carry")).await;
    server.fail(|_, _| Some(Fault::Hang));
    server.edit(CARRY, |bot| bot["spec"]["logLevel"] = json!("debug"));
    sleep(Duration::from_millis(400)).await;
    assert!(operator.stop().await < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_without_permission_stops_no_other() {
    let server = ApiServer::with_bot();
    server.fail(|_, path| path.contains("/namespaces/locked/").then_some(Fault::Code(403)));
    let operator = Operator::start(&server, "a", &["--watch-namespace=locked", "--watch-namespace=desk"]);
    until("the bot is ready", || is_ready(&server, "carry")).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_watch_goes_on_where_it_was_and_finds_what_it_missed() {
    let server = ApiServer::with_bot();
    let operator = Operator::start(&server, "a", &[]);
    until("the bot is ready", || is_ready(&server, "carry")).await;
    until_quiet(&server).await;
    let service = "/api/v1/namespaces/desk/services/arbbot-carry";
    server.state().silent = true;
    server.remove(service);
    server.state().silent = false;
    server.take_writes();
    server.expire_watches();
    until("the lost child is made again", || server.state().objects.contains_key(service)).await;
    until_quiet(&server).await;
    assert_eq!(server.take_writes(), [service], "what is unchanged is not written");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_definition_is_told_on_the_bot_with_the_remedy() {
    let server = ApiServer::with_bot();
    server.fail(|_, path| path.ends_with("/status").then_some(Fault::OldSchema));
    let operator = Operator::start(&server, "a", &[]);
    until("an Event tells", || {
        let state = server.state();
        let told = |event: &serde_json::Value| {
            event["reason"] == "CrdOutdated"
                && event["note"].as_str().unwrap_or_default().contains("kubectl apply --server-side -f crds/")
        };
        state.objects.iter().any(|(path, object)| path.contains("/events/") && told(object))
    })
    .await;
    server.heal();
    until("the bot is ready", || is_ready(&server, "carry")).await;
    operator.stop().await;
}

fn holder(server: &ApiServer) -> String {
    let state = server.state();
    let holder = state.objects.get(LEADER).map(|lease| lease["spec"]["holderIdentity"].clone());
    holder.and_then(|holder| holder.as_str().map(str::to_owned)).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sigterm_another_replica_leads_within_two_seconds_with_warm_caches() {
    let server = ApiServer::with_bot();
    let first = Operator::start(&server, "first", &[]);
    until("the bot is ready", || is_ready(&server, "carry")).await;
    let second = Operator::start(&server, "second", &[]);
    until("the second has listed the bots", || {
        server.state().requests.iter().filter(|(_, path)| path.ends_with("v1alpha1/arbbots")).count() >= 4
    })
    .await;
    sleep(Duration::from_millis(300)).await;
    server.take_writes();
    let begun = std::time::Instant::now();
    first.stop().await;
    server.edit(CARRY, |bot| {
        bot["spec"]["logLevel"] = json!("debug");
        bot["status"]["bot"]["appliedGeneration"] = json!(2);
    });
    until("the second works", || server.bot("carry").status.unwrap().observed_generation == Some(2)).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(holder(&server), "second");
    let lists = server.state().requests.iter().filter(|(_, path)| path.ends_with("/deployments")).count();
    assert_eq!(lists, 0, "its caches were warm");
    second.stop().await;
}

/// Changes the bot and waits until the reconcile of it has asked for something by this method and path.
async fn until_asked(server: &ApiServer, method: Method, part: &'static str) {
    server.take_writes();
    let wanted = method.clone();
    server.fail(move |method, path| (*method == wanted && path.contains(part)).then_some(Fault::Hang));
    server.edit(CARRY, |bot| bot["spec"]["resources"] = json!({"limits": {"memory": "200Mi"}}));
    until("the reconcile hangs", || {
        server.state().requests.iter().any(|(asked, path)| *asked == method && path.contains(part))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_not_answered_at_sigterm_keeps_the_lease_and_a_read_does_not() {
    for (method, part, holds) in [(Method::PATCH, "/deployments/", "a"), (Method::GET, "/deployments/", "")] {
        let server = ApiServer::with_bot();
        let operator = Operator::start(&server, "a", &[]);
        until("the bot is ready", || is_ready(&server, "carry")).await;
        until_quiet(&server).await;
        until_asked(&server, method.clone(), part).await;
        let took = operator.stop().await;
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert_eq!(holder(&server), holds, "{method} was under way");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_loosened_is_told_although_the_operator_ends() {
    let server = ApiServer::with_bot();
    let other = format!("{BOTS}/other");
    server.put(&other, bot("other", "11111111-2222-3333-4444-555555555555"));
    for path in [CARRY, &other] {
        server.edit(path, |bot| bot["spec"]["mode"] = json!("Halted"));
    }
    let operator = Operator::start(&server, "a", &[]);
    until("the leader has seen both", || {
        ["carry", "other"].iter().all(|name| server.bot(name).status.is_some_and(|s| s.observed_generation.is_some()))
    })
    .await;
    until_quiet(&server).await;
    server.take_writes();
    server.fail(|_, path| path.ends_with("/events").then_some(Fault::Late(Duration::from_millis(150))));
    for path in [CARRY, &other] {
        server.edit(path, |bot| bot["spec"]["mode"] = json!("Active"));
    }
    // The first is being told, the second waits, and no reconcile has begun.
    sleep(Duration::from_millis(75)).await;
    operator.stop().await;
    let requests = server.state().requests.clone();
    let told = requests.iter().filter(|(method, path)| method == Method::POST && path.ends_with("/events")).count();
    assert_eq!(told, 2, "an Event was dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_deleted_by_hand_makes_no_second_leader() {
    let server = ApiServer::with_bot();
    let first = Operator::start(&server, "first", &[]);
    until("the first leads", || holder(&server) == "first").await;
    let second = Operator::start(&server, "second", &[]);
    until("the second has seen who leads", || {
        let reads =
            server.state().requests.iter().filter(|(method, path)| method == Method::GET && path == LEADER).count();
        reads >= 3
    })
    .await;
    for _ in 0..3 {
        server.remove(LEADER);
        until("the Lease is made again", || !holder(&server).is_empty()).await;
        assert_eq!(holder(&server), "first", "it had led without a break");
    }
    first.kill();
    server.remove(LEADER);
    let begun = std::time::Instant::now();
    until("the second leads", || holder(&server) == "second").await;
    // Longer than the first could have led on, had it lived.
    assert!(begun.elapsed() > world::DEADLINE + Duration::from_secs(1), "{:?}", begun.elapsed());
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_of_a_newer_release_stalls_no_bot() {
    let server = ApiServer::with_bot();
    server.edit(CARRY, |bot| {
        bot["status"]["bot"]["effectiveMode"] = json!("Hibernating");
        bot["status"]["bot"]["drain"] = json!({"startedAt": "2026-01-01T00:00:00Z", "phase": "Dreaming"});
    });
    let operator = Operator::start(&server, "a", &[]);
    until("the Deployment is made", || server.state().objects.keys().any(|path| path.contains("/deployments/"))).await;
    until("it is judged", || {
        server.state().objects[CARRY]["status"]["conditions"]
            .as_array()
            .is_some_and(|conditions| conditions.iter().any(|c| c["type"] == "Stalled" && c["status"] == "False"))
    })
    .await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_cannot_renew_writes_nothing_after_its_deadline() {
    for fault in [Fault::Code(500), Fault::Hang] {
        let server = ApiServer::with_bot();
        let operator = Operator::start(&server, "a", &[]);
        until("the bot is ready", || is_ready(&server, "carry")).await;
        server.fail(move |_, path| path.contains("leases/arbbot-operator-leader").then_some(fault));
        // Longer than the deadline.
        sleep(world::DEADLINE + Duration::from_millis(500)).await;
        server.take_writes();
        server.remove("/api/v1/namespaces/desk/services/arbbot-carry");
        server.edit(CARRY, |bot| bot["spec"]["mode"] = json!("Halted"));
        sleep(Duration::from_secs(1)).await;
        let writes = server.take_writes();
        assert_eq!(writes, Vec::<String>::new(), "{fault:?}: it wrote after its leadership had ended");
        server.heal();
        until("it leads again and repairs", || {
            server.state().objects.contains_key("/api/v1/namespaces/desk/services/arbbot-carry")
        })
        .await;
        operator.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_another_leads_only_once_the_lease_has_expired_whatever_its_clock_says() {
    let server = ApiServer::with_bot();
    let first = Operator::start(&server, "first", &[]);
    until("the first leads", || holder(&server) == "first").await;
    let second = Operator::start(&server, "second", &[]);
    sleep(Duration::from_millis(500)).await;
    first.kill();
    // A renewal that is hours old by the wall clock: only how long the observer has seen no other counts.
    server.edit(LEADER, |lease| lease["spec"]["renewTime"] = json!("2020-01-01T00:00:00.000000Z"));
    let begun = std::time::Instant::now();
    until("the second leads", || holder(&server) == "second").await;
    assert!(begun.elapsed() >= world::LEASE - Duration::from_millis(300), "{:?}", begun.elapsed());
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_does_not_lead_never_writes() {
    let server = ApiServer::default();
    let first = Operator::start(&server, "first", &[]);
    until("the first leads", || holder(&server) == "first").await;
    first.kill();
    let second = Operator::start(&server, "second", &[]);
    server.put(&format!("{BOTS}/carry"), bot("carry", "11111111-2222-3333-4444-555555555555"));
    sleep(Duration::from_secs(1)).await;
    let writes = server
        .state()
        .requests
        .iter()
        .filter(|(method, path)| method != Method::GET && !path.contains("leases"))
        .count();
    assert!(holder(&server) == "first" && writes == 0, "{writes} writes of a follower");
    until("the bot is ready once it leads", || is_ready(&server, "carry")).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_bots_of_one_account_are_never_both_granted_the_claim() {
    let server = ApiServer::with_bot();
    server.put(&format!("{BOTS}/rival"), bot("rival", "11111111-2222-3333-4444-555555555555"));
    let operator = Operator::start(&server, "a", &[]);
    let granted =
        |name: &str| server.bot(name).status.and_then(|status| status.claim).is_some_and(|claim| claim.granted);
    until("one is granted", || granted("carry") || granted("rival")).await;
    until_quiet(&server).await;
    assert!(granted("carry") != granted("rival"));
    let (holder, waits) = if granted("carry") { ("carry", "rival") } else { ("rival", "carry") };
    let conditions = server.bot(waits).status.unwrap().conditions;
    assert_eq!(find(&conditions, ConditionType::Stalled).unwrap().reason, "AccountShared");
    server.remove(&format!("{BOTS}/{holder}"));
    until("the other is granted when the holder is gone", || granted(waits)).await;
    operator.stop().await;
}
