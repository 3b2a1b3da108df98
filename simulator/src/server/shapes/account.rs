//! Accounts, portfolios, key permissions and fees.

use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{decimal, usd};
use crate::exchange::portfolio::Portfolio;
use crate::exchange::{Exchange, FeeRates};

/// A portfolio's account in one currency; its uuid is derived, so it never changes. `prefix` begins its type.
pub fn account(exchange: &Exchange, portfolio: &Portfolio, currency: &str, prefix: &str) -> Value {
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
        "type": format!("{prefix}{}", if fiat { "FIAT" } else { "CRYPTO" }),
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
    json!({"name": portfolio.name, "uuid": portfolio.id, "type": kind(portfolio), "deleted": false})
}

/// A key's own portfolio is the default one.
pub fn kind(portfolio: &Portfolio) -> &'static str {
    if portfolio.creator == portfolio.id { "DEFAULT" } else { "CONSUMER" }
}

/// What a portfolio holds, valued in USD. The amounts of a position are JSON numbers on this endpoint.
pub fn breakdown(exchange: &Exchange, portfolio: &Portfolio) -> Value {
    let number = |value: Decimal| value.round_dp(8).normalize().to_string().parse::<f64>().unwrap_or_default();
    let price = |currency: &str| match currency {
        "USD" => Decimal::ONE,
        _ => exchange.market_index(&format!("{currency}-USD")).map_or(Decimal::ZERO, |i| exchange.markets[i].mark()),
    };
    let value = |currency: &str| portfolio.balance(currency).total * price(currency);
    let (cash, unrealized) = (value("USD"), exchange.unrealized_pnl(portfolio));
    let crypto: Decimal = portfolio.balances.keys().filter(|c| *c != "USD").map(|c| value(c)).sum();
    let total = cash + crypto;
    let margin = exchange.initial_margin(portfolio, None);
    let spot = portfolio.balances.iter().map(|(currency, balance)| {
        let free = (balance.total - balance.hold) * price(currency);
        json!({
            "asset": currency,
            "account_uuid": account_id(portfolio.id, currency),
            "total_balance_fiat": number(value(currency)),
            "total_balance_crypto": number(balance.total),
            "available_to_trade_fiat": number(free),
            "allocation": number(value(currency).checked_div(total).unwrap_or_default()),
            "one_day_change": 0.0,
            "cost_basis": usd(Decimal::ZERO),
            "asset_img_url": "",
            "is_cash": currency == "USD",
        })
    });
    let futures = portfolio.positions.iter().filter(|(_, p)| !p.contracts.is_zero());
    let futures = futures.map(|(index, p)| super::futures::breakdown_position(exchange, *index, p));
    json!({
        "portfolio": self::portfolio(portfolio),
        "portfolio_balances": {
            "total_balance": usd((total + unrealized).round_dp(2)),
            "total_futures_balance": usd(margin.round_dp(2)),
            "total_cash_equivalent_balance": usd(cash.round_dp(2)),
            "total_crypto_balance": usd(crypto.round_dp(2)),
            "futures_unrealized_pnl": usd(unrealized.round_dp(2)),
            "perp_unrealized_pnl": usd(Decimal::ZERO),
        },
        "spot_positions": spot.collect::<Vec<_>>(),
        "perp_positions": [],
        "futures_positions": futures.collect::<Vec<_>>(),
    })
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
