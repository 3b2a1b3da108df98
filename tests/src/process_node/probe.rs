//! Startup, readiness and liveness probes over HTTP, from outside, as a kubelet sends them.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// While a container is not ready it is asked this often, whatever the period: nobody likes to wait for a test.
const EAGER: Duration = Duration::from_millis(100);

/// What the probes found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    Ready(bool),
    /// The liveness or startup probe has failed as often as it may.
    Dead,
}

/// Starts the probes of a container; they end when the set is dropped. A container without a readiness probe is ready
/// at once.
pub fn start(
    client: &reqwest::Client,
    container: &Container,
    pod_ip: &str,
    findings: mpsc::UnboundedSender<Finding>,
) -> JoinSet<()> {
    let target = |probe: &Option<Probe>| probe.as_ref().and_then(|probe| Target::new(client, container, probe, pod_ip));
    let (startup, readiness, liveness) =
        (target(&container.startup_probe), target(&container.readiness_probe), target(&container.liveness_probe));
    let mut probes = JoinSet::new();
    probes.spawn(async move {
        if let Some(mut startup) = startup
            && !startup.until_up().await
        {
            return report(&findings, Finding::Dead);
        }
        let ready = watch_readiness(readiness, &findings);
        let alive = watch_liveness(liveness, &findings);
        tokio::join!(ready, alive);
    });
    probes
}

fn report(findings: &mpsc::UnboundedSender<Finding>, finding: Finding) {
    // Nobody listens only when the container is being stopped; its probes end with it.
    let _ = findings.send(finding);
}

async fn watch_readiness(target: Option<Target>, findings: &mpsc::UnboundedSender<Finding>) {
    let Some(mut target) = target else { return report(findings, Finding::Ready(true)) };
    sleep(target.delay).await;
    let mut ready = false;
    loop {
        let was = ready;
        let threshold = if ready { target.failures } else { target.successes };
        if target.consistently(!ready, threshold).await {
            ready = !ready;
        }
        if ready != was {
            report(findings, Finding::Ready(ready));
        }
        sleep(if ready { target.period } else { target.period.min(EAGER) }).await;
    }
}

async fn watch_liveness(target: Option<Target>, findings: &mpsc::UnboundedSender<Finding>) {
    let Some(mut target) = target else { return };
    sleep(target.delay).await;
    loop {
        if target.consistently(false, target.failures).await {
            return report(findings, Finding::Dead);
        }
        sleep(target.period).await;
    }
}

struct Target {
    client: reqwest::Client,
    url: String,
    timeout: Duration,
    delay: Duration,
    period: Duration,
    failures: u32,
    successes: u32,
}

impl Target {
    fn new(client: &reqwest::Client, container: &Container, probe: &Probe, pod_ip: &str) -> Option<Self> {
        let http = probe.http_get.as_ref()?;
        let port = match &http.port {
            IntOrString::Int(port) => *port,
            IntOrString::String(name) => {
                let ports = container.ports.iter().flatten();
                ports.filter(|port| port.name.as_deref() == Some(name)).map(|port| port.container_port).next()?
            }
        };
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
        };
        let count = |value: Option<i32>, default: u32| value.and_then(|v| u32::try_from(v).ok()).unwrap_or(default);
        Some(Self {
            client: client.clone(),
            url: format!("http://{pod_ip}:{port}{}", http.path.as_deref().unwrap_or("/")),
            timeout: seconds(probe.timeout_seconds, 1),
            delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            failures: count(probe.failure_threshold, 3),
            successes: count(probe.success_threshold, 1),
        })
    }

    async fn answers(&self) -> bool {
        let reply = self.client.get(&self.url).timeout(self.timeout).send().await;
        reply.is_ok_and(|reply| reply.status().is_success() || reply.status().is_redirection())
    }

    /// Whether the answer is `expected` `times` times in a row, a period apart; ends at the first that is not.
    async fn consistently(&mut self, expected: bool, times: u32) -> bool {
        for attempt in 0..times.max(1) {
            if attempt > 0 {
                sleep(if expected { self.period.min(EAGER) } else { self.period }).await;
            }
            if self.answers().await != expected {
                return false;
            }
        }
        true
    }

    /// Waits for the first success; false after as many failures, a period apart, as the probe allows.
    async fn until_up(&mut self) -> bool {
        sleep(self.delay).await;
        let limit = tokio::time::Instant::now() + self.period * self.failures;
        loop {
            if self.answers().await {
                return true;
            }
            if tokio::time::Instant::now() >= limit {
                return false;
            }
            sleep(self.period.min(EAGER)).await;
        }
    }
}
