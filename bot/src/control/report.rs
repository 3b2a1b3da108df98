//! The bot's part of status: conditions, what it obeys, what it holds. Pure.

mod drain;

use arbbot_crds::conditions::{ConditionStatus, ConditionType, Reason, set_condition};
use arbbot_crds::control::{Control, Duty, Entry, Restriction, effective};
use arbbot_crds::incident::IncidentId;
use arbbot_crds::status::{
    AppliedPolicy, ArbBotStatus, BotStatus, CredentialsStatus, DrainPhase, EffectiveMode, IncidentStatus,
    KillSwitchStatus, LeaseStatus, LedgerStatus, LinkState, LinksStatus, PnlStatus, PositionStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use rust_decimal::Decimal;

use crate::control::lease::Standing;
use crate::exchange::{Link, SessionFacts};
use crate::execution::engine::NOT_YET_CONNECTED;
use crate::execution::engine::{DRAIN_TIMEOUT, Reconciliation, View};
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
    /// `spec.killSwitch.release`.
    pub release: String,
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

/// One condition before it is set.
type Said = (ConditionType, ConditionStatus, Reason, String);

/// Composes the bot's part of status. `conditions` are those of the last status and are updated.
#[must_use]
pub fn compose(facts: Facts<'_>, conditions: &mut Vec<Condition>, now: &Time) -> ArbBotStatus {
    for (type_, status, reason, message) in said(facts) {
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
    let Facts { control, session, view, ledger, pod_uid, node, .. } = facts;
    let up = |link| match view.links.iter().find(|(l, _)| *l == link) {
        Some((_, None)) => LinkState::Up,
        _ => LinkState::Down,
    };
    BotStatus {
        applied_generation: control.generation,
        applied_policies: control.policies.clone(),
        effective_mode: Some(under_contact(facts.lasting().mode(), facts.contact())),
        open_orders: Some(view.open_orders),
        position: Some(PositionStatus {
            future_contracts: view.future_owned_contracts.normalize().to_string(),
            spot_base: view.spot_owned_base.normalize().to_string(),
            notional_quote: money(view.notional_quote),
            leverage: format!("{:.4}", view.leverage.round_dp(4)),
            dust: if view.dust_base.is_zero() { String::new() } else { view.dust_base.normalize().to_string() },
        }),
        pnl: view.pnl_quote.map(|pnl| PnlStatus { total_quote: money(pnl), fees_quote: money(view.fees_quote) }),
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
            _ => None,
        },
        ledger: Some(ledger.clone()),
        owned_since: view.owned_since.map(Time),
        pod_uid: Some(pod_uid.to_owned()),
        node: Some(node.to_owned()),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
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

fn said(facts: Facts<'_>) -> Vec<Said> {
    vec![
        control_applied(facts),
        trading(facts),
        halted(facts),
        flat(facts),
        within_limits(facts),
        credentials(facts),
        connected(facts),
        reconciled(facts),
    ]
}

fn say(type_: ConditionType, status: impl Into<ConditionStatus>, reason: Reason, message: impl Into<String>) -> Said {
    (type_, status.into(), reason, message.into())
}

fn control_applied(facts: Facts<'_>) -> Said {
    let type_ = ConditionType::ControlApplied;
    let unreadable = &facts.control.unreadable_policies;
    if facts.control.generation.is_none() {
        say(type_, false, Reason::Starting, "the bot has not yet read its ArbBot and every ArbPolicy")
    } else if let Some(Standing::Waiting { why }) = &facts.control.standing {
        say(type_, true, Reason::LeaseNotHeld, format!("in force, but this pod is not the trader: {why}"))
    } else if !facts.control.unreadable.is_empty() {
        let fields = facts.control.unreadable.join("; ");
        let message = format!(
            "{fields}. What can be read is in force and everything else as it was before; nothing is loosened or released until it is mended"
        );
        say(type_, false, Reason::InvalidSpec, message)
    } else if !unreadable.is_empty() {
        let names = unreadable.join(", ");
        let message = format!("in force; the selector of ArbPolicy {names} cannot be read, so it is obeyed: mend it");
        say(type_, true, Reason::SelectorUnreadable, message)
    } else {
        say(type_, true, Reason::Applied, "spec and policies are in force at the gate")
    }
}

fn trading(facts: Facts<'_>) -> Said {
    let type_ = ConditionType::Trading;
    if let Some(Standing::Waiting { why }) = &facts.control.standing {
        return say(type_, false, Reason::LeaseNotHeld, why.clone());
    }
    if facts.control.generation.is_none() {
        return say(type_, false, Reason::Starting, "the bot has not yet read its ArbBot and every ArbPolicy");
    }
    if facts.contact() > Contact::Fresh {
        return say(type_, false, Reason::ContactLost, "contact with the API server is lost: nothing raises a leg");
    }
    if facts.in_force.entry == Entry::Active && facts.in_force.duty == Duty::Hold {
        return say(type_, true, Reason::EntryOpen, "entry is open");
    }
    let strongest = facts.restrictions.iter().max_by_key(|r| {
        // What stops this process hides nothing that outlives it.
        (r.source != SHUTDOWN, r.entry, r.duty, priority(&r.source))
    });
    let (reason, why) = strongest.map_or((Reason::Starting, "starting".to_owned()), |restriction| {
        let why = match (&facts.session.problem, restriction.source.as_str()) {
            (Some((_, problem)), "exchange") => problem,
            _ => &restriction.why,
        };
        let reason = reason_of(facts, restriction);
        let drain = facts.drain_message().map_or_else(String::new, |(_, message)| format!("; {message}"));
        let message = format!("{}: {why}{drain}", restriction.source);
        (reason, if reason == Reason::KillSwitchEngaged { message + &how_to_release(facts) } else { message })
    });
    say(type_, false, reason, why)
}

/// What frees the open latches, and why what is in the spec does not.
fn how_to_release(facts: Facts<'_>) -> String {
    let open: Vec<_> =
        facts.control.incidents.iter().map(|incident| format!("{} on {}", incident.id, incident.source)).collect();
    if open.is_empty() {
        return String::new();
    }
    let release = &facts.control.release;
    let known = release.parse::<IncidentId>().is_ok_and(|release| {
        facts.control.incidents.iter().any(|open| open.id.parse().is_ok_and(|open| release.releases(&open)))
    });
    let wrong = if release.is_empty() || known { String::new() } else { format!("; release {release:?} names none") };
    format!("; to release, once finished: engaged false and release {}{wrong}", open.join(", "))
}

/// Which of two equally strong restrictions a person should hear of.
fn priority(source: &str) -> u8 {
    match source {
        "starting" => 6,
        "claim" => 5,
        "exchange" => 3,
        "product" => 4,
        "reconciliation" | "limits" | "session" => 2,
        _ => 4,
    }
}

fn reason_of(facts: Facts<'_>, restriction: &Restriction) -> Reason {
    match restriction.source.as_str() {
        _ if restriction.duty == Duty::Drain => {
            facts.drain_message().map_or(Reason::Draining, |(p, _)| drain::reason(p))
        }
        DRAIN_TIMEOUT => Reason::DrainTimedOut,
        "starting" => Reason::Starting,
        "claim" if facts.control.claim == Claim::Refused => Reason::AccountShared,
        "claim" => Reason::ClaimPending,
        "credentials" => facts.session.unfit.as_ref().map_or(Reason::KeyRefused, |(reason, _)| *reason),
        "exchange" => facts.session.problem.as_ref().map_or(Reason::ExchangeUnreachable, |(reason, _)| *reason),
        "reconciliation" => Reason::NotConfirmed,
        "limits" => limit_reason(facts.view),
        "product" => Reason::ProductUnavailable,
        "session" => Reason::FuturesSessionClosed,
        "deletion" => Reason::Deleting,
        "spec.killSwitch" => Reason::KillSwitchEngaged,
        source if source.starts_with("incident/") => Reason::KillSwitchEngaged,
        _ if facts.flattens() => Reason::KillSwitchEngaged,
        _ => Reason::ModeRestricts,
    }
}

fn limit_reason(view: &View) -> Reason {
    match &view.limit_exceeded {
        Some((_, figures)) if figures.contains("less than one contract") => Reason::LimitBelowOneContract,
        _ => Reason::LimitExceeded,
    }
}

/// Whether the engine already acts on the halt that is in force: before, its proofs are of another time.
fn engine_follows(facts: Facts<'_>) -> bool {
    facts.view.mode == Some(facts.in_force.mode()) && facts.view.generation == facts.control.generation
}

fn halted(facts: Facts<'_>) -> Said {
    let type_ = ConditionType::Halted;
    let lasting = facts.lasting();
    if lasting.entry < Entry::Halted {
        let reason = match (lasting.mode(), facts.drain_message()) {
            (EffectiveMode::Active, _) => Reason::EntryOpen,
            (EffectiveMode::Drain, Some((phase, _))) if phase != DrainPhase::Finished => Reason::Draining,
            _ => Reason::ModeRestricts,
        };
        return say(type_, false, reason, format!("the bot is {}", lasting.mode()));
    }
    if !engine_follows(facts) || facts.view.proof.orders_gone.first.is_none() {
        let (reason, message) = if facts.view.open_orders > 0 {
            (Reason::OrdersWorking, "the gate is closed; orders are being cancelled")
        } else {
            (Reason::NotConfirmed, "the gate is closed; the exchange has not yet confirmed that no order works")
        };
        return say(type_, false, reason, message);
    }
    say(type_, true, Reason::NoOrdersWorking, "the gate is closed and the exchange shows no working order of this bot")
}

fn flat(facts: Facts<'_>) -> Said {
    let type_ = ConditionType::Flat;
    let view = facts.view;
    if engine_follows(facts) && view.proof.flat.confirmed {
        return say(
            type_,
            true,
            Reason::NoPosition,
            "the exchange has shown twice: no order and no position of this bot",
        );
    }
    if !view.seen_exchange {
        return say(type_, ConditionStatus::Unknown, Reason::NotConfirmed, "the exchange has not yet been read");
    }
    match (view.session_closed, view.is_flat) {
        (Some(reopens), false) if facts.flattens() => {
            let when = reopens.map_or("when it opens".to_owned(), |at| format!("at {at}"));
            say(
                type_,
                false,
                Reason::FuturesSessionClosed,
                format!("the futures session is closed; closing goes on {when}"),
            )
        }
        (_, false) => match facts.drain_message() {
            Some((DrainPhase::HeldByHalt, message)) => say(type_, false, Reason::PositionOpen, message),
            Some((phase, message)) => say(type_, false, drain::reason(phase), message),
            None => say(type_, false, Reason::PositionOpen, "there is a position"),
        },
        (_, true) if view.open_orders > 0 => say(type_, false, Reason::OrdersWorking, "orders work at the exchange"),
        (_, true) => say(type_, false, Reason::NotConfirmed, "the exchange has not yet shown it twice"),
    }
}

fn within_limits(facts: Facts<'_>) -> Said {
    let type_ = ConditionType::WithinRiskLimits;
    match &facts.view.limit_exceeded {
        // The figures move with the market; the name of the limit is what a person acts on.
        Some((limit, _)) => {
            let message =
                format!("spec.risk.limits.{limit} is exceeded or too small: raise it, or reduce the position");
            say(type_, false, limit_reason(facts.view), message)
        }
        None if !facts.view.prices_fresh => {
            say(type_, ConditionStatus::Unknown, Reason::NotConfirmed, "without fresh prices it cannot be said")
        }
        None => say(type_, true, Reason::WithinLimits, "inside every limit"),
    }
}

fn credentials(facts: Facts<'_>) -> Said {
    let type_ = ConditionType::CredentialsValid;
    let session = facts.session;
    if let Some((reason, why)) = &session.unfit {
        return say(type_, false, *reason, why.clone());
    }
    match (&session.problem, session.open) {
        (Some((reason, why)), true) if is_about_key(*reason) => {
            say(type_, true, *reason, format!("the earlier key stays in use: {why}"))
        }
        (Some((reason, why)), false) if is_about_key(*reason) => say(type_, false, *reason, why.clone()),
        (Some((reason, why)), false) => say(type_, ConditionStatus::Unknown, *reason, why.clone()),
        (None, false) => say(type_, ConditionStatus::Unknown, Reason::Starting, "the key has not yet been checked"),
        (_, true) => match &session.failed_over {
            Some(why) => say(type_, true, Reason::KeyFailedOver, why.clone()),
            None if session.is_old => {
                let message = "the key in use is older than spec.credentials.maxAge: put a new one into its Secret";
                say(type_, true, Reason::KeyOld, message)
            }
            None => say(type_, true, Reason::KeyAccepted, "the exchange accepted the key"),
        },
    }
}

fn is_about_key(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::KeyRefused
            | Reason::KeyMayTransfer
            | Reason::KeyMayNotTrade
            | Reason::PortfolioMismatch
            | Reason::KeyUnreadable
            | Reason::SecretMissing
    )
}

fn connected(facts: Facts<'_>) -> Said {
    let type_ = ConditionType::ExchangeConnected;
    if !facts.session.open {
        let (reason, why) = facts
            .session
            .problem
            .clone()
            .unwrap_or((Reason::Starting, "the exchange has not yet been reached".to_owned()));
        return say(type_, false, reason, why);
    }
    if let Some(why) = &facts.view.product_unavailable {
        return say(type_, false, Reason::ProductUnavailable, why.clone());
    }
    match facts.view.links.iter().find_map(|(link, down)| Some((*link, down.as_ref()?))) {
        None if !facts.session.without_expiry.is_empty() => {
            let products = facts.session.without_expiry.join(" and ");
            let message = format!(
                "REST and both WebSockets work; on {products} the exchange refuses orders that expire by themselves: \
                 should this bot die, cancel its resting orders there"
            );
            say(type_, true, Reason::Connected, message)
        }
        None => say(type_, true, Reason::Connected, "REST and both WebSockets work"),
        Some((_, cause)) if !facts.view.seen_exchange && cause == NOT_YET_CONNECTED => {
            say(type_, false, Reason::Starting, "the connections to the exchange are being opened")
        }
        Some((Link::Rest, cause)) => say(type_, false, Reason::ExchangeUnreachable, cause.clone()),
        Some((link, cause)) => say(type_, false, Reason::WebSocketDown, format!("{link}: {cause}")),
    }
}

fn reconciled(facts: Facts<'_>) -> Said {
    let type_ = ConditionType::PositionsReconciled;
    match &facts.view.reconciliation {
        Reconciliation::Pending => {
            say(type_, ConditionStatus::Unknown, Reason::NotConfirmed, "the exchange has not yet been compared")
        }
        Reconciliation::Differs(why) => {
            let reason = if facts.view.has_deficit { Reason::PositionDeficit } else { Reason::PositionExcess };
            let message = format!("{why}: find out who traded on the account; nothing is sold that is not proven ours");
            say(type_, false, reason, message)
        }
        Reconciliation::Matches if facts.view.unknown_orders > 0 => {
            say(type_, false, Reason::OrdersUnknown, "an order is neither proven placed nor proven not placed")
        }
        Reconciliation::Matches => say(type_, true, Reason::Reconciled, "the exchange shows what the bot owns"),
    }
}
