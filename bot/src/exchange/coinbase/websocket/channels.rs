//! What the messages of one connection mean. Pure: text in, events out.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::wire::{Level2Event, Message, TradesEvent, UserEvent};
use crate::exchange::{Link, MarketEvent, OrderState, Touch, VenueEvent};
use crate::market::OrderBook;

/// What a message said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    pub events: Vec<VenueEvent>,
    /// Every price level and trade, where they are wanted.
    pub market: Vec<MarketEvent>,
    pub heartbeat: bool,
}

#[derive(Debug, Default)]
struct Market {
    book: OrderBook,
    /// What was last told.
    told: Option<Touch>,
}

/// The channels of one connection, from its beginning to its end.
#[derive(Debug)]
pub struct Channels {
    link: Link,
    up: bool,
    /// Number of the last message.
    sequence: Option<u64>,
    markets: BTreeMap<String, Market>,
    /// Whether every price level and trade is wanted.
    tape: bool,
}

impl Channels {
    pub fn new(link: Link, products: &[String]) -> Self {
        let markets = products.iter().map(|product| (product.clone(), Market::default())).collect();
        Self { link, up: false, sequence: None, markets, tape: false }
    }

    /// Tells every price level and trade, too.
    pub fn with_tape(self) -> Self {
        Self { tape: true, ..self }
    }

    /// What to subscribe to, the channel that carries the link first. Heartbeats keep the others alive.
    pub fn names(link: Link) -> &'static [&'static str] {
        match link {
            Link::UserWebSocket => &["user", "heartbeats"],
            Link::MarketWebSocket | Link::Rest => &["level2", "heartbeats"],
        }
    }

    /// Whether the exchange confirmed the subscription.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// What the end of the connection means.
    pub fn down(&self, cause: &str) -> Vec<VenueEvent> {
        let unknown = |product: &String| VenueEvent::Touch { product: product.clone(), touch: None };
        let books = match self.link {
            Link::MarketWebSocket => self.markets.keys().map(unknown).collect(),
            Link::UserWebSocket | Link::Rest => Vec::new(),
        };
        let link = VenueEvent::Link { link: self.link, down: Some(cause.to_owned()) };
        books.into_iter().chain([link]).collect()
    }

    /// Takes in a message.
    ///
    /// # Errors
    /// The connection can no longer be relied on, and why.
    pub fn hear(&mut self, text: &str) -> Result<Heard, String> {
        let message: Message =
            serde_json::from_str(text).map_err(|error| format!("a message that cannot be read: {error}"))?;
        if message.kind == "error" {
            return Err(format!("the exchange says: {}", arbbot_crds::conditions::shorten(&message.message, 200)));
        }
        if let Some(number) = message.sequence_num {
            match self.sequence {
                // A repetition: what it says is known, and maybe no longer true.
                Some(last) if number <= last => return Ok(Heard::default()),
                Some(last) if number > last.saturating_add(1) => {
                    return Err(format!("messages are missing: number {number} came after {last}"));
                }
                _ => self.sequence = Some(number),
            }
        }
        let mut heard = Heard { heartbeat: message.channel == "heartbeats", ..Heard::default() };
        if heard.heartbeat {
            // A quiet book is not a stale one: the connection lives, so what was told still holds.
            let quiet = self.markets.iter().filter(|(_, market)| market.told.is_some());
            let touch = |(product, market): (&String, &Market)| VenueEvent::Touch {
                product: product.clone(),
                touch: market.told,
            };
            heard.events.extend(quiet.map(touch));
        }
        for event in message.events {
            match message.channel.as_str() {
                "subscriptions" => self.confirmed(&event, &mut heard),
                "l2_data" => self.level2(&read(event, "l2_data")?, &mut heard)?,
                "market_trades" if self.tape => self.trades(&read(event, "market_trades")?, &mut heard),
                "user" => self.user(read(event, "user")?, &mut heard)?,
                _ => {}
            }
        }
        Ok(heard)
    }

    fn confirmed(&mut self, event: &Value, heard: &mut Heard) {
        let carrier = Self::names(self.link).first().copied().unwrap_or_default();
        if !self.up && event.get("subscriptions").and_then(|channels| channels.get(carrier)).is_some() {
            self.up = true;
            heard.events.push(VenueEvent::Link { link: self.link, down: None });
        }
    }

    fn level2(&mut self, event: &Level2Event, heard: &mut Heard) -> Result<(), String> {
        let Some(market) = self.markets.get_mut(&event.product_id) else { return Ok(()) };
        let levels = event.levels()?;
        if self.tape {
            let (product, snapshot) = (event.product_id.clone(), event.kind == "snapshot");
            heard.market.push(MarketEvent::Levels { product, snapshot, levels: levels.clone() });
        }
        let result = match event.kind.as_str() {
            "snapshot" => market.book.snapshot(levels),
            "update" => market.book.update(levels),
            other => return Err(format!("an l2_data event of the type {other:?}")),
        };
        result.map_err(|error| format!("the book of {}: {error}", event.product_id))?;
        let touch = market.book.touch();
        if touch != market.told {
            market.told = touch;
            heard.events.push(VenueEvent::Touch { product: event.product_id.clone(), touch });
        }
        Ok(())
    }

    /// The snapshot of past trades is no news.
    fn trades(&self, event: &TradesEvent, heard: &mut Heard) {
        let new = event.trades.iter().filter(|_| event.kind == "update");
        let ours = new.filter(|trade| self.markets.contains_key(&trade.product_id));
        heard.market.extend(ours.map(|trade| MarketEvent::Trade {
            product: trade.product_id.clone(),
            price: trade.price,
            size: trade.size,
            at: trade.time,
        }));
    }

    fn user(&self, event: UserEvent, heard: &mut Heard) -> Result<(), String> {
        for order in event.orders {
            let order = OrderState::try_from(order)?;
            if self.markets.contains_key(&order.product) {
                heard.events.push(VenueEvent::Order(order));
            }
        }
        Ok(())
    }
}

