//! Subscribe messages: what they say, who sends them, and which topics they mean.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::exchange::Exchange;
use crate::server::hub::{Frame, Topic};
use crate::server::shapes::{futures, market_data, user};
use crate::server::{App, State};

/// Trades in the snapshot of market_trades.
const RECENT_TRADES: usize = 100;
/// Most products in one message.
const MAX_PRODUCTS: usize = 500;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    #[serde(rename = "type")]
    pub kind: RequestKind,
    pub channel: String,
    #[serde(default)]
    pub product_ids: Vec<String>,
    #[serde(default)]
    pub jwt: Option<String>,
    /// Sent by some clients; the token has its own times.
    #[serde(default, rename = "timestamp")]
    _timestamp: Option<Value>,
}

#[derive(Deserialize, PartialEq, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub enum RequestKind {
    Subscribe,
    Unsubscribe,
}

/// Why a message is answered with an error frame; the connection stays.
pub enum Refusal {
    /// Also an unknown channel: Coinbase answers it so.
    Authentication,
    Message(String),
}

/// What a message is about.
pub struct Resolved {
    pub topics: Vec<Topic>,
    /// As the acknowledgement lists them.
    pub names: BTreeSet<String>,
}

impl Request {
    pub fn has_token(&self) -> bool {
        self.jwt.as_deref().is_some_and(|token| !token.is_empty())
    }

    fn is_private(&self) -> bool {
        matches!(self.channel.as_str(), "user" | "futures_balance_summary")
    }

    /// The portfolio of the message's token. Only private channels need a token, but none may be wrong.
    pub fn authenticate(&self, app: &App) -> Result<Option<Uuid>, Refusal> {
        let Some(token) = self.jwt.as_deref().filter(|t| !t.is_empty()) else {
            return if self.is_private() { Err(Refusal::Authentication) } else { Ok(None) };
        };
        let key = app.keys.verify(token, None, app.clock.token_time()).map_err(|error| {
            tracing::info!(%error, channel = self.channel, "WebSocket authentication failure");
            Refusal::Authentication
        })?;
        let (mut state, now) = app.lock();
        if !key.can_view || state.faults.revoked(key.portfolio, &key.name, now.time) {
            return Err(Refusal::Authentication);
        }
        Ok(Some(state.faults.portfolio_of(key.portfolio, &key.name, now.time)))
    }

    /// Topics of the message, and their names.
    pub fn resolve(&self, exchange: &Exchange, portfolio: Option<Uuid>) -> Result<Resolved, Refusal> {
        if self.product_ids.len() > MAX_PRODUCTS {
            return Err(Refusal::Message(format!("at most {MAX_PRODUCTS} product_ids")));
        }
        let markets: Vec<usize> = self.product_ids.iter().map(|id| market(exchange, id)).collect::<Result<_, _>>()?;
        let topic: fn(usize) -> Topic = match self.channel.as_str() {
            "heartbeats" => return Ok(Resolved { topics: Vec::new(), names: BTreeSet::from(["heartbeats".into()]) }),
            "user" => {
                let portfolio = portfolio.ok_or(Refusal::Authentication)?;
                let topics = match markets.as_slice() {
                    [] => vec![Topic::User(portfolio, None)],
                    some => some.iter().map(|m| Topic::User(portfolio, Some(*m))).collect(),
                };
                return Ok(Resolved { topics, names: BTreeSet::from([portfolio.to_string()]) });
            }
            "futures_balance_summary" => {
                let portfolio = portfolio.ok_or(Refusal::Authentication)?;
                let names = BTreeSet::from([portfolio.to_string()]);
                return Ok(Resolved { topics: vec![Topic::FuturesBalanceSummary(portfolio)], names });
            }
            "level2" => Topic::Level2,
            "ticker" => Topic::Ticker,
            "ticker_batch" => Topic::TickerBatch,
            "market_trades" => Topic::MarketTrades,
            "candles" => Topic::Candles,
            "status" => Topic::Status,
            _ => return Err(Refusal::Authentication),
        };
        // status tells of every product when none is named.
        let markets = match (markets.is_empty(), self.channel.as_str()) {
            (false, _) => markets,
            (true, "status") => (0..exchange.markets.len()).collect(),
            (true, channel) => return Err(Refusal::Message(format!("{channel} needs product_ids"))),
        };
        let names = markets.iter().map(|m| exchange.markets[*m].product.id.clone()).collect();
        Ok(Resolved { topics: markets.into_iter().map(topic).collect(), names })
    }
}

fn market(exchange: &Exchange, id: &str) -> Result<usize, Refusal> {
    let shown: String = id.chars().take(64).collect();
    exchange.market_index(id).ok_or_else(|| Refusal::Message(format!("unknown product {shown}")))
}

/// What a new subscriber gets first.
pub fn snapshot(state: &State, topic: Topic, now: Timestamp) -> Vec<Frame> {
    let exchange = &state.exchange;
    let one = |channel, events: String| vec![Frame { channel, events: events.into() }];
    let ticker = |market: usize| market_data::ticker(&exchange.markets[market], state.book(market), "snapshot");
    match topic {
        Topic::Level2(market) => {
            one("l2_data", market_data::level2_snapshot(&exchange.markets[market], state.book(market), now))
        }
        Topic::Ticker(market) => one("ticker", ticker(market)),
        Topic::TickerBatch(market) => one("ticker_batch", ticker(market)),
        Topic::MarketTrades(market) => {
            let market = &exchange.markets[market];
            let recent = market.history.trades(None, None, RECENT_TRADES);
            one("market_trades", market_data::trades(&market.product.id, "snapshot", &recent))
        }
        Topic::Candles(market) => one("candles", market_data::candles(&exchange.markets[market], "snapshot", i64::MIN)),
        Topic::Status(market) => one("status", market_data::status(exchange, "snapshot", market, now)),
        Topic::User(portfolio, market) => {
            let messages = user::snapshot(exchange, portfolio, market).into_iter();
            messages.map(|events| Frame { channel: "user", events: events.into() }).collect()
        }
        Topic::FuturesBalanceSummary(portfolio) => {
            one("futures_balance_summary", futures::summary_event(exchange, portfolio, "snapshot"))
        }
    }
}
