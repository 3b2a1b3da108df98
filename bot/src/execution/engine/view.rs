//! What the engine shows of itself: the source of status, metrics and conditions, and the restrictions that follow
//! from the state of the exchange.

use arbbot_crds::arbbot::KillAction;
use arbbot_crds::control::{Control, Entry, Restriction};
use arbbot_crds::status::EffectiveMode;
use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;

use super::{Engine, LegState, Now, Reconciliation};
use crate::exchange::Link;
use crate::execution::drain::DrainView;
use crate::execution::kill::is_flat;
use crate::execution::orders::State;
use crate::execution::proof::Proof;
use crate::risk::exposure::Leg;

/// Source of the restriction that a drain puts in force once it has taken too long.
pub const DRAIN_TIMEOUT: &str = "drainTimeout";

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
    /// Why each connection is down; None: up.
    pub links: Vec<(Link, Option<String>)>,
    pub proof: Proof,
    pub is_flat: bool,
    /// The drain under way.
    pub drain: Option<DrainView>,
    pub reconciliation: Reconciliation,
    /// Whether the venue shows less than the bot owns.
    pub has_deficit: bool,
    /// Which limit is exceeded, and by how much.
    pub limit_exceeded: Option<(&'static str, String)>,
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
            unknown_orders: u32::try_from(self.orders.live().filter(|o| o.state == State::Unknown).count())
                .unwrap_or(u32::MAX),
            foreign_orders: self.foreign_orders,
            spot_owned_base,
            future_owned_contracts,
            notional_quote,
            leverage,
            pnl_quote,
            cash_quote,
            fees_quote: self.orders.fees_quote(),
            dust_base,
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
        }
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
            // Without the figure: it moves with every price.
            ("limits", self.limit_exceeded(control, now).map(|(limit, _)| format!("{limit} is exceeded or too small"))),
            ("product", self.product_unavailable()),
            ("session", session_closed),
        ];
        restrictions.extend(reasons.into_iter().filter_map(|(source, why)| Some(closed(source, why?))));
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

    /// Name of the first limit that is exceeded, and the figures.
    fn limit_exceeded(&self, control: &Control, now: Now) -> Option<(&'static str, String)> {
        let exposure = self.exposure(now)?;
        let limits = &control.limits;
        for leg in [&exposure.spot, &exposure.future] {
            let notional = leg.notional(leg.owned, leg.mid?);
            if notional > limits.max_position_notional.0 {
                let (id, most) = (&leg.product.id, limits.max_position_notional);
                let figures = format!("{id} is {}, the limit is {most}", notional.round_dp(2));
                return Some(("maxPositionNotional", figures));
            }
        }
        let notional = exposure.future.notional(exposure.future.owned, exposure.future.mid?);
        if notional > limits.max_leverage.0 * exposure.futures_collateral_quote {
            return Some(("maxLeverage", format!("the futures notional is {}", notional.round_dp(2))));
        }
        let contract = exposure.future.notional(Decimal::ONE, exposure.future.mid?);
        for (name, limit) in [
            ("maxDeltaNotional", limits.max_delta_notional),
            ("maxLegImbalanceNotional", limits.max_leg_imbalance_notional),
        ] {
            if limit.0 < contract {
                let figures = format!("{name} is {limit}, less than one contract ({})", contract.round_dp(2));
                return Some((name, figures));
            }
        }
        None
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
