//! A week of bot and exchange under a random fault script: futures breaks, margin windows, settlements, kills (SAFETY §10).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arbbot_crds::arbbot::Mode;
use exchange_simulator::server::Options;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::bot::Bot;
use super::desk::{BAD_DAYS, Desk, Step, finish};
use super::exchange::{Exchange, FUTURE, START};
use super::network::Network;
use super::{machine, paused};

/// Steps of market and engine; ten times as long as usual, so that a week is minutes of this machine.
const TICK: Duration = Duration::from_secs(1);
/// How long nothing happens at the end.
const CALM: Duration = Duration::from_secs(1800);
/// How often the sessions are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// A kill is flat within this time, Friday's break included.
const FLAT_WITHIN: Duration = Duration::from_secs(2 * 3600);
/// Every so many steps of the script are a kill by its switch.
const KILL_EVERY: u64 = 4;
/// Friday in New York, half an hour before the break.
const FRIDAY: &str = "2026-11-20T21:30:00Z";

/// Longest time between two steps of the script, and mean time between two faults of the exchange's scenario.
const PAUSE: Duration = Duration::from_secs(1500);
/// Faults that a day brings at least, and kinds that strike in any week.
const FAULTS_A_DAY: u64 = 20;
const KINDS: [&str; 34] = [
    "clock_skew",
    "connection_refused",
    "crossed_book",
    "drop_replies",
    "drop_requests",
    "duplicate_frames",
    "funding_spike",
    "gateway_after",
    "gateway_instead",
    "key_revoked",
    "kill_switch",
    "latency",
    "maintenance",
    "mode",
    "partial_fills",
    "price_gap",
    "process_killed",
    "refuse_gtd",
    "reject_orders",
    "reorder_frames",
    "reply_cut",
    "reply_lost",
    "request_lost",
    "rest_error",
    "rest_unavailable",
    "sequence_gap",
    "session_closed",
    "slow_cancels",
    "stale_book",
    "web_socket_cut",
    "web_socket_frozen",
    "websocket_disconnect",
    "websocket_refused",
    "websocket_silent",
];

/// When it begins.
const BREAK: &str = "2026-11-20T22:00:0";

/// What happened, one JSON line.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
struct Report {
    seed: u64,
    /// SHA-256 of everything on the wire and of the exchange's journal.
    transcript_hash: String,
    days: Decimal,
    orders: usize,
    fills: usize,
    /// Times that the futures position went back to nothing.
    round_trips: usize,
    kills: u64,
    process_kills: u64,
    /// Beginnings of closed sessions: Friday's break, and faults.
    session_closures: usize,
    weekly_breaks: usize,
    overnight_windows: usize,
    /// Faults that began: of the script and of the exchange's own scenario.
    faults: u64,
    /// How often each kind took effect: on a request, a frame, an order, or once as a whole.
    struck: BTreeMap<String, u64>,
    requests: u64,
    frames: u64,
    /// Spot, contracts, fees and cash in which the bot's books and the exchange differ. An average price has eight
    /// decimals, so cash counts from half a cent.
    differences: usize,
}

/// Beginnings of what the exchange's calendar and its faults brought.
#[derive(Default)]
struct Sessions {
    closed: Vec<String>,
    overnight: Vec<String>,
}

impl Sessions {
    async fn watch(of: Arc<Mutex<Self>>, exchange: Arc<Exchange>) {
        let mut before = (false, false);
        loop {
            let now = exchange.session();
            of.lock().unwrap().note(before, now, exchange.simulator.app.clock.now().time.to_string());
            before = now;
            sleep(LOOK).await;
        }
    }

    /// `before` and `now`: whether the session is closed, and whether the overnight margin applies.
    fn note(&mut self, before: (bool, bool), now: (bool, bool), time: String) {
        if now.0 && !before.0 {
            self.closed.push(time.clone());
        }
        if now.1 && !before.1 {
            self.overnight.push(time);
        }
    }
}

/// What happens next.
fn step(rng: &mut StdRng) -> Step {
    let tenths = rng.random_range(20..600);
    match rng.random_range(0..20) {
        0..7 => Step::Faults {
            percent: rng.random_range(5..60),
            orders_only: rng.random_bool(0.5),
            cut_per_mille: rng.random_range(0..20),
            tenths,
        },
        7..12 => Step::Exchange { fault: rng.random_range(0..BAD_DAYS.len()), tenths },
        12 => Step::Cut,
        13 => Step::Down { tenths },
        14..16 => Step::Kill { tenths },
        16..18 => Step::KillAtOrder { steps: rng.random_range(1..12) },
        _ => Step::Mode([Mode::ReduceOnly, Mode::Halted, Mode::Stopped][rng.random_range(0..3)]),
    }
}

