//! The exchange as the bot sees it: venue-neutral types and the one trait that a venue implements.
//!
//! Sizes are in the product's own unit: base currency for spot, whole contracts for futures. Prices and notionals are
//! in quote currency.

pub mod coinbase;
pub mod paper;
mod session;

use std::collections::BTreeMap;
use std::future::Future;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::market::book::Level;
use crate::risk::Cleared;

/// The one venue that there is. A second one becomes a choice here by `spec.venue`; nothing else names a venue.
pub use coinbase as venue;
pub use session::SessionFacts;

/// Side of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::Display, strum::EnumString, Serialize, Deserialize)]
#[strum(serialize_all = "UPPERCASE")]
pub enum Side {
    Buy,
    Sell,
}

impl Side {
    /// +1 for a buy, -1 for a sell.
    #[must_use]
    pub fn sign(self) -> Decimal {
        match self {
            Self::Buy => Decimal::ONE,
            Self::Sell => Decimal::NEGATIVE_ONE,
        }
    }

    /// The other side.
    #[must_use]
    pub fn opposite(self) -> Self {
        match self {
            Self::Buy => Self::Sell,
            Self::Sell => Self::Buy,
        }
    }
}

/// A product and its trading rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    pub id: String,
    /// Currency that the spot size is in; for a future its underlying.
    pub base_currency: String,
    pub quote_currency: String,
    /// Prices are whole multiples of it.
    pub price_increment: Decimal,
    /// Sizes are whole multiples of it.
    pub size_increment: Decimal,
    /// Smallest size of an order.
    pub min_size: Decimal,
    /// Smallest notional of an order; zero where the venue names none.
    pub min_notional_quote: Decimal,
    /// Base currency in one unit of size: 1 for spot, the contract size for futures.
    pub unit_base: Decimal,
    /// Whether the venue takes orders for it now, its session aside.
    pub tradable: bool,
    /// Only for futures.
    pub future: Option<FutureDetails>,
}

/// What only a future has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FutureDetails {
    /// Whether the session is open.
    pub session_open: bool,
    /// When a closed session opens again, if the venue says so.
    pub reopens_at: Option<Timestamp>,
    /// When the session that is open began, if the venue says so.
    pub opened_at: Option<Timestamp>,
    /// Price that positions are valued at, if the venue shows one.
    pub mark: Option<Decimal>,
    /// Price of the underlying by the venue's index, if it shows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Decimal>,
    /// Price of the last daily settlement; None where gains and losses are not paid out daily.
    pub settlement_price: Option<Decimal>,
    pub terms: CarryTerms,
}

impl FutureDetails {
    /// A future of which only the session and what holding it costs are known.
    #[must_use]
    pub fn in_session(session_open: bool, terms: CarryTerms) -> Self {
        Self { session_open, reopens_at: None, opened_at: None, mark: None, index: None, settlement_price: None, terms }
    }
}

/// What holding a future costs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarryTerms {
    /// Initial margin as a fraction of notional, the higher of intraday and overnight.
    pub long_margin: Decimal,
    pub short_margin: Decimal,
    /// Rate of the hour that ended at `funding_time`; longs pay it to shorts while it is positive.
    pub funding_rate: Decimal,
    pub funding_time: Option<Timestamp>,
}

/// What a fill costs the account, as fractions of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeeRates {
    pub spot_maker: Decimal,
    pub spot_taker: Decimal,
    pub future_maker: Decimal,
    pub future_taker: Decimal,
}

/// How an order is executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderKind {
    /// Rests in the book, never takes, expires by itself at the exchange.
    PostOnly { limit_price: Decimal, expires_at: Timestamp },
    /// Rests until it is filled or cancelled. Only a person places it: nothing of a bot outlives the bot.
    GoodTillCancelled { limit_price: Decimal, post_only: bool },
    /// Takes what the book offers up to the limit price; the rest is cancelled.
    ImmediateOrCancel { limit_price: Decimal },
    /// Takes whatever the book offers.
    Market,
    /// Closes a futures position by the venue's own close_position, with an explicit size.
    ClosePosition,
}

