//! What the operator knows: every object that a reconcile looks at, kept by watches that always run, leader or not.
//!
//! A reconcile decides from here whether there is something to do, and reads from the API server what it then changes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use arbbot_crds::{ArbBot, ArbPolicy};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::{Client, Resource};
use tokio::sync::{Notify, Semaphore, watch as channel};
use tokio::task::JoinSet;

pub mod bots;
pub mod children;
pub mod leases;
mod packed;
pub mod pods;
pub mod policies;
pub mod raw;
mod slab;
pub mod store;
pub mod watch;

use bots::Bots;
use children::{BotTrigger, Children};
use leases::Leases;
use pods::Pods;
use policies::Policies;
use store::Key;
use watch::{Health, Scope, Sink, Turns, WatchView, follow};

use crate::fencing::Terminated;
use crate::metrics::Metrics;

/// First lists at once.
const LISTS_AT_ONCE: usize = 2;

/// What has become of an ArbBot or ArbPolicy.
pub enum Change<'a, K> {
    /// Something that a reconcile looks at.
    Transition,
    /// What the bots of a policy obey, and so everything that a reconcile of them looks at.
    Control,
    /// What a person changes: spec or labels. The new one has its managedFields; None: it is deleted.
    Wish(&'a K, Option<&'a K>),
    /// It is gone. Rivals wait for the claim that it may have held.
    Gone { uid: &'a str, rivals: Vec<Key> },
}

/// Hears of changes. It must not wait: a watch calls it.
pub type Listener<K> = Box<dyn Fn(&Key, Change<'_, K>) + Send + Sync>;

/// What is done on a change.
pub trait Reactions: Send + Sync + 'static {
    /// The bot has to be looked at.
    fn bot(&self, bot: &Key);
    /// The policy has to be looked at.
    fn policy(&self, policy: &Key);
    /// The bot is gone.
    fn bot_gone(&self, bot: &Key, uid: &str);
    /// A person has changed a bot.
    fn bot_wish(&self, old: &ArbBot, new: &ArbBot);
    /// A person has changed a policy, or deleted it.
    fn policy_wish(&self, old: &ArbPolicy, new: Option<&ArbPolicy>);
    /// Everything of the scope is known.
    fn scope_synced(&self, caches: &Caches, scope: &Scope);
}

/// Every cache.
pub struct Caches {
    pub bots: Arc<Bots>,
    pub policies: Arc<Policies>,
    pub pods: Arc<Pods>,
    pub leases: Arc<Leases>,
    pub service_accounts: Arc<Children<ServiceAccount>>,
    pub roles: Arc<Children<Role>>,
    pub role_bindings: Arc<Children<RoleBinding>>,
    pub services: Arc<Children<Service>>,
    pub ledger_claims: Arc<Children<PersistentVolumeClaim>>,
    pub network_policies: Arc<Children<NetworkPolicy>>,
    pub deployments: Arc<Children<Deployment>>,
    scopes: Vec<ScopeState>,
    at_once: Arc<Notify>,
    synced: channel::Sender<bool>,
}

struct ScopeState {
    scope: Scope,
    synced: AtomicBool,
    watches: Vec<Arc<Health>>,
}

impl Caches {
    /// Empty caches of these namespaces; none: all.
    #[must_use]
    pub fn new(namespaces: &[String], terminated: Arc<Terminated>, reactions: Arc<dyn Reactions>) -> Arc<Self> {
        let scopes = match namespaces {
            [] => vec![Scope(None)],
            some => some.iter().map(|namespace| Scope(Some(namespace.as_str().into()))).collect(),
        };
        Arc::new_cyclic(|caches: &Weak<Self>| Self {
            bots: Arc::new(Bots::new(on_bot(caches.clone(), reactions.clone()))),
            policies: Arc::new(Policies::new(on_policy(caches.clone(), reactions.clone()))),
            pods: Arc::new(Pods::new(on_child(&reactions), terminated)),
            leases: Arc::default(),
            service_accounts: Arc::new(Children::new(on_child(&reactions))),
            roles: Arc::new(Children::new(on_child(&reactions))),
            role_bindings: Arc::new(Children::new(on_child(&reactions))),
            services: Arc::new(Children::new(on_child(&reactions))),
            ledger_claims: Arc::new(Children::new(on_child(&reactions))),
            network_policies: Arc::new(Children::new(on_child(&reactions))),
            deployments: Arc::new(Children::new(on_child(&reactions))),
            scopes: scopes.into_iter().map(ScopeState::new).collect(),
            at_once: Arc::default(),
            synced: channel::Sender::new(false),
        })
    }

