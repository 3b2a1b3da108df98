//! Reports on a day, a week, and on funding: the same figures as Markdown and as JSON, from the ledger alone.

use std::fmt::Write as _;

use anyhow::Context;
use clap::Args;
use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use super::Form;
use crate::books::summary::{Spread, Summary, ending, now_inclusive};
use crate::cli::ledger::Place;
use crate::ledger;

/// Which period.
#[derive(Debug, Args)]
pub struct PeriodArgs {
    #[command(flatten)]
    place: Place,
    /// Form of the report.
    #[arg(long, short = 'o', value_enum, default_value_t)]
    output: Form,
    /// End of the period, in RFC 3339. Default: now, the hour that runs included.
    #[arg(long, value_name = "TIME")]
    to: Option<Timestamp>,
    /// What returns are measured against, in quote currency: `spec.risk.capital`. Default: the largest value that a leg had
    /// in the period.
    #[arg(long, value_name = "QUOTE")]
    capital: Option<Decimal>,
}

/// How long a funding report looks back, when nothing is said.
const FUNDING_DAYS: i64 = 30;

#[derive(Debug, Args)]
pub struct FundingArgs {
    #[command(flatten)]
    period: PeriodArgs,
    /// Days to look back.
    #[arg(long, default_value_t = FUNDING_DAYS, value_parser = clap::value_parser!(i64).range(1..=3660))]
    days: i64,
}

/// A figure; None: too little is known.
pub(crate) type Figure = (&'static str, Option<String>);

/// Figures under a title.
pub(crate) struct Section {
    pub title: &'static str,
    pub figures: Vec<Figure>,
}

impl PeriodArgs {
    /// Prints the report on so many days.
    pub async fn run(self, title: &str, days: i64) -> anyhow::Result<()> {
        let summary = self.summary(days).await?;
        print!("{}", of_period(self.output, title, &summary, self.capital, Vec::new()));
        Ok(())
    }

    async fn summary(&self, days: i64) -> anyhow::Result<Summary> {
        let place = self.place.ledger();
        let to = self.to.unwrap_or_else(|| now_inclusive(Timestamp::now()));
        let books = ledger::books(&place).await?;
        Ok(Summary::of(&books, &future(&place).await?, ending(to, days)))
    }
}

/// The report on a period, with further sections at its end.
pub(crate) fn of_period(
    form: Form,
    title: &str,
    summary: &Summary,
    capital: Option<Decimal>,
    more: Vec<Section>,
) -> String {
    let mut sections = vec![result(summary, capital), trading(summary), funding(summary), running(summary)];
    sections.extend(more);
    render(form, title, summary, &sections, &losing(summary))
}

fn render(form: Form, title: &str, summary: &Summary, sections: &[Section], lines: &Lines) -> String {
    match form {
        Form::Markdown => markdown(title, summary, sections, lines),
        Form::Json => format!("{:#}\n", as_json(summary, sections, lines)),
    }
}

impl FundingArgs {
    /// Prints the report on funding.
    pub async fn run(self) -> anyhow::Result<()> {
        let summary = self.period.summary(self.days).await?;
        let (sections, lines) = ([funding(&summary)], settlements(&summary));
        print!("{}", render(self.period.output, "Funding", &summary, &sections, &lines));
        Ok(())
    }
}

async fn future(place: &ledger::Place) -> anyhow::Result<String> {
    let binding = ledger::binding(place).await?.context("the ledger belongs to nothing yet: no bot ever opened it")?;
    Ok(binding.future_product)
}

fn quote(value: Decimal) -> String {
    value.round_dp(2).normalize().to_string()
}

fn plain(value: Decimal) -> String {
    value.normalize().to_string()
}

fn result(summary: &Summary, capital: Option<Decimal>) -> Section {
    let capital = capital.unwrap_or(summary.deployed_quote);
    let percent = |value: Option<Decimal>| {
        let share = (value? * Decimal::ONE_HUNDRED).checked_div(capital)?;
        Some(plain(share.round_dp(4)))
    };
    Section {
        title: "Result",
        figures: vec![
            ("measured_from", summary.measured.map(|measured| measured.from.to_string())),
            ("measured_to", summary.measured.map(|measured| measured.to.to_string())),
            ("profit_quote", summary.profit_quote.map(quote)),
            ("capital_quote", Some(quote(capital))),
            ("return_percent", percent(summary.profit_quote)),
            ("realized_quote", Some(quote(summary.realized_quote))),
            ("unrealized_quote", summary.unrealized_quote.map(quote)),
            ("funding_quote", summary.funding_quote.map(quote)),
            ("fees_quote", Some(quote(summary.fees_quote))),
            ("sharpe", summary.sharpe.map(plain)),
            ("max_drawdown_quote", summary.max_drawdown_quote.map(quote)),
            ("max_drawdown_percent", percent(summary.max_drawdown_quote)),
        ],
    }
}

fn trading(summary: &Summary) -> Section {
    Section {
        title: "Trading",
        figures: vec![
            ("round_trips", Some(summary.trips.len().to_string())),
            ("losing_round_trips", Some(summary.losing().count().to_string())),
            ("win_rate_percent", summary.win_percent().map(plain)),
            ("orders_filled", Some(summary.orders_filled.to_string())),
            ("fills", Some(summary.fills.to_string())),
            ("maker_percent", summary.maker_percent.map(plain)),
            ("slippage_estimated_bps", summary.slippage_estimated_bps.map(plain)),
            ("slippage_realized_bps", summary.slippage_realized_bps.map(plain)),
            ("slippage_quote", Some(quote(summary.slippage_quote))),
        ],
    }
}

fn funding(summary: &Summary) -> Section {
    let funding = &summary.funding;
    let rate = |of: fn(&Spread) -> Decimal| funding.rate.as_ref().map(|rate| plain(of(rate).round_dp(9)));
    Section {
        title: "Funding",
        figures: vec![
            ("rate_average", rate(|rate| rate.average)),
            ("rate_max", rate(|rate| rate.max)),
            ("rate_min", rate(|rate| rate.min)),
            ("hours_observed", Some(funding.hours_observed.to_string())),
            ("hours_missing", Some(funding.hours_missing.to_string())),
            ("accrued_quote", Some(quote(funding.accrued_quote))),
            ("settled_quote", Some(quote(funding.settled_quote))),
            ("funding_adjustment_quote", Some(quote(funding.adjustment_quote))),
        ],
    }
}

fn running(summary: &Summary) -> Section {
    Section {
        title: "Running",
        figures: vec![
            ("hours", Some(summary.hours.to_string())),
            ("hours_recorded", Some(summary.hours_recorded.to_string())),
            // The ledger has no connections; the metric arbbot_link_up has.
            ("disconnects", None),
        ],
    }
}

/// A list under the figures: its name, its columns and its lines.
struct Lines {
    name: &'static str,
    title: &'static str,
    columns: &'static [&'static str],
    lines: Vec<Vec<String>>,
}

