//! The operator as a process of its own, with its shipped permissions, and what it costs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::child::{Child, Parent, Program};
use crate::harness::{OPERATOR, OPERATOR_NAMESPACE};
use crate::kubectl::Kubectl;
use crate::process_node::{ApiServer, write_kubeconfig};

const START_DEADLINE: Duration = Duration::from_secs(60);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const GRACE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);
/// Of `/proc/<pid>/stat` on Linux, on every architecture that it still supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// Makes a kubeconfig of the operator's ServiceAccount in `directory`.
///
/// # Errors
/// The API server refuses the token.
pub async fn kubeconfig(kubectl: &Kubectl, server: &ApiServer, directory: &Path) -> Result<PathBuf> {
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let token = kubectl.run(&["-n", OPERATOR_NAMESPACE, "create", "token", OPERATOR, "--duration=24h"]).await?;
    fs::write(directory.join("token"), token.trim())?;
    write_kubeconfig(directory, server, OPERATOR_NAMESPACE)
}

/// A running operator; it ends when this is dropped.
pub struct Operator {
    child: Child,
    url: String,
    http: reqwest::Client,
    started: Instant,
    log: PathBuf,
    _parent: Parent,
}

/// What a process has used.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub resident_mib: f64,
    pub peak_mib: f64,
    pub cpu_s: f64,
}

impl Operator {
    /// Starts it; returns when it listens, which is before it has seen anything.
    ///
    /// # Errors
    /// It ends, or does not listen in time.
    pub async fn start(program: &Path, kubeconfig: &Path, log: &Path, flags: &[&str]) -> Result<Self> {
        let parent = Parent::new()?;
        let _ = fs::remove_file(log); // of the operator before
        let environment =
            [("KUBECONFIG", kubeconfig.display().to_string()), ("POD_NAMESPACE", OPERATOR_NAMESPACE.into())];
        let program = Program {
            path: program.to_owned(),
            arguments: ["--listen=127.0.0.1:0"].iter().chain(flags).map(OsString::from).collect(),
            environment: environment.map(|(name, value)| (name.to_owned(), value)).into(),
            log: log.to_owned(),
            ..Program::default()
        };
        let started = Instant::now();
        let child = parent.start(&program).await?;
        let url = loop {
            if let Some(address) = listening(log) {
                break format!("http://{address}");
            }
            if !child.is_running() || started.elapsed() > START_DEADLINE {
                bail!("the operator does not listen; see {}", log.display());
            }
            sleep(POLL).await;
        };
        let http = reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build()?;
        Ok(Self { child, url, http, started, log: log.to_owned(), _parent: parent })
    }

    /// Seconds since its start.
    pub fn age_s(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Whether it is ready, and what it says of that.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn readiness(&self) -> Result<(bool, String)> {
        let reply = self.get("/readyz").await?;
        Ok((reply.status().is_success(), reply.text().await?))
    }

    async fn get(&self, path: &str) -> Result<reqwest::Response> {
        if !self.child.is_running() {
            bail!("the operator has ended; see {}", self.log.display());
        }
        Ok(self.http.get(format!("{}{path}", self.url)).send().await?)
    }

    /// What it has logged.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(&self.log).with_context(|| format!("read {}", self.log.display()))
    }

    /// # Errors
    /// It does not answer, which it does if it has ended.
    pub async fn metrics(&self) -> Result<Metrics> {
        Ok(Metrics(self.get("/metrics").await?.error_for_status()?.text().await?))
    }

    /// # Errors
    /// It has ended.
    pub fn usage(&self) -> Result<Usage> {
        usage(self.child.pid()).context("the operator has ended")
    }

    /// Asks it to end and waits.
    pub async fn stop(self) {
        self.child.stop(GRACE).await;
    }
}

/// What a process has used so far.
///
/// # Errors
/// There is no such process.
pub fn usage(pid: i32) -> Result<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mib = |name: &str| -> Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.split_whitespace().next()).ok_or_else(|| anyhow!("no {name} of {pid}"))?;
        Ok(kib.parse::<f64>()? / 1024.0)
    };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold spaces; utime and stime are fields 14 and 15.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    let cpu_s = (ticks(11) + ticks(12)) / TICKS_PER_SECOND;
    Ok(Usage { resident_mib: mib("VmRSS:")?, peak_mib: mib("VmHWM:")?, cpu_s })
}

