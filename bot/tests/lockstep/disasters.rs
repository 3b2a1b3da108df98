//! A full disk, a damaged page, a clock that is set, a lost ledger: each closes entry with a condition that names it, no
//! order that the exchange accepts is wrong, a kill still ends flat, and once the cause is gone the bot goes on
//! (docs/operations.md, "When the ledger fails" and "When the clock is wrong").

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use arb_bot::ledger::{self, OrderRecord, restore};
use arb_bot::risk::Class;
use arbbot_crds::arbbot::Mode;
use arbbot_crds::conditions::ConditionType;
use arbbot_crds::control::{Control, Entry, Restriction};
use arbbot_crds::status::EffectiveMode;
use futures::executor::block_on;
use k8s_openapi::jiff::SignedDuration;
use rust_decimal::Decimal;
use tokio::time::{Instant, sleep};

use super::bot::Bot;
use super::desk::{Desk, Step, at_a_desk, finish, halt};
use super::{judge_of, paused};

/// Entry is closed at most so long after a disaster that a write or a look at the file finds.
const CLOSED_WITHIN: Duration = Duration::from_secs(15);
/// And after one that only a look at every page finds.
const FOUND_WITHIN: Duration = Duration::from_secs(75);

async fn with_a_position(desk: Desk<'_>) -> Desk<'_> {
    desk.bot.wait("a position", |view| view.future_owned_contracts <= (-3).into() && view.open_orders > 0).await;
    desk
}

/// Waits until entry is closed for this reason; returns the message of `Trading`.
async fn closed(bot: &Bot, within: Duration, reason: &str, mode: EffectiveMode) -> String {
    let began = Instant::now();
    loop {
        let (status, says, message) = bot.condition(ConditionType::Trading);
        if status == "False" && says == reason {
            bot.wait_within(Duration::from_secs(1), "the engine follows", |view| view.mode >= Some(mode)).await;
            assert!(bot.gate.allows(Class::Enter).is_err() && bot.gate.allows(Class::Hedge).is_err());
            return message;
        }
        assert!(began.elapsed() < within, "Trading={status} {says} after {within:?}: {message}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until entry is open again.
async fn open_again(bot: &Bot) {
    let began = Instant::now();
    while bot.gate.allows(Class::Enter).is_err() {
        assert!(began.elapsed() < Duration::from_secs(120), "{:?}", bot.gate.restrictions());
        sleep(Duration::from_millis(500)).await;
    }
}

/// Nothing that raises a leg is accepted for a minute, and what works is cancelled.
async fn nothing_is_raised(desk: &Desk<'_>) {
    let raising = async || {
        let accepted = desk.exchange.accepted().await;
        accepted.keys().filter(|id| id.ends_with("-Enter") || id.ends_with("-Hedge")).count()
    };
    sleep(Duration::from_secs(2)).await;
    let before = raising().await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(raising().await, before, "{:?}", desk.bot.gate.restrictions());
}

/// Kills, waits until that is proven, and lets the exchange's own journal judge the whole run.
async fn a_kill_ends_flat(desk: Desk<'_>) -> Desk<'_> {
    let desk = desk.take(&Step::KillSwitch).await;
    desk.bot.flat(Duration::from_secs(120)).await;
    let truth = desk.exchange.truth().await;
    assert_eq!((truth.contracts, truth.open_orders), (Decimal::ZERO, 0));
    nothing_was_wrong(&desk);
    desk
}

fn nothing_was_wrong(desk: &Desk<'_>) {
    let mut judge = judge_of(desk.machine);
    let acknowledged: Vec<(_, Control)> = desk.machine.acknowledged.lock().unwrap().clone();
    let mut acknowledged = acknowledged.into_iter().peekable();
    for event in &desk.exchange.journal_after(0) {
        while let Some((time, control)) = acknowledged.next_if(|(time, _)| *time <= event.time) {
            judge.acknowledged(time, control);
        }
        judge.happened(event);
    }
    assert!(judge.verdict.raising > 2, "{:?}", judge.verdict);
    assert_eq!(judge.verdict.wrong_orders, []);
}

/// Runs this test once more in a mount namespace of its own with a small file system, which ends with its process,
/// however that ends. Returns where it is to whoever is inside.
fn on_a_small_disk(test: &str, mebibytes: u32) -> Option<PathBuf> {
    const DISK: &str = "ARBBOT_TEST_DISK";
    if let Some(disk) = std::env::var_os(DISK) {
        return Some(disk.into());
    }
    let dir = tempfile::tempdir().unwrap();
    let mount = format!(
        "mount -t tmpfs -o size={mebibytes}m tmpfs '{0}' && exec env {DISK}='{0}' \"$0\" --exact '{test}' --nocapture",
        dir.path().display()
    );
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private"]);
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let run = unshare.args(["sh", "-c", &mount]).arg(std::env::current_exe().unwrap()).status();
    assert!(run.expect("unshare of util-linux is needed").success(), "it failed on the small disk");
    None
}

/// Takes all that is left of a volume; gives it back when it is removed.
fn fill(volume: &Path) -> PathBuf {
    let ballast = volume.join("ballast");
    let file = OpenOptions::new().create(true).write(true).truncate(true).open(&ballast).unwrap();
    for size in [1 << 16, 1 << 12] {
        let zeros = vec![0_u8; size];
        while let Ok(written) = (&file).write(&zeros) {
            if written < size {
                break;
            }
        }
    }
    ballast
}

/// Proven by mutation: what the disk does not take, or too little free space, being no problem (`Health`); what became
/// known of orders meanwhile dropped (`driver::record`).
#[test]
fn a_full_disk_halts_says_so_and_a_kill_still_ends_flat() {
    let Some(volume) = on_a_small_disk("disasters::a_full_disk_halts_says_so_and_a_kill_still_ends_flat", 24) else {
        return;
    };
    for kills in [false, true] {
        paused(at_a_desk(11, false, async |mut desk: Desk<'_>| {
            // The ledger moves to the small disk.
            let ledger_dir = desk.machine.dir.join("ledger");
            let small = volume.join(if kills { "b" } else { "a" });
            desk.bot.kill().await;
            let _ = fs::remove_dir_all(&ledger_dir);
            fs::create_dir_all(&small).unwrap();
            std::os::unix::fs::symlink(&small, &ledger_dir).unwrap();
            desk.bot = Bot::start(desk.machine, 2).await;
            desk.epoch = 2;
            desk = with_a_position(desk).await;
            let ballast = fill(&volume);
            let message = closed(&desk.bot, CLOSED_WITHIN, "LedgerUnwritable", EffectiveMode::Halted).await;
            assert!(message.contains("ledger") && message.contains("goes on by itself"), "{message}");
            nothing_is_raised(&desk).await;
            let (halted, why, _) = desk.bot.condition(ConditionType::Halted);
            assert_eq!((halted.as_str(), why.as_str()), ("True", "NoOrdersWorking"));
            if kills {
                desk = a_kill_ends_flat(desk).await;
                fs::remove_file(&ballast).unwrap();
                sleep(Duration::from_secs(10)).await;
            } else {
                fs::remove_file(&ballast).unwrap();
                open_again(&desk.bot).await;
                desk.bot.wait("it trades again", |view| view.open_orders > 0).await;
                nothing_was_wrong(&desk);
            }
            // Every order is in the ledger, those that the journal took, too, and both sides agree.
            finish(desk).await.unwrap();
        }));
    }
}

/// Overwrites a page in the middle of the file, as a disk does that fails.
fn damage(ledger_dir: &Path) {
    let file = OpenOptions::new().write(true).open(ledger_dir.join(ledger::FILE)).unwrap();
    let pages = file.metadata().unwrap().len() / 4096;
    assert!(pages > 8, "{pages} pages");
    for page in 3..pages {
        file.write_all_at(&[0xA5; 4096], page * 4096).unwrap();
    }
    file.sync_all().unwrap();
}

/// The pages of a running bot's ledger are in its file, not only in its log.
async fn with_all_in_the_file(desk: Desk<'_>) -> Desk<'_> {
    // The last connection that ends in order takes the log in.
    with_a_position(desk.restart().await).await
}

/// Proven by mutation: `check_pages` finding nothing.
#[test]
fn a_damaged_page_of_a_running_bot_halts_it_and_a_restart_rebuilds_what_it_held() {
    for kills in [false, true] {
        paused(at_a_desk(12, false, async |desk: Desk<'_>| {
            let dir = desk.machine.dir.join("ledger");
            let mut desk = with_all_in_the_file(with_a_position(desk).await).await;
            damage(&dir);
            let message = closed(&desk.bot, FOUND_WITHIN, "LedgerDamaged", EffectiveMode::Halted).await;
            assert!(message.contains("restart the bot"), "{message}");
            nothing_is_raised(&desk).await;
            if kills {
                desk = a_kill_ends_flat(desk).await;
            }
            desk = rebuilt(desk, kills, "the ledger was damaged").await;
            let kept = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            assert!(kept.into_iter().any(|name| name.starts_with("ledger.db.corrupt-")));
            finish(desk).await.unwrap();
        }));
    }
}

/// The bot begins anew; until orders, fills and positions match entry is closed and the condition says why.
async fn rebuilt<'a>(desk: Desk<'a>, is_flat: bool, why: &str) -> Desk<'a> {
    let desk = desk.restart().await;
    let began = Instant::now();
    let restriction = loop {
        let of_ledger = |of: &Restriction| of.source == "ledger/Rebuilding";
        if let Some(restriction) = desk.bot.gate.restrictions().into_iter().find(of_ledger) {
            break restriction;
        }
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", desk.bot.gate.restrictions());
        sleep(Duration::from_millis(1)).await;
    };
    assert!(restriction.why.contains(why) && restriction.entry == Entry::ReduceOnly, "{restriction:?}");
    if is_flat {
        // The latch is stronger, and stays.
        closed(&desk.bot, CLOSED_WITHIN, "KillSwitchEngaged", EffectiveMode::Flatten).await;
        desk.bot.flat(Duration::from_secs(120)).await;
    } else {
        closed(&desk.bot, CLOSED_WITHIN, "LedgerRebuilding", EffectiveMode::ReduceOnly).await;
        open_again(&desk.bot).await;
    }
    let (view, truth) = (desk.bot.view.borrow().clone(), desk.exchange.truth().await);
    assert_eq!(view.future_owned_contracts, truth.contracts);
    nothing_was_wrong(&desk);
    desk
}

/// Proven by mutation: `Ledger::discontinued` always None.
#[test]
fn a_damaged_page_of_a_stopped_bot_is_found_at_its_start_and_rebuilt() {
    paused(at_a_desk(13, false, async |desk: Desk<'_>| {
        let dir = desk.machine.dir.join("ledger");
        let mut desk = with_a_position(desk).await;
        desk.stop().await;
        // Its last connection takes the log into the file, a moment later.
        for _ in 0..1000 {
            block_on(ledger::verify(&dir)).unwrap();
            if fs::metadata(dir.join(ledger::FILE)).unwrap().len() > 10 * 4096 {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        damage(&dir);
        let desk = rebuilt(desk, false, "the ledger was damaged").await;
        let desk = a_kill_ends_flat(desk).await;
        finish(desk).await.unwrap();
    }));
}

/// Proven by mutation: any file taken for the one that was opened (`Health::same_file`); what is imported dated at its
/// import (`driver::record::entry` without `created_at`).
#[test]
fn a_ledger_that_is_deleted_under_a_running_bot_halts_it_and_a_restart_rebuilds_it() {
    for kills in [false, true] {
        paused(at_a_desk(14, false, async |desk: Desk<'_>| {
            let dir = desk.machine.dir.join("ledger");
            let mut desk = with_a_position(desk).await;
            // Far longer ago than `arb-bot reconcile` looks back beyond the first order.
            sleep(Duration::from_secs(1800)).await;
            let before = block_on(ledger::orders(&dir)).unwrap();
            *desk.machine.anchor.lock().unwrap() = desk.bot.status().bot.unwrap().ledger;
            for name in fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()) {
                if !name.ends_with(ledger::LOCK) {
                    fs::remove_file(name).unwrap();
                }
            }
            let message = closed(&desk.bot, CLOSED_WITHIN, "LedgerLost", EffectiveMode::Halted).await;
            assert!(message.contains("restart the bot"), "{message}");
            nothing_is_raised(&desk).await;
            if kills {
                desk = a_kill_ends_flat(desk).await;
            }
            let desk = rebuilt(desk, kills, "does not continue the one that status anchored").await;
            let halted = halt(desk).await;
            halted.compare().await.unwrap();
            were_created_when_they_were(&before, &halted.ledger().await);
        }));
    }
}

/// Every order that the exchange took has the time of then, not that of the rebuilding.
fn were_created_when_they_were(before: &[OrderRecord], after: &[OrderRecord]) {
    let after: BTreeMap<_, _> = after.iter().map(|order| (&order.client_order_id, order)).collect();
    let both: Vec<_> = before.iter().filter_map(|old| Some((old, *after.get(&old.client_order_id)?))).collect();
    assert!(both.len() > 2 && both.iter().all(|(_, new)| new.kind == "Imported"), "{both:?}");
    for (old, new) in both {
        // The intent is written first.
        let took = new.created_at.duration_since(old.created_at);
        assert!(
            (0..=15).contains(&took.as_secs()),
            "{}: {} and then {}",
            new.client_order_id,
            old.created_at,
            new.created_at
        );
    }
}

/// Proven by mutation: `Ledger::discontinued` always None.
#[test]
fn an_older_backup_in_the_place_of_the_ledger_is_found_by_the_anchor_and_completed() {
    paused(at_a_desk(15, false, async |desk: Desk<'_>| {
        let dir = desk.machine.dir.join("ledger");
        let mut desk = with_a_position(desk).await;
        let backup = desk.machine.dir.join("backup.db");
        block_on(ledger::backup(&dir, &backup)).unwrap();
        sleep(Duration::from_secs(60)).await;
        *desk.machine.anchor.lock().unwrap() = desk.bot.status().bot.unwrap().ledger;
        desk.stop().await;
        block_on(restore(&dir, &backup, desk.machine.clock.now())).unwrap();
        let desk = rebuilt(desk, false, "does not continue the one that status anchored").await;
        let desk = a_kill_ends_flat(desk).await;
        finish(desk).await.unwrap();
    }));
}