fn losing(summary: &Summary) -> Lines {
    let line = |trip: &crate::books::RoundTrip| {
        let figures = [trip.result_quote, trip.fees_quote, trip.funding_quote].map(quote);
        [trip.opened_at.to_string(), trip.closed_at.to_string()].into_iter().chain(figures).collect()
    };
    Lines {
        name: "losing",
        title: "Round trips that lost",
        columns: &["opened_at", "closed_at", "result_quote", "fees_quote", "funding_quote"],
        lines: summary.losing().map(line).collect(),
    }
}

fn settlements(summary: &Summary) -> Lines {
    let line = |settlement: &ledger::SettlementRecord| {
        let figures = [settlement.accrued_quote, settlement.settled_quote, settlement.adjustment_quote()];
        std::iter::once(settlement.window_end.to_string()).chain(figures.map(|f| plain(f.round_dp(8)))).collect()
    };
    Lines {
        name: "settlements",
        title: "Settlements",
        columns: &["window_end", "accrued_quote", "settled_quote", "funding_adjustment"],
        lines: summary.funding.settlements.iter().map(line).collect(),
    }
}

fn markdown(title: &str, summary: &Summary, sections: &[Section], lines: &Lines) -> String {
    let mut text = format!("# {title}: {} to {}\n", summary.period.from, summary.period.to);
    for section in sections {
        let _ = write!(text, "\n## {}\n\n| figure | value |\n|---|---|\n", section.title);
        for (name, value) in &section.figures {
            let _ = writeln!(text, "| {} | {} |", name.replace('_', " "), value.as_deref().unwrap_or("not known"));
        }
    }
    let _ = write!(text, "\n## {}\n\n", lines.title);
    if lines.lines.is_empty() {
        text += "None.\n";
        return text;
    }
    let _ =
        writeln!(text, "| {} |\n|{}", lines.columns.join(" | ").replace('_', " "), "---|".repeat(lines.columns.len()));
    for line in &lines.lines {
        let _ = writeln!(text, "| {} |", line.join(" | "));
    }
    text
}

fn as_json(summary: &Summary, sections: &[Section], lines: &Lines) -> Value {
    let mut report = Map::new();
    report.insert("from".to_owned(), json!(summary.period.from));
    report.insert("to".to_owned(), json!(summary.period.to));
    for section in sections {
        let figures = section.figures.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        report.insert(section.title.to_lowercase(), Value::Object(figures));
    }
    let line = |line: &Vec<String>| -> Value {
        lines.columns.iter().zip(line).map(|(name, value)| ((*name).to_owned(), json!(value))).collect()
    };
    report.insert(lines.name.to_owned(), lines.lines.iter().map(line).collect());
    Value::Object(report)
}
