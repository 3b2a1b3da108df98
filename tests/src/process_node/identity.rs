//! Who a pod is: a token of its ServiceAccount, and the kubeconfig that uses it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};

/// As long as a kubelet asks for; the token is renewed long before.
const TOKEN_SECONDS: i64 = 3607;

/// How often a token is renewed.
pub const RENEW_EVERY: Duration = Duration::from_secs(2400);

/// How an API server is reached.
#[derive(Clone, Debug)]
pub struct ApiServer {
    pub url: String,
    /// PEM certificates that sign its certificate.
    pub authority: String,
}

impl ApiServer {
    /// The one that a client's configuration names.
    pub fn of(config: &kube::Config) -> Self {
        let certificates = config.root_cert.iter().flatten().map(|der| pem(der)).collect();
        Self { url: config.cluster_url.to_string().trim_end_matches('/').to_owned(), authority: certificates }
    }
}

fn pem(der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// Writes a fresh token, bound to the pod, into `directory/token`.
///
/// # Errors
/// The API server refuses, or the file cannot be written.
pub async fn renew(client: &Client, pod: &Pod, directory: &Path) -> Result<()> {
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let bound = BoundObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: Some(pod.name_any()),
        uid: pod.uid(),
    };
    let spec = TokenRequestSpec {
        audiences: Vec::new(),
        bound_object_ref: Some(bound),
        expiration_seconds: Some(TOKEN_SECONDS),
    };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let reply = accounts.create_token_request(account, &PostParams::default(), &request).await;
    let reply = reply.with_context(|| format!("token of ServiceAccount {account}"))?;
    let token = reply.status.map(|status| status.token).ok_or_else(|| anyhow!("the reply holds no token"))?;
    let new = directory.join("token.new");
    fs::write(&new, token).and_then(|()| fs::rename(&new, directory.join("token"))).context("write the token")
}

/// Writes `directory/kubeconfig`, which reads `directory/token`.
///
/// # Errors
/// The file cannot be written.
pub fn write_kubeconfig(directory: &Path, server: &ApiServer, namespace: &str) -> Result<PathBuf> {
    let kubeconfig = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "pod",
        "clusters": [{"name": "pod", "cluster": {
            "server": server.url, "certificate-authority-data": BASE64.encode(&server.authority),
        }}],
        "users": [{"name": "pod", "user": {"tokenFile": directory.join("token")}}],
        "contexts": [{"name": "pod", "context": {"cluster": "pod", "user": "pod", "namespace": namespace}}],
    });
    let file = directory.join("kubeconfig");
    fs::write(&file, kubeconfig.to_string()).with_context(|| format!("write {}", file.display()))?;
    Ok(file)
}
