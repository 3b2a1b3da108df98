//! `arb-bot run -f` on paper: everything works as live, and nothing reaches the exchange.

use std::fs;

use super::desk::{Desk, stderr};

const STATE: &str = "state";

#[test]
fn a_paper_bot_runs_without_a_key_is_killed_and_restarted_and_the_exchange_never_sees_an_order() {
    let desk = Desk::new();
    desk.write_file(&desk.paper_bot(""));
    // There is no key anywhere on this desk that it could use.
    for key in ["key-0", "key-transfer", "key-view-only"] {
        fs::remove_dir_all(desk.path(key)).unwrap();
    }
    let preflight = desk.arb_bot(&["preflight", "-f", "bot.yaml", "--ca-file", "simulator/ca.crt"]).output().unwrap();
    let checks = String::from_utf8_lossy(&preflight.stdout).into_owned();
    assert!(preflight.status.success() && checks.contains("no order leaves the bot"), "{checks}{}", stderr(&preflight));
    assert!(checks.contains("/ws") && !checks.contains("/ws/user"), "only what it opens is called good: {checks}");

    let bot = desk.run(STATE);
    let trading = desk.wait_for(STATE, "Trading", "True");
    assert!(trading["message"].as_str().unwrap().contains("on paper"), "{trading}");
    assert_eq!(desk.wait_for(STATE, "CredentialsValid", "True")["reason"], "OnPaper");
    desk.wait_for(STATE, "execution", "Paper");
    desk.wait_for_position(STATE);

    bot.crash();
    let bot = desk.run(STATE);
    desk.wait_for(STATE, "PositionsReconciled", "True");
    desk.wait_for_position(STATE);

    desk.write_file(&desk.paper_bot("  killSwitch: {engaged: true, reason: drill}\n"));
    desk.wait_for(STATE, "Halted", "True");
    desk.wait_for(STATE, "Flat", "True");

    // What is Live cannot be reached from here: not by an edit, not by another start.
    desk.write_file(&desk.bot(""));
    let applied = desk.wait_for(STATE, "ControlApplied", "False");
    assert!(applied["message"].as_str().unwrap().contains("spec.execution"), "{applied}");
    desk.wait_for(STATE, "execution", "Paper");
    bot.stop();
    let live = desk.run_command(STATE).output().unwrap();
    let message = stderr(&live);
    assert!(!live.status.success() && message.contains("spec.execution"), "{message}");

    let journal = desk.journal();
    assert!(journal.is_empty(), "{journal:#?}");
}

#[test]
fn orders_by_hand_refuse_the_file_of_a_paper_bot() {
    let desk = Desk::new();
    desk.write_file(&desk.paper_bot(""));
    for command in [&["orders", "list"][..], &["positions"], &["orders", "place", "BTC-USD", "BUY", "0.01", "--yes"]] {
        let message = desk.refused(command);
        assert!(message.contains("this ArbBot trades on paper"), "{command:?}: {message}");
    }
}

#[test]
fn two_paper_bots_on_the_same_products_are_two_accounts() {
    let desk = Desk::new();
    desk.write_file(&desk.paper_bot(""));
    let bots = [desk.run("one"), desk.run("two")];
    for state in ["one", "two"] {
        desk.wait_for(state, "Trading", "True");
    }
    bots.into_iter().for_each(super::desk::Running::stop);
}
