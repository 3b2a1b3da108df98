//! Keys and endpoints change while the bot trades: without a gap, and never to a key that is not fit (SAFETY §8).

use std::sync::Arc;
use std::time::Duration;

use arb_bot::exchange::SessionFacts;
use arb_bot::risk::Class;
use arbbot_crds::arbbot::ActiveKey;
use arbbot_crds::conditions::Reason;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::bot::{Bot, Machine};
use super::exchange::Exchange;
use super::network::Network;
use super::spec::{endpoint, spec};
use super::{machine, paused};

/// An exchange on which the keys 0, 2 and 3 are of the bot's account, and where a bot runs.
struct Room {
    exchange: Exchange,
    network: Arc<Network>,
    dir: TempDir,
}

impl Room {
    fn new() -> Self {
        Self { exchange: Exchange::start(1, false), network: Network::new(1), dir: tempfile::tempdir().unwrap() }
    }

    fn machine(&self, credentials: Value, coinbase: Value) -> Machine<'_> {
        let mut machine = machine(&self.exchange, &self.network, 1, self.dir.path());
        machine.spec = spec(&self.exchange.portfolio(), &credentials, &coinbase);
        machine
    }

    fn put(&self, key: &str, place: &str) {
        self.exchange.put_key(key, &self.dir.path().join(place));
    }

    fn fingerprint(&self, place: &str) -> String {
        arb_bot::exchange::venue::ApiKey::load(&self.dir.path().join(place)).unwrap().fingerprint()
    }

    async fn revoke(&self, key: &str) {
        self.exchange.fault(json!({"kind": "key_revoked", "key": self.exchange.key_name(key)})).await;
    }
}

async fn trading(bot: &Bot) {
    bot.wait("it trades", |view| {
        let entry_is_open = bot.gate.allows(Class::Enter).is_ok();
        entry_is_open && view.prices_fresh && view.open_orders > 0 && view.links.iter().all(|(_, down)| down.is_none())
    })
    .await;
}

fn works(facts: &SessionFacts) -> bool {
    facts.open && facts.unfit.is_none()
}

/// Whether a connection was ever told to be down while `change` was awaited.
async fn without_a_gap<T>(bot: &Bot, change: impl Future<Output = T>) -> T {
    let mut view = bot.view.clone();
    view.borrow_and_update();
    let transitions = || bot.gate.history().last().map(|transition| transition.sequence);
    let before = transitions();
    let watched = async {
        loop {
            view.changed().await.unwrap();
            let down = view.borrow_and_update().links.iter().find_map(|(link, down)| Some((*link, down.clone()?)));
            if let Some((link, cause)) = down {
                return format!("{link}: {cause}");
            }
        }
    };
    let changed = tokio::select! {
        biased;
        down = watched => panic!("a connection went down: {down}"),
        changed = change => changed,
    };
    assert_eq!(transitions(), before, "the gate moved: {:?}", bot.gate.history());
    changed
}

#[test]
fn a_changed_key_file_takes_over_without_a_gap() {
    paused(async {
        let room = Room::new();
        let bot = Bot::start(&room.machine(json!({}), json!({})), 1).await;
        trading(&bot).await;
        let before = bot.session("a key in use", works).await;
        room.put("2", "primary");
        let wanted = room.fingerprint("primary");
        assert_ne!(before.fingerprint, wanted);
        let after = without_a_gap(&bot, bot.session("the new key", |facts| facts.fingerprint == wanted)).await;
        assert_eq!((after.pending.as_str(), after.problem, after.unfit), ("", None, None));
        // The old key is worth nothing any more; nobody notices.
        room.revoke("0").await;
        without_a_gap(&bot, tokio::time::sleep(Duration::from_secs(60))).await;
        assert!(works(&bot.facts.borrow()), "{:?}", bot.facts.borrow());
    });
}

