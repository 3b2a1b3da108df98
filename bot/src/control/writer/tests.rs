//! The status task against an API server that fails, refuses, or knows an older definition.

use std::sync::Mutex;

use super::*;
use crate::books::BooksView;
use crate::control::fixtures::{self, Answer, refusal};
use crate::ledger::{Binding, LedgerError};
use crate::risk::gate::PolicyVersion;
use arbbot_crds::arbbot::ControlTimeouts;
use arbbot_crds::limits::RiskLimits;
use arbbot_crds::status::{AppliedPolicy, BotStatus, EffectiveMode, LeaseStatus, LedgerStatus};

/// An API server that takes status, and what it was sent.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Vec<Value>>>);

impl Server {
    /// A client of it. `answer` sees the number of the write, from 1, and the status in it.
    fn client(&self, answer: impl Fn(usize, &Value) -> Option<Answer> + Clone + Send + 'static) -> Client {
        let sent = Arc::clone(&self.0);
        fixtures::client(move |request| {
            let body: Value = serde_json::from_slice(request.body()).unwrap();
            let mut sent = sent.lock().unwrap();
            sent.push(body["status"].clone());
            let answer = answer(sent.len(), &body["status"]).unwrap_or_else(|| (200, json!(fixtures::bot())));
            async move { answer }
        })
    }

    fn sent(&self) -> Vec<Value> {
        self.0.lock().unwrap().clone()
    }
}

fn binding() -> Binding {
    Binding {
        bot_uid: "0b9d6bcd-uid".to_owned(),
        execution: "Live".to_owned(),
        venue: "coinbase/api.coinbase.com".to_owned(),
        portfolio: "p".to_owned(),
        spot_product: "S".to_owned(),
        future_product: "F".to_owned(),
    }
}

/// A ledger; from here on time is paused.
async fn ledger(dir: &tempfile::TempDir) -> Ledger {
    let (ledger, _) = Ledger::open(dir.path(), &binding(), Clock::manual()).await.unwrap();
    tokio::time::pause();
    ledger
}

fn task(client: Client, ledger: &Ledger) -> StatusTask {
    let clock = Clock::manual();
    let gate = Arc::new(Gate::new(clock.clone()));
    let view = fixtures::view(&clock, &gate.current().0);
    StatusTask {
        sink: StatusSink::Kubernetes { client, namespace: "desk".to_owned(), name: "carry".to_owned() },
        pod_uid: "a".to_owned(),
        node: "n".to_owned(),
        clock,
        gate,
        ledger: ledger.clone(),
        control: watch::channel(ControlFacts::default()).1,
        session: watch::channel(SessionFacts::default()).1,
        view: watch::channel(view).1,
        books: watch::channel(BooksView::default()).1,
        metrics: Metrics::new().unwrap(),
    }
}

fn failure() -> Answer {
    refusal(500, "InternalError", "etcdserver: request timed out")
}

fn stopped() -> CancellationToken {
    let stop = CancellationToken::new();
    stop.cancel();
    stop
}

/// What a task that is stopped at once writes.
async fn last_words(task: StatusTask, before: Option<ArbBotStatus>) {
    timeout(Duration::from_secs(60), task.run(before, stopped())).await.unwrap();
}

#[tokio::test]
async fn the_last_word_is_tried_until_it_is_written_but_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(&dir).await;
    for (taken, tried) in [(1, 1), (4, 4), (9, 4)] {
        let server = Server::default();
        let client = server.client(move |write, _| (write < taken).then(failure));
        last_words(task(client, &ledger), None).await;
        assert_eq!(server.sent().len(), tried, "the server takes write {taken}");
    }
}

#[tokio::test]
async fn the_last_word_is_written_also_where_the_control_is_never_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(&dir).await;
    let (server, stop) = (Server::default(), CancellationToken::new());
    let task = task(server.client(|_, _| None), &ledger);
    let (limits, timeouts) = (RiskLimits::default(), ControlTimeouts::default());
    task.gate.set_control(&limits, &timeouts, Vec::new(), Some(2), Vec::new());
    let running = tokio::spawn(task.run(None, stop.clone()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(server.sent().is_empty(), "its acknowledgement is the next write");
    stop.cancel();
    timeout(Duration::from_secs(60), running).await.unwrap().unwrap();
    let sent = server.sent();
    assert_eq!((sent.len(), &sent[0]["bot"]["podUid"]), (1, &json!("a")));
}

#[tokio::test]
async fn a_process_that_has_not_yet_read_the_lease_does_not_unsay_who_held_it() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(&dir).await;
    let server = Server::default();
    let bot = BotStatus { lease: Some(LeaseStatus { holder: "z".to_owned(), epoch: 6 }), ..BotStatus::default() };
    let before = ArbBotStatus { bot: Some(bot), ..ArbBotStatus::default() };
    last_words(task(server.client(|_, _| None), &ledger), Some(before)).await;
    assert_eq!(server.sent()[0]["bot"]["lease"], json!({"holder": "z", "epoch": 6}));
}

