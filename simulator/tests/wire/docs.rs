//! Every example of docs/simulator.md is taken by a running simulator, and every fault has one.

use std::collections::BTreeSet;

use exchange_simulator::server::faults::kind::FaultKind;
use reqwest::Method;
use serde_json::{Value, json};
use strum::VariantNames;

use super::client::Simulator;

const PAGE: &str = include_str!("../../../docs/simulator.md");

fn blocks(language: &str) -> Vec<&'static str> {
    let begin = format!("```{language}\n");
    PAGE.split(&begin).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[tokio::test]
async fn every_fault_has_an_example_and_every_example_works() {
    let simulator = Simulator::start(&[]);
    let mut shown = BTreeSet::new();
    for example in blocks("json") {
        let example = example.replace("PORTFOLIO", &simulator.portfolio(1));
        let fault: Value = serde_json::from_str(&example).unwrap();
        simulator.admin(Method::POST, "/faults", Some(fault.clone())).await;
        shown.insert(fault["kind"].as_str().unwrap().to_owned());
    }
    let on = simulator.admin(Method::GET, "/faults", None).await;
    assert!(on["faults"].as_array().unwrap().len() > 20);
    assert_eq!(on["closed_sessions"][0]["product_id"], "BIP-20DEC30-CDE");
    assert_eq!(shown, FaultKind::VARIANTS.iter().map(|kind| (*kind).to_owned()).collect());
    let off = simulator.admin(Method::POST, "/faults", Some(json!({"clear": true}))).await;
    assert_eq!((&off["faults"], &off["closed_sessions"]), (&json!([]), &json!([])));
}

#[tokio::test]
async fn every_scenario_of_the_page_is_taken_and_begins() {
    let simulator = Simulator::start(&[]);
    let examples = blocks("yaml");
    assert!(examples.len() >= 3);
    for example in examples {
        let started = simulator.admin_text(Method::POST, "/scenario", example).await;
        assert!(!started["steps"].as_array().unwrap().is_empty(), "{started}");
    }
    let ended = simulator.admin_text(Method::POST, "/scenario", "").await;
    assert_eq!(ended["steps"], json!([]));
}

#[test]
fn a_scenario_file_is_followed_from_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("scenario.yaml");
    std::fs::write(&file, "steps: [{at: 0s, kind: rest_unavailable}]").unwrap();
    let simulator = Simulator::start(&["--scenario", file.to_str().unwrap()]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let key = simulator.key("key.json");
        super::eventually_status(&simulator, &key, "/accounts", 503).await;
        simulator.admin(Method::POST, "/faults", Some(json!({"clear": true}))).await;
        super::eventually_status(&simulator, &key, "/accounts", 200).await;
    });
}
