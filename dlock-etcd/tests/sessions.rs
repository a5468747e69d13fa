//! Sessions, leases, withdraw marks, watches and their costs, on one server.

// Helpers belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use dlock_core::{
    Attempts, Backend, LossReason, Mode, Outcome, Owner, Push, SessionTerms, StoreErrorKind, Wait,
};
use dlock_etcd::Etcd;
use etcd_client::{CompactionOptions, GetOptions};
use support::{Client, LONG, Server, ids, is_granted, is_waiting, name, until};

/// One test after the other on one server: they read its counters.
#[test]
fn on_one_server() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let server = Server::start().await;
        costs(&server).await;
        who_waits_for_several(&server).await;
        a_release_beside_the_request(&server).await;
        watches_do_not_leak(&server).await;
        compaction_while_waiting(&server).await;
        requests_are_idempotent(&server).await;
        a_late_request_counts_for_nothing(&server).await;
        the_token_is_that_of_the_ticket(&server).await;
        a_crashed_holder(&server).await;
        a_lease_lasts_while_it_is_renewed(&server).await;
        a_session_that_an_operator_ends(&server).await;
        data_that_is_lost(&server).await;
        closing_frees_everything(&server).await;
        a_frozen_server(&server).await;
    });
}

async fn backend(server: &Server) -> Etcd {
    static COUNT: OnceLock<std::sync::atomic::AtomicUsize> = OnceLock::new();
    let count = COUNT.get_or_init(Default::default);
    let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    server.connect(&format!("/test-{number}")).await.unwrap()
}

async fn request(client: &Client, claim: &dlock_core::Claim) -> Outcome {
    let request = client.session().request(claim, Wait::InTurn);
    request.await.unwrap()
}

/// Waits until the server does nothing any more, and returns how many requests it has answered.
async fn quiet(server: &Server) -> u64 {
    let mut before = server.metrics().await.requests();
    loop {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let now = server.metrics().await.requests();
        if now == before {
            return now;
        }
        before = now;
    }
}

/// The contract's table of costs. WAKE: the deletion of the only claim ahead is the grant.
async fn costs(server: &Server) {
    let backend = backend(server).await;
    let mut holder = Client::open(&backend, LONG).await;
    let mut waiter = Client::open(&backend, LONG).await;
    for mode in Mode::ALL {
        let before = quiet(server).await;
        let held = holder.claim("n", mode);
        assert!(is_granted(request(&holder, &held).await));
        assert_eq!(quiet(server).await - before, 1, "a free lock, {mode}");
        let session = holder.session();
        session.withdraw(&held, Attempts::Answered).await.unwrap();
        assert_eq!(quiet(server).await - before, 2, "a release, {mode}");
    }
    let held = holder.claim("n", Mode::Exclusive);
    request(&holder, &held).await;
    let before = quiet(server).await;
    let revision = server.raw().await.get("x", None).await.unwrap();
    let tried = waiter.claim("n", Mode::ConcurrentRead);
    let outcome = waiter.session().request(&tried, Wait::Never).await.unwrap();
    assert_eq!(outcome, Outcome::Absent);
    let after = server.raw().await.get("x", None).await.unwrap();
    let written = after.header().unwrap().revision() - revision.header().unwrap().revision();
    assert_eq!(written, 0, "a refused try writes nothing");
    assert_eq!(quiet(server).await - before, 3, "a refused try, and ours");

    let before = quiet(server).await;
    let wanted = waiter.claim("n", Mode::Exclusive);
    assert!(is_waiting(request(&waiter, &wanted).await));
    assert_eq!(quiet(server).await - before, 1, "a request");
    let events = server
        .metrics()
        .await
        .sum("etcd_debugging_mvcc_events_total", "");
    let session = holder.session();
    session.withdraw(&held, Attempts::Answered).await.unwrap();
    assert!(matches!(waiter.push().await, Push::Granted(claim, _) if claim == wanted.id));
    assert_eq!(quiet(server).await - before, 2, "the release alone");
    let now = server
        .metrics()
        .await
        .sum("etcd_debugging_mvcc_events_total", "");
    assert_eq!(now - events, 1, "one event");
    assert!(is_granted(waiter.session().status(&wanted).await.unwrap()));
}

