//! The data directory: the exchange's certificate authority, its accounts and its API keys, as files.
//!
//! `serve` needs only the flat files (`server.crt`, `server.key`, `accounts.json`, `admin.token`), so the directory
//! can be made on one machine and mounted read-only as a Secret on another.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use p256::elliptic_curve::sec1::ToEncodedPoint;
use p256::pkcs8::{EncodePublicKey, LineEnding};
use rand::Rng;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Public half of the exchange's accounts: everything `serve` needs to recognise a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accounts {
    pub portfolios: Vec<AccountPortfolio>,
    pub keys: Vec<AccountKey>,
}

/// Where a private key belongs, relative to the data directory, and the text of its file.
pub type KeyFileText = (String, String);

impl Accounts {
    /// Makes `count` portfolios with a key each, and for the first one a key that may transfer, one that may only view
    /// and one of the other algorithm. The same generator state gives the same accounts.
    ///
    /// # Errors
    /// When there is no account, there are too many, or a key cannot be encoded.
    pub fn generate(count: usize, rng: &mut impl Rng) -> Result<(Self, Vec<KeyFileText>), DataDirError> {
        if !(1..=10_000).contains(&count) {
            return Err(DataDirError::AccountCount(count));
        }
        let portfolios: Vec<_> =
            (0..count).map(|i| AccountPortfolio { uuid: new_uuid(rng), name: format!("account-{i}") }).collect();
        let organization = new_uuid(rng);
        let (mut keys, mut files) = (Vec::with_capacity(count + 2), Vec::with_capacity(count + 2));
        let mut add = |file: String, portfolio, can_trade, can_transfer| -> Result<(), DataDirError> {
            let (key, private) = new_key(organization, file.clone(), portfolio, rng)?;
            keys.push(AccountKey { can_trade, can_transfer, ..key });
            files.push((file, private));
            Ok(())
        };
        for (i, portfolio) in portfolios.iter().enumerate() {
            add(format!("keys/{i}.json"), portfolio.uuid, true, false)?;
        }
        // Keys that a bot must refuse or cannot trade with, for tests of bad input.
        add("keys/transfer.json".into(), portfolios[0].uuid, true, true)?;
        add("keys/view-only.json".into(), portfolios[0].uuid, false, false)?;
        let (key, private) = new_ed25519_key(organization, "keys/ed25519.json".into(), portfolios[0].uuid, rng)?;
        files.push((key.file.clone(), private));
        keys.push(key);
        Ok((Self { portfolios, keys }, files))
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountPortfolio {
    pub uuid: Uuid,
    pub name: String,
}

/// An API key: its public half, the one portfolio it is bound to, and what it may do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountKey {
    /// `organizations/<uuid>/apiKeys/<uuid>`
    pub name: String,
    /// Where its private half was written, relative to the data directory.
    pub file: String,
    pub algorithm: Algorithm,
    /// PEM, SubjectPublicKeyInfo; for Ed25519 the 32 bytes in base64.
    #[serde(rename = "publicKey")]
    pub public_key: String,
    pub portfolio: Uuid,
    pub can_view: bool,
    pub can_trade: bool,
    pub can_transfer: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// Coinbase's downloaded key file.
#[derive(Serialize)]
struct KeyFile<'a> {
    name: &'a str,
    #[serde(rename = "privateKey")]
    private_key: &'a str,
}

#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("cannot {action} {path}: {source}; check that the data directory exists and may be written")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("cannot make the certificates: {0}; a --dns-name must be a DNS name or an IP address")]
    Certificate(#[from] rcgen::Error),
    #[error("cannot make a key: {0}")]
    Key(String),
    #[error("{path} is not valid: {message}; delete the data directory to make a new one")]
    Invalid { path: PathBuf, message: String },
    #[error("--accounts must be between 1 and 10000, not {0}")]
    AccountCount(usize),
}

/// The directory and the names of its files.
#[derive(Debug, Clone)]
pub struct DataDir(PathBuf);

impl DataDir {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    /// Makes the directory's files unless they are all there; a complete directory is kept as it is.
    ///
    /// # Errors
    /// When a file cannot be written or a name is not valid.
    pub fn init(&self, accounts: usize, dns_names: &[String]) -> Result<(), DataDirError> {
        // accounts.json is written last, so its presence means the rest is complete.
        if self.path("accounts.json").exists() {
            return Ok(());
        }
        let keys = self.path("keys");
        fs::create_dir_all(&keys).map_err(|source| DataDirError::Io { action: "create", path: keys, source })?;
        self.write_certificates(dns_names)?;
        self.write("admin.token", &random_token(), Secret::Yes)?;
        let accounts = self.write_accounts(accounts)?;
        self.write("accounts.json", &to_json(&accounts), Secret::No)
    }

    /// # Errors
    /// When accounts.json is missing or not what `init` wrote.
    pub fn accounts(&self) -> Result<Accounts, DataDirError> {
        let path = self.path("accounts.json");
        serde_json::from_str(&read(&path)?).map_err(|error| DataDirError::Invalid { path, message: error.to_string() })
    }

    /// The bearer token of the administrative interface.
    ///
    /// # Errors
    /// When admin.token is missing or too short to be a secret.
    pub fn admin_token(&self) -> Result<String, DataDirError> {
        let path = self.path("admin.token");
        let token = read(&path)?.trim().to_owned();
        if token.len() < 32 {
            return Err(DataDirError::Invalid { path, message: "the token is shorter than 32 characters".into() });
        }
        Ok(token)
    }

