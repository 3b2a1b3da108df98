//! Commands with the exchange.

use serde_json::{Value, json};

use super::desk::{Desk, stderr, wait};

/// What a preflight says of each check.
fn preflight(desk: &Desk, key: &str) -> (bool, Vec<Value>) {
    let output = desk.with_key(key, &["preflight", "-o", "json"]);
    let rows = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    (output.status.success(), rows)
}

fn failed(rows: &[Value]) -> Vec<&str> {
    let failed = rows.iter().filter(|row| row["result"] == "FAIL");
    failed.map(|row| row["check"].as_str().unwrap()).collect()
}

#[test]
fn preflight_passes_for_a_good_bot_and_names_everything_that_is_wrong() {
    let desk = Desk::new();
    let (passed, rows) = preflight(&desk, "0");
    assert!(passed && failed(&rows).is_empty(), "{rows:#?}");

    for (key, check) in [("transfer", "key may not transfer"), ("view-only", "key may view and trade")] {
        let (passed, rows) = preflight(&desk, key);
        assert_eq!((passed, failed(&rows)), (false, vec![check]), "{rows:#?}");
    }

    desk.write_bot("  risk: {limits: {maxDeltaNotional: '100', maxOrderNotional: '200'}}\n");
    let (passed, rows) = preflight(&desk, "0");
    assert_eq!((passed, failed(&rows)), (false, vec!["maxOrderNotional", "maxDeltaNotional"]));

    desk.write_file(&desk.bot("").replace("BIP-20DEC30-CDE", "XYZ-20DEC30-CDE"));
    let (passed, rows) = preflight(&desk, "0");
    assert_eq!((passed, failed(&rows)), (false, vec!["future product"]));

    desk.write_file(&desk.bot("").replace(&desk.portfolio, "00000000-0000-0000-0000-000000000009"));
    assert_eq!(failed(&preflight(&desk, "0").1), ["key is of the portfolio"]);

    for url in ["wss://{}/ws\n", "wss://{}/ws/user\n"] {
        let url = url.replace("{}", &desk.address.to_string());
        desk.write_file(&desk.bot("").replace(&url, "wss://127.0.0.1:1/ws\n"));
        assert_eq!(failed(&preflight(&desk, "0").1), ["WebSockets"], "{url}");
    }

    desk.write_bot("  risk: {limits: {maxPositionNotional: '2000'}}\n");
    let (passed, rows) = preflight(&desk, "0");
    let warned = rows.iter().any(|row| row["check"] == "targetNotional fits" && row["result"] == "warn");
    assert!(passed && warned, "{rows:#?}");

    desk.write_file(&desk.bot("  moed: Halted\n"));
    let message = desk.refused(&["preflight"]);
    assert!(message.contains("spec.moed") && !message.contains("Stack backtrace"), "{message}");
}