/// An order to be placed. It reaches the exchange only inside a [`Cleared`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewOrder {
    /// Minted once with the intent; never reused.
    pub client_order_id: String,
    pub product: String,
    pub side: Side,
    pub size: Decimal,
    pub kind: OrderKind,
}

impl NewOrder {
    /// The limit price, where the order has one.
    #[must_use]
    pub fn limit_price(&self) -> Option<Decimal> {
        match self.kind {
            OrderKind::PostOnly { limit_price, .. }
            | OrderKind::GoodTillCancelled { limit_price, .. }
            | OrderKind::ImmediateOrCancel { limit_price } => Some(limit_price),
            OrderKind::Market | OrderKind::ClosePosition => None,
        }
    }
}

/// The venue's business answer to an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Placed {
    /// Taken; the venue's id.
    Accepted { order_id: String },
    /// Not taken; the venue's own reason, for example `INSUFFICIENT_FUND`.
    Rejected { reason: String, message: String },
}

/// Status of an order at the venue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::Display, strum::EnumString, Serialize, Deserialize)]
pub enum OrderStatus {
    /// Not yet in the book (PENDING, QUEUED).
    Pending,
    Open,
    /// A cancel is under way (CANCEL_QUEUED).
    Cancelling,
    Filled,
    Cancelled,
    Expired,
    Failed,
    /// The venue itself does not say.
    Unknown,
}

impl OrderStatus {
    /// Whether nothing can happen to the order any more.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Filled | Self::Cancelled | Self::Expired | Self::Failed)
    }
}

/// An order as the venue shows it: cumulative, so that seeing it twice changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderState {
    pub order_id: String,
    pub client_order_id: String,
    pub product: String,
    pub side: Side,
    pub status: OrderStatus,
    /// Cumulative filled size.
    pub filled: Decimal,
    /// Average price of what is filled; zero while nothing is.
    pub average_price: Decimal,
    /// Cumulative fees, in quote currency.
    pub fees_quote: Decimal,
    /// Size ordered, where the venue says it (the user channel does not).
    pub size: Option<Decimal>,
    /// Where the venue says it.
    pub created_at: Option<Timestamp>,
}

/// Whether an execution took from the book or was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::EnumString)]
pub enum Liquidity {
    Maker,
    Taker,
    /// The venue does not say.
    Unknown,
}

/// One execution, as the venue's history shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fill {
    pub order_id: String,
    /// Names the fill together with the order: a trade has two sides.
    pub trade_id: String,
    pub product: String,
    pub side: Side,
    pub size: Decimal,
    pub price: Decimal,
    /// In quote currency, everything included.
    pub fee_quote: Decimal,
    pub liquidity: Liquidity,
    pub at: Timestamp,
}

/// Whose key it is and what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPermissions {
    pub portfolio: String,
    pub can_view: bool,
    pub can_trade: bool,
    pub can_transfer: bool,
}

/// Everything that the account holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holdings {
    /// Signed contracts by futures product; negative is short.
    pub contracts: BTreeMap<String, Decimal>,
    /// Total balance (available and held) by currency.
    pub balances: BTreeMap<String, Decimal>,
    /// Collateral of the futures account, in quote currency.
    pub futures_collateral_quote: Decimal,
}

/// Best prices of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touch {
    pub best_bid: Decimal,
    pub best_ask: Decimal,
}

impl Touch {
    /// Price half-way between the best prices.
    #[must_use]
    pub fn mid(&self) -> Decimal {
        (self.best_bid + self.best_ask) / Decimal::TWO
    }
}

/// A connection to the venue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, strum::Display, Serialize, Deserialize)]
pub enum Link {
    Rest,
    MarketWebSocket,
    UserWebSocket,
}

/// What the venue tells by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VenueEvent {
    /// New best prices; None: the book is unknown (gap, disconnect, one side empty).
    Touch { product: String, touch: Option<Touch> },
    /// An order of this account changed.
    Order(OrderState),
    /// A connection came up, or went down and why.
    Link { link: Link, down: Option<String> },
}

