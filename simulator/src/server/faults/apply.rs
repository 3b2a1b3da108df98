//! Faults that change the exchange itself are put into effect, and taken back when they end.

use std::sync::atomic::Ordering;

use jiff::{SignedDuration, Timestamp};

use super::kind::FaultKind;
use super::request::FaultRequest;
use super::{Fault, Faults};
use crate::exchange::behaviour::Behaviour;
use crate::exchange::{Exchange, Now};
use crate::server::{App, State};

impl App {
    /// Switches a fault on.
    ///
    /// # Errors
    /// Names what does not exist.
    pub fn inject(&self, state: &mut State, request: &FaultRequest, now: Now) -> Result<(), String> {
        let scope = &request.scope;
        let markets = markets(&state.exchange, request)?;
        let until = scope.duration().map(|lasting| now.time.checked_add(lasting).unwrap_or(Timestamp::MAX));
        match &request.kind {
            FaultKind::SessionClosed {} => {
                if markets.iter().any(|m| !state.exchange.markets[*m].is_closed(now.time)) {
                    state.faults.count(&request.kind);
                }
                markets.iter().for_each(|m| state.exchange.close_session(*m, until));
            }
            FaultKind::PriceGap { bps } => {
                let spot = markets.iter().filter(|m| scope.product_id.is_some() || !is_future(&state.exchange, **m));
                for market in spot.copied().collect::<Vec<_>>() {
                    state.exchange.jump_index(market, *bps);
                }
                state.faults.count(&request.kind);
            }
            FaultKind::FundingSpike { funding_rate } => {
                for market in markets {
                    if let Some(funding) = state.exchange.markets[market].funding.as_mut() {
                        funding.spike = Some(*funding_rate);
                    }
                }
                state.faults.count(&request.kind);
            }
            FaultKind::WebsocketDisconnect {} => cut(state, request),
            FaultKind::PortfolioChanged { to } if !state.exchange.portfolios.contains_key(to) => {
                return Err(format!("there is no portfolio {to}"));
            }
            // From the first moment on clients see the time.
            FaultKind::ClockSkew { .. } => state.faults.count(&request.kind),
            _ => {}
        }
        if matches!(request.kind, FaultKind::Maintenance {}) {
            cut(state, request);
        }
        if !request.kind.is_instant() && request.kind != (FaultKind::SessionClosed {}) {
            state.faults.add(Fault {
                kind: request.kind.clone(),
                portfolio: scope.portfolio,
                key: scope.key.clone(),
                product_id: scope.product_id.clone(),
                endpoint: scope.endpoint.clone(),
                channel: scope.channel.clone(),
                rate: scope.rate,
                until,
                remaining: scope.count,
            })?;
        }
        self.apply_faults(state, now);
        Ok(())
    }

    /// Ends every fault.
    pub fn clear_faults(&self, state: &mut State, now: Now) {
        state.faults.clear();
        for index in 0..state.exchange.markets.len() {
            state.exchange.close_session(index, None);
        }
        self.apply_faults(state, now);
    }

    /// Brings the exchange in line with the faults that are on; called at every step of the markets.
    pub fn apply_faults(&self, state: &mut State, now: Now) {
        let State { faults, exchange, .. } = state;
        let active = faults.active(now.time);
        exchange.behaviour = behaviour(exchange, active);
        let skew = |f: &Fault| if let FaultKind::ClockSkew { milliseconds } = f.kind { milliseconds } else { 0 };
        self.clock.set_skew(active.iter().map(skew).sum());
        self.web_socket_faults.store(!active.is_empty(), Ordering::Relaxed);
        state.show_books(now);
    }
}

fn behaviour(exchange: &Exchange, faults: &[Fault]) -> Behaviour {
    let mut behaviour = Behaviour::default();
    for fault in faults {
        match fault.kind {
            FaultKind::RefuseDuplicates {} => behaviour.refuse_duplicates = true,
            FaultKind::RefuseGtd {} => {
                let market = fault.product_id.as_deref().and_then(|id| exchange.market_index(id));
                behaviour.refuse_gtd.push(market);
            }
            FaultKind::ClosePositionIgnoresSize {} => behaviour.close_position_ignores_size = true,
            FaultKind::CloseCancelsOrders {} => behaviour.close_cancels_orders = true,
            FaultKind::LiquidationBufferAsFraction {} => behaviour.liquidation_buffer_as_fraction = true,
            FaultKind::PartialFills { percent } => behaviour.partial_fill_percent = Some(percent),
            FaultKind::SlowCancels { milliseconds } => {
                behaviour.cancel_delay = Some(SignedDuration::from_millis(i64::from(milliseconds)));
            }
            FaultKind::SlowEdits { milliseconds } => {
                behaviour.edit_delay = Some(SignedDuration::from_millis(i64::from(milliseconds)));
            }
            _ => {}
        }
    }
    behaviour
}

/// Markets that the fault is about: the named one, or all that it can be about.
fn markets(exchange: &Exchange, request: &FaultRequest) -> Result<Vec<usize>, String> {
    let futures_only = matches!(request.kind, FaultKind::SessionClosed {} | FaultKind::FundingSpike { .. });
    let fits = |market: &usize| !futures_only || is_future(exchange, *market);
    match &request.scope.product_id {
        None => Ok((0..exchange.markets.len()).filter(fits).collect()),
        Some(id) => {
            let market = exchange.market_index(id).ok_or_else(|| format!("there is no product {id}"))?;
            if fits(&market) { Ok(vec![market]) } else { Err(format!("{id} is not a futures product")) }
        }
    }
}

fn is_future(exchange: &Exchange, market: usize) -> bool {
    exchange.markets[market].product.is_future()
}

/// Cuts open WebSockets, oldest first.
fn cut(state: &mut State, request: &FaultRequest) {
    let wanted = |portfolio| request.scope.portfolio.is_none() || request.scope.portfolio == portfolio;
    let peers = state.hub.peers.values().filter(|peer| wanted(peer.portfolio));
    let count = request.scope.count.map_or(usize::MAX, |count| count as usize);
    let cut = peers.take(count).map(|peer| peer.cut.now("a fault")).count();
    if cut > 0 {
        state.faults.count(&request.kind);
    }
}

impl Faults {
    /// Whether new WebSockets are refused.
    pub fn refuse_web_sockets(&mut self, now: Timestamp) -> bool {
        let fits = |f: &Fault| matches!(f.kind, FaultKind::WebsocketRefused {} | FaultKind::Maintenance {});
        self.strike(now, fits).is_some()
    }
}
