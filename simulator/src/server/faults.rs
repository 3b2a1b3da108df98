//! Faults switched on through the administrative interface. What an exchange does on a bad day, on demand.

pub mod apply;
pub mod gate;
pub mod kind;
pub mod request;

use std::collections::BTreeMap;

use jiff::Timestamp;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use uuid::Uuid;

use crate::exchange::rejection::Reason;
use kind::{Distribution, FaultKind};

/// Faults that are on at once, at most.
const MAX_FAULTS: usize = 1_000;
/// So that the faults' dice are not the market's.
const STREAM: u64 = 0xfa17;

/// A fault that is on.
#[derive(Debug, Clone, Serialize)]
pub struct Fault {
    #[serde(flatten)]
    pub kind: FaultKind,
    pub portfolio: Option<Uuid>,
    pub key: Option<String>,
    pub product_id: Option<String>,
    pub endpoint: Option<String>,
    pub channel: Option<String>,
    pub rate: Option<f64>,
    pub until: Option<Timestamp>,
    pub remaining: Option<u32>,
}

/// What happens to a WebSocket frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Deliver,
    Twice,
    /// After the next one.
    Late,
    /// Never; its number is missing.
    Lost,
}

#[derive(Debug)]
pub struct Faults {
    on: Vec<Fault>,
    rng: ChaCha8Rng,
    struck: BTreeMap<&'static str, u64>,
}

impl Faults {
    /// The same seed strikes the same requests.
    pub fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(STREAM);
        Self { on: Vec::new(), rng, struck: BTreeMap::new() }
    }

    /// # Errors
    /// When too many are on.
    pub fn add(&mut self, fault: Fault) -> Result<(), String> {
        if self.on.len() >= MAX_FAULTS {
            return Err(format!("{MAX_FAULTS} faults are on; clear them first"));
        }
        self.on.push(fault);
        Ok(())
    }

    pub fn clear(&mut self) {
        self.on.clear();
    }

    /// How often each kind took effect so far: on a request, a frame, an order, or once as a whole.
    pub fn struck(&self) -> &BTreeMap<&'static str, u64> {
        &self.struck
    }

    pub(super) fn count(&mut self, kind: &FaultKind) {
        *self.struck.entry(kind.into()).or_default() += 1;
    }

    /// Faults that are on at `now`.
    pub fn active(&mut self, now: Timestamp) -> &[Fault] {
        self.on.retain(|f| f.until.is_none_or(|until| now < until) && f.remaining != Some(0));
        &self.on
    }

    /// The first fault that fits and whose dice say so; uses up one of its count.
    fn strike(&mut self, now: Timestamp, fits: impl Fn(&Fault) -> bool) -> Option<FaultKind> {
        if self.active(now).is_empty() {
            return None;
        }
        let Self { on, rng, .. } = self;
        let fault = on.iter_mut().find(|f| fits(f) && f.rate.is_none_or(|rate| rng.random_bool(rate)))?;
        fault.remaining = fault.remaining.map(|n| n.saturating_sub(1));
        let kind = fault.kind.clone();
        self.count(&kind);
        Some(kind)
    }

    /// Whether tokens of a key are refused.
    pub fn revoked(&mut self, portfolio: Uuid, key: &str, now: Timestamp) -> bool {
        let is_revoked = self
            .active(now)
            .iter()
            .any(|f| f.kind == FaultKind::KeyRevoked {} && f.concerns(Some(portfolio)) && f.is_of_key(key));
        if is_revoked {
            self.count(&FaultKind::KeyRevoked {});
        }
        is_revoked
    }

    /// The portfolio that a key belongs to now.
    pub fn portfolio_of(&mut self, portfolio: Uuid, key: &str, now: Timestamp) -> Uuid {
        let changed = self.active(now).iter().rev().find_map(|f| match f.kind {
            FaultKind::PortfolioChanged { to } if f.is_of_key(key) => Some(to),
            _ => None,
        });
        if let Some(to) = changed {
            self.count(&FaultKind::PortfolioChanged { to });
        }
        changed.unwrap_or(portfolio)
    }

    /// Why an order is refused, if a fault wants that.
    pub fn rejects(&mut self, portfolio: Uuid, product: &str, now: Timestamp) -> Option<Reason> {
        let fits = |f: &Fault| {
            matches!(f.kind, FaultKind::RejectOrders { .. }) && f.concerns(Some(portfolio)) && f.is_of_product(product)
        };
        match self.strike(now, fits)? {
            FaultKind::RejectOrders { reason } => Some(reason),
            _ => None,
        }
    }

    /// Uses up one reply of a `drop_replies` fault without an endpoint, if there is one.
    pub fn drops_reply(&mut self, portfolio: Uuid, now: Timestamp) -> bool {
        let fits =
            |f: &Fault| f.kind == FaultKind::DropReplies {} && f.endpoint.is_none() && f.concerns(Some(portfolio));
        self.strike(now, fits).is_some()
    }

    /// Total delay of a reply, in milliseconds.
    fn latency_ms(&mut self, portfolio: Option<Uuid>, endpoint: &str, now: Timestamp) -> u64 {
        self.active(now);
        let Self { on, rng, struck } = self;
        let late = on.iter().filter(|f| f.concerns(portfolio) && f.is_of_endpoint(endpoint));
        let mut total = 0;
        for fault in late.filter(|f| matches!(f.kind, FaultKind::LatencyMs { .. } | FaultKind::Latency { .. })) {
            if fault.rate.is_none_or(|rate| rng.random_bool(rate)) {
                total += delay(&fault.kind, rng);
                *struck.entry((&fault.kind).into()).or_default() += 1;
            }
        }
        total
    }

    /// What happens to a frame of this connection.
    pub fn fate(&mut self, portfolio: Option<Uuid>, channel: &str, now: Timestamp) -> Fate {
        let fits = |f: &Fault| {
            let of_frames = matches!(
                f.kind,
                FaultKind::WebsocketSilent {}
                    | FaultKind::DuplicateFrames {}
                    | FaultKind::ReorderFrames {}
                    | FaultKind::SequenceGap {}
            );
            of_frames && f.concerns(portfolio) && f.channel.as_deref().is_none_or(|c| c == channel)
        };
        match self.strike(now, fits) {
            Some(FaultKind::DuplicateFrames {}) => Fate::Twice,
            Some(FaultKind::ReorderFrames {}) => Fate::Late,
            Some(_) => Fate::Lost,
            None => Fate::Deliver,
        }
    }

    /// Whether a fault of this kind is on for the product.
    pub fn is_on(&mut self, kind: &FaultKind, product: Option<&str>, now: Timestamp) -> bool {
        let of_product = |f: &Fault| product.is_none_or(|product| f.is_of_product(product));
        let is_on = self.active(now).iter().any(|f| f.kind == *kind && of_product(f));
        if is_on {
            self.count(kind);
        }
        is_on
    }
}

