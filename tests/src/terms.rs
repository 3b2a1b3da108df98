//! Who led when, by the API server's audit log, and who wrote all the same. Pure.
//!
//! etcd takes one write after the other, and the resourceVersion of an answer is its place in that order: where two writes
//! overlap in time, it decides.

use arbbot_crds::names::LEADER_LEASE;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::audit::Request;

/// One pod's leadership, from the write that took the Lease to the one that ended it.
#[derive(Clone, Debug)]
pub struct Term {
    pub pod: String,
    began: Moment,
    /// When it was renewed, and how long each is good for.
    renewals: Vec<Timestamp>,
    lasts: SignedDuration,
    ended: Option<End>,
}

#[derive(Clone, Copy, Debug)]
struct Moment {
    version: u64,
    received: Timestamp,
    answered: Timestamp,
}

/// How a term ended, and when.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The holder gave it back.
    Released(Moment),
    /// Another took it.
    Taken(Moment),
}

impl Term {
    /// Whether its holder gave it back.
    pub fn was_released(&self) -> bool {
        matches!(self.ended, Some(End::Released(_)))
    }

    fn good_until(&self, renewed: Timestamp) -> Timestamp {
        renewed.saturating_add(self.lasts).unwrap_or(Timestamp::MAX)
    }

    fn end(&self) -> Option<Moment> {
        match self.ended {
            Some(End::Released(moment) | End::Taken(moment)) => Some(moment),
            None => None,
        }
    }

    /// Whether the holder was allowed this write.
    fn covers(&self, write: &Request) -> bool {
        if write.pod.as_ref() != Some(&self.pod) || write.received < self.began.received {
            return false;
        }
        // Perhaps nobody has taken a Lease that has expired, but its holder cannot know.
        if !self.renewals.iter().any(|at| *at <= write.received && write.received <= self.good_until(*at)) {
            return false;
        }
        let Some(end) = self.end() else { return true };
        // An older version is that of an object which the write did not change.
        let came_later = write.version().is_some_and(|version| version > end.version);
        write.received <= end.answered && !came_later
    }
}

/// Every term, in order. `requests` are all of the operator's account.
pub fn terms(requests: &[Request]) -> Vec<Term> {
    let mut writes: Vec<_> = requests.iter().filter(|request| is_of_lease(request)).filter_map(lease_write).collect();
    writes.sort_by_key(|write| write.at.version);
    let mut terms: Vec<Term> = Vec::new();
    for LeaseWrite { pod, holder, lasts, at } in writes {
        let current = terms.last_mut().filter(|term| term.ended.is_none());
        match current {
            Some(term) if holder.is_empty() => term.ended = Some(End::Released(at)),
            Some(term) if term.pod == pod => {
                term.renewals.push(at.received);
                continue;
            }
            Some(term) => term.ended = Some(End::Taken(at)),
            None => {}
        }
        if !holder.is_empty() {
            terms.push(Term { pod, began: at, renewals: vec![at.received], lasts, ended: None });
        }
    }
    terms
}

/// Writes outside of their pod's terms, and Leases that were taken from a holder that was still good for it.
pub fn violations(requests: &[Request]) -> Vec<String> {
    let terms = terms(requests);
    let others = requests.iter().filter(|request| request.is_write() && !is_of_lease(request));
    let outside = others.filter(|write| !terms.iter().any(|term| term.covers(write)));
    let mut found: Vec<_> = outside.map(|write| format!("written by a pod that did not lead: {write}")).collect();
    for pair in terms.windows(2) {
        let [before, after] = pair else { continue };
        let good_until = before.renewals.last().map_or(Timestamp::MIN, |last| before.good_until(*last));
        if !before.was_released() && after.began.answered < good_until {
            let (from, to) = (&before.pod, &after.pod);
            found.push(format!(
                "{to} took the Lease from {from} at {}, which was good until {good_until}",
                after.began.answered
            ));
        }
    }
    found
}

struct LeaseWrite {
    pod: String,
    holder: String,
    lasts: SignedDuration,
    at: Moment,
}

fn is_of_lease(request: &Request) -> bool {
    request.object.resource == "leases" && request.object.name == LEADER_LEASE && request.is_write()
        // The name of an object to be created stands only in its answer.
        || request.answer.as_ref().is_some_and(|answer| {
            answer["kind"] == "Lease" && answer["metadata"]["name"] == LEADER_LEASE
        })
}

/// A write of the Lease that the API server took.
fn lease_write(request: &Request) -> Option<LeaseWrite> {
    let spec: &Value = &request.answer.as_ref()?["spec"];
    if request.code >= 300 {
        return None;
    }
    let at = Moment { version: request.version()?, received: request.received, answered: request.answered };
    Some(LeaseWrite {
        pod: request.pod.clone()?,
        holder: spec["holderIdentity"].as_str().unwrap_or_default().to_owned(),
        lasts: SignedDuration::from_secs(spec["leaseDurationSeconds"].as_i64().unwrap_or_default()),
        at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Object;
    use serde_json::json;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).unwrap()
    }

    fn request(pod: &str, resource: &str, name: &str, received: i64, version: u64, spec: Value) -> Request {
        Request {
            user: "operator".to_owned(),
            pod: Some(pod.to_owned()),
            verb: "update".to_owned(),
            object: Object { resource: resource.to_owned(), name: name.to_owned(), ..Object::default() },
            code: 200,
            forbidden: false,
            received: at(received),
            answered: at(received + 5),
            answer: Some(json!({"metadata": {"resourceVersion": version.to_string()}, "spec": spec})),
        }
    }

    fn lease(pod: &str, holder: &str, received: i64, version: u64) -> Request {
        let spec = json!({"holderIdentity": holder, "leaseDurationSeconds": 1});
        request(pod, "leases", LEADER_LEASE, received, version, spec)
    }

    fn write(pod: &str, received: i64, version: u64) -> Request {
        request(pod, "arbbots/status", "bot", received, version, json!({}))
    }

    #[test]
    fn only_the_holder_writes_and_only_while_it_holds() {
        let elected = [lease("a", "a", 0, 10), lease("a", "a", 500, 12), lease("b", "b", 1600, 20)];
        let with = |extra: Request| violations(&[elected.as_slice(), &[extra]].concat());
        assert!(with(write("a", 100, 11)).is_empty());
        assert!(with(write("b", 1700, 21)).is_empty());
        assert_eq!(with(write("b", 100, 11)).len(), 1, "it does not lead yet");
        assert_eq!(with(write("a", 1700, 21)).len(), 1, "it does not lead any more");
        assert_eq!(with(write("a", 1550, 13)).len(), 1, "its Lease has expired, taken or not");
    }

    #[test]
    fn where_two_writes_overlap_etcds_order_decides() {
        let released = [lease("a", "a", 0, 10), lease("a", "", 500, 20)];
        let with = |extra: Request| violations(&[released.as_slice(), &[extra]].concat());
        assert!(with(write("a", 502, 19)).is_empty());
        assert_eq!(with(write("a", 502, 21)).len(), 1);
    }

    #[test]
    fn a_lease_is_taken_only_after_its_release_or_its_time() {
        let took = |received| violations(&[lease("a", "a", 0, 1), lease("b", "b", received, 2)]);
        assert_eq!(took(900).len(), 1);
        assert!(took(1000).is_empty());
        assert!(violations(&[lease("a", "a", 0, 1), lease("a", "", 100, 2), lease("b", "b", 200, 3)]).is_empty());
    }
}