    /// Runs every watch until the future is dropped.
    ///
    /// # Errors
    /// A watch ended, which it never does by itself: a defect.
    pub async fn run(
        self: &Arc<Self>,
        client: &Client,
        metrics: &Metrics,
        reactions: &Arc<dyn Reactions>,
    ) -> anyhow::Result<()> {
        let mut watches = JoinSet::new();
        let turns = Turns { lists: Arc::new(Semaphore::new(LISTS_AT_ONCE)), at_once: self.at_once.clone() };
        for index in 0..self.scopes.len() {
            let start = Start { caches: self, client, metrics, reactions, turns: &turns, index };
            start.watch(&mut watches, &self.bots);
            start.watch(&mut watches, &self.policies);
            start.watch(&mut watches, &self.pods);
            start.watch(&mut watches, &self.service_accounts);
            start.watch(&mut watches, &self.roles);
            start.watch(&mut watches, &self.role_bindings);
            start.watch(&mut watches, &self.services);
            start.watch(&mut watches, &self.ledger_claims);
            start.watch(&mut watches, &self.network_policies);
            start.watch(&mut watches, &self.deployments);
            start.leases(&mut watches);
        }
        while let Some(ended) = watches.join_next().await {
            ended?;
        }
        anyhow::bail!("every watch ended by itself")
    }

    /// Whether everything of this namespace is known.
    #[must_use]
    pub fn is_synced(&self, namespace: &str) -> bool {
        let scope = self.scopes.iter().find(|scope| scope.scope.contains(namespace));
        scope.is_some_and(|scope| scope.synced.load(Ordering::Acquire))
    }

    /// Whether every bot that could hold a claim is known, or lies where the operator is not allowed to look.
    #[must_use]
    pub fn knows_all_bots(&self) -> bool {
        let kind = ArbBot::kind(&());
        self.watches().filter(|watch| watch.kind == kind).all(|watch| watch.is_synced_or_forbidden())
    }

    /// Whether everything is known of at least one scope, and of every other that the operator is allowed to look at: one
    /// namespace without permission takes no replica away from the others.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.synced_scopes().next().is_some() && self.watches().all(|watch| watch.is_synced_or_forbidden())
    }

    /// Becomes true once everything is known.
    #[must_use]
    pub fn synced(&self) -> channel::Receiver<bool> {
        self.synced.subscribe()
    }

    /// Scopes of which everything is known.
    pub fn synced_scopes(&self) -> impl Iterator<Item = &Scope> {
        self.scopes.iter().filter(|scope| scope.synced.load(Ordering::Acquire)).map(|scope| &scope.scope)
    }

    /// How each watch is.
    #[must_use]
    pub fn views(&self) -> Vec<WatchView> {
        self.watches().map(|watch| watch.view()).collect()
    }

    fn watches(&self) -> impl Iterator<Item = &Arc<Health>> {
        self.scopes.iter().flat_map(|scope| &scope.watches)
    }

    /// Watches that failed and wait for their next attempt do not wait any longer.
    pub fn watch_at_once(&self) {
        self.at_once.notify_waiters();
    }

    /// Kind and number of the objects that are known.
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, usize)> {
        let all = Scope(None);
        vec![
            ("ArbBot", self.bots.count()),
            ("ArbPolicy", Sink::count(self.policies.as_ref(), &all)),
            ("Pod", self.pods.count(&all)),
            ("Lease", self.leases.count(&all)),
            ("ServiceAccount", self.service_accounts.count(&all)),
            ("Role", self.roles.count(&all)),
            ("RoleBinding", self.role_bindings.count(&all)),
            ("Service", self.services.count(&all)),
            ("PersistentVolumeClaim", self.ledger_claims.count(&all)),
            ("NetworkPolicy", self.network_policies.count(&all)),
            ("Deployment", self.deployments.count(&all)),
        ]
    }

    /// Notes that a watch has its first list.
    fn watch_synced(&self, index: usize, reactions: &Arc<dyn Reactions>) {
        let Some(scope) = self.scopes.get(index) else { return };
        if !scope.watches.iter().all(|watch| watch.is_synced()) || scope.synced.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::info!(namespace = scope.scope.namespace(), "every watch has synced");
        reactions.scope_synced(self, &scope.scope);
        if self.scopes.iter().all(|scope| scope.synced.load(Ordering::Acquire)) {
            self.synced.send_replace(true);
        }
    }

    /// Declares everything known: for tests that fill the caches by hand.
    pub fn assume_synced(&self) {
        for scope in &self.scopes {
            for watch in &scope.watches {
                watch.set_synced();
            }
            scope.synced.store(true, Ordering::Release);
        }
        self.synced.send_replace(true);
    }
}

