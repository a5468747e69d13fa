//! What breaks at the wrong moment: streams, answers, leases, whole servers.

// Helpers belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use dlock_core::{
    Attempts, Backend, Claim, FencingToken, LossReason, Mode, Outcome, Push, StoreErrorKind, Wait,
};
use dlock_etcd::Etcd;
use etcd_client::{GetOptions, Txn, TxnOp};
use support::proxy::{Proxy, Way};
use support::{Client, LONG, Server, connect, is_granted, is_waiting, name, until};

async fn through(proxy: &Proxy, namespace: &str) -> Etcd {
    let url = format!("etcd://127.0.0.1:{}/{namespace}", proxy.port);
    connect(&url).await.unwrap()
}

async fn request(client: &Client, claim: &Claim) -> Outcome {
    let request = client.session().request(claim, Wait::InTurn);
    request.await.unwrap()
}

async fn token(client: &Client, claim: &Claim) -> FencingToken {
    match request(client, claim).await {
        Outcome::Granted { token } => token,
        other => panic!("{other:?}"),
    }
}

/// Ends a session as an operator would.
async fn revoke(raw: &mut etcd_client::Client, namespace: &str, client: &Client) {
    let key = format!("dlock/{namespace}/sessions/{}", client.id);
    let found = raw.get(key, None).await.unwrap();
    raw.lease_revoke(found.kvs()[0].lease()).await.unwrap();
}

/// The next push is that the session is over: no claim of it is granted before that.
async fn is_told_that_it_is_over(client: &mut Client) {
    assert_eq!(client.push().await, Push::Lost(LossReason::Revoked));
}

/// ATOM-A, WAKE: a session's end deletes its claims and its key in one revision, and the server tells of
/// them in any order. None of its claims is granted by the end of another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_waits_for_itself_ends() {
    let server = Server::start().await;
    let backend = server.connect("/itself").await.unwrap();
    let mut raw = server.raw().await;
    for _ in 0..5 {
        let mut client = Client::open(&backend, LONG).await;
        for n in 0..20 {
            let lock = format!("n{n}");
            let held = client.claim(&lock, Mode::Exclusive);
            assert!(is_granted(request(&client, &held).await));
            let wanted = client.claim(&lock, Mode::Exclusive);
            assert!(is_waiting(request(&client, &wanted).await));
        }
        let watched = async || server.metrics().await.watchers() == 21;
        until("all are watched", watched).await;
        revoke(&mut raw, "itself", &client).await;
        is_told_that_it_is_over(&mut client).await;
        drop(client);
        until("its watches are gone", async || {
            server.metrics().await.watchers() == 0
        })
        .await;
    }
}

/// ATOM-A, WAKE: a session that ended while its watches were broken is granted nothing by what they
/// missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_while_its_stream_is_broken() {
    let server = Server::start().await;
    let proxy = Proxy::start(Way::To(server.port)).await;
    let (near, far) = (
        server.connect("/broken").await.unwrap(),
        through(&proxy, "broken").await,
    );
    let mut raw = server.raw().await;
    for _ in 0..5 {
        let mut holder = Client::open(&near, LONG).await;
        let mut waiter = Client::open(&far, LONG).await;
        for n in 0..30 {
            let lock = format!("n{n}");
            let held = holder.claim(&lock, Mode::Exclusive);
            assert!(is_granted(request(&holder, &held).await));
            let wanted = waiter.claim(&lock, Mode::Exclusive);
            assert!(is_waiting(request(&waiter, &wanted).await));
        }
        proxy.lead(Way::Closed);
        revoke(&mut raw, "broken", &waiter).await;
        holder.session().close().await.unwrap();
        proxy.lead(Way::To(server.port));
        is_told_that_it_is_over(&mut waiter).await;
    }
}

/// WAKE, FAIR: what happens while the watches are broken is found out when they are back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_while_the_stream_is_broken() {
    let server = Server::start().await;
    let proxy = Proxy::start(Way::To(server.port)).await;
    let (near, far) = (
        server.connect("/release").await.unwrap(),
        through(&proxy, "release").await,
    );
    let mut holder = Client::open(&near, LONG).await;
    let mut waiter = Client::open(&far, LONG).await;
    let readers = [(); 2].map(|()| holder.claim("n", Mode::ProtectedRead));
    for reader in &readers {
        assert!(is_granted(request(&holder, reader).await));
    }
    let wanted = waiter.claim("n", Mode::Exclusive);
    assert!(is_waiting(request(&waiter, &wanted).await));
    for reader in &readers {
        proxy.lead(Way::Closed);
        let session = holder.session();
        session.withdraw(reader, Attempts::Answered).await.unwrap();
        proxy.lead(Way::To(server.port));
        until("the watches are back", async || {
            server.metrics().await.watchers() >= 2
        })
        .await;
    }
    assert!(matches!(waiter.push().await, Push::Granted(claim, _) if claim == wanted.id));
}

