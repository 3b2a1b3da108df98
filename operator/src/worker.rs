//! The reconciles of one kind: some at once, each by itself. A panic ends one reconcile.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cache::store::Key;
use crate::queue::Queue;

/// When a key is looked at again whose work has panicked outside its own guard.
const AFTER_PANIC: Duration = Duration::from_secs(60);

/// Works on what is due, at most `concurrency` at once, until `stop`; then it waits for what runs. Dropped, it ends what
/// runs at once.
pub async fn work<F, Work>(queue: &Queue, concurrency: usize, reconcile: F, stop: CancellationToken)
where
    F: Fn(Key) -> Work,
    Work: Future<Output = Option<Duration>> + Send + 'static,
{
    let mut running: JoinSet<(Key, Option<Duration>)> = JoinSet::new();
    loop {
        tokio::select! {
            biased; // nothing begins after the stop
            () = stop.cancelled() => break,
            key = queue.next(), if running.len() < concurrency => {
                let work = catch_panic(reconcile(key.clone()));
                running.spawn(async move {
                    let again = work.await.unwrap_or_else(|panic| {
                        tracing::error!(object = %key, panic, "a reconcile panicked; please report this with the log");
                        Some(AFTER_PANIC)
                    });
                    (key, again)
                });
            }
            Some(ended) = running.join_next() => match ended {
                Ok((key, again)) => queue.done(key, again),
                // Work catches its own panics; what is left is a defect here.
                Err(error) => tracing::error!(%error, "a reconcile ended without a result"),
            },
        }
    }
    while running.join_next().await.is_some() {}
}

/// Runs work that may panic.
///
/// # Errors
/// It panicked, with this text.
pub async fn catch_panic<T>(work: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| panic_text(panic.as_ref()))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::time::Instant;

    #[tokio::test]
    async fn a_panic_ends_one_reconcile_and_says_so() {
        let result: Result<(), String> = catch_panic(async { panic!("index {}", 7) }).await;
        assert_eq!(result, Err("index 7".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn never_more_at_once_than_allowed_however_long_the_queue() {
        let queue = Queue::default();
        (0..2_000).for_each(|number| queue.add(number.to_string().into(), Duration::ZERO));
        let (now, most, ended) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let reconcile = |_| {
            let (now, most, ended) = (now.clone(), most.clone(), ended.clone());
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                ended.fetch_add(1, Ordering::SeqCst);
                None
            }
        };
        let stop = CancellationToken::new();
        let watcher = async {
            while ended.load(Ordering::SeqCst) < 2_000 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stop.cancel();
        };
        tokio::join!(work(&queue, 16, reconcile, stop.clone()), watcher);
        assert_eq!(most.load(Ordering::SeqCst), 16);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reconcile_that_panics_is_tried_again_later_and_stops_no_other() {
        let queue = Queue::default();
        (0..50).for_each(|number| queue.add(number.to_string().into(), Duration::ZERO));
        let (ended, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let reconcile = |key: Key| {
            let ended = ended.clone();
            async move {
                assert_ne!(&*key, "7", "a defect");
                ended.fetch_add(1, Ordering::SeqCst);
                None
            }
        };
        let watcher = async {
            while ended.load(Ordering::SeqCst) < 49 || queue.depth().later == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stop.cancel();
        };
        let all = async { tokio::join!(work(&queue, 4, reconcile, stop.clone()), watcher) };
        tokio::time::timeout(Duration::from_secs(5), all).await.expect("a panic held the others up");
        assert_eq!((queue.depth().later, queue.depth().running), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_stop_what_runs_is_waited_for_and_nothing_begins() {
        let queue = Queue::default();
        queue.add("long".into(), Duration::ZERO);
        let stop = CancellationToken::new();
        let begun = Instant::now();
        let stopper = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            stop.cancel();
            queue.add("late".into(), Duration::ZERO);
        };
        let begun_keys = AtomicUsize::new(0);
        let reconcile = |_| {
            begun_keys.fetch_add(1, Ordering::SeqCst);
            async {
                tokio::time::sleep(Duration::from_secs(6)).await;
                None
            }
        };
        tokio::join!(work(&queue, 16, reconcile, stop.clone()), stopper);
        assert_eq!((begun.elapsed(), begun_keys.load(Ordering::SeqCst)), (Duration::from_secs(6), 1));
    }
}