/// Proven by mutation: `ClockCheck` never closing entry; `Clock::now` following every step of the machine's clock.
#[test]
fn a_clock_that_is_set_by_an_hour_closes_entry_until_it_is_right_again() {
    for minutes in [60, -60] {
        for kills in [false, true] {
            paused(at_a_desk(16, false, async |desk: Desk<'_>| {
                let mut desk = with_a_position(desk).await;
                desk.machine.clock.step(SignedDuration::from_mins(minutes));
                let message = closed(&desk.bot, CLOSED_WITHIN, "ClockSkewed", EffectiveMode::ReduceOnly).await;
                assert!(message.contains("60 min 0 s") && message.contains("set it right"), "{message}");
                nothing_is_raised(&desk).await;
                // Tokens are taken as before, and the listings show the same position.
                assert!(desk.bot.view.borrow().links.iter().all(|(_, down)| down.is_none()));
                if kills {
                    desk = a_kill_ends_flat(desk).await;
                    desk.machine.clock.step(SignedDuration::from_mins(-minutes));
                } else {
                    desk.machine.clock.step(SignedDuration::from_mins(-minutes));
                    open_again(&desk.bot).await;
                    // What rests ends within maxRest by the exchange's clock, whoever sets the machine's and when.
                    desk.machine.clock.step(SignedDuration::from_mins(minutes));
                    desk.stop().await;
                    desk.network.cut();
                    sleep(Duration::from_secs(125)).await;
                    assert_eq!(desk.exchange.truth().await.open_orders, 0);
                    // A bot that begins under a wrong clock waits.
                    desk = desk.restart().await;
                    closed(&desk.bot, CLOSED_WITHIN, "ClockSkewed", EffectiveMode::ReduceOnly).await;
                    desk.machine.clock.step(SignedDuration::from_mins(-minutes));
                    open_again(&desk.bot).await;
                }
                let desk = desk.take(&Step::Mode(Mode::Halted)).await;
                nothing_was_wrong(&desk);
                finish(desk).await.unwrap();
            }));
        }
    }
}
