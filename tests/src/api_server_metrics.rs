//! The API server's own count of the requests that it has answered.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Sub;

use anyhow::{Context, Result};
use kube::Client;

/// Verbs of `apiserver_request_total` that change something.
const WRITES: [&str; 5] = ["POST", "PUT", "PATCH", "APPLY", "DELETE"];
const METRIC: &str = "apiserver_request_total{";

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    pub verb: String,
    /// `resource` or `resource/subresource`; empty for paths that are no resources.
    pub resource: String,
    pub code: String,
}

impl Request {
    /// Whether it changes something. Leases do not count: they are heartbeats.
    pub fn is_write(&self) -> bool {
        WRITES.contains(&self.verb.as_str()) && self.resource != "leases"
    }
}

/// Requests since the API server started, or between two moments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests(pub BTreeMap<Request, u64>);

impl Requests {
    /// # Errors
    /// The API server does not answer.
    pub async fn now(client: &Client) -> Result<Self> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        let text = client.request_text(request).await.context("read the API server's metrics")?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut requests = BTreeMap::new();
        for line in text.lines().filter_map(|line| line.strip_prefix(METRIC)) {
            let Some((labels, value)) = line.rsplit_once("} ") else { continue };
            let (mut resource, subresource) = (label(labels, "resource"), label(labels, "subresource"));
            if !subresource.is_empty() {
                resource = format!("{resource}/{subresource}");
            }
            let request = Request { verb: label(labels, "verb"), resource, code: label(labels, "code") };
            // Other labels are summed up. A counter beyond 1e6 is written with an exponent.
            *requests.entry(request).or_default() += value.parse::<f64>().unwrap_or_default() as u64;
        }
        Self(requests)
    }

    /// Those that change something, without leases.
    pub fn writes(&self) -> Self {
        Self(self.0.iter().filter(|(request, _)| request.is_write()).map(|(r, n)| (r.clone(), *n)).collect())
    }

    /// Those for resources, watches that began included; not `/metrics` and the like.
    pub fn of_resources(&self) -> Self {
        Self(self.0.iter().filter(|(request, _)| !request.resource.is_empty()).map(|(r, n)| (r.clone(), *n)).collect())
    }

    /// How many in all.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// How many by verb.
    pub fn by_verb(&self) -> BTreeMap<String, u64> {
        let mut verbs = BTreeMap::new();
        for (request, count) in &self.0 {
            *verbs.entry(request.verb.clone()).or_default() += count;
        }
        verbs
    }

    /// How many with this verb to this resource, whatever the answer.
    pub fn count(&self, verb: &str, resource: &str) -> u64 {
        self.0.iter().filter(|(r, _)| r.verb == verb && r.resource == resource).map(|(_, n)| n).sum()
    }
}

/// What happened since an earlier count.
impl Sub<&Requests> for &Requests {
    type Output = Requests;

    fn sub(self, earlier: &Requests) -> Requests {
        let since = self.0.iter().map(|(request, count)| {
            let before = earlier.0.get(request).copied().unwrap_or_default();
            (request.clone(), count.saturating_sub(before))
        });
        Requests(since.filter(|(_, count)| *count > 0).collect())
    }
}

impl fmt::Display for Requests {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (Request { verb, resource, code }, count) in &self.0 {
            writeln!(formatter, "  {count} × {verb} {resource} ({code})")?;
        }
        Ok(())
    }
}

fn label(labels: &str, name: &str) -> String {
    let marker = format!("{name}=\"");
    // "resource" is also the end of "subresource".
    let mut starts = labels.match_indices(&marker);
    let start = starts.find(|(at, _)| *at == 0 || labels[..*at].ends_with(','));
    let value = start.and_then(|(at, _)| labels[at + marker.len()..].split('"').next());
    value.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLIER: &str = r#"
# TYPE apiserver_request_total counter
apiserver_request_total{code="200",component="apiserver",dry_run="",group="arbbot.io",resource="arbbots",scope="resource",subresource="status",verb="APPLY",version="v1alpha1"} 20
apiserver_request_total{code="200",component="apiserver",dry_run="",group="arbbot.io",resource="arbbots",scope="cluster",subresource="",verb="LIST",version="v1alpha1"} 3
"#;
    const LATER: &str = r#"
apiserver_request_total{code="200",component="apiserver",dry_run="",group="arbbot.io",resource="arbbots",scope="resource",subresource="status",verb="APPLY",version="v1alpha1"} 1.234567e+06
apiserver_request_total{code="200",component="apiserver",dry_run="",group="arbbot.io",resource="arbbots",scope="cluster",subresource="",verb="LIST",version="v1alpha1"} 5
apiserver_request_total{code="200",component="apiserver",dry_run="",group="coordination.k8s.io",resource="leases",scope="resource",subresource="",verb="PUT",version="v1"} 9
"#;

    #[test]
    fn the_delta_counts_writes_without_leases() {
        let since = &Requests::parse(LATER) - &Requests::parse(EARLIER);
        assert_eq!(since.count("APPLY", "arbbots/status"), 1_234_547);
        assert_eq!(since.writes().total(), 1_234_547);
        assert_eq!(since.by_verb()["PUT"], 9);
        assert_eq!(since.count("LIST", "arbbots"), 2);
    }
}