/// WAKE, FAIR: a release wakes those alone whose nearest conflicting claim it was, and grants none
/// before its turn.
async fn who_waits_for_several(server: &Server) {
    let backend = backend(server).await;
    let mut holder = Client::open(&backend, LONG).await;
    let mut waiter = Client::open(&backend, LONG).await;
    let readers = [(); 2].map(|()| holder.claim("n", Mode::ProtectedRead));
    for reader in &readers {
        assert!(is_granted(request(&holder, reader).await));
    }
    let modes = [Mode::Exclusive, Mode::ProtectedWrite, Mode::ConcurrentRead];
    let [writer, updater, beside] = modes.map(|mode| waiter.claim("n", mode));
    for claim in [&writer, &updater, &beside] {
        assert!(is_waiting(request(&waiter, claim).await));
    }
    // Watches and looks are in place.
    quiet(server).await;
    let withdraw = async |client: &Client, claim| {
        let session = client.session();
        session.withdraw(claim, Attempts::Answered).await.unwrap();
        quiet(server).await;
    };
    // The nearest one of the writer goes first: another is still ahead.
    withdraw(&holder, &readers[1]).await;
    assert!(is_waiting(waiter.session().status(&writer).await.unwrap()));
    withdraw(&holder, &readers[0]).await;
    let Push::Granted(claim, token) = waiter.push().await else {
        panic!("the writer's turn");
    };
    assert_eq!(claim, writer.id);
    withdraw(&waiter, &writer).await;
    let mut granted = Vec::new();
    for _ in 0..2 {
        let Push::Granted(claim, later) = waiter.push().await else {
            panic!("the others' turn");
        };
        assert!(later > token, "FENCE");
        granted.push(claim);
    }
    granted.sort();
    assert_eq!(granted, [updater.id, beside.id]);
    assert!(futures_util::FutureExt::now_or_never(waiter.inbox.next()).is_none());
}

/// WAKE: a claim ahead that goes while the watch on it is being made is missed by the watch, and found
/// by the look behind it.
async fn a_release_beside_the_request(server: &Server) {
    let backend = backend(server).await;
    let mut holder = Client::open(&backend, LONG).await;
    let mut waiter = Client::open(&backend, LONG).await;
    for _ in 0..300 {
        let held = holder.claim("n", Mode::Exclusive);
        request(&holder, &held).await;
        let wanted = waiter.claim("n", Mode::Exclusive);
        assert!(is_waiting(request(&waiter, &wanted).await));
        let session = holder.session();
        session.withdraw(&held, Attempts::Answered).await.unwrap();
        assert!(matches!(waiter.push().await, Push::Granted(claim, _) if claim == wanted.id));
        let session = waiter.session();
        session.withdraw(&wanted, Attempts::Answered).await.unwrap();
    }
}

/// CANCEL: nobody watches for a claim that is granted or withdrawn, or for a session that is over.
async fn watches_do_not_leak(server: &Server) {
    let settled = async |expected: u64, when: &str| {
        until(when, async || server.metrics().await.watchers() == expected).await;
    };
    let backend = backend(server).await;
    settled(0, "the other tests' sessions are over").await;
    let mut holder = Client::open(&backend, LONG).await;
    let mut waiter = Client::open(&backend, LONG).await;
    settled(2, "one for each session").await;
    let held: Vec<_> = (0..50)
        .map(|n| holder.claim(&format!("n{n}"), Mode::Exclusive))
        .collect();
    let mut wanted = Vec::new();
    for claim in &held {
        request(&holder, claim).await;
        let claim = waiter.claim(claim.name.as_str(), Mode::ProtectedRead);
        assert!(is_waiting(request(&waiter, &claim).await));
        wanted.push(claim);
    }
    settled(52, "one for each waiting claim").await;
    for claim in &wanted[..20] {
        // Looking again changes nothing.
        assert!(is_waiting(waiter.session().status(claim).await.unwrap()));
        let session = waiter.session();
        session.withdraw(claim, Attempts::Answered).await.unwrap();
    }
    settled(32, "the withdrawn ones' are gone").await;
    for claim in &held[20..] {
        let session = holder.session();
        session.withdraw(claim, Attempts::Answered).await.unwrap();
        assert!(matches!(waiter.push().await, Push::Granted(..)));
    }
    settled(2, "the granted ones' are gone").await;
    drop((holder, waiter));
    settled(0, "nobody is left").await;
}