#[test]
fn a_key_that_is_not_fit_leaves_the_earlier_one_in_full_use_and_says_why() {
    paused(async {
        let room = Room::new();
        let bot = Bot::start(&room.machine(json!({}), json!({})), 1).await;
        trading(&bot).await;
        let first = bot.session("a key in use", works).await;
        for (key, reason) in [
            ("transfer", Reason::KeyMayTransfer),
            ("view-only", Reason::KeyMayNotTrade),
            ("1", Reason::PortfolioMismatch),
        ] {
            room.put(key, "primary");
            let refused = bot.session(key, |facts| facts.problem.as_ref().is_some_and(|(r, _)| *r == reason)).await;
            assert_eq!((&refused.fingerprint, &refused.unfit), (&first.fingerprint, &None));
            assert_eq!(refused.pending, room.fingerprint("primary"));
            assert!(bot.gate.allows(Class::Enter).is_ok(), "{key}: {:?}", bot.gate.restrictions());
        }
        std::fs::write(room.dir.path().join("primary/privateKey"), "not a key").unwrap();
        let unreadable = |facts: &SessionFacts| matches!(&facts.problem, Some((Reason::KeyUnreadable, _)));
        bot.session("an unreadable key", unreadable).await;
        room.put("0", "primary");
        let after = bot.session("the first key again", |facts| facts.problem.is_none()).await;
        assert_eq!((after.fingerprint, after.pending.as_str()), (first.fingerprint, ""));
    });
}

#[test]
fn a_secret_that_is_deleted_leaves_a_key_that_only_cancels_and_lowers() {
    paused(async {
        let room = Room::new();
        let bot = Bot::start(&room.machine(json!({}), json!({})), 1).await;
        trading(&bot).await;
        std::fs::remove_dir_all(room.dir.path().join("primary")).unwrap();
        let cut_off = |facts: &SessionFacts| matches!(&facts.unfit, Some((Reason::SecretMissing, _)));
        bot.session("the cut-off", cut_off).await;
        assert!(bot.gate.allows(Class::Enter).is_err());
        assert!(bot.gate.allows(Class::Reduce).is_ok() && bot.gate.allows(Class::Trim).is_ok());
        bot.wait("entries are cancelled", |view| view.open_orders == 0).await;
        room.put("0", "primary");
        bot.session("the key again", works).await;
        assert!(bot.gate.allows(Class::Enter).is_ok(), "{:?}", bot.gate.restrictions());
        trading(&bot).await;
    });
}

#[test]
fn the_active_key_is_changed_by_the_spec_and_back() {
    paused(async {
        let room = Room::new();
        room.put("2", "backup");
        let bot = Bot::start(&room.machine(json!({"backupSecretRef": {"name": "b"}}), json!({})), 1).await;
        trading(&bot).await;
        for active in [ActiveKey::Backup, ActiveKey::Primary] {
            bot.spec.send_modify(|bot| bot.spec.credentials.active = active);
            let facts = without_a_gap(&bot, bot.session("the change", |facts| facts.active == Some(active))).await;
            let place = if active == ActiveKey::Backup { "backup" } else { "primary" };
            assert_eq!(facts.fingerprint, room.fingerprint(place));
            assert!(works(&facts));
        }
    });
}

#[test]
fn a_refused_key_fails_over_only_where_it_may_and_to_a_fit_backup() {
    for (failover, backup, takes_over) in
        [("OnRefused", "2", true), ("Never", "2", false), ("OnRefused", "transfer", false), ("OnRefused", "1", false)]
    {
        paused(async {
            let room = Room::new();
            room.put(backup, "backup");
            let credentials = json!({"backupSecretRef": {"name": "b"}, "failover": failover});
            let bot = Bot::start(&room.machine(credentials, json!({})), 1).await;
            trading(&bot).await;
            let began = tokio::time::Instant::now();
            room.revoke("0").await;
            let refused = |facts: &SessionFacts| matches!(&facts.unfit, Some((Reason::KeyRefused, _)));
            bot.session("the refusal", refused).await;
            if takes_over {
                let over = bot.session("the backup", |facts| facts.active == Some(ActiveKey::Backup)).await;
                assert!(began.elapsed() >= Duration::from_secs(10), "{:?}", began.elapsed());
                assert!(works(&over) && over.failed_over.is_some(), "{over:?}");
                trading(&bot).await;
                // A new primary key ends it.
                room.put("3", "primary");
                let back = bot.session("the primary", |facts| facts.active == Some(ActiveKey::Primary)).await;
                assert!(works(&back) && back.failed_over.is_none(), "{back:?}");
            } else {
                tokio::time::sleep(Duration::from_secs(60)).await;
                let facts = bot.facts.borrow().clone();
                assert_eq!(facts.active, Some(ActiveKey::Primary), "{backup}");
                assert!(refused(&facts), "{facts:?}");
                assert!(bot.gate.allows(Class::Enter).is_err());
                // Accepted again, it goes on as if nothing had been.
                room.exchange.fault(json!({"clear": true})).await;
                bot.session("the key is accepted again", works).await;
            }
        });
    }
}

