//! The effective control: what spec, policies, open latches and loss of contact together allow a bot to do.
//!
//! Every source is a [`Restriction`]; they are joined by maximum, limits by minimum. The result is a lattice: the order
//! of the sources does not matter, the same source twice changes nothing, and another source never loosens anything.
//! The bot obeys this function and the operator reports it.

use serde::{Deserialize, Serialize};
use strum::Display;

use crate::arbbot::{ArbBot, DeletionPolicy, KillAction, Mode};
use crate::arbpolicy::ArbPolicy;
use crate::guards::GuardAction;
use crate::incident::IncidentId;
use crate::limits::{LimitCeilings, RiskLimits};
use crate::status::EffectiveMode;

/// Which orders may be sent, from the least to the most restrictive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Display, Serialize, Deserialize)]
pub enum Entry {
    /// Every class, within the limits.
    #[default]
    Active,
    /// Nothing raises a leg.
    ReduceOnly,
    /// No order but a trim; resting orders are cancelled.
    Halted,
}

impl From<Mode> for Entry {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Active => Self::Active,
            Mode::ReduceOnly | Mode::Stopped => Self::ReduceOnly,
            Mode::Halted => Self::Halted,
        }
    }
}

/// What the bot must do by itself, from the least to the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Display, Serialize, Deserialize)]
pub enum Duty {
    /// Nothing: the position may stay.
    #[default]
    Hold,
    /// Close the position maker-first. Under a halted entry it waits.
    Drain,
    /// Close the position as a kill does, under a halted entry too.
    Flatten,
}

impl From<Mode> for Duty {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Active | Mode::ReduceOnly | Mode::Halted => Self::Hold,
            Mode::Stopped => Self::Drain,
        }
    }
}

impl From<KillAction> for Duty {
    fn from(action: KillAction) -> Self {
        match action {
            KillAction::CancelOrders => Self::Hold,
            KillAction::Flatten => Self::Flatten,
        }
    }
}

/// What one source demands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restriction {
    /// Who: `spec.mode`, `spec.killSwitch`, `ArbPolicy/<name>`, `incident/<id>`, `guard/<name>`, `contact`, …
    pub source: String,
    /// Which orders it allows.
    pub entry: Entry,
    /// What it demands to be done.
    pub duty: Duty,
    /// Ceilings on the limits.
    pub ceilings: LimitCeilings,
    /// Why, for people.
    pub why: String,
}

impl Restriction {
    /// A restriction of the entry alone.
    #[must_use]
    pub fn entry(source: impl Into<String>, entry: Entry, why: impl Into<String>) -> Self {
        Self { source: source.into(), entry, duty: Duty::Hold, ceilings: LimitCeilings::default(), why: why.into() }
    }

    /// A mode of a spec or a policy.
    #[must_use]
    pub fn mode(source: impl Into<String>, mode: Mode, why: impl Into<String>) -> Self {
        Self { duty: mode.into(), ..Self::entry(source, mode.into(), why) }
    }

    /// A kill: entry halted, and the duty that its action demands.
    #[must_use]
    pub fn kill(source: impl Into<String>, action: KillAction, why: impl Into<String>) -> Self {
        Self { duty: action.into(), ..Self::entry(source, Entry::Halted, why) }
    }

    /// Whether it demands anything at all.
    #[must_use]
    pub fn restricts(&self) -> bool {
        self.entry > Entry::Active || self.duty > Duty::Hold || self.ceilings != LimitCeilings::default()
    }
}

/// The effective control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// Most restrictive entry of all sources.
    pub entry: Entry,
    /// Strongest duty of all sources.
    pub duty: Duty,
    /// Smallest of each limit.
    pub limits: RiskLimits,
}

impl Control {
    /// The control before any source is known: nothing may raise a leg.
    #[must_use]
    pub fn unknown() -> Self {
        Self { entry: Entry::ReduceOnly, duty: Duty::Hold, limits: RiskLimits::default() }
    }

    /// The control as people read it.
    #[must_use]
    pub fn mode(&self) -> EffectiveMode {
        match (self.entry, self.duty) {
            (_, Duty::Flatten) => EffectiveMode::Flatten,
            (Entry::Halted, _) => EffectiveMode::Halted,
            (_, Duty::Drain) => EffectiveMode::Drain,
            (Entry::Active, Duty::Hold) => EffectiveMode::Active,
            (Entry::ReduceOnly, Duty::Hold) => EffectiveMode::ReduceOnly,
        }
    }
}

/// Joins a bot's own limits with every restriction on it.
pub fn effective<'a>(limits: &RiskLimits, restrictions: impl IntoIterator<Item = &'a Restriction>) -> Control {
    let start = Control { entry: Entry::Active, duty: Duty::Hold, limits: limits.clone() };
    restrictions.into_iter().fold(start, |control, restriction| Control {
        entry: control.entry.max(restriction.entry),
        duty: control.duty.max(restriction.duty),
        limits: control.limits.under(&restriction.ceilings),
    })
}

