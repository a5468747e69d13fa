//! Sessions, leases, withdraw marks and pushes, on a server of the newest kind.

// Helpers belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use dlock_core::{Attempts, Backend, Mode, Outcome, Push, SessionTerms, StoreErrorKind, Wait};
use support::{Client, IMAGES, LIMIT, Server, ids, is_granted, is_waiting, name, until};

const LONG: Duration = Duration::from_secs(600);
const TAG: &str = "default.0";

/// LIVE-A, WAKE: a crashed holder's lock is freed within its TTL and the slack, by the waiter's own
/// look at the time that it was told.
#[tokio::test]
async fn a_crashed_holder_s_lock_goes_to_the_next_waiter() {
    let server = Server::redis().await;
    let backend = server.connect("").await.unwrap();
    let ttl = Duration::from_millis(600);
    let mut waiter = Client::open(&backend, LONG).await;
    // The lease counts from somewhere between these two.
    let before = Instant::now();
    let mut holder = Client::open(&backend, ttl).await;
    let after = Instant::now();
    let held = holder.claim("n", Mode::Exclusive);
    assert!(is_granted(
        holder.session().request(&held, Wait::InTurn).await.unwrap()
    ));
    let wanted = waiter.claim("n", Mode::Exclusive);
    let mut outcome = waiter
        .session()
        .request(&wanted, Wait::InTurn)
        .await
        .unwrap();
    let mut looks = 0;
    while let Outcome::Waiting { look_after } = outcome {
        tokio::time::sleep(look_after.unwrap()).await;
        looks += 1;
        outcome = waiter.session().status(&wanted).await.unwrap();
    }
    assert!(is_granted(outcome));
    let (most, least) = (before.elapsed(), after.elapsed());
    assert!(
        most >= ttl && least < ttl + backend.capabilities().slack,
        "{least:?} to {most:?}"
    );
    assert!(looks <= 2, "{looks} looks");
    // The session is over, whatever it tries.
    let claim = holder.claim("other", Mode::Null);
    for fault in [
        holder.session().renew().await.unwrap_err(),
        holder
            .session()
            .request(&claim, Wait::InTurn)
            .await
            .unwrap_err(),
        holder.session().status(&held).await.unwrap_err(),
    ] {
        assert_eq!(fault.kind(), StoreErrorKind::Lapsed);
    }
    holder
        .session()
        .withdraw(&held, Attempts::Unanswered)
        .await
        .unwrap();
    let snapshot = backend.inspect(&name("n")).await.unwrap();
    assert_eq!(ids(&snapshot), (vec![wanted.id], vec![]));
}

/// A renewed lease stands; a session with the same identity is never made again.
#[tokio::test]
async fn a_lease_lasts_while_it_is_renewed_and_never_comes_back() {
    let server = Server::redis().await;
    let backend = server.connect("?partitions=4").await.unwrap();
    let ttl = Duration::from_millis(900);
    let mut client = Client::open(&backend, ttl).await;
    let claims: Vec<_> = (0..8)
        .map(|n| client.claim(&format!("lock-{n}"), Mode::Exclusive))
        .collect();
    for claim in &claims {
        client.session().request(claim, Wait::Never).await.unwrap();
    }
    let start = Instant::now();
    while start.elapsed() < 3 * ttl {
        assert_eq!(client.session().renew().await.unwrap(), ttl);
        tokio::time::sleep(ttl / 4).await;
    }
    for claim in &claims {
        assert!(is_granted(client.session().status(claim).await.unwrap()));
    }
    let mut raw = server.raw().await;
    let leases: Vec<String> = raw.run(&["KEYS", "dlock:*:leases"]).await;
    assert_eq!(leases.len(), 4, "a lease in each partition in use");

    // The claims of one partition's lapsed lease are free, and the session is over at the next renewal.
    raw.lapse(TAG, client.id).await;
    let fault = client.session().renew().await.unwrap_err();
    assert_eq!(fault.kind(), StoreErrorKind::Lapsed);
    let (mailbox, _inbox) = dlock_core::Mailbox::new();
    let terms = SessionTerms {
        id: client.id,
        ttl,
        owner: claims[0].owner.clone(),
    };
    tokio::time::sleep(ttl).await;
    let fault = backend.open(&terms, mailbox).await.unwrap_err();
    assert_eq!(fault.kind(), StoreErrorKind::Lapsed);
}

