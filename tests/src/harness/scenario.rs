//! Runs scenarios that share one desk, a few at a time, and reports as `cargo test` does.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::desk::{Desk, OPERATOR, OPERATOR_NAMESPACE, Setup};
use crate::audit::user;
use crate::programs::Programs;

/// The name of a scenario, which is a sentence, and what it does.
pub type Scenario = (&'static str, fn(Arc<Desk>) -> Pin<Box<dyn Future<Output = Result<()>> + Send>>);

/// Most of a scenario is waiting.
const AT_ONCE: usize = 6;
const DEADLINE: Duration = Duration::from_secs(240);

/// The scenarios of a test file, by the names of their functions.
#[macro_export]
macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        [$((stringify!($name), |desk| Box::pin($name(desk)))),*]
    };
}

/// Runs the scenarios, a few at a time, on one desk with this many accounts, which starts with the first of them.
pub fn run<const N: usize>(accounts: usize, scenarios: [Scenario; N]) -> ExitCode {
    run_at_once(AT_ONCE, accounts, scenarios)
}

/// Runs the scenarios one after the other.
pub fn run_in_turn<const N: usize>(accounts: usize, scenarios: [Scenario; N]) -> ExitCode {
    run_at_once(1, accounts, scenarios)
}

fn run_at_once<const N: usize>(at_once: usize, accounts: usize, scenarios: [Scenario; N]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(at_once);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => Arc::new(runtime),
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let directory = match tempfile::Builder::new().prefix("arbbot-").tempdir() {
        Ok(directory) => directory,
        Err(error) => {
            eprintln!("no temporary directory: {error}");
            return ExitCode::FAILURE;
        }
    };
    let path: Arc<Path> = Arc::from(directory.path());
    let desk: Arc<OnceCell<Result<Arc<Desk>, String>>> = Arc::default();
    let trials = scenarios.into_iter().map(|(name, scenario)| {
        let (runtime, desk, path) = (runtime.clone(), desk.clone(), path.clone());
        Trial::test(name, move || {
            let run = async {
                let started =
                    desk.get_or_init(|| async { start(&path, accounts).await.map_err(|e| format!("{e:#}")) }).await;
                let desk = started.clone().map_err(|error| anyhow!("the desk did not start: {error}"))?;
                let done = timeout(DEADLINE, scenario(desk)).await;
                done.map_err(|_| anyhow!("not done within {} s", DEADLINE.as_secs()))?
            };
            runtime.block_on(run).map_err(|error| Failed::from(format!("{error:#}")))
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    let started = desk.get().and_then(|desk| desk.as_ref().ok());
    if let Some(desk) = started.filter(|_| conclusion.has_failed()) {
        eprintln!("the operator's log, its end:\n{}", last_lines(&desk.operator_log(), 40));
    }
    let refused = started.map_or(Ok(()), |desk| nothing_was_refused(desk));
    if let Err(error) = &refused {
        eprintln!("{error:#}");
    }
    // Inside the runtime: what the desk drops still has tasks there.
    let _entered = runtime.enter();
    drop(desk);
    if conclusion.has_failed() || refused.is_err() { ExitCode::from(101) } else { ExitCode::SUCCESS }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Whatever the scenarios made it do, the operator has asked for nothing that its roles do not grant.
fn nothing_was_refused(desk: &Desk) -> Result<()> {
    let operator = user(OPERATOR_NAMESPACE, OPERATOR);
    let refused: BTreeSet<String> = desk
        .audit()?
        .into_iter()
        .filter(|request| request.forbidden && request.user == operator)
        .map(|request| format!("{} {} {}", request.verb, request.object.resource, request.object.namespace))
        .collect();
    ensure!(refused.is_empty(), "the operator's roles do not grant: {}", Vec::from_iter(refused).join(", "));
    Ok(())
}

async fn start(directory: &Path, accounts: usize) -> Result<Arc<Desk>> {
    let programs = Programs::build()?;
    let setup = Setup { programs: &programs, directory, accounts, fsync: false, audit: true };
    Ok(Arc::new(Desk::start(setup, |_| Ok(())).await?))
}
