//! Executions, as the history shows them.

use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;
use serde::Deserialize;

use super::order::side;
use super::{decimal, nullable};
use crate::exchange::{Fill, Liquidity};

/// An execution of GET /orders/historical/fills.
#[derive(Deserialize)]
pub struct WireFill {
    trade_id: String,
    order_id: String,
    product_id: String,
    side: String,
    #[serde(deserialize_with = "decimal")]
    price: Decimal,
    #[serde(deserialize_with = "decimal")]
    size: Decimal,
    /// Whether `size` is what was paid and not what was got.
    #[serde(default, deserialize_with = "nullable")]
    size_in_quote: bool,
    #[serde(default, deserialize_with = "decimal")]
    commission: Decimal,
    #[serde(default, deserialize_with = "nullable")]
    liquidity_indicator: String,
    trade_time: Timestamp,
}

impl TryFrom<WireFill> for Fill {
    type Error = String;

    fn try_from(fill: WireFill) -> Result<Self, String> {
        let refuse = |what: &str| format!("fill {} of order {} {what}", fill.trade_id, fill.order_id);
        if fill.trade_id.is_empty() || fill.order_id.is_empty() {
            return Err(refuse("has no id"));
        }
        let size = if fill.size_in_quote { fill.size.checked_div(fill.price) } else { Some(fill.size) };
        let size = size.filter(|size| *size > Decimal::ZERO && fill.price > Decimal::ZERO);
        Ok(Self {
            side: side(&fill.side, &fill.order_id)?,
            size: size.ok_or_else(|| refuse("has no size or no price"))?,
            liquidity: match fill.liquidity_indicator.as_str() {
                "MAKER" => Liquidity::Maker,
                "TAKER" => Liquidity::Taker,
                _ => Liquidity::Unknown,
            },
            order_id: fill.order_id,
            trade_id: fill.trade_id,
            product: fill.product_id,
            price: fill.price,
            fee_quote: fill.commission,
            at: fill.trade_time,
        })
    }
}
