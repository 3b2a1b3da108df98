//! How a command reaches the exchange: a key from a directory of files, an endpoint from flags or from an ArbBot's file.

use std::path::PathBuf;

use anyhow::{Context, bail};
use arbbot_crds::ArbBot;
use arbbot_crds::arbbot::{Endpoint, Execution};
use clap::Args;

use crate::cli::output::Format;
use crate::clock::Clock;
use crate::control::file::document;
use crate::exchange::venue::{Client, PublicRest};

/// Where production is.
pub(super) const PRODUCTION: &str = "https://api.coinbase.com";

/// Flags that every command with the exchange has.
#[derive(Clone, Debug, Args)]
pub struct Connection {
    /// Directory with the files `name` and `privateKey` of the API key. Only the preflight of an ArbBot on paper needs
    /// none.
    #[arg(long, value_name = "DIR")]
    pub credentials: Option<PathBuf>,
    /// File with an ArbBot, whose first endpoint is used.
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Base URL of REST. Default: the first endpoint of the ArbBot, else production.
    #[arg(long, value_name = "URL")]
    pub rest_url: Option<String>,
    /// PEM certificates of the exchange's authority. Default: the public ones.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Form of the output.
    #[arg(long, short = 'o', value_enum, default_value_t)]
    pub output: Format,
}

impl Connection {
    /// The ArbBot of `-f`, where it is given.
    ///
    /// # Errors
    /// It cannot be read, or is not valid.
    pub fn bot(&self) -> anyhow::Result<Option<ArbBot>> {
        self.file.as_deref().map(document::load).transpose().map_err(anyhow::Error::from)
    }

    /// A client, with the venue's time measured.
    ///
    /// # Errors
    /// The key cannot be used or the exchange cannot be reached; the error says what to do.
    pub async fn open(&self) -> anyhow::Result<Client> {
        let client = self.client()?;
        client.measure_time().await.context("the exchange does not answer")?;
        Ok(client)
    }

    /// A client that has talked to nobody yet.
    ///
    /// # Errors
    /// The key cannot be used; the error says what to do.
    pub fn client(&self) -> anyhow::Result<Client> {
        let bot = self.bot()?;
        if bot.as_ref().is_some_and(|bot| bot.spec.execution == Execution::Paper) {
            bail!(
                "this ArbBot trades on paper: what it has is in its own ledger's directory and in its status, not at the \
                 exchange. Leave out -f to act on the real account of the key"
            );
        }
        let credentials = self.credentials.as_deref().context("give the directory of the key with --credentials")?;
        let url = self.url(bot.as_ref());
        Client::for_command(&url, self.ca_file.as_deref(), credentials, Clock::system())
            .with_context(|| format!("no client for {url} with the key of {}", credentials.display()))
    }

    /// A client for public market data, which needs no key.
    ///
    /// # Errors
    /// The authority or the URL cannot be used.
    pub fn market_data(&self) -> anyhow::Result<PublicRest> {
        let url = self.url(self.bot()?.as_ref());
        PublicRest::for_command(&url, self.ca_file.as_deref(), Clock::system())
            .with_context(|| format!("no client for {url}"))
    }

    /// The first endpoint of an ArbBot, with the base URL that was given instead of its own.
    pub(super) fn endpoint(&self, bot: &ArbBot) -> Option<Endpoint> {
        let mut endpoint = bot.spec.venue.coinbase.endpoints.first()?.clone();
        if let Some(url) = &self.rest_url {
            endpoint.rest_url.clone_from(url);
        }
        Some(endpoint)
    }

    fn url(&self, bot: Option<&ArbBot>) -> String {
        let of_bot = bot.and_then(|bot| self.endpoint(bot)).map(|endpoint| endpoint.rest_url);
        of_bot.or_else(|| self.rest_url.clone()).unwrap_or_else(|| PRODUCTION.to_owned())
    }
}
