//! Documents that are full, gone, or have very long names, on a real server.

// Helpers belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

mod support;

use dlock_core::{Attempts, Backend, Mode, Push, StoreErrorKind, Wait};
use serde_json::json;
use support::{Client, LONG, Server, ids, is_granted, name};

/// ATOM-B: a release makes tokens of those who waited, and its document still fits in a message.
#[tokio::test]
async fn a_full_lock_can_be_released() {
    let config = "max_payload: 16384\njetstream { store_dir: /data }\n";
    let server = Server::configured(config, &[]).await;
    let backend = server.connect("").await.unwrap();
    let mut client = Client::open(&backend, LONG).await;
    let held = client.claim("n", Mode::Exclusive);
    client.session().request(&held, Wait::InTurn).await.unwrap();
    let mut waiting = Vec::new();
    loop {
        let mut claim = client.claim("n", Mode::ProtectedRead);
        // The last ones fill what is left.
        claim.owner.label = String::new();
        match client.session().request(&claim, Wait::InTurn).await {
            Ok(_) => waiting.push(claim.id),
            Err(fault) => {
                assert_eq!(fault.kind(), StoreErrorKind::Refused);
                break;
            }
        }
        assert!(waiting.len() < 200);
    }
    client
        .session()
        .withdraw(&held, Attempts::Answered)
        .await
        .unwrap();
    let seen = backend.inspect(&name("n")).await.unwrap();
    assert_eq!(ids(&seen), (waiting, vec![]));
}

/// ATOM-B: reads may be stale, so a withdraw that finds nothing proves it by a write.
#[tokio::test]
async fn a_withdraw_does_not_believe_that_its_claim_has_gone() {
    let server = Server::start().await;
    let (backend, raw) = (server.connect("").await.unwrap(), server.raw().await);
    let mut client = Client::open(&backend, LONG).await;
    let held = client.claim("n", Mode::Exclusive);
    client.session().request(&held, Wait::InTurn).await.unwrap();
    // As a leader has it that was cut off before the request.
    raw.api("STREAM.PURGE", json!({ "filter": raw.subject("locks.n") }))
        .await;
    for _ in 0..2 {
        client
            .session()
            .withdraw(&held, Attempts::Answered)
            .await
            .unwrap();
        let left = raw.get("locks.n").await.unwrap();
        assert_eq!(left.value["claims"], json!([]));
    }
}

/// LIVE-A: a session ends when somebody deletes its key by hand, and a lock's key can be used again.
#[tokio::test]
async fn keys_that_somebody_deletes_do_not_stand_in_the_way() {
    let server = Server::start().await;
    let (backend, raw) = (server.connect("").await.unwrap(), server.raw().await);
    for operation in ["DEL", "PURGE"] {
        // As `nats kv del` and `nats kv purge` do.
        let delete = async |key: &str| {
            let headers = [("KV-Operation", operation), ("Nats-Rollup", "sub")];
            let headers = &headers[..if operation == "PURGE" { 2 } else { 1 }];
            let answer = raw.put(key, headers, Vec::new()).await;
            assert!(answer["error"].is_null(), "{answer}");
        };
        let mut holder = Client::open(&backend, LONG).await;
        let mut waiter = Client::open(&backend, LONG).await;
        let held = holder.claim("n", Mode::Exclusive);
        holder.session().request(&held, Wait::InTurn).await.unwrap();
        let wanted = waiter.claim("n", Mode::Exclusive);
        let asked = waiter.session().request(&wanted, Wait::InTurn).await;
        delete(&format!("sessions.{}", holder.id)).await;
        let seen = backend.inspect(&name("n")).await.unwrap();
        assert_eq!(ids(&seen), (vec![], vec![wanted.id]));
        waiter.wait(&wanted, asked.unwrap()).await;
        let fault = holder.session().renew().await.unwrap_err();
        assert_eq!(fault.kind(), StoreErrorKind::Lapsed);
        waiter.session().close().await.unwrap();

        let unaware = Client::open(&backend, LONG).await;
        delete(&format!("sessions.{}", unaware.id)).await;
        let fault = unaware.session().renew().await.unwrap_err();
        assert_eq!(fault.kind(), StoreErrorKind::Lapsed);

        let mut next = Client::open(&backend, LONG).await;
        delete("locks.n").await;
        let claim = next.claim("n", Mode::Exclusive);
        let outcome = next.session().request(&claim, Wait::InTurn).await.unwrap();
        assert!(is_granted(outcome));
        next.session().close().await.unwrap();
    }
}

/// ATOM-B, ONCE: the longest names work like others.
#[tokio::test]
async fn the_longest_name_works() {
    let server = Server::start().await;
    let backend = server.connect("").await.unwrap();
    let mut one = Client::open(&backend, LONG).await;
    let mut two = Client::open(&backend, LONG).await;
    let long = "\u{fc}".repeat(256);
    let held = one.claim(&long, Mode::Exclusive);
    let outcome = one.session().request(&held, Wait::InTurn).await.unwrap();
    assert!(is_granted(outcome));
    let wanted = two.claim(&long, Mode::Exclusive);
    two.session().request(&wanted, Wait::InTurn).await.unwrap();
    assert_eq!(backend.names().await.unwrap(), [name(&long)]);
    let released = one.session().withdraw(&held, Attempts::Answered);
    released.await.unwrap();
    assert!(matches!(two.push().await, Push::Granted(claim, _) if claim == wanted.id));
    two.session().close().await.unwrap();
}