impl ScopeState {
    fn new(scope: Scope) -> Self {
        let kinds = [
            ArbBot::kind(&()),
            ArbPolicy::kind(&()),
            "Pod".into(),
            ServiceAccount::kind(&()),
            Role::kind(&()),
            RoleBinding::kind(&()),
            Service::kind(&()),
            PersistentVolumeClaim::kind(&()),
            NetworkPolicy::kind(&()),
            Deployment::kind(&()),
            "Lease".into(),
        ];
        let watches = kinds.map(|kind| Arc::new(Health::new(kind.into_owned(), scope.clone()))).into();
        Self { scope, synced: AtomicBool::new(false), watches }
    }

    fn health(&self, kind: &str) -> Option<&Arc<Health>> {
        self.watches.iter().find(|watch| watch.kind == kind)
    }
}

/// What the start of one scope's watches needs.
struct Start<'a> {
    caches: &'a Arc<Caches>,
    client: &'a Client,
    metrics: &'a Metrics,
    reactions: &'a Arc<dyn Reactions>,
    turns: &'a Turns,
    index: usize,
}

impl Start<'_> {
    fn on_synced(&self) -> impl Fn() + Send + 'static {
        let (caches, reactions, index) = (self.caches.clone(), self.reactions.clone(), self.index);
        move || caches.watch_synced(index, &reactions)
    }

    fn watch<S: Sink>(&self, watches: &mut JoinSet<()>, sink: &Arc<S>) {
        let Some(scope) = self.caches.scopes.get(self.index) else { return };
        if let Some(health) = scope.health(&S::Kind::kind(&())) {
            watches.spawn(follow(
                self.client,
                sink.clone(),
                health.clone(),
                self.metrics.clone(),
                self.turns.clone(),
                self.on_synced(),
            ));
        }
    }

    fn leases(&self, watches: &mut JoinSet<()>) {
        let Some(health) = self.caches.scopes.get(self.index).and_then(|scope| scope.health("Lease")).cloned() else {
            return;
        };
        let (leases, client, synced) = (self.caches.leases.clone(), self.client.clone(), self.on_synced());
        watches.spawn(async move {
            leases.follow(&client, &health).await;
            health.set_synced();
            synced();
        });
    }
}

fn on_bot(caches: Weak<Caches>, reactions: Arc<dyn Reactions>) -> Listener<ArbBot> {
    Box::new(move |key, change| {
        let namespace = store::split(key).0;
        match change {
            Change::Wish(old, Some(new)) => reactions.bot_wish(old, new),
            Change::Wish(_, None) => {}
            Change::Gone { uid, rivals } => {
                reactions.bot_gone(key, uid);
                rivals.iter().for_each(|rival| reactions.bot(rival));
            }
            Change::Transition | Change::Control => reactions.bot(key),
        }
        // Its policies count it.
        if let Some(caches) = caches.upgrade() {
            caches.policies.keys(Some(namespace)).iter().for_each(|policy| reactions.policy(policy));
        }
    })
}

fn on_policy(caches: Weak<Caches>, reactions: Arc<dyn Reactions>) -> Listener<ArbPolicy> {
    Box::new(move |key, change| {
        match change {
            Change::Wish(old, new) => return reactions.policy_wish(old, new),
            Change::Transition => return reactions.policy(key),
            Change::Control => reactions.policy(key),
            Change::Gone { .. } => {}
        }
        // Every bot of the namespace: also those that it selected until now.
        if let Some(caches) = caches.upgrade() {
            caches.bots.keys(Some(store::split(key).0)).iter().for_each(|bot| reactions.bot(bot));
        }
    })
}

fn on_child(reactions: &Arc<dyn Reactions>) -> BotTrigger {
    let reactions = reactions.clone();
    Box::new(move |bot| reactions.bot(bot))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::Controller;
    use crate::leadership::Leadership;

    #[test]
    fn one_forbidden_namespace_keeps_no_replica_from_being_ready() {
        let (controller, _tellings) = Controller::new(Arc::new(Leadership::none()));
        let reactions: Arc<dyn Reactions> = controller;
        let caches = Caches::new(&["a".to_owned(), "b".to_owned()], Arc::default(), reactions.clone());
        assert!(!caches.is_ready());
        let forbid = |index: usize| {
            for watch in &caches.scopes[index].watches {
                watch.set_error("forbidden".to_owned(), true);
            }
        };
        forbid(1);
        assert!(!caches.is_ready(), "the other has not synced");
        for watch in &caches.scopes[0].watches {
            watch.set_synced();
        }
        caches.watch_synced(0, &reactions);
        assert!(caches.is_ready());
        caches.scopes[1].watches[0].set_error("no answer".to_owned(), false);
        assert!(!caches.is_ready(), "that one may pass by itself");
        forbid(0);
        forbid(1);
        let alone = Caches::new(&["a".to_owned()], Arc::default(), reactions);
        for watch in &alone.scopes[0].watches {
            watch.set_error("forbidden".to_owned(), true);
        }
        assert!(!alone.is_ready(), "there is nothing else");
    }
}
