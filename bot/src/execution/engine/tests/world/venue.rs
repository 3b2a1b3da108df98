//! The exchange in memory: what it accepts, fills and shows.

use rust_decimal::{Decimal, dec};

use super::{AtVenue, FUTURE, SPOT, World};
use crate::exchange::{
    ExchangeError, Holdings, NewOrder, OrderKind, OrderState, OrderStatus, Placed, Side, VenueEvent,
};
use crate::execution::engine::{Command, Event, Snapshot};
use crate::execution::orders::parse_id;
use crate::risk::Class;
use crate::testing::{future_product, spot_product};

impl World {
    pub fn position(&self, product: &str) -> Decimal {
        let orders = self.venue.values().filter(|at| at.order.product == product);
        orders.map(|at| at.state.filled * at.order.side.sign()).sum()
    }

    pub fn carry_out(&mut self, command: Command) -> Vec<Event> {
        match command {
            Command::Place { permit, .. } => {
                let id = permit.order().client_order_id.clone();
                match self.gate.clear(permit) {
                    Ok(cleared) => self.accept(id, cleared.order().clone()),
                    Err(_) => vec![Event::NotSent { client_order_id: id }],
                }
            }
            Command::Cancel(ids) if !self.faulty => ids.iter().filter_map(|id| self.cancel(id)).collect(),
            Command::Query(id) => {
                let found = self.venue.values().find(|at| at.state.order_id == id);
                found.map(|at| Event::Order(Ok(at.state.clone()))).into_iter().collect()
            }
            Command::Snapshot { .. } => vec![self.snapshot()],
            Command::Fees => vec![Event::Fees(Ok(self.fees))],
            Command::Cancel(_) | Command::Record(_) | Command::Funding { .. } => Vec::new(),
        }
    }

    pub fn accept(&mut self, id: String, order: NewOrder) -> Vec<Event> {
        self.judge(&order);
        self.is_alone(&order);
        let (control, _) = self.gate.current();
        let order_id = format!("venue-{id}");
        let state = OrderState {
            order_id: order_id.clone(),
            client_order_id: id.clone(),
            product: order.product.clone(),
            side: order.side,
            status: OrderStatus::Open,
            filled: dec!(0),
            average_price: dec!(60000),
            fees_quote: dec!(0),
            size: Some(order.size),
            created_at: None,
        };
        let position_before = self.position(&order.product);
        let at = AtVenue { order, state, entry: control.entry, duty: control.duty, position_before };
        assert!(self.venue.insert(id.clone(), at.clone()).is_none(), "the id {id} was used twice");
        self.accepted.push(at.clone());
        self.apart.push(self.position(SPOT) + self.position(FUTURE) * dec!(0.01));
        if !matches!(at.order.kind, OrderKind::PostOnly { .. }) {
            self.take(&id);
        }
        if self.faulty {
            let lost = ExchangeError::Timeout { call: "POST orders".into(), seconds: 5 };
            return vec![Event::Placed { client_order_id: id, result: Err(lost) }];
        }
        let news = self.news(&id);
        vec![news, Event::Placed { client_order_id: id, result: Ok(Placed::Accepted { order_id }) }]
    }

    /// Invariant 4: of the strategy there is one order of a product at a time. Another one beside it is an intent that was
    /// taken up twice. (A kill or a repair does not wait for what is stuck.)
    fn is_alone(&self, order: &NewOrder) {
        let follows_the_strategy =
            |id: &str| parse_id(id).is_some_and(|id| matches!(id.class, Class::Enter | Class::Hedge | Class::Reduce));
        if !follows_the_strategy(&order.client_order_id) {
            return;
        }
        let works = |at: &&AtVenue| at.order.product == order.product && !at.state.status.is_terminal();
        let ours = |at: &&AtVenue| at.order.client_order_id.starts_with("aaaaaaaa-");
        let other = self.venue.values().filter(ours).find(works);
        assert!(other.is_none(), "{order:?} beside {other:?}");
    }

