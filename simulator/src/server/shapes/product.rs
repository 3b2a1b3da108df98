//! Products and books.

use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::decimal;
use crate::exchange::book::{Book, Side};
use crate::exchange::product::{FutureTerms, MarginRate};
use crate::exchange::{Exchange, Market};

pub fn product(exchange: &Exchange, index: usize, now: Timestamp) -> Value {
    let market = &exchange.markets[index];
    let p = &market.product;
    let mid = market.book.mid().map(decimal).unwrap_or_default();
    let future = p.future.as_ref();
    let name = future.map_or_else(|| p.id.clone(), |f| format!("{} PERP", f.contract_code));
    let mut product = json!({
        "product_id": p.id,
        "price": decimal(market.last_price),
        "price_percentage_change_24h": "0",
        "volume_24h": decimal(market.volume),
        "volume_percentage_change_24h": "0",
        "base_increment": decimal(p.base_increment),
        "quote_increment": "0.01",
        "quote_min_size": decimal(p.quote_min_size),
        "quote_max_size": decimal(p.quote_max_size),
        "base_min_size": decimal(p.base_min_size),
        "base_max_size": decimal(p.base_max_size),
        "base_name": if future.is_some() { name.clone() } else { p.base.clone() },
        "quote_name": "US Dollar",
        "watched": false,
        "is_disabled": false,
        "new": false,
        "status": if future.is_some() { "" } else { "online" },
        "cancel_only": false,
        "limit_only": false,
        "post_only": false,
        "trading_disabled": false,
        "auction_mode": false,
        "product_type": if future.is_some() { "FUTURE" } else { "SPOT" },
        "quote_currency_id": p.quote,
        "base_currency_id": if future.is_some() { "" } else { p.base.as_str() },
        "fcm_trading_session_details": Value::Null,
        "mid_market_price": mid,
        "alias": "",
        "alias_to": [],
        "base_display_symbol": p.base,
        "quote_display_symbol": p.quote,
        "view_only": false,
        "price_increment": decimal(p.price_increment),
        "display_name": name,
        "product_venue": if future.is_some() { "FCM" } else { "CBE" },
        "approximate_quote_24h_volume": decimal(market.volume_value.round_dp(2)),
    });
    if let Some(terms) = future {
        product["fcm_trading_session_details"] = session(market, now);
        product["future_product_details"] = future_details(exchange, index, terms);
    }
    product
}

fn session(market: &Market, now: Timestamp) -> Value {
    let closed = market.closed_until.filter(|until| now < *until);
    let week = SignedDuration::from_hours(7 * 24);
    json!({
        "is_session_open": closed.is_none(),
        "open_time": closed.unwrap_or_else(|| now.checked_sub(week).unwrap_or(now)),
        "close_time": closed.unwrap_or(now).checked_add(week).unwrap_or(now),
        "session_state": if closed.is_none() { "FCM_TRADING_SESSION_STATE_OPEN" } else { "FCM_TRADING_SESSION_STATE_CLOSED" },
        "after_hours_order_entry_disabled": closed.is_some(),
        "closed_reason": if closed.is_none() {
            "FCM_TRADING_SESSION_CLOSED_REASON_UNDEFINED"
        } else {
            "FCM_TRADING_SESSION_CLOSED_REASON_EXCHANGE_MAINTENANCE"
        },
        "maintenance": closed.map(|until| json!({"start_time": now, "end_time": until})),
    })
}

fn future_details(exchange: &Exchange, index: usize, terms: &FutureTerms) -> Value {
    let market = &exchange.markets[index];
    let long: Decimal = exchange.portfolios.values().map(|p| p.contracts(index).max(Decimal::ZERO)).sum();
    let funding = market.funding.as_ref();
    let rate = funding.map(|f| decimal(f.rate)).unwrap_or_default();
    json!({
        "venue": "cde",
        "contract_code": terms.contract_code,
        "contract_expiry": terms.expiry,
        "contract_size": decimal(terms.contract_size),
        "contract_root_unit": market.product.base,
        "group_description": format!("{} Perp Style Futures", market.product.base),
        "contract_expiry_timezone": "America/New_York",
        "group_short_description": format!("{} PERP", market.product.base),
        "risk_managed_by": "MANAGED_BY_FCM",
        "contract_expiry_type": "EXPIRING",
        "contract_display_name": format!("{} PERP", market.product.base),
        "non_crypto": false,
        "time_to_expiry_ms": "",
        "time_to_expiry": "",
        "open_interest": decimal(long),
        "funding_rate": rate,
        "funding_time": funding.map(|f| f.time),
        "funding_interval": "3600s",
        "index_price": decimal(market.index.round_dp(2)),
        "settlement_price": decimal(market.mark().round_dp(2)),
        "intraday_margin_rate": margin(terms.intraday_margin),
        "overnight_margin_rate": margin(terms.overnight_margin),
        "twenty_four_by_seven": true,
        "perpetual_details": {
            "open_interest": decimal(long),
            // Empty here on US futures: the rate is one level up.
            "funding_rate": "",
            "funding_time": Value::Null,
            "max_leverage": "10",
        },
    })
}

fn margin(rate: MarginRate) -> Value {
    json!({"long_margin_rate": decimal(rate.long), "short_margin_rate": decimal(rate.short)})
}

/// `{product_id, bids, asks, time}` with the best `limit` levels of each side.
pub fn pricebook(market: &Market, limit: usize, time: Timestamp) -> Value {
    let side = |side| -> Vec<Value> {
        let levels = market.book.depth(side, limit).into_iter();
        levels.map(|(price, size)| json!({"price": decimal(price), "size": decimal(size)})).collect()
    };
    json!({"product_id": market.product.id, "bids": side(Side::Buy), "asks": side(Side::Sell), "time": time})
}

/// The reply of `product_book`.
pub fn product_book(market: &Market, limit: usize, time: Timestamp) -> Value {
    let (mid, spread) = spread(&market.book);
    let bps = spread.and_then(|s| (s * Decimal::from(10_000)).checked_div(mid?));
    let text = |value: Option<Decimal>| value.map(|v| decimal(v.round_dp(4))).unwrap_or_default();
    json!({
        "pricebook": pricebook(market, limit, time),
        "last": decimal(market.last_price),
        "mid_market": text(mid),
        "spread_bps": text(bps),
        "spread_absolute": text(spread),
    })
}

fn spread(book: &Book) -> (Option<Decimal>, Option<Decimal>) {
    let spread = book.best(Side::Sell).zip(book.best(Side::Buy)).map(|(ask, bid)| ask - bid);
    (book.mid(), spread)
}
