//! Sessions that are asked to tell who waits behind a granted claim.

// Helpers belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use dlock_core::{Claim, Mode, Push, StoreErrorKind, Wait};
use dlock_etcd::Etcd;
use futures_util::FutureExt;
use support::proxy::{Proxy, Way};
use support::{Client, LIMIT, LONG, Server, connect, is_granted, is_waiting, until, withdraw};

/// One test after the other on one server: they read its counters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_one_server() {
    let server = Server::start().await;
    who_waits_already(&server).await;
    who_comes(&server).await;
    who_is_in_nobodys_way(&server).await;
    watches_do_not_leak(&server).await;
    a_stream_that_breaks(&server).await;
    a_session_that_is_over(&server).await;
}

async fn backend(server: &Server, namespace: &str) -> Etcd {
    server.connect(&format!("/{namespace}")).await.unwrap()
}

async fn two_sessions(server: &Server, namespace: &str) -> (Client, Client) {
    let backend = backend(server, namespace).await;
    (
        Client::open(&backend, LONG).await,
        Client::open(&backend, LONG).await,
    )
}

async fn granted(client: &mut Client, mode: Mode) -> Claim {
    let claim = client.claim("n", mode);
    let request = client.session().request(&claim, Wait::InTurn);
    assert!(is_granted(request.await.unwrap()), "{mode}");
    claim
}

async fn waits(client: &mut Client, mode: Mode) -> Claim {
    let claim = client.claim("n", mode);
    let request = client.session().request(&claim, Wait::InTurn);
    assert!(is_waiting(request.await.unwrap()), "{mode}");
    claim
}

/// It has been pushed before the answer.
async fn who_waits_already(server: &Server) {
    let (mut holder, mut other) = two_sessions(server, "already").await;
    for mode in [Mode::Exclusive, Mode::ProtectedRead, Mode::ConcurrentRead] {
        let held = granted(&mut holder, mode).await;
        let waiting = waits(&mut other, Mode::Exclusive).await;
        holder.session().listen(&held).await.unwrap();
        let pushed = holder.inbox.next().now_or_never().flatten();
        assert_eq!(pushed, Some(Push::Contended(held.id)), "{mode}");
        withdraw(&other, &waiting).await;
        withdraw(&holder, &held).await;
    }
}

async fn who_comes(server: &Server) {
    let (mut holder, mut other) = two_sessions(server, "comes").await;
    for round in 0..100 {
        let held = granted(&mut holder, Mode::ProtectedRead).await;
        // Beside each other, too.
        let (listened, waiting) = match round {
            0..50 => {
                let listened = holder.session().listen(&held).await;
                // A look at a claim that is granted does not end it.
                let status = holder.session().status(&held).await.unwrap();
                assert!(is_granted(status));
                assert_eq!(holder.inbox.next().now_or_never(), None);
                (listened, waits(&mut other, Mode::ConcurrentWrite).await)
            }
            _ => tokio::join!(
                holder.opened.session.listen(&held),
                waits(&mut other, Mode::ConcurrentWrite)
            ),
        };
        listened.unwrap();
        assert_eq!(holder.push().await, Push::Contended(held.id));
        withdraw(&other, &waiting).await;
        withdraw(&holder, &held).await;
    }
}

/// Claims of the session itself, claims in modes that are compatible, tries, and those who leave.
async fn who_is_in_nobodys_way(server: &Server) {
    let (mut holder, mut other) = two_sessions(server, "nobody").await;
    let before = granted(&mut other, Mode::ConcurrentRead).await;
    let held = granted(&mut holder, Mode::ProtectedRead).await;
    let own = waits(&mut holder, Mode::Exclusive).await;
    let null = granted(&mut other, Mode::Null).await;
    holder.session().listen(&held).await.unwrap();
    withdraw(&holder, &own).await;
    let own = waits(&mut holder, Mode::ProtectedWrite).await;
    let tried = other.claim("n", Mode::Exclusive);
    let tried = other.session().request(&tried, Wait::Never).await;
    assert!(!is_granted(tried.unwrap()));
    withdraw(&holder, &own).await;
    let beside = granted(&mut other, Mode::ProtectedRead).await;
    for claim in [&before, &null, &beside] {
        withdraw(&other, claim).await;
    }
    // A lock whose name begins with the same letter.
    let elsewhere = other.claim("n2", Mode::Exclusive);
    let request = other.session().request(&elsewhere, Wait::InTurn);
    assert!(is_granted(request.await.unwrap()));
    // Whatever there was to be heard has been heard by then.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(holder.inbox.next().now_or_never(), None, "nobody waits");
    let waiting = waits(&mut other, Mode::Exclusive).await;
    assert_eq!(holder.push().await, Push::Contended(held.id));
    withdraw(&other, &waiting).await;
    let again = waits(&mut other, Mode::Exclusive).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(holder.inbox.next().now_or_never(), None, "told once");
    withdraw(&other, &again).await;

    // Nothing is in the way of this mode, and nobody need be asked.
    let null = granted(&mut holder, Mode::Null).await;
    let requests = server.metrics().await.requests();
    holder.session().listen(&null).await.unwrap();
    assert_eq!(server.metrics().await.requests(), requests);
}