/// ONCE: a late copy of the first request in a partition does not bring a closed session back.
#[tokio::test]
async fn a_late_request_makes_no_lease_for_a_session_that_is_over() {
    let server = Server::redis().await;
    let backend = server.connect("?partitions=4").await.unwrap();
    let mut client = Client::open(&backend, LONG).await;
    let claims: Vec<_> = (0..8)
        .map(|n| client.claim(&format!("lock-{n}"), Mode::Exclusive))
        .collect();
    // Withdrawn before they arrive, each in a partition that may not know the session yet.
    for claim in &claims {
        client
            .session()
            .withdraw(claim, Attempts::Unanswered)
            .await
            .unwrap();
        let outcome = client.session().request(claim, Wait::InTurn).await.unwrap();
        assert_eq!(outcome, Outcome::Absent);
    }
    // Partitions in which nothing was ever made.
    let other = server
        .connect("?partitions=4&namespace=other")
        .await
        .unwrap();
    let mut unknown = Client::open(&other, LONG).await;
    let late: Vec<_> = (0..8)
        .map(|n| unknown.claim(&format!("lock-{n}"), Mode::Exclusive))
        .collect();
    for claim in &late {
        let session = unknown.session();
        session.withdraw(claim, Attempts::Answered).await.unwrap();
    }
    unknown.session().close().await.unwrap();
    for claim in &late {
        let request = unknown.session().request(claim, Wait::InTurn);
        assert_eq!(request.await.unwrap_err().kind(), StoreErrorKind::Lapsed);
    }
    client.session().close().await.unwrap();
    for claim in &claims {
        let fault = client
            .session()
            .request(claim, Wait::InTurn)
            .await
            .unwrap_err();
        assert_eq!(fault.kind(), StoreErrorKind::Lapsed);
        assert!(backend.inspect(&claim.name).await.unwrap().is_free());
    }
    assert_eq!(backend.names().await.unwrap(), []);
}

/// A lock that is taken and tried changes nothing, not even a lease.
#[tokio::test]
async fn a_try_on_a_held_lock_writes_nothing() {
    let server = Server::redis().await;
    let backend = server.connect("?partitions=8").await.unwrap();
    let mut holder = Client::open(&backend, LONG).await;
    let mut other = Client::open(&backend, LONG).await;
    let names: Vec<String> = (0..16).map(|n| format!("lock-{n}")).collect();
    for name in &names {
        let claim = holder.claim(name, Mode::ProtectedRead);
        holder.session().request(&claim, Wait::Never).await.unwrap();
    }
    let mut raw = server.raw().await;
    let dirty = async |raw: &mut support::Raw| -> String {
        let info: String = raw.run(&["INFO", "persistence"]).await;
        let line = info.lines().find(|line| line.starts_with("rdb_changes"));
        line.unwrap().to_owned()
    };
    let before = dirty(&mut raw).await;
    for name in &names {
        let claim = other.claim(name, Mode::ConcurrentWrite);
        let outcome = other.session().request(&claim, Wait::Never).await.unwrap();
        assert_eq!(outcome, Outcome::Absent);
    }
    assert_eq!(dirty(&mut raw).await, before);
    // A lapsed holder does not count.
    for partition in 0..8 {
        raw.lapse(&format!("default.{partition}"), holder.id).await;
    }
    let claim = other.claim(&names[0], Mode::ConcurrentWrite);
    assert!(is_granted(
        other.session().request(&claim, Wait::Never).await.unwrap()
    ));
}

/// CANCEL, LIVE-A: what a closed session held is free at once, and whom that grants is told.
#[tokio::test]
async fn closing_frees_everything_and_tells_the_next() {
    let server = Server::redis().await;
    let backend = server.connect("?partitions=3").await.unwrap();
    let mut holder = Client::open(&backend, LONG).await;
    let mut waiter = Client::open(&backend, LONG).await;
    let mut waiting = Vec::new();
    for n in 0..300 {
        let held = holder.claim(&format!("lock-{n}"), Mode::Exclusive);
        holder.session().request(&held, Wait::Never).await.unwrap();
    }
    for n in 0..300 {
        let claim = waiter.claim(&format!("lock-{n}"), Mode::Exclusive);
        assert!(is_waiting(
            waiter
                .session()
                .request(&claim, Wait::InTurn)
                .await
                .unwrap()
        ));
        assert!(matches!(holder.push().await, Push::Contended(_)));
        waiting.push(claim.id);
    }
    holder.session().close().await.unwrap();
    while !waiting.is_empty() {
        match waiter.push().await {
            Push::Granted(claim, _) => waiting.retain(|id| *id != claim),
            other => panic!("{other:?}"),
        }
    }
    holder.session().close().await.unwrap();
    let never_sent = waiter.claim("lock-0", Mode::Null);
    let leaving = waiter.session().withdraw(&never_sent, Attempts::Unanswered);
    leaving.await.unwrap();
    waiter.session().close().await.unwrap();
    // Nothing is left but the tombstones of the sessions, and the order.
    let mut raw = server.raw().await;
    for partition in 0..3 {
        let prefix = format!("dlock:{{default.{partition}}}:");
        let mut keys: Vec<String> = raw.run(&["KEYS", &format!("{prefix}*")]).await;
        keys.sort_unstable();
        assert_eq!(keys, ["last", "leases"].map(|key| format!("{prefix}{key}")));
        let leases = format!("{prefix}leases");
        let living: i64 = raw.run(&["ZCOUNT", &leases, "0", "+inf"]).await;
        assert_eq!(living, 0);
    }
}

