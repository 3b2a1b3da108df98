//! What every condition means, as `docs/conditions.md` shows it.

use std::fmt::Write as _;

use strum::{EnumMessage as _, IntoEnumIterator as _};

use super::{ConditionType, Reason};

/// Who writes a condition, and what it says.
#[derive(Clone, Copy, Debug)]
pub struct Meaning {
    /// Who writes it on an ArbBot.
    pub writer: Writer,
    /// What True means.
    pub when_true: &'static str,
    /// What False means.
    pub when_false: &'static str,
    /// What Unknown means.
    pub when_unknown: &'static str,
}

/// Who writes a condition on an ArbBot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Writer {
    Bot,
    Operator,
}

/// Unknown of most conditions of the bot.
const LOST: &str =
    "The bot's Lease has expired: what it said is no longer known. Its resting orders expire by themselves.";

impl ConditionType {
    /// Who writes it, and what it says.
    #[must_use]
    pub const fn meaning(self) -> Meaning {
        let (writer, when_true, when_false, when_unknown) = match self {
            Self::ControlApplied => (
                Writer::Bot,
                "This generation of the spec and every matching policy are in force at the gate.",
                "The bot has not yet read its ArbBot and every ArbPolicy, or cannot read one of them or a guard, or its ledger does not take a release.",
                LOST,
            ),
            Self::Trading => (
                Writer::Bot,
                "Entry is open: nothing but the strategy itself decides whether the position is raised, and the message has its figures.",
                "Nothing raises a leg.",
                LOST,
            ),
            Self::Halted => (
                Writer::Bot,
                "The gate is closed and the exchange has confirmed that no order of this bot works.",
                "The gate is open for some orders, or the exchange has not yet confirmed that none works.",
                LOST,
            ),
            Self::Flat => (
                Writer::Bot,
                "No order and no position of this bot; the exchange has shown it twice.",
                "There is a position or an order, or the exchange has not yet shown twice that there is none.",
                "The bot has not yet read the exchange, or its Lease has expired.",
            ),
            Self::WithinRiskLimits => (
                Writer::Bot,
                "Position and working orders are inside every limit and no guard has tripped. The reason tells when one warns.",
                "A limit is exceeded or smaller than one contract, or a guard has tripped; nothing raises a leg until that ends.",
                "Without fresh prices it cannot be said, or the bot's Lease has expired.",
            ),
            Self::CredentialsValid => (
                Writer::Bot,
                "A verified API key is in use, or none is needed (on paper). The reason tells when a newer one was refused.",
                "The exchange refuses the key, or the key must not be used.",
                "No key has been checked yet, or the bot's Lease has expired.",
            ),
            Self::ExchangeConnected => (
                Writer::Bot,
                "REST and both WebSockets work.",
                "A connection is down; nothing raises a leg until all work. Or the bot has drained and stopped.",
                LOST,
            ),
            Self::PositionsReconciled => (
                Writer::Bot,
                "The exchange shows the orders and positions that the ledger expects.",
                "They differ; nothing raises a leg until a person has found out why.",
                "They have not yet been compared, or the bot's Lease has expired.",
            ),
            Self::CollateralSufficient => (
                Writer::Bot,
                "The collateral carries the futures leg at overnight margin and `collateral.minRatio` of its notional is free.",
                "Too little is free for the position, or for the next contract: nothing is entered, and both legs are reduced together where too little is left for what is there.",
                "Holdings or prices are not known, or the bot's Lease has expired.",
            ),
            Self::Ready => (
                Writer::Operator,
                "The children exist, the pod is up and this generation is acknowledged. A halted bot is Ready.",
                "Not yet, or a person must act: see `Reconciling` and `Stalled`.",
                "Never written.",
            ),
            Self::Reconciling => (
                Writer::Operator,
                "The operator or Kubernetes is still at work.",
                "Nothing is under way.",
                "Never written.",
            ),
            Self::Stalled => (
                Writer::Operator,
                "Nothing will improve until a person acts.",
                "No person is needed.",
                "Never written.",
            ),
        };
        Meaning { writer, when_true, when_false, when_unknown }
    }

