//! `arb-bot report`: what happened, for people (Markdown) and for machines (JSON).

pub(crate) mod period;

use std::fmt::Write as _;

use anyhow::bail;
use arbbot_crds::incident::IncidentId;
use clap::{Args, Subcommand, ValueEnum};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use self::period::{FundingArgs, PeriodArgs};
use crate::cli::ledger::Place;
use crate::ledger::{self, IncidentStory, OrderRecord};

/// Reports.
#[derive(Debug, Subcommand)]
pub enum ReportCommand {
    /// One kill, from the closing of the gate to its release: times, every order, a timeline. A bot may run meanwhile.
    Incident(Incident),
    /// The last 24 hours: result, trades, slippage, fees, funding. A bot may run meanwhile.
    Daily(PeriodArgs),
    /// The last seven days, for the weekly review.
    Weekly(PeriodArgs),
    /// Funding: rates, what accrued and what was paid.
    Funding(FundingArgs),
}

impl ReportCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// There is no such ledger or incident; the error says what to do.
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Incident(incident) => incident.run().await,
            Self::Daily(period) => period.run("Daily report", 1).await,
            Self::Weekly(period) => period.run("Weekly review", 7).await,
            Self::Funding(funding) => funding.run().await,
        }
    }
}

/// Form of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people.
    #[default]
    Markdown,
    Json,
}

#[derive(Debug, Args)]
pub struct Incident {
    #[command(flatten)]
    place: Place,
    /// Form of the report.
    #[arg(long, short = 'o', value_enum, default_value_t)]
    output: Form,
    /// Id of the incident, as status shows it.
    id: IncidentId,
}

impl Incident {
    async fn run(self) -> anyhow::Result<()> {
        let place = self.place.ledger();
        let Some(story) = ledger::incident(&place, &self.id).await? else {
            let known: Vec<_> =
                ledger::incidents(&place).await?.iter().map(|(known, _)| known.id.to_string()).collect();
            bail!("the ledger does not know the incident {}; it knows: {}", self.id, or_none(&known.join(", ")));
        };
        match self.output {
            Form::Markdown => print!("{}", markdown(&story)),
            Form::Json => println!("{:#}", as_json(&story)),
        }
        Ok(())
    }
}

/// The steps of a kill and when each was reached.
fn steps(story: &IncidentStory) -> [(&'static str, Option<Timestamp>); 5] {
    let incident = &story.incident;
    [
        ("gate closed", Some(incident.engaged_at)),
        ("orders gone, seen once", incident.orders_cancelled_at),
        ("flat, seen once", incident.flat_at),
        ("proven: seen twice, 2 s apart", story.finished_at),
        ("released", story.released_at),
    ]
}

fn markdown(story: &IncidentStory) -> String {
    let incident = &story.incident;
    let mut text = format!("# Incident {}\n\n", incident.id);
    let facts = [
        ("Source", incident.source.clone()),
        ("Action", incident.action.to_string()),
        ("Reason", or_none(&incident.reason)),
        ("Phase", incident.phase.to_string()),
    ];
    for (name, value) in facts {
        text += &format!("- {name}: {}\n", one_line(&value));
    }
    text += "\n| step | time | after |\n|---|---|---|\n";
    for (step, at) in steps(story) {
        let (time, after) =
            at.map_or_else(|| ("not yet".to_owned(), String::new()), |at| (at.to_string(), after(story, at)));
        let _ = writeln!(text, "| {step} | {time} | {after} |");
    }
    text += "\n## Orders\n\n";
    if story.orders.is_empty() {
        text += "None was sent.\n";
    } else {
        text += "| order | class | side | size | product | kind | filled | average price | fees | status |\n";
        text += "|---|---|---|---|---|---|---|---|---|---|\n";
    }
    for order in &story.orders {
        let _ = writeln!(text, "| {} |", cells(order).map(|(_, value)| one_line(&value)).join(" | "));
    }
    text += "\n## Timeline, as the ledger took it in\n\n| after | event | detail |\n|---|---|---|\n";
    for moment in &story.timeline {
        let _ = writeln!(text, "| {} | {} | {} |", after(story, moment.at), moment.event, one_line(&moment.detail));
    }
    text
}

fn as_json(story: &IncidentStory) -> Value {
    let incident = &story.incident;
    let seconds = |at: Option<Timestamp>| at.map(|at| story.after(at).as_secs_f64());
    let order = |order: &OrderRecord| -> Value {
        cells(order).map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
    };
    let timeline = story.timeline.iter();
    let timeline =
        timeline.map(|m| json!({"time": m.at, "after_s": seconds(Some(m.at)), "event": m.event, "detail": m.detail}));
    json!({
        "id": incident.id.to_string(),
        "source": incident.source,
        "action": incident.action,
        "reason": incident.reason,
        "phase": incident.phase,
        "engaged_at": incident.engaged_at,
        "orders_cancelled_after_s": seconds(incident.orders_cancelled_at),
        "flat_after_s": seconds(incident.flat_at),
        "proven_after_s": seconds(story.finished_at),
        "released_after_s": seconds(story.released_at),
        "orders": story.orders.iter().map(order).collect::<Vec<_>>(),
        "timeline": timeline.collect::<Vec<_>>(),
    })
}

/// An order under the names that both forms use.
fn cells(order: &OrderRecord) -> [(&'static str, String); 10] {
    [
        ("client_order_id", order.client_order_id.clone()),
        ("class", order.class.map(|class| class.to_string()).unwrap_or_default()),
        ("side", order.side.to_string()),
        ("size", order.size.normalize().to_string()),
        ("product", order.product.clone()),
        ("kind", order.kind.clone()),
        ("filled", order.filled.normalize().to_string()),
        ("average_price", order.average_price.normalize().to_string()),
        ("fees_quote", order.fees_quote.normalize().to_string()),
        ("status", order.status.to_string()),
    ]
}

/// Time since the gate closed, in seconds.
fn after(story: &IncidentStory, at: Timestamp) -> String {
    format!("+{:.3} s", SignedDuration::as_secs_f64(&story.after(at)))
}

fn or_none(text: &str) -> String {
    if text.is_empty() { "none".to_owned() } else { text.to_owned() }
}

/// What comes from outside may hold anything; a table's cell is one line without a bar.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || c == '|' { ' ' } else { c }).collect()
}
