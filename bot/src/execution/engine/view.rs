//! What the engine shows of itself: the source of status, metrics and conditions, and the restrictions that follow
//! from the state of the exchange.

use std::fmt;
use std::sync::Arc;

use arbbot_crds::arbbot::KillAction;
use arbbot_crds::control::{Control, Entry, Restriction};
use arbbot_crds::status::EffectiveMode;
use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;

use super::{CarryView, Engine, LegState, Now, Reconciliation};
use crate::exchange::{Link, OrderKind, Side};
use crate::execution::drain::DrainView;
use crate::execution::kill::is_flat;
use crate::execution::orders::{Order, State};
use crate::execution::proof::Proof;
use crate::risk::exposure::Leg;
use crate::risk::guards::GuardsView;

/// Source of the restriction that a drain puts in force once it has taken too long.
pub const DRAIN_TIMEOUT: &str = "drainTimeout";

/// A limit that closes entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitExceeded {
    /// Its field in `risk.limits`.
    pub limit: &'static str,
    /// It is not that the position is too large: not even one contract fits.
    pub below_one_contract: bool,
}

impl LimitExceeded {
    /// What is wrong and what to do, without figures: those move with every price.
    #[must_use]
    pub fn message(&self) -> String {
        let limit = self.limit;
        match self.below_one_contract {
            true => format!("{limit} is smaller than one contract, so nothing can be entered: raise it"),
            false => format!(
                "the position exceeds {limit}: nothing raises a leg, and nothing is sold for it either; raise the limit, or \
                 lower targetNotional"
            ),
        }
    }
}

/// An order that may still work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remaining {
    pub client_order_id: String,
    pub product: String,
    pub side: Side,
    /// What may still fill, in units of the product.
    pub size: Decimal,
    /// When it ends by itself, where it does.
    pub expires_at: Option<Timestamp>,
}

impl fmt::Display for Remaining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client_order_id, product, side, size, expires_at } = self;
        write!(f, "{client_order_id} ({side} {} {product}", size.normalize())?;
        match expires_at {
            Some(at) => write!(f, ", ends by itself at {})", at.strftime("%H:%M:%SZ")),
            None => write!(f, ")"),
        }
    }
}

/// What the engine shows of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// metadata.generation that the engine acts on.
    pub generation: Option<i64>,
    /// Mode that the engine acts on.
    pub mode: Option<EffectiveMode>,
    /// Incidents that the engine knows to have begun.
    pub incidents: u64,
    /// Releases that the engine knows of.
    pub releases: u64,
    pub open_orders: u32,
    /// Which those are, while entry is halted: what a bot that stops may leave at the exchange.
    pub remaining: Vec<Remaining>,
    pub unknown_orders: u32,
    /// Working orders on the account that are not this bot's.
    pub foreign_orders: u32,
    pub spot_owned_base: Decimal,
    pub future_owned_contracts: Decimal,
    /// Notional of the larger leg at the mid price, in quote currency.
    pub notional_quote: Decimal,
    pub leverage: Decimal,
    /// Cash of all fills less fees plus the position at the mid price, in quote currency; None without prices.
    pub pnl_quote: Option<Decimal>,
    /// Cash of all fills less fees, in quote currency; zero until the products are known.
    pub cash_quote: Decimal,
    pub fees_quote: Decimal,
    /// Spot that is too little to sell, in base currency.
    pub dust_base: Decimal,
    /// Mid prices of spot and future at this instant; None where one of them is not fresh.
    pub mids: Option<(Decimal, Decimal)>,
    /// Why each connection is down; None: up.
    pub links: Vec<(Link, Option<String>)>,
    pub proof: Proof,
    pub is_flat: bool,
    /// The drain under way.
    pub drain: Option<DrainView>,
    pub reconciliation: Reconciliation,
    /// Whether the venue shows less than the bot owns.
    pub has_deficit: bool,
    pub limit_exceeded: Option<LimitExceeded>,
    /// The futures session is closed; when it opens again, if the venue says so.
    pub session_closed: Option<Option<Timestamp>>,
    /// Why a product cannot be traded.
    pub product_unavailable: Option<String>,
    pub owned_since: Option<Timestamp>,
    /// Why the last order was not taken.
    pub last_refusal: Option<String>,
    /// Whether the exchange has been seen at all.
    pub seen_exchange: bool,
    /// Whether fresh prices of both products are there.
    pub prices_fresh: bool,
    /// The guards that warn or have tripped; whoever drives the engine fills it in.
    pub guards: Arc<GuardsView>,
    /// What the strategy makes of funding, costs and collateral.
    pub carry: CarryView,
}

