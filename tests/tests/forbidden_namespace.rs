//! An operator that may work in some namespaces only, and is told to watch one where it may not: it says so, and the
//! others go on.

use anyhow::{Result, ensure};
use arbbot_tests::crds;
use arbbot_tests::harness::{OPERATOR, OPERATOR_NAMESPACE};
use arbbot_tests::lone_operator::Site;
use arbbot_tests::waiting::wait_for;
use serde_json::json;

const ALLOWED: &str = "desk-a";
const FORBIDDEN: &str = "desk-b";

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_without_permission_is_named_and_the_others_go_on() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let site = Site::start(directory.path()).await?;
    crds::install(&site.kubectl).await?;
    for namespace in [ALLOWED, FORBIDDEN] {
        site.apply_bot(namespace, "bot").await?;
    }
    // The same rules, granted in one namespace only.
    site.kubectl.run(&["delete", "clusterrolebinding", OPERATOR]).await?;
    grant(&site, ALLOWED).await?;
    let flags = [format!("--watch-namespace={ALLOWED}"), format!("--watch-namespace={FORBIDDEN}")];
    let operator = site.operator(directory.path(), &[&flags[0], &flags[1]]).await?;

    site.wait_until_exists(ALLOWED, "deployment/arbbot-bot").await?;
    let reported = || async { Ok(!site.get(ALLOWED, "arbbot/bot").await?["status"]["observedGeneration"].is_null()) };
    wait_for("the bot of the allowed namespace is reported", reported).await?;
    wait_for("the operator is ready for the others", || async { Ok(operator.readiness().await?.0) }).await?;
    let (_, says) = operator.readiness().await?;
    ensure!(says.contains(FORBIDDEN) && !says.contains(ALLOWED), "/readyz says {says}");
    ensure!(says.contains("arbbots") && says.contains("forbidden"), "/readyz says {says}");
    let named = |line: &str| line.contains(FORBIDDEN) && line.contains("forbidden");
    ensure!(operator.log()?.lines().any(named), "the log does not name {FORBIDDEN}");

    grant(&site, FORBIDDEN).await?;
    site.wait_until_exists(FORBIDDEN, "deployment/arbbot-bot").await?;
    wait_for("everything is watched", || async { Ok(operator.readiness().await?.1 == "ok") }).await
}

async fn grant(site: &Site, namespace: &str) -> Result<()> {
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": OPERATOR, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": OPERATOR},
        "subjects": [{"kind": "ServiceAccount", "name": OPERATOR, "namespace": OPERATOR_NAMESPACE}],
    });
    site.kubectl.apply(&binding).await
}
