//! The least that an acknowledgement can take: a bare watch that answers each change with a bare status write.

use anyhow::Result;
use arbbot_crds::ArbBot;
use futures::StreamExt;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde_json::json;
use tokio::task::AbortHandle;

use super::PATIENCE;
use crate::clock::milliseconds;
use crate::harness::{Bot, Room};
use crate::witness::Witness;

const NAME: &str = "floor";
/// An image that nobody can pull: no bot runs for this ArbBot, but the operator cares for it as for any other.
const IMAGE: &str = "nowhere.invalid/floor:1";

pub struct Floor<'a> {
    bot: Bot<'a>,
    witness: Witness,
    halted: bool,
    answering: AbortHandle,
}

impl<'a> Floor<'a> {
    pub async fn prepare(room: &Room<'a>, observer: &Client) -> Result<Self> {
        let bot = room.bot(NAME, json!({"spec": {"image": IMAGE}})).await?;
        let witness = Witness::of(Api::namespaced(observer.clone(), &room.name), NAME);
        let answering = tokio::spawn(answer(bot.api())).abort_handle();
        Ok(Self { bot, witness, halted: false, answering })
    }

    /// Patches the mode; milliseconds until the answer in status is visible to a third client.
    pub async fn acknowledge(&mut self) -> Result<f64> {
        self.halted = !self.halted;
        self.witness.forget();
        let mode = if self.halted { "Halted" } else { "Active" };
        let patched = self.bot.patch(json!({"spec": {"mode": mode}})).await?;
        let answered = |bot: &ArbBot| {
            let bot = bot.status.as_ref().and_then(|status| status.bot.as_ref());
            bot.and_then(|bot| bot.applied_generation) >= Some(patched.generation)
        };
        let sight = self.witness.first("the floor's status", patched.sent_ns, PATIENCE, answered).await?;
        Ok(milliseconds(patched.sent_ns, sight.ns))
    }
}

impl Drop for Floor<'_> {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

async fn answer(api: Api<ArbBot>) {
    let parameters = PatchParams::apply("bench-floor").force();
    let mut answered = 0;
    let mut versions = Box::pin(watcher::watch_object(api.clone(), NAME).default_backoff());
    while let Some(version) = versions.next().await {
        let Ok(Some(bot)) = version else { continue };
        let generation = bot.metadata.generation.unwrap_or_default();
        if generation <= answered {
            continue;
        }
        answered = generation;
        let status = json!({
            "apiVersion": "arbbot.io/v1alpha1", "kind": "ArbBot", "metadata": {"name": NAME},
            "status": {"bot": {"appliedGeneration": generation, "effectiveMode": "Halted"}},
        });
        if let Err(error) = api.patch_status(NAME, &parameters, &Patch::Apply(&status)).await {
            tracing::warn!(%error, "the floor's status was not written");
        }
    }
}