/// Another pod of the bot may trade, with the ledger. Fails when `is_silent` is left out.
#[tokio::test]
async fn a_bot_without_its_ledger_says_nothing_before_it_is_the_trader() {
    let dir = tempfile::tempdir().unwrap();
    let why = LedgerError::Missing { ledger: "desk/carry".to_owned() };
    let (ledger, _) = Ledger::unread(dir.path(), &binding(), None, Clock::manual(), &why).unwrap();
    let waiting = Standing::Waiting { why: String::new(), last: LeaseStatus::default() };
    for (standing, written) in [(None, 0), (Some(waiting), 0), (Some(Standing::Trader { epoch: 1 }), 1)] {
        let server = Server::default();
        let mut task = task(server.client(|_, _| None), &ledger);
        task.control = watch::channel(ControlFacts { standing, ..ControlFacts::default() }).1;
        last_words(task, None).await;
        assert_eq!(server.sent().len(), written);
    }
}

/// A status with every word that matters, and one that an older definition does not know.
fn status() -> ArbBotStatus {
    let halted = json!({
        "type": "Halted", "status": "True", "reason": "NoOrdersWorking", "message": "", "lastTransitionTime": "1970-01-01T00:00:00Z",
    });
    let bot = BotStatus {
        applied_generation: Some(3),
        effective_mode: Some(EffectiveMode::Halted),
        lease: Some(LeaseStatus { holder: "a".to_owned(), epoch: 2 }),
        ledger: Some(LedgerStatus { entries: 4, head: "h".to_owned() }),
        owned_since: Some(Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH)),
        pod_uid: Some("a".to_owned()),
        ..BotStatus::default()
    };
    let conditions = vec![serde_json::from_value(halted).unwrap()];
    ArbBotStatus { conditions, bot: Some(bot), kill_switch: Some(Default::default()), ..ArbBotStatus::default() }
}

#[tokio::test]
async fn an_older_definition_gets_the_words_that_it_knows() {
    let invalid = refusal(422, "Invalid", "status.bot.effectiveMode: Unsupported value: \"Halted\"");
    let unknown = refusal(500, "InternalError", ".status.bot.effectiveMode: field not declared in schema");
    for refused in [invalid, unknown] {
        let server = Server::default();
        let client = server.client(move |_, status| status["bot"].get("effectiveMode").map(|_| refused.clone()));
        apply_known(&client, "desk", "carry", &status()).await.unwrap();
        let essential = json!({
            "conditions": status().conditions,
            "killSwitch": {"incidents": []},
            "bot": {
                "appliedGeneration": 3, "podUid": "a", "ownedSince": "1970-01-01T00:00:00Z",
                "lease": {"holder": "a", "epoch": 2}, "ledger": {"entries": 4, "head": "h"},
            },
        });
        assert_eq!(server.sent()[1..], [essential]);
    }
}

#[tokio::test]
async fn a_definition_that_refuses_even_the_essential_words_is_named() {
    let server = Server::default();
    let client = server.client(|_, _| Some(refusal(422, "Invalid", "status.killSwitch: too old")));
    let error = apply_known(&client, "desk", "carry", &status()).await.unwrap_err().to_string();
    assert!(error.contains("even the shortened status") && error.contains("status.killSwitch: too old"), "{error}");
    assert_eq!(server.sent().len(), 2);
}

#[tokio::test]
async fn an_api_server_that_fails_is_not_an_older_definition() {
    let server = Server::default();
    let error = apply_known(&server.client(|_, _| Some(failure())), "desk", "carry", &status()).await.unwrap_err();
    assert!(matches!(error, WriteError::Api(_)), "{error}");
    assert_eq!(server.sent().len(), 1);
}

#[test]
fn nothing_is_written_between_the_gate_and_its_acknowledgement() {
    let gate = Gate::new(Clock::manual());
    let mut control = ControlFacts::default();
    assert!(is_acknowledged(&control, &gate), "a bot that has read nothing yet says so");
    let desk = PolicyVersion { name: "desk".to_owned(), generation: 3 };
    gate.set_control(&RiskLimits::default(), &ControlTimeouts::default(), Vec::new(), Some(2), vec![desk]);
    assert!(!is_acknowledged(&control, &gate));
    control.generation = Some(2);
    assert!(!is_acknowledged(&control, &gate), "the policy is in force, too");
    control.policies = vec![AppliedPolicy { name: "desk".to_owned(), uid: "u".to_owned(), generation: 3 }];
    assert!(is_acknowledged(&control, &gate));
}

/// Proven by mutation: without the lines of `compose` that set them this fails.
#[tokio::test]
async fn books_that_do_not_add_up_are_a_metric() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(&dir).await;
    let server = Server::default();
    let mut task = task(server.client(|_, _| None), &ledger);
    let metrics = task.metrics.clone();
    let problem = Some("order b-1-1-Enter shows 2 filled".to_owned());
    task.books = watch::channel(BooksView { outstanding: 3, problem, ..BooksView::default() }).1;
    last_words(task, None).await;
    assert_eq!((metrics.fills_outstanding.get(), metrics.books_problem.get()), (3, 1));
}
