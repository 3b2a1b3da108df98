//! Every fault there is. `docs/simulator.md` has an example of each.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantNames};
use uuid::Uuid;

use crate::exchange::rejection::Reason;

/// A fault and its own parameters; what it is limited to is in [`super::Fault`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, VariantNames, IntoStaticStr)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[strum(serialize_all = "snake_case")]
pub enum FaultKind {
    // --- REST ---
    /// Every request is answered 503.
    RestUnavailable {},
    /// Requests are answered with this status: 401, 403, 404, 429 or 5xx.
    RestError { status: u16 },
    /// An order or close is accepted, but its reply never arrives. With an endpoint: any request to it.
    DropReplies {},
    /// The request never reaches the exchange, and there is no reply.
    DropRequests {},
    /// Every reply is late by the same time.
    LatencyMs { milliseconds: u32 },
    /// Every request takes a time from a distribution.
    Latency {
        distribution: Distribution,
        milliseconds: u32,
        /// Longest for `uniform` and `exponential`.
        #[serde(default)]
        max_milliseconds: Option<u32>,
    },

    // --- keys and time ---
    /// Every token of the key (or of the portfolio's keys) is refused.
    KeyRevoked {},
    /// The key belongs to another portfolio.
    PortfolioChanged { to: Uuid },
    /// The time that clients see and that tokens are checked at is ahead by so much.
    ClockSkew { milliseconds: i64 },
    /// Nothing is served: REST is answered 503, WebSockets are closed and refused.
    Maintenance {},

    // --- WebSockets ---
    /// New connections are answered 503.
    WebsocketRefused {},
    /// Open connections are cut without a close frame. Once; `count` says how many.
    WebsocketDisconnect {},
    /// Connections stay open, but nothing arrives any more.
    WebsocketSilent {},
    /// A frame arrives twice.
    DuplicateFrames {},
    /// A frame arrives after the one that follows it.
    ReorderFrames {},
    /// A frame does not arrive, and its sequence number is missing.
    SequenceGap {},
    /// The book that clients are shown stands still while the product trades on.
    StaleBook {},
    /// The book that clients are shown has a bid above the best offer.
    CrossedBook {},
    /// heartbeat_counter is a number instead of a string.
    NumericHeartbeats {},

    // --- the market ---
    /// The futures session is closed; it opens again after the fault.
    SessionClosed {},
    /// The index jumps. Once.
    PriceGap { bps: i32 },
    /// The hour that is running ends with this funding rate. Once.
    FundingSpike { funding_rate: Decimal },

    // --- orders ---
    /// Orders are refused for this reason.
    RejectOrders { reason: Reason },
    /// Orders that execute at once get at most this percentage of their size; the rest is cancelled.
    PartialFills { percent: u8 },
    /// An accepted cancel takes so long.
    SlowCancels { milliseconds: u32 },
    /// An accepted edit takes so long.
    SlowEdits { milliseconds: u32 },
    /// A repeated client_order_id is refused (DUPLICATE_CLIENT_ORDER_ID).
    RefuseDuplicates {},
    /// limit_limit_gtd is refused (UNSUPPORTED_ORDER_CONFIGURATION).
    RefuseGtd {},
    /// close_position closes the whole position whatever size it is given.
    ClosePositionIgnoresSize {},
    /// The orders of a future are cancelled when its session closes.
    CloseCancelsOrders {},
    /// While a session is closed, the book that clients are shown is empty.
    ClosedBookIsEmpty {},
    /// The type of an account is FIAT or CRYPTO, without ACCOUNT_TYPE_.
    ShortAccountTypes {},
    /// liquidation_buffer_percentage is from 0 to 1 instead of 0 to 100.
    LiquidationBufferAsFraction {},
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// Always `milliseconds`.
    Fixed,
    /// Between `milliseconds` and `max_milliseconds`.
    Uniform,
    /// `milliseconds` on average, `max_milliseconds` at most.
    Exponential,
}

impl FaultKind {
    /// It happens at once and leaves nothing that could end.
    pub fn is_instant(&self) -> bool {
        matches!(self, Self::WebsocketDisconnect {} | Self::PriceGap { .. } | Self::FundingSpike { .. })
    }

    /// # Errors
    /// What is wrong with a parameter.
    pub fn check(&self) -> Result<(), String> {
        let error = match self {
            Self::RestError { status: 401 | 403 | 404 | 429 | 500..=599 } => None,
            Self::RestError { .. } => Some("status must be 401, 403, 404, 429 or 500 to 599"),
            Self::Latency { distribution: Distribution::Uniform, milliseconds, max_milliseconds }
                if max_milliseconds.is_none_or(|max| max < *milliseconds) =>
            {
                Some("uniform needs max_milliseconds, not below milliseconds")
            }
            Self::PriceGap { bps } if !(-9_000..=90_000).contains(bps) => Some("bps must be from -9000 to 90000"),
            Self::FundingSpike { funding_rate } if funding_rate.abs() >= Decimal::ONE => {
                Some("funding_rate must be above -1 and below 1")
            }
            Self::PartialFills { percent } if !(1..=99).contains(percent) => Some("percent must be from 1 to 99"),
            Self::ClockSkew { milliseconds } if milliseconds.abs() > 86_400_000 => {
                Some("milliseconds must be at most a day")
            }
            _ => None,
        };
        error.map_or(Ok(()), |message| Err(message.to_owned()))
    }
}