    /// Invariant 9: what reaches the exchange is on the product's grid, as Coinbase's page of the product has it and
    /// whatever the bot made of it, and an order that is to rest does not cross.
    /// Proven by mutation: prices neither rounded nor checked at the gate; sizes neither rounded nor checked at the gate; quotes
    /// at the other side's price.
    fn judge(&self, order: &NewOrder) {
        let (tick, increment, min_size, min_notional, unit) = match order.product.as_str() {
            SPOT => (dec!(0.01), dec!(0.00000001), dec!(0.00001), dec!(1), dec!(1)),
            FUTURE => (dec!(5), dec!(1), dec!(1), dec!(0), dec!(0.01)),
            other => panic!("{other} is not a product of this bot"),
        };
        assert!(order.size >= min_size && (order.size % increment).is_zero(), "size: {order:?}");
        if let Some(price) = order.limit_price() {
            assert!(price > dec!(0) && (price % tick).is_zero(), "price: {order:?}");
            assert!(order.size * unit * price >= min_notional, "notional: {order:?}");
        }
        if let OrderKind::PostOnly { limit_price, .. } = order.kind {
            let touch = self.told[&order.product];
            let crosses = match order.side {
                Side::Buy => limit_price >= touch.best_ask,
                Side::Sell => limit_price <= touch.best_bid,
            };
            assert!(!crosses, "{order:?} crosses {touch:?}");
        }
    }

    /// An order that takes fills what the liquidity gives at its limit price; the rest is cancelled.
    pub fn take(&mut self, id: &str) {
        let touch = self.touch;
        let at = self.venue.get_mut(id).unwrap();
        let reaches = at.order.limit_price().is_none_or(|price| match at.order.side {
            Side::Buy => price >= touch.best_ask,
            Side::Sell => price <= touch.best_bid,
        });
        let percent = if reaches { self.liquidity } else { 0 };
        let liquidity = Decimal::from(percent) / dec!(100);
        let increment = if at.order.product == SPOT { dec!(0.00000001) } else { dec!(1) };
        at.state.filled = (at.order.size * liquidity / increment).floor() * increment;
        at.state.status = if percent == 100 { OrderStatus::Filled } else { OrderStatus::Cancelled };
    }

    pub fn news(&self, id: &str) -> Event {
        Event::Venue(VenueEvent::Order(self.venue[id].state.clone()))
    }

    pub fn cancel(&mut self, order_id: &str) -> Option<Event> {
        let at = self.venue.values_mut().find(|at| at.state.order_id == order_id)?;
        if !at.state.status.is_terminal() {
            at.state.status = OrderStatus::Cancelled;
        }
        Some(Event::Venue(VenueEvent::Order(at.state.clone())))
    }

    /// Somebody trades against everything that rests.
    pub fn fill_all(&mut self) {
        for _ in 0..self.working() {
            self.fill(0, 100, true);
        }
    }

    /// Somebody trades against what rests of one product.
    pub fn fill_product(&mut self, product: &str) {
        let open: Vec<_> = self.venue.values().filter(|at| !at.state.status.is_terminal()).collect();
        if let Some(pick) = open.iter().position(|at| at.order.product == product) {
            self.fill(pick, 100, true);
        }
    }

    /// Somebody trades against a resting order; the news may get lost.
    pub fn fill(&mut self, pick: usize, percent: u32, told: bool) {
        let open: Vec<String> =
            self.venue.iter().filter(|(_, at)| !at.state.status.is_terminal()).map(|(id, _)| id.clone()).collect();
        let Some(id) = open.get(pick % open.len().max(1)) else { return };
        let at = self.venue.get_mut(id).unwrap();
        let increment = if at.order.product == SPOT { dec!(0.00000001) } else { dec!(1) };
        let left = at.order.size - at.state.filled;
        let part = (left * Decimal::from(percent) / dec!(100) / increment).floor() * increment;
        at.state.filled += part;
        if at.state.filled == at.order.size {
            at.state.status = OrderStatus::Filled;
        }
        if told {
            let news = self.news(id);
            self.give(news);
        }
    }

    pub fn snapshot(&mut self) -> Event {
        if self.faulty {
            let lost = ExchangeError::Timeout { call: "GET orders".into(), seconds: 5 };
            return Event::Snapshot(Box::new(Err(lost)));
        }
        let mut future = future_product();
        let details = future.future.as_mut().unwrap();
        (details.session_open, details.terms) = (self.session_open, self.future_terms.clone());
        details.index = self.index;
        let all = (self.position(SPOT) + self.others.0, self.position(FUTURE) + self.others.1);
        let (spot, contracts) = self.shown.unwrap_or(all);
        let holdings = Holdings {
            contracts: [(FUTURE.to_owned(), contracts)].into(),
            balances: [("BTC".to_owned(), spot), ("USD".to_owned(), dec!(1000000))].into(),
            futures_collateral_quote: self.collateral_quote,
        };
        let orders = self.venue.values().map(|at| at.state.clone()).collect();
        Event::Snapshot(Box::new(Ok(Snapshot { started: self.now(), orders, holdings, spot: spot_product(), future })))
    }

    pub fn working(&self) -> usize {
        self.venue.values().filter(|at| !at.state.status.is_terminal()).count()
    }
}
