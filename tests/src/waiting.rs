//! Waiting for a condition, with a deadline.

use std::future::Future;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);

/// Waits until something is so.
///
/// # Errors
/// It is not in time, or asking fails.
pub async fn wait_for<F>(what: &str, mut is_so: impl FnMut() -> F) -> Result<()>
where
    F: Future<Output = Result<bool>>,
{
    let limit = Instant::now() + PATIENCE;
    while !is_so().await? {
        if Instant::now() > limit {
            bail!("not within {} s: {what}", PATIENCE.as_secs());
        }
        sleep(POLL).await;
    }
    Ok(())
}
