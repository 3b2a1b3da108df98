//! Commands with the exchange.

use serde_json::Value;

use super::desk::{Desk, stderr};

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
