//! The keys that a session uses for its claims.

// Helpers belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;

use dlock_core::{Attempts, Client, Mode, Wait};
use etcd_client::{EventType, WatchOptions};
use support::{LONG, Server, is_granted};

/// The keys that were ever written below this one.
async fn written(server: &Server, prefix: &str) -> BTreeSet<Vec<u8>> {
    let mut raw = server.raw().await;
    let now = raw.get(prefix, None).await.unwrap();
    let now = now.header().unwrap().revision();
    let options = WatchOptions::new().with_prefix().with_start_revision(1);
    let mut watch = raw.watch(prefix, Some(options)).await.unwrap();
    // The last one to be told of.
    let last = format!("{prefix}the end").into_bytes();
    raw.put(last.clone(), "", None).await.unwrap();
    let mut keys = BTreeSet::new();
    loop {
        let told = watch.message().await.unwrap().unwrap();
        for event in told.events() {
            let key = event.kv().unwrap();
            if key.mod_revision() > now {
                return keys;
            }
            if event.event_type() == EventType::Put && key.key() != last {
                keys.insert(key.key().to_vec());
            }
        }
    }
}

/// The server's work for a request does not grow with the acquisitions before it: they leave no keys behind in
/// its history that a range would walk over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_taken_often_has_few() {
    let server = Server::start().await;
    let backend = server.connect("/often").await.unwrap();
    let client = Client::builder(backend.clone()).connect().await.unwrap();
    let other = Client::builder(backend).connect().await.unwrap();
    for _ in 0..100 {
        client.lock("n").await.unwrap().release().await.unwrap();
        assert!(other.lock("n").try_now().await.unwrap().is_some());
        // Given back and asked for anew in one operation.
        drop(client.lock("n").await.unwrap());
    }
    let keys = written(&server, "dlock/often/locks/").await;
    assert!((1..=4).contains(&keys.len()), "{} keys", keys.len());
}

/// ATOM-B, ONCE: what was not answered may still arrive, and is about one claim alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_something_may_arrive_for_is_not_used_again() {
    let server = Server::start().await;
    let backend = server.connect("/doubt").await.unwrap();
    let mut client = support::Client::open(&backend, LONG).await;
    for round in 1..=5 {
        let claim = client.claim("n", Mode::Exclusive);
        let session = client.session();
        let requested = session.request(&claim, Wait::InTurn).await;
        assert!(is_granted(requested.unwrap()));
        // Given up as soon as it was begun.
        let given_up = session.withdraw(&claim, Attempts::Answered);
        assert!(futures_util::FutureExt::now_or_never(given_up).is_none());
        let withdrawn = session.withdraw(&claim, Attempts::Answered).await;
        withdrawn.unwrap();
        let keys = written(&server, "dlock/doubt/locks/").await;
        assert_eq!(keys.len(), round);
    }
}
