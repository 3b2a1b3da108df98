//! What the ledger keeps, and the rules by which a record may change. Pure.

use std::fmt::Display;
use std::str::FromStr;

use arbbot_crds::ArbBot;
use arbbot_crds::arbbot::KillAction;
use arbbot_crds::incident::IncidentId;
use arbbot_crds::status::IncidentPhase;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::LedgerError;
use super::guard::{EquityHigh, GuardTrip};
use super::posting::Posting;
use crate::exchange::{NewOrder, OrderKind, OrderState, OrderStatus, Side, venue};
use crate::risk::Class;

/// What a ledger belongs to. A bot of the same name adopts the ledger of its predecessor, so `bot_uid` may change;
/// everything else must match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// uid of the ArbBot.
    pub bot_uid: String,
    /// `spec.execution`.
    pub execution: String,
    /// Kind and authority of the venue.
    pub venue: String,
    pub portfolio: String,
    pub spot_product: String,
    pub future_product: String,
}

impl Binding {
    /// What the ledger of a bot belongs to.
    #[must_use]
    pub fn of(bot: &ArbBot) -> Self {
        let [spot_product, future_product] = bot.spec.products();
        Self {
            bot_uid: bot.uid().unwrap_or_default(),
            execution: bot.spec.execution.to_string(),
            venue: venue::NAME.to_owned(),
            portfolio: bot.spec.account().to_owned(),
            spot_product,
            future_product,
        }
    }

    /// The fields that must match, with their names in the API, what this binding has and what `other` has.
    pub(super) fn compare<'a>(&'a self, other: &'a Self) -> [(&'static str, &'a str, &'a str); 5] {
        [
            ("spec.execution", &self.execution, &other.execution),
            ("spec.venue", &self.venue, &other.venue),
            ("spec.venue.coinbase.portfolio", &self.portfolio, &other.portfolio),
            ("the spot product", &self.spot_product, &other.spot_product),
            ("the future product", &self.future_product, &other.future_product),
        ]
    }
}

/// How far an order is, as the ledger knows it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, strum::Display, strum::EnumString, strum::EnumIter, Serialize, Deserialize,
)]
pub enum RecordStatus {
    /// The intent is durable; the order may have been sent.
    Intended,
    /// Sent, and neither proven placed nor proven not placed.
    Unknown,
    /// Proven not to be at the exchange.
    NotPlaced,
    /// The exchange refused it.
    Rejected,
    Pending,
    Open,
    Cancelling,
    Filled,
    Cancelled,
    Expired,
    Failed,
}

impl RecordStatus {
    /// Whether nothing can happen to the order any more.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::NotPlaced | Self::Rejected | Self::Filled | Self::Cancelled | Self::Expired | Self::Failed)
    }

    /// How much is known. A status replaces only one of which less was known: what the exchange shows beats what the
    /// bot concluded, and an end at the exchange is final.
    fn knowledge(self) -> u8 {
        match self {
            Self::Intended => 0,
            Self::Unknown => 1,
            Self::NotPlaced | Self::Rejected => 2,
            Self::Pending | Self::Open | Self::Cancelling => WORKING,
            Self::Filled | Self::Cancelled | Self::Expired | Self::Failed => 4,
        }
    }

    fn replaces(self, old: Self) -> bool {
        self.knowledge() > old.knowledge() || (self.knowledge() == WORKING && old.knowledge() == WORKING)
    }
}

/// Knowledge of an order that works at the exchange; within it an order may move both ways (a refused cancel).
const WORKING: u8 = 3;

impl From<OrderStatus> for RecordStatus {
    fn from(status: OrderStatus) -> Self {
        match status {
            OrderStatus::Pending => Self::Pending,
            OrderStatus::Open => Self::Open,
            OrderStatus::Cancelling => Self::Cancelling,
            OrderStatus::Filled => Self::Filled,
            OrderStatus::Cancelled => Self::Cancelled,
            OrderStatus::Expired => Self::Expired,
            OrderStatus::Failed => Self::Failed,
            OrderStatus::Unknown => Self::Unknown,
        }
    }
}