/// CANCEL: nobody watches for a claim that is contended or withdrawn, whoever gave up meanwhile.
async fn watches_do_not_leak(server: &Server) {
    let settled = async |expected: u64, when: &str| {
        until(when, async || server.metrics().await.watchers() == expected).await;
    };
    settled(0, "the other tests' sessions are over").await;
    let (mut holder, mut other) = two_sessions(server, "leak").await;
    settled(2, "one for each session").await;
    let held = granted(&mut holder, Mode::ProtectedRead).await;
    let requests = server.metrics().await.requests();
    for _ in 0..3 {
        holder.session().listen(&held).await.unwrap();
    }
    let asked = server.metrics().await.requests() - requests;
    assert_eq!(asked, 3, "one look each");
    settled(3, "one for the claim").await;
    withdraw(&holder, &held).await;
    settled(2, "withdrawn").await;
    let held = granted(&mut holder, Mode::ProtectedRead).await;
    assert!(holder.session().listen(&held).now_or_never().is_none());
    holder.session().listen(&held).await.unwrap();
    settled(3, "one for the claim, although one was given up").await;
    let waiting = waits(&mut other, Mode::Exclusive).await;
    assert_eq!(holder.push().await, Push::Contended(held.id));
    settled(3, "it is contended, and the other one waits").await;
    withdraw(&other, &waiting).await;
    settled(2, "nobody waits").await;
    // It was not known to be granted.
    let unknown = other.claim("n", Mode::Exclusive);
    assert!(other.session().listen(&unknown).await.is_err());
}

/// FAIR: what cannot be known counts as contended, and the next claim is listened for again.
async fn a_stream_that_breaks(server: &Server) {
    let proxy = Proxy::start(Way::To(server.port)).await;
    let url = format!("etcd://127.0.0.1:{}/breaks", proxy.port);
    let direct = backend(server, "breaks").await;
    let mut holder = Client::open(&connect(&url).await.unwrap(), LONG).await;
    let mut other = Client::open(&direct, LONG).await;
    let held = granted(&mut holder, Mode::Exclusive).await;
    holder.session().listen(&held).await.unwrap();
    proxy.lead(Way::Closed);
    assert_eq!(holder.push().await, Push::Contended(held.id));
    let listened = tokio::time::timeout(LIMIT, holder.session().listen(&held)).await;
    let fault = listened.expect("an answer, without a stream").unwrap_err();
    assert_eq!(fault.kind(), StoreErrorKind::Unavailable);
    assert_eq!(holder.push().await, Push::Contended(held.id));

    proxy.lead(Way::To(server.port));
    until("it can be known again", async || {
        holder.session().listen(&held).await.is_ok()
    })
    .await;
    while holder.inbox.next().now_or_never().is_some() {}
    waits(&mut other, Mode::Exclusive).await;
    assert_eq!(holder.push().await, Push::Contended(held.id));

    // Answers that do not come any more.
    let mut reader = Client::open(&connect(&url).await.unwrap(), LONG).await;
    let second = reader.claim("m", Mode::ProtectedRead);
    let request = reader.session().request(&second, Wait::InTurn);
    assert!(is_granted(request.await.unwrap()));
    proxy.lead(Way::Mute(server.port));
    let session = reader.opened.session.clone();
    let in_vain = async {
        // The member is left when a heartbeat goes unanswered, at the latest.
        let _ = tokio::join!(session.listen(&second), session.renew());
        std::future::pending::<Push>().await
    };
    let pushed = tokio::select! {
        pushed = reader.push() => pushed,
        pushed = in_vain => pushed,
    };
    assert_eq!(pushed, Push::Contended(second.id));
}

async fn a_session_that_is_over(server: &Server) {
    let backend = backend(server, "over").await;
    let mut holder = Client::open(&backend, LONG).await;
    let held = granted(&mut holder, Mode::Exclusive).await;
    holder.session().close().await.unwrap();
    let listened = tokio::time::timeout(LIMIT, holder.session().listen(&held)).await;
    assert!(listened.expect("an answer").is_err());
}
