//! Accounts, portfolios, key permissions and fees.

use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

use super::decimal;
use crate::exchange::portfolio::Portfolio;
use crate::exchange::{Exchange, FeeRates};

/// A portfolio's account in one currency; its uuid is derived, so it never changes.
pub fn account(exchange: &Exchange, portfolio: &Portfolio, currency: &str) -> Value {
    let balance = portfolio.balance(currency);
    let fiat = currency == "USD";
    let available =
        if fiat { exchange.available_usd(portfolio).max(Decimal::ZERO) } else { balance.total - balance.hold };
    json!({
        "uuid": account_id(portfolio.id, currency),
        "name": format!("{currency} Wallet"),
        "currency": currency,
        "available_balance": {"value": decimal(available), "currency": currency},
        "default": true,
        "active": true,
        "created_at": portfolio.created,
        "updated_at": portfolio.created,
        "deleted_at": Value::Null,
        "type": if fiat { "ACCOUNT_TYPE_FIAT" } else { "ACCOUNT_TYPE_CRYPTO" },
        "ready": true,
        "hold": {"value": decimal(balance.total - available), "currency": currency},
        "retail_portfolio_id": portfolio.id,
        "platform": "ACCOUNT_PLATFORM_CONSUMER",
    })
}

pub fn account_id(portfolio: Uuid, currency: &str) -> Uuid {
    Uuid::new_v5(&portfolio, currency.as_bytes())
}

pub fn portfolio(portfolio: &Portfolio) -> Value {
    json!({"name": portfolio.name, "uuid": portfolio.id, "type": "DEFAULT", "deleted": false})
}

pub fn transaction_summary(exchange: &Exchange, portfolio: &Portfolio, rates: FeeRates) -> Value {
    let number = |value: Decimal| value.round_dp(2).to_string().parse::<f64>().unwrap_or_default();
    json!({
        "total_volume": number(portfolio.volume),
        "total_fees": number(portfolio.fees),
        "fee_tier": {
            "pricing_tier": "Advanced",
            "usd_from": "0",
            "usd_to": "",
            "taker_fee_rate": decimal(rates.taker),
            "maker_fee_rate": decimal(rates.maker),
            "aop_from": "",
            "aop_to": "",
        },
        "margin_rate": Value::Null,
        "goods_and_services_tax": Value::Null,
        "advanced_trade_only_volumes": number(portfolio.volume),
        "advanced_trade_only_fees": number(portfolio.fees),
        "coinbase_pro_volume": 0.0,
        "coinbase_pro_fees": 0.0,
        "total_balance": decimal(exchange.collateral(portfolio).round_dp(2)),
        "has_promo_fee": false,
    })
}
