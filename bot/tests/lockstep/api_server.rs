//! The bot's ArbBot at the API server: people patch it, and the control task of `arb-bot run` obeys, latches and releases.
//!
//! What people asked for is kept here, apart from the bot: a latch that it forgets still binds it for whoever judges.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arb_bot::control::contact::Round;
use arb_bot::control::report::ControlFacts;
use arb_bot::execution::engine::View;
use arbbot_crds::ArbBot;
use arbbot_crds::arbbot::{KillAction, Mode};
use arbbot_crds::control::{Control, Restriction, effective, spec_restrictions};
use arbbot_crds::incident::uid8;
use arbbot_crds::limits::RiskLimits;
use arbbot_crds::status::{IncidentPhase, IncidentStatus};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::bot::Bot;
use super::desk::{Desk, Step};

/// A patch is acknowledged within this time, whatever happens at the exchange.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(2);

pub struct ApiServer {
    pub bot: ArbBot,
    /// Ids of the incidents that people opened by the kill switch.
    pub incidents: BTreeSet<String>,
    /// Those that they have not released.
    open: BTreeSet<String>,
    /// The bot's own limits, before anything tightens them.
    limits: RiskLimits,
    rounds: mpsc::Sender<Round>,
    asked: Arc<Mutex<Asked>>,
}

impl ApiServer {
    /// Puts a bot that has just started under the control task.
    pub async fn over(bot: &mut Bot, object: ArbBot) -> Self {
        let asked = Arc::new(Mutex::new(Asked::default()));
        asked.lock().unwrap().patched(&object);
        let rounds = put_under_control(bot, &object, &asked).await;
        let limits = object.spec.risk.limits.clone();
        Self { bot: object, incidents: BTreeSet::new(), open: BTreeSet::new(), limits, rounds, asked }
    }

    /// The same with the next process.
    pub async fn over_the_next(&mut self, bot: &mut Bot) {
        self.rounds = put_under_control(bot, &self.bot, &self.asked).await;
    }

    /// The next process reads what is there.
    pub async fn restart<'a>(mut self, desk: Desk<'a>) -> (Desk<'a>, Self) {
        let mut desk = desk.restart().await;
        self.over_the_next(&mut desk.bot).await;
        (desk, self)
    }

    pub async fn patch(&mut self, change: impl FnOnce(&mut ArbBot)) {
        change(&mut self.bot);
        let generation = self.next_generation();
        self.bot.metadata.generation = Some(generation);
        self.bot.metadata.resource_version = Some(generation.to_string());
        self.asked.lock().unwrap().patched(&self.bot);
        let bot = Some(serde_json::from_value(serde_json::to_value(&self.bot).unwrap()).unwrap());
        self.rounds.send(Round { standing: None, bot, refused: None, policies: None }).await.unwrap();
    }

    fn next_generation(&self) -> i64 {
        self.bot.metadata.generation.unwrap() + 1
    }

    /// Writes what a person demands into the ArbBot; the bot is not yet told.
    pub fn ordered(&mut self, step: &Step) {
        let next = self.next_generation();
        let spec = &mut self.bot.spec;
        match step {
            Step::Mode(mode) => spec.mode = *mode,
            Step::KillSwitch => {
                spec.kill_switch.engaged = true;
                spec.kill_switch.action = KillAction::Flatten;
                let id = format!("{}-{next}", uid8(self.bot.metadata.uid.as_deref().unwrap()));
                self.incidents.insert(id.clone());
                self.open.insert(id);
            }
            Step::Release => {
                spec.mode = Mode::Active;
                spec.kill_switch.engaged = false;
                // A kill at a time: it names the only one.
                if let Some(id) = self.open.pop_last() {
                    spec.kill_switch.release = id;
                }
                assert!(self.open.is_empty(), "{:?}", self.open);
            }
            Step::Limits(ceilings) => spec.risk.limits = self.limits.under(ceilings),
            _ => unreachable!("{step:?} is nothing that people demand"),
        }
    }

    /// Tells the bot what was demanded; returns once it has acknowledged it.
    pub async fn tell(&mut self, bot: &Bot) {
        self.patch(|_| ()).await;
        self.acknowledged(bot).await;
    }

    /// Waits until the bot has acknowledged what the ArbBot says, and every incident that nobody has released, and no other but
    /// one whose release waits until its kill has ended (SAFETY §3).
    pub async fn acknowledged(&self, bot: &Bot) {
        let mut shown = bot.control_facts.clone();
        let released = self.asked.lock().unwrap().released.clone();
        let is_right = |incident: &IncidentStatus| {
            let waits = released.contains(&incident.id) && incident.phase != IncidentPhase::Finished;
            self.open.contains(&incident.id) || waits
        };
        let has_all = |facts: &ControlFacts| {
            let is_shown = |id: &String| facts.incidents.iter().any(|incident| incident.id == *id);
            facts.generation == self.bot.metadata.generation
                && self.open.iter().all(is_shown)
                && facts.incidents.iter().all(is_right)
        };
        let acknowledged = timeout(ACKNOWLEDGED_WITHIN, shown.wait_for(has_all)).await.is_ok();
        let facts = bot.control_facts.borrow();
        assert!(acknowledged, "generation {:?} and {:?}: {facts:#?}", self.bot.metadata.generation, self.open);
    }

    /// Waits until the bot has acknowledged that every kill under way is finished.
    pub async fn finished(&self, bot: &Bot, time: Duration) -> View {
        let mut shown = bot.control_facts.clone();
        let are_finished = |facts: &ControlFacts| {
            let mut phases = self.open.iter().map(|id| facts.incidents.iter().find(|incident| incident.id == *id));
            phases.all(|incident| incident.is_some_and(|incident| incident.phase == IncidentPhase::Finished))
        };
        let finished = timeout(time, shown.wait_for(are_finished)).await.is_ok();
        let view = bot.view.borrow().clone();
        assert!(finished, "{:?} is not finished: {:#?} {view:#?}", self.open, bot.control_facts.borrow());
        view
    }
}