/// WAKE: a compaction disturbs nobody who waits.
async fn compaction_while_waiting(server: &Server) {
    let backend = backend(server).await;
    let mut holder = Client::open(&backend, LONG).await;
    let mut waiter = Client::open(&backend, LONG).await;
    let held = [(); 2].map(|()| holder.claim("n", Mode::ConcurrentWrite));
    for claim in &held {
        request(&holder, claim).await;
    }
    let wanted = waiter.claim("n", Mode::ProtectedRead);
    assert!(is_waiting(request(&waiter, &wanted).await));
    let mut raw = server.raw().await;
    for claim in &held {
        let now = raw.put("elsewhere", "", None).await.unwrap();
        let now = now.header().unwrap().revision();
        let physical = CompactionOptions::new().with_physical();
        raw.compact(now, Some(physical)).await.unwrap();
        let session = holder.session();
        session.withdraw(claim, Attempts::Answered).await.unwrap();
    }
    assert!(matches!(waiter.push().await, Push::Granted(claim, _) if claim == wanted.id));
}

/// ONCE: the same claim is one claim; FENCE: and has one token.
async fn requests_are_idempotent(server: &Server) {
    let backend = backend(server).await;
    let mut holder = Client::open(&backend, LONG).await;
    let mut waiter = Client::open(&backend, LONG).await;
    let held = holder.claim("n", Mode::Exclusive);
    let wanted = waiter.claim("n", Mode::Exclusive);
    let granted = request(&holder, &held).await;
    for _ in 0..3 {
        assert_eq!(request(&holder, &held).await, granted);
        let never = holder.session().request(&held, Wait::Never).await.unwrap();
        assert_eq!(never, granted);
        assert!(is_waiting(request(&waiter, &wanted).await));
    }
    let seen = backend.inspect(&name("n")).await.unwrap();
    assert_eq!(ids(&seen), (vec![held.id], vec![wanted.id]));
    assert_eq!(seen.holders[0].token, token(granted));
    // Withdrawing what is not there succeeds, and touches nobody (ATOM-B).
    let other = waiter.claim("n", Mode::Exclusive);
    for attempts in [Attempts::Answered, Attempts::Unanswered] {
        waiter.session().withdraw(&other, attempts).await.unwrap();
    }
    assert_eq!(backend.inspect(&name("n")).await.unwrap(), seen);
    assert_eq!(
        holder.session().status(&other).await.unwrap(),
        Outcome::Absent
    );
}

fn token(outcome: Outcome) -> Option<dlock_core::FencingToken> {
    match outcome {
        Outcome::Granted { token } => Some(token),
        _ => None,
    }
}

/// ONCE: a claim that was withdrawn stays so, whenever its request arrives; the mark goes with the
/// session.
async fn a_late_request_counts_for_nothing(server: &Server) {
    let backend = server.connect("/late").await.unwrap();
    let mut client = Client::open(&backend, LONG).await;
    let claim = client.claim("n", Mode::Exclusive);
    let session = client.session();
    session
        .withdraw(&claim, Attempts::Unanswered)
        .await
        .unwrap();
    for wait in [Wait::InTurn, Wait::Never] {
        let late = client.session().request(&claim, wait).await.unwrap();
        assert_eq!(late, Outcome::Absent);
    }
    assert!(backend.inspect(&name("n")).await.unwrap().is_free());
    client.session().close().await.unwrap();
    for wait in [Wait::InTurn, Wait::Never] {
        let fault = client.session().request(&claim, wait).await.unwrap_err();
        assert_eq!(fault.kind(), StoreErrorKind::Lapsed);
    }
    let session = client.session();
    let fault = session
        .withdraw(&claim, Attempts::Unanswered)
        .await
        .unwrap_err();
    assert_eq!(fault.kind(), StoreErrorKind::Lapsed);
    session.withdraw(&claim, Attempts::Answered).await.unwrap();
    let all = GetOptions::new().with_prefix().with_count_only();
    let found = server
        .raw()
        .await
        .get("dlock/late/", Some(all))
        .await
        .unwrap();
    assert_eq!(found.count(), 2, "the format and the base");
}

