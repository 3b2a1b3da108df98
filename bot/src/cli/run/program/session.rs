//! What keeps the session with the exchange: live, or on paper.

use std::sync::Arc;

use arbbot_crds::ArbBot;
use arbbot_crds::status::CredentialsStatus;
use arc_swap::ArcSwapOption;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::super::RunArgs;
use crate::clock::Clock;
use crate::exchange::paper::{Paper, PaperTask};
use crate::exchange::venue::{self, Connector, SessionTask, Transport};
use crate::exchange::{SessionFacts, VenueEvent};
use crate::randomness::Randomness;
use crate::risk::Gate;

/// What the session with an exchange needs.
pub(super) struct SessionParts<E> {
    pub(super) args: RunArgs,
    pub(super) clock: Clock,
    pub(super) venue: mpsc::Sender<VenueEvent>,
    pub(super) spec: watch::Receiver<ArbBot>,
    pub(super) gate: Arc<Gate>,
    pub(super) exchange: Arc<ArcSwapOption<E>>,
    pub(super) facts: watch::Sender<SessionFacts>,
    pub(super) before: Option<CredentialsStatus>,
}

pub(super) fn live(parts: SessionParts<venue::Client>, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
    let SessionParts { args, clock, venue, spec, gate, exchange, facts, before } = parts;
    let session = SessionTask {
        connector: Connector::new(Transport::Network, clock, Randomness::system(), venue),
        credentials_dir: args.credentials_dir,
        backup_credentials_dir: args.backup_credentials_dir,
        ca_file: args.ca_file,
        spec,
        gate,
        exchange,
        facts,
        before,
    };
    session.run(shutdown).boxed()
}

/// No key is read and no client that could place an order is made.
pub(super) fn on_paper(
    paper: Arc<Paper>,
    told: mpsc::UnboundedReceiver<VenueEvent>,
    parts: SessionParts<Paper>,
    shutdown: CancellationToken,
) -> BoxFuture<'static, ()> {
    let SessionParts { args, clock, venue, spec, exchange, facts, .. } = parts;
    let transport = Transport::Network;
    let (events, ca_file) = (venue, args.ca_file);
    let randomness = Randomness::system();
    PaperTask { paper, told, transport, clock, randomness, events, ca_file, spec, exchange, facts }
        .run(shutdown)
        .boxed()
}
