//! Who may trade what: one bot per account and product.
//!
//! A grant is kept until its bot is gone. Among bots without a grant the oldest wins, then the smallest uid.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use arbbot_crds::ArbBot;
use arbbot_crds::arbbot::Execution;
use arbbot_crds::status::ClaimStatus;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::api::ApiError;
use crate::cache::store;
use crate::context::Context;
use crate::reconcile::fetch::{Fetched, get};

/// What one bot wants to trade, and whether it was granted before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claimant {
    /// namespace/name, for people.
    bot: String,
    uid: String,
    created: Option<Timestamp>,
    portfolio: String,
    future: String,
    spot: String,
    granted: bool,
}

impl Claimant {
    fn new(bot: &ArbBot, granted_here: &HashSet<String>) -> Self {
        let carry = &bot.spec.strategy.funding_carry;
        let uid = bot.uid().unwrap_or_default();
        let granted = granted_here.contains(&uid)
            || bot.status.as_ref().and_then(|status| status.claim.as_ref()).is_some_and(|claim| claim.granted);
        Self {
            bot: format!("{}/{}", bot.namespace().unwrap_or_default(), bot.name_any()),
            uid,
            created: bot.creation_timestamp().map(|time| time.0),
            portfolio: bot.spec.account().to_owned(),
            future: carry.future_product.clone(),
            spot: carry.spot_product.clone(),
            granted,
        }
    }

    /// Whether both cannot hold the claim at once: orders on one product of one account cannot be told apart.
    fn excludes(&self, other: &Self) -> bool {
        self.portfolio == other.portfolio && (self.future == other.future || self.spot == other.spot)
    }
}

/// The bot that keeps `me` from its claim, if any; of a bot that holds one, the bot that holds it, too. `others` may
/// contain `me`.
fn holder<'a>(me: &'a Claimant, others: &'a [Claimant]) -> Option<&'a Claimant> {
    if me.granted {
        return others.iter().find(|other| other.uid != me.uid && other.granted && other.excludes(me));
    }
    let mut queue: Vec<_> = others.iter().filter(|other| other.uid != me.uid).chain([me]).collect();
    queue.sort_by_key(|claimant| (!claimant.granted, claimant.created, &claimant.uid));
    let mut holders: Vec<&Claimant> = Vec::new();
    for claimant in queue {
        let blocked_by = holders.iter().find(|holder| holder.excludes(claimant)).copied();
        if claimant.uid == me.uid {
            return blocked_by;
        }
        if blocked_by.is_none() {
            holders.push(claimant);
        }
    }
    None
}

/// The operator's word on a bot's claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What is published in status. None: it was never decided.
    pub status: Option<ClaimStatus>,
    /// namespace/name of another bot that holds the claim: instead, or, where two operators have granted it, as well.
    pub held_by: Option<String>,
}

impl Claim {
    fn held(bot: &ArbBot, by: &str) -> Self {
        Self { status: Some(claim_status(bot, false)), held_by: Some(by.to_owned()) }
    }

    /// What stands in status now.
    #[must_use]
    pub fn present(bot: &ArbBot) -> Self {
        Self { status: bot.status.as_ref().and_then(|status| status.claim.clone()), held_by: None }
    }

    /// Whether the bot holds the claim.
    #[must_use]
    pub fn is_granted(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.granted)
    }
}

fn claim_status(bot: &ArbBot, granted: bool) -> ClaimStatus {
    let product = bot.spec.strategy.funding_carry.future_product.clone();
    ClaimStatus { account: bot.spec.account().to_owned(), product, granted }
}

fn judge<'a>(bot: &ArbBot, all: impl IntoIterator<Item = &'a ArbBot>, granted: &HashSet<String>) -> Claim {
    let me = Claimant::new(bot, granted);
    let rivals: Vec<_> = all
        .into_iter()
        .filter(|other| other.spec.account() == me.portfolio)
        .map(|other| Claimant::new(other, granted))
        .collect();
    let held_by = holder(&me, &rivals).map(|holder| holder.bot.clone());
    // What was granted stays granted until its bot is gone: a trader that is told to stop would leave its hedge alone.
    let granted = me.granted || held_by.is_none();
    Claim { status: Some(claim_status(bot, granted)), held_by }
}

/// Grants of this process: a grant counts from the moment it is decided, before the watch shows it.
#[derive(Default)]
pub struct Claims {
    granted: Mutex<HashSet<String>>,
}

