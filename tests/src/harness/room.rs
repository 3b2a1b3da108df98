//! A namespace for one scenario.

use anyhow::Result;
use serde_json::{Value, json};

use super::bot::Bot;
use super::desk::Desk;
use crate::exchange::Account;
use crate::kubectl::Output;
use crate::objects;

/// A namespace with the exchange's certificate authority in it.
pub struct Room<'a> {
    pub desk: &'a Desk,
    pub name: String,
}

impl<'a> Room<'a> {
    pub(super) fn new(desk: &'a Desk, name: &str) -> Self {
        Self { desk, name: name.to_owned() }
    }

    /// Applies an object in this namespace.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn apply(&self, object: &Value) -> Result<()> {
        let mut object = object.clone();
        object["metadata"]["namespace"] = json!(self.name);
        self.desk.kubectl.apply(&object).await
    }

    /// Runs kubectl in this namespace.
    ///
    /// # Errors
    /// It fails.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.desk.kubectl.run(&[&["-n", &self.name], arguments].concat()).await
    }

    /// Runs kubectl in this namespace, whether it succeeds or not.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn try_kubectl(&self, arguments: &[&str]) -> Result<Output> {
        self.desk.kubectl.output(&[&["-n", &self.name], arguments].concat(), "").await
    }

    /// The spec of a bot on an account of its own, not yet applied; its key is in the Secret `<name>-key`.
    ///
    /// # Errors
    /// No account is left, or the Secret cannot be made.
    pub async fn draft(&self, name: &str) -> Result<(Value, Account)> {
        let account = self.desk.account()?;
        let secret = format!("{name}-key");
        self.apply(&objects::secret(&secret, &account.key)).await?;
        Ok((objects::bot(name, &account, self.desk.exchange.authority(), &secret), account))
    }

    /// Applies a bot on an account of its own; `changes` are merged into its object first.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn bot(&self, name: &str, changes: Value) -> Result<Bot<'a>> {
        let (mut object, account) = self.draft(name).await?;
        objects::merge(&mut object, &changes);
        self.apply(&object).await?;
        Ok(self.handle(name, &account))
    }

    /// A bot that trades: both legs are there and orders rest.
    ///
    /// # Errors
    /// It does not come to that in time.
    pub async fn trading_bot(&self, name: &str) -> Result<Bot<'a>> {
        let bot = self.bot(name, json!({})).await?;
        bot.wait_until_trading().await?;
        Ok(bot)
    }

    /// A handle on a bot that was or will be applied.
    pub fn handle(&self, name: &str, account: &Account) -> Bot<'a> {
        Bot { desk: self.desk, namespace: self.name.clone(), name: name.to_owned(), account: account.clone() }
    }
}
