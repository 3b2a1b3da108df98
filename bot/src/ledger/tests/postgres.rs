//! What only a ledger on a server can meet: other writers, a server that is gone, slow or has lost something, and a
//! Secret that is wrong.

use super::*;

/// Two directories of one ledger: two pods of one bot.
fn two_pods() -> (TempDir, TempDir) {
    let (a, b) = (Kind::Postgres.dir(), tempfile::tempdir().unwrap());
    let Source::Server(server) = Place::from(a.path()).source().unwrap() else { panic!("it is on a server") };
    Server::in_schema(&database().1, server.schema()).point(b.path()).unwrap();
    (a, b)
}

fn schema(dir: &Path) -> String {
    match Place::from(dir).source().unwrap() {
        Source::Server(server) => server.schema().to_owned(),
        Source::File(_) => panic!("it is on a server"),
    }
}

/// Ends the sessions of every bot whose ledger this is, as a cut network does in the end.
fn cut(dir: &Path) {
    let sql = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND \
         ((classid::bigint << 32) | objid::bigint) = hashtextextended('arbbot ledger {}', 0)",
        schema(dir)
    );
    assert_eq!(database().0.sql("bots0", &sql), "1");
}

fn intent(n: u32) -> NewOrder {
    new_order(&format!("b-1-{n}"))
}

#[tokio::test]
async fn a_second_pod_gets_the_ledger_only_when_the_first_has_ended() {
    let (a, b) = two_pods();
    let (first, _) = open(a.path()).await;
    let error = Ledger::open(b.path(), &binding(), Clock::manual()).await.unwrap_err();
    assert_eq!(error.reason(), "LedgerLocked", "{error}");
    first.intent(&intent(1), Class::Enter, 1).await.unwrap();
    drop(first);
    let (_second, recovered) = open(b.path()).await;
    assert_eq!(recovered.orders.len(), 1);
}

#[tokio::test]
async fn a_pod_that_was_cut_off_writes_no_intent_once_another_has_the_ledger() {
    let (a, b) = two_pods();
    let (first, _) = open(a.path()).await;
    first.intent(&intent(1), Class::Enter, 1).await.unwrap();
    cut(a.path());
    let (second, _) = open(b.path()).await;
    let error = loop {
        // The first write after the cut only finds the broken connection.
        match first.intent(&intent(2), Class::Enter, 1).await.unwrap_err() {
            LedgerError::Server { .. } => {}
            error => break error,
        }
    };
    assert_eq!(error.reason(), "LedgerTakenOver", "{error}");
    first.intent_or_journal(&intent(3), Class::Kill, 1, KILL_DEADLINE).await.unwrap();
    assert_eq!(first.journaled(), 1, "its kill does not depend on the ledger");
    second.intent(&intent(4), Class::Enter, 2).await.unwrap();
    drop(second);
    // The ledger is free again, but somebody else wrote in it: the first one does not go on as if nothing had been.
    let error = first.intent(&intent(5), Class::Enter, 1).await.unwrap_err();
    assert_eq!(error.reason(), "LedgerTakenOver", "{error}");
    let ids: Vec<_> = orders(b.path()).await.unwrap().into_iter().map(|order| order.client_order_id).collect();
    assert_eq!(ids, ["b-1-1", "b-1-4"]);
}