/// LIVE-A: locks that nobody asks for are freed too, by whoever renews or opens a session.
#[tokio::test]
async fn what_crashed_sessions_left_is_swept_up() {
    let server = Server::redis().await;
    let backend = server.connect("").await.unwrap();
    let mut raw = server.raw().await;
    let client = Client::open(&backend, LONG).await;
    for with_claims in [true, false] {
        let mut crashed = Client::open(&backend, LONG).await;
        for n in 0..if with_claims { 100 } else { 0 } {
            let claim = crashed.claim(&format!("lock-{n}"), Mode::Exclusive);
            crashed
                .session()
                .request(&claim, Wait::Never)
                .await
                .unwrap();
        }
        raw.lapse(TAG, crashed.id).await;
        assert_eq!(
            backend.names().await.unwrap(),
            [],
            "a lapsed lease counts as absent"
        );
        let claim = crashed.claim("lock-0", Mode::Null);
        assert!(backend.inspect(&claim.name).await.unwrap().is_free());
        for fault in [
            crashed
                .session()
                .request(&claim, Wait::InTurn)
                .await
                .unwrap_err(),
            crashed.session().status(&claim).await.unwrap_err(),
            crashed.session().renew().await.unwrap_err(),
        ] {
            assert_eq!(fault.kind(), StoreErrorKind::Lapsed);
        }
        until("all is swept up", async || {
            client.session().renew().await.unwrap();
            let left: i64 = raw
                .run(&["ZCARD", &format!("dlock:{{{TAG}}}:claims")])
                .await;
            let key = format!("dlock:{{{TAG}}}:leases");
            let lapse: f64 = raw.run(&["ZSCORE", &key, &crashed.id.to_string()]).await;
            left == 0 && lapse < 0.0
        })
        .await;
    }
}

/// ATOM-B: an unlock must survive a server without memory; a new lock is refused clearly.
#[tokio::test]
async fn a_full_server_refuses_locks_but_not_unlocks() {
    for image in IMAGES {
        let server = Server::start(image, &[]).await;
        let backend = server.connect("").await.unwrap();
        let mut client = Client::open(&backend, LONG).await;
        let mut waiter = Client::open(&backend, LONG).await;
        let held = client.claim("n", Mode::Exclusive);
        client.session().request(&held, Wait::Never).await.unwrap();
        let wanted = waiter.claim("n", Mode::Exclusive);
        waiter
            .session()
            .request(&wanted, Wait::InTurn)
            .await
            .unwrap();

        let mut raw = server.raw().await;
        let _: String = raw.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
        let refused = client.claim("m", Mode::Exclusive);
        let fault = client
            .session()
            .request(&refused, Wait::InTurn)
            .await
            .unwrap_err();
        assert_eq!(fault.kind(), StoreErrorKind::Refused);
        assert!(fault.to_string().contains("out of memory"), "{fault}");
        assert!(is_waiting(waiter.session().status(&wanted).await.unwrap()));
        waiter.session().renew().await.unwrap();
        let session = client.session();
        session
            .withdraw(&refused, Attempts::Unanswered)
            .await
            .unwrap();
        session.withdraw(&held, Attempts::Answered).await.unwrap();
        assert!(matches!(waiter.push().await, Push::Granted(id, _) if id == wanted.id));
        backend.inspect(&name("n")).await.unwrap();
        waiter.session().close().await.unwrap();
        client.session().close().await.unwrap();
    }
}

