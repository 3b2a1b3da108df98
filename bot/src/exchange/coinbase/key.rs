//! The API key, read from the two files of the mounted Secret.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arbbot_crds::conditions::Reason;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use p256::elliptic_curve::sec1::ToEncodedPoint;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use sha2::{Digest, Sha256};

/// Key of the Secret, and name of its file, that holds the name of the API key.
const NAME: &str = "name";
/// Key of the Secret, and name of its file, that holds the private key.
const PRIVATE_KEY: &str = "privateKey";
/// Largest file that is read; a private key is a few hundred bytes.
const MAX_FILE: u64 = 16 * 1024;
/// Longest name; Coinbase's are about a hundred characters.
const MAX_NAME: usize = 256;
/// Hexadecimal digits of a fingerprint.
const FINGERPRINT: usize = 12;
/// What comes before the 32 bytes of an Ed25519 seed in PKCS #8 (RFC 8410, section 7).
const ED25519_PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// Why there is no API key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(
        "{file} does not exist: the Secret of spec.credentials.secretRef is missing or lacks the key {key:?}; \
         put both values of the key file that Coinbase lets you download into it"
    )]
    Missing { file: PathBuf, key: &'static str },
    #[error("{file} (key {key:?} of the Secret) cannot be read: {cause}; check the Secret and how the pod mounts it")]
    Unreadable { file: PathBuf, key: &'static str, cause: std::io::Error },
    #[error("{file} (key {key:?} of the Secret) is empty: put the value from Coinbase's key file into it")]
    Empty { file: PathBuf, key: &'static str },
    #[error(
        "{file} (key {NAME:?} of the Secret) is not the name of an API key: it must be one line such as \
         organizations/…/apiKeys/… or a UUID, as in Coinbase's key file"
    )]
    NotAName { file: PathBuf },
    #[error(
        "{file} (key {PRIVATE_KEY:?} of the Secret) is not a private key: {problem}; it must be the privateKey of \
         Coinbase's key file: a PEM of a P-256 key, or an Ed25519 key as PEM or base64"
    )]
    NotAKey { file: PathBuf, problem: &'static str },
}

impl KeyError {
    /// The reason for the condition CredentialsValid.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Missing { .. } => Reason::SecretMissing,
            Self::Unreadable { .. } | Self::Empty { .. } | Self::NotAName { .. } | Self::NotAKey { .. } => {
                Reason::KeyUnreadable
            }
        }
    }
}

/// An API key of the Coinbase Developer Platform. Shown as its fingerprint only.
#[derive(Clone)]
pub struct ApiKey {
    name: String,
    private: PrivateKey,
}

#[derive(Clone)]
enum PrivateKey {
    /// Signed with ring: an order waits for its token, and this takes a tenth of the time of pure Rust.
    P256(Arc<EcdsaKeyPair>),
    Ed25519(EncodingKey),
}

/// The key cannot sign.
#[derive(Debug, thiserror::Error)]
#[error("the API key cannot sign")]
pub struct SignError;

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({})", self.fingerprint())
    }
}

impl ApiKey {
    /// Reads `<dir>/name` and `<dir>/privateKey`.
    ///
    /// # Errors
    /// A file is missing, empty or not what it should be; the error names it and the remedy.
    pub fn load(dir: &Path) -> Result<Self, KeyError> {
        // The kubelet changes both files at once by changing the link ..data: following it once keeps them a pair.
        let linked = dir.join("..data");
        let dir = linked.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let name = read(&dir, NAME)?;
        let private_key = read(&dir, PRIVATE_KEY)?;
        if name.len() > MAX_NAME || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(KeyError::NotAName { file: dir.join(NAME) });
        }
        let private =
            parse(&private_key).map_err(|problem| KeyError::NotAKey { file: dir.join(PRIVATE_KEY), problem })?;
        Ok(Self { name, private })
    }

    /// Name of the key: `organizations/…/apiKeys/…` or a UUID.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first 12 hexadecimal digits of the SHA-256 of the key's name: tells keys apart and gives nothing away.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hex = hex(&Sha256::digest(self.name.as_bytes()));
        hex.truncate(FINGERPRINT);
        hex
    }

    /// ES256 or EdDSA.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self.private {
            PrivateKey::P256(_) => Algorithm::ES256,
            PrivateKey::Ed25519(_) => Algorithm::EdDSA,
        }
    }

    /// The signature of a token, as its third part.
    pub(super) fn sign(&self, message: &[u8]) -> Result<String, SignError> {
        match &self.private {
            PrivateKey::P256(key) => {
                let signature = key.sign(&SystemRandom::new(), message).map_err(|_| SignError)?;
                Ok(URL_SAFE_NO_PAD.encode(signature))
            }
            PrivateKey::Ed25519(key) => {
                jsonwebtoken::crypto::sign(message, key, Algorithm::EdDSA).map_err(|_| SignError)
            }
        }
    }
}

