//! What `arb-bot capture` writes: the simulator replays it to the same prices, and no gap is silent.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use exchange_simulator::server::Options;
use exchange_simulator::server::faults::request::FaultRequest;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use market_recording::{Price, Row, Series};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::super::market_data::{Interpreter, MarketData, Raw, Source, Told};
use super::in_process::Venue;
use super::{FUTURE, SPOT};
use crate::cli::capture::{Capture, Recording, Transcript};
use crate::randomness::Randomness;

const EXCHANGE: &str = "https://simulator";

fn products() -> Vec<String> {
    vec![FUTURE.to_owned(), SPOT.to_owned()]
}

/// Both files, and where the recording begins and ends.
struct Files {
    recording: String,
    transcript: String,
    span: (Timestamp, Timestamp),
}

impl Files {
    fn rows(&self) -> Vec<Row> {
        let lines = self.recording.lines().skip(1).filter(|line| !line.starts_with('#'));
        lines.map(|line| line.parse().unwrap()).collect()
    }

    /// What was written of a product's price, without the times.
    fn prices(&self, product: &str) -> Vec<Price> {
        let of_product = self.rows().into_iter().filter(|row| row.product == product && row.price != Price::Unchanged);
        of_product.map(|row| row.price).collect()
    }

    fn rates(&self) -> Vec<(Timestamp, String)> {
        self.rows().into_iter().filter_map(|row| Some((row.time, row.funding_rate?.to_string()))).collect()
    }
}

/// Records for a while, with a script running beside it.
async fn record(venue: &Venue, lasting: Duration, script: impl Future<Output = ()>) -> Files {
    let source = Source {
        rest_url: EXCHANGE.to_owned(),
        web_socket_url: "wss://simulator/ws".to_owned(),
        ca_file: None,
        key: None,
        products: products(),
    };
    let transport = venue.connector(mpsc::channel(1).0).transport;
    let data = MarketData::open(source, transport, venue.clock.clone(), Randomness::seeded(1)).await.unwrap();
    let data = Arc::new(data);
    let began = data.now();
    let mut capture = Capture {
        recording: Recording::begin(Vec::new(), &products(), EXCHANGE, began).unwrap(),
        transcript: Some(Transcript::new(Vec::new())),
        shows_progress: false,
    };
    for told in data.products().await.unwrap() {
        capture.take(&told).unwrap();
    }
    let until = Some(Instant::now() + lasting);
    let (recorded, ()) = tokio::join!(capture.run(&data, until, CancellationToken::new()), script);
    recorded.unwrap();
    let ended = data.now();
    let (recording, _, prices) = capture.recording.finish(ended).unwrap();
    assert!(prices > 0);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let transcript = text(capture.transcript.unwrap().into_inner());
    Files { recording: text(recording), transcript, span: (began, ended) }
}

