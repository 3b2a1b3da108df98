//! Why an order is refused for business reasons: an HTTP 200 with `success: false`, in Coinbase's own words.

use serde::{Deserialize, Serialize};
use strum::Display;

/// Coinbase's failure reasons (a subset; names as on the wire).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Serialize, Deserialize)]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    InsufficientFund,
    InvalidPricePrecision,
    InvalidSizePrecision,
    PreviewInvalidBaseSizeTooSmall,
    PreviewInvalidBaseSizeTooLarge,
    PreviewInvalidQuoteSizeTooSmall,
    PreviewInvalidQuoteSizeTooLarge,
    PreviewInsufficientFundsForFutures,
    InvalidLimitPrice,
    InvalidLimitPricePostOnly,
    InvalidRequest,
    InvalidProductId,
    UnsupportedOrderConfiguration,
    UntradableProduct,
    InvalidFcmTradingSession,
    ReduceOnlyNotAllowedOnVenue,
    CannotCloseZeroPosition,
    DuplicateClientOrderId,
    InsufficientLiquidity,
    OrderEntryDisabled,
    InvalidLeverage,
    InvalidMarginType,
    InLiquidation,
    FuturesAfterHourInvalidOrderType,
    LimitPriceTooFarFromMarket,
    LimitOrderPriceExceedsPriceBandOnBuy,
    LimitOrderPriceExceedsPriceBandOnSell,
    StopPriceAboveLimitPrice,
    StopPriceBelowLimitPrice,
    StopPriceAboveLastTradePrice,
    StopPriceBelowLastTradePrice,
    InvalidBracketPrices,
    BreachedRiskLimit,
}

impl Reason {
    /// The reason as `preview_failure_reason` shows it.
    pub fn preview(self) -> String {
        match self {
            Self::InsufficientFund => "PREVIEW_INSUFFICIENT_FUND".into(),
            Self::InsufficientLiquidity => "PREVIEW_INVALID_NO_LIQUIDITY".into(),
            other if other.to_string().starts_with("PREVIEW_") => other.to_string(),
            _ => "UNKNOWN_PREVIEW_FAILURE_REASON".into(),
        }
    }

    /// The reason as an order preview lists it: every one has a name with `PREVIEW_` there.
    pub fn in_preview(self) -> String {
        match self.preview() {
            unknown if unknown.starts_with("UNKNOWN") => format!("PREVIEW_{self}"),
            known => known,
        }
    }

    /// The reason as `new_order_failure_reason` shows it.
    pub fn new_order(self) -> String {
        if self.to_string().starts_with("PREVIEW_") { "UNKNOWN_FAILURE_REASON".into() } else { self.to_string() }
    }
}

/// A refused order: the reason and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Rejection {
    pub reason: Reason,
    pub message: String,
}

impl Rejection {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}
