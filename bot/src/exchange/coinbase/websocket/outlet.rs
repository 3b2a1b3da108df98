//! Where the WebSockets of one session tell what they hear. While another session is the one in use, only orders are
//! told: what they say is true whoever says it, and a connection that nobody relies on is no news.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::timeout;

use crate::exchange::{Link, VenueEvent};

/// Attempts in a row without a connection after which an endpoint counts as failing.
const FAILURES: u32 = 5;

/// The events of one session.
#[derive(Debug)]
pub struct Outlet {
    events: mpsc::Sender<VenueEvent>,
    /// Held while an event is handed over, so that none comes after the session was put out of use.
    in_use: Mutex<bool>,
    links: watch::Sender<BTreeMap<Link, State>>,
}

#[derive(Clone, Debug)]
struct State {
    /// None: up.
    down: Option<String>,
    /// Attempts in a row without a connection.
    failures: u32,
}

impl Outlet {
    /// An outlet that is not yet in use.
    pub fn new(events: mpsc::Sender<VenueEvent>) -> Self {
        let state = State { down: Some("not yet connected".to_owned()), failures: 0 };
        let links = [Link::MarketWebSocket, Link::UserWebSocket].map(|link| (link, state.clone()));
        Self { events, in_use: Mutex::new(false), links: watch::Sender::new(links.into()) }
    }

    /// Tells an event. Returns whether anybody still listens.
    pub async fn tell(&self, event: VenueEvent) -> bool {
        let in_use = self.in_use.lock().await;
        if let VenueEvent::Link { link, down } = &event {
            self.note(*link, |state| state.down.clone_from(down));
        }
        if *in_use || matches!(event, VenueEvent::Order(_)) {
            self.events.send(event).await.is_ok()
        } else {
            !self.events.is_closed()
        }
    }

    /// Notes how many attempts in a row have not led to a connection that lasted.
    pub fn failed(&self, link: Link, failures: u32) {
        self.note(link, |state| state.failures = failures);
    }

    /// From now on everything is told, first how the connections are.
    pub async fn put_in_use(&self) {
        let mut in_use = self.in_use.lock().await;
        *in_use = true;
        let links = self.links.borrow().clone();
        for (link, state) in links {
            // Nobody listens any more only when the program ends.
            self.events.send(VenueEvent::Link { link, down: state.down }).await.ok();
        }
    }

    /// From now on only orders are told.
    pub async fn put_out_of_use(&self) {
        *self.in_use.lock().await = false;
    }

    /// Waits until both connections are up.
    pub async fn up(&self) {
        // It fails only without the sender, which is here.
        self.links.subscribe().wait_for(|links| links.values().all(|state| state.down.is_none())).await.ok();
    }

    /// Waits until both connections are up.
    ///
    /// # Errors
    /// They are not after so long, and why.
    pub async fn up_within(&self, patience: Duration) -> Result<(), String> {
        let up = timeout(patience, self.up()).await;
        up.map_err(|_| self.down().unwrap_or_else(|| "the WebSockets do not last".to_owned()))
    }

    /// Why a connection is down now.
    pub fn down(&self) -> Option<String> {
        self.links.borrow().iter().find_map(|(link, state)| Some(format!("{link}: {}", state.down.as_ref()?)))
    }

    /// Why a connection counts as failing; None while both work, or may soon.
    pub fn failing(&self) -> Option<String> {
        let links = self.links.borrow();
        let failing = links.iter().find(|(_, state)| state.failures >= FAILURES);
        failing.map(|(link, state)| format!("{link}: {}", state.down.as_deref().unwrap_or("it does not last")))
    }

    fn note(&self, link: Link, change: impl FnOnce(&mut State)) {
        self.links.send_modify(|links| {
            if let Some(state) = links.get_mut(&link) {
                change(state);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(link: Link, down: Option<&str>) -> VenueEvent {
        VenueEvent::Link { link, down: down.map(str::to_owned) }
    }

    #[tokio::test]
    async fn a_session_that_is_not_in_use_says_nothing_of_its_connections_until_it_is() {
        let (events, mut heard) = mpsc::channel(16);
        let outlet = Outlet::new(events);
        assert!(outlet.tell(link(Link::MarketWebSocket, None)).await);
        assert!(outlet.tell(VenueEvent::Touch { product: "BTC-USD".into(), touch: None }).await);
        assert!(heard.try_recv().is_err());
        assert!(outlet.down().is_some_and(|down| down.starts_with("UserWebSocket")));
        assert!(outlet.tell(link(Link::UserWebSocket, None)).await);
        outlet.up().await;
        outlet.put_in_use().await;
        assert_eq!(heard.try_recv().unwrap(), link(Link::MarketWebSocket, None));
        assert_eq!(heard.try_recv().unwrap(), link(Link::UserWebSocket, None));
        outlet.put_out_of_use().await;
        outlet.tell(link(Link::UserWebSocket, Some("cut"))).await;
        assert!(heard.try_recv().is_err());
        drop(heard);
        assert!(!outlet.tell(link(Link::UserWebSocket, None)).await);
    }

    #[test]
    fn a_connection_fails_after_five_attempts_in_a_row() {
        let outlet = Outlet::new(mpsc::channel(1).0);
        outlet.failed(Link::UserWebSocket, 4);
        assert_eq!(outlet.failing(), None);
        outlet.failed(Link::UserWebSocket, 5);
        assert_eq!(outlet.failing().as_deref(), Some("UserWebSocket: not yet connected"));
        outlet.failed(Link::UserWebSocket, 0);
        assert_eq!(outlet.failing(), None);
    }
}