fn fault(venue: &Venue, fault: Value) {
    let Value::Object(object) = fault else { panic!("{fault} is not an object") };
    let request = FaultRequest::from_object(object).unwrap();
    let (mut state, now) = venue.simulator.app.lock();
    venue.simulator.app.inject(&mut state, &request, now).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_recording_replays_to_the_same_best_prices_and_funding_rates() {
    let options = || Options { tick: Duration::from_secs(1), ..Options::default() };
    let lasting = Duration::from_secs(61 * 60);
    let first = record(&Venue::open_with(options()), lasting, async {}).await;
    assert_eq!(first.rates().len(), 2, "an hour ended: {:?}", first.rates());

    let mut replaying = options();
    // Another crowd, which without the recording would make other prices.
    replaying.settings.seed = 99;
    replaying.settings.replay = Some(Arc::new(Series::parse(&first.recording).unwrap()));
    let second = record(&Venue::open_with(replaying), lasting, async {}).await;
    assert_eq!(first.rates(), second.rates());
    for product in products() {
        let (recorded, replayed) = (first.prices(&product), second.prices(&product));
        assert!(recorded.len() > 500, "{product} has {} prices", recorded.len());
        // At the end one of them may have seen a step that the other did not.
        assert!(recorded.len().abs_diff(replayed.len()) <= 2, "{product}: {} {}", recorded.len(), replayed.len());
        for (nth, (recorded, replayed)) in recorded.iter().zip(&replayed).enumerate() {
            assert_eq!(recorded, replayed, "price {nth} of {product}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_written_from_the_last_thing_heard_until_prices_are_back() {
    let venue = Venue::open(1);
    let cut_at = venue.clock.now() + SignedDuration::from_secs(30);
    let script = async {
        sleep(Duration::from_secs(30)).await;
        venue.unreachable.store(true, Ordering::Relaxed);
        fault(&venue, json!({"kind": "websocket_disconnect"}));
        sleep(Duration::from_secs(40)).await;
        venue.unreachable.store(false, Ordering::Relaxed);
    };
    let files = record(&venue, Duration::from_secs(100), script).await;
    let rows = files.rows();
    for product in products() {
        let prices: Vec<&Row> =
            rows.iter().filter(|row| row.product == product && row.price != Price::Unchanged).collect();
        let gap = prices.iter().position(|row| row.price == Price::Gap).expect("a gap");
        let lasted = prices[gap + 1].time.duration_since(prices[gap].time);
        let late = prices[gap].time.duration_since(cut_at).abs();
        assert!(late <= SignedDuration::from_secs(2), "{product}: the gap begins {late} beside the cut");
        assert!((38..=48).contains(&lasted.as_secs()), "{product}: a gap of {lasted}");
        assert_eq!(prices.iter().filter(|row| row.price == Price::Gap).count(), 1);
    }
    assert!(files.recording.ends_with(" 2 gaps\n"), "{}", files.recording.lines().last().unwrap());
    let lost = files.transcript.lines().filter(|line| line.contains(r#""kind":"lost""#)).count();
    assert!(lost >= 1 && files.transcript.contains(r#""kind":"unanswered""#), "both are in the transcript");
}

#[tokio::test(start_paused = true)]
async fn missing_frames_are_a_gap_and_the_transcript_gives_the_same_recording_again() {
    let venue = Venue::open(3);
    for kind in ["sequence_gap", "reorder_frames", "duplicate_frames"] {
        fault(&venue, json!({"kind": kind, "rate": 0.002}));
    }
    let files = record(&venue, Duration::from_secs(300), async {}).await;
    let gaps = files.prices(SPOT).iter().filter(|price| **price == Price::Gap).count();
    assert!(gaps > 0, "frames were missing");

    let (began, ended) = files.span;
    let mut again = Recording::begin(Vec::new(), &products(), EXCHANGE, began).unwrap();
    let mut interpreter = Interpreter::new(&products());
    for line in files.transcript.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let at = line["at"].as_str().unwrap().parse().unwrap();
        let raw: Raw = serde_json::from_value(line).unwrap();
        let meanings = interpreter.meanings(&raw).unwrap_or_default();
        again.take(&Told { at, raw, meanings }).unwrap();
    }
    let (again, ..) = again.finish(ended).unwrap();
    assert_eq!(String::from_utf8(again).unwrap(), files.recording);
}

#[tokio::test(start_paused = true)]
async fn a_closed_session_is_no_price_only_where_the_book_is_empty_and_its_end_is_remarked() {
    let venue = Venue::open(1);
    let script = async {
        sleep(Duration::from_secs(20)).await;
        fault(&venue, json!({"kind": "session_closed", "for": "30s"}));
    };
    let files = record(&venue, Duration::from_secs(90), script).await;
    let sessions: Vec<bool> = files
        .recording
        .lines()
        .filter(|line| line.starts_with('#') && line.contains(FUTURE))
        .map(|line| line.contains(r#""is_session_open":true"#))
        .collect();
    assert_eq!(sessions, [true, false, true], "{}", files.recording);
    assert!(!files.prices(FUTURE).contains(&Price::Gap), "nothing was missed");
}