async fn put_under_control(bot: &mut Bot, object: &ArbBot, asked: &Arc<Mutex<Asked>>) -> mpsc::Sender<Round> {
    let asked = Arc::clone(asked);
    bot.note_acknowledged(move |facts| asked.lock().unwrap().binds(facts));
    bot.under_control(object.clone()).await
}

/// What people asked for, by which an acknowledgement is read.
#[derive(Debug, Default)]
struct Asked {
    /// The ArbBot by its generations, from the last acknowledged one on.
    generations: BTreeMap<i64, ArbBot>,
    /// Ids of incidents that were named by a release.
    released: BTreeSet<String>,
    /// Incidents that were acknowledged, until the release that a person asked for is, too.
    open: BTreeMap<String, KillAction>,
    /// What binds the bot.
    in_force: Option<Control>,
}

impl Asked {
    fn patched(&mut self, bot: &ArbBot) {
        self.released.insert(bot.spec.kill_switch.release.clone());
        self.generations.insert(bot.metadata.generation.unwrap(), bot.clone());
    }

    /// The control that binds the bot by what it has acknowledged; None where that is nothing new.
    fn binds(&mut self, facts: &ControlFacts) -> Option<Control> {
        let generation = facts.generation?;
        self.generations = self.generations.split_off(&generation);
        let bot = &self.generations[&generation];
        self.open.extend(facts.incidents.iter().map(|incident| (incident.id.clone(), incident.action)));
        let is_shown = |id: &String| facts.incidents.iter().any(|incident| incident.id == *id);
        self.open.retain(|id, _| is_shown(id) || !self.released.contains(id));
        let kills = self.open.iter().map(|(id, action)| Restriction::kill(format!("incident/{id}"), *action, "open"));
        let restrictions: Vec<_> = spec_restrictions(bot).into_iter().chain(kills).collect();
        let control = effective(&bot.spec.risk.limits, &restrictions);
        let is_new = self.in_force.as_ref() != Some(&control);
        self.in_force = Some(control.clone());
        is_new.then_some(control)
    }
}
