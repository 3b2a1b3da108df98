//! A bot on paper, in a namespace without a key.

use std::sync::Arc;

use anyhow::{Result, ensure};
use arbbot_crds::ArbBot;
use arbbot_crds::arbbot::Execution;
use arbbot_crds::conditions::{ConditionType, Reason, find};
use arbbot_tests::harness::Desk;
use arbbot_tests::measure::Journal;
use serde_json::json;

pub async fn a_bot_on_paper_needs_no_key_obeys_a_kill_and_sends_nothing_to_the_exchange(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("paper").await?;
    let changes = json!({"spec": {
        "execution": "Paper", "credentials": null, "venue": {"coinbase": {"portfolio": null}},
        "paper": {"fees": {"spotMakerBps": "8"}},
    }});
    let bot = room.bot("try-carry", changes).await?;
    // There is no key in the namespace that it could have found.
    room.kubectl(&["delete", "secret", "try-carry-key"]).await?;
    let on_paper = |bot: &ArbBot| {
        let status = bot.status.as_ref();
        let key = status.and_then(|status| find(&status.conditions, ConditionType::CredentialsValid));
        status.and_then(|status| status.bot.as_ref()).is_some_and(|bot| bot.execution == Some(Execution::Paper))
            && key.is_some_and(|key| key.status == "True" && key.reason == Reason::OnPaper.to_string())
    };
    bot.wait("it says that it is on paper", on_paper).await?;
    bot.wait_condition(ConditionType::Trading, "True").await?;
    let owns = |bot: &ArbBot| {
        let position = bot.status.as_ref().and_then(|status| status.bot.as_ref()?.position.as_ref());
        position.is_some_and(|position| position.future_contracts.starts_with('-'))
    };
    bot.wait_for("a position on paper", std::time::Duration::from_secs(150), owns).await?;
    let shown = room.kubectl(&["get", "arbbots"]).await?;
    ensure!(shown.contains("EXECUTION") && shown.contains("Paper"), "{shown}");

    bot.kill().await?;
    bot.wait_kill_finished().await?;
    bot.wait_condition(ConditionType::Flat, "True").await?;
    let live = bot.patch(json!({"spec": {"execution": "Live"}})).await.err().map(|error| format!("{error:#}"));
    ensure!(live.as_ref().is_some_and(|error| error.contains("immutable")), "{live:?}");
    bot.delete().await?;
    bot.wait_gone().await?;
    let journal = bot.journal().await?;
    ensure!(journal.is_empty() && Journal(&journal).accepted() == 0, "the exchange saw something of it: {journal:?}");
    Ok(())
}
