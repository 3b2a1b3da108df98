//! A bot in one state, and what its conditions say of it.

use arbbot_crds::arbbot::{KillAction, Mode};
use arbbot_crds::conditions::{ConditionType, Reason};
use arbbot_crds::control::{Entry, Restriction, effective};
use arbbot_crds::limits::RiskLimits;
use arbbot_crds::status::{DrainPhase, IncidentPhase, IncidentStatus, LedgerStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::super::{ControlFacts, Facts, SHUTDOWN};
use super::said;
use crate::books::BooksView;
use crate::clock::Clock;
use crate::control::fixtures;
use crate::exchange::SessionFacts;
use crate::execution::drain::{Demand, DrainView};
use crate::execution::engine::{CarryView, Reconciliation, View};
use crate::risk::gate::Contact;
use crate::strategy::funding_carry::collateral::Shortage;
use crate::strategy::funding_carry::edge::Stance;

struct Case {
    control: ControlFacts,
    view: View,
    restrictions: Vec<Restriction>,
}

impl Case {
    /// A bot that is connected and trades, under these restrictions.
    fn new(restrictions: Vec<Restriction>) -> Self {
        let control = effective(&RiskLimits::default(), restrictions.iter());
        let mut view = fixtures::view(&Clock::manual(), &control);
        view.links.iter_mut().for_each(|(_, down)| *down = None);
        (view.seen_exchange, view.reconciliation) = (true, Reconciliation::Matches);
        (view.generation, view.mode) = (Some(1), Some(control.mode()));
        Self { control: ControlFacts { generation: Some(1), ..ControlFacts::default() }, view, restrictions }
    }

    fn says(&self, type_: ConditionType) -> (String, Reason, String) {
        let in_force = effective(&RiskLimits::default(), self.restrictions.iter());
        let session = SessionFacts { open: true, ..SessionFacts::default() };
        let facts = Facts {
            control: &self.control,
            session: &session,
            view: &self.view,
            books: &BooksView::default(),
            in_force: &in_force,
            contact: Contact::Fresh,
            restrictions: &self.restrictions,
            ledger: &LedgerStatus::default(),
            pod_uid: "p",
            node: "n",
        };
        let (_, status, reason, message) = said(facts).into_iter().find(|said| said.0 == type_).unwrap();
        assert!(type_.reasons().contains(&reason), "{type_} {reason}");
        (status.to_string(), reason, message)
    }
}

fn closed(source: &str) -> Restriction {
    Restriction::entry(source, Entry::ReduceOnly, "why")
}

#[test]
fn entry_that_reconciliation_holds_closed_does_not_point_to_a_mode() {
    let mut case = Case::new(vec![closed("reconciliation")]);
    let (_, reason, message) = case.says(ConditionType::Halted);
    assert_eq!(reason, Reason::EntryClosed);
    assert_eq!(message, "the bot is ReduceOnly, because of reconciliation: see Trading");
    assert_eq!(case.says(ConditionType::Trading).1, Reason::NotConfirmed);
    case.view.reconciliation = Reconciliation::Differs("F: 1, 2".to_owned());
    assert_eq!(case.says(ConditionType::Trading).1, Reason::PositionExcess);
    case.view.has_deficit = true;
    assert_eq!(case.says(ConditionType::Trading).1, Reason::PositionDeficit);
    let by_mode = Case::new(vec![Restriction::mode("spec.mode", Mode::ReduceOnly, "spec")]);
    assert_eq!(by_mode.says(ConditionType::Halted).1, Reason::ModeRestricts);
}

#[test]
fn the_last_word_of_a_drained_bot_says_that_it_has_stopped() {
    let mut case = Case::new(vec![Restriction::mode("spec.mode", Mode::Stopped, "spec")]);
    let demand = Demand { source: "spec.mode".into(), halted_by: None };
    let drain = |phase| DrainView { demand: demand.clone(), started_at: Timestamp::UNIX_EPOCH, phase, deadline: None };
    case.view.drain = Some(drain(DrainPhase::Finished));
    assert_eq!(case.says(ConditionType::ExchangeConnected).0, "True", "it still runs");
    case.restrictions.push(Restriction::entry(SHUTDOWN, Entry::Halted, "stopping"));
    let (status, reason, _) = case.says(ConditionType::ExchangeConnected);
    assert_eq!((status.as_str(), reason), ("False", Reason::Stopped));
    let (status, reason, message) = case.says(ConditionType::Halted);
    assert_eq!((status.as_str(), reason), ("False", Reason::Stopped), "{message}");
    case.view.drain = Some(drain(DrainPhase::ClosingPosition));
    assert_eq!(case.says(ConditionType::ExchangeConnected).0, "True", "another pod goes on");
}

#[test]
fn a_latch_whose_policy_is_gone_is_released_on_the_bot() {
    let incident = IncidentStatus {
        id: "99999999-2".into(),
        source: "ArbPolicy/desk".into(),
        phase: IncidentPhase::Finished,
        action: KillAction::Flatten,
        reason: String::new(),
        engaged_at: Time(Timestamp::UNIX_EPOCH),
        orders_cancelled_at: None,
        flat_at: None,
    };
    let mut case = Case::new(vec![Restriction::kill("incident/99999999-2", KillAction::Flatten, "drill")]);
    case.control.incidents = vec![incident];
    let message = case.says(ConditionType::Trading).2;
    assert!(message.ends_with("release 99999999-2 on ArbPolicy/desk"), "{message}");
    case.control.orphaned = vec!["99999999-2".into()];
    let message = case.says(ConditionType::Trading).2;
    assert!(message.ends_with("release 99999999-2 on this ArbBot (ArbPolicy/desk is gone)"), "{message}");
}

#[test]
fn what_the_strategy_decided_is_the_message_of_trading() {
    let mut case = Case::new(Vec::new());
    for (stance, reason) in
        [(Stance::Enter, Reason::EntryOpen), (Stance::Wait, Reason::NoEdge), (Stance::Exit, Reason::NegativeFunding)]
    {
        case.view.carry = CarryView { stance, why: "why, with figures".to_owned(), shortage: None };
        let said = case.says(ConditionType::Trading);
        assert_eq!(said, ("True".to_owned(), reason, "entry is open; why, with figures".to_owned()));
    }
    assert_eq!(case.says(ConditionType::CollateralSufficient).0, "Unknown");
    case.view.carry.shortage = Some(None);
    assert_eq!(case.says(ConditionType::CollateralSufficient).1, Reason::CollateralEnough);
    case.view.carry.shortage = Some(Some(Shortage { of_position: false, missing_quote: 1500.into() }));
    let (status, reason, message) = case.says(ConditionType::CollateralSufficient);
    assert_eq!((status.as_str(), reason), ("False", Reason::CollateralShort));
    assert!(message.contains("move 1500 (quote currency)"), "{message}");
}
