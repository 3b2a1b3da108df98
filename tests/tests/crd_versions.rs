//! The installed CustomResourceDefinitions are missing, or of an earlier release: the operator names them and the command
//! that mends it, goes on as far as it can, and needs no restart afterwards.

use anyhow::{Result, ensure};
use arbbot_tests::lone_operator::Site;
use arbbot_tests::waiting::wait_for;
use arbbot_tests::{crds, objects};
use serde_json::json;

const NAMESPACE: &str = "desk";
/// What a person has to run.
const REMEDY: &str = "kubectl apply --server-side -f crds/";

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_definition_is_named_and_waited_for() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let site = Site::start(directory.path()).await?;
    let operator = site.operator(directory.path(), &[]).await?;
    wait_for("the log names the remedy", || async { Ok(operator.log()?.contains(REMEDY)) }).await?;
    let (ready, says) = operator.readiness().await?;
    ensure!(!ready && says.contains("ArbBot"), "/readyz says {says}");

    crds::install(&site.kubectl).await?;
    site.apply_bot(NAMESPACE, "bot").await?;
    site.wait_until_exists(NAMESPACE, "deployment/arbbot-bot").await?;
    ensure!(operator.readiness().await?.0, "not ready");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_definition_is_named_on_the_bot_which_still_gets_its_children() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let site = Site::start(directory.path()).await?;
    crds::install(&site.kubectl).await?;
    crds::remove_status_field(&site.kubectl, crds::ARBBOTS, "claim").await?;
    let operator = site.operator(directory.path(), &[]).await?;
    site.apply_bot(NAMESPACE, "bot").await?;
    site.wait_until_exists(NAMESPACE, "deployment/arbbot-bot").await?;
    site.wait_for_event(NAMESPACE, "bot", &["CrdOutdated", REMEDY]).await?;
    wait_for("the log names the remedy", || async { Ok(operator.log()?.contains(REMEDY)) }).await?;
    ensure!(operator.metrics().await?.contains("CrdOutdated"), "no metric counts CrdOutdated");

    crds::install(&site.kubectl).await?;
    let written = || async { Ok(!site.get(NAMESPACE, "arbbot/bot").await?["status"]["claim"].is_null()) };
    wait_for("status is written under the new definition", written).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_definition_of_policies_is_named_on_the_policy() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let site = Site::start(directory.path()).await?;
    crds::install(&site.kubectl).await?;
    crds::remove_status_field(&site.kubectl, crds::ARBPOLICIES, "bots").await?;
    let _operator = site.operator(directory.path(), &[]).await?;
    site.apply_bot(NAMESPACE, "bot").await?;
    let mut policy = objects::policy("desk");
    policy["metadata"]["namespace"] = json!(NAMESPACE);
    site.kubectl.apply(&policy).await?;
    site.wait_for_event(NAMESPACE, "desk", &["CrdOutdated", REMEDY]).await?;
    site.wait_until_exists(NAMESPACE, "deployment/arbbot-bot").await?;

    crds::install(&site.kubectl).await?;
    let counted = || async { Ok(!site.get(NAMESPACE, "arbpolicy/desk").await?["status"]["bots"].is_null()) };
    wait_for("the policy's bots are counted under the new definition", counted).await
}
