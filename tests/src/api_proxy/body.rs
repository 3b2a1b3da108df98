//! Bodies of answers that break, fall silent or trickle.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::{Stream, StreamExt, stream};
use tokio::time::sleep;

use super::fault::{self, Fault};
use super::{Client, Upstream};

const PIECES: usize = 8;
const PAUSE: Duration = Duration::from_millis(10);

type Piece = Result<Bytes, Broken>;

/// Ends the connection in the middle of a body.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut")]
pub struct Broken;

/// The first half, and then the end of the connection.
pub fn cut(whole: &Bytes) -> Body {
    Body::from_stream(stream::iter(half(whole)))
}

/// The whole, slowly.
pub fn trickle(whole: Bytes) -> Body {
    Body::from_stream(pieces(whole).map(Ok::<_, Broken>))
}

fn half(whole: &Bytes) -> [Piece; 2] {
    [Ok(whole.slice(..whole.len() / 2)), Err(Broken)]
}

fn pieces(whole: Bytes) -> impl Stream<Item = Bytes> {
    let size = whole.len().div_ceil(PIECES).max(1);
    stream::unfold(whole, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        sleep(PAUSE).await;
        let piece = rest.split_to(size.min(rest.len()));
        Some((piece, rest))
    })
}

/// The events of a watch, until a fault strikes one.
pub fn watch<S>(chunks: S, upstream: Arc<Upstream>, client: Client) -> Body
where
    S: Stream<Item = reqwest::Result<Bytes>> + Send + 'static,
{
    let changes = upstream.setting.subscribe();
    let state = Some((Box::pin(chunks), changes));
    let events = stream::unfold(state, move |state| {
        let (upstream, client) = (upstream.clone(), client.clone());
        async move {
            let (mut chunks, mut changes) = state?;
            let chunk = loop {
                tokio::select! {
                    chunk = chunks.next() => break chunk?,
                    // The sender lives as long as the proxy; after it the connection ends anyway.
                    Ok(()) = changes.changed() => if upstream.always(&client) == Fault::Cut {
                        return Some((vec![Err(Broken)], None));
                    },
                }
            };
            let Ok(chunk) = chunk else { return Some((vec![Err(Broken)], None)) };
            Some(match upstream.strikes_event(&client) {
                Fault::SilentWatches => {
                    // The API server need not hold it any longer; the client hears nothing, not even the end.
                    drop(chunks);
                    std::future::pending().await
                }
                Fault::Gone => (vec![Ok(fault::gone_event().into())], None),
                Fault::Cut => (half(&chunk).into(), None),
                Fault::Unreachable => {
                    upstream.reachable(&client).await;
                    (vec![Ok(chunk)], Some((chunks, changes)))
                }
                Fault::Slow => (pieces(chunk).map(Ok).collect().await, Some((chunks, changes))),
                _ => (vec![Ok(chunk)], Some((chunks, changes))),
            })
        }
    });
    Body::from_stream(events.flat_map(stream::iter))
}
