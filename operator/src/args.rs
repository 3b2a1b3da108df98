//! Command line of the operator.

use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::jiff::SignedDuration;

use crate::leader::Timing;

/// Where a pod finds the namespace that it runs in.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Controller of ArbBots. The log filter is the environment variable RUST_LOG (default "info,kube=warn"); it can be changed
/// at run time with PUT /log-level.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "arbbot-operator", version)]
pub struct Args {
    /// Address of /livez, /readyz, /metrics, /debug/state.json and /log-level.
    #[arg(long, default_value = "0.0.0.0:8081")]
    pub listen: SocketAddr,
    /// Image of bots that name none in spec.image.
    #[arg(long, env = "ARBBOT_BOT_IMAGE", default_value = concat!("arb-bot:", env!("CARGO_PKG_VERSION")))]
    pub bot_image: String,
    /// Watch this namespace only; may be given several times. Default: every namespace.
    #[arg(long = "watch-namespace", value_name = "NAMESPACE")]
    pub watch_namespaces: Vec<String>,
    /// Write only while holding the Lease arbbot-operator-leader, so that several replicas can run.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub leader_elect: bool,
    /// How long the Lease is good for: other replicas wait so long after a renewal. Kubernetes' own programs have the same
    /// flags.
    #[arg(long, default_value = "15s", value_parser = duration, value_name = "DURATION")]
    pub leader_elect_lease_duration: Duration,
    /// After so long without a renewal the leader gives up; shorter than the Lease by more than a request takes.
    #[arg(long, default_value = "10s", value_parser = duration, value_name = "DURATION")]
    pub leader_elect_renew_deadline: Duration,
    /// Pause between two renewals, and between two looks of the others.
    #[arg(long, default_value = "2s", value_parser = duration, value_name = "DURATION")]
    pub leader_elect_retry_period: Duration,
    /// Namespace of the Lease. Default: POD_NAMESPACE, else the namespace of the pod, else that of the kubeconfig.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pub leader_election_namespace: Option<String>,
    /// Name of this replica in the Lease. Default: the hostname and a random suffix.
    #[arg(long, env = "POD_NAME", hide = true)]
    pub identity: Option<String>,
}

/// What a write that was cut off at the deadline has left to be committed, before another replica may lead.
const BETWEEN_LEADERS: Duration = Duration::from_secs(2);

/// Why the times of the election contradict each other.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TimingError {
    #[error(
        "--leader-elect-lease-duration ({lease:?}) must exceed --leader-elect-renew-deadline ({deadline:?}) by at least {BETWEEN_LEADERS:?} (chart: leaderElection.leaseDuration, leaderElection.renewDeadline)"
    )]
    Lease { lease: Duration, deadline: Duration },
    #[error(
        "--leader-elect-renew-deadline ({deadline:?}) must exceed twice --leader-elect-retry-period ({retry:?}) (chart: leaderElection.renewDeadline, leaderElection.retryPeriod)"
    )]
    Deadline { deadline: Duration, retry: Duration },
}

impl Args {
    /// Namespace of the leader's Lease; `fallback` is that of the kubeconfig.
    #[must_use]
    pub fn lease_namespace(&self, fallback: &str) -> String {
        let given = self.leader_election_namespace.clone().filter(|namespace| !namespace.is_empty());
        let of_pod = || std::fs::read_to_string(NAMESPACE_FILE).ok().map(|text| text.trim().to_owned());
        given.or_else(of_pod).unwrap_or_else(|| fallback.to_owned())
    }

    /// The times of the election.
    ///
    /// # Errors
    /// They leave no time for a renewal, or between one leader and the next.
    pub fn timing(&self) -> Result<Timing, TimingError> {
        let timing = Timing {
            lease: self.leader_elect_lease_duration,
            deadline: self.leader_elect_renew_deadline,
            retry: self.leader_elect_retry_period,
        };
        if timing.lease < timing.deadline + BETWEEN_LEADERS {
            return Err(TimingError::Lease { lease: timing.lease, deadline: timing.deadline });
        }
        if timing.deadline <= timing.retry * 2 {
            return Err(TimingError::Deadline { deadline: timing.deadline, retry: timing.retry });
        }
        Ok(timing)
    }

    /// Name of this replica. No two processes that run at once share it.
    #[must_use]
    pub fn replica(&self) -> String {
        let given = self.identity.clone().filter(|identity| !identity.is_empty());
        given.unwrap_or_else(|| {
            let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
            format!("{host}_{:08x}", rand::random::<u32>())
        })
    }
}

/// A duration as Kubernetes writes it: `15s`, `1m30s`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<SignedDuration>().map_err(|error| error.to_string())?;
    Duration::try_from(parsed).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[test]
    fn several_namespaces_can_be_watched_and_election_can_be_switched_off() {
        let args = Args::parse_from(["x", "--watch-namespace=a", "--watch-namespace=b", "--leader-elect=false"]);
        assert_eq!((args.watch_namespaces, args.leader_elect), (vec!["a".to_owned(), "b".to_owned()], false));
        assert!(Args::parse_from(["x"]).leader_elect);
    }

    #[test]
    fn the_times_of_the_election_leave_room_between_two_leaders() {
        let timing = |arguments: &[&str]| Args::parse_from([&["x"], arguments].concat()).timing();
        let default = timing(&[]).unwrap();
        assert_eq!((default.lease.as_secs(), default.deadline.as_secs(), default.retry.as_secs()), (15, 10, 2));
        assert_eq!(timing(&["--leader-elect-retry-period=500ms"]).unwrap().retry, Duration::from_millis(500));
        let error = timing(&["--leader-elect-renew-deadline=14s"]).unwrap_err().to_string();
        assert!(error.contains("(15s) must exceed --leader-elect-renew-deadline (14s) by at least 2s"), "{error}");
        assert_eq!(error.lines().count(), 1);
        assert!(timing(&["--leader-elect-renew-deadline=13s"]).is_ok());
        assert!(timing(&["--leader-elect-renew-deadline=4s"]).is_err(), "two retries do not fit");
        assert!(Args::try_parse_from(["x", "--leader-elect-lease-duration=15"]).is_err(), "without a unit");
    }

    #[test]
    fn replicas_without_a_pod_name_are_told_apart() {
        let args = Args { identity: None, ..Args::parse_from(["x"]) };
        assert_ne!(args.replica(), args.replica());
    }
}