impl Claims {
    /// What the decision would be, without making it.
    pub fn look<'a>(&self, bot: &ArbBot, all: impl IntoIterator<Item = &'a ArbBot>) -> Claim {
        let granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        judge(bot, all, &granted)
    }

    /// Decides on the claim of `bot` among `all` ArbBots that the operator knows.
    pub fn decide<'a>(&self, bot: &ArbBot, all: impl IntoIterator<Item = &'a ArbBot>) -> Claim {
        // One decision at a time, or two bots could be granted the same claim.
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        let claim = judge(bot, all, &granted);
        if claim.is_granted() {
            granted.insert(bot.uid().unwrap_or_default());
        }
        claim
    }

    /// Forgets every grant of this process: those that count are in status.
    pub fn clear(&self) {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Frees the grant of a bot that is gone.
    pub fn release(&self, uid: &str) {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// Why a claim cannot be decided.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// A rival, or the right to look, is out of reach.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A bot that is not known yet may hold it.
    #[error("not every ArbBot has been listed yet; the operator's /readyz names the namespace that is missing")]
    NotAllKnown,
}

/// Decides on the claim of a bot. A new grant is given only on the rivals' own word, read from the API server: the leader
/// before this one may have granted theirs a moment ago.
///
/// # Errors
/// A rival cannot be read, or not every bot is known yet.
pub async fn decide(fetched: &Fetched, ctx: &Context) -> Result<Claim, ClaimError> {
    let bot = &fetched.bot;
    if bot.spec.execution == Execution::Paper {
        // Its account is its own.
        return Ok(Claim { status: Some(claim_status(bot, true)), held_by: None });
    }
    let me = store::key_of(&bot.metadata);
    let mut rivals = ctx.caches.bots.on_portfolio(bot.spec.account());
    rivals.retain(|key| *key != me);
    let mut known = Vec::new();
    for key in &rivals {
        match ctx.caches.bots.get(key) {
            Some(Ok(rival)) => known.push(rival),
            // Nobody knows what it trades.
            Some(Err(_)) if !is_granted(bot) => return Ok(Claim::held(bot, key)),
            _ => {}
        }
    }
    if is_granted(bot) || !ctx.claims.look(bot, &known).is_granted() {
        return Ok(ctx.claims.decide(bot, &known));
    }
    let action = format!("grant the claim of ArbBot {me}");
    ctx.must_act(&action)?;
    if !ctx.caches.knows_all_bots() {
        return Err(ClaimError::NotAllKnown);
    }
    known.clear();
    for key in &rivals {
        let (namespace, name) = store::split(key);
        known.extend(get::<ArbBot>(ctx, namespace, name).await?);
    }
    Ok(ctx.claims.decide(bot, &known))
}

fn is_granted(bot: &ArbBot) -> bool {
    bot.status.as_ref().and_then(|status| status.claim.as_ref()).is_some_and(|claim| claim.granted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimant(name: &str, created: i64, future: &str, spot: &str, granted: bool) -> Claimant {
        Claimant {
            bot: format!("desk/{name}"),
            uid: name.to_owned(),
            created: Timestamp::from_second(created).ok(),
            portfolio: "p".to_owned(),
            future: future.to_owned(),
            spot: spot.to_owned(),
            granted,
        }
    }

    fn holder_of(all: &[Claimant], me: usize) -> Option<&str> {
        holder(&all[me], all).map(|claimant| claimant.uid.as_str())
    }

    #[test]
    fn among_new_bots_the_oldest_wins_then_the_smallest_uid() {
        let all = [claimant("b", 2, "F", "S", false), claimant("a", 1, "F", "S", false)];
        assert_eq!((holder_of(&all, 0), holder_of(&all, 1)), (Some("a"), None));
        let all = [claimant("b", 1, "F", "S", false), claimant("a", 1, "F", "S", false)];
        assert_eq!((holder_of(&all, 0), holder_of(&all, 1)), (Some("a"), None));
    }

    #[test]
    fn a_grant_is_kept_even_against_an_older_bot() {
        let all = [claimant("old", 1, "F", "S", false), claimant("new", 2, "F", "S", true)];
        assert_eq!((holder_of(&all, 0), holder_of(&all, 1)), (Some("new"), None));
    }

    #[test]
    fn two_grants_are_both_kept_and_each_names_the_other() {
        // Two operators have granted each one, and become one.
        let all = [claimant("a", 1, "F", "S", true), claimant("b", 2, "F", "S", true)];
        assert_eq!((holder_of(&all, 0), holder_of(&all, 1)), (Some("b"), Some("a")));
        let mut bot = crate::reconcile::fixtures::bot_with_status("claim: {account: a, product: p, granted: true}");
        let mut rival = bot.clone();
        rival.metadata.uid = Some("other".to_owned());
        rival.metadata.name = Some("other".to_owned());
        let claim = Claims::default().decide(&bot, [&rival]);
        assert_eq!((claim.is_granted(), claim.held_by.as_deref()), (true, Some("desk/other")));
        bot.status = None;
        assert!(!Claims::default().decide(&bot, [&rival]).is_granted(), "a new one gets none");
    }

    #[test]
    fn one_shared_leg_is_enough_and_another_account_is_not() {
        let all = [claimant("a", 1, "F", "S", true), claimant("b", 2, "G", "S", false)];
        assert_eq!(holder_of(&all, 1), Some("a"));
        let elsewhere = Claimant { portfolio: "q".to_owned(), ..claimant("c", 3, "F", "S", false) };
        assert_eq!(holder(&elsewhere, &all), None);
    }

    #[test]
    fn a_bot_that_waits_itself_blocks_nobody() {
        let all = [
            claimant("holder", 1, "F", "S", true),
            claimant("waits", 2, "F", "T", false),
            claimant("free", 3, "G", "T", false),
        ];
        assert_eq!((holder_of(&all, 1), holder_of(&all, 2)), (Some("holder"), None));
    }
}