/// ONCE, FENCE: a claim whose answer was lost is one claim, with the token that it had from the start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_lost() {
    let server = Server::start().await;
    let proxy = Proxy::start(Way::To(server.port)).await;
    let (near, far) = (
        server.connect("/lost").await.unwrap(),
        through(&proxy, "lost").await,
    );
    let mut client = Client::open(&far, LONG).await;
    let mut raw = server.raw().await;
    // Another client's clock is ahead, by more each time, and it raises the base before the claim is asked
    // about: where the claim's record does not have its base, that is looked up.
    for hours in [0, 1, 2] {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64;
        let base = format!("{:016}", now + hours * 3_600_000_000);
        raw.put("dlock/lost/base", base, None).await.unwrap();
        for repeated in [true, false] {
            let claim = client.claim("n", Mode::Exclusive);
            proxy.lead(Way::Mute(server.port));
            let request = client.session().request(&claim, Wait::InTurn);
            // Long enough to hold it against the connection, also if that had to be made first.
            let given_up = tokio::time::timeout(Duration::from_millis(900), request).await;
            assert!(!matches!(given_up, Ok(Ok(_))), "{given_up:?}");
            let arrived = async || !near.inspect(&claim.name).await.unwrap().is_free();
            until("the request arrives", arrived).await;
            let seen = near.inspect(&claim.name).await.unwrap().holders[0].token;
            let raised = format!("{:016}", now + hours * 3_600_000_000 + 1_800_000_000);
            raw.put("dlock/lost/base", raised, None).await.unwrap();
            proxy.lead(Way::To(server.port));
            if repeated {
                let found = client.session().request(&claim, Wait::InTurn).await;
                let Outcome::Granted { token } = found.unwrap() else {
                    panic!("it is granted");
                };
                assert_eq!(Some(token), seen, "FENCE");
            }
            let session = client.session();
            session
                .withdraw(&claim, Attempts::Unanswered)
                .await
                .unwrap();
            assert!(near.inspect(&claim.name).await.unwrap().is_free());
            let late = session.request(&claim, Wait::InTurn).await.unwrap();
            assert_eq!(late, Outcome::Absent);
        }
    }
}

/// FENCE: when an empty server takes the place of another, its sessions end, and tokens go on rising.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_server() {
    let (first, second) = (Server::start().await, Server::start().await);
    let proxy = Proxy::start(Way::To(first.port)).await;
    let backend = through(&proxy, "wiped").await;
    let mut holder = Client::open(&backend, LONG).await;
    let mut waiter = Client::open(&backend, LONG).await;
    let held = holder.claim("n", Mode::Exclusive);
    let wanted = waiter.claim("n", Mode::Exclusive);
    let before = token(&holder, &held).await;
    assert!(is_waiting(request(&waiter, &wanted).await));
    proxy.lead(Way::To(second.port));
    // Nobody is asked, and nobody renews: they hear it all the same.
    is_told_that_it_is_over(&mut holder).await;
    is_told_that_it_is_over(&mut waiter).await;
    for client in [&holder, &waiter] {
        let fault = client.session().renew().await.unwrap_err();
        assert_eq!(fault.kind(), StoreErrorKind::Lapsed);
        client.session().close().await.unwrap();
    }
    let mut next = Client::open(&backend, LONG).await;
    let claim = next.claim("n", Mode::Exclusive);
    let after = token(&next, &claim).await;
    assert!(after > before, "{after} after {before}");
}

/// ATOM-A, FENCE: a session that its restored store still knows ends all the same: the store has forgotten
/// what it granted since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_restored_from_a_backup() {
    let server = Server::start().await;
    let proxy = Proxy::start(Way::To(server.port)).await;
    let backend = through(&proxy, "restored").await;
    let mut holder = Client::open(&backend, LONG).await;
    let mut waiter = Client::open(&backend, LONG).await;
    let earlier = holder.claim("earlier", Mode::Exclusive);
    assert!(is_granted(request(&holder, &earlier).await));
    server.back_up().await;
    let held = holder.claim("n", Mode::Exclusive);
    let wanted = waiter.claim("n", Mode::Exclusive);
    let before = token(&holder, &held).await;
    assert!(is_waiting(request(&waiter, &wanted).await));
    let restored = server.restore().await;
    proxy.lead(Way::To(restored));
    is_told_that_it_is_over(&mut holder).await;
    is_told_that_it_is_over(&mut waiter).await;
    for client in [&holder, &waiter] {
        client.session().close().await.unwrap();
    }
    assert_eq!(
        backend.names().await.unwrap(),
        [],
        "what the backup held is free"
    );
    let mut next = Client::open(&backend, LONG).await;
    let claim = next.claim("n", Mode::Exclusive);
    let after = token(&next, &claim).await;
    assert!(after > before, "{after} after {before}");
}

