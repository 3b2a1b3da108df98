//! What the ledger keeps of the guards: every trip and its end, and the highs of the equity.

use std::collections::BTreeMap;

use arbbot_crds::guards::{GuardAction, GuardMetric, GuardStatus};
use arbbot_crds::incident::IncidentId;
use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// One trip of a guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardTrip {
    /// Name of the guard.
    pub guard: String,
    pub metric: GuardMetric,
    pub action: GuardAction,
    /// What the metric was, in its unit.
    pub value: Decimal,
    /// `tripAt`.
    pub threshold: Decimal,
    pub tripped_at: Timestamp,
    /// Id of a trip that only a person ends.
    #[serde(with = "super::record::text_option")]
    pub incident: Option<IncidentId>,
}

impl GuardTrip {
    /// The trip that status remembers and the ledger may have lost; None: it ends by itself.
    #[must_use]
    pub fn remembered(status: &GuardStatus) -> Option<Self> {
        let incident = status.incident.as_ref()?.parse().ok()?;
        Some(Self {
            guard: status.name.clone(),
            metric: status.metric,
            action: status.action,
            value: status.value.parse().unwrap_or_default(),
            threshold: status.threshold.parse().unwrap_or_default(),
            tripped_at: status.since.0,
            incident: Some(incident),
        })
    }
}

/// Highest equity of five minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EquityHigh {
    /// Beginning of the five minutes.
    pub at: Timestamp,
    /// Cash of all fills less fees, funding, and the position at mid prices, in quote currency.
    pub equity_quote: Decimal,
}

/// What the ledger knew of the guards when it was opened.
#[derive(Clone, Debug, Default)]
pub struct RecoveredGuards {
    /// Trips that have not ended.
    pub trips: Vec<GuardTrip>,
    /// Guard and incident of trips that have: an older status must not latch them again.
    pub ended: Vec<(String, IncidentId)>,
    /// When guards restarted the bot in the hour before.
    pub restarts: Vec<Timestamp>,
    /// The equity of the last day.
    pub equity: Vec<EquityHigh>,
    /// When a person released which guard of a loss last: for it the equity counts from there.
    pub accepted: BTreeMap<String, Timestamp>,
}
