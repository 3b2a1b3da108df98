//! Faults switched on through the administrative interface. What an exchange does on a bad day, on demand.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// `POST /_simulator/faults`: one fault, or `{"clear": true}`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRequest {
    #[serde(default)]
    pub clear: bool,
    pub kind: Option<FaultKind>,
    /// Only this portfolio; all when absent.
    pub portfolio: Option<Uuid>,
    /// Only this key (`key_revoked`).
    pub key: Option<String>,
    /// Only this product (`session_closed`); every future when absent.
    pub product_id: Option<String>,
    /// How long, in seconds; until cleared when absent.
    pub seconds: Option<u32>,
    /// How many requests it affects (`drop_replies`); without limit when absent.
    pub count: Option<u32>,
    /// Delay of every reply (`latency_ms`).
    pub milliseconds: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Every REST request is answered 503.
    RestUnavailable,
    /// An order or close is accepted, but its reply never arrives.
    DropReplies,
    /// Every token of the key (or of the portfolio's keys) is refused.
    KeyRevoked,
    /// Every REST reply is late.
    LatencyMs,
    /// The futures session is closed; it opens again after `seconds`.
    SessionClosed,
}

/// A fault that is on.
#[derive(Debug, Clone, Serialize)]
pub struct Fault {
    pub kind: FaultKind,
    pub portfolio: Option<Uuid>,
    pub key: Option<String>,
    pub until: Option<Timestamp>,
    pub remaining: Option<u32>,
    pub milliseconds: u32,
}

#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    pub fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Faults that are on at `now`.
    pub fn active(&mut self, now: Timestamp) -> &[Fault] {
        self.0.retain(|f| f.until.is_none_or(|until| now < until) && f.remaining != Some(0));
        &self.0
    }

    /// Whether a fault of this kind hits this portfolio (`None`: a request without a key).
    pub fn hits(&mut self, kind: FaultKind, portfolio: Option<Uuid>, now: Timestamp) -> bool {
        self.active(now).iter().any(|f| f.kind == kind && f.concerns(portfolio))
    }

    pub fn revoked(&mut self, portfolio: Uuid, key: &str, now: Timestamp) -> bool {
        self.active(now).iter().any(|f| {
            f.kind == FaultKind::KeyRevoked && f.concerns(Some(portfolio)) && f.key.as_deref().is_none_or(|k| k == key)
        })
    }

    /// Total delay of a reply, in milliseconds.
    pub fn latency_ms(&mut self, portfolio: Option<Uuid>, now: Timestamp) -> u64 {
        let active = self.active(now).iter();
        let late = active.filter(|f| f.kind == FaultKind::LatencyMs && f.concerns(portfolio));
        late.map(|f| u64::from(f.milliseconds)).sum()
    }

    /// Uses up one reply of a `drop_replies` fault, if there is one.
    pub fn drops_reply(&mut self, portfolio: Uuid, now: Timestamp) -> bool {
        self.active(now);
        let dropping = |f: &&mut Fault| f.kind == FaultKind::DropReplies && f.concerns(Some(portfolio));
        let Some(fault) = self.0.iter_mut().find(dropping) else { return false };
        fault.remaining = fault.remaining.map(|n| n.saturating_sub(1));
        true
    }
}

impl Fault {
    fn concerns(&self, portfolio: Option<Uuid>) -> bool {
        self.portfolio.is_none() || self.portfolio == portfolio
    }
}
