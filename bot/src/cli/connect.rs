//! How a command reaches the exchange: a key from a directory of files, an endpoint from flags or from an ArbBot's file.

use std::path::PathBuf;

use anyhow::Context;
use arbbot_crds::ArbBot;
use clap::Args;

use crate::cli::output::Format;
use crate::clock::Clock;
use crate::control::file::document;
use crate::exchange::venue::Client;

/// Where production is.
pub(super) const PRODUCTION: &str = "https://api.coinbase.com";

/// Flags that every command with the exchange has.
#[derive(Clone, Debug, Args)]
pub struct Connection {
    /// Directory with the files `name` and `privateKey` of the API key.
    #[arg(long, value_name = "DIR")]
    pub credentials: PathBuf,
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
        let of_bot = self.bot()?.and_then(|bot| bot.spec.venue.coinbase.endpoints.first().map(|e| e.rest_url.clone()));
        let url = self.rest_url.clone().or(of_bot).unwrap_or_else(|| PRODUCTION.to_owned());
        Client::for_command(&url, self.ca_file.as_deref(), &self.credentials, Clock::system())
            .with_context(|| format!("no client for {url} with the key of {}", self.credentials.display()))
    }
}