/// What the bot's own spec and a deletion demand.
#[must_use]
pub fn spec_restrictions(bot: &ArbBot) -> Vec<Restriction> {
    let spec = &bot.spec;
    let kill = &spec.kill_switch;
    let deleted = bot.metadata.deletion_timestamp.is_some();
    [
        (spec.mode != Mode::Active)
            .then(|| Restriction::mode("spec.mode", spec.mode, format!("spec.mode is {}", spec.mode))),
        kill.engaged.then(|| Restriction::kill("spec.killSwitch", kill.action, kill.reason.clone())),
        (deleted && spec.deletion_policy == DeletionPolicy::Drain)
            .then(|| Restriction::mode("deletion", Mode::Stopped, "deleted with deletionPolicy Drain")),
        (deleted && spec.deletion_policy == DeletionPolicy::Flatten)
            .then(|| Restriction::kill("deletion", KillAction::Flatten, "deleted with deletionPolicy Flatten")),
        (deleted && spec.deletion_policy == DeletionPolicy::Orphan)
            .then(|| Restriction::kill("deletion", KillAction::CancelOrders, "deleted with deletionPolicy Orphan")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Beginning of the source of what a guard demands; its name follows.
pub const GUARD_SOURCE: &str = "guard/";

/// What a guard that has tripped demands; None where its action takes nothing from the bot.
#[must_use]
pub fn guard_restriction(guard: &str, action: GuardAction, why: impl Into<String>) -> Option<Restriction> {
    let source = format!("{GUARD_SOURCE}{guard}");
    match action {
        GuardAction::Warn | GuardAction::Restart => None,
        GuardAction::ReduceOnly => Some(Restriction::entry(source, Entry::ReduceOnly, why)),
        GuardAction::Halt => Some(Restriction::entry(source, Entry::Halted, why)),
        GuardAction::Kill => Some(Restriction::kill(source, KillAction::Flatten, why)),
    }
}

/// What a policy demands of a bot that it selects.
#[must_use]
pub fn policy_restriction(policy: &ArbPolicy) -> Restriction {
    let spec = &policy.spec;
    let kill = &spec.kill_switch;
    let name = policy_source(policy);
    let why = match (kill.engaged, spec.mode) {
        (true, _) => format!("kill switch engaged: {}", kill.reason),
        (false, Mode::Active) => "ceilings on the limits".to_owned(),
        (false, mode) => format!("mode is {mode}"),
    };
    Restriction {
        source: name,
        entry: if kill.engaged { Entry::Halted } else { spec.mode.into() },
        duty: Duty::from(spec.mode).max(if kill.engaged { kill.action.into() } else { Duty::Hold }),
        ceilings: spec.risk.limits.clone(),
        why,
    }
}

/// The policies that apply to a bot. One whose selector cannot be read applies: it must not be ignored.
pub fn matching<'a>(bot: &ArbBot, policies: impl IntoIterator<Item = &'a ArbPolicy>) -> Vec<&'a ArbPolicy> {
    let mut matching: Vec<_> = policies.into_iter().filter(|policy| policy.selects(bot).unwrap_or(true)).collect();
    matching.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    matching
}

/// A kill switch that is engaged now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engagement {
    /// Id of the incident that it opens.
    pub id: IncidentId,
    /// `ArbBot/<name>` or `ArbPolicy/<name>`.
    pub source: String,
    /// What it does.
    pub action: KillAction,
    /// Why.
    pub reason: String,
    /// What the source releases: an earlier incident of its own.
    pub release: Option<IncidentId>,
}

/// Every kill switch that is engaged on a bot now, its own first. `policies` are those that match.
#[must_use]
pub fn engagements(bot: &ArbBot, policies: &[&ArbPolicy]) -> Vec<Engagement> {
    let id = |uid: &Option<String>, generation: Option<i64>| {
        IncidentId::new(uid.as_deref().unwrap_or_default(), generation.unwrap_or_default())
    };
    let own = &bot.spec.kill_switch;
    let own = own.engaged.then(|| Engagement {
        id: id(&bot.metadata.uid, bot.metadata.generation),
        source: bot_source(bot),
        action: own.action,
        reason: own.reason.clone(),
        release: own.release.parse().ok(),
    });
    let of_policies = policies.iter().filter(|policy| policy.spec.kill_switch.engaged).map(|policy| Engagement {
        id: id(&policy.metadata.uid, policy.metadata.generation),
        source: policy_source(policy),
        action: policy.spec.kill_switch.action,
        reason: policy.spec.kill_switch.reason.clone(),
        release: policy.spec.kill_switch.release.parse().ok(),
    });
    own.into_iter().chain(of_policies).collect()
}

/// Whether a human has released the latch `id`: the source is not engaged any more, and its `release` names the
/// incident (SAFETY §3). Where the source is a policy that is gone, the bot's own `release` counts.
/// `policies` are all of the namespace, matching or not.
#[must_use]
pub fn is_released(id: &IncidentId, bot: &ArbBot, policies: &[&ArbPolicy]) -> bool {
    let is_source = |uid: &Option<String>| IncidentId::new(uid.as_deref().unwrap_or_default(), 0).source == id.source;
    // A release must name the past: an id of the present or a future generation would free the next incident too.
    let frees = |release: &str, generation: Option<i64>| {
        release
            .parse::<IncidentId>()
            .is_ok_and(|release| release.releases(id) && generation.is_some_and(|now| release.generation < now))
    };
    if is_source(&bot.metadata.uid) {
        let kill = &bot.spec.kill_switch;
        return !kill.engaged && frees(&kill.release, bot.metadata.generation);
    }
    match policies.iter().find(|policy| is_source(&policy.metadata.uid)) {
        Some(policy) => {
            let kill = &policy.spec.kill_switch;
            !kill.engaged && frees(&kill.release, policy.metadata.generation)
        }
        None => bot.spec.kill_switch.release.parse::<IncidentId>().is_ok_and(|release| release.releases(id)),
    }
}

fn bot_source(bot: &ArbBot) -> String {
    format!("ArbBot/{}", bot.metadata.name.as_deref().unwrap_or_default())
}

fn policy_source(policy: &ArbPolicy) -> String {
    format!("ArbPolicy/{}", policy.metadata.name.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests;