/// The address in the log line that says where the admin server listens.
fn listening(log: &Path) -> Option<String> {
    let text = fs::read_to_string(log).ok()?;
    let address = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        line["fields"]["listen"].as_str().or_else(|| line["listen"].as_str()).map(str::to_owned)
    };
    text.lines().find_map(address)
}

/// The operator's metrics at one moment.
pub struct Metrics(String);

impl Metrics {
    /// Whether a name or label is in it.
    pub fn contains(&self, text: &str) -> bool {
        self.0.contains(text)
    }

    /// Sum of a counter over all its labels.
    pub fn sum(&self, name: &str) -> f64 {
        self.sum_of(name, "")
    }

    /// Sum of a counter over the samples with this label, for example `kind="ArbBot"`.
    pub fn sum_of(&self, name: &str, label: &str) -> f64 {
        self.samples(name).filter(|(labels, _)| labels.contains(label)).map(|(_, value)| value).sum()
    }

    fn samples<'a>(&'a self, name: &str) -> impl Iterator<Item = (&'a str, f64)> {
        let name = name.to_owned();
        self.0.lines().filter_map(move |line| {
            let rest = line.strip_prefix(&name)?;
            // Another metric may begin with the same words.
            let labelled = rest.starts_with('{') || rest.starts_with(' ');
            let (labels, value) = rest.rsplit_once(' ').filter(|_| labelled)?;
            Some((labels, value.parse().ok()?))
        })
    }

    /// Cumulative counts of a histogram by upper bound, in seconds.
    fn buckets(&self, name: &str) -> Vec<(f64, f64)> {
        let mut counts: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
        for (labels, count) in self.samples(&format!("{name}_bucket")) {
            let bound = labels.split("le=\"").nth(1).and_then(|rest| rest.split('"').next());
            let Some(bound) = bound.and_then(|bound| bound.replace("+Inf", "inf").parse::<f64>().ok()) else {
                continue;
            };
            counts.entry(bound.to_bits()).or_insert((bound, 0.0)).1 += count;
        }
        counts.into_values().collect()
    }

    /// The time below which `percent` of what a histogram counted since `earlier` lies, in milliseconds: the middle
    /// between the bounds is a straight line, as in Prometheus' `histogram_quantile`.
    pub fn quantile_ms(&self, earlier: &Self, name: &str, percent: f64) -> Option<f64> {
        let before = earlier.buckets(name);
        let since =
            |(index, (bound, count)): (usize, &(f64, f64))| (*bound, count - before.get(index).map_or(0.0, |b| b.1));
        let buckets: Vec<_> = self.buckets(name).iter().enumerate().map(since).collect();
        let total = buckets.last().map(|(_, count)| *count).filter(|total| *total > 0.0)?;
        let rank = total * percent / 100.0;
        let mut below = (0.0, 0.0);
        for (bound, count) in buckets {
            if count >= rank {
                if bound.is_infinite() {
                    return Some(below.0 * 1000.0);
                }
                let share = if count > below.1 { (rank - below.1) / (count - below.1) } else { 1.0 };
                return Some((below.0 + (bound - below.0) * share) * 1000.0);
            }
            below = (bound, count);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(counts: [u32; 3]) -> Metrics {
        let [a, b, all] = counts;
        Metrics(format!(
            "r_total{{result=\"ok\"}} 3\nr_total{{result=\"x\"}} 1\nr_total_more 9\nh_bucket{{le=\"0.01\"}} {a}\nh_bucket{{le=\"0.1\"}} {b}\nh_bucket{{le=\"+Inf\"}} {all}\n"
        ))
    }

    #[test]
    fn a_counter_is_the_sum_of_its_labels() {
        assert_eq!(metrics([0, 0, 0]).sum("r_total"), 4.0);
        assert_eq!(metrics([0, 0, 0]).sum_of("r_total", "result=\"x\""), 1.0);
    }

    #[test]
    fn a_quantile_counts_only_what_came_since() {
        let (earlier, later) = (metrics([5, 5, 5]), metrics([10, 15, 15]));
        assert_eq!(later.quantile_ms(&earlier, "h", 50.0), Some(10.0));
        assert_eq!(later.quantile_ms(&earlier, "h", 75.0).map(f64::round), Some(55.0));
        assert_eq!(later.quantile_ms(&later, "h", 50.0), None);
    }

    #[test]
    fn this_process_uses_memory() {
        let usage = usage(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(usage.resident_mib > 0.5 && usage.peak_mib >= usage.resident_mib, "{usage:?}");
    }
}
