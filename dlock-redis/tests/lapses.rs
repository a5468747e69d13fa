//! LIVE-A, FAIR: what a session leaves that lapses is taken out of the middle of a queue as the lock table
//! takes it out.

// Helpers belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use dlock_core::table::{LockTable, Stamp};
use dlock_core::{Attempts, Backend, Mode, Push, Wait};
use support::{Client, IMAGES, Server, ids, is_granted, is_waiting, name};

const LONG: Duration = Duration::from_secs(600);
const STAMP: Stamp = Stamp {
    order: 1,
    millis: 0,
};
/// The claims of the first client lapse: one that is granted beside others, and one that waits ahead of
/// others.
const QUEUE: [(usize, Mode); 5] = [
    (0, Mode::ProtectedRead),
    (1, Mode::ConcurrentRead),
    (0, Mode::Exclusive),
    (2, Mode::ProtectedRead),
    (3, Mode::ConcurrentWrite),
];

/// Nobody frees anything until somebody looks or leaves. WAKE: whom that grants is told.
async fn whoever_looks_or_leaves_frees(image: (&str, &str), leaves: bool) {
    let server = Server::start(image, &[]).await;
    let backend = server.connect("").await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Client::open(&backend, LONG).await);
    }
    let mut table = LockTable::default();
    let mut claims = Vec::new();
    for (client, mode) in QUEUE {
        let claim = clients[client].claim("n", mode);
        let asking = clients[client].session().request(&claim, Wait::InTurn);
        let token = table.request(claim.id, mode, &claim.owner, STAMP);
        assert_eq!(is_granted(asking.await.unwrap()), token.is_some());
        claims.push(claim);
    }
    server.raw().await.lapse("default.0", clients[0].id).await;
    let granted = table.expire(clients[0].id, STAMP);
    assert_eq!(granted.len(), 1);
    if leaves {
        let leaving = clients[1].session();
        let left = leaving.withdraw(&claims[1], Attempts::Answered).await;
        left.unwrap();
        table.withdraw(claims[1].id, STAMP);
    } else {
        let outcome = clients[3].session().status(&claims[4]).await.unwrap();
        assert!(is_waiting(outcome), "{outcome:?}");
    }
    let expected = |granted: bool| {
        let entries = table.claims();
        let entries = entries.filter(|entry| entry.token.is_some() == granted);
        entries.map(|entry| entry.id).collect()
    };
    let seen = backend.inspect(&name("n")).await.unwrap();
    assert_eq!(ids(&seen), (expected(true), expected(false)));
    let mut told = false;
    while !told {
        told = matches!(clients[2].push().await, Push::Granted(id, _) if id == granted[0].id);
    }
}

#[tokio::test]
async fn whoever_leaves_frees_what_lapsed() {
    for image in IMAGES {
        whoever_looks_or_leaves_frees(image, true).await;
    }
}

#[tokio::test]
async fn whoever_looks_frees_what_lapsed() {
    for image in IMAGES {
        whoever_looks_or_leaves_frees(image, false).await;
    }
}
