//! Where control comes from and status goes to: a cluster or a file.

use std::sync::Arc;

use arbbot_crds::ArbBot;
use kube::ResourceExt;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::super::{RunArgs, Source};
use crate::clock::Clock;
use crate::control::contact::{ContactTask, Round};
use crate::control::file::FileTask;
use crate::control::file::state::AccountLock;
use crate::control::kubernetes;
use crate::control::lease::BotLease;
use crate::control::task::Watches;
use crate::control::writer::StatusSink;
use crate::risk::Gate;

/// What differs between a cluster and a file.
pub(super) struct Plane {
    /// Who this process is in status.
    pub(super) pod_uid: String,
    pub(super) watches: Watches,
    pub(super) contact: Contact,
    pub(super) sink: StatusSink,
    pub(super) _lock: Option<AccountLock>,
}

/// What keeps contact with where control comes from.
pub(super) enum Contact {
    Lease(Box<ContactTask>),
    File(Box<FileTask>),
}

impl Contact {
    pub(super) async fn run(self, shutdown: CancellationToken) {
        match self {
            Self::Lease(task) => task.run(shutdown).await,
            Self::File(task) => task.run(shutdown).await,
        }
    }
}

impl Plane {
    pub(super) fn new(
        source: Source,
        args: &RunArgs,
        bot: &ArbBot,
        (clock, gate): (&Clock, &Arc<Gate>),
        spec: &watch::Receiver<ArbBot>,
        rounds: mpsc::Sender<Round>,
    ) -> Self {
        let (clock, gate) = (clock.clone(), Arc::clone(gate));
        let (namespace, name) = (args.namespace().to_owned(), args.name().to_owned());
        match source {
            Source::Cluster(client) => Self {
                pod_uid: args.pod_uid.clone().unwrap_or_default(),
                watches: kubernetes::watches(&client, &namespace, &name),
                contact: Contact::Lease(Box::new(ContactTask {
                    client: client.clone(),
                    namespace: namespace.clone(),
                    name: name.clone(),
                    bot_uid: bot.uid().unwrap_or_default(),
                    clock: clock.clone(),
                    gate,
                    lease: BotLease::new(client.clone(), bot, args.pod_uid.as_deref().unwrap_or_default(), clock),
                    spec: spec.clone(),
                    rounds,
                })),
                sink: StatusSink::Kubernetes { client, namespace, name },
                _lock: None,
            },
            Source::File(file, lock) => Self {
                pod_uid: file.holder(),
                watches: Watches::none(),
                sink: StatusSink::File(file.status_file(&name)),
                contact: Contact::File(Box::new(FileTask { file, clock, gate, rounds })),
                _lock: lock,
            },
        }
    }
}
