//! What a run has shown: one line of JSON, and a page.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::Number;

use super::compared::Compared;
use super::performance::{daily_returns, max_drawdown_quote, pnl_quote, sharpe};
use crate::judge::accepted::{Finding, Verdict};

/// Findings on the page.
const SHOWN: usize = 50;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub seed: u64,
    /// `spec.risk.capital` of the bot: denominator of the daily returns.
    pub capital_quote: Decimal,
    /// SHA-256 of everything on the wire and of the exchange's journal.
    pub transcript_hash: String,
    pub days: Decimal,
    pub orders: usize,
    pub fills: usize,
    /// Times that the futures position went back to nothing.
    pub round_trips: usize,
    pub kills: u64,
    pub process_kills: u64,
    /// Beginnings of closed sessions: Friday's break, and faults.
    pub session_closures: usize,
    pub weekly_breaks: usize,
    pub overnight_windows: usize,
    /// Faults that began: of the script and of the exchange's own scenario.
    pub faults: u64,
    /// How often each kind took effect: on a request, a frame, an order, or once as a whole.
    pub struck: BTreeMap<String, u64>,
    pub requests: u64,
    pub frames: u64,
    pub compared: Vec<Compared>,
    /// What else does not fit between bot, ledger and exchange.
    pub disagreement: Option<String>,
    pub limit_violations: Vec<Finding>,
    pub wrong_orders: Vec<Finding>,
    pub nearest: BTreeMap<&'static str, Decimal>,
    pub raising: usize,
    pub while_closed: usize,
    /// At every full hour, in quote currency.
    pub equity: Vec<Decimal>,
    pub equity_at_the_end: Decimal,
    /// Accrued at the exchange and not yet paid.
    pub accrued_quote: Decimal,
}

/// The line that `make soak` prints; money in quote currency.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    seed: u64,
    transcript_hash: &'a str,
    days: Number,
    orders: usize,
    round_trips: usize,
    kills: u64,
    session_closures: usize,
    overnight_windows: usize,
    faults: u64,
    ledger_difference: Number,
    limit_violations: usize,
    wrong_orders: usize,
    pnl: Number,
    /// Absent for less than two days.
    sharpe: Option<Number>,
    max_drawdown: Number,
}

impl Report {
    pub fn judged(self, verdict: Verdict) -> Self {
        let Verdict { limit_violations, wrong_orders, nearest, raising, while_closed } = verdict;
        Self { limit_violations, wrong_orders, nearest, raising, while_closed, ..self }
    }

    /// Σ of the differences, each at its worth, in quote currency.
    pub fn ledger_difference(&self) -> Decimal {
        self.compared.iter().map(|of| of.difference().abs() * of.unit_quote).sum::<Decimal>().normalize()
    }

    fn returns(&self) -> Vec<Decimal> {
        daily_returns(&self.equity, self.capital_quote)
    }

    fn with_the_end(&self) -> Vec<Decimal> {
        self.equity.iter().copied().chain([self.equity_at_the_end]).collect()
    }

    /// The line that `make soak` prints.
    pub fn line(&self) -> Line<'_> {
        let equity = self.with_the_end();
        Line {
            seed: self.seed,
            transcript_hash: &self.transcript_hash,
            days: number(self.days.round_dp(4)),
            orders: self.orders,
            round_trips: self.round_trips,
            kills: self.kills,
            session_closures: self.session_closures,
            overnight_windows: self.overnight_windows,
            faults: self.faults,
            ledger_difference: number(self.ledger_difference()),
            limit_violations: self.limit_violations.len(),
            wrong_orders: self.wrong_orders.len(),
            pnl: number(pnl_quote(&equity).round_dp(2)),
            sharpe: sharpe(&self.returns()).map(|sharpe| number(sharpe.round_dp(2))),
            max_drawdown: number(max_drawdown_quote(&equity).round_dp(2)),
        }
    }

    /// Writes the page and returns where it is.
    pub fn write(&self) -> std::io::Result<PathBuf> {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let path = path.join(format!("soak-seed-{}-days-{}.md", self.seed, self.days.round_dp(2).normalize()));
        std::fs::write(&path, self.page()).map(|()| path)
    }

    fn page(&self) -> String {
        let mut page = format!(
            "# {} simulated days, seed {}\n\nTranscript {}: {} requests, {} frames.\n",
            self.days.round_dp(2).normalize(),
            self.seed,
            self.transcript_hash,
            self.requests,
            self.frames
        );
        let line = serde_json::to_value(self.line()).unwrap();
        table(&mut page, "The run", &["what", "value"], line.as_object().into_iter().flatten(), |(name, value)| {
            vec![name.clone(), value.to_string()]
        });
        table(&mut page, "Ledger and exchange", &["what", "exchange", "ledger", "difference"], &self.compared, |of| {
            let normal = |value: Decimal| value.normalize().to_string();
            vec![of.what.to_owned(), normal(of.exchange), normal(of.ledger), of.difference().to_string()]
        });
        let accrued = self.accrued_quote.round_dp(8).normalize();
        let _ = writeln!(
            page,
            "\nAccrued at the exchange and not yet paid: {accrued} of funding, in quote currency. No books have it; the \
             profit has it."
        );
        if let Some(disagreement) = &self.disagreement {
            let _ = writeln!(page, "\n**{disagreement}**");
        }
        table(&mut page, "Nearest to each limit", &["limit", "share of it"], &self.nearest, |(limit, share)| {
            vec![(*limit).to_owned(), share.to_string()]
        });
        let _ = writeln!(
            page,
            "\n{} orders raised a leg; {} orders were accepted while nothing might raise one.",
            self.raising, self.while_closed
        );
        for (name, findings) in [("Limits broken", &self.limit_violations), ("Wrong orders", &self.wrong_orders)] {
            let shown = findings.iter().take(SHOWN);
            table(&mut page, name, &["time", "order", "rule", "what"], shown, |of| {
                vec![of.time.to_string(), of.client_order_id.clone(), of.rule.to_owned(), of.message.clone()]
            });
        }
        table(&mut page, "Faults", &["kind", "took effect"], &self.struck, |(kind, count)| {
            vec![kind.clone(), count.to_string()]
        });
        let days = self.equity.iter().step_by(24).enumerate();
        table(&mut page, "Equity", &["day", "equity", "since the day before"], days, |(day, equity)| {
            let before = day.checked_sub(1).and_then(|before| self.equity.get(before * 24)).unwrap_or(equity);
            vec![day.to_string(), equity.round_dp(2).to_string(), (equity - before).round_dp(2).to_string()]
        });
        page
    }
}

/// Decimals as JSON numbers, so that a reader can compare them with 0.
fn number(value: Decimal) -> Number {
    value.normalize().to_string().parse().unwrap()
}

fn table<T>(
    page: &mut String,
    title: &str,
    columns: &[&str],
    rows: impl IntoIterator<Item = T>,
    cells: impl Fn(T) -> Vec<String>,
) {
    let rule = vec!["---"; columns.len()].join(" | ");
    let rows: String = rows.into_iter().map(|row| format!("| {} |\n", cells(row).join(" | "))).collect();
    let rows = if rows.is_empty() { "\nNone.\n".to_owned() } else { rows };
    let head = format!("| {} |\n| {rule} |\n", columns.join(" | "));
    let _ = if rows.starts_with('|') {
        write!(page, "\n## {title}\n\n{head}{rows}")
    } else {
        write!(page, "\n## {title}\n{rows}")
    };
}
