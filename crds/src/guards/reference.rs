//! What every metric means and which guards are shipped, as `docs/guards.md` shows it.

use std::fmt::Write as _;

use strum::IntoEnumIterator as _;

use super::{Guard, GuardMetric, Meaning, Worse, defaults};
use crate::decimal::DecimalString;

const HEAD: &str = include_str!("head.md");

/// `docs/guards.md`.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(HEAD);
    // Writing to a String cannot fail.
    let _ =
        writeln!(page, "| Guard | Metric | `warnAt` | `tripAt` | `action` | `release` |\n|---|---|---|---|---|---|");
    for guard in defaults() {
        let (warn, trip) = (at(guard.warn_at), at(guard.trip_at));
        let (name, metric, action, release) = (&guard.name, guard.metric, guard.action, guard.release());
        let _ = writeln!(page, "| `{name}` | {metric} | {warn} | {trip} | {action} | {release} |");
    }
    let _ = write!(page, "\nAll have `confirmations: 3`. Without a default are: {}.\n", without_default());
    let _ = write!(page, "\n## Metrics\n\n| Metric | Unit, worse | Formula | Window | Least sample | Without data |\n");
    let _ = writeln!(page, "|---|---|---|---|---|---|");
    for metric in GuardMetric::iter() {
        let Meaning { formula, unit, window, sample, without_data, worse } = metric.meaning();
        let worse = if worse == Worse::Higher { "↑" } else { "↓" };
        let _ = writeln!(page, "| {metric} | {unit} {worse} | {formula} | {window} | {sample} | {without_data} |");
    }
    page
}

fn at(at: Option<DecimalString>) -> String {
    at.map_or_else(|| "—".to_owned(), |at| at.to_string())
}

fn without_default() -> String {
    let guards: Vec<Guard> = defaults();
    let without = GuardMetric::iter().filter(|metric| guards.iter().all(|guard| guard.metric != *metric));
    without.map(|metric| metric.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_page_is_what_the_types_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guards.md");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == markdown(), "{path} is out of date: run `make manifests`");
    }

    #[test]
    fn every_metric_says_everything() {
        for metric in GuardMetric::iter() {
            let Meaning { formula, unit, window, sample, without_data, .. } = metric.meaning();
            for text in [formula, unit, window, sample, without_data] {
                assert!(!text.is_empty() && !text.contains('|') && !text.contains('\n'), "{metric}: {text:?}");
            }
        }
    }
}
