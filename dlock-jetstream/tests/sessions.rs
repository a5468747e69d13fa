//! Sessions, leases, withdraws, pushes and what they cost, on a real server.

// Helpers belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use dlock_core::{Attempts, Backend, Mode, Outcome, Push, StoreErrorKind, Wait};
use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::json;
use support::{Client, LONG, Proxy, Server, connect, ids, is_granted, is_waiting, name, until};

const FREE_FOR: &str = "86400";

/// LIVE-A, WAKE: a crashed holder's lock is freed within its TTL and the slack, by the waiter's own
/// looks. The death mark stands before its claims are taken out.
#[tokio::test]
async fn a_crashed_holder_s_lock_goes_to_the_next_waiter() {
    let server = Server::start().await;
    let backend = server.connect("").await.unwrap();
    let raw = server.raw().await;
    let mut waiter = Client::open(&backend, LONG).await;
    let ttl = Duration::from_millis(1200);
    // The lease counts from somewhere between these two.
    let before = Instant::now();
    let mut holder = Client::open(&backend, ttl).await;
    let after = Instant::now();
    // Whole seconds, and no less than was asked for.
    let ttl = holder.opened.ttl;
    assert_eq!(ttl, Duration::from_secs(2));
    let held = holder.claim("n", Mode::Exclusive);
    let granted = holder.session().request(&held, Wait::InTurn).await.unwrap();
    assert!(is_granted(granted));
    let wanted = waiter.claim("n", Mode::Exclusive);
    let waiting = waiter
        .session()
        .request(&wanted, Wait::InTurn)
        .await
        .unwrap();
    let mut ear = raw.listen().await;
    let looks = waiter.wait(&wanted, waiting).await;
    let (most, least) = (before.elapsed(), after.elapsed());
    assert!(
        most >= ttl && least < ttl + backend.capabilities().slack,
        "{least:?} to {most:?}"
    );
    assert!(looks <= 4, "{looks} looks");
    let marked = ear.writes.next().await.unwrap();
    let key = raw.subject(&format!("sessions.{}", holder.id));
    assert_eq!(marked.subject.as_str(), key);
    let changed = ear.writes.next().await.unwrap();
    assert_eq!(changed.subject.as_str(), raw.subject("locks.n"));
    // The session is over, whatever it tries, and does not come back.
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
        .withdraw(&held, Attempts::Answered)
        .await
        .unwrap();
    holder.session().close().await.unwrap();
    let seen = backend.inspect(&name("n")).await.unwrap();
    assert_eq!(ids(&seen), (vec![wanted.id], vec![]));
}

/// LIVE-A: whoever comes long after the crash need not wait, for a lock held or waited for by the
/// dead, with a request or a try.
#[tokio::test]
async fn who_comes_long_after_a_crash_is_granted_at_once() {
    let server = Server::start().await;
    let (backend, raw) = (server.connect("").await.unwrap(), server.raw().await);
    let mut dead = Vec::new();
    for _ in 0..3 {
        let mut client = Client::open(&backend, LONG).await;
        for lock in ["request", "try"] {
            let claim = client.claim(lock, Mode::Exclusive);
            client
                .session()
                .request(&claim, Wait::InTurn)
                .await
                .unwrap();
        }
        dead.push(client.id);
    }
    // Not just granted, or nobody would look yet.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    for session in dead {
        raw.lapse(session).await;
    }
    let mut client = Client::open(&backend, LONG).await;
    for (lock, wait) in [("request", Wait::InTurn), ("try", Wait::Never)] {
        let claim = client.claim(lock, Mode::ProtectedRead);
        let outcome = client.session().request(&claim, wait).await.unwrap();
        assert!(is_granted(outcome), "{lock}: {outcome:?}");
        let seen = backend.inspect(&claim.name).await.unwrap();
        assert_eq!(ids(&seen), (vec![claim.id], vec![]));
    }
}