#[test]
fn an_order_is_previewed_placed_once_edited_traced_and_cancelled() {
    let desk = Desk::new();
    let order = ["BTC-USD", "buy", "0.01", "--type", "gtc", "--limit", "50000"];
    let place: Vec<&str> = [&["orders", "place"], &order[..]].concat();
    let preview = desk.rows(&[&["orders", "preview"], &order[..]].concat());
    assert!(preview.iter().any(|row| row["preview"] == "order_total"), "{preview:#?}");

    let message = desk.refused(&place);
    assert!(message.starts_with("client_order_id manual-") && message.contains("add --yes"), "{message}");
    assert!(desk.rows(&["orders", "list"]).is_empty(), "a preview places nothing");

    let placed = desk.rows(&[&place[..], &["--yes"]].concat());
    let id = placed[0]["order_id"].as_str().unwrap();
    let client_id = placed[0]["client_order_id"].as_str().unwrap();
    assert!(message.contains(client_id), "the preview named the same id");
    let again = desk.refused(&[&place[..], &["--yes"]].concat());
    assert!(again.contains("placed before") && again.contains(id), "{again}");
    assert_eq!(desk.rows(&["orders", "list"]).len(), 1);

    let message = desk.refused(&["orders", "edit", id, "--price", "49000"]);
    assert!(message.contains("nothing was changed"), "{message}");
    let edited = desk.rows(&["orders", "edit", client_id, "--price", "49000", "--yes"]);
    assert_eq!((&edited[0]["limit_price"], &edited[0]["size"]), (&"49000".into(), &"0.01".into()));

    let cancelled = desk.rows(&["orders", "cancel", client_id]);
    assert_eq!(cancelled[0]["status"], "CANCELLED");
    let story = desk.rows(&["orders", "trace", client_id]);
    let events: Vec<_> = story.iter().map(|row| row["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["placed", "CANCELLED"]);
}

#[test]
fn an_order_that_fills_shows_in_positions_account_and_trace() {
    let desk = Desk::new();
    let sell = ["orders", "place", "BIP-20DEC30-CDE", "SELL", "1", "--type", "market", "--yes"];
    let without_file = desk
        .arb_bot(&sell)
        .args(["--credentials", "key-0", "--ca-file", "simulator/ca.crt", "--rest-url"])
        .args([&format!("https://{}", desk.address), "-o", "json"])
        .output()
        .unwrap();
    assert!(without_file.status.success(), "{}", stderr(&without_file));
    let placed: Vec<Value> = serde_json::from_slice(&without_file.stdout).unwrap();
    let id = placed[0]["order_id"].as_str().unwrap();
    assert_eq!(desk.rows(&["positions"])[0]["contracts"], "-1");
    let account = desk.rows(&["account", "snapshot"]);
    assert!(account.iter().any(|row| row["what"] == "position" && row["value"] == "-1"), "{account:#?}");
    let story = desk.rows(&["orders", "trace", id]);
    assert!(story.iter().any(|row| row["event"] == "fill"), "{story:#?}");
}

#[test]
fn an_order_by_hand_obeys_the_mode_and_the_limits_of_the_file_that_it_names() {
    let desk = Desk::new();
    let place = |size: &str| desk.refused(&["orders", "place", "BTC-USD", "BUY", size, "--limit", "60000", "--yes"]);
    assert!(place("1").contains("maxOrderNotional"));
    let market = desk.refused(&["orders", "place", "BTC-USD", "BUY", "0.01", "--type", "market", "--yes"]);
    assert!(market.contains("maxSlippageBps") && market.contains("give it a limit price"), "{market}");
    desk.write_bot("  mode: Halted\n");
    assert!(place("0.01").contains("Halted"));
    desk.write_bot("  killSwitch: {engaged: true}\n");
    assert!(place("0.01").contains("Flatten"));
    assert!(desk.rows(&["orders", "list", "--all"]).is_empty());
}

#[test]
fn what_is_wrong_with_a_command_is_said_with_what_to_do() {
    let desk = Desk::new();
    for (arguments, word) in [
        (&["orders", "trace", "nobody"][..], "--state-dir"),
        (&["orders", "cancel", "nobody"], "orders list --all"),
        (&["orders", "place", "BTC-USD", "BUY", "0.01"], "--limit"),
        (&["orders", "place", "NO-SUCH", "BUY", "0.01", "--limit", "1"], "NO-SUCH"),
        (&["orders", "place", "BTC-USD", "HOLD", "0.01"], "BUY or SELL"),
        (&["orders", "cancel", "--all"], "--yes"),
    ] {
        let message = desk.refused(arguments);
        assert!(message.contains(word), "{arguments:?}: {message}");
    }
    let output = desk.arb_bot(&["positions", "--credentials", "nowhere"]).output().unwrap();
    assert!(stderr(&output).contains("nowhere/name does not exist"), "{}", stderr(&output));
}

#[test]
fn an_order_whose_reply_is_lost_is_found_and_never_sent_again() {
    let desk = Desk::new();
    let place =
        ["orders", "place", "BTC-USD", "BUY", "0.01", "--type", "gtc", "--limit", "50000", "--yes", "-o", "json"];
    desk.admin("faults", &json!({"kind": "drop_replies", "count": 1}));
    let output = desk.with_key("0", &place);
    let said = stderr(&output);
    assert!(output.status.success() && said.contains("has not answered"), "{said}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found[0]["status"], "OPEN");
    let listed = desk.rows(&["orders", "list"]);
    assert_eq!(listed.len(), 1, "one order, not two: {listed:#?}");
    assert_eq!(listed[0]["order_id"], found[0]["order_id"]);
}

#[test]
fn an_order_that_never_arrived_is_not_known_and_may_be_said_again() {
    let desk = Desk::new();
    // Without the file, whose limit of slippage no order at the market keeps.
    let sell = ["orders", "place", "BIP-20DEC30-CDE", "SELL", "2", "--type", "market", "--yes"];
    let mut sell = desk.arb_bot(&sell);
    sell.args(["--credentials", "key-0", "--ca-file", "simulator/ca.crt", "--rest-url"]);
    let sold = sell.arg(format!("https://{}", desk.address)).output().unwrap();
    assert!(sold.status.success(), "{}", stderr(&sold));
    let close = ["orders", "place", "BIP-20DEC30-CDE", "BUY", "1", "--type", "close", "--yes"];
    desk.admin("faults", &json!({"kind": "drop_requests", "endpoint": "POST /orders/close_position", "count": 1}));
    let message = desk.refused(&close);
    assert!(message.contains("is not known") && message.contains("orders trace manual-"), "{message}");
    assert_eq!(desk.rows(&["positions"])[0]["contracts"], "-2", "it was not sent a second time");
    desk.rows(&close);
    assert_eq!(desk.rows(&["positions"])[0]["contracts"], "-1");
}

#[test]
fn an_open_incident_of_the_state_directory_forbids_what_the_file_alone_would_allow() {
    let desk = Desk::new();
    let bot = desk.run("state");
    desk.wait_for("state", "Trading", "True");
    desk.write_bot("  killSwitch: {engaged: true, reason: drill}\n");
    desk.wait_for("state", "Flat", "True");
    // The kill is out of the file; its latch is in the state directory.
    desk.write_bot("");
    desk.wait_for("state", "effectiveMode", "Flatten");
    bot.stop();
    let order = ["orders", "place", "BTC-USD", "BUY", "0.001", "--limit", "60000"];
    let allowed = desk.refused(&order);
    assert!(allowed.contains("add --yes"), "the file alone allows it: {allowed}");
    let forbidden = desk.refused(&[&order[..], &["--state-dir", "state", "--yes"]].concat());
    assert!(forbidden.contains("Flatten"), "{forbidden}");
    let working = desk.rows(&["orders", "list"]);
    assert!(working.is_empty(), "{working:#?}");
}

#[test]
fn the_trace_of_a_bots_order_tells_what_the_ledger_and_the_exchange_know() {
    let desk = Desk::new();
    let bot = desk.run("state");
    let filled = wait("a filled order", || {
        desk.rows(&["orders", "list", "--all"]).into_iter().find(|order| order["status"] == "FILLED")
    });
    let id = filled["client_order_id"].as_str().unwrap();
    let story = desk.rows(&["orders", "trace", id, "--state-dir", "state"]);
    let of = |source: &str| story.iter().filter(|row| row["source"] == source).collect::<Vec<_>>();
    let (ledger, exchange) = (of("ledger"), of("exchange"));
    assert!(!ledger.is_empty() && exchange.iter().any(|row| row["event"] == "fill"), "{story:#?}");
    let (intent, placed) = (ledger[0]["time"].as_str().unwrap(), exchange[0]["time"].as_str().unwrap());
    assert!(intent < placed, "durable before sent: {intent} {placed}");
    bot.stop();
}
