//! The one way to the API server. A replica that does not lead cannot write, whatever the code above wants.

use std::sync::Arc;
use std::time::Duration;

use axum::http::header::RETRY_AFTER;
use axum::http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use tokio::time::Instant;
use tower::BoxError;

use crate::leadership::Leadership;

/// Why a request did not leave this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another replica leads, or none does at this moment.
    #[error("this replica does not lead, so it writes nothing")]
    NotLeader,
    /// The decision was made from a cache: it is made again from the API server itself.
    #[error("the decision was made from a cache")]
    Stale,
}

/// What may be written.
#[derive(Clone)]
enum Writes {
    /// Nothing.
    Never,
    /// Everything, while this process leads.
    WhileLeader(Arc<Leadership>),
}

/// A client that writes only while this process leads. A write under way at the deadline is dropped.
#[must_use]
pub fn leaders(client: Client, leadership: Arc<Leadership>) -> Client {
    gated(client, Writes::WhileLeader(leadership))
}

/// A client that reads only: a write fails with [`Refused::Stale`].
#[must_use]
pub fn read_only(client: Client) -> Client {
    gated(client, Writes::Never)
}

fn gated(client: Client, writes: Writes) -> Client {
    let namespace = client.default_namespace().to_owned();
    let gate = tower::service_fn(move |request| Box::pin(pass(client.clone(), writes.clone(), request)));
    Client::new(gate, namespace)
}

/// The gate: a layer in front of another client.
async fn pass(client: Client, writes: Writes, request: Request<Body>) -> Result<Response<Body>, BoxError> {
    match writes {
        _ if *request.method() == Method::GET => read(&client, request).await,
        Writes::Never => Err(Refused::Stale.into()),
        Writes::WhileLeader(leadership) => {
            let Some(_under_way) = leadership.write() else { return Err(Refused::NotLeader.into()) };
            tokio::select! {
                biased;
                () = leadership.ended() => Err(Refused::NotLeader.into()),
                response = client.send(request) => Ok(response?),
            }
        }
    }
}

/// A read. An API server that wants less, stumbles or breaks the connection is asked again a moment later: a reconcile is
/// many reads, and one that fails makes the whole wait for its backoff. What took long would take as long again: it is not.
async fn read(client: &Client, request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let (parts, _) = request.into_parts(); // a read has no body
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let answer = read_once(client, Request::from_parts(parts.clone(), Body::empty())).await;
        let is_final = answer.as_ref().is_ok_and(|response| !is_passing(response.status()));
        if is_final || pause > LAST_PAUSE || began.elapsed() > AT_ONCE {
            return answer;
        }
        let jittered = pause.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        match answer.ok().as_ref().and_then(retry_after) {
            // A server that is full says for how long; no single read of ours waits longer than this.
            Some(wished) => tokio::time::sleep(wished.min(AT_ONCE).max(jittered)).await,
            None => tokio::time::sleep(jittered).await,
        }
        pause *= 4;
    }
}

/// Reads the whole answer, so that one that breaks in its middle can be asked for again. A watch has no end: it is passed
/// on as it comes, and resumed by who watches.
async fn read_once(client: &Client, request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let is_watch = request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
    let response = client.send(request).await?;
    if is_watch {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    Ok(Response::from_parts(parts, Body::from(body.collect_bytes().await?)))
}

/// Pauses between the attempts of a read: two more after the first.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_millis(400);
/// An answer that took longer is not asked for again.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What the server wishes, in whole seconds (RFC 9110 §10.2.3; the API server sends no date).
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

const fn is_passing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::INTERNAL_SERVER_ERROR | StatusCode::SERVICE_UNAVAILABLE
    )
}