/// LIVE-A: a key that the server does not delete in time counts as dead when it has not changed for
/// a whole TTL of the waiter's own clock, and not before.
#[tokio::test]
async fn a_lease_that_does_not_change_for_a_whole_ttl_is_dead() {
    let server = Server::start().await;
    let (backend, raw) = (server.connect("").await.unwrap(), server.raw().await);
    let mut holder = Client::open(&backend, Duration::from_secs(1)).await;
    let held = holder.claim("n", Mode::Exclusive);
    holder.session().request(&held, Wait::InTurn).await.unwrap();
    let key = format!("sessions.{}", holder.id);
    // The same record, without a TTL of the message.
    let record = raw.get(&key).await.unwrap().value.to_string();
    raw.put(&key, &[], record.into_bytes()).await;
    let mut waiter = Client::open(&backend, LONG).await;
    let wanted = waiter.claim("n", Mode::Exclusive);
    // From its first look on.
    let start = Instant::now();
    let waiting = waiter
        .session()
        .request(&wanted, Wait::InTurn)
        .await
        .unwrap();
    waiter.wait(&wanted, waiting).await;
    assert!(
        start.elapsed() >= Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    let mark = raw.get(&key).await.unwrap();
    assert_eq!(mark.value["state"], "dead");
    assert_eq!(mark.headers.get("Nats-TTL").unwrap().as_str(), "3600");
    let fault = holder.session().renew().await.unwrap_err();
    assert_eq!(fault.kind(), StoreErrorKind::Lapsed);
}

/// LIVE-B: a renewal whose acknowledgement was lost is found out about, and sent again. What somebody
/// else wrote ends the session.
#[tokio::test]
async fn a_renewal_finds_out_what_has_become_of_the_one_before() {
    let server = Server::start().await;
    let (backend, raw) = (server.connect("").await.unwrap(), server.raw().await);
    let client = Client::open(&backend, Duration::from_secs(5)).await;
    let key = format!("sessions.{}", client.id);
    client.session().renew().await.unwrap();
    let before = raw.get(&key).await.unwrap();
    assert_eq!(before.headers.get("Nats-TTL").unwrap().as_str(), "5");
    assert_eq!(before.value["renewal"], 1);
    // As the late copy of a renewal that was given up.
    raw.put(&key, &[("Nats-TTL", "5")], before.value.to_string().into())
        .await;
    client.session().renew().await.unwrap();
    let after = raw.get(&key).await.unwrap();
    assert_eq!(after.sequence, before.sequence + 2, "sent again");

    let marked = Client::open(&backend, LONG).await;
    let mark = json!({ "state": "dead", "marked_by": client.id }).to_string();
    raw.put(&format!("sessions.{}", marked.id), &[], mark.into())
        .await;
    let deleted = Client::open(&backend, LONG).await;
    raw.lapse(deleted.id).await;
    for session in [marked, deleted] {
        for _ in 0..2 {
            let fault = session.session().renew().await.unwrap_err();
            assert_eq!(fault.kind(), StoreErrorKind::Lapsed);
        }
        let key = format!("sessions.{}", session.id);
        let left = raw.get(&key).await;
        assert!(left.is_none_or(|left| left.value["state"] == "dead"));
    }
}

/// ONCE: the late copy of a request is refused once its withdraw has returned, on a free lock, a held
/// one and one that nobody ever used. The emptied document outlives it.
#[tokio::test]
async fn a_late_copy_of_a_request_is_refused() {
    let server = Server::start().await;
    let (backend, raw) = (server.connect("").await.unwrap(), server.raw().await);
    let mut other = Client::open(&backend, LONG).await;
    let mut late = Client::open(&backend, LONG).await;
    let blocking = other.claim("held", Mode::Exclusive);
    other
        .session()
        .request(&blocking, Wait::InTurn)
        .await
        .unwrap();
    let used = other.claim("free", Mode::Exclusive);
    other.session().request(&used, Wait::InTurn).await.unwrap();
    other
        .session()
        .withdraw(&used, Attempts::Answered)
        .await
        .unwrap();
    for lock in ["new", "free", "held"] {
        let mut ear = raw.listen().await;
        let claim = late.claim(lock, Mode::Exclusive);
        late.session().request(&claim, Wait::InTurn).await.unwrap();
        let copy = ear.writes.next().await.unwrap();
        drop(ear);
        late.session()
            .withdraw(&claim, Attempts::Unanswered)
            .await
            .unwrap();
        let again = late.session().withdraw(&claim, Attempts::Unanswered).await;
        again.unwrap();
        let headers = copy.headers.unwrap();
        let answer = raw
            .put_with(&copy.subject, headers, copy.payload.into())
            .await;
        assert_eq!(answer["error"]["err_code"], 10_071, "{lock}: {answer}");
        let outcome = late.session().request(&claim, Wait::InTurn).await.unwrap();
        assert_eq!(outcome, Outcome::Absent, "{lock}");
    }
    // A withdraw of what never arrived writes, too, so that it never does.
    let claim = late.claim("never", Mode::Exclusive);
    late.session()
        .withdraw(&claim, Attempts::Answered)
        .await
        .unwrap();
    assert!(raw.get("locks.never").await.is_none());
    late.session()
        .withdraw(&claim, Attempts::Unanswered)
        .await
        .unwrap();
    for lock in ["never", "new", "free"] {
        let left = raw.get(&format!("locks.{lock}")).await.unwrap();
        assert_eq!(left.value["claims"], json!([]), "{lock}");
        assert_eq!(left.headers.get("Nats-TTL").unwrap().as_str(), FREE_FOR);
    }
    let held = raw.get("locks.held").await.unwrap();
    assert!(
        held.headers.get("Nats-TTL").is_none(),
        "a lock in use stays"
    );
    let locks: Vec<String> = backend
        .names()
        .await
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(locks, ["held"]);
}

/// FENCE: numbers go on where a document was emptied, and when it is lost.
#[tokio::test]
async fn tokens_rise_when_a_document_is_lost() {
    let server = Server::start().await;
    let (backend, raw) = (server.connect("").await.unwrap(), server.raw().await);
    let mut last = None;
    for round in 0..6 {
        let mut client = Client::open(&backend, LONG).await;
        let claim = client.claim("n", Mode::Exclusive);
        let outcome = client
            .session()
            .request(&claim, Wait::InTurn)
            .await
            .unwrap();
        let Outcome::Granted { token } = outcome else {
            panic!("{outcome:?}");
        };
        assert!(last < Some(token), "{last:?} and then {token:?}");
        last = Some(token);
        client
            .session()
            .withdraw(&claim, Attempts::Answered)
            .await
            .unwrap();
        if round % 2 == 1 {
            let filter = json!({ "filter": raw.subject("locks.n") });
            raw.api("STREAM.PURGE", filter).await;
        }
    }
}

/// What an operation costs, in writes and reads: the contract's table.
#[tokio::test]
async fn operations_cost_what_the_contract_says() {
    let server = Server::start().await;
    let (backend, raw) = (server.connect("").await.unwrap(), server.raw().await);
    let mut holder = Client::open(&backend, LONG).await;
    let mut other = Client::open(&backend, LONG).await;
    let mut ear = raw.listen().await;
    ear.count(&raw).await;
    for (round, cost) in [(1, 1), (0, 0), (0, 0)].into_iter().enumerate() {
        let held = holder.claim("free", Mode::Exclusive);
        holder.session().request(&held, Wait::InTurn).await.unwrap();
        assert_eq!(ear.count(&raw).await, (1, cost.0), "round {round}");
        holder
            .session()
            .withdraw(&held, Attempts::Answered)
            .await
            .unwrap();
        assert_eq!(ear.count(&raw).await, (1, 0), "round {round}");
    }
    let held = holder.claim("n", Mode::Exclusive);
    holder.session().request(&held, Wait::InTurn).await.unwrap();
    ear.count(&raw).await;
    // A try: the document and the holder's session.
    let tried = other.claim("n", Mode::Exclusive);
    let outcome = other.session().request(&tried, Wait::Never).await.unwrap();
    assert_eq!(outcome, Outcome::Absent);
    assert_eq!(ear.count(&raw).await, (0, 2));
    // Waiting: the document is read and written.
    let waits = other.claim("n", Mode::Exclusive);
    let outcome = other.session().request(&waits, Wait::InTurn).await.unwrap();
    assert!(is_waiting(outcome));
    assert_eq!(ear.count(&raw).await, (1, 1));
    assert_eq!(holder.push().await, Push::Contended(held.id));
    // The holder was sent what the waiter wrote, and the waiter what the holder did.
    holder
        .session()
        .withdraw(&held, Attempts::Answered)
        .await
        .unwrap();
    assert_eq!(ear.count(&raw).await, (1, 0));
    assert!(matches!(other.push().await, Push::Granted(claim, _) if claim == waits.id));
    other
        .session()
        .withdraw(&waits, Attempts::Answered)
        .await
        .unwrap();
    assert_eq!(ear.count(&raw).await, (1, 0));
    for _ in 0..3 {
        holder.session().renew().await.unwrap();
    }
    assert_eq!(ear.count(&raw).await, (3, 0));
}

/// FAIR, ATOM-A, ATOM-B: many clients at once on one lock. Everybody is granted, one after the other,
/// within the time that the core gives an attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_shares_one_lock() {
    const CROWD: usize = 32;
    let server = Server::start().await;
    let backend = server.connect("").await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..CROWD {
        clients.push(Client::open(&backend, LONG).await);
    }
    let slowest = join_all(clients.into_iter().map(async |mut client| {
        let mut slowest = Duration::ZERO;
        let mut earlier = None;
        for _ in 0..2 {
            let claim = client.claim("n", Mode::Exclusive);
            let start = Instant::now();
            let asked = client
                .session()
                .request(&claim, Wait::InTurn)
                .await
                .unwrap();
            slowest = slowest.max(start.elapsed());
            if is_waiting(asked) {
                // Only whoever is granted is told. Whom somebody let in while it asked learns of it twice,
                // and the second time may be after it has withdrawn.
                loop {
                    match client.push().await {
                        Push::Granted(granted, _) if granted == claim.id => break,
                        Push::Granted(granted, _) if earlier == Some(granted) => {}
                        Push::Contended(_) => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
            let start = Instant::now();
            client
                .session()
                .withdraw(&claim, Attempts::Answered)
                .await
                .unwrap();
            slowest = slowest.max(start.elapsed());
            earlier = Some(claim.id);
        }
        slowest
    }))
    .await;
    let slowest = slowest.into_iter().max().unwrap();
    eprintln!("the slowest operation took {slowest:?}");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    assert!(backend.inspect(&name("n")).await.unwrap().is_free());
}

/// CANCEL, ATOM-B: closing frees what is held and waited for, and tells the next.
#[tokio::test]
async fn closing_frees_everything_and_tells_the_next() {
    let server = Server::start().await;
    let (backend, raw) = (server.connect("").await.unwrap(), server.raw().await);
    let mut client = Client::open(&backend, LONG).await;
    let mut other = Client::open(&backend, LONG).await;
    let held = client.claim("held", Mode::Exclusive);
    client.session().request(&held, Wait::InTurn).await.unwrap();
    let blocking = other.claim("waited for", Mode::Exclusive);
    other
        .session()
        .request(&blocking, Wait::InTurn)
        .await
        .unwrap();
    let waits = client.claim("waited for", Mode::Exclusive);
    client
        .session()
        .request(&waits, Wait::InTurn)
        .await
        .unwrap();
    let next = other.claim("held", Mode::Exclusive);
    other.session().request(&next, Wait::InTurn).await.unwrap();
    assert_eq!(other.push().await, Push::Contended(blocking.id));
    for _ in 0..2 {
        client.session().close().await.unwrap();
    }
    assert!(matches!(other.push().await, Push::Granted(claim, _) if claim == next.id));
    for (lock, claim) in [("held", &next), ("waited for", &blocking)] {
        let seen = backend.inspect(&name(lock)).await.unwrap();
        assert_eq!(ids(&seen), (vec![claim.id], vec![]));
    }
    let mark = raw.get(&format!("sessions.{}", client.id)).await.unwrap();
    assert_eq!(mark.value["state"], "dead");
    let fault = client.session().renew().await.unwrap_err();
    assert_eq!(fault.kind(), StoreErrorKind::Lapsed);
}

/// ONCE, WAKE: a release whose answer was lost is made again on another connection, and whoever it
/// granted is told then.
#[tokio::test]
async fn a_release_whose_answer_was_lost_tells_the_next_all_the_same() {
    let server = Server::start().await;
    let direct = server.connect("").await.unwrap();
    let proxy = Proxy::to(server.port).await;
    let through = connect(&format!("nats://127.0.0.1:{}", proxy.port))
        .await
        .unwrap();
    let mut holder = Client::open(&through, LONG).await;
    let mut waiter = Client::open(&direct, LONG).await;
    let held = holder.claim("n", Mode::Exclusive);
    holder.session().request(&held, Wait::InTurn).await.unwrap();
    let waits = waiter.claim("n", Mode::Exclusive);
    waiter
        .session()
        .request(&waits, Wait::InTurn)
        .await
        .unwrap();
    assert_eq!(holder.push().await, Push::Contended(held.id));
    proxy.lose_answers(true);
    let release = holder.session().withdraw(&held, Attempts::Answered);
    let committed = until("it is committed", async || {
        let seen = direct.inspect(&held.name).await.unwrap();
        ids(&seen) == (vec![waits.id], vec![])
    });
    // Given up, as the core does.
    let given_up = async {
        committed.await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        proxy.lose_answers(false);
    };
    tokio::select! {
        answer = release => panic!("{answer:?}"),
        () = given_up => {}
    }
    // The silent connection is not waited for: this uses another one.
    let again = holder.session().withdraw(&held, Attempts::Answered);
    tokio::time::timeout(Duration::from_secs(2), again)
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(waiter.push().await, Push::Granted(claim, _) if claim == waits.id));
    // And the holder's own messages come over it, too.
    let back = holder.claim("n", Mode::Exclusive);
    holder.session().request(&back, Wait::InTurn).await.unwrap();
    waiter
        .session()
        .withdraw(&waits, Attempts::Answered)
        .await
        .unwrap();
    assert!(matches!(holder.push().await, Push::Granted(claim, _) if claim == back.id));
}

/// HONEST: what a session remembers is a hint alone. Others have changed the lock meanwhile.
#[tokio::test]
async fn what_is_remembered_proves_nothing() {
    let server = Server::start().await;
    let (backend, raw) = (server.connect("").await.unwrap(), server.raw().await);
    let mut one = Client::open(&backend, LONG).await;
    let mut two = Client::open(&backend, LONG).await;
    let first = one.claim("n", Mode::Exclusive);
    one.session().request(&first, Wait::InTurn).await.unwrap();
    one.session()
        .withdraw(&first, Attempts::Answered)
        .await
        .unwrap();
    // One believes that it is free.
    let theirs = two.claim("n", Mode::Exclusive);
    two.session().request(&theirs, Wait::InTurn).await.unwrap();
    let tried = one.claim("n", Mode::Exclusive);
    let outcome = one.session().request(&tried, Wait::Never).await.unwrap();
    assert_eq!(outcome, Outcome::Absent);
    let waits = one.claim("n", Mode::Exclusive);
    let outcome = one.session().request(&waits, Wait::InTurn).await.unwrap();
    assert!(is_waiting(outcome));
    // A lost document: nothing that is remembered comes back.
    raw.api("STREAM.PURGE", json!({ "filter": raw.subject("locks.n") }))
        .await;
    let outcome = one.session().status(&waits).await.unwrap();
    assert_eq!(outcome, Outcome::Absent);
    two.session()
        .withdraw(&theirs, Attempts::Answered)
        .await
        .unwrap();
    assert!(is_granted(
        one.session().request(&waits, Wait::InTurn).await.unwrap()
    ));
    let seen = backend.inspect(&name("n")).await.unwrap();
    assert_eq!(ids(&seen), (vec![waits.id], vec![]));
}

/// A lock whose document no longer fits in a message says so, and can still be released.
#[tokio::test]
async fn a_document_that_is_too_large_is_refused() {
    let config = "max_payload: 4096\njetstream { store_dir: /data }\n";
    let server = Server::configured(config, &[]).await;
    let backend = server.connect("").await.unwrap();
    let mut client = Client::open(&backend, LONG).await;
    let mut held = Vec::new();
    let fault = loop {
        let claim = client.claim("n", Mode::Null);
        match client.session().request(&claim, Wait::InTurn).await {
            Ok(_) => held.push(claim),
            Err(fault) => break fault,
        }
        assert!(held.len() < 100);
    };
    assert_eq!(fault.kind(), StoreErrorKind::Refused);
    assert!(fault.to_string().contains("max_payload"), "{fault}");
    for claim in &held {
        client
            .session()
            .withdraw(claim, Attempts::Answered)
            .await
            .unwrap();
    }
    assert!(backend.inspect(&name("n")).await.unwrap().is_free());
}

/// CANCEL: a session that is dropped leaves no subscription on the server.
#[tokio::test]
async fn a_dropped_session_leaves_no_subscription() {
    let server = Server::start().await;
    let (backend, raw) = (server.connect("").await.unwrap(), server.raw().await);
    let client = Client::open(&backend, LONG).await;
    let channel = format!("dlock.default.s.{}", client.id);
    let listens = async || {
        let sent = raw.client.request(channel.clone(), "{}".into());
        let answer = tokio::time::timeout(Duration::from_millis(100), sent).await;
        // Who listens does not answer; where nobody does, the server says so.
        answer.is_err()
    };
    assert!(listens().await);
    drop(client);
    until("nobody listens", async || !listens().await).await;
}
