//! Step 2 (pure): what the API server's schema cannot check. Only a [`ValidatedBot`] can be built.

use arbbot_crds::arbbot::Execution;
use arbbot_crds::names::RESERVED;
use arbbot_crds::{ArbBot, ArbBotSpec};
use kube::ResourceExt;

/// A bot whose children can be built.
#[derive(Clone, Debug)]
pub struct ValidatedBot {
    name: String,
    namespace: String,
    uid: String,
    image: String,
    spec: ArbBotSpec,
}

impl ValidatedBot {
    /// metadata.name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// metadata.namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// metadata.uid.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Image of its pod.
    #[must_use]
    pub fn image(&self) -> &str {
        &self.image
    }

    /// Its spec.
    #[must_use]
    pub fn spec(&self) -> &ArbBotSpec {
        &self.spec
    }
}

/// Why a bot's children cannot be built. Each message names the field and the remedy.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Invalid {
    /// The object is not one that the API server stored.
    #[error("metadata.{0} is missing: apply the ArbBot to an API server")]
    Metadata(&'static str),
    /// Names of children would be too long or no DNS labels.
    #[error(
        "metadata.name {0:?} is not usable: create the bot under a name of at most 40 lower-case letters, digits or '-' that starts with a letter and ends with a letter or digit"
    )]
    Name(String),
    /// Its children would have the names of the operator's own objects.
    #[error(
        "metadata.name {0:?} is reserved: the bot's objects would have the names of the operator's own. Create the bot under another name"
    )]
    Reserved(String),
    /// A label prefix is the operator's own.
    #[error(
        "spec.podTemplate.{field} has the key {key:?}: keys under arbbot.io/ are the operator's, use another prefix"
    )]
    ReservedKey { field: &'static str, key: String },
    /// A paper account is a file.
    #[error(
        "spec.ledger.postgres does not go with execution Paper: a paper account needs a volume. Create the bot with ledger.sqlite"
    )]
    PaperWithoutVolume,
}

/// Checks a bot.
///
/// # Errors
/// A field is not valid; nothing is built for the bot until it is changed. What runs keeps running.
pub fn validate(bot: &ArbBot, default_image: &str) -> Result<ValidatedBot, Invalid> {
    let name = bot.name_any();
    if !is_usable(&name) {
        return Err(Invalid::Name(name));
    }
    if RESERVED.contains(&name.as_str()) {
        return Err(Invalid::Reserved(name));
    }
    let template = &bot.spec.pod_template;
    for (field, map) in [("labels", &template.labels), ("annotations", &template.annotations)] {
        if let Some(key) = map.keys().find(|key| key.starts_with("arbbot.io/")) {
            return Err(Invalid::ReservedKey { field, key: key.clone() });
        }
    }
    if bot.spec.execution == Execution::Paper && bot.spec.ledger.postgres.is_some() {
        return Err(Invalid::PaperWithoutVolume);
    }
    Ok(ValidatedBot {
        name,
        namespace: bot.namespace().ok_or(Invalid::Metadata("namespace"))?,
        uid: bot.uid().ok_or(Invalid::Metadata("uid"))?,
        image: bot.spec.image.clone().unwrap_or_else(|| default_image.to_owned()),
        spec: bot.spec.clone(),
    })
}

/// The rule of the CRD's root, for an object stored before the rule was there.
fn is_usable(name: &str) -> bool {
    let of = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    name.len() <= 40
        && name.bytes().all(of)
        && name.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::bot;
    use super::*;
    use arbbot_crds::names::{LEADER_LEASE, child_name};

    #[test]
    fn the_operators_own_image_is_the_default() {
        let mut bot = bot("");
        assert_eq!(validate(&bot, "arb-bot:1").unwrap().image(), "arb-bot:1");
        bot.spec.image = Some("mine:2".to_owned());
        assert_eq!(validate(&bot, "arb-bot:1").unwrap().image(), "mine:2");
    }

    #[test]
    fn what_cannot_be_built_names_the_field() {
        let message = |bot: &ArbBot| validate(bot, "i").unwrap_err().to_string();
        let mut named = bot("");
        named.metadata.name = Some("x".repeat(41));
        assert!(message(&named).contains("metadata.name"));
        for (reserved, child) in [("operator", "arbbot-operator"), ("operator-leader", LEADER_LEASE)] {
            named.metadata.name = Some(reserved.to_owned());
            assert!(message(&named).contains("reserved"));
            assert_eq!(child_name(reserved), child);
        }
        let labelled = bot("  podTemplate: {labels: {arbbot.io/bot-uid: stolen}}\n");
        assert!(message(&labelled).contains("spec.podTemplate.labels"));
        let mut paper = bot("  ledger: {postgres: {secretRef: {name: db}}}\n");
        assert!(validate(&paper, "i").is_ok());
        paper.spec.execution = Execution::Paper;
        assert!(message(&paper).contains("spec.ledger.postgres"));
    }
}
