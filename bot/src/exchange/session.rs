//! What is known of the session with the exchange. Venue-neutral: status is made of it.

use arbbot_crds::arbbot::{ActiveKey, Execution};
use arbbot_crds::conditions::Reason;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What is known of the API key and the session with the exchange.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionFacts {
    /// How orders are executed.
    pub execution: Option<Execution>,
    /// Name of the endpoint in use.
    pub endpoint: String,
    /// Which key is in use.
    pub active: Option<ActiveKey>,
    pub fingerprint: String,
    /// Portfolio of the key.
    pub account: Option<String>,
    /// When the exchange first accepted the key in use.
    pub verified_at: Option<Time>,
    /// Fingerprint of a key that is wanted but not in use.
    pub pending: String,
    /// Why there is no session, or why a wanted key, endpoint or authority is not in use.
    pub problem: Option<(Reason, String)>,
    /// Why the key in use must not be relied on any more: refused, unfit, or its Secret is gone.
    pub unfit: Option<(Reason, String)>,
    /// Why the other key than the one that the spec names is in use.
    pub failed_over: Option<String>,
    /// Whether the key in use is older than `spec.credentials.maxAge`.
    pub is_old: bool,
    /// Products on which resting orders do not expire by themselves.
    pub without_expiry: Vec<String>,
    /// Whether a verified key is in use.
    pub open: bool,
}