/// Engages the kill switch, sometimes with a death of the bot in its saga, and frees it once nothing is left.
async fn kill<'a>(mut desk: Desk<'a>, rng: &mut StdRng) -> Desk<'a> {
    desk = desk.take(&Step::KillSwitch).await;
    if rng.random_bool(0.5) {
        desk = desk.take(&Step::Kill { tenths: rng.random_range(1..50) }).await;
    }
    let view = desk.bot.flat(FLAT_WITHIN).await;
    let truth = desk.exchange.truth().await;
    assert_eq!((truth.contracts, truth.open_orders), (Decimal::ZERO, 0), "said to be flat: {view:#?}");
    assert_eq!(truth.spot, view.spot_owned_base, "said to be flat: {view:#?}");
    if rng.random_bool(0.5) { enter_on_a_bad_day(desk, rng).await } else { desk.take(&Step::Release).await }
}

/// What shows only while connections and orders are made: it is so when the bot begins anew.
const AT_ENTRY: [&str; 5] = [
    r#"{"kind": "websocket_refused"}"#,
    r#"{"kind": "reject_orders", "reason": "INSUFFICIENT_FUND", "rate": 0.5}"#,
    r#"{"kind": "partial_fills", "percent": 30}"#,
    r#"{"kind": "slow_cancels", "milliseconds": 3000}"#,
    r#"{"kind": "refuse_gtd"}"#,
];

async fn enter_on_a_bad_day<'a>(mut desk: Desk<'a>, rng: &mut StdRng) -> Desk<'a> {
    let fault = AT_ENTRY[rng.random_range(0..AT_ENTRY.len())];
    desk.exchange.fault(serde_json::from_str(fault).unwrap()).await;
    for step in [Step::Cut, Step::Release, Step::Pass { tenths: rng.random_range(100..900) }] {
        desk = desk.take(&step).await;
    }
    desk.exchange.fault(json!({"clear": true})).await;
    desk
}

async fn script<'a>(
    mut desk: Desk<'a>,
    rng: &mut StdRng,
    time: Duration,
    pause: Duration,
    report: &mut Report,
) -> Desk<'a> {
    let end = Instant::now() + time;
    let mut steps = 0;
    while Instant::now() < end {
        sleep(Duration::from_secs(rng.random_range(60..pause.as_secs()))).await;
        steps += 1_u64;
        report.faults += 1;
        if steps.is_multiple_of(KILL_EVERY) {
            report.kills += 1;
            desk = kill(desk, rng).await;
            continue;
        }
        let step = step(rng);
        desk = desk.take(&step).await;
        if matches!(step, Step::Mode(_)) {
            *report.struck.entry("mode".into()).or_default() += 1;
            sleep(Duration::from_secs(rng.random_range(10..1200))).await;
            desk = desk.take(&Step::Mode(Mode::Active)).await;
        }
    }
    desk
}

