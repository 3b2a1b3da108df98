//! Products and books.

use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::decimal;
use crate::exchange::book::{Book, Side};
use crate::exchange::history::{Bar, Past};
use crate::exchange::product::{FutureTerms, MarginRate};
use crate::exchange::{Exchange, Market};

pub fn product(exchange: &Exchange, index: usize, book: &Book, now: Timestamp) -> Value {
    let market = &exchange.markets[index];
    let p = &market.product;
    let mid = book.mid().map(decimal).unwrap_or_default();
    let day = market.history.day(now);
    let volume = day.map_or(Decimal::ZERO, |bar| bar.volume);
    let change = day.and_then(|bar| ((market.last_price - bar.open) * Decimal::ONE_HUNDRED).checked_div(bar.open));
    let future = p.future.as_ref();
    let name = future.map_or_else(|| p.id.clone(), |f| format!("{} PERP", f.contract_code));
    let mut product = json!({
        "product_id": p.id,
        "price": decimal(market.last_price),
        "price_percentage_change_24h": decimal(change.unwrap_or_default()),
        "volume_24h": decimal(volume),
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
        "approximate_quote_24h_volume": decimal(p.value(volume, market.last_price).round_dp(2)),
    });
    if let Some(terms) = future {
        product["fcm_trading_session_details"] = session(exchange, market, now);
        product["future_product_details"] = future_details(exchange, index, terms);
    }
    product
}

fn session(exchange: &Exchange, market: &Market, now: Timestamp) -> Value {
    let reopens = market.reopens(now);
    let week = SignedDuration::from_hours(7 * 24);
    // The next break that is not on: when trading ends again.
    let weekly = exchange.calendar.weekly_break;
    let ends = if weekly.contains(now) { weekly.start.checked_add(week).unwrap_or(now) } else { weekly.start };
    let opened = ends.checked_sub(week).and_then(|t| t.checked_add(SignedDuration::from_hours(1))).unwrap_or(now);
    json!({
        "is_session_open": reopens.is_none(),
        "open_time": reopens.unwrap_or(opened),
        "close_time": ends.max(reopens.unwrap_or(ends)),
        "session_state": if reopens.is_none() { "FCM_TRADING_SESSION_STATE_OPEN" } else { "FCM_TRADING_SESSION_STATE_CLOSED" },
        "after_hours_order_entry_disabled": reopens.is_some(),
        "closed_reason": if reopens.is_none() {
            "FCM_TRADING_SESSION_CLOSED_REASON_UNDEFINED"
        } else {
            "FCM_TRADING_SESSION_CLOSED_REASON_EXCHANGE_MAINTENANCE"
        },
        "maintenance": reopens.map(|until| json!({"start_time": now.min(weekly.start), "end_time": until})),
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
        "settlement_price": decimal(market.settlement_price.round_dp(2)),
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
pub fn pricebook(market: &Market, book: &Book, limit: usize, time: Timestamp) -> Value {
    let side = |side| levels(&book.depth(side, limit));
    json!({"product_id": market.product.id, "bids": side(Side::Buy), "asks": side(Side::Sell), "time": time})
}

/// The reply of `product_book`; with an aggregation, levels are summed up to multiples of it.
pub fn product_book(
    market: &Market,
    book: &Book,
    limit: usize,
    aggregation: Option<Decimal>,
    time: Timestamp,
) -> Value {
    let (mid, spread) = spread(book);
    let bps = spread.and_then(|s| (s * Decimal::from(10_000)).checked_div(mid?));
    let text = |value: Option<Decimal>| value.map(|v| decimal(v.round_dp(4))).unwrap_or_default();
    let pricebook = match aggregation {
        None => pricebook(market, book, limit, time),
        Some(step) => {
            let side = |side| levels(&aggregated(book, side, step, limit));
            json!({"product_id": market.product.id, "bids": side(Side::Buy), "asks": side(Side::Sell), "time": time})
        }
    };
    json!({
        "pricebook": pricebook,
        "last": decimal(market.last_price),
        "mid_market": text(mid),
        "spread_bps": text(bps),
        "spread_absolute": text(spread),
    })
}

/// Levels by multiples of `step`: bids rounded down, offers up.
fn aggregated(book: &Book, side: Side, step: Decimal, limit: usize) -> Vec<(Decimal, Decimal)> {
    let mut levels: Vec<(Decimal, Decimal)> = Vec::new();
    for (price, size) in book.depth(side, usize::MAX) {
        let below = price - price % step;
        let price = if side == Side::Sell && below < price { below + step } else { below };
        if let Some((_, total)) = levels.last_mut().filter(|(last, _)| *last == price) {
            *total += size;
        } else if levels.len() == limit {
            break;
        } else {
            levels.push((price, size));
        }
    }
    levels
}

fn levels(levels: &[(Decimal, Decimal)]) -> Vec<Value> {
    levels.iter().map(|(price, size)| json!({"price": decimal(*price), "size": decimal(*size)})).collect()
}

pub fn candle(bar: &Bar) -> Value {
    json!({
        "start": bar.start.to_string(),
        "low": decimal(bar.low),
        "high": decimal(bar.high),
        "open": decimal(bar.open),
        "close": decimal(bar.close),
        "volume": decimal(bar.volume),
    })
}

/// The reply of `ticker`: trades, newest first, and the best prices.
pub fn market_trades(market: &Market, book: &Book, trades: &[Past]) -> Value {
    let trade = |t: &Past| {
        json!({
            "trade_id": t.id.to_string(),
            "product_id": market.product.id,
            "price": decimal(t.price),
            "size": decimal(t.size),
            "time": t.time,
            "side": t.taker,
            "bid": "",
            "ask": "",
            "exchange": if market.product.is_future() { "CDE" } else { "CBE" },
        })
    };
    let best = |side| book.best(side).map(decimal).unwrap_or_default();
    json!({
        "trades": trades.iter().map(trade).collect::<Vec<_>>(),
        "best_bid": best(Side::Buy),
        "best_ask": best(Side::Sell),
    })
}

fn spread(book: &Book) -> (Option<Decimal>, Option<Decimal>) {
    let spread = book.best(Side::Sell).zip(book.best(Side::Buy)).map(|(ask, bid)| ask - bid);
    (book.mid(), spread)
}