fn read<T: DeserializeOwned>(event: Value, channel: &str) -> Result<T, String> {
    serde_json::from_value(event).map_err(|error| format!("an event of {channel} that cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;
    use serde_json::json;

    use super::*;
    use crate::exchange::OrderStatus;

    fn market() -> Channels {
        Channels::new(Link::MarketWebSocket, &["BTC-USD".to_owned(), "BIP-20DEC30-CDE".to_owned()])
    }

    fn message(sequence: u64, channel: &str, event: &Value) -> String {
        json!({"channel": channel, "client_id": "", "timestamp": "2026-04-07T12:00:00Z",
            "sequence_num": sequence, "events": [event]})
        .to_string()
    }

    fn l2(kind: &str, updates: &[(&str, &str, &str)]) -> Value {
        let updates: Vec<Value> = updates
            .iter()
            .map(|(side, price, quantity)| json!({"side": side, "price_level": price, "new_quantity": quantity}))
            .collect();
        json!({"type": kind, "product_id": "BTC-USD", "updates": updates})
    }

    fn touch(prices: Option<(i64, i64)>) -> VenueEvent {
        let touch = prices.map(|(bid, ask)| Touch { best_bid: Decimal::from(bid), best_ask: Decimal::from(ask) });
        VenueEvent::Touch { product: "BTC-USD".to_owned(), touch }
    }

    #[test]
    fn a_touch_is_told_only_when_it_changed() {
        let mut channels = market();
        let snapshot = l2("snapshot", &[("bid", "99", "1"), ("offer", "101", "1")]);
        let heard = channels.hear(&message(0, "l2_data", &snapshot)).unwrap();
        assert_eq!(heard.events, [touch(Some((99, 101)))]);
        let deeper = l2("update", &[("bid", "98", "5")]);
        assert_eq!(channels.hear(&message(1, "l2_data", &deeper)).unwrap().events, []);
        let better = l2("update", &[("bid", "100", "5")]);
        assert_eq!(channels.hear(&message(2, "l2_data", &better)).unwrap().events, [touch(Some((100, 101)))]);
        let empty = l2("update", &[("offer", "101", "0")]);
        assert_eq!(channels.hear(&message(3, "l2_data", &empty)).unwrap().events, [touch(None)]);
    }

    /// Invariant 10. Proven by mutation: a gap that is not noticed.
    #[test]
    fn a_gap_ends_the_connection_and_makes_the_books_unknown() {
        let mut channels = market();
        channels.hear(&message(7, "heartbeats", &json!({"heartbeat_counter": 1}))).unwrap();
        let cause = channels.hear(&message(9, "heartbeats", &json!({"heartbeat_counter": "3"}))).unwrap_err();
        assert!(cause.contains("number 9 came after 7"), "{cause}");
        let down = channels.down(&cause);
        assert_eq!(down.len(), 3);
        assert!(down.contains(&touch(None)));
        assert!(down.contains(&VenueEvent::Link { link: Link::MarketWebSocket, down: Some(cause) }));
    }

    #[test]
    fn a_message_that_comes_twice_or_late_changes_nothing() {
        let mut channels = market();
        let snapshot = l2("snapshot", &[("bid", "99", "1"), ("offer", "101", "1")]);
        channels.hear(&message(4, "l2_data", &snapshot)).unwrap();
        let better = message(5, "l2_data", &l2("update", &[("bid", "100", "5")]));
        assert_eq!(channels.hear(&better).unwrap().events, [touch(Some((100, 101)))]);
        assert_eq!(channels.hear(&better).unwrap(), Heard::default());
        assert_eq!(channels.hear(&message(4, "l2_data", &snapshot)).unwrap(), Heard::default());
        let next = l2("update", &[("bid", "100", "0")]);
        assert_eq!(channels.hear(&message(6, "l2_data", &next)).unwrap().events, [touch(Some((99, 101)))]);
    }

    #[test]
    fn a_link_is_up_once_its_own_channel_is_confirmed() {
        let mut channels = market();
        let heartbeats = json!({"subscriptions": {"heartbeats": ["heartbeats"]}});
        assert_eq!(channels.hear(&message(0, "subscriptions", &heartbeats)).unwrap(), Heard::default());
        assert!(!channels.is_up());
        let both = json!({"subscriptions": {"heartbeats": ["heartbeats"], "level2": ["BTC-USD"]}});
        let up = VenueEvent::Link { link: Link::MarketWebSocket, down: None };
        assert_eq!(channels.hear(&message(1, "subscriptions", &both)).unwrap().events, [up]);
        assert_eq!(channels.hear(&message(2, "subscriptions", &both)).unwrap().events, []);
    }

    #[test]
    fn what_cannot_be_relied_on_ends_the_connection() {
        let never_sent = l2("update", &[("bid", "99", "1")]);
        let odd_side = l2("snapshot", &[("left", "99", "1")]);
        let no_price = l2("snapshot", &[("bid", "", "1")]);
        let no_order = json!({"type": "update", "orders": [{"order_id": 5}]});
        for text in [
            "not json".to_owned(),
            json!({"type": "error", "message": "authentication failure"}).to_string(),
            message(0, "l2_data", &never_sent),
            message(0, "l2_data", &odd_side),
            message(0, "l2_data", &no_price),
            message(0, "user", &no_order),
        ] {
            market().hear(&text).unwrap_err();
        }
    }

    #[test]
    fn orders_of_other_products_and_channels_nobody_asked_for_are_ignored() {
        let mut channels = market();
        let order = |product: &str| {
            json!({"type": "update", "orders": [{"order_id": "o", "client_order_id": "c", "product_id": product,
                "order_side": "BUY", "status": "OPEN", "cumulative_quantity": "0.1", "avg_price": "1"}]})
        };
        assert_eq!(channels.hear(&message(0, "user", &order("ETH-USD"))).unwrap().events, []);
        assert_eq!(channels.hear(&message(1, "status", &json!({"x": 1}))).unwrap(), Heard::default());
        let heard = channels.hear(&message(2, "user", &order("BTC-USD"))).unwrap();
        let [VenueEvent::Order(order)] = heard.events.as_slice() else { panic!("{heard:?}") };
        assert_eq!((order.status, order.size), (OrderStatus::Open, None));
    }
}
