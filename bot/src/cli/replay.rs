//! `arb-bot replay`: whether the engine of this program decides as the recorded one did.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use indicatif::ProgressBar;

use crate::cli::output::{Format, Rows};
use crate::cli::progress;
use crate::recording::{Ending, replay};

/// Flags of `arb-bot replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Recording of a session: `arb-bot run --record` and `arb-bot backtest --record` write it.
    file: PathBuf,
    /// Form of the summary.
    #[arg(long, short = 'o', value_enum, default_value_t)]
    output: Format,
}

impl ReplayArgs {
    /// Replays the recording and prints how much there was.
    ///
    /// # Errors
    /// It is no recording, or a decision differs; the error shows the first one.
    pub fn run(self) -> anyhow::Result<()> {
        let path = self.file.display();
        let file = File::open(&self.file).with_context(|| format!("{path} cannot be read"))?;
        let progress = ProgressBar::new(file.metadata().with_context(|| format!("{path} cannot be read"))?.len());
        progress::draw(&progress);
        let done = replay(BufReader::new(progress.wrap_read(file)));
        progress.finish_and_clear();
        let done = done.with_context(|| format!("{path} is not replayed"))?;
        let ending = match done.ending {
            Ending::Whole => "complete".to_owned(),
            Ending::Incomplete(why) => format!("incomplete: {why}"),
            Ending::Cut => "cut: the bot was killed".to_owned(),
        };
        let mut rows = Rows::new(&["turns", "orders", "cancels", "from", "to", "recording", "decisions"]);
        let time = |at: Option<k8s_openapi::jiff::Timestamp>| at.map(|at| at.to_string()).unwrap_or_default();
        rows.push([
            done.turns.to_string(),
            done.orders.to_string(),
            done.cancels.to_string(),
            time(done.first),
            time(done.last),
            ending,
            "identical".to_owned(),
        ]);
        rows.print(self.output)?;
        Ok(())
    }
}
