//! The bot's part of status: conditions, what it obeys, what it holds. Pure.

mod conditions;
mod drain;

use arbbot_crds::conditions::{ConditionType, set_condition};
use arbbot_crds::control::{Control, Duty, Restriction, effective};
use arbbot_crds::status::{
    AppliedPolicy, ArbBotStatus, BotStatus, CredentialsStatus, DrainPhase, EffectiveMode, IncidentStatus,
    KillSwitchStatus, LeaseStatus, LedgerStatus, LinkState, LinksStatus, PnlStatus, PositionStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use rust_decimal::Decimal;

use crate::books::BooksView;
use crate::control::lease::Standing;
use crate::exchange::{Link, SessionFacts};
use crate::execution::engine::View;
use crate::risk::gate::Contact;

/// Source of the restriction under which the program stops. It is no halt that anybody asked for.
pub const SHUTDOWN: &str = "shutdown";

/// What the control task knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ControlFacts {
    /// metadata.generation in force at the gate, and durable where it opened a latch.
    pub generation: Option<i64>,
    pub policies: Vec<AppliedPolicy>,
    /// Policies whose selector cannot be read; they are obeyed.
    pub unreadable_policies: Vec<String>,
    /// What of the ArbBot and of its policies cannot be read.
    pub unreadable: Vec<String>,
    pub incidents: Vec<IncidentStatus>,
    /// Ids of those whose ArbPolicy is gone: they are released on the bot.
    pub orphaned: Vec<String>,
    /// `spec.killSwitch.release`.
    pub release: String,
    /// The ledger did not take a release, so it is none yet.
    pub is_release_refused: bool,
    pub claim: Claim,
    pub standing: Option<Standing>,
}

/// The claim on account and product.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Claim {
    #[default]
    Pending,
    Granted,
    /// Another bot holds it.
    Refused,
}

/// Everything that status is made of.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub control: &'a ControlFacts,
    pub session: &'a SessionFacts,
    pub view: &'a View,
    pub books: &'a BooksView,
    pub in_force: &'a Control,
    pub contact: Contact,
    pub restrictions: &'a [Restriction],
    pub ledger: &'a LedgerStatus,
    pub pod_uid: &'a str,
    pub node: &'a str,
}

impl Facts<'_> {
    /// The control that outlives this process: what a bot that stops leaves in status.
    fn lasting(&self) -> Control {
        let lasting = self.restrictions.iter().filter(|restriction| restriction.source != SHUTDOWN);
        effective(&self.in_force.limits, lasting)
    }

    /// Lost contact as far as it is not this process's own end.
    fn contact(&self) -> Contact {
        let stopping = self.restrictions.iter().any(|restriction| restriction.source == SHUTDOWN);
        if stopping { Contact::Fresh } else { self.contact }
    }

    /// Whether what is left is being closed as a kill does.
    fn flattens(&self) -> bool {
        self.in_force.duty == Duty::Flatten
    }

    /// What the drain under way says.
    fn drain_message(&self) -> Option<(DrainPhase, String)> {
        let drain = self.view.drain.as_ref()?;
        let reopens = self.view.session_closed.flatten();
        Some((drain.phase, drain::message(drain, reopens, self.flattens())))
    }
}

/// Composes the bot's part of status. `conditions` are those of the last status and are updated.
#[must_use]
pub fn compose(facts: Facts<'_>, conditions: &mut Vec<Condition>, now: &Time) -> ArbBotStatus {
    for (type_, status, reason, message) in conditions::said(facts) {
        let generation = match type_ {
            ConditionType::ControlApplied => facts.control.generation,
            _ => facts.view.generation,
        };
        set_condition(conditions, type_, status, reason, &message, generation, now);
    }
    ArbBotStatus {
        conditions: conditions.clone(),
        bot: Some(bot_status(facts)),
        kill_switch: Some(KillSwitchStatus { incidents: facts.control.incidents.clone() }),
        credentials: Some(CredentialsStatus {
            active: facts.session.active,
            fingerprint: facts.session.fingerprint.clone(),
            verified_at: facts.session.verified_at.clone(),
            pending: facts.session.pending.clone(),
            last_error: facts.session.problem.as_ref().map(|(_, why)| why.clone()).unwrap_or_default(),
        }),
        ..ArbBotStatus::default()
    }
}

fn bot_status(facts: Facts<'_>) -> BotStatus {
    let Facts { control, session, view, books, ledger, pod_uid, node, .. } = facts;
    let up = |link| match view.links.iter().find(|(l, _)| *l == link) {
        Some((_, None)) => LinkState::Up,
        _ => LinkState::Down,
    };
    BotStatus {
        applied_generation: control.generation,
        applied_policies: control.policies.clone(),
        execution: session.execution,
        effective_mode: Some(under_contact(facts.lasting().mode(), facts.contact())),
        risk_level: Some(risk_level(facts)),
        guards: view.guards.shown.iter().map(|guard| guard.status.clone()).collect(),
        open_orders: Some(view.open_orders),
        position: Some(PositionStatus {
            future_contracts: view.future_owned_contracts.normalize().to_string(),
            spot_base: view.spot_owned_base.normalize().to_string(),
            notional_quote: money(view.notional_quote),
            leverage: format!("{:.4}", view.leverage.round_dp(4)),
            dust: if view.dust_base.is_zero() { String::new() } else { view.dust_base.normalize().to_string() },
        }),
        pnl: view
            .pnl_quote
            .map(|pnl| PnlStatus { total_quote: money(pnl + books.funding_quote), fees_quote: money(view.fees_quote) }),
        account: session.account.clone(),
        links: Some(LinksStatus {
            endpoint: session.endpoint.clone(),
            rest: up(Link::Rest),
            market_web_socket: up(Link::MarketWebSocket),
            user_web_socket: up(Link::UserWebSocket),
        }),
        drain: view.drain.as_ref().map(drain::status),
        lease: match &control.standing {
            Some(Standing::Trader { epoch }) => Some(LeaseStatus { holder: pod_uid.to_owned(), epoch: *epoch }),
            Some(Standing::Waiting { last, .. }) => Some(last.clone()),
            None => None,
        },
        ledger: Some(ledger.clone()),
        owned_since: view.owned_since.map(Time),
        pod_uid: Some(pod_uid.to_owned()),
        node: Some(node.to_owned()),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
    }
}

/// How much the bot may still do, as docs/guards.md defines it.
pub(crate) fn risk_level(facts: Facts<'_>) -> u8 {
    let mode = under_contact(facts.lasting().mode(), facts.contact());
    match mode {
        _ if mode == EffectiveMode::Flatten || !facts.control.incidents.is_empty() => 4,
        EffectiveMode::Halted => 3,
        EffectiveMode::ReduceOnly | EffectiveMode::Drain => 2,
        _ if !facts.view.guards.shown.is_empty() => 1,
        _ => 0,
    }
}

/// The mode with what lost contact takes from it.
fn under_contact(mode: EffectiveMode, contact: Contact) -> EffectiveMode {
    match contact {
        Contact::Fresh => mode,
        Contact::Late | Contact::Stale => mode.max(EffectiveMode::ReduceOnly),
        Contact::Lost => mode.max(EffectiveMode::Halted),
    }
}

fn money(value: Decimal) -> String {
    format!("{:.2}", value.round_dp(2))
}
