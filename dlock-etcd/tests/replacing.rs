//! Claims that leave in the transaction in which another one of the same lock comes.

// Helpers belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

mod support;

use dlock_core::{
    Attempts, Backend, Claim, ClaimId, FencingToken, Mode, Outcome, Push, StoreErrorKind,
};
use dlock_etcd::Etcd;
use support::{Client, LONG, Server, asks, ids, is_granted, is_waiting, name, until, withdraw};

/// One test after the other on one server: they read its counters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_one_server() {
    let server = Server::start().await;
    alone(&server).await;
    those_behind_it_come_first(&server).await;
    one_that_waits(&server).await;
    a_late_copy(&server).await;
    a_session_that_is_over(&server).await;
    watches_do_not_leak(&server).await;
}

async fn two_sessions(server: &Server, namespace: &str) -> (Etcd, Client, Client) {
    let backend = server.connect(&format!("/{namespace}")).await.unwrap();
    let first = Client::open(&backend, LONG).await;
    let second = Client::open(&backend, LONG).await;
    (backend, first, second)
}

async fn replace(client: &Client, leaving: &Claim, claim: &Claim) -> Outcome {
    let replace = client.session().replace(leaving, claim);
    replace.await.unwrap()
}

fn token(outcome: Outcome) -> FencingToken {
    match outcome {
        Outcome::Granted { token } => token,
        other => panic!("{other:?}"),
    }
}

async fn queue(backend: &Etcd) -> (Vec<ClaimId>, Vec<ClaimId>) {
    ids(&backend.inspect(&name("n")).await.unwrap())
}

/// How many requests the server has answered, and how many transactions have written something. Reading
/// that is a request of its own, which is not counted.
async fn costs(server: &Server, own: &mut u64) -> (u64, i64) {
    let answer = server.raw().await.get("x", None).await.unwrap();
    *own += 1;
    let requests = server.metrics().await.requests();
    (requests - *own, answer.header().unwrap().revision())
}

/// FENCE: it is granted at once, with a greater token, for one transaction. It does not wait for the one
/// that it replaces, in whatever modes they are.
async fn alone(server: &Server) {
    let (backend, mut client, _other) = two_sessions(server, "alone").await;
    assert!(client.session().replaces());
    // Sessions look whether they stand.
    let mut own = 0;
    let mut settled = costs(server, &mut own).await;
    until("the sessions are open", async || {
        let before = std::mem::replace(&mut settled, costs(server, &mut own).await);
        before == settled
    })
    .await;
    for (first, second) in Mode::ALL
        .into_iter()
        .flat_map(|a| Mode::ALL.map(|b| (a, b)))
    {
        let (held, outcome) = asks(&mut client, first).await;
        let before = costs(server, &mut own).await;
        let next = client.claim("n", second);
        let replaced = replace(&client, &held, &next).await;
        let after = costs(server, &mut own).await;
        let modes = format!("{first}, {second}");
        assert!(is_granted(replaced), "{modes}");
        assert!(token(replaced) > token(outcome), "{modes}");
        let spent = (after.0 - before.0, after.1 - before.1);
        assert_eq!(spent, (1, 1), "requests, commits: {modes}");
        assert_eq!(queue(&backend).await, (vec![next.id], vec![]), "{modes}");
        // That one answered.
        own += 1;
        withdraw(&client, &next).await;
    }
}

/// FAIR, WAKE: who waits behind the one that leaves is granted and told, and the one that comes waits
/// behind that.
async fn those_behind_it_come_first(server: &Server) {
    let (backend, mut holder, mut waiter) = two_sessions(server, "order").await;
    let (mut held, outcome) = asks(&mut holder, Mode::Exclusive).await;
    let mut last = token(outcome);
    let (mut wanted, outcome) = asks(&mut waiter, Mode::Exclusive).await;
    assert!(is_waiting(outcome));
    for _ in 0..50 {
        let next = holder.claim("n", Mode::Exclusive);
        let before = server.raw().await.get("x", None).await.unwrap();
        let replaced = replace(&holder, &held, &next).await;
        assert!(is_waiting(replaced), "{replaced:?}");
        let after = server.raw().await.get("x", None).await.unwrap();
        let written = after.header().unwrap().revision() - before.header().unwrap().revision();
        assert_eq!(written, 1, "one commit");
        let expected = (vec![wanted.id], vec![next.id]);
        assert_eq!(queue(&backend).await, expected);
        let Push::Granted(claim, token) = waiter.push().await else {
            panic!("it is the waiter's turn");
        };
        assert_eq!(claim, wanted.id);
        assert!(token > last, "{token} after {last}");
        last = token;
        (held, wanted) = (wanted, next);
        std::mem::swap(&mut holder, &mut waiter);
    }
}

