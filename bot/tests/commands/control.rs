//! `arb-bot run -f`: control by editing the file.

use super::desk::{Desk, stderr};

const STATE: &str = "state";

fn incident(desk: &Desk) -> String {
    let rows = desk.status(STATE);
    let incident = rows.iter().find(|row| row["what"] == "incident").expect("an incident");
    incident["value"].as_str().unwrap().to_owned()
}

#[test]
fn an_edit_of_the_file_kills_the_latch_outlives_a_crash_and_only_a_release_ends_it() {
    let desk = Desk::new();
    let bot = desk.run(STATE);
    desk.wait_for(STATE, "Trading", "True");
    desk.wait_for_position(STATE);

    desk.write_bot("  killSwitch: {engaged: true, reason: drill}\n");
    desk.wait_for(STATE, "Halted", "True");
    let flat = desk.wait_for(STATE, "Flat", "True");
    assert_eq!(flat["reason"], "NoPosition");
    assert!(desk.rows(&["positions"]).iter().all(|row| row["contracts"] == "0"), "the exchange shows the same");
    assert!(desk.rows(&["orders", "list"]).is_empty());

    // The kill is taken out of the file, as a GitOps tool would, and the bot crashes: it stays latched.
    desk.write_bot("");
    bot.crash();
    assert_eq!(desk.status(STATE)[0]["value"], "False", "not running");
    let bot = desk.run(STATE);
    desk.wait_for(STATE, "Running", "True");
    let trading = desk.wait_for(STATE, "effectiveMode", "Flatten");
    assert!(trading["message"].as_str().unwrap().contains("generation"), "{trading}");
    desk.wait_for(STATE, "Flat", "True");
    let id = incident(&desk);

    let other = id.split_once('-').map(|(uid, _)| format!("{uid}-1")).unwrap();
    desk.write_bot(&format!("  killSwitch: {{release: {other}}}\n"));
    desk.wait_for(STATE, "Halted", "True");
    assert_eq!(incident(&desk), id, "an id of another incident releases nothing");
    desk.write_bot(&format!("  killSwitch: {{release: {id}}}\n"));
    desk.wait_for(STATE, "Trading", "True");
    desk.wait_for_position(STATE);

    desk.write_bot(&format!("  mode: Stopped\n  killSwitch: {{release: {id}}}\n"));
    let mut bot = bot;
    assert!(bot.ended().success(), "it drains and ends by itself");
    let rows = desk.status(STATE);
    let flat = rows.iter().find(|row| row["what"] == "Flat").unwrap();
    assert_eq!(flat["value"], "True", "{rows:#?}");
}

#[test]
fn a_wrong_edit_changes_nothing_and_says_so_and_a_kill_in_it_is_obeyed() {
    let desk = Desk::new();
    let bot = desk.run(STATE);
    desk.wait_for(STATE, "Trading", "True");

    desk.write_bot("  moed: Halted\n");
    let applied = desk.wait_for(STATE, "ControlApplied", "False");
    assert!(applied["message"].as_str().unwrap().contains("spec.moed"), "{applied}");
    desk.wait_for(STATE, "effectiveMode", "Active");

    desk.write_bot("");
    desk.wait_for(STATE, "ControlApplied", "True");
    desk.write_file("spec: [ half a file\n");
    let applied = desk.wait_for(STATE, "ControlApplied", "False");
    assert!(applied["message"].as_str().unwrap().contains("bot.yaml"), "{applied}");
    desk.wait_for(STATE, "effectiveMode", "Active");

    desk.write_file("spec: [ half a file\nkillSwitch: {engaged: true\n");
    desk.wait_for(STATE, "Halted", "True");
    desk.wait_for(STATE, "Flat", "True");
    bot.stop();
}

#[test]
fn a_second_bot_on_the_account_is_refused_and_told_who_has_it() {
    let desk = Desk::new();
    let bot = desk.run(STATE);
    desk.wait_for(STATE, "Running", "True");
    for state in ["another", STATE] {
        let second = desk.run_command(state).output().unwrap();
        let message = stderr(&second);
        assert!(!second.status.success() && message.contains("another bot trades BIP-20DEC30-CDE"), "{message}");
        assert!(message.contains("carry, process") && message.contains("/state."), "{message}");
    }
    bot.stop();
    assert!(!desk.path("another").exists(), "a refused bot leaves nothing behind");
    desk.run(STATE).crash();
}

/// Under Kubernetes the process comes back by itself; here the test is the supervisor, which goes by the exit code (mutation:
/// `None if restart.is_cancelled()` in run/program.rs is left out).
#[test]
fn a_guard_restarts_the_process_in_order_and_not_again_while_it_stays_tripped() {
    let desk = Desk::new();
    desk.write_bot(
        "  risk: {guards: [{name: memory, metric: ResidentMemoryMegabytes, tripAt: '1', action: Restart}]}\n",
    );
    assert_eq!(desk.run(STATE).ended().code(), Some(1), "it cancels its orders and ends, to be started anew");
    let rows = desk.status(STATE);
    assert_eq!((&rows[0]["what"], &rows[0]["value"]), (&"Running".into(), &"False".into()));
    assert!(desk.rows(&["orders", "list"]).is_empty(), "an order was left behind");
    let bot = desk.run(STATE);
    desk.wait_for_position(STATE);
    let guard = desk.wait_for(STATE, "WithinRiskLimits", "True");
    assert!(guard["message"].as_str().unwrap().contains("guard memory"), "{guard}");
    let guard = desk.wait_for(STATE, "guard", "memory");
    assert_eq!(guard["reason"], "Tripped");
    assert!(guard["message"].as_str().unwrap().contains("ResidentMemoryMegabytes was "), "{guard}");
    bot.stop();
}