/// FENCE: tokens are about the time, also those of a session that has been idle while the store was
/// written to. Otherwise tokens would go back with a loss of the data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_session_on_a_busy_server() {
    const REVISIONS: usize = 20_000;
    let often = "--experimental-watch-progress-notify-interval=100ms";
    let server = Server::start_with("http", &[often], &[]).await;
    let backend = server.connect("/idle").await.unwrap();
    let mut client = Client::open(&backend, LONG).await;
    let raw = server.raw().await;
    let writers = (0..100).map(|n| {
        let mut kv = raw.kv_client();
        tokio::spawn(async move {
            for _ in 0..REVISIONS / 100 {
                kv.put(format!("elsewhere-{n}"), "", None).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    // Long enough for a notice, on a loaded machine too.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let claim = client.claim("n", Mode::Exclusive);
    let order = token(&client, &claim).await.order();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64;
    assert!(order <= now, "{} µs ahead", order.saturating_sub(now));
}

/// ATOM-B, CANCEL: a claim that cannot have a token, because somebody has made the base absurd, is not
/// left behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absurd_base() {
    let server = Server::start().await;
    let backend = server.connect("/absurd").await.unwrap();
    let client = dlock_core::Client::builder(backend.clone())
        .connect()
        .await
        .unwrap();
    let mut raw = server.raw().await;
    let greatest = format!("{:016}", (1u64 << 53) - 1);
    for base in [greatest.as_str(), "9999999999999999"] {
        raw.put("dlock/absurd/base", base, None).await.unwrap();
        let fault = client.lock("n").timeout(LONG).await.unwrap_err();
        assert!(fault.to_string().contains("dlock/absurd/base"), "{fault}");
        let all = GetOptions::new().with_prefix().with_keys_only();
        until("the claim is gone", async || {
            let found = raw.get("dlock/absurd/locks/", Some(all.clone())).await;
            found.unwrap().kvs().is_empty()
        })
        .await;
    }
    assert!(backend.inspect(&name("n")).await.unwrap().is_free());
}

/// Names of 512 bytes that grow when they are encoded, and more keys than one answer lists or a message
/// holds by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_long_keys() {
    const CLAIMS: usize = 2_500;
    let server = Server::start().await;
    let backend = server.connect("/many").await.unwrap();
    let mut client = Client::open(&backend, LONG).await;
    let longest = "\u{1}".repeat(512);
    let first = client.claim(&longest, Mode::Null);
    assert!(is_granted(request(&client, &first).await));
    let mut raw = server.raw().await;
    let all = GetOptions::new().with_prefix();
    let found = raw.get("dlock/many/locks/", Some(all)).await.unwrap();
    let key = found.kvs()[0].key_str().unwrap().to_owned();
    let record = found.kvs()[0].value().to_vec();
    // The same lock, claimed often, and locks that differ in their last byte but one.
    let number = key.len() - 16;
    let claims: Vec<String> = (2..CLAIMS + 2)
        .map(|n| format!("{}{n:016x}", &key[..number]))
        .collect();
    let locks = claims.iter().map(|key| {
        let unlike = &key[number + 8..];
        let last = key.rfind("/NL/").unwrap();
        format!("{}{unlike}{}", &key[..last - 24], &key[last..])
    });
    let locks: Vec<String> = locks.collect();
    for keys in [claims, locks].concat().chunks(100) {
        let puts = keys
            .iter()
            .map(|key| TxnOp::put(key.clone(), record.clone(), None));
        raw.txn(Txn::new().and_then(puts.collect::<Vec<_>>()))
            .await
            .unwrap();
    }
    let seen = backend.inspect(&first.name).await.unwrap();
    assert_eq!(seen.holders.len(), CLAIMS + 1);
    assert_eq!(backend.names().await.unwrap().len(), CLAIMS + 1);
    let beside = client.claim(&longest, Mode::Exclusive);
    assert!(
        is_granted(request(&client, &beside).await),
        "NL is in nobody's way"
    );
    let behind = client.claim(&longest, Mode::ConcurrentRead);
    assert!(is_waiting(request(&client, &behind).await));
    let session = client.session();
    session.withdraw(&beside, Attempts::Answered).await.unwrap();
    assert!(matches!(client.push().await, Push::Granted(claim, _) if claim == behind.id));
}