/// Bytes in lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn read(dir: &Path, key: &'static str) -> Result<String, KeyError> {
    let file = dir.join(key);
    let mut text = String::new();
    let result = File::open(&file).and_then(|open| open.take(MAX_FILE).read_to_string(&mut text));
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(KeyError::Missing { file, key }),
        Err(cause) => Err(KeyError::Unreadable { file, key, cause }),
        Ok(_) if text.trim().is_empty() => Err(KeyError::Empty { file, key }),
        Ok(_) => Ok(text.trim().to_owned()),
    }
}

/// Reads every form that Coinbase hands out: SEC1 or PKCS #8 PEM of a P-256 key, PKCS #8 PEM of an Ed25519 key, or
/// base64 of its seed, alone (32 bytes) or followed by the public key (64 bytes).
fn parse(private_key: &str) -> Result<PrivateKey, &'static str> {
    // In the JSON of the key file line ends are written as \n; copied by hand they often stay so.
    let text = private_key.replace("\\r", "").replace("\\n", "\n");
    if text.contains("-----BEGIN EC PRIVATE KEY-----") {
        let secret =
            p256::SecretKey::from_sec1_pem(&text).map_err(|_| "its EC PRIVATE KEY block is not a P-256 key")?;
        return p256(&secret);
    }
    if text.contains("-----BEGIN PRIVATE KEY-----") {
        if let Ok(secret) = <p256::SecretKey as p256::pkcs8::DecodePrivateKey>::from_pkcs8_pem(&text) {
            return p256(&secret);
        }
        let problem = "its PRIVATE KEY block is neither a P-256 nor an Ed25519 key";
        return ed25519(EncodingKey::from_ed_pem(text.as_bytes()).map_err(|_| problem)?);
    }
    if text.contains("-----BEGIN") {
        return Err("it is a PEM of another kind");
    }
    let compact: String = text.split_whitespace().collect();
    let bytes = STANDARD.decode(compact).map_err(|_| "it is neither PEM nor base64")?;
    let seed = match bytes.len() {
        32 | 64 => bytes.get(..32).unwrap_or_default(),
        _ => return Err("as base64 it must be 32 or 64 bytes"),
    };
    let pkcs8 = [ED25519_PKCS8_PREFIX.as_slice(), seed].concat();
    ed25519(EncodingKey::from_ed_der(&pkcs8))
}

fn p256(secret: &p256::SecretKey) -> Result<PrivateKey, &'static str> {
    let public = secret.public_key().to_encoded_point(false);
    let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
    let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, &secret.to_bytes(), public.as_bytes(), &random);
    Ok(PrivateKey::P256(Arc::new(pair.map_err(|_| "its P-256 key is not valid")?)))
}