#[tokio::test]
async fn an_intent_of_an_earlier_epoch_is_refused_and_everything_else_goes_on() {
    let (dir, ledger) = new_ledger(Kind::Postgres).await;
    ledger.intent(&intent(1), Class::Enter, 4).await.unwrap();
    ledger.intent(&intent(2), Class::Enter, 5).await.unwrap();
    let error = ledger.intent(&intent(3), Class::Enter, 4).await.unwrap_err();
    assert_eq!((error.reason(), error.is_storage()), ("LedgerFenced", false), "{error}");
    let problem = || ledger.problems().borrow().clone();
    let shown = problem().expect("it is shown");
    assert!(shown.kind == ProblemKind::Lost && shown.message.contains("its Lease was restored"), "{shown:?}");
    // A kill and a repair are the Lease's and the gate's to refuse, not the ledger's.
    for (n, class) in [(8, Class::Kill), (9, Class::Trim)] {
        ledger.intent_or_journal(&intent(n), class, 4, LONG).await.unwrap();
    }
    assert_eq!(ledger.journaled(), 2);
    ledger.order(&update("b-1-1", RecordStatus::Open, 1)).await.unwrap();
    assert_eq!(ledger.journaled(), 0, "the next write that is taken brings them in");
    ledger.check().await;
    assert_eq!(problem().map(|problem| problem.kind), Some(ProblemKind::Lost), "an intent still would be refused");
    tamper(dir.path(), "UPDATE writer SET epoch = 0").await;
    ledger.check().await;
    assert_eq!(problem(), None, "what the page says helps");
    ledger.intent(&intent(3), Class::Enter, 5).await.unwrap();
    drop(ledger);
    let (ledger, _) = open(dir.path()).await;
    let error = ledger.intent(&intent(6), Class::Enter, 4).await.unwrap_err();
    assert_eq!(error.reason(), "LedgerFenced", "after a restart too");
    drop(ledger);
    // A new bot of the same name has a Lease of its own, which counts from one.
    let successor = Binding { bot_uid: "uid-2".to_owned(), ..binding() };
    let (ledger, _) = open_as(dir.path(), &successor, Clock::manual()).await.unwrap();
    ledger.intent(&intent(7), Class::Enter, 1).await.unwrap();
    verify(dir.path()).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_broke_is_made_anew() {
    let (dir, ledger) = new_ledger(Kind::Postgres).await;
    ledger.intent(&intent(1), Class::Enter, 1).await.unwrap();
    cut(dir.path());
    let error = ledger.intent(&intent(2), Class::Enter, 1).await.unwrap_err();
    assert!(error.is_storage(), "{error}");
    ledger.intent(&intent(3), Class::Enter, 1).await.unwrap();
    assert_eq!(verify(dir.path()).await.unwrap(), ledger.head());
}

#[tokio::test]
async fn a_slow_server_stops_orders_but_not_a_kill() {
    let (dir, ledger) = new_ledger(Kind::Postgres).await;
    ledger.intent(&intent(1), Class::Enter, 1).await.unwrap();
    // Somebody holds the row that every write needs, for longer than a write waits.
    let sql = format!(
        "SET search_path = \"{}\"; BEGIN; SELECT 1 FROM writer FOR UPDATE; SELECT pg_sleep(4)",
        schema(dir.path())
    );
    let held = std::thread::spawn(move || database().0.sql("bots0", &sql));
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(4)%' AND pid <> pg_backend_pid()";
    let began = std::time::Instant::now();
    while database().0.sql("bots0", waiting) == "0" {
        assert!(began.elapsed() < LONG, "nobody holds the row");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    kill_intent(&ledger, "b-1-2").await.unwrap();
    latch(&ledger, "aaaaaaaa-3").await.unwrap();
    assert_eq!(ledger.journaled(), 2);
    // An order that waits as long as the driver does for its intent is not sent.
    let waited = tokio::time::timeout(SHORT, ledger.intent(&intent(3), Class::Enter, 1)).await;
    assert!(!waited.is_ok_and(|intended| intended.is_ok()));
    held.join().unwrap();
    ledger.intent(&intent(4), Class::Enter, 1).await.unwrap();
    assert_eq!(ledger.journaled(), 0);
    drop(ledger);
    let recovered = open(dir.path()).await.1;
    for order in ["b-1-1", "b-1-2", "b-1-4"] {
        assert_eq!(recovered.orders.iter().filter(|known| known.client_order_id == order).count(), 1, "{order}");
    }
    assert_eq!(recovered.incidents.len(), 1);
    verify(dir.path()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_killed_has_every_order_that_was_told_to_be_durable() {
    // Its default would lose the last commits of a crash: the ledger must not rely on a default.
    let server = server::Server::start(&["synchronous_commit=off", "wal_writer_delay=10s"]);
    let dir = tempfile::tempdir().unwrap();
    Server::of_bot(&server.secret(), "desk", "carry").point(dir.path()).unwrap();
    let (ledger, _) = open(dir.path()).await;
    let mut durable = Vec::new();
    for round in 0..3 {
        let writer = ledger.clone();
        let writes = tokio::spawn(async move {
            let mut durable = Vec::new();
            for n in 0.. {
                let order = new_order(&format!("b-{round}-{n}"));
                match writer.intent(&order, Class::Enter, 1).await {
                    Ok(()) => durable.push(order.client_order_id),
                    Err(error) if error.is_storage() && n > 0 => return durable,
                    Err(error) => panic!("{error}"),
                }
            }
            durable
        });
        let entries = ledger.head().entries;
        let began = std::time::Instant::now();
        while ledger.head().entries < entries + 30 {
            assert!(began.elapsed() < 2 * LONG, "the writer does not get on");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.crash();
        durable.extend(writes.await.unwrap());
        let kill = format!("kill-{round}");
        kill_intent(&ledger, &kill).await.unwrap();
        durable.push(kill);
        server.start_again();
        ledger.remember_claim("a", &round.to_string()).await.unwrap();
    }
    assert!(durable.len() > 90);
    drop(ledger);
    let (ledger, recovered) = open(dir.path()).await;
    let there: Vec<_> = recovered.orders.iter().map(|order| &order.client_order_id).collect();
    assert!(durable.iter().all(|id| there.contains(&id)));
    assert_eq!(verify(dir.path()).await.unwrap(), ledger.head());
}

#[tokio::test]
async fn a_server_that_lost_what_it_had_acknowledged_takes_nothing_more() {
    let (dir, ledger) = new_ledger(Kind::Postgres).await;
    ledger.intent(&intent(1), Class::Enter, 1).await.unwrap();
    ledger.intent(&intent(2), Class::Enter, 1).await.unwrap();
    let head = ledger.head();
    tamper(dir.path(), "DELETE FROM orders WHERE client_order_id = 'b-1-2'; DELETE FROM entries WHERE n = 3").await;
    cut(dir.path());
    ledger.intent(&intent(3), Class::Enter, 1).await.unwrap_err();
    let error = ledger.intent(&intent(3), Class::Enter, 1).await.unwrap_err();
    assert_eq!((error.reason(), error.is_storage()), ("LedgerEntriesLost", true), "{error}");
    let shown = ledger.problems().borrow().clone().unwrap().message;
    assert!(shown.contains("reads the exchange's history") && !shown.contains("under another name"), "{shown}");
    drop(ledger);
    let (ledger, _) = open(dir.path()).await;
    assert!(!ledger.continues(&head).await.unwrap(), "the head in the status tells the next start");
}

#[tokio::test]
async fn a_backup_of_one_kind_can_be_restored_in_the_other() {
    let (dir, ledger) = new_ledger(Kind::Sqlite).await;
    for n in 0..5 {
        ledger.intent(&intent(n), Class::Enter, 1).await.unwrap();
    }
    ledger.order(&update("b-1-0", RecordStatus::Filled, 5)).await.unwrap();
    ledger.open_incident(&incident("aaaaaaaa-3", IncidentPhase::Flattening)).await.unwrap();
    ledger.keep_equity(&[EquityHigh { at: Timestamp::UNIX_EPOCH, equity_quote: dec!(7) }]).await.unwrap();
    let before = ledger.head();
    let file = dir.path().join("backup.db");
    assert_eq!(backup(dir.path(), &file).await.unwrap(), before);

    let (to, other) = new_ledger(Kind::Postgres).await;
    let error = restore(to.path(), &file, Timestamp::UNIX_EPOCH).await.unwrap_err();
    assert_eq!(error.reason(), "LedgerLocked", "a bot has it");
    drop(other);
    let restored = restore(to.path(), &file, Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(restored.head, before);
    assert!(restored.replaced.unwrap().ends_with(".replaced-19700101T000000Z"));
    let (ledger, recovered) = open(to.path()).await;
    assert_eq!((recovered.orders.len(), recovered.incidents.len(), recovered.guards.equity.len()), (5, 1, 1));
    let ids: Vec<_> = recovered.orders.iter().map(|order| order.client_order_id.as_str()).collect();
    assert_eq!(ids, ["b-1-0", "b-1-1", "b-1-2", "b-1-3", "b-1-4"]);
    ledger.intent(&intent(9), Class::Enter, 1).await.unwrap();

    let back = dir.path().join("back.db");
    assert_eq!(backup(to.path(), &back).await.unwrap(), ledger.head(), "while the bot writes");
    let elsewhere = tempfile::tempdir().unwrap();
    assert_eq!(restore(elsewhere.path(), &back, Timestamp::UNIX_EPOCH).await.unwrap().head, ledger.head());
    let (_ledger, recovered) = open(elsewhere.path()).await;
    assert_eq!(recovered.orders.len(), 6);
}

#[tokio::test]
async fn a_backup_of_an_older_schema_can_be_restored_on_a_server() {
    let (dir, ledger) = new_ledger(Kind::Sqlite).await;
    ledger.intent(&intent(1), Class::Enter, 1).await.unwrap();
    ledger.close().await;
    drop(ledger);
    tamper(dir.path(), "DROP TABLE funding_rates; PRAGMA user_version = 3").await;
    let file = dir.path().join("backup.db");
    let head = backup(dir.path(), &file).await.unwrap();
    let to = Kind::Postgres.dir();
    assert_eq!(restore(to.path(), &file, Timestamp::UNIX_EPOCH).await.unwrap().head, head);
    let (ledger, recovered) = open(to.path()).await;
    assert_eq!(recovered.orders.len(), 1);
    ledger.funding_rate("F", Timestamp::UNIX_EPOCH, dec!(0.1)).await.unwrap();
}

#[tokio::test]
async fn the_rights_that_the_page_names_are_enough() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ledger.md")).unwrap();
    let block = page.split("```sql\n").nth(1).unwrap().split("```").next().unwrap();
    let (server, _) = database();
    for statement in block.split(';').filter(|statement| !statement.trim().is_empty()) {
        server.sql("postgres", statement);
    }
    let secret = tempfile::tempdir().unwrap();
    let url = server.url("bots", "trading").replace(server::Server::password(), "change-me");
    std::fs::write(secret.path().join("url"), url).unwrap();
    let dir = tempfile::tempdir().unwrap();
    Server::of_bot(secret.path(), "desk-a", "btc-carry").point(dir.path()).unwrap();
    let (ledger, _) = open(dir.path()).await;
    ledger.intent(&intent(1), Class::Enter, 1).await.unwrap();
    drop(ledger);
    server.sql("trading", "UPDATE \"desk-a/btc-carry\".writer SET epoch = 0");
    verify(dir.path()).await.unwrap();
}

/// What a role needs that docs/ledger.md names: nothing but a schema that is its own.
#[tokio::test]
async fn a_role_without_rights_on_the_database_uses_a_schema_that_was_made_for_it() {
    let (server, _) = database();
    let secret = server.secret();
    let name = secret.file_name().unwrap().to_str().unwrap();
    server.sql("postgres", &format!("REVOKE CREATE ON DATABASE {name} FROM {name}"));
    let dir = tempfile::tempdir().unwrap();
    Server::of_bot(&secret, "desk", "carry").point(dir.path()).unwrap();
    let error = Ledger::open(dir.path(), &binding(), Clock::manual()).await.unwrap_err().to_string();
    assert!(error.contains("permission denied for database"), "{error}");
    server.sql(name, &format!("CREATE SCHEMA \"desk/carry\" AUTHORIZATION {name}"));
    let (ledger, _) = open(dir.path()).await;
    ledger.intent(&intent(1), Class::Enter, 1).await.unwrap();
    assert_eq!(verify(dir.path()).await.unwrap(), ledger.head());
}

#[tokio::test]
async fn a_secret_that_is_wrong_is_named_and_nothing_of_it_is_shown() {
    let (server, _) = database();
    let secret = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    Server::of_bot(secret.path(), "desk", "secret").point(dir.path()).unwrap();
    let right = server.url("bots0", "bots0");
    let password = server::Server::password();
    let of = |changed: &str| (changed.to_owned(), "LedgerSecretInvalid");
    for ((url, reason), what) in [
        (of(""), "no URL"),
        (of(password), "no URL"),
        (of(&right.replace("postgres:", "mysql:")), "postgres://"),
        (of(&right.replace("bots0:", ":")), "a user"),
        (of(&right.replace("/bots0?", "?")), "a database"),
        (of(&right.replace("disable", "prefer")), "sslmode"),
        (of(&right.replace("sslmode=disable", &format!("passwd={password}"))), "a parameter other than sslmode"),
        (of(&format!("postgres://bots0:a@b/c?{password}@127.0.0.1/bots0")), "a parameter other than sslmode"),
        (of(&right.replace("127.0.0.1:", &format!("127.0.0.1:{password}"))), "port"),
        ((right.replace("?sslmode=disable", ""), "LedgerUnwritable"), "server does not support TLS"),
        ((right.replace(password, &format!("{password}-2")), "LedgerUnwritable"), "password authentication failed"),
        ((right.replace("/bots0?", "/other?"), "LedgerUnwritable"), "database \"other\" does not exist"),
    ] {
        std::fs::write(secret.path().join("url"), url).unwrap();
        let error = Ledger::open(dir.path(), &binding(), Clock::manual()).await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert_eq!(error.reason(), reason, "{shown}");
        assert!(shown.contains(what), "{what}: {shown}");
        assert!(!shown.contains(password), "{shown}");
    }
    std::fs::remove_file(secret.path().join("url")).unwrap();
    let error = Ledger::open(dir.path(), &binding(), Clock::manual()).await.unwrap_err();
    assert!(error.to_string().contains("the key `url` is missing"), "{error}");
    // A Secret that is put right needs no restart.
    std::fs::write(secret.path().join("url"), &right).unwrap();
    let (ledger, _) = open(dir.path()).await;
    assert!(!format!("{ledger:?}").contains(password));
}

#[tokio::test]
async fn the_kind_of_a_ledger_never_changes() {
    let (dir, ledger) = new_ledger(Kind::Sqlite).await;
    ledger.close().await;
    let server = Server::of_bot(&database().1, "desk", "other");
    assert_eq!(server.point(dir.path()).unwrap_err().reason(), "LedgerKindChanged");
    Server::is_not_in(dir.path()).unwrap();
    let dir = Kind::Postgres.dir();
    assert_eq!(Server::is_not_in(dir.path()).unwrap_err().reason(), "LedgerKindChanged");
    assert_eq!(server.point(dir.path()).unwrap_err().reason(), "LedgerKindChanged", "another bot's");
}

#[tokio::test]
async fn every_table_is_copied() {
    let (dir, _ledger) = new_ledger(Kind::Postgres).await;
    let tables =
        "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_tables WHERE schemaname = current_schema()";
    let tables = database().0.sql("bots0", &format!("SET search_path = \"{}\"; {tables}", schema(dir.path())));
    let mut copied: Vec<_> = store::TABLES.into_iter().chain(["writer"]).collect();
    copied.sort_unstable();
    assert_eq!(tables, copied.join(" "));
}

#[test]
fn a_long_name_keeps_its_difference() {
    let long = |end: &str| format!("{}/{}{end}", "n".repeat(63), "b".repeat(39));
    let fitting = place::fitting;
    assert_eq!(fitting("desk-a/btc-carry"), "desk-a/btc-carry");
    assert!(fitting(&long("x")).len() <= 63 && fitting(&long("x")) != fitting(&long("y")));
}
