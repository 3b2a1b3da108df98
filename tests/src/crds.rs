//! Installed CustomResourceDefinitions that are laxer or older than this release.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::harness::MANIFESTS;
use crate::kubectl::Kubectl;
use crate::waiting::wait_for;

/// Name of the definition of ArbBots.
pub const ARBBOTS: &str = "arbbots.arbbot.io";
/// Name of the definition of ArbPolicies.
pub const ARBPOLICIES: &str = "arbpolicies.arbbot.io";
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);

/// Installs the definitions of this release.
///
/// # Errors
/// kubectl fails.
pub async fn install(kubectl: &Kubectl) -> Result<()> {
    let file = format!("{MANIFESTS}/crds.yaml");
    kubectl.run(&["apply", "--server-side", "--force-conflicts", "-f", &file]).await?;
    let crds = ["crd/arbbots.arbbot.io", "crd/arbpolicies.arbbot.io"];
    let established = ["wait", "--for=condition=Established", "--timeout=30s", crds[0], crds[1]];
    // kubectl gives up on an object whose status nobody has written yet.
    wait_for("the definitions are established", || async { Ok(kubectl.output(&established, "").await?.success) }).await
}

/// Lets the API server store any spec under any name, as an early release might have.
///
/// # Errors
/// kubectl fails.
pub async fn allow_any_spec(kubectl: &Kubectl) -> Result<()> {
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let schema = "/spec/versions/0/schema/openAPIV3Schema";
    let patch = json!([
        {"op": "replace", "path": format!("{schema}/properties/spec"), "value": anything},
        // Not "remove", which fails the second time.
        {"op": "add", "path": format!("{schema}/x-kubernetes-validations"), "value": []},
    ]);
    self::patch(kubectl, ARBBOTS, &patch).await
}

/// Takes a field of status out of a definition's schema, as if it had been added in this release.
///
/// # Errors
/// kubectl fails.
pub async fn remove_status_field(kubectl: &Kubectl, definition: &str, field: &str) -> Result<()> {
    let status = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties";
    self::patch(kubectl, definition, &json!([{"op": "remove", "path": format!("{status}/{field}")}])).await
}

async fn patch(kubectl: &Kubectl, definition: &str, patch: &Value) -> Result<()> {
    let definition = format!("crd/{definition}");
    kubectl.run(&["patch", &definition, "--type=json", "-p", &patch.to_string()]).await?;
    Ok(())
}

/// Waits until the API server answers a dry run of `object` as wanted: it takes a moment until it uses a new schema.
///
/// # Errors
/// It does not in time; the message shows its last answer.
pub async fn wait_until_accepted(kubectl: &Kubectl, object: &Value, accepted: bool) -> Result<()> {
    let limit = Instant::now() + PATIENCE;
    loop {
        let arguments = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
        let output = kubectl.output(&arguments, &object.to_string()).await.context("dry run")?;
        if output.success == accepted {
            return Ok(());
        }
        if Instant::now() > limit {
            bail!("the API server still says: {}{}", output.stdout, output.stderr);
        }
        sleep(POLL).await;
    }
}
