//! `CredentialsValid` and `ExchangeConnected`.

use arbbot_crds::arbbot::Execution;
use arbbot_crds::conditions::{ConditionStatus, ConditionType, Reason};

use super::super::Facts;
use super::{Said, has_stopped, say};
use crate::exchange::Link;
use crate::execution::engine::NOT_YET_CONNECTED;

pub(super) fn credentials(facts: Facts<'_>) -> Said {
    let type_ = ConditionType::CredentialsValid;
    let session = facts.session;
    if session.execution == Some(Execution::Paper) {
        let message = "the bot trades on paper: it uses no key, and fills its orders itself against public market data";
        return say(type_, true, Reason::OnPaper, message);
    }
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

pub(super) fn is_about_key(reason: Reason) -> bool {
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

pub(super) fn connected(facts: Facts<'_>) -> Said {
    let type_ = ConditionType::ExchangeConnected;
    if has_stopped(facts) {
        return say(type_, false, Reason::Stopped, "the bot has drained and stopped: it connects again when it starts");
    }
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
        None if facts.session.execution == Some(Execution::Paper) => {
            let message = "REST and the WebSocket of the public market data work; the account is on paper";
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
