//! Steps as they happen: a line with a clock on a terminal, one plain line for each step otherwise.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Steps of a command, on standard error.
pub struct Progress {
    interactive: bool,
    step: Option<Step>,
}

struct Step {
    name: String,
    started: Instant,
    line: Option<ProgressBar>,
}

impl Default for Progress {
    fn default() -> Self {
        Self { interactive: std::io::stderr().is_terminal(), step: None }
    }
}

impl Progress {
    /// Ends the present step and begins the next.
    pub fn step(&mut self, name: &str) {
        self.done();
        let line = self.interactive.then(|| {
            let line = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg}  {elapsed:.dim}") {
                line.set_style(style);
            }
            line.set_message(name.to_owned());
            line.enable_steady_tick(Duration::from_millis(100));
            line
        });
        self.step = Some(Step { name: name.to_owned(), started: Instant::now(), line });
    }

    /// Says how far the present step is; only where somebody watches.
    pub fn note(&mut self, note: &str) {
        if let Some(Step { name, line: Some(line), .. }) = &self.step {
            line.set_message(format!("{name}: {note}"));
        }
    }

    /// Ends the present step.
    pub fn done(&mut self) {
        self.end("✓");
    }

    /// Ends the present step, which has failed.
    pub fn failed(&mut self) {
        self.end("✗");
    }

    fn end(&mut self, mark: &str) {
        let Some(step) = self.step.take() else { return };
        if let Some(line) = step.line {
            line.finish_and_clear();
        }
        eprintln!("{mark} {}  {:.1} s", step.name, step.started.elapsed().as_secs_f64());
    }
}