/// FENCE: whoever finds a claim later finds the token that it had from the start, also when the base
/// has been raised since, and when the claim's own record does not have its base.
async fn the_token_is_that_of_the_ticket(server: &Server) {
    let backend = server.connect("/ticket").await.unwrap();
    let mut raw = server.raw().await;
    let mut client = Client::open(&backend, LONG).await;
    // Another client's clock is an hour ahead: this one's requests do not raise the base at first.
    let ahead = |seconds: u64| {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64;
        format!("{:016}", now + seconds * 1_000_000)
    };
    raw.put("dlock/ticket/base", ahead(3600), None)
        .await
        .unwrap();
    let claim = client.claim("n", Mode::Exclusive);
    let granted = token(request(&client, &claim).await).unwrap();
    let record = raw
        .get(
            "dlock/ticket/locks/n/EX/",
            Some(GetOptions::new().with_prefix()),
        )
        .await
        .unwrap();
    let record = record.kvs()[0].value_str().unwrap().to_owned();
    assert!(!record.contains("base"), "{record}");
    let seen = async || backend.inspect(&name("n")).await.unwrap().holders[0].token;
    assert_eq!(seen().await, Some(granted), "the current base");
    raw.put("dlock/ticket/base", ahead(7200), None)
        .await
        .unwrap();
    assert_eq!(seen().await, Some(granted), "a past base");
    // The next claim of the same session has seen a greater one by then, and raises it.
    let next = client.claim("m", Mode::Exclusive);
    let later = token(request(&client, &next).await).unwrap();
    assert!(later > granted);
    let now = raw.put("elsewhere", "", None).await.unwrap();
    let now = now.header().unwrap().revision();
    let physical = CompactionOptions::new().with_physical();
    raw.compact(now, Some(physical)).await.unwrap();
    assert_eq!(seen().await, None, "compacted, and it says so");
    assert_eq!(
        token(client.session().status(&claim).await.unwrap()),
        Some(granted)
    );
    client.session().close().await.unwrap();
}

/// LIVE-A: a crashed holder's lock is freed within its TTL and the slack, and the next one is told.
async fn a_crashed_holder(server: &Server) {
    let backend = backend(server).await;
    let ttl = Duration::from_secs(2);
    let mut waiter = Client::open(&backend, LONG).await;
    let before = Instant::now();
    let mut holder = Client::open(&backend, ttl).await;
    let after = Instant::now();
    assert_eq!(holder.opened.ttl, ttl);
    let held = holder.claim("n", Mode::Exclusive);
    request(&holder, &held).await;
    let wanted = waiter.claim("n", Mode::Exclusive);
    assert!(is_waiting(request(&waiter, &wanted).await));
    assert!(matches!(waiter.push().await, Push::Granted(claim, _) if claim == wanted.id));
    let (most, least) = (before.elapsed(), after.elapsed());
    let slack = backend.capabilities().slack;
    assert!(most >= ttl && least < ttl + slack, "{least:?} to {most:?}");
    // The session is over, whatever it tries, and was told so.
    assert_eq!(holder.push().await, Push::Lost(LossReason::Revoked));
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
    holder.session().close().await.unwrap();
}

/// A renewed lease stands. What was asked for is rounded up to whole seconds, and to the server's least.
async fn a_lease_lasts_while_it_is_renewed(server: &Server) {
    let backend = backend(server).await;
    let shortest = Client::open(&backend, Duration::from_millis(20)).await;
    assert_eq!(shortest.opened.ttl, Duration::from_secs(1));
    let mut client = Client::open(&backend, Duration::from_millis(1001)).await;
    let ttl = client.opened.ttl;
    assert_eq!(ttl, Duration::from_secs(2));
    let claim = client.claim("n", Mode::Exclusive);
    let granted = request(&client, &claim).await;
    let start = Instant::now();
    while start.elapsed() < 2 * ttl {
        assert_eq!(client.session().renew().await.unwrap(), ttl);
        tokio::time::sleep(ttl / 3).await;
    }
    assert_eq!(client.session().status(&claim).await.unwrap(), granted);
    // One session is one identity.
    let (mailbox, _inbox) = dlock_core::Mailbox::new();
    let terms = SessionTerms {
        id: client.id,
        ttl,
        owner: Owner::this_process(),
    };
    backend.open(&terms, mailbox).await.unwrap_err();
    assert_eq!(client.session().status(&claim).await.unwrap(), granted);
    client.session().close().await.unwrap();
}

