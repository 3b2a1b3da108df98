//! A bot whose ledger is on a PostgreSQL server.

use std::fs;

use serde_json::Value;

use super::desk::{Desk, stderr, wait};
use super::server::Server;

const STATE: &str = "state";
const LEDGER: &str = "  ledger: {postgres: {secretRef: {name: db}}}\n";

/// A desk whose bot has its ledger on the server.
fn desk(server: &Server) -> Desk {
    let desk = Desk::new();
    fs::create_dir(desk.path("ledger-secret")).unwrap();
    fs::copy(server.secret().join("url"), desk.path("ledger-secret/url")).unwrap();
    desk.write_bot(LEDGER);
    desk
}

/// What a command about the ledger prints, as rows.
fn ledger(desk: &Desk, arguments: &[&str]) -> Result<Vec<Value>, String> {
    let output =
        desk.arb_bot(&[&["ledger"], arguments, &["--state-dir", STATE, "-o", "json"]].concat()).output().unwrap();
    if !output.status.success() {
        return Err(stderr(&output));
    }
    Ok(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn a_kill_while_the_database_is_gone_ends_flat_and_the_ledger_has_it_afterwards() {
    let server = Server::start(&["fsync=off"]);
    let desk = desk(&server);
    let database = || {
        let output = desk.with_key("0", &["preflight", "--ledger-secret-dir", "ledger-secret", "-o", "json"]);
        let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        rows.into_iter().find(|row| row["check"] == "ledger's database").unwrap()
    };
    assert_eq!(database()["result"], "ok", "{}", database());
    let bot = desk.run(STATE);
    desk.wait_for(STATE, "Trading", "True");
    desk.wait_for_position(STATE);
    assert!(!desk.path("state/ledger/ledger.db").exists());
    assert_eq!(ledger(&desk, &["verify"]).unwrap()[0]["result"], "whole");
    assert!(ledger(&desk, &["export", "orders"]).unwrap().iter().any(|order| order["class"] == "Enter"));

    server.crash();
    desk.write_bot(&format!("{LEDGER}  killSwitch: {{engaged: true, reason: drill}}\n"));
    desk.wait_for(STATE, "Halted", "True");
    let flat = desk.wait_for(STATE, "Flat", "True");
    assert_eq!(flat["reason"], "NoPosition");
    assert!(!server.answers(), "the database was away all the time");
    assert!(desk.rows(&["positions"]).iter().all(|row| row["contracts"] == "0"), "the exchange shows the same");
    assert!(desk.rows(&["orders", "list"]).is_empty());
    assert_eq!(database()["result"], "FAIL", "{}", database());
    let refused = ledger(&desk, &["verify"]).unwrap_err();
    assert!(refused.contains("check the database server"), "{refused}");

    server.start_again();
    wait("the kill's orders in the ledger", || {
        let orders = ledger(&desk, &["export", "orders"]).ok()?;
        orders.iter().any(|order| order["class"] == "Kill").then_some(())
    });
    assert_eq!(ledger(&desk, &["verify"]).unwrap()[0]["result"], "whole");
    let incident = value(&desk, "incident");
    let report = desk.arb_bot(&["report", "incident", "--state-dir", STATE, &incident]).output().unwrap();
    assert!(String::from_utf8_lossy(&report.stdout).contains("| flat, seen once |"), "{}", stderr(&report));
    // From elsewhere, with the Secret alone.
    let secret = ["--postgres", "ledger-secret", "--schema", "default/carry", "-o", "json"];
    let elsewhere = desk.arb_bot(&[&["ledger", "verify"], &secret[..]].concat()).output().unwrap();
    assert!(String::from_utf8_lossy(&elsewhere.stdout).contains("whole"), "{}", stderr(&elsewhere));
    let backup = ["ledger", "backup", "--state-dir", STATE, "--to", "backup.db"];
    let backup = desk.arb_bot(&backup).output().unwrap();
    assert!(backup.status.success() && desk.path("backup.db").exists(), "{}", stderr(&backup));

    // The kill leaves the file and the bot crashes: it stays latched, by the ledger.
    desk.write_bot(LEDGER);
    bot.crash();
    let bot = desk.run(STATE);
    desk.wait_for(STATE, "Running", "True");
    desk.wait_for(STATE, "effectiveMode", "Flatten");
    desk.wait_for(STATE, "Flat", "True");
    bot.stop();

    for file in ["bot.log", "state/status.yaml", "state/ledger/postgres.json"] {
        let shown = fs::read_to_string(desk.path(file)).unwrap();
        assert!(!shown.contains(Server::password()), "the password is in {file}");
    }
    assert!(!refused.contains(Server::password()));
}

/// Fails when a bot waits for its database before it looks at its kill switch, when it opens something without it, and when
/// a second start forgets the kill of the first.
#[test]
fn a_bot_that_starts_while_its_database_is_away_obeys_a_kill_and_begins_anew_once_it_is_back() {
    let server = Server::start(&["fsync=off"]);
    let desk = desk(&server);
    let bot = desk.run(STATE);
    desk.wait_for_position(STATE);
    bot.crash();
    let (anchored, raised) = (anchor(&desk), raising(&desk));
    assert!(anchored["entries"].as_i64() > Some(0) && raised > 1, "{anchored}, {raised} orders");
    server.crash();

    // It would raise its position to what the file wants now.
    desk.write_file(&desk.bot(LEDGER).replace("targetNotional: '3000'", "targetNotional: '6000'"));
    let bot = desk.run(STATE);
    wait("the ledger to be named", || {
        let trading = desk.wait_for(STATE, "Trading", "False");
        let is_named = trading["message"].as_str().unwrap().contains("could not be read when the bot started");
        (trading["reason"] == "LedgerUnwritable" && is_named).then_some(())
    });
    desk.wait_for(STATE, "PositionsReconciled", "True");
    desk.write_bot(&format!("{LEDGER}  killSwitch: {{engaged: true, reason: drill}}\n"));
    let flat = desk.wait_for(STATE, "Flat", "True");
    assert_eq!(flat["reason"], "NoPosition");
    assert_eq!(raising(&desk), raised, "it raised a leg without its ledger");
    assert!(desk.rows(&["positions"]).iter().all(|row| row["contracts"] == "0"), "the exchange shows the same");
    assert_eq!(anchor(&desk), anchored, "status still anchors what the ledger had");
    let incident = value(&desk, "incident");

    // The kill leaves the file, the status is lost and the bot crashes: it stays latched, by the kill journal.
    bot.crash();
    desk.write_bot(LEDGER);
    fs::remove_file(desk.path("state/status.yaml")).unwrap();
    let bot = desk.run(STATE);
    desk.wait_for(STATE, "effectiveMode", "Flatten");
    assert_eq!(value(&desk, "incident"), incident);
    assert!(!server.answers(), "the database was away all the time");

    server.start_again();
    wait("the kill's orders in the ledger", || {
        let orders = ledger(&desk, &["export", "orders"]).ok()?;
        orders.iter().any(|order| order["class"] == "Kill").then_some(())
    });
    wait("the bot with its ledger", || {
        (anchor(&desk)["entries"].as_i64() > anchored["entries"].as_i64()).then_some(())
    });
    assert_eq!(ledger(&desk, &["verify"]).unwrap()[0]["result"], "whole");
    desk.wait_for(STATE, "effectiveMode", "Flatten");

    // A release that the ledger cannot take is none, and the status says so.
    server.crash();
    desk.write_bot(&format!("{LEDGER}  killSwitch: {{release: {incident}}}\n"));
    let applied = desk.wait_for(STATE, "ControlApplied", "False");
    assert_eq!(applied["reason"], "LedgerUnwritable", "{applied}");
    server.start_again();
    desk.wait_for(STATE, "ControlApplied", "True");
    desk.wait_for(STATE, "Trading", "True");
    desk.wait_for_position(STATE);
    bot.stop();
}

/// Orders that the exchange accepted and that raise a leg.
fn raising(desk: &Desk) -> usize {
    let is_raising = |event: &Value| {
        let id = event["client_order_id"].as_str().unwrap_or_default();
        event["kind"] == "order_accepted" && (id.ends_with("-Enter") || id.ends_with("-Hedge"))
    };
    desk.journal().iter().filter(|event| is_raising(event)).count()
}

fn value(desk: &Desk, what: &str) -> String {
    let rows = desk.status(STATE);
    let row = rows.iter().find(|row| row["what"] == what).unwrap_or_else(|| panic!("no {what}: {rows:#?}"));
    row["value"].as_str().unwrap().to_owned()
}

/// Head of the ledger in status.
fn anchor(desk: &Desk) -> Value {
    let status = fs::read_to_string(desk.path("state/status.yaml")).unwrap();
    let status: Value = serde_yaml::from_str(&status).unwrap();
    status["status"]["bot"]["ledger"].clone()
}

#[test]
fn a_paper_account_needs_a_volume_and_the_kind_of_a_ledger_stays() {
    let desk = Desk::new();
    desk.write_file(&(desk.paper_bot("") + LEDGER));
    let refused = desk.run_command(STATE).output().unwrap();
    assert!(stderr(&refused).contains("a paper account needs a volume"), "{}", stderr(&refused));
    desk.write_bot("");
    let bot = desk.run(STATE);
    desk.wait_for(STATE, "Running", "True");
    bot.stop();
    desk.write_bot(LEDGER);
    let refused = desk.run_command(STATE).output().unwrap();
    assert!(stderr(&refused).contains("the kind of a ledger is immutable"), "{}", stderr(&refused));
}
