//! `arb-bot capture`: what is recorded at one simulator is replayed by another.

use std::fs;
use std::process::{Command, Output, Stdio};

use market_recording::{Price, Series};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::desk::{Desk, stderr, wait};

impl Desk {
    fn capture(&self, arguments: &[&str]) -> Command {
        let mut command = self.arb_bot(&["capture"]);
        command.args(arguments).args(["--ca-file", "simulator/ca.crt"]);
        command
    }

    fn at_simulator(&self) -> [String; 4] {
        let Self { address, .. } = self;
        ["--rest-url".into(), format!("https://{address}"), "--web-socket-url".into(), format!("wss://{address}/ws")]
    }
}

fn summary(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The prices of a product, one after the other.
fn prices(csv: &str, product: &str) -> Vec<Price> {
    let rows = csv.lines().skip(1).filter_map(|line| line.parse::<market_recording::Row>().ok());
    let rows = rows.filter(|row| row.product == product && row.price != Price::Unchanged);
    rows.map(|row| row.price).collect()
}

#[test]
fn a_capture_needs_no_key_and_another_simulator_replays_its_prices() {
    let desk = Desk::new();
    let capture = desk
        .capture(&["first.csv", "--product", "BTC-USD", "--product", "BIP-20DEC30-CDE", "--for", "6s", "-o", "json"])
        .args(desk.at_simulator())
        .output()
        .unwrap();
    let rows = summary(&capture);
    assert_eq!(
        rows.iter().map(|row| row["product"].as_str().unwrap()).collect::<Vec<_>>(),
        ["BIP-20DEC30-CDE", "BTC-USD"]
    );
    assert!(rows.iter().all(|row| row["gaps"] == "0" && row["first"] != ""), "{rows:#?}");
    assert!(!rows[0]["funding_rate"].as_str().unwrap().is_empty() && rows[1]["funding_rate"] == "");

    let first = fs::read_to_string(desk.path("first.csv")).unwrap();
    assert!(first.ends_with(" 0 gaps\n") && first.contains("# ") && first.contains("\"contract_size\":\"0.01\""));
    let series = Series::parse(&first).unwrap();
    assert!(series.length().as_secs() >= 4, "{}", series.length());

    // The first price holds from the start, so what the second simulator shows is always a price of the file.
    let replay = Desk::replaying(&desk.path("first.csv"));
    let capture = replay
        .capture(&["second.csv", "--product", "BTC-USD", "--for", "4s", "-o", "json"])
        .args(replay.at_simulator())
        .output()
        .unwrap();
    summary(&capture);
    let (recorded, replayed) = (prices(&first, "BTC-USD"), fs::read_to_string(replay.path("second.csv")).unwrap());
    let replayed = prices(&replayed, "BTC-USD");
    assert!(!replayed.is_empty());
    for price in &replayed {
        assert!(recorded.contains(price), "{price:?} was never recorded: {recorded:?}");
    }
}

#[test]
fn ctrl_c_leaves_whole_files_with_every_frame_and_every_gap() {
    let desk = Desk::new();
    let mut capture =
        desk.capture(&["out.csv", "--raw", "out.jsonl", "-f", "bot.yaml", "--credentials", "key-view-only"]);
    let capture = capture.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = |wanted: &str| {
        let text = fs::read_to_string(desk.path("out.csv")).unwrap_or_default();
        text.lines().filter(|line| line.contains(wanted)).count()
    };
    wait("prices", || (lines(",BTC-USD,") > 0 || lines("BTC-USD") > 3).then_some(()));
    desk.admin("faults", &json!({"kind": "websocket_disconnect"}));
    wait("a gap", || (lines(",gap,") >= 2).then_some(()));
    let before = lines("");
    wait("prices again", || (lines("") > before + 4).then_some(()));
    kill_process(Pid::from_child(&capture), Signal::INT).unwrap();
    let output = capture.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("connecting again"), "the gap is visible: {}", stderr(&output));

    let text = fs::read_to_string(desk.path("out.csv")).unwrap();
    assert!(text.ends_with(" 2 gaps\n"), "{text}");
    let series = Series::parse(&text).unwrap();
    assert_eq!(series.gaps("BTC-USD"), 1);
    let transcript = fs::read_to_string(desk.path("out.jsonl")).unwrap();
    let lines: Vec<Value> = transcript.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for kind in ["reply", "connected", "frame", "lost"] {
        assert!(lines.iter().any(|line| line["kind"] == kind && line["at"].is_string()), "{kind}");
    }

    let again = desk.capture(&["out.csv", "-f", "bot.yaml", "--for", "1s"]).output().unwrap();
    assert!(!again.status.success() && stderr(&again).contains("name a new file"), "{}", stderr(&again));
    assert_eq!(fs::read_to_string(desk.path("out.csv")).unwrap(), text, "nothing is overwritten");
}

#[test]
fn what_cannot_be_recorded_is_said_and_leaves_no_file() {
    let desk = Desk::new();
    let unknown = desk.capture(&["x.csv", "--product", "NO-SUCH", "--for", "1s"]).args(desk.at_simulator()).output();
    let unknown = unknown.unwrap();
    assert!(!unknown.status.success() && stderr(&unknown).contains("NO-SUCH"), "{}", stderr(&unknown));
    let nobody = ["--rest-url", "https://127.0.0.1:1", "--web-socket-url", "wss://127.0.0.1:1/ws"];
    let nobody = desk.capture(&["x.csv", "--product", "BTC-USD", "--for", "1s"]).args(nobody).output().unwrap();
    assert!(!nobody.status.success() && stderr(&nobody).contains("nothing was recorded"), "{}", stderr(&nobody));
    let nothing = desk.capture(&["x.csv", "--for", "1s"]).output().unwrap();
    assert!(!nothing.status.success() && stderr(&nothing).contains("--product"), "{}", stderr(&nothing));
    assert!(!desk.path("x.csv").exists());
}