/// Holders are told at once when their lease is revoked or their session's key deleted.
async fn a_session_that_an_operator_ends(server: &Server) {
    let backend = server.connect("/operator").await.unwrap();
    let mut raw = server.raw().await;
    for revoke in [true, false] {
        let mut client = Client::open(&backend, LONG).await;
        let claim = client.claim("n", Mode::Exclusive);
        assert!(is_granted(request(&client, &claim).await));
        let key = format!("dlock/operator/sessions/{}", client.id);
        let found = raw.get(key.clone(), None).await.unwrap();
        let session = &found.kvs()[0];
        assert!(session.value_str().unwrap().contains("\"pid\""));
        if revoke {
            raw.lease_revoke(session.lease()).await.unwrap();
        } else {
            raw.delete(key, None).await.unwrap();
        }
        assert_eq!(client.push().await, Push::Lost(LossReason::Revoked));
        let another = client.claim("m", Mode::Exclusive);
        for fault in [
            client.session().status(&claim).await.unwrap_err(),
            client
                .session()
                .request(&another, Wait::Never)
                .await
                .unwrap_err(),
        ] {
            assert_eq!(fault.kind(), StoreErrorKind::Lapsed);
        }
        client.session().close().await.unwrap();
        assert_eq!(backend.names().await.unwrap(), []);
    }
}

/// FENCE: a session whose base is gone is over, and the next one makes everything anew.
async fn data_that_is_lost(server: &Server) {
    let backend = server.connect("/lost").await.unwrap();
    let mut raw = server.raw().await;
    let mut client = Client::open(&backend, LONG).await;
    let claim = client.claim("n", Mode::Exclusive);
    let before = token(request(&client, &claim).await).unwrap();
    raw.delete("dlock/lost/base", None).await.unwrap();
    let claim = client.claim("m", Mode::Exclusive);
    let fault = client
        .session()
        .request(&claim, Wait::InTurn)
        .await
        .unwrap_err();
    assert_eq!(fault.kind(), StoreErrorKind::Lapsed);
    let all = etcd_client::DeleteOptions::new().with_prefix();
    raw.delete("dlock/lost/", Some(all)).await.unwrap();
    let mut client = Client::open(&backend, LONG).await;
    let claim = client.claim("n", Mode::Exclusive);
    let after = token(request(&client, &claim).await).unwrap();
    assert!(after > before, "{after} after {before}");
    // And somebody else's data is not overwritten.
    raw.put("dlock/lost/base", "a number", None).await.unwrap();
    let claim = client.claim("m", Mode::Exclusive);
    client
        .session()
        .request(&claim, Wait::InTurn)
        .await
        .unwrap_err();
    client.session().close().await.unwrap();
}

/// CANCEL, ATOM-B: what a closed session held is free at once, and whom that grants is told.
async fn closing_frees_everything(server: &Server) {
    const LOCKS: usize = 300;
    let backend = server.connect("/closing").await.unwrap();
    let mut holder = Client::open(&backend, LONG).await;
    let mut waiter = Client::open(&backend, LONG).await;
    let mut waiting = Vec::new();
    for n in 0..LOCKS {
        let held = holder.claim(&format!("lock-{n}"), Mode::Exclusive);
        request(&holder, &held).await;
        let claim = waiter.claim(&format!("lock-{n}"), Mode::Exclusive);
        assert!(is_waiting(request(&waiter, &claim).await));
        waiting.push(claim.id);
    }
    assert_eq!(backend.names().await.unwrap().len(), LOCKS);
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
    assert_eq!(backend.names().await.unwrap(), []);
    // Nothing is left but the two keys that stay for ever.
    let all = GetOptions::new().with_prefix();
    let found = server.raw().await.get("dlock/closing/", Some(all)).await;
    let found = found.unwrap();
    let keys: Vec<&str> = (found.kvs().iter())
        .map(|key| key.key_str().unwrap())
        .collect();
    assert_eq!(keys, ["dlock/closing/base", "dlock/closing/format"]);
}

/// An attempt that was given up does not hold up the next one, and watches come back.
async fn a_frozen_server(server: &Server) {
    let backend = backend(server).await;
    let mut holder = Client::open(&backend, LONG).await;
    let mut waiter = Client::open(&backend, LONG).await;
    let held = holder.claim("n", Mode::Exclusive);
    request(&holder, &held).await;
    let wanted = waiter.claim("n", Mode::Exclusive);
    assert!(is_waiting(request(&waiter, &wanted).await));
    server.pause().await;
    let attempt = holder.session().renew();
    let given_up = tokio::time::timeout(Duration::from_millis(300), attempt).await;
    assert!(given_up.is_err(), "a frozen server answers nothing");
    server.unpause().await;
    let start = Instant::now();
    holder.session().renew().await.unwrap();
    let session = holder.session();
    session.withdraw(&held, Attempts::Unanswered).await.unwrap();
    assert!(matches!(waiter.push().await, Push::Granted(claim, _) if claim == wanted.id));
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
}