    /// Its reasons: a closed list.
    #[must_use]
    pub const fn reasons(self) -> &'static [Reason] {
        #[allow(clippy::enum_glob_use)]
        use Reason::*;
        match self {
            Self::ControlApplied => &[
                Applied,
                Starting,
                LeaseNotHeld,
                SelectorUnreadable,
                InvalidSpec,
                LedgerUnwritable,
                GuardInvalid,
                ContactLost,
                AllBots,
                SomeBots,
                NoBots,
            ],
            Self::Trading => &[
                EntryOpen,
                NoEdge,
                NegativeFunding,
                ModeRestricts,
                KillSwitchEngaged,
                Draining,
                DrainTimedOut,
                Deleting,
                Starting,
                LeaseNotHeld,
                ClaimPending,
                AccountShared,
                NotConfirmed,
                PositionDeficit,
                PositionExcess,
                LimitExceeded,
                LimitBelowOneContract,
                GuardTripped,
                ProductUnavailable,
                FuturesSessionClosed,
                LedgerUnwritable,
                LedgerDamaged,
                LedgerLost,
                LedgerRebuilding,
                ClockSkewed,
                KeyRefused,
                KeyMayTransfer,
                KeyMayNotTrade,
                PortfolioMismatch,
                KeyUnreadable,
                SecretMissing,
                ExchangeUnreachable,
                CertificateUntrusted,
                WebSocketDown,
                InvalidSpec,
                SelectorUnreadable,
                ContactLost,
            ],
            Self::Halted => &[
                NoOrdersWorking,
                OrdersWorking,
                NotConfirmed,
                EntryOpen,
                EntryClosed,
                ModeRestricts,
                Draining,
                Stopped,
                ContactLost,
                AllBots,
                SomeBots,
                NoBots,
            ],
            Self::Flat => &[
                NoPosition,
                PositionOpen,
                OrdersUnknown,
                OrdersWorking,
                NotConfirmed,
                Draining,
                DrainTimedOut,
                FuturesSessionClosed,
                ContactLost,
                AllBots,
                SomeBots,
                NoBots,
            ],
            Self::WithinRiskLimits => &[
                WithinLimits,
                GuardWarns,
                GuardTripped,
                LimitExceeded,
                LimitBelowOneContract,
                NotConfirmed,
                ContactLost,
            ],
            Self::CredentialsValid => &[
                KeyAccepted,
                OnPaper,
                KeyOld,
                KeyFailedOver,
                KeyRefused,
                KeyMayTransfer,
                KeyMayNotTrade,
                PortfolioMismatch,
                KeyUnreadable,
                SecretMissing,
                Starting,
                ExchangeUnreachable,
                CertificateUntrusted,
                ContactLost,
            ],
            Self::ExchangeConnected => &[
                Connected,
                Stopped,
                Starting,
                ExchangeUnreachable,
                CertificateUntrusted,
                WebSocketDown,
                ProductUnavailable,
                KeyRefused,
                KeyMayTransfer,
                KeyMayNotTrade,
                PortfolioMismatch,
                KeyUnreadable,
                SecretMissing,
                ContactLost,
            ],
            Self::PositionsReconciled => {
                &[Reconciled, PositionDeficit, PositionExcess, OrdersUnknown, NotConfirmed, ContactLost]
            }
            Self::CollateralSufficient => &[CollateralEnough, CollateralShort, NotConfirmed, ContactLost],
            Self::Ready => &[
                Available,
                Stopped,
                Progressing,
                PodNotReady,
                PodCannotStart,
                SecretMissing,
                NotAcknowledged,
                Draining,
                DrainTimedOut,
                AccountShared,
                InvalidSpec,
                ChildNotOurs,
                ApplyFailed,
                Forbidden,
                CrdOutdated,
                DeletionWaitsForFlat,
                DeletionBlockedByHalted,
                AllBots,
                SomeBots,
                NoBots,
                SelectorInvalid,
            ],
            Self::Reconciling => &[
                UpToDate,
                ReconciliationPaused,
                PauseIgnored,
                Progressing,
                PodNotReady,
                NotAcknowledged,
                Draining,
                ApplyFailed,
                DeletionWaitsForFlat,
                DeletionBlockedByHalted,
                SomeBots,
            ],
            Self::Stalled => &[
                UpToDate,
                PodNotReady,
                PodCannotStart,
                SecretMissing,
                DrainTimedOut,
                AccountShared,
                InvalidSpec,
                ChildNotOurs,
                Forbidden,
                CrdOutdated,
                DeletionWaitsForFlat,
                DeletionBlockedByHalted,
                SelectorInvalid,
                NoBots,
            ],
        }
    }

    /// Whether an ArbPolicy has it, too; there the operator counts what its bots say.
    #[must_use]
    pub const fn is_on_policies(self) -> bool {
        matches!(
            self,
            Self::ControlApplied | Self::Halted | Self::Flat | Self::Ready | Self::Reconciling | Self::Stalled
        )
    }
}

