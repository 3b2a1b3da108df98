//! A venue of the bot's own: public market data of the real one, and an account on paper whose orders are filled
//! against it by the rules of `exchange-matching`. Nothing here can send an order anywhere.

mod account;
mod market;
mod session;
mod source;
mod store;
#[cfg(test)]
mod tests;
mod venue;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arbbot_crds::ArbBot;
use arbbot_crds::arbbot::{PAPER_ACCOUNT, PaperFees};
use arc_swap::ArcSwapOption;
use k8s_openapi::jiff::Timestamp;
use rust_decimal::dec;
use tokio::sync::mpsc;

pub use self::account::FeeSchedule;
pub use self::session::{PaperTask, relay};
pub use self::source::{Recorded, Source};
use self::store::Store;
pub use self::store::StoreError;
use self::venue::Venue;
use super::{
    Exchange, ExchangeError, FeeRates, Fill, Holdings, KeyPermissions, MarketEvent, OrderState, Placed, Product, Touch,
    VenueEvent,
};
use crate::clock::Clock;
use crate::risk::Cleared;

/// File of the paper account in the ledger's directory.
pub const FILE: &str = "paper.jsonl";

/// The paper venue. The bot's driver sees an exchange like any other.
#[derive(Debug)]
pub struct Paper {
    state: Mutex<State>,
    clock: Clock,
    /// Market data of the session that is open.
    data: ArcSwapOption<Source>,
    /// Where the changes of orders go.
    told: mpsc::UnboundedSender<VenueEvent>,
}

#[derive(Debug)]
struct State {
    venue: Venue,
    store: Store,
}

impl Paper {
    /// Opens the account of a bot in a directory, or a new one with the balance of its spec. What becomes of its orders is
    /// told to the receiver.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(
        dir: &Path,
        bot: &ArbBot,
        clock: Clock,
    ) -> Result<(Arc<Self>, mpsc::UnboundedReceiver<VenueEvent>), StoreError> {
        let terms = bot.spec.paper.clone().unwrap_or_default();
        let (store, book) = Store::open(PathBuf::from(dir).join(FILE), terms.balance.0)?;
        let (told, hears) = mpsc::unbounded_channel();
        let venue = Venue::new(bot.spec.products(), book, FeeSchedule::from(&terms.fees));
        let state = Mutex::new(State { venue, store });
        Ok((Arc::new(Self { state, clock, data: ArcSwapOption::empty(), told }), hears))
    }

    /// What a fill costs from now on.
    pub fn set_fees(&self, fees: &PaperFees) {
        self.state().venue.fees = FeeSchedule::from(fees);
    }

    /// Market data comes from there from now on; None: there is none.
    pub fn use_data(&self, data: Option<Source>) {
        if data.is_none() {
            self.hear(MarketEvent::Lost);
        }
        self.data.store(data.map(Arc::new));
    }

    /// Takes in what the market data tells.
    pub fn hear(&self, event: MarketEvent) {
        self.act(|venue, now| venue.hear(event, now));
    }

    /// Lets time pass: orders expire, hours end.
    pub fn tick(&self) {
        self.act(Venue::advance);
    }

    /// The best prices with the bot's own orders among them, as a real exchange shows them.
    #[must_use]
    pub fn with_own_orders(&self, product: &str, touch: Touch) -> Touch {
        self.state().venue.with_own_orders(product, touch)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A change is applied as a whole or is a bug; what is there is the best that is known.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The venue's time.
    fn now(&self) -> Timestamp {
        self.data.load().as_ref().and_then(|data| data.now()).unwrap_or_else(|| self.clock.now())
    }

    /// Changes the venue; what changed is durable before anybody hears of it, unless the disk fails.
    fn act<T>(&self, change: impl FnOnce(&mut Venue, Timestamp) -> T) -> T {
        let now = self.now();
        let mut state = self.state();
        let State { venue, store } = &mut *state;
        let result = change(venue, now);
        let Some(changed) = venue.take_changes() else { return result };
        store.write(venue.account(), changed.iter().filter_map(|number| venue.order(*number)));
        for order in changed.iter().filter_map(|number| venue.order(*number)) {
            // Nobody listens any more only when the program ends.
            self.told.send(VenueEvent::Order(order.shown())).ok();
        }
        result
    }

    fn data(&self) -> Result<Arc<Source>, ExchangeError> {
        self.data.load_full().ok_or(ExchangeError::NoSession)
    }
}