#[test]
fn a_failing_endpoint_is_left_for_the_next_and_preferred_again_once_it_works() {
    paused(async {
        let room = Room::new();
        let coinbase = json!({"endpoints": [endpoint("first"), endpoint("second")]});
        let bot = Bot::start(&room.machine(json!({}), coinbase), 1).await;
        trading(&bot).await;
        assert_eq!(bot.facts.borrow().endpoint, "first");
        room.network.block(Some("first"));
        bot.session("the second endpoint", |facts| facts.endpoint == "second").await;
        trading(&bot).await;
        room.network.block(None);
        let back = bot.session("the first endpoint", |facts| facts.endpoint == "first");
        let facts = without_a_gap(&bot, back).await;
        assert_eq!(facts.problem, None);
    });
}

#[test]
fn a_key_that_cannot_be_used_keeps_nobody_from_leaving_an_endpoint_that_fails() {
    paused(async {
        let room = Room::new();
        let coinbase = json!({"endpoints": [endpoint("first"), endpoint("second")]});
        let bot = Bot::start(&room.machine(json!({}), coinbase), 1).await;
        trading(&bot).await;
        let first = bot.session("a key in use", works).await;
        room.put("transfer", "primary");
        let refused = |facts: &SessionFacts| matches!(&facts.problem, Some((Reason::KeyMayTransfer, _)));
        bot.session("the new key is refused", refused).await;
        room.network.block(Some("first"));
        let after = bot.session("the second endpoint", |facts| facts.endpoint == "second").await;
        assert_eq!(after.fingerprint, first.fingerprint, "with the key in use");
        trading(&bot).await;
        let still = bot.session("the refused key is told of", refused).await;
        assert_eq!(still.pending, room.fingerprint("primary"));
    });
}

#[test]
fn an_endpoint_of_another_portfolio_is_not_used() {
    paused(async {
        let room = Room::new();
        let coinbase = json!({"endpoints": [endpoint("first")]});
        let bot = Bot::start(&room.machine(json!({}), coinbase), 1).await;
        trading(&bot).await;
        // Behind the new endpoint the same key belongs to somebody else.
        let other = room.exchange.with_the_keys_of_another_portfolio();
        room.network.route("elsewhere", Arc::clone(&other.simulator));
        bot.spec.send_modify(|bot| {
            bot.spec.venue.coinbase.endpoints = vec![serde_json::from_value(endpoint("elsewhere")).unwrap()];
        });
        let mismatch = |facts: &SessionFacts| matches!(&facts.problem, Some((Reason::PortfolioMismatch, _)));
        let facts = bot.session("the mismatch", mismatch).await;
        assert_eq!((facts.endpoint.as_str(), facts.unfit), ("first", None));
        assert!(other.accepted().await.is_empty());
    });
}

#[test]
fn a_key_that_moves_to_another_portfolio_places_nothing_more() {
    paused(async {
        let room = Room::new();
        let bot = Bot::start(&room.machine(json!({}), json!({})), 1).await;
        trading(&bot).await;
        let (key, to) = (room.exchange.key_name("0"), room.exchange.accounts.portfolios[1].uuid);
        room.exchange.fault(json!({"kind": "portfolio_changed", "key": key, "to": to})).await;
        let mismatch = |facts: &SessionFacts| matches!(&facts.unfit, Some((Reason::PortfolioMismatch, _)));
        bot.session("the mismatch", mismatch).await;
        for class in [Class::Enter, Class::Hedge, Class::Reduce] {
            assert!(bot.gate.allows(class).is_err(), "{class}");
        }
    });
}

#[test]
fn an_old_key_is_reminded_of() {
    paused(async {
        let room = Room::new();
        let bot = Bot::start(&room.machine(json!({"maxAge": "5m"}), json!({})), 1).await;
        let young = bot.session("a key in use", works).await;
        assert!(!young.is_old);
        let old = bot.session("the reminder", |facts| facts.is_old).await;
        assert!(works(&old));
    });
}