const HEAD: &str = "<!-- Generated by `make manifests` from crds/src/conditions. Do not edit. -->
# Conditions

Every condition carries the `observedGeneration` of the spec that it speaks of: `kubectl wait` does not take the word of an earlier one. The bot writes its own conditions, so they are true with the operator dead; the operator turns them to Unknown (reason ContactLost) when the bot's Lease has expired. `Ready`, `Reconciling` and `Stalled` follow [kstatus](https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus). The lists of reasons are closed.
";

const ON_POLICIES: &str = " On an ArbPolicy the operator writes it: True when it is so for every bot that the policy selects, and it selects at least one.";

const OF_POLICIES: &str = " On an ArbPolicy it speaks of the policy itself: whether it can be read and has been counted, whatever its bots do.";

/// `docs/conditions.md`.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(HEAD);
    for type_ in ConditionType::iter() {
        let Meaning { writer, when_true, when_false, when_unknown } = type_.meaning();
        let on_policies = match type_ {
            ConditionType::ControlApplied | ConditionType::Halted | ConditionType::Flat => ON_POLICIES,
            _ if type_.is_on_policies() => OF_POLICIES,
            _ => "",
        };
        // Writing to a String cannot fail.
        let _ = write!(page, "\n## {type_}\n\nOn an ArbBot the {writer} writes it.{on_policies}\n\n");
        let _ = write!(page, "| Status | Means |\n|---|---|\n| True | {when_true} |\n");
        let _ = write!(page, "| False | {when_false} |\n| Unknown | {when_unknown} |\n\n");
        let _ = write!(page, "| Reason | Means | What to do next |\n|---|---|---|\n");
        for reason in type_.reasons() {
            let (meaning, next) = (text(reason.get_documentation()), text(reason.get_message()));
            let _ = writeln!(page, "| {reason} | {meaning} | {next} |");
        }
    }
    page
}

fn text(text: Option<&'static str>) -> String {
    text.unwrap_or_default().trim().replace('\n', " ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_page_is_what_the_types_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/conditions.md");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == markdown(), "{path} is out of date: run `make manifests`");
    }

    #[test]
    fn every_reason_says_what_it_means_and_what_to_do_next() {
        for reason in Reason::iter() {
            assert!(reason.get_documentation().is_some_and(|text| text.trim_end().ends_with('.')), "{reason}");
            assert!(reason.get_message().is_some_and(|text| text.ends_with('.')), "{reason}");
        }
    }

    #[test]
    fn every_reason_but_those_of_events_belongs_to_a_condition_and_none_is_listed_twice() {
        let of_events = [Reason::Loosened, Reason::ReleaseUnknown];
        for reason in Reason::iter().filter(|reason| !of_events.contains(reason)) {
            assert!(ConditionType::iter().any(|type_| type_.reasons().contains(&reason)), "{reason}");
        }
        for type_ in ConditionType::iter() {
            let mut reasons = type_.reasons().to_vec();
            reasons.sort_unstable();
            reasons.dedup();
            assert_eq!(reasons.len(), type_.reasons().len(), "{type_}");
        }
    }
}