/// Why the request was refused here, if it was.
#[must_use]
pub fn refused(error: &kube::Error) -> Option<Refused> {
    match error {
        kube::Error::Service(source) => source.downcast_ref().copied(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leadership::Moment;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;
    use kube::api::{DeleteParams, PostParams};
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// An API server that counts writes and answers them after this time.
    fn server(writes: Arc<AtomicUsize>, delay: Duration) -> Client {
        let service = tower::service_fn(move |request: Request<Body>| {
            let writes = writes.clone();
            async move {
                if request.method() != Method::GET {
                    tokio::time::sleep(delay).await;
                    writes.fetch_add(1, Ordering::SeqCst);
                }
                let body = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"#;
                Ok::<_, Infallible>(Response::new(Body::from(body.as_bytes().to_vec())))
            }
        });
        Client::new(service, "default")
    }

    fn maps(client: Client) -> Api<ConfigMap> {
        Api::namespaced(client, "default")
    }

    #[tokio::test]
    async fn a_replica_that_does_not_lead_reads_but_writes_nothing() {
        let (writes, leadership) = (Arc::new(AtomicUsize::new(0)), Arc::new(Leadership::none()));
        let api = maps(leaders(server(writes.clone(), Duration::ZERO), leadership.clone()));
        assert!(api.get("a").await.is_ok());
        let error = api.create(&PostParams::default(), &ConfigMap::default()).await.unwrap_err();
        assert_eq!(refused(&error), Some(Refused::NotLeader));
        let error = api.delete("a", &DeleteParams::default()).await.unwrap_err();
        assert_eq!(refused(&error), Some(Refused::NotLeader));
        assert_eq!(writes.load(Ordering::SeqCst), 0);
        leadership.extend(Moment::now(), Duration::from_secs(10));
        api.create(&PostParams::default(), &ConfigMap::default()).await.unwrap();
        assert_eq!(writes.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_is_refused_for_a_moment_is_repeated_and_only_twice() {
        let refuse = |times: usize| {
            let asked = Arc::new(AtomicUsize::new(0));
            let seen = asked.clone();
            let service = tower::service_fn(move |_: Request<Body>| {
                let passes = seen.fetch_add(1, Ordering::SeqCst) >= times;
                let (code, body) = if passes {
                    (200, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"#)
                } else {
                    (
                        429,
                        r#"{"apiVersion":"v1","kind":"Status","code":429,"reason":"TooManyRequests","message":"less"}"#,
                    )
                };
                let response = Response::builder()
                    .status(code)
                    .header(RETRY_AFTER, "1")
                    .body(Body::from(body.as_bytes().to_vec()));
                async move { response }
            });
            (asked, maps(read_only(Client::new(service, "default"))))
        };
        let (asked, api) = refuse(2);
        assert!(api.get("a").await.is_ok());
        assert_eq!(asked.load(Ordering::SeqCst), 3);
        let (asked, api) = refuse(9);
        let began = Instant::now();
        assert!(api.get("a").await.is_err());
        assert_eq!(asked.load(Ordering::SeqCst), 3, "no storm");
        assert!(began.elapsed() >= Duration::from_secs(2), "the server has asked for a second each time");
    }

    #[tokio::test]
    async fn a_read_whose_answer_breaks_in_the_middle_is_repeated() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let service = tower::service_fn(move |_: Request<Body>| {
            let whole = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"#.as_bytes();
            let pieces = match counter.fetch_add(1, Ordering::SeqCst) {
                0 => vec![Ok(whole[..9].to_vec()), Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))],
                _ => vec![Ok(whole.to_vec())],
            };
            let body = axum::body::Body::from_stream(futures::stream::iter(pieces));
            async move { Ok::<_, Infallible>(Response::new(body)) }
        });
        assert!(maps(read_only(Client::new(service, "default"))).get("a").await.is_ok());
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_write_under_way_at_the_deadline_is_dropped() {
        let (writes, leadership) = (Arc::new(AtomicUsize::new(0)), Arc::new(Leadership::none()));
        let api = maps(leaders(server(writes.clone(), Duration::from_secs(60)), leadership.clone()));
        leadership.extend(Moment::now(), Duration::from_millis(50));
        let (params, map) = (PostParams::default(), ConfigMap::default());
        let write = api.create(&params, &map);
        let result = tokio::time::timeout(Duration::from_secs(5), write).await.expect("the write goes on");
        assert_eq!(refused(&result.unwrap_err()), Some(Refused::NotLeader));
        assert_eq!(writes.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_decision_from_a_cache_cannot_be_carried_out() {
        let writes = Arc::new(AtomicUsize::new(0));
        let api = maps(read_only(server(writes.clone(), Duration::ZERO)));
        assert!(api.get("a").await.is_ok());
        let error = api.create(&PostParams::default(), &ConfigMap::default()).await.unwrap_err();
        assert_eq!((refused(&error), writes.load(Ordering::SeqCst)), (Some(Refused::Stale), 0));
    }
}