async fn simulated(seed: u64, start: &str, time: Duration, pause: Duration) -> Report {
    let busy = time - CALM;
    let mut options = Options { tick: TICK, ..Options::default() };
    options.settings.seed = seed;
    options.settings.retention.journal = 10_000_000;
    options.scenario = format!("random: {{every: {}s, until: {}s, longest: 1m}}", pause.as_secs(), busy.as_secs());
    let exchange = Arc::new(Exchange::start_with(&options, start));
    let scenario = exchange.scenario().await;
    let network = Network::new(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut machine = machine(&exchange, &network, seed, dir.path());
    machine.tick = TICK;
    let sessions = Arc::<Mutex<Sessions>>::default();
    let watching = tokio::spawn(Sessions::watch(Arc::clone(&sessions), Arc::clone(&exchange)));
    let mut report = Report { seed, days: Decimal::from(time.as_secs()) / Decimal::from(86_400), ..Report::default() };

    let bot = Bot::start(&machine, 1).await;
    let desk = Desk { exchange: &exchange, network: &network, machine: &machine, bot, epoch: 1, control: Vec::new() };
    let mut rng = StdRng::seed_from_u64(seed);
    let mut desk = script(desk, &mut rng, busy, pause, &mut report).await;
    // Without faults it trades again, and what it then holds is compared.
    exchange.fault(json!({"clear": true})).await;
    desk = desk.take(&Step::Release).await;
    sleep(CALM).await;
    let before = desk.bot.view.borrow().clone();
    assert!(!before.future_owned_contracts.is_zero(), "it does not trade any more: {before:#?}");
    let shown = finish(desk).await.unwrap();
    watching.abort();

    let truth = exchange.truth().await;
    let differences = [
        shown.view.spot_owned_base - truth.spot,
        shown.view.future_owned_contracts - truth.contracts,
        shown.view.fees_quote - truth.fees_quote,
        (shown.view.cash_quote - truth.cash_quote).round_dp(2),
    ];
    report.differences = differences.iter().filter(|difference| !difference.is_zero()).count();
    report.process_kills = shown.restarts;
    let journal = exchange.transcript().await;
    count(&journal, &mut report);
    report.struck.extend(exchange.struck().await);
    let mut transcript = network.transcript.lock().unwrap();
    transcript.add(0, b'j', serde_json::to_string(&journal).unwrap().as_bytes());
    (report.transcript_hash, report.requests, report.frames) =
        (transcript.hash(), transcript.requests, transcript.frames);
    report.faults += scenario;
    report.struck.extend(shown.struck.iter().map(|(kind, count)| ((*kind).to_owned(), *count)));
    report.struck.extend([("kill_switch".into(), report.kills), ("process_killed".into(), report.process_kills)]);
    let sessions = sessions.lock().unwrap();
    (report.session_closures, report.overnight_windows) = (sessions.closed.len(), sessions.overnight.len());
    report.weekly_breaks = sessions.closed.iter().filter(|time| time.starts_with(BREAK)).count();
    report
}

fn count(journal: &[Value], report: &mut Report) {
    let of = |kind: &str| journal.iter().filter(|event| event["kind"] == kind).count();
    (report.orders, report.fills) = (of("order_accepted"), of("fill"));
    let mut held = false;
    for event in journal.iter().filter(|event| event["kind"] == "position_changed" && event["product_id"] == FUTURE) {
        let position = event["position"].to_string();
        let holds = !matches!(position.trim_matches('"').trim_matches('0'), "" | ".");
        report.round_trips += usize::from(held && !holds);
        held = holds;
    }
}

fn on_a_virtual_clock(seed: u64, start: &'static str, time: Duration, pause: Duration) -> Report {
    let began = std::time::Instant::now();
    let report = paused(simulated(seed, start, time, pause));
    println!("\n{}", serde_json::to_string(&report).unwrap());
    eprintln!("seed {seed}: {} days took {} s", report.days.round_dp(2), began.elapsed().as_secs());
    report
}

#[test]
fn a_friday_evening_under_faults_ends_with_the_same_view_on_both_sides_and_again_the_same_way() {
    let hours = Duration::from_secs(2 * 3600);
    // Both at once: whatever differs between two runs of this process must not matter.
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let run = |seed| scope.spawn(move || on_a_virtual_clock(seed, FRIDAY, hours, Duration::from_secs(240)));
        [run(1), run(1)].map(|run| run.join().unwrap()).into()
    });
    assert_eq!(reports[0], reports[1]);
    let Report { orders, fills, faults, kills, process_kills, weekly_breaks, differences, .. } = reports[0];
    assert!(orders > 10 && fills > 5 && faults > 5 && kills >= 1 && process_kills >= 1, "{:?}", reports[0]);
    assert_eq!((weekly_breaks, differences), (1, 0), "{:?}", reports[0]);
}

/// `make week SEED=n DAYS=7`.
#[test]
#[ignore = "minutes; make week runs it"]
fn a_week_under_faults_ends_with_the_same_view_on_both_sides() {
    let seed = std::env::var("SEED").map_or(1, |text| text.parse().unwrap());
    let days: f64 = std::env::var("DAYS").map_or(7.0, |text| text.parse().unwrap());
    let report = on_a_virtual_clock(seed, START, Duration::from_secs_f64(days * 86_400.0), PAUSE);
    assert!(report.round_trips >= 20 && report.kills >= 3 && report.process_kills >= 3, "{report:?}");
    assert!(Decimal::from(report.faults) >= report.days * Decimal::from(FAULTS_A_DAY), "{report:?}");
    if days >= 7.0 {
        assert!(report.weekly_breaks >= 1 && report.overnight_windows >= 5, "{report:?}");
        let never: Vec<&str> =
            KINDS.into_iter().filter(|kind| report.struck.get(*kind).is_none_or(|count| *count == 0)).collect();
        assert!(never.is_empty(), "these faults never struck: {never:?}");
    }
}
