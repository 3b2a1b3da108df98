//! `make demo`: what the product is for, on a real Kubernetes, while a person watches.
//!
//! `up` starts an *owner*, a process in a session of its own that holds the cluster, the node and the exchange until
//! `down`; then it plays the story against it and leaves everything running.

mod guest;
mod owner;
mod stage;
mod story;
mod table;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub use owner::own;

use crate::progress::Progress;

/// Where the demo keeps its files: `.demo` in the workspace.
pub fn directory() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    workspace.join(".demo")
}

/// Replaces the demo that runs, if any, plays the story and leaves everything running.
///
/// # Errors
/// Something does not work; what was started is ended.
pub async fn up(fast: bool) -> Result<()> {
    let directory = directory();
    if owner::end(&directory)? {
        eprintln!("The demo that was running has been ended.");
    }
    let mut progress = Progress::default();
    let played = async {
        let stage = owner::start(&directory, fast, &mut progress)?;
        story::play(&stage, &mut progress).await
    };
    let played = played.await;
    match played {
        Ok(ending) => {
            progress.done();
            println!("{ending}");
            Ok(())
        }
        Err(error) => {
            progress.failed();
            owner::stop(&directory)?;
            Err(error).with_context(|| format!("the demo ended; its logs are in {}", directory.display()))
        }
    }
}

/// Ends the demo and removes its files.
///
/// # Errors
/// It does not end.
pub fn down() -> Result<()> {
    let was_running = owner::end(&directory())?;
    println!("{}", if was_running { "The demo has been ended." } else { "No demo was running." });
    Ok(())
}
