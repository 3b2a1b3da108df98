//! What the API server writes into its audit log: who did what, for the accounts of pods; of everybody else, who wrote.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::home;
use crate::command;

/// Of the operator's writes the answer is kept too: it shows the resourceVersion, the one order of all writes, and what
/// the leader's Lease said. What Kubernetes' own controllers and people read is left out.
const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: None, userGroups: ["system:serviceaccounts:kube-system"], verbs: [get, list, watch]}
- level: RequestResponse
  users: ["system:serviceaccount:arbbot-system:arbbot-operator"]
  verbs: [create, update, patch, delete]
- {level: Metadata, userGroups: ["system:serviceaccounts"]}
- {level: Metadata, verbs: [create, update, patch, delete, deletecollection]}
- {level: None}
"#;

/// Where the audit log of a cluster in `directory` is.
pub fn log(directory: &Path) -> PathBuf {
    home::log_directory(directory).join("audit.log")
}

/// Writes the policy into `state` and returns the API server's flags.
///
/// # Errors
/// The policy cannot be written.
pub fn flags(state: &Path, log: &Path) -> Result<Vec<OsString>> {
    let policy = state.join("audit-policy.yaml");
    fs::write(&policy, POLICY).with_context(|| format!("write {}", policy.display()))?;
    Ok(command![
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", log.display()),
        "--audit-log-maxsize=10000", // MB; the default would begin a new file in the middle of a test
    ]
    .into())
}