/// An order of this bot, as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRecord {
    pub client_order_id: String,
    /// Epoch of the Lease under which it was created.
    pub epoch: i64,
    /// None for an order imported from the exchange's history.
    #[serde(with = "text_option")]
    pub class: Option<Class>,
    pub product: String,
    #[serde(with = "text")]
    pub side: Side,
    /// Size ordered, in the product's unit; what is filled where the exchange did not say it.
    pub size: Decimal,
    /// Name of its [`OrderKind`], or `Imported`.
    pub kind: String,
    pub limit_price: Option<Decimal>,
    /// When the exchange ends it by itself.
    pub expires_at: Option<Timestamp>,
    pub created_at: Timestamp,
    /// The exchange's id, once it is known.
    pub order_id: Option<String>,
    pub status: RecordStatus,
    /// Cumulative filled size.
    pub filled: Decimal,
    /// Average price of what is filled; zero while nothing is.
    pub average_price: Decimal,
    /// Cumulative fees, in quote currency.
    pub fees_quote: Decimal,
    /// Why it was rejected or not placed.
    pub reason: Option<String>,
}

impl OrderRecord {
    /// The record of an order that is about to be sent.
    #[must_use]
    pub fn intended(order: &NewOrder, class: Class, epoch: i64, now: Timestamp) -> Self {
        let (kind, expires_at) = match order.kind {
            OrderKind::PostOnly { expires_at, .. } => ("PostOnly", Some(expires_at)),
            OrderKind::GoodTillCancelled { .. } => ("GoodTillCancelled", None),
            OrderKind::ImmediateOrCancel { .. } => ("ImmediateOrCancel", None),
            OrderKind::Market => ("Market", None),
            OrderKind::ClosePosition => ("ClosePosition", None),
        };
        Self {
            client_order_id: order.client_order_id.clone(),
            epoch,
            class: Some(class),
            product: order.product.clone(),
            side: order.side,
            size: order.size,
            kind: kind.to_owned(),
            limit_price: order.limit_price(),
            expires_at,
            created_at: now,
            order_id: None,
            status: RecordStatus::Intended,
            filled: Decimal::ZERO,
            average_price: Decimal::ZERO,
            fees_quote: Decimal::ZERO,
            reason: None,
        }
    }

    /// The record of an order that the exchange shows and the ledger does not have.
    #[must_use]
    pub fn imported(state: &OrderState, epoch: i64, now: Timestamp) -> Self {
        Self {
            client_order_id: state.client_order_id.clone(),
            epoch,
            class: None,
            product: state.product.clone(),
            side: state.side,
            size: state.size.unwrap_or(state.filled),
            kind: "Imported".to_owned(),
            limit_price: None,
            expires_at: None,
            created_at: state.created_at.unwrap_or(now),
            order_id: Some(state.order_id.clone()),
            status: state.status.into(),
            filled: state.filled,
            average_price: state.average_price,
            fees_quote: state.fees_quote,
            reason: None,
        }
    }

    /// The record after an update. Seeing an update twice, late or out of order changes nothing that was known better:
    /// fills and fees never decrease, an end at the exchange is final.
    ///
    /// # Errors
    /// The exchange has another order under the same client_order_id.
    pub fn updated(&self, update: &OrderUpdate) -> Result<Self, LedgerError> {
        let mut record = self.clone();
        match (&self.order_id, &update.order_id) {
            (Some(known), Some(new)) if known != new => {
                return Err(LedgerError::TwoOrders {
                    client_order_id: self.client_order_id.clone(),
                    known: known.clone(),
                    new: new.clone(),
                });
            }
            (None, Some(new)) => record.order_id = Some(new.clone()),
            _ => {}
        }
        if update.status.replaces(self.status) {
            record.status = update.status;
        }
        if update.reason.is_some() && record.status == update.status {
            record.reason.clone_from(&update.reason);
        }
        if update.filled > self.filled || (update.filled == self.filled && self.average_price.is_zero()) {
            record.filled = update.filled;
            record.average_price = update.average_price;
        }
        record.fees_quote = self.fees_quote.max(update.fees_quote);
        Ok(record)
    }
}

/// What has become known of an order. Amounts are cumulative.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderUpdate {
    pub client_order_id: String,
    /// The exchange's id, if known.
    pub order_id: Option<String>,
    pub status: RecordStatus,
    pub filled: Decimal,
    pub average_price: Decimal,
    pub fees_quote: Decimal,
    /// Why it was rejected or not placed.
    pub reason: Option<String>,
}