impl Engine {
    /// The engine as it is now.
    #[must_use]
    pub fn view(&self, control: &Control, now: Now) -> View {
        let exposure = self.exposure(now);
        let (spot_owned_base, future_owned_contracts) = self.owned();
        let (mut notional_quote, mut leverage, mut pnl_quote, mut cash_quote, mut dust_base) =
            (Decimal::ZERO, Decimal::ZERO, None, Decimal::ZERO, Decimal::ZERO);
        if let Some(exposure) = &exposure {
            // Without fresh prices by the last ones: a position does not vanish with its price.
            let (spot, future) = ((&exposure.spot, &self.spot), (&exposure.future, &self.future));
            let mark = |(leg, state): (&Leg, &LegState)| leg.mid.or(state.last_mid);
            let notional = |(leg, state): (&Leg, &LegState)| mark((leg, state)).map(|mid| leg.notional(leg.owned, mid));
            notional_quote = [spot, future].into_iter().filter_map(notional).max().unwrap_or_default();
            if exposure.futures_collateral_quote > Decimal::ZERO {
                let notional = notional(future).unwrap_or_default();
                leverage = notional.checked_div(exposure.futures_collateral_quote).unwrap_or(Decimal::MAX);
            }
            let cash = |leg: &Leg| self.orders.cash_quote(&leg.product.id, leg.product.unit_base);
            cash_quote = cash(&exposure.spot) + cash(&exposure.future) - self.orders.fees_quote();
            let value = |(leg, state): (&Leg, &LegState)| {
                let mark = if leg.owned.is_zero() { Some(Decimal::ZERO) } else { mark((leg, state)) };
                mark.map(|mid| leg.owned * leg.product.unit_base * mid)
            };
            pnl_quote = value(spot).zip(value(future)).map(|(spot, future)| spot + future + cash_quote);
            if is_flat(&exposure.spot) {
                dust_base = exposure.spot.owned;
            }
        }
        View {
            generation: self.generation,
            mode: self.mode,
            incidents: self.incidents,
            releases: self.releases,
            open_orders: u32::try_from(self.orders.live().count()).unwrap_or(u32::MAX),
            remaining: if control.entry == Entry::Halted { self.remaining() } else { Vec::new() },
            unknown_orders: u32::try_from(self.orders.live().filter(|o| o.state == State::Unknown).count())
                .unwrap_or(u32::MAX),
            foreign_orders: self.strangers.working,
            spot_owned_base,
            future_owned_contracts,
            notional_quote,
            leverage,
            pnl_quote,
            cash_quote,
            fees_quote: self.orders.fees_quote(),
            dust_base,
            mids: self.mids(now),
            links: self.links.iter().map(|(link, down)| (*link, down.clone())).collect(),
            proof: self.proof,
            is_flat: self.is_flat(now),
            drain: self.drain_view(now),
            reconciliation: self.reconciliation.clone(),
            has_deficit: !(self.spot.deficit + self.future.deficit).is_zero(),
            limit_exceeded: self.limit_exceeded(control, now),
            session_closed: self.session_closed(),
            product_unavailable: self.product_unavailable(),
            owned_since: self.owned_since,
            last_refusal: self.last_refusal.clone(),
            seen_exchange: self.snapshots > 0,
            prices_fresh: self.spot.touch(now.boot).is_some() && self.future.touch(now.boot).is_some(),
            guards: Arc::default(),
            carry: self.carry.view(),
        }
    }

    fn remaining(&self) -> Vec<Remaining> {
        let remaining = |order: &Order| Remaining {
            client_order_id: order.order.client_order_id.clone(),
            product: order.order.product.clone(),
            side: order.order.side,
            size: order.remaining(),
            expires_at: match order.order.kind {
                OrderKind::PostOnly { expires_at, .. } => Some(expires_at),
                _ => None,
            },
        };
        self.orders.live().map(remaining).collect()
    }

    fn mids(&self, now: Now) -> Option<(Decimal, Decimal)> {
        let mid = |leg: &LegState| leg.touch(now.boot).map(|touch| touch.mid());
        mid(&self.spot).zip(mid(&self.future))
    }