/// jsonwebtoken reads a key only when it signs, so it signs once here.
fn ed25519(key: EncodingKey) -> Result<PrivateKey, &'static str> {
    match jsonwebtoken::crypto::sign(&[], &key, Algorithm::EdDSA) {
        Ok(_) => Ok(PrivateKey::Ed25519(key)),
        Err(_) => Err("it is not an Ed25519 key"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use p256::ecdsa::signature::Verifier;
    use p256::ecdsa::{Signature, VerifyingKey};
    use p256::pkcs8::{EncodePrivateKey, LineEnding};

    use super::*;

    fn dir(name: Option<&str>, private_key: Option<&str>) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (file, content) in [(NAME, name), (PRIVATE_KEY, private_key)] {
            if let Some(content) = content {
                fs::write(dir.path().join(file), content).unwrap();
            }
        }
        dir
    }

    fn load(name: Option<&str>, private_key: Option<&str>) -> Result<ApiKey, KeyError> {
        ApiKey::load(dir(name, private_key).path())
    }

    fn secret() -> p256::SecretKey {
        p256::SecretKey::from_slice(&[7; 32]).unwrap()
    }

    #[test]
    fn every_form_that_coinbase_hands_out_is_read() {
        let sec1 = secret().to_sec1_pem(LineEnding::LF).unwrap().to_string();
        let pkcs8 = secret().to_pkcs8_pem(LineEnding::LF).unwrap().to_string();
        let der = [ED25519_PKCS8_PREFIX.as_slice(), &[9; 32]].concat();
        let ed25519 = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der));
        for (form, text, algorithm) in [
            ("SEC1", sec1.clone(), Algorithm::ES256),
            ("SEC1 with literal \\n", sec1.replace('\n', "\\n"), Algorithm::ES256),
            ("PKCS #8", pkcs8, Algorithm::ES256),
            ("Ed25519 PEM", ed25519, Algorithm::EdDSA),
            ("Ed25519 seed", STANDARD.encode([9; 32]), Algorithm::EdDSA),
            ("Ed25519 seed and public key", STANDARD.encode([9; 64]), Algorithm::EdDSA),
        ] {
            let key = load(Some("organizations/a/apiKeys/b\n"), Some(&text)).unwrap_or_else(|e| panic!("{form}: {e}"));
            assert_eq!(key.algorithm(), algorithm, "{form}");
            assert_eq!(key.name(), "organizations/a/apiKeys/b");
        }
    }

    #[test]
    fn what_a_p256_key_signs_is_verified_by_its_public_key() {
        let sec1 = secret().to_sec1_pem(LineEnding::LF).unwrap();
        let signed = load(Some("k"), Some(&sec1)).unwrap().sign(b"header.claims").unwrap();
        let signature = Signature::from_slice(&URL_SAFE_NO_PAD.decode(signed).unwrap()).unwrap();
        let public = VerifyingKey::from(secret().public_key());
        public.verify(b"header.claims", &signature).unwrap();
        public.verify(b"header.other", &signature).unwrap_err();
    }

    #[test]
    fn a_bad_file_is_named_with_the_remedy_and_without_its_content() {
        let good = STANDARD.encode([9; 32]);
        for (name, private_key, file, reason) in [
            (None, Some(good.as_str()), NAME, Reason::SecretMissing),
            (Some("k"), None, PRIVATE_KEY, Reason::SecretMissing),
            (Some("k"), Some(" \n"), PRIVATE_KEY, Reason::KeyUnreadable),
            (Some(""), Some(good.as_str()), NAME, Reason::KeyUnreadable),
            (Some("two\nlines"), Some(good.as_str()), NAME, Reason::KeyUnreadable),
            (Some("k"), Some("hunter2"), PRIVATE_KEY, Reason::KeyUnreadable),
            (Some("k"), Some("aHVudGVyMg=="), PRIVATE_KEY, Reason::KeyUnreadable),
            (Some("k"), Some("-----BEGIN EC PRIVATE KEY-----\nhunter2"), PRIVATE_KEY, Reason::KeyUnreadable),
            (Some("k"), Some("-----BEGIN RSA PRIVATE KEY-----\nhunter2"), PRIVATE_KEY, Reason::KeyUnreadable),
        ] {
            let error = load(name, private_key).unwrap_err();
            let text = error.to_string();
            assert_eq!(error.reason(), reason, "{text}");
            assert!(text.contains(&format!("/{file}")) && !text.contains("hunter2"), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_file_makes_the_reading_panic(
            name in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60),
            start in "(-----BEGIN (EC |ENCRYPTED )?PRIVATE KEY-----(\\n|\n))?",
            body in "([A-Za-z0-9+/=\n\\\\]{0,120}|.{0,60})",
        ) {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(NAME), &name).unwrap();
            fs::write(dir.path().join(PRIVATE_KEY), format!("{start}{body}-----END EC PRIVATE KEY-----")).unwrap();
            if let Err(error) = ApiKey::load(dir.path()) {
                proptest::prop_assert!(body.len() < 12 || !error.to_string().contains(&body));
            }
        }
    }

    #[test]
    fn a_key_is_never_printed() {
        let text = STANDARD.encode([9; 32]);
        let key = load(Some("organizations/a/apiKeys/b"), Some(&text)).unwrap();
        assert_eq!(format!("{key:?}"), format!("ApiKey({})", key.fingerprint()));
        assert_eq!(key.fingerprint().len(), 12);
    }
}