impl From<&OrderState> for OrderUpdate {
    fn from(state: &OrderState) -> Self {
        Self {
            client_order_id: state.client_order_id.clone(),
            order_id: Some(state.order_id.clone()),
            status: state.status.into(),
            filled: state.filled,
            average_price: state.average_price,
            fees_quote: state.fees_quote,
            reason: None,
        }
    }
}

/// One engagement of one kill switch: the latch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentRecord {
    #[serde(with = "text")]
    pub id: IncidentId,
    /// `ArbBot/<name>` or `ArbPolicy/<name>`.
    pub source: String,
    pub action: KillAction,
    pub reason: String,
    /// When the gate closed.
    pub engaged_at: Timestamp,
    pub phase: IncidentPhase,
    /// Whether the source was engaged when last seen.
    pub source_engaged: bool,
    /// When the exchange first confirmed that no order works.
    pub orders_cancelled_at: Option<Timestamp>,
    /// When the exchange first confirmed that the bot is flat.
    pub flat_at: Option<Timestamp>,
}

impl IncidentRecord {
    /// Whether its kill closes the position and has not finished.
    #[must_use]
    pub fn is_flattening(&self) -> bool {
        self.action == KillAction::Flatten && self.phase != IncidentPhase::Finished
    }

    /// The record after `new` was learned: the action never falls, the first times stay.
    #[must_use]
    pub fn updated(&self, new: &Self) -> Self {
        Self {
            action: self.action.max(new.action),
            engaged_at: self.engaged_at.min(new.engaged_at),
            orders_cancelled_at: self.orders_cancelled_at.or(new.orders_cancelled_at),
            flat_at: self.flat_at.or(new.flat_at),
            ..new.clone()
        }
    }
}

/// One change of the ledger; the chain holds every one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(tag = "kind", content = "payload")]
pub(super) enum Entry {
    /// The ledger was created for this.
    Bound(Binding),
    /// A new bot of the same name took it over.
    Adopted { bot_uid: String },
    /// An order is about to be sent.
    Intent(OrderRecord),
    /// An order of ours was found at the exchange.
    Imported(OrderRecord),
    /// More is known of an order.
    Order(OrderUpdate),
    /// An incident was opened, or more is known of it.
    Incident(IncidentRecord),
    /// An incident was released.
    Released {
        #[serde(with = "text")]
        id: IncidentId,
        at: Timestamp,
    },
    /// The operator granted the claim.
    Claim { account: String, product: String },
    /// A guard has tripped.
    GuardTripped(GuardTrip),
    /// The trip of a guard has ended, by itself or by a person's release.
    GuardEnded { guard: String, tripped_at: Timestamp, at: Timestamp },
    /// Highs of the equity, kept beside the chain.
    #[serde(skip)]
    Equity(Vec<EquityHigh>),
    /// The books have more: one transaction's worth.
    Postings(Vec<Posting>),
    /// The exchange showed the funding rate of an hour.
    FundingRate { product: String, hour: Timestamp, rate: Decimal },
}

impl Entry {
    /// The part of it that the chain stores beside its kind.
    pub fn payload(&self) -> Result<String, LedgerError> {
        let unencodable = |cause| LedgerError::Unencodable { cause };
        let value = serde_json::to_value(self).map_err(unencodable)?;
        serde_json::to_string(&value["payload"]).map_err(unencodable)
    }

    /// The entry of which the chain stores this.
    pub fn parse(kind: &str, payload: &str) -> Result<Self, serde_json::Error> {
        let payload: serde_json::Value = serde_json::from_str(payload)?;
        serde_json::from_value(serde_json::json!({ "kind": kind, "payload": payload }))
    }
}

/// Text form of types that have one but no serde of their own.
pub(super) mod text {
    use super::{Display, FromStr};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// [`text`] for an optional value.
pub(super) mod text_option {
    use super::{Display, FromStr};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub fn serialize<T: Display, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        value.as_ref().map(ToString::to_string).serialize(serializer)
    }

    pub fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        Option::<String>::deserialize(deserializer)?.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}
