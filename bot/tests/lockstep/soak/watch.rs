//! What is seen on the exchange's side while a run goes on: orders are judged, sessions and equity are noted.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rust_decimal::Decimal;
use tokio::time::interval;

use crate::bot::{Acknowledged, Machine};
use crate::exchange::Exchange;
use crate::judge::accepted::Judge;
use crate::judge_of;

/// How often the exchange is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// In seconds.
const HOUR: u64 = 3600;

pub struct Watch {
    pub judge: Judge,
    /// Last event of the journal that the judge has seen.
    seq: u64,
    acknowledged: Acknowledged,
    /// Whether the session was closed, and whether the overnight margin applied.
    session: (bool, bool),
    pub closed: Vec<String>,
    pub overnight: Vec<String>,
    /// At every full hour.
    pub equity: Vec<Decimal>,
}

impl Watch {
    pub fn new(machine: &Machine<'_>) -> Self {
        let acknowledged = Arc::clone(&machine.acknowledged);
        let (closed, overnight, equity) = (Vec::new(), Vec::new(), Vec::new());
        Self { judge: judge_of(machine), seq: 0, acknowledged, session: (false, false), closed, overnight, equity }
    }

    pub async fn run(of: Arc<Mutex<Self>>, exchange: Arc<Exchange>) {
        let mut looks = interval(LOOK);
        for seconds in 0_u64.. {
            looks.tick().await;
            let mut watch = of.lock().unwrap();
            watch.look(&exchange);
            if seconds.is_multiple_of(HOUR) {
                watch.equity.push(exchange.equity_quote());
            }
        }
    }

    pub fn look(&mut self, exchange: &Exchange) {
        for (time, control) in self.acknowledged.lock().unwrap().drain(..) {
            self.judge.acknowledged(time, control);
        }
        for event in exchange.journal_after(self.seq) {
            self.seq = event.seq;
            self.judge.happened(&event);
        }
        let sample = exchange.sample();
        self.judge.sampled(sample);
        let (before, now) = (self.session, exchange.session());
        if now.0 && !before.0 {
            self.closed.push(sample.time.to_string());
        }
        if now.1 && !before.1 {
            self.overnight.push(sample.time.to_string());
        }
        self.session = now;
    }
}
