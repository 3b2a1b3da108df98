//! What a change of a spec loosens (SAFETY §9), and who made it. Pure.
//!
//! A change loosens a field when afterwards the bot may do something that it could not do before, must do less than
//! before, or does it later; or when it lets other code or another account act. Tightening and everything else is not
//! reported.

use std::fmt::Display;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

use crate::arbbot::{
    ArbBot, ArbBotSpec, Coinbase, Collateral, ControlTimeouts, Credentials, DeletionPolicy, FundingCarry, KillSwitch,
    Mode, OnDrainTimeout, Orders, Risk, SecretRef,
};
use crate::arbpolicy::{ArbPolicy, ArbPolicySpec, PolicyKillSwitch};
use crate::control::{Duty, Entry, policy_restriction};
use crate::guards::{Guard, GuardRelease};
use crate::limits::{LimitCeilings, RiskLimits};
use crate::status::EffectiveStatus;

/// One field that a change has loosened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loosening {
    /// Path of the field, for example `spec.risk.limits.maxOrderNotional`.
    pub field: String,
    /// Its value before; `none` where it was absent.
    pub old: String,
    /// Its value now.
    pub new: String,
}

/// Collects the loosenings of one object.
#[derive(Default)]
struct Found(Vec<Loosening>);

impl Found {
    fn add(&mut self, field: &str, old: impl Display, new: impl Display) {
        self.0.push(Loosening { field: field.to_owned(), old: old.to_string(), new: new.to_string() });
    }

    /// A field where more is looser.
    fn raised<T: Ord + Display>(&mut self, field: &str, old: T, new: T) {
        if new > old {
            self.add(field, old, new);
        }
    }

    /// A field where every change lets something else act.
    fn changed<T: PartialEq>(&mut self, field: &str, old: &T, new: &T, show: impl Fn(&T) -> String) {
        if old != new {
            self.add(field, show(old), show(new));
        }
    }

    fn mode(&mut self, old: Mode, new: Mode) {
        if Entry::from(new) < Entry::from(old) || Duty::from(new) < Duty::from(old) {
            self.add("spec.mode", old, new);
        }
    }

    fn engaged(&mut self, old: bool, new: bool) {
        if old && !new {
            self.add("spec.killSwitch.engaged", old, new);
        }
    }