/// The scripts are gone after a restart or a failover: they are loaded again.
#[tokio::test]
async fn forgotten_scripts_are_loaded_again() {
    let server = Server::redis().await;
    let backend = server.connect("").await.unwrap();
    let mut client = Client::open(&backend, LONG).await;
    let mut raw = server.raw().await;
    for n in 0..3 {
        let claim = client.claim(&format!("lock-{n}"), Mode::Exclusive);
        let _: String = raw.run(&["SCRIPT", "FLUSH"]).await;
        assert!(is_granted(
            client.session().request(&claim, Wait::Never).await.unwrap()
        ));
        let _: String = raw.run(&["SCRIPT", "FLUSH"]).await;
        client
            .session()
            .withdraw(&claim, Attempts::Answered)
            .await
            .unwrap();
        client.session().renew().await.unwrap();
    }
}

/// WAKE: pushes come again after the subscription's connection was cut, and a broken connection for
/// commands is replaced.
#[tokio::test]
async fn cut_connections_are_made_again() {
    let server = Server::redis().await;
    let backend = server.connect("").await.unwrap();
    let mut holder = Client::open(&backend, LONG).await;
    let mut waiter = Client::open(&backend, LONG).await;
    let mut raw = server.raw().await;
    for kind in ["pubsub", "normal"] {
        let _: i64 = raw.run(&["CLIENT", "KILL", "TYPE", kind]).await;
        let key = "PUBSUB";
        until("both are subscribed again", async || {
            let channels: Vec<String> = raw.run(&[key, "CHANNELS"]).await;
            channels.len() == 2
        })
        .await;
        // At most one answer is lost to the cut.
        let held = holder.claim("n", Mode::Exclusive);
        let mut outcome = holder.session().request(&held, Wait::InTurn).await;
        if let Err(fault) = outcome {
            assert_eq!(fault.kind(), StoreErrorKind::Ambiguous);
            outcome = holder.session().request(&held, Wait::InTurn).await;
        }
        assert!(is_granted(outcome.unwrap()));
        let wanted = waiter.claim("n", Mode::Exclusive);
        assert!(is_waiting(
            waiter
                .session()
                .request(&wanted, Wait::InTurn)
                .await
                .unwrap()
        ));
        assert_eq!(holder.push().await, Push::Contended(held.id));
        holder
            .session()
            .withdraw(&held, Attempts::Answered)
            .await
            .unwrap();
        assert!(matches!(waiter.push().await, Push::Granted(id, _) if id == wanted.id));
        waiter
            .session()
            .withdraw(&wanted, Attempts::Answered)
            .await
            .unwrap();
    }
}

/// CANCEL: an attempt that is dropped unanswered does not hold up the next one, which uses a
/// connection of its own and leaves a mark for the late request (ONCE).
#[tokio::test]
async fn a_dropped_attempt_holds_nobody_up_and_is_never_granted() {
    let server = Server::redis().await;
    let backend = server.connect("").await.unwrap();
    let mut client = Client::open(&backend, LONG).await;
    let claim = client.claim("n", Mode::Exclusive);
    let mut raw = server.raw().await;
    let connections = async |raw: &mut support::Raw| -> Vec<String> {
        let list: String = raw.run(&["CLIENT", "LIST", "TYPE", "normal"]).await;
        let ours = list.lines().filter(|line| line.contains("lib-name=dlock"));
        ours.filter_map(|line| line.split(' ').next())
            .map(str::to_owned)
            .collect()
    };
    let before = connections(&mut raw).await;
    assert_eq!(before.len(), 1);
    // Nothing is answered, and the request waits in the connection.
    server.pause().await;
    let request = client.session().request(&claim, Wait::InTurn);
    assert!(
        tokio::time::timeout(Duration::from_millis(400), request)
            .await
            .is_err()
    );
    server.unpause().await;
    client
        .session()
        .withdraw(&claim, Attempts::Unanswered)
        .await
        .unwrap();
    until(
        "another connection is used, and the abandoned one is closed",
        async || {
            let now = connections(&mut raw).await;
            now.len() == 1 && now != before
        },
    )
    .await;
    assert!(backend.inspect(&claim.name).await.unwrap().is_free());
    assert_eq!(
        client.session().status(&claim).await.unwrap(),
        Outcome::Absent
    );
}

/// A session's task and connection go with it.
#[tokio::test]
async fn a_dropped_session_leaves_no_subscription() {
    let server = Server::redis().await;
    let backend = server.connect("").await.unwrap();
    let client = Client::open(&backend, LONG).await;
    let mut raw = server.raw().await;
    let mut inbox = client.inbox;
    drop(client.opened);
    let end = tokio::time::timeout(LIMIT, inbox.next()).await.unwrap();
    assert_eq!(end, None);
    until("the subscription is gone", async || {
        let channels: Vec<String> = raw.run(&["PUBSUB", "CHANNELS"]).await;
        channels.is_empty()
    })
    .await;
}

