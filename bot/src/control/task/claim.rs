//! The claim on account and product: what the operator has granted, and what the ledger remembers of it.

use arbbot_crds::arbbot::ArbBot;
use arbbot_crds::control::{Entry, Restriction};

use super::ControlTask;
use crate::control::report::Claim;

impl ControlTask {
    pub(super) fn claim(&self, bot: &ArbBot) -> Claim {
        let account = bot.spec.account();
        let product = &bot.spec.strategy.funding_carry.future_product;
        let ours = |a: &str, p: &String| a == account && p == product;
        match bot.status.as_ref().and_then(|status| status.claim.as_ref()) {
            Some(claim) if ours(&claim.account, &claim.product) && claim.granted => Claim::Granted,
            Some(claim) if ours(&claim.account, &claim.product) => Claim::Refused,
            _ if self.remembered_claim.as_ref().is_some_and(|(a, p)| ours(a, p)) => Claim::Granted,
            _ => Claim::Pending,
        }
    }

    pub(super) fn claim_restriction(&self, bot: &ArbBot) -> Vec<Restriction> {
        let why = match self.claim(bot) {
            Claim::Granted => return Vec::new(),
            Claim::Pending => "the operator has not yet granted the claim on the account: is it running?",
            Claim::Refused => {
                "another ArbBot holds the claim on this account and product: delete that bot, or use another portfolio"
            }
        };
        vec![Restriction::entry("claim", Entry::ReduceOnly, why)]
    }

    pub(super) fn remember_claim(&mut self, bot: &ArbBot) {
        let account = bot.spec.account().to_owned();
        let product = bot.spec.strategy.funding_carry.future_product.clone();
        self.remembered_claim = Some((account.clone(), product.clone()));
        let ledger = self.ledger.clone();
        tokio::spawn(async move {
            if let Err(error) = ledger.remember_claim(&account, &product).await {
                tracing::warn!(reason = error.reason(), %error, "the claim is not remembered; it is asked for again");
            }
        });
    }
}
