//! Futures balances and positions of the FCM (`/cfm`).

use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{decimal, usd};
use crate::exchange::Exchange;
use crate::exchange::portfolio::{Portfolio, Position};

/// Maintenance margin as a share of initial margin, the same on every product.
const MAINTENANCE: (i64, i64) = (2, 3);

pub fn balance_summary(exchange: &Exchange, portfolio: &Portfolio) -> Value {
    let total = portfolio.balance("USD").total;
    let unrealized = exchange.unrealized_pnl(portfolio);
    let initial = exchange.position_margin(portfolio);
    let with_orders = exchange.initial_margin(portfolio, None);
    let collateral = exchange.collateral(portfolio);
    let available = collateral - with_orders;
    let maintenance = initial * Decimal::from(MAINTENANCE.0) / Decimal::from(MAINTENANCE.1);
    let buffer = collateral - maintenance;
    let percentage = (buffer * Decimal::ONE_HUNDRED).checked_div(collateral).unwrap_or(Decimal::ONE_HUNDRED);
    let percentage = decimal(percentage.clamp(Decimal::ZERO, Decimal::ONE_HUNDRED).round_dp(2));
    let money = |value: Decimal| usd(value.round_dp(2));
    let realized: Decimal = portfolio.positions.values().map(|p| p.realized_pnl).sum();
    let window = |kind: &str| {
        json!({
            "margin_window_type": kind,
            "margin_level": "MARGIN_LEVEL_TYPE_BASE",
            "initial_margin": decimal(initial.round_dp(2)),
            "maintenance_margin": decimal(maintenance.round_dp(2)),
            "liquidation_buffer_percentage": percentage,
            "total_hold": decimal((with_orders - initial).round_dp(2)),
            "futures_buying_power": decimal(available.round_dp(2)),
        })
    };
    json!({
        "balance_summary": {
            "futures_buying_power": money(available),
            "total_usd_balance": money(total),
            "cbi_usd_balance": money(total - with_orders),
            "cfm_usd_balance": money(with_orders),
            "total_open_orders_hold_amount": money(with_orders - initial),
            "unrealized_pnl": money(unrealized),
            "daily_realized_pnl": money(realized),
            "initial_margin": money(initial),
            "available_margin": money(available),
            "liquidation_threshold": money(maintenance),
            "liquidation_buffer_amount": money(buffer),
            "liquidation_buffer_percentage": percentage,
            "intraday_margin_window_measure": window("FCM_MARGIN_WINDOW_TYPE_INTRADAY"),
            "overnight_margin_window_measure": window("FCM_MARGIN_WINDOW_TYPE_OVERNIGHT"),
        }
    })
}

/// An event of the channel futures_balance_summary: the same names as REST, with plain strings for amounts.
pub fn summary_event(exchange: &Exchange, portfolio: Uuid, kind: &str) -> String {
    let mut summary = exchange.portfolios.get(&portfolio).map(|p| balance_summary(exchange, p)).unwrap_or_default();
    let mut summary = summary["balance_summary"].take();
    for value in summary.as_object_mut().into_iter().flat_map(|fields| fields.values_mut()) {
        if value.get("currency").is_some() {
            *value = value["value"].take();
        }
    }
    json!([{"type": kind, "fcm_balance_summary": summary}]).to_string()
}

pub fn position(exchange: &Exchange, index: usize, position: &Position) -> Value {
    let market = &exchange.markets[index];
    let size = market.product.multiplier();
    let expiry = market.product.future.as_ref().map(|f| f.expiry);
    json!({
        "product_id": market.product.id,
        "expiration_time": expiry,
        "side": if position.contracts.is_sign_negative() { "SHORT" } else { "LONG" },
        "number_of_contracts": decimal(position.contracts.abs()),
        "current_price": decimal(market.mark().round_dp(2)),
        "avg_entry_price": decimal(position.average_entry(size)),
        "unrealized_pnl": decimal(position.unrealized_pnl(size, market.mark()).round_dp(2)),
        "daily_realized_pnl": decimal(position.realized_pnl.round_dp(2)),
        "total_fees": decimal(position.fees),
        "contract_size": decimal(size),
    })
}
