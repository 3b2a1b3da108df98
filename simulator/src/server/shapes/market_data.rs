//! Events of the public WebSocket channels, as JSON arrays.

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::decimal;
use crate::exchange::book::{Book, Side};
use crate::exchange::history::Past;
use crate::exchange::{Exchange, Market};

/// Coinbase's candles channel knows only this length.
const CANDLE_SECONDS: i64 = 300;
/// Candles in a snapshot, about a day.
const CANDLES: usize = 300;

/// A level2 event; each change is (side, price, absolute size), 0 meaning the level is gone.
pub fn level2(product_id: &str, kind: &str, changes: &[(Side, Decimal, Decimal)], time: Timestamp) -> String {
    let updates: Vec<Value> = changes
        .iter()
        .map(|(side, price, size)| {
            json!({
                "side": if *side == Side::Buy { "bid" } else { "offer" },
                "event_time": time,
                "price_level": decimal(*price),
                "new_quantity": decimal(*size),
            })
        })
        .collect();
    json!([{"type": kind, "product_id": product_id, "updates": updates}]).to_string()
}

/// A level2 snapshot of a whole book.
pub fn level2_snapshot(market: &Market, book: &Book, time: Timestamp) -> String {
    let side = |side| book.depth(side, usize::MAX).into_iter().map(move |(price, size)| (side, price, size));
    let levels: Vec<_> = side(Side::Buy).chain(side(Side::Sell)).collect();
    level2(&market.product.id, "snapshot", &levels, time)
}

/// A ticker event of one market.
pub fn ticker(market: &Market, book: &Book, kind: &str) -> String {
    let best = |side| {
        let price = book.best(side);
        let size = price.map(|p| book.size_at(side, p));
        (price.map(decimal).unwrap_or_default(), size.map(decimal).unwrap_or_default())
    };
    let ((bid, bid_size), (ask, ask_size)) = (best(Side::Buy), best(Side::Sell));
    let ticker = json!({
        "type": "ticker",
        "product_id": market.product.id,
        "price": decimal(market.last_price),
        "volume_24_h": decimal(market.volume),
        "low_24_h": decimal(market.low),
        "high_24_h": decimal(market.high),
        "low_52_w": decimal(market.low),
        "high_52_w": decimal(market.high),
        "price_percent_chg_24_h": "0",
        "best_bid": bid,
        "best_bid_quantity": bid_size,
        "best_ask": ask,
        "best_ask_quantity": ask_size,
    });
    json!([{"type": kind, "tickers": [ticker]}]).to_string()
}

/// A candles event: the candles of five minutes that end after `from` (Unix seconds), newest first.
pub fn candles(market: &Market, kind: &str, from: i64) -> String {
    let from = from.saturating_sub(CANDLE_SECONDS - 1);
    let candles: Vec<Value> = market
        .history
        .candles(CANDLE_SECONDS, from, i64::MAX, CANDLES)
        .iter()
        .map(|candle| {
            json!({
                "start": candle.start.to_string(),
                "high": decimal(candle.high),
                "low": decimal(candle.low),
                "open": decimal(candle.open),
                "close": decimal(candle.close),
                "volume": decimal(candle.volume),
                "product_id": market.product.id,
            })
        })
        .collect();
    json!([{"type": kind, "candles": candles}]).to_string()
}

/// A status event of one market.
pub fn status(exchange: &Exchange, kind: &str, index: usize, now: Timestamp) -> String {
    let market = &exchange.markets[index];
    let product = &market.product;
    let closed = market.is_closed(now);
    let shown = json!({
        "product_type": if product.is_future() { "FUTURE" } else { "SPOT" },
        "id": product.id,
        "base_currency": if product.is_future() { "" } else { product.base.as_str() },
        "quote_currency": product.quote,
        "base_increment": decimal(product.base_increment),
        "quote_increment": "0.01",
        "display_name": product.id.replace('-', "/"),
        "status": if closed { "offline" } else { "online" },
        "status_message": if closed { "the session is closed" } else { "" },
        "min_market_funds": decimal(product.quote_min_size),
    });
    json!([{"type": kind, "products": [shown]}]).to_string()
}

/// A market_trades event.
pub fn trades(product_id: &str, kind: &str, trades: &[Past]) -> String {
    let trades: Vec<Value> = trades
        .iter()
        .map(|t| {
            json!({
                "trade_id": t.id.to_string(),
                "product_id": product_id,
                "price": decimal(t.price),
                "size": decimal(t.size),
                "side": t.taker,
                "time": t.time,
            })
        })
        .collect();
    json!([{"type": kind, "trades": trades}]).to_string()
}