/// What the public market data tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MarketEvent {
    /// New absolute quantities of price levels; a snapshot is the whole book.
    Levels { product: String, snapshot: bool, levels: Vec<Level> },
    /// A trade; when, if the venue says it.
    Trade { product: String, price: Decimal, size: Decimal, at: Option<Timestamp> },
    /// The connection was lost: no book is known.
    Lost,
}

/// Why a call to the venue has no business answer.
#[derive(Debug, Clone, thiserror::Error, Serialize, Deserialize)]
pub enum ExchangeError {
    #[error("the exchange at {url} cannot be reached: {cause}; check spec.venue.coinbase.endpoints and the network")]
    Unreachable { url: String, cause: String },
    #[error("the exchange at {url} fails, so this call was not made: {cause}; it is tried again within seconds")]
    CircuitOpen { url: String, cause: String },
    #[error("the certificate of {url} is not trusted: {cause}; set spec.venue.coinbase.caBundle to its authority")]
    Untrusted { url: String, cause: String },
    #[error("the exchange refused the API key ({status}): {message}; check the Secret of spec.credentials.secretRef")]
    Refused { status: u16, message: String },
    #[error("the exchange refused {call}: {message}")]
    BadRequest { call: String, message: String },
    #[error("the exchange does not offer {product}: {message}; check spec.strategy.fundingCarry")]
    NoProduct { product: String, message: String },
    #[error("there is no session with the exchange; the condition CredentialsValid says why")]
    NoSession,
    #[error("the rate limit is exhausted for {call}; it is tried again")]
    RateLimited { call: String },
    #[error("no answer from the exchange to {call} within {seconds} s")]
    Timeout { call: String, seconds: u64 },
    #[error("the exchange answered {call} with HTTP {status}: {message}")]
    Server { call: String, status: u16, message: String },
    #[error("the exchange answered {call} with something that cannot be read: {cause}")]
    Unreadable { call: String, cause: String },
}

impl ExchangeError {
    /// Whether an order whose placement ended with this error is proven not to be at the venue.
    /// Everything else leaves it unknown.
    #[must_use]
    pub fn proves_not_placed(&self) -> bool {
        matches!(
            self,
            Self::CircuitOpen { .. }
                | Self::Untrusted { .. }
                | Self::Refused { .. }
                | Self::BadRequest { .. }
                | Self::RateLimited { .. }
        )
    }
}

/// A venue. Every call has a deadline of its own and is not repeated by the implementation where that could place an
/// order twice.
pub trait Exchange: Send + Sync + 'static {
    /// What the key may do, and whose it is.
    fn key_permissions(&self) -> impl Future<Output = Result<KeyPermissions, ExchangeError>> + Send;
    /// A product's rules and state.
    fn product(&self, id: &str) -> impl Future<Output = Result<Product, ExchangeError>> + Send;
    /// Every order of the products created since then, of every status, all pages.
    fn orders(
        &self,
        products: &[String],
        since: Option<Timestamp>,
    ) -> impl Future<Output = Result<Vec<OrderState>, ExchangeError>> + Send;
    /// One order by the venue's id.
    fn order(&self, order_id: &str) -> impl Future<Output = Result<OrderState, ExchangeError>> + Send;
    /// Every execution of these orders, all pages.
    fn fills(&self, order_ids: &[String]) -> impl Future<Output = Result<Vec<Fill>, ExchangeError>> + Send;
    /// What a fill costs the account now.
    fn fee_rates(&self) -> impl Future<Output = Result<FeeRates, ExchangeError>> + Send;
    /// Everything that the account holds.
    fn holdings(&self) -> impl Future<Output = Result<Holdings, ExchangeError>> + Send;
    /// Places an order that the gate has cleared; its authentication expires at the clearance's deadline.
    fn place(&self, cleared: Cleared) -> impl Future<Output = Result<Placed, ExchangeError>> + Send;
    /// How far the machine's clock is ahead of the venue's, as last measured.
    fn clock_skew(&self) -> Option<SignedDuration> {
        None
    }
    /// Asks for orders to be cancelled; an accepted request is not yet a cancelled order. Ids whose request the venue
    /// refused are returned with its reason.
    fn cancel(&self, order_ids: &[String])
    -> impl Future<Output = Result<Vec<(String, String)>, ExchangeError>> + Send;
}