/// After its data was lost a namespace may be made with another layout: old clients must not go on.
#[tokio::test]
async fn a_namespace_that_was_made_anew_with_another_layout_is_refused() {
    let server = Server::redis().await;
    let old = server.connect("?partitions=2").await.unwrap();
    let mut client = Client::open(&old, LONG).await;
    let claim = client.claim("n", Mode::Exclusive);
    client.session().request(&claim, Wait::Never).await.unwrap();
    let mut raw = server.raw().await;
    let _: String = raw.run(&["FLUSHALL"]).await;
    server.connect("?partitions=3").await.unwrap();
    let fault = client.session().renew().await.unwrap_err();
    assert_eq!(fault.kind(), StoreErrorKind::Lapsed);
    let (mailbox, _inbox) = dlock_core::Mailbox::new();
    let terms = SessionTerms {
        id: dlock_core::SessionId::random(),
        ttl: LONG,
        owner: claim.owner.clone(),
    };
    let fault = old.open(&terms, mailbox).await.unwrap_err();
    assert_eq!(fault.kind(), StoreErrorKind::Refused);
    assert!(fault.to_string().contains("3 partitions"), "{fault}");
}

/// Whoever deletes the leases ends the sessions; their locks do not stay for ever.
#[tokio::test]
async fn deleted_leases_leave_no_lock_behind() {
    let server = Server::redis().await;
    let backend = server.connect("").await.unwrap();
    let mut client = Client::open(&backend, LONG).await;
    for _ in 0..20 {
        let claim = client.claim("n", Mode::ProtectedRead);
        assert!(is_granted(
            client
                .session()
                .request(&claim, Wait::InTurn)
                .await
                .unwrap()
        ));
    }
    let key = format!("dlock:{{{TAG}}}:leases");
    let _: i64 = server.raw().await.run(&["DEL", &key]).await;
    let fault = client.session().renew().await.unwrap_err();
    assert_eq!(fault.kind(), StoreErrorKind::Lapsed);
    let mut next = Client::open(&backend, LONG).await;
    let wanted = next.claim("n", Mode::Exclusive);
    assert!(is_waiting(
        next.session().request(&wanted, Wait::InTurn).await.unwrap()
    ));
    until("the next one has it", async || {
        is_granted(next.session().status(&wanted).await.unwrap())
    })
    .await;
}

/// A first request in a partition counts only for a time: a copy of it that arrives much later, when
/// even the tombstone is gone, makes no lease.
#[tokio::test]
async fn a_request_may_make_a_lease_only_for_a_time() {
    let server = Server::redis().await;
    let backend = server.connect("").await.unwrap();
    let mut client = Client::open(&backend, LONG).await;
    let mut raw = server.raw().await;
    let _: String = raw
        .run(&["CONFIG", "SET", "slowlog-log-slower-than", "0"])
        .await;
    let claim = client.claim("n", Mode::Null);
    client.session().request(&claim, Wait::Never).await.unwrap();
    // The request as it was sent: EVALSHA, hash, 4, keys, then the arguments. Its session and the
    // time until which it counts are changed; and it is given a TTL, which is not sent where the lease
    // is known.
    let log: Vec<redis::Value> = raw.run(&["SLOWLOG", "GET", "10"]).await;
    let sent: Vec<Vec<String>> = log
        .into_iter()
        .filter_map(|entry| match entry {
            redis::Value::Array(mut fields) => redis::from_redis_value(fields.swap_remove(3)).ok(),
            _ => None,
        })
        .collect();
    let request = sent
        .iter()
        .find(|words| words[0] == "EVALSHA" && words.contains(&"never".into()));
    let mut words = request.unwrap().clone();
    let place = words
        .iter()
        .position(|word| *word == claim.id.to_string())
        .unwrap();
    let (seconds, _): (u64, u64) = raw.run(&["TIME"]).await;
    for (until, expected) in [(seconds - 1, "lapsed"), (seconds + 60, "granted")] {
        words[place] = client.claim("n", Mode::Null).id.to_string();
        words[place].replace_range(..32, &dlock_core::SessionId::random().to_string());
        words[place + 2] = (until * 1000).to_string();
        words[place + 3] = LONG.as_millis().to_string();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let answer: Vec<redis::Value> = raw.run(&words).await;
        assert_eq!(answer[0], redis::Value::BulkString(expected.into()));
    }
}
