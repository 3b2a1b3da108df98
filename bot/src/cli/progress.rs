//! How far a long command is.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Draws what is read of files as a bar on standard error; where that is no terminal, nothing.
pub fn draw(progress: &ProgressBar) {
    // Without a style it would be numbers of bytes.
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent:>3} % read, {elapsed}, {eta} left") {
        progress.set_style(style);
    }
    progress.set_draw_target(ProgressDrawTarget::stderr());
    // A small file is read at once, and may be played for long.
    progress.enable_steady_tick(Duration::from_secs(1));
}