    fn release(&mut self, old: &str, new: &str) {
        if old != new && !new.is_empty() {
            self.add("spec.killSwitch.release", or_none(old), new);
        }
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

/// What a change of an ArbBot loosens. `policies` are those of its namespace: a label that leaves a policy's selector
/// loosens, too.
#[must_use]
pub fn loosenings_of_bot(old: &ArbBot, new: &ArbBot, policies: &[&ArbPolicy]) -> Vec<Loosening> {
    let mut found = Found::default();
    // Destructured without `..`: a new field does not compile until it is decided here whether it can be loosened.
    let ArbBotSpec {
        mode,
        kill_switch,
        risk,
        execution: _, // immutable
        paper: _,     // no money
        venue,
        strategy,
        credentials,
        image,
        log_level: _,
        control_timeouts,
        ledger: _, // immutable
        resources: _,
        pod_template,
        drain_timeout,
        on_drain_timeout,
        deletion_policy,
    } = &new.spec;
    let before = &old.spec;
    found.mode(before.mode, *mode);
    bot_kill_switch(&mut found, &before.kill_switch, kill_switch);
    of_risk(&mut found, &before.risk, risk);
    coinbase(&mut found, &before.venue.coinbase, &venue.coinbase);
    funding_carry(&mut found, &before.strategy.funding_carry, &strategy.funding_carry);
    keys(&mut found, &before.credentials, credentials);
    let image_of = |image: &Option<String>| image.clone().unwrap_or_else(|| "the operator's release".to_owned());
    found.changed("spec.image", &before.image, image, image_of);
    timeouts(&mut found, &before.control_timeouts, control_timeouts);
    // Values may be secret: only the names are shown.
    found.changed("spec.podTemplate.env", &before.pod_template.env, &pod_template.env, |env| {
        format!("[{}]", env.iter().map(|var| var.name.as_str()).collect::<Vec<_>>().join(", "))
    });
    found.raised("spec.drainTimeout", before.drain_timeout, *drain_timeout);
    if before.on_drain_timeout == OnDrainTimeout::Flatten && *on_drain_timeout == OnDrainTimeout::Hold {
        found.add("spec.onDrainTimeout", before.on_drain_timeout, on_drain_timeout);
    }
    if closes(*deletion_policy) < closes(before.deletion_policy) {
        found.add("spec.deletionPolicy", before.deletion_policy, deletion_policy);
    }
    for policy in policies.iter().filter(|policy| policy_restriction(policy).restricts()) {
        if policy.selects(old).unwrap_or(true) && !policy.selects(new).unwrap_or(true) {
            let name = policy.metadata.name.as_deref().unwrap_or_default();
            found.add("metadata.labels", format!("selected by ArbPolicy/{name}"), "not selected");
        }
    }
    found.0
}

/// How surely a deletion closes the position.
const fn closes(policy: DeletionPolicy) -> u8 {
    match policy {
        DeletionPolicy::Orphan => 0,
        DeletionPolicy::Drain => 1,
        DeletionPolicy::Flatten => 2,
    }
}

fn bot_kill_switch(found: &mut Found, old: &KillSwitch, new: &KillSwitch) {
    let KillSwitch { engaged, reason: _, action, release, slippage_bps, deadline } = new;
    found.engaged(old.engaged, *engaged);
    found.release(&old.release, release);
    if *action < old.action {
        found.add("spec.killSwitch.action", old.action, action);
    }
    found.raised("spec.killSwitch.slippageBps", old.slippage_bps, *slippage_bps);
    found.raised("spec.killSwitch.deadline", old.deadline, *deadline);
}

fn of_risk(found: &mut Found, old: &Risk, new: &Risk) {
    let Risk { capital, limits: new_limits, guards } = new;
    limits(found, &old.limits, new_limits);
    // Percentages of a loss are of it.
    found.raised("spec.risk.capital", old.capital, *capital);
    let now = guards.in_force().guards;
    for was in old.guards.in_force().guards {
        let is = now.iter().find(|guard| guard.name == was.name);
        if is.is_none_or(|is| is_weaker(is, &was)) {
            let is = is.map_or_else(|| "none".to_owned(), Guard::summary);
            found.add("spec.risk.guards", was.summary(), is);
        }
    }
}

/// Whether a guard trips later than it did, does less, or ends more easily. One that never trips cannot be weakened.
fn is_weaker(is: &Guard, was: &Guard) -> bool {
    // Warnings restrict nothing.
    let Guard { name: _, metric, warn_at: _, trip_at, action, confirmations, release: _ } = is;
    let Some(tripped_at) = was.trip_at else { return false };
    let Some(trips_at) = trip_at else { return true };
    let later = *trips_at != tripped_at && was.is_beyond(trips_at.0, tripped_at.0);
    let ends = was.release() == GuardRelease::Manual && is.release() == GuardRelease::Auto;
    *metric != was.metric || later || action.rank() < was.action.rank() || *confirmations > was.confirmations || ends
}

fn limits(found: &mut Found, old: &RiskLimits, new: &RiskLimits) {
    let RiskLimits {
        max_position_notional,
        max_order_notional,
        max_leverage,
        max_delta_notional,
        max_leg_imbalance_notional,
        max_open_orders,
        max_orders_per_minute,
        max_slippage_bps,
    } = new;
    found.raised("spec.risk.limits.maxPositionNotional", old.max_position_notional, *max_position_notional);
    found.raised("spec.risk.limits.maxOrderNotional", old.max_order_notional, *max_order_notional);
    found.raised("spec.risk.limits.maxLeverage", old.max_leverage, *max_leverage);
    found.raised("spec.risk.limits.maxDeltaNotional", old.max_delta_notional, *max_delta_notional);
    let (was, is) = (old.max_leg_imbalance_notional, *max_leg_imbalance_notional);
    found.raised("spec.risk.limits.maxLegImbalanceNotional", was, is);
    found.raised("spec.risk.limits.maxOpenOrders", old.max_open_orders, *max_open_orders);
    found.raised("spec.risk.limits.maxOrdersPerMinute", old.max_orders_per_minute, *max_orders_per_minute);
    found.raised("spec.risk.limits.maxSlippageBps", old.max_slippage_bps, *max_slippage_bps);
}

/// What of the effective control is looser than it was at an earlier report, whoever has changed it.
#[must_use]
pub fn loosenings_of_effective(old: &EffectiveStatus, new: &EffectiveStatus) -> Vec<Loosening> {
    let mut found = Found::default();
    found.mode(old.mode, new.mode);
    limits(&mut found, &old.limits, &new.limits);
    for loosening in &mut found.0 {
        let field = loosening.field.trim_start_matches("spec.").trim_start_matches("risk.");
        loosening.field = format!("status.effective.{field}");
    }
    found.0
}

fn coinbase(found: &mut Found, old: &Coinbase, new: &Coinbase) {
    // The share of the rate limit bounds no risk; the portfolio is immutable.
    let Coinbase { portfolio: _, endpoints, ca_bundle, requests_per_second: _ } = new;
    found.changed("spec.venue.coinbase.endpoints", &old.endpoints, endpoints, |endpoints| {
        let urls = endpoints.iter().flat_map(|e| [&e.rest_url, &e.market_web_socket_url, &e.user_web_socket_url]);
        urls.map(String::as_str).collect::<Vec<_>>().join(" ")
    });
    found.changed("spec.venue.coinbase.caBundle", &old.ca_bundle, ca_bundle, |bundle| match bundle {
        Some(bundle) => format!("{}/{}", bundle.config_map_key_ref.name, bundle.config_map_key_ref.key),
        None => "public authorities".to_owned(),
    });
}

fn funding_carry(found: &mut Found, old: &FundingCarry, new: &FundingCarry) {
    // Target and economics stay inside the limits, whatever they are; products are immutable.
    let FundingCarry { spot_product: _, future_product: _, target_notional: _, entry: _, exit: _, collateral, orders } =
        new;
    let Collateral { min_ratio } = collateral;
    if *min_ratio < old.collateral.min_ratio {
        found.add("spec.strategy.fundingCarry.collateral.minRatio", old.collateral.min_ratio, min_ratio);
    }
    let Orders { leg_timeout, max_rest } = orders;
    found.raised("spec.strategy.fundingCarry.orders.legTimeout", old.orders.leg_timeout, *leg_timeout);
    found.raised("spec.strategy.fundingCarry.orders.maxRest", old.orders.max_rest, *max_rest);
}

fn keys(found: &mut Found, old: &Credentials, new: &Credentials) {
    // Which of two keys of one portfolio signs, and when a person is reminded, bounds no risk.
    let Credentials { secret_ref, backup_secret_ref, active: _, failover: _, max_age: _ } = new;
    let name = |secret: &Option<SecretRef>| secret.as_ref().map_or("none", |secret| &secret.name).to_owned();
    found.changed("spec.credentials.backupSecretRef", &old.backup_secret_ref, backup_secret_ref, name);
    found.changed("spec.credentials.secretRef", &old.secret_ref, secret_ref, name);
}

fn timeouts(found: &mut Found, old: &ControlTimeouts, new: &ControlTimeouts) {
    let ControlTimeouts { lease, stale, lost } = new;
    found.raised("spec.controlTimeouts.lease", old.lease, *lease);
    found.raised("spec.controlTimeouts.stale", old.stale, *stale);
    found.raised("spec.controlTimeouts.lost", old.lost, *lost);
}

/// What a change of an ArbPolicy loosens on the bots that it selects.
#[must_use]
pub fn loosenings_of_policy(old: &ArbPolicy, new: &ArbPolicy) -> Vec<Loosening> {
    let mut found = Found::default();
    let ArbPolicySpec { selector, mode, kill_switch, risk } = &new.spec;
    let before = &old.spec;
    if before.selector != *selector && selector.is_some() && policy_restriction(old).restricts() {
        let show = |selector: &Option<_>| match selector {
            Some(selector) => serde_json::to_string(selector).unwrap_or_default(),
            None => "every bot".to_owned(),
        };
        found.add("spec.selector", show(&before.selector), show(selector));
    }
    found.mode(before.mode, *mode);
    let PolicyKillSwitch { engaged, reason: _, action, release } = kill_switch;
    found.engaged(before.kill_switch.engaged, *engaged);
    found.release(&before.kill_switch.release, release);
    if *action < before.kill_switch.action {
        found.add("spec.killSwitch.action", before.kill_switch.action, action);
    }
    ceilings(&mut found, &before.risk.limits, &risk.limits);
    found.0
}

/// What the deletion of an ArbPolicy loosens. Latches that it has opened outlive it.
#[must_use]
pub fn loosenings_of_deleted_policy(policy: &ArbPolicy) -> Vec<Loosening> {
    let restriction = policy_restriction(policy);
    let mut found = Found::default();
    if restriction.restricts() {
        found.add("metadata.deletionTimestamp", format!("in force ({})", restriction.why), "deleted");
    }
    found.0
}

fn ceilings(found: &mut Found, old: &LimitCeilings, new: &LimitCeilings) {
    let LimitCeilings {
        max_position_notional,
        max_order_notional,
        max_leverage,
        max_delta_notional,
        max_leg_imbalance_notional,
        max_open_orders,
        max_orders_per_minute,
        max_slippage_bps,
    } = new;
    ceiling(found, "maxPositionNotional", old.max_position_notional, *max_position_notional);
    ceiling(found, "maxOrderNotional", old.max_order_notional, *max_order_notional);
    ceiling(found, "maxLeverage", old.max_leverage, *max_leverage);
    ceiling(found, "maxDeltaNotional", old.max_delta_notional, *max_delta_notional);
    ceiling(found, "maxLegImbalanceNotional", old.max_leg_imbalance_notional, *max_leg_imbalance_notional);
    ceiling(found, "maxOpenOrders", old.max_open_orders, *max_open_orders);
    ceiling(found, "maxOrdersPerMinute", old.max_orders_per_minute, *max_orders_per_minute);
    ceiling(found, "maxSlippageBps", old.max_slippage_bps, *max_slippage_bps);
}

fn ceiling<T: Ord + Display>(found: &mut Found, limit: &str, old: Option<T>, new: Option<T>) {
    let Some(old) = old else { return };
    let field = format!("spec.risk.limits.{limit}");
    match new {
        Some(new) => found.raised(&field, old, new),
        None => found.add(&field, old, "none"),
    }
}

/// The field manager that wrote the field: the owner of its path, the latest where several own it. A removed field has
/// no owner; then it is the manager of the latest change of the object.
#[must_use]
pub fn manager_of<'a>(managed_fields: &'a [ManagedFieldsEntry], field: &str) -> Option<&'a str> {
    let of_spec = || managed_fields.iter().filter(|entry| entry.subresource.as_deref().unwrap_or_default().is_empty());
    let owners = of_spec().filter(|entry| owns(entry, field));
    let owner = owners.max_by_key(|entry| entry.time.as_ref().map(|time| time.0));
    let latest = || of_spec().max_by_key(|entry| entry.time.as_ref().map(|time| time.0));
    owner.or_else(latest)?.manager.as_deref()
}

fn owns(entry: &ManagedFieldsEntry, field: &str) -> bool {
    let mut node = match &entry.fields_v1 {
        Some(fields) => &fields.0,
        None => return false,
    };
    for part in field.split('.') {
        match node.get(format!("f:{part}")) {
            Some(next) => node = next,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests;