    /// What the state of the exchange forbids: nothing may raise a leg while any of it holds.
    pub(super) fn restrictions(&self, control: &Control, now: Now) -> Vec<Restriction> {
        let closed = |source: &str, why: String| Restriction::entry(source, Entry::ReduceOnly, why);
        let mut restrictions = Vec::new();
        if self.snapshots == 0 {
            restrictions.push(closed("exchange", "the exchange has not yet been read".to_owned()));
        }
        for (link, down) in &self.links {
            if let Some(cause) = down {
                restrictions.push(closed("exchange", format!("{link} is down: {cause}")));
            }
        }
        match &self.reconciliation {
            Reconciliation::Matches => {}
            Reconciliation::Pending => {
                restrictions.push(closed("reconciliation", "positions are not yet compared".to_owned()));
            }
            Reconciliation::Differs(_) => {
                restrictions.push(closed("reconciliation", "the exchange shows another position".to_owned()));
            }
        }
        let session_closed = self.session_closed().map(|_| "the futures session is closed".to_owned());
        let reasons = [
            ("limits", self.limit_exceeded(control, now).map(|exceeded| exceeded.message())),
            ("product", self.product_unavailable()),
            ("session", session_closed),
        ];
        restrictions.extend(reasons.into_iter().filter_map(|(source, why)| Some(closed(source, why?))));
        restrictions.extend(self.shared());
        if self.drain.as_ref().is_some_and(|drain| drain.escalates(self.params.drain, now.boot)) {
            let why = "the drain has taken longer than drainTimeout, and onDrainTimeout is Flatten";
            restrictions.push(Restriction::kill(DRAIN_TIMEOUT, KillAction::Flatten, why));
        }
        restrictions
    }

    fn drain_view(&self, now: Now) -> Option<DrainView> {
        let drain = self.drain.as_ref()?;
        let contracts_left = self.exposure(now).is_none_or(|exposure| !exposure.future.held().is_zero());
        let waits_for_session = self.session_closed().is_some() && contracts_left;
        Some(drain.view(self.params.drain, self.proof.flat.confirmed, waits_for_session, now.boot))
    }

    pub(super) fn session_closed(&self) -> Option<Option<Timestamp>> {
        let session = self.future.product.as_ref()?.future.as_ref()?;
        (!session.session_open).then_some(session.reopens_at)
    }

    pub(super) fn is_flat(&self, now: Now) -> bool {
        match self.exposure(now) {
            Some(exposure) => is_flat(&exposure.spot) && is_flat(&exposure.future),
            None => false,
        }
    }

    /// The first limit that is exceeded; None also without fresh prices.
    fn limit_exceeded(&self, control: &Control, now: Now) -> Option<LimitExceeded> {
        let exposure = self.exposure(now)?;
        let limits = &control.limits;
        let (spot, future) = (&exposure.spot, &exposure.future);
        let notional = |leg: &Leg| Some(leg.notional(leg.owned, leg.highest_price(None)?));
        let (spot_notional, future_notional) = (notional(spot)?, notional(future)?);
        let contract = future.notional(Decimal::ONE, future.mid?);
        // Less than this, and the gate refuses the first contract of either leg, or what completes it.
        let legging_in = self.market(&exposure, control, now)?.dearest_contract_notional();
        let most = limits.max_leverage.0 * exposure.futures_collateral_quote;
        let [exceeded, too_small] = [false, true];
        [
            ("maxPositionNotional", exceeded, spot_notional.max(future_notional) > limits.max_position_notional.0),
            ("maxLeverage", exceeded, future_notional > most),
            ("maxDeltaNotional", too_small, limits.max_delta_notional.0 < contract),
            ("maxLegImbalanceNotional", too_small, limits.max_leg_imbalance_notional.0 < legging_in),
        ]
        .into_iter()
        .find(|(.., holds)| *holds)
        .map(|(limit, below_one_contract, _)| LimitExceeded { limit, below_one_contract })
    }

    fn product_unavailable(&self) -> Option<String> {
        if self.no_product.is_some() {
            return self.no_product.clone();
        }
        [&self.spot, &self.future]
            .into_iter()
            .filter_map(|leg| leg.product.as_ref())
            .find(|product| !product.tradable)
            .map(|product| format!("{} is not offered for trading now", product.id))
    }
}