impl From<&PaperFees> for FeeSchedule {
    fn from(fees: &PaperFees) -> Self {
        let rates = |maker: rust_decimal::Decimal, taker: rust_decimal::Decimal| exchange_matching::fees::FeeRates {
            maker: maker * dec!(0.0001),
            taker: taker * dec!(0.0001),
        };
        Self {
            spot: rates(fees.spot_maker_bps.0, fees.spot_taker_bps.0),
            future: rates(fees.future_maker_bps.0, fees.future_taker_bps.0),
        }
    }
}

impl Exchange for Paper {
    async fn key_permissions(&self) -> Result<KeyPermissions, ExchangeError> {
        let portfolio = PAPER_ACCOUNT.to_owned();
        Ok(KeyPermissions { portfolio, can_view: true, can_trade: true, can_transfer: false })
    }

    async fn product(&self, id: &str) -> Result<Product, ExchangeError> {
        let mut product = self.data()?.product(id).await?;
        if let Some(future) = &mut product.future {
            // On paper a position is settled when it is closed.
            future.settlement_price = None;
        }
        let listed = product.clone();
        self.act(move |venue, now| venue.list(listed, now));
        Ok(product)
    }

    async fn orders(&self, products: &[String], since: Option<Timestamp>) -> Result<Vec<OrderState>, ExchangeError> {
        // The engine mixes times of both clocks here: the earlier of the two readings misses nothing.
        let data = self.data()?;
        let since = since.map(|since| since.min(data.venue_time(since)));
        Ok(self.act(|venue, now| {
            venue.advance(now);
            venue.orders_since(products, since)
        }))
    }

    async fn order(&self, order_id: &str) -> Result<OrderState, ExchangeError> {
        let found = self.act(|venue, now| {
            venue.advance(now);
            venue.order_by_id(order_id)
        });
        found.ok_or_else(|| ExchangeError::BadRequest {
            call: "order".to_owned(),
            message: format!("there is no order {order_id} on this paper account"),
        })
    }

    async fn fills(&self, order_ids: &[String]) -> Result<Vec<Fill>, ExchangeError> {
        Ok(self.state().venue.fills(order_ids))
    }

    async fn fee_rates(&self) -> Result<FeeRates, ExchangeError> {
        let FeeSchedule { spot, future } = self.state().venue.fees;
        Ok(FeeRates {
            spot_maker: spot.maker,
            spot_taker: spot.taker,
            future_maker: future.maker,
            future_taker: future.taker,
        })
    }

    async fn holdings(&self) -> Result<Holdings, ExchangeError> {
        Ok(self.state().venue.holdings())
    }

    async fn place(&self, cleared: Cleared) -> Result<Placed, ExchangeError> {
        let refuse = |message: String| ExchangeError::BadRequest { call: "place".to_owned(), message };
        let data = self.data()?;
        if self.clock.boottime() >= cleared.expires_at() {
            return Err(refuse("the time in which the order may be sent is over".to_owned()));
        }
        let problem = {
            let store = &mut self.state().store;
            store.flush();
            store.problem.clone()
        };
        if let Some(problem) = problem {
            return Err(refuse(format!("the paper account cannot be written: {problem}")));
        }
        let mut order = cleared.order().clone();
        if let super::OrderKind::PostOnly { expires_at, .. } = &mut order.kind {
            *expires_at = data.venue_time(*expires_at);
        }
        Ok(self.act(|venue, now| venue.place(&order, now)))
    }

    async fn cancel(&self, order_ids: &[String]) -> Result<Vec<(String, String)>, ExchangeError> {
        Ok(self.act(|venue, now| {
            venue.advance(now);
            let refused = |id: &String| Some((id.clone(), venue.cancel(id).err()?));
            order_ids.iter().filter_map(refused).collect()
        }))
    }
}
