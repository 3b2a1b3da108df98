//! Query strings: repeated keys make lists, and a key that no endpoint knows is refused.

use std::str::FromStr;

use axum::extract::Query;

use crate::server::error::ApiError;

/// The pairs of a query string, as an extractor.
pub type Pairs = Query<Vec<(String, String)>>;

/// Pairs of which only `known` keys may appear.
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// # Errors
    /// Names a key that the endpoint does not have.
    pub fn new(pairs: Pairs, known: &[&str]) -> Result<Self, ApiError> {
        match pairs.0.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            Some((key, _)) => Err(ApiError::InvalidArgument(format!("unknown query parameter {key}"))),
            None => Ok(Self(pairs.0)),
        }
    }

    /// The last non-empty value of a key.
    pub fn one(&self, key: &str) -> Option<&str> {
        self.all(key).pop()
    }

    /// Every non-empty value of a key.
    pub fn all(&self, key: &str) -> Vec<&str> {
        self.0.iter().filter(|(k, v)| k == key && !v.is_empty()).map(|(_, v)| v.as_str()).collect()
    }

    /// # Errors
    /// Names the key whose value does not parse.
    pub fn parse<T: FromStr>(&self, key: &str) -> Result<Option<T>, ApiError> {
        self.one(key).map(|text| parse(key, text)).transpose()
    }
}

/// # Errors
/// Names the field whose value does not parse.
pub fn parse<T: FromStr>(field: &str, text: &str) -> Result<T, ApiError> {
    let shown: String = text.chars().take(64).collect();
    text.parse().map_err(|_| ApiError::InvalidArgument(format!("{field} has the invalid value \"{shown}\"")))
}
