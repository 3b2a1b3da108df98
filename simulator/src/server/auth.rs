//! JSON Web Tokens as Coinbase's API keys sign them.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use p256::elliptic_curve::sec1::ToEncodedPoint;
use p256::pkcs8::DecodePublicKey;
use ring::signature::{self, UnparsedPublicKey};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::data_dir::{AccountKey, Accounts, Algorithm};

/// Longest token that is looked at.
const MAX_TOKEN: usize = 8 * 1024;
/// Clock difference between client and exchange that is tolerated, in seconds.
const LEEWAY: i64 = 5;
/// Longest life of a token, in seconds; Coinbase's own SDK uses 120.
const MAX_LIFE: i64 = 120;

/// A key the exchange knows.
#[derive(Debug, Clone)]
pub struct ApiKey {
    pub name: String,
    algorithm: Algorithm,
    public: Vec<u8>,
    pub portfolio: Uuid,
    pub can_view: bool,
    pub can_trade: bool,
    pub can_transfer: bool,
}

/// Every key by name.
#[derive(Debug)]
pub struct ApiKeys(HashMap<String, ApiKey>);

/// Why a token is refused. The client is told only "Unauthorized"; the log says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("no bearer token")]
    Missing,
    #[error("the token is not a JWT")]
    Malformed,
    #[error("the key is not known")]
    UnknownKey,
    #[error("the algorithm does not fit the key")]
    Algorithm,
    #[error("the signature is wrong")]
    Signature,
    #[error("iss is not cdp, or sub is not the key")]
    Claims,
    #[error("the token is expired, not yet valid, or lives too long")]
    Time,
    #[error("uri is not this request")]
    Uri,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    iss: String,
    nbf: i64,
    exp: i64,
    #[serde(default)]
    uri: Option<String>,
}

impl ApiKeys {
    /// # Errors
    /// Names the key whose public half cannot be read.
    pub fn new(accounts: &Accounts) -> Result<Self, String> {
        let keys = accounts.keys.iter().map(|k| ApiKey::new(k).map(|key| (k.name.clone(), key)));
        Ok(Self(keys.collect::<Result<_, String>>()?))
    }

    pub fn get(&self, name: &str) -> Option<&ApiKey> {
        self.0.get(name)
    }

    /// Checks a token at `now` (Unix seconds). `uri` is `"METHOD host/path"` for REST and absent for WebSockets.
    ///
    /// # Errors
    /// What is wrong with the token.
    pub fn verify(&self, token: &str, uri: Option<&str>, now: i64) -> Result<&ApiKey, AuthError> {
        if token.len() > MAX_TOKEN {
            return Err(AuthError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(AuthError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(AuthError::Malformed)?;
        let header: Header = part(header)?;
        let key = self.0.get(&header.kid).ok_or(AuthError::UnknownKey)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| AuthError::Malformed)?;
        key.check_signature(&header.alg, signed.as_bytes(), &signature)?;
        let claims: Claims = part(claims)?;
        if claims.iss != "cdp" || claims.sub != key.name {
            return Err(AuthError::Claims);
        }
        let early = now.saturating_add(LEEWAY) < claims.nbf;
        let late = now.saturating_sub(LEEWAY) >= claims.exp;
        if early || late || claims.exp.saturating_sub(claims.nbf) > MAX_LIFE {
            return Err(AuthError::Time);
        }
        if uri.is_some_and(|expected| claims.uri.as_deref() != Some(expected)) {
            return Err(AuthError::Uri);
        }
        Ok(key)
    }
}

impl ApiKey {
    fn new(key: &AccountKey) -> Result<Self, String> {
        let public = match key.algorithm {
            Algorithm::Es256 => p256::PublicKey::from_public_key_pem(&key.public_key)
                .map_err(|e| format!("publicKey of {} in accounts.json is not a P-256 key: {e}", key.name))?
                .to_encoded_point(false)
                .as_bytes()
                .to_vec(),
            Algorithm::EdDsa => STANDARD
                .decode(&key.public_key)
                .ok()
                .filter(|bytes| bytes.len() == 32)
                .ok_or_else(|| format!("publicKey of {} in accounts.json is not 32 bytes in base64", key.name))?,
        };
        Ok(Self {
            name: key.name.clone(),
            algorithm: key.algorithm,
            public,
            portfolio: key.portfolio,
            can_view: key.can_view,
            can_trade: key.can_trade,
            can_transfer: key.can_transfer,
        })
    }

    fn check_signature(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> Result<(), AuthError> {
        let verification: &dyn signature::VerificationAlgorithm = match (self.algorithm, algorithm) {
            (Algorithm::Es256, "ES256") => &signature::ECDSA_P256_SHA256_FIXED,
            (Algorithm::EdDsa, "EdDSA") => &signature::ED25519,
            _ => return Err(AuthError::Algorithm),
        };
        UnparsedPublicKey::new(verification, &self.public).verify(message, signature).map_err(|_| AuthError::Signature)
    }
}

fn part<T: DeserializeOwned>(encoded: &str) -> Result<T, AuthError> {
    let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| AuthError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| AuthError::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME: &str = "organizations/o/apiKeys/k";

    fn keys() -> ApiKeys {
        ApiKeys(HashMap::from([(
            NAME.to_owned(),
            ApiKey {
                name: NAME.to_owned(),
                algorithm: Algorithm::Es256,
                public: vec![4; 65],
                portfolio: Uuid::nil(),
                can_view: true,
                can_trade: true,
                can_transfer: false,
            },
        )]))
    }

    fn unsigned(algorithm: &str) -> String {
        let encode = |text: String| URL_SAFE_NO_PAD.encode(text);
        let header = encode(format!(r#"{{"alg":"{algorithm}","kid":"{NAME}"}}"#));
        let claims = encode(format!(r#"{{"sub":"{NAME}","iss":"cdp","nbf":0,"exp":60}}"#));
        format!("{header}.{claims}.")
    }

    #[test]
    fn a_token_cannot_choose_its_algorithm() {
        for algorithm in ["none", "HS256", "EdDSA", "ES384", ""] {
            assert_eq!(keys().verify(&unsigned(algorithm), None, 1).err(), Some(AuthError::Algorithm));
        }
        assert_eq!(keys().verify(&unsigned("ES256"), None, 1).err(), Some(AuthError::Signature));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_token_or_a_panic(token in "[A-Za-z0-9._=-]{0,200}|\\PC{0,60}") {
            prop_assert!(keys().verify(&token, None, 1).is_err());
        }
    }
}
