//! Control from Kubernetes: the watches of the own ArbBot and of the ArbPolicies of its namespace.

use arbbot_crds::arbbot::ArbBot;
use arbbot_crds::arbpolicy::ArbPolicy;
use futures::StreamExt;
use kube::Client;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};

use crate::control::observed::untyped;
use crate::control::task::Watches;

/// Watches them until it is dropped; a watch that fails starts again by itself, with backoff.
#[must_use]
pub fn watches(client: &Client, namespace: &str, name: &str) -> Watches {
    let own = watcher::Config::default().fields(&format!("metadata.name={name}"));
    Watches {
        bots: watcher(untyped::<ArbBot>(client, namespace), own).default_backoff().boxed(),
        policies: watcher(untyped::<ArbPolicy>(client, namespace), watcher::Config::default())
            .default_backoff()
            .boxed(),
    }
}
