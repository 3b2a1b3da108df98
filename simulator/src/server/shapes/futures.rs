//! Futures balances and positions of the FCM (`/cfm`).

use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{decimal, usd};
use crate::exchange::Exchange;
use crate::exchange::margin::margin_at;
use crate::exchange::portfolio::{Portfolio, Position, Sweep};

pub fn balance_summary(exchange: &Exchange, portfolio: &Portfolio) -> Value {
    let total = portfolio.balance("USD").total;
    let unrealized = exchange.unrealized_pnl(portfolio);
    let initial = exchange.position_margin(portfolio);
    let with_orders = exchange.initial_margin(portfolio, None);
    let collateral = exchange.collateral(portfolio);
    let available = collateral - with_orders;
    let maintenance = exchange.maintenance_margin(portfolio);
    let equity = exchange.equity(portfolio);
    let buffer = equity - maintenance;
    let percentage = liquidation_buffer(exchange, portfolio);
    let money = |value: Decimal| usd(value.round_dp(2));
    let realized: Decimal = portfolio.positions.values().map(|p| p.daily_realized_pnl).sum();
    let window = |overnight: bool| {
        let at = |market: usize, contracts| margin_at(&exchange.markets[market], contracts, overnight);
        let initial: Decimal = portfolio.positions.iter().map(|(market, p)| at(*market, p.contracts)).sum();
        let maintenance = initial * Decimal::TWO / Decimal::from(3);
        let hold = with_orders - exchange.position_margin(portfolio);
        json!({
            "margin_window_type": window_type(overnight),
            "margin_level": "MARGIN_LEVEL_TYPE_BASE",
            "initial_margin": decimal(initial.round_dp(2)),
            "maintenance_margin": decimal(maintenance.round_dp(2)),
            "liquidation_buffer_percentage": buffer_percentage(exchange, equity, maintenance),
            "total_hold": decimal(hold.round_dp(2)),
            "futures_buying_power": decimal((collateral - initial - hold).round_dp(2)),
        })
    };
    json!({
        "balance_summary": {
            "futures_buying_power": money(available),
            "total_usd_balance": money(total),
            "cbi_usd_balance": usd(total.round_dp(2) - portfolio.futures_usd.round_dp(2)),
            "cfm_usd_balance": money(portfolio.futures_usd),
            "total_open_orders_hold_amount": money(with_orders - initial),
            "unrealized_pnl": money(unrealized),
            "daily_realized_pnl": money(realized),
            "initial_margin": money(initial),
            "available_margin": money(available),
            "liquidation_threshold": money(maintenance),
            "liquidation_buffer_amount": money(buffer),
            "liquidation_buffer_percentage": percentage,
            "intraday_margin_window_measure": window(false),
            "overnight_margin_window_measure": window(true),
        }
    })
}

/// Share of the equity in percent that may be lost before a liquidation: 0 is one.
pub fn liquidation_buffer(exchange: &Exchange, portfolio: &Portfolio) -> String {
    buffer_percentage(exchange, exchange.equity(portfolio), exchange.maintenance_margin(portfolio))
}

fn buffer_percentage(exchange: &Exchange, equity: Decimal, maintenance: Decimal) -> String {
    let percentage = ((equity - maintenance) * Decimal::ONE_HUNDRED).checked_div(equity);
    let percentage = if equity.is_sign_negative() { Decimal::ZERO } else { percentage.unwrap_or(Decimal::ONE_HUNDRED) };
    let percentage = percentage.clamp(Decimal::ZERO, Decimal::ONE_HUNDRED).round_dp(2);
    decimal(if exchange.behaviour.liquidation_buffer_as_fraction {
        percentage / Decimal::ONE_HUNDRED
    } else {
        percentage
    })
}

fn window_type(overnight: bool) -> &'static str {
    if overnight { "FCM_MARGIN_WINDOW_TYPE_OVERNIGHT" } else { "FCM_MARGIN_WINDOW_TYPE_INTRADAY" }
}

/// The reply of `current_margin_window`.
pub fn margin_window(exchange: &Exchange) -> Value {
    let window = exchange.calendar.window;
    json!({
        "margin_window": {"margin_window_type": window_type(window.overnight), "end_time": window.end},
        "is_intraday_margin_killswitch_enabled": false,
        "is_intraday_margin_enrollment_killswitch_enabled": false,
    })
}

pub fn sweep(sweep: &Sweep) -> Value {
    json!({
        "id": sweep.id,
        "requested_amount": usd(sweep.amount.unwrap_or_default()),
        "should_sweep_all": sweep.amount.is_none(),
        "status": "PENDING",
        "schedule_time": sweep.scheduled,
    })
}

/// A position as the breakdown of a portfolio shows it.
pub fn breakdown_position(exchange: &Exchange, index: usize, position: &Position) -> Value {
    let market = &exchange.markets[index];
    let size = market.product.multiplier();
    let value = market.product.value(position.contracts.abs(), market.mark());
    json!({
        "product_id": market.product.id,
        "contract_size": decimal(size),
        "side": if position.contracts.is_sign_negative() { "FUTURES_POSITION_SIDE_SHORT" } else { "FUTURES_POSITION_SIDE_LONG" },
        "amount": decimal(position.contracts.abs()),
        "avg_entry_price": decimal(position.average_entry(size)),
        "current_price": decimal(market.mark().round_dp(2)),
        "unrealized_pnl": decimal(position.unrealized_pnl(size, market.mark()).round_dp(2)),
        "expiry": market.product.future.as_ref().map(|f| f.expiry),
        "underlying_asset": market.product.base,
        "asset_img_url": "",
        "product_name": market.product.id,
        "venue": "FCM",
        "notional_value": decimal(value.round_dp(2)),
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
        "daily_realized_pnl": decimal(position.daily_realized_pnl.round_dp(2)),
        "total_fees": decimal(position.fees),
        "contract_size": decimal(size),
    })
}
