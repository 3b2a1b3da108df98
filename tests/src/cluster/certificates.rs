//! A certificate authority of the cluster's own, and the kubeconfigs that use it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

/// The names every pod knows the API server by.
const SERVICE_NAMES: [&str; 4] = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];

/// A directory (mode 0700) with the keys and certificates of one cluster.
pub struct Certificates {
    directory: PathBuf,
    authority: Issuer<'static, KeyPair>,
    authority_pem: String,
}

impl Certificates {
    /// Makes the authority (`ca.crt`, `ca.key`) and the key pair that signs service-account tokens
    /// (`sa.key`, `sa.pub`) in `directory`.
    pub fn create(directory: &Path) -> Result<Self> {
        fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(directory)
            .with_context(|| format!("create {}", directory.display()))?;
        let key = KeyPair::generate()?;
        let mut parameters = named("arbbot-test-cluster", None);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let authority_pem = parameters.self_signed(&key)?.pem();
        write_private(&directory.join("ca.crt"), &authority_pem)?;
        write_private(&directory.join("ca.key"), &key.serialize_pem())?;
        let tokens = KeyPair::generate()?;
        write_private(&directory.join("sa.key"), &tokens.serialize_pem())?;
        write_private(&directory.join("sa.pub"), &tokens.public_key_pem())?;
        let authority = Issuer::new(parameters, key);
        Ok(Self { directory: directory.to_owned(), authority, authority_pem })
    }

    /// The path of one of the files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Writes `<name>.crt` and `<name>.key` for a server at `addresses` and at the API server's usual names.
    pub fn server(&self, name: &str, addresses: &[IpAddr]) -> Result<()> {
        let mut parameters = named(name, None);
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for service in SERVICE_NAMES {
            parameters.subject_alt_names.push(SanType::DnsName(service.try_into()?));
        }
        parameters.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
        let (certificate, key) = self.sign(parameters)?;
        write_private(&self.file(&format!("{name}.crt")), &certificate)?;
        write_private(&self.file(&format!("{name}.key")), &key)
    }

    /// Writes `<name>.crt` and `<name>.key` for a client: `user` is the common name, `group` the organisation.
    pub fn client(&self, name: &str, user: &str, group: Option<&str>) -> Result<()> {
        let (certificate, key) = self.sign_client(user, group)?;
        write_private(&self.file(&format!("{name}.crt")), &certificate)?;
        write_private(&self.file(&format!("{name}.key")), &key)
    }

    /// Writes a kubeconfig (mode 0600) for `user` in `group`, with its certificates inside.
    pub fn kubeconfig(&self, file: &Path, cluster: &str, server: &str, user: &str, group: Option<&str>) -> Result<()> {
        let (certificate, key) = self.sign_client(user, group)?;
        let authority = BASE64.encode(&self.authority_pem);
        let (certificate, key) = (BASE64.encode(certificate), BASE64.encode(key));
        // A new file and a rename: a reader sees a whole kubeconfig or none.
        let new = file.with_extension("new");
        write_private(
            &new,
            &format!(
                "apiVersion: v1
kind: Config
current-context: {cluster}
contexts:
- name: {cluster}
  context: {{cluster: {cluster}, user: \"{user}\"}}
clusters:
- name: {cluster}
  cluster:
    server: {server}
    certificate-authority-data: {authority}
users:
- name: \"{user}\"
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
"
            ),
        )?;
        fs::rename(&new, file).with_context(|| format!("write {}", file.display()))
    }

    fn sign_client(&self, user: &str, group: Option<&str>) -> Result<(String, String)> {
        let mut parameters = named(user, group);
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(parameters)
    }

    fn sign(&self, mut parameters: CertificateParams) -> Result<(String, String)> {
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.authority)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

fn named(common_name: &str, organisation: Option<&str>) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    if let Some(organisation) = organisation {
        parameters.distinguished_name.push(DnType::OrganizationName, organisation);
    }
    parameters
}

/// Writes a file that only its owner can read.
pub fn write_private(file: &Path, content: &str) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(file).and_then(|mut open| open.write_all(content.as_bytes()));
    written.with_context(|| format!("write {}", file.display()))
}