fn delay(kind: &FaultKind, rng: &mut ChaCha8Rng) -> u64 {
    match *kind {
        FaultKind::LatencyMs { milliseconds }
        | FaultKind::Latency { distribution: Distribution::Fixed, milliseconds, .. } => u64::from(milliseconds),
        FaultKind::Latency { distribution: Distribution::Uniform, milliseconds, max_milliseconds } => {
            u64::from(rng.random_range(milliseconds..=max_milliseconds.unwrap_or(milliseconds)))
        }
        FaultKind::Latency { distribution: Distribution::Exponential, milliseconds, max_milliseconds } => {
            let uniform: f64 = rng.random();
            let drawn = -(1.0 - uniform).ln() * f64::from(milliseconds);
            // A cast from a float saturates, so no draw overflows.
            (drawn as u64).min(max_milliseconds.map_or(60_000, u64::from))
        }
        _ => 0,
    }
}

impl Fault {
    fn concerns(&self, portfolio: Option<Uuid>) -> bool {
        self.portfolio.is_none() || self.portfolio == portfolio
    }

    fn is_of_key(&self, key: &str) -> bool {
        self.key.as_deref().is_none_or(|k| k == key)
    }

    fn is_of_product(&self, product: &str) -> bool {
        self.product_id.as_deref().is_none_or(|p| p == product)
    }

    /// `endpoint` is `"METHOD /path"` below `/api/v3/brokerage`.
    fn is_of_endpoint(&self, endpoint: &str) -> bool {
        let Some(wanted) = self.endpoint.as_deref() else { return true };
        let path = endpoint.split_once(' ').map_or(endpoint, |(_, path)| path);
        if wanted.starts_with('/') { path.starts_with(wanted) } else { endpoint.starts_with(wanted) }
    }
}

#[cfg(test)]
mod tests;