    fn write_certificates(&self, dns_names: &[String]) -> Result<(), DataDirError> {
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(DnType::CommonName, "exchange-simulator CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_certificate = ca.self_signed(&ca_key)?;

        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        names.extend(dns_names.iter().filter(|n| !names.contains(n)).cloned().collect::<Vec<_>>());
        let server_key = KeyPair::generate()?;
        let mut server = CertificateParams::new(names)?;
        server.distinguished_name.push(DnType::CommonName, "exchange-simulator");
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.use_authority_key_identifier_extension = true;
        let server_certificate = server.signed_by(&server_key, &Issuer::from_params(&ca, &ca_key))?;

        self.write("ca.crt", &ca_certificate.pem(), Secret::No)?;
        self.write("ca.key", &ca_key.serialize_pem(), Secret::Yes)?;
        self.write("server.crt", &server_certificate.pem(), Secret::No)?;
        self.write("server.key", &server_key.serialize_pem(), Secret::Yes)
    }

    fn write_accounts(&self, count: usize) -> Result<Accounts, DataDirError> {
        let (accounts, files) = Accounts::generate(count, &mut rand::rng())?;
        for (i, (file, private)) in files.iter().enumerate() {
            if i == 0 {
                self.write("key.json", private, Secret::Yes)?;
            }
            self.write(file, private, Secret::Yes)?;
        }
        Ok(accounts)
    }

    fn write(&self, file: &str, content: &str, secret: Secret) -> Result<(), DataDirError> {
        let path = self.path(file);
        let mode = if secret == Secret::Yes { 0o600 } else { 0o644 };
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&path)
            .and_then(|mut f| f.write_all(content.as_bytes()))
            .map_err(|source| DataDirError::Io { action: "write", path, source })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Secret {
    Yes,
    No,
}

fn read(path: &Path) -> Result<String, DataDirError> {
    fs::read_to_string(path).map_err(|source| DataDirError::Io { action: "read", path: path.to_owned(), source })
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn random_token() -> String {
    let mut bytes = [0u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

fn new_uuid(rng: &mut impl Rng) -> Uuid {
    let mut bytes = [0u8; 16];
    rng.fill_bytes(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// A new ES256 key that may view and trade, and the text of its key file.
fn new_key(
    organization: Uuid,
    file: String,
    portfolio: Uuid,
    rng: &mut impl Rng,
) -> Result<(AccountKey, String), DataDirError> {
    let name = format!("organizations/{organization}/apiKeys/{}", new_uuid(rng));
    let secret = loop {
        // Almost every 32 random bytes are a valid P-256 scalar; the loop is for the one that is not.
        let mut bytes = [0u8; 32];
        rng.fill_bytes(&mut bytes);
        if let Ok(secret) = p256::SecretKey::from_slice(&bytes) {
            break secret;
        }
    };
    let private = sec1_pem(&secret);
    let public_key =
        secret.public_key().to_public_key_pem(LineEnding::LF).map_err(|e| DataDirError::Key(e.to_string()))?;
    let text = to_json(&KeyFile { name: &name, private_key: &private });
    let key = AccountKey {
        name,
        file,
        algorithm: Algorithm::Es256,
        public_key,
        portfolio,
        can_view: true,
        can_trade: true,
        can_transfer: false,
    };
    Ok((key, text))
}

/// A new Ed25519 key that may view and trade. Its file holds what Coinbase's does: seed and public key in base64.
fn new_ed25519_key(
    organization: Uuid,
    file: String,
    portfolio: Uuid,
    rng: &mut impl Rng,
) -> Result<(AccountKey, String), DataDirError> {
    let name = format!("organizations/{organization}/apiKeys/{}", new_uuid(rng));
    let mut seed = [0u8; 32];
    rng.fill_bytes(&mut seed);
    let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&seed);
    let pair = pair.map_err(|e| DataDirError::Key(e.to_string()))?;
    let public = ring::signature::KeyPair::public_key(&pair).as_ref();
    let base64 = base64::engine::general_purpose::STANDARD;
    let text = to_json(&KeyFile { name: &name, private_key: &base64.encode([&seed, public].concat()) });
    let key = AccountKey {
        name,
        file,
        algorithm: Algorithm::EdDsa,
        public_key: base64.encode(public),
        portfolio,
        can_view: true,
        can_trade: true,
        can_transfer: false,
    };
    Ok((key, text))
}

/// SEC1 with the curve named, as Coinbase's files have it. `to_sec1_pem` leaves the curve out, and OpenSSL and what
/// is built on it then refuse the key. Layout: RFC 5915, whose lengths are fixed for this curve.
fn sec1_pem(secret: &p256::SecretKey) -> String {
    const VERSION_AND_KEY: [u8; 7] = [0x30, 0x77, 0x02, 0x01, 0x01, 0x04, 0x20];
    const PRIME256V1: [u8; 12] = [0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    const PUBLIC_KEY: [u8; 5] = [0xa1, 0x44, 0x03, 0x42, 0x00];
    let point = secret.public_key().to_encoded_point(false);
    let der = [&VERSION_AND_KEY[..], &secret.to_bytes(), &PRIME256V1, &PUBLIC_KEY, point.as_bytes()].concat();
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN EC PRIVATE KEY-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|b| char::from(*b)));
        pem.push('\n');
    }
    pem + "-----END EC PRIVATE KEY-----\n"
}