/// FAIR: a claim that waits gives its place up for one at the end, and is granted nothing any more.
async fn one_that_waits(server: &Server) {
    let (backend, mut holder, mut waiter) = two_sessions(server, "waits").await;
    let (held, _) = asks(&mut holder, Mode::ProtectedWrite).await;
    let (first, outcome) = asks(&mut waiter, Mode::Exclusive).await;
    assert!(is_waiting(outcome));
    let (second, outcome) = asks(&mut holder, Mode::ConcurrentRead).await;
    assert!(is_waiting(outcome));
    let next = waiter.claim("n", Mode::ProtectedWrite);
    assert!(is_waiting(replace(&waiter, &first, &next).await));
    assert_eq!(
        queue(&backend).await,
        (vec![held.id, second.id], vec![next.id])
    );
    assert!(matches!(holder.push().await, Push::Granted(claim, _) if claim == second.id));
    withdraw(&holder, &held).await;
    assert!(matches!(waiter.push().await, Push::Granted(claim, _) if claim == next.id));
    let status = waiter.session().status(&first).await.unwrap();
    assert_eq!(status, Outcome::Absent);
}

/// ONCE: a copy that arrives again changes nothing, and what was withdrawn since does not come back.
async fn a_late_copy(server: &Server) {
    let (backend, mut holder, mut waiter) = two_sessions(server, "late").await;
    let (held, _) = asks(&mut holder, Mode::Exclusive).await;
    let next = holder.claim("n", Mode::Exclusive);
    let granted = replace(&holder, &held, &next).await;
    let (wanted, _) = asks(&mut waiter, Mode::Exclusive).await;
    assert_eq!(replace(&holder, &held, &next).await, granted);
    let expected = (vec![next.id], vec![wanted.id]);
    assert_eq!(queue(&backend).await, expected);
    let session = holder.session();
    let mark = session.withdraw(&next, Attempts::Unanswered);
    mark.await.unwrap();
    withdraw(&waiter, &wanted).await;
    let late = replace(&holder, &held, &next).await;
    assert_eq!(late, Outcome::Absent);
    assert_eq!(queue(&backend).await, (vec![], vec![]));
}

/// A session that is over gets nothing, and nobody else loses anything.
async fn a_session_that_is_over(server: &Server) {
    let mut raw = server.raw().await;
    for revoke in [true, false] {
        let (backend, mut holder, mut waiter) = two_sessions(server, "over").await;
        let (held, _) = asks(&mut holder, Mode::ProtectedRead).await;
        let (beside, _) = asks(&mut waiter, Mode::ProtectedRead).await;
        let key = format!("dlock/over/sessions/{}", holder.id);
        if revoke {
            let found = raw.get(key, None).await.unwrap();
            raw.lease_revoke(found.kvs()[0].lease()).await.unwrap();
        } else {
            // Its lease stands.
            raw.delete(key, None).await.unwrap();
        }
        let next = holder.claim("n", Mode::ProtectedRead);
        let replaced = holder.session().replace(&held, &next).await;
        let fault = replaced.unwrap_err();
        assert_eq!(fault.kind(), StoreErrorKind::Lapsed, "{fault}");
        assert_eq!(queue(&backend).await, (vec![beside.id], vec![]));
        let status = waiter.session().status(&beside).await.unwrap();
        assert!(is_granted(status));
        holder.session().close().await.unwrap();
        waiter.session().close().await.unwrap();
    }
}

/// CANCEL: nobody watches for the one that has left, whether it waited or was listened for.
async fn watches_do_not_leak(server: &Server) {
    let settled = async |expected: u64, when: &str| {
        until(when, async || server.metrics().await.watchers() == expected).await;
    };
    settled(0, "the other tests' sessions are over").await;
    let (_backend, mut holder, mut waiter) = two_sessions(server, "leak").await;
    let (held, _) = asks(&mut holder, Mode::Exclusive).await;
    holder.session().listen(&held).await.unwrap();
    settled(3, "one for each session, and one for the claim").await;
    let kept = holder.claim("n", Mode::Exclusive);
    let replaced = replace(&holder, &held, &kept).await;
    assert!(is_granted(replaced));
    settled(2, "nobody listens for the next one").await;
    let (mut waiting, _) = asks(&mut waiter, Mode::Exclusive).await;
    for _ in 0..10 {
        let next = waiter.claim("n", Mode::ProtectedRead);
        let replaced = replace(&waiter, &waiting, &next).await;
        assert!(is_waiting(replaced));
        waiting = next;
    }
    settled(3, "one for the claim that waits").await;
    withdraw(&waiter, &waiting).await;
    settled(2, "nobody waits").await;
    // Its place is forgotten too.
    assert!(holder.session().listen(&held).await.is_err());
}

/// ATOM-B: a server out of space frees a claim, whether it takes another one or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_out_of_space() {
    let server = Server::start_with("http", &["--quota-backend-bytes=500000"], &[]).await;
    let (backend, mut holder, _) = two_sessions(&server, "full").await;
    let (held, outcome) = asks(&mut holder, Mode::Exclusive).await;
    assert!(is_granted(outcome));
    let mut raw = server.raw().await;
    while (raw.put("elsewhere", "x".repeat(100_000), None).await).is_ok() {}
    let next = holder.claim("n", Mode::Exclusive);
    let replaced = holder.session().replace(&held, &next).await;
    let (holders, _) = queue(&backend).await;
    match replaced {
        Ok(outcome) => assert!(is_granted(outcome) && holders == [next.id]),
        Err(fault) => {
            assert_eq!(fault.kind(), StoreErrorKind::Unconfirmed, "{fault}");
            assert_eq!(holders, []);
        }
    }
}
