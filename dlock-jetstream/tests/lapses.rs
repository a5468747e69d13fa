//! LIVE-A, FAIR: what a session leaves that lapses is taken out of the middle of a queue as the lock table
//! takes it out.

// Helpers belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

mod support;

use dlock_core::table::{LockTable, Stamp};
use dlock_core::{Backend, Mode, Wait};
use support::{Client, LONG, Server, ids, is_granted, is_waiting, name};

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

/// Nobody frees anything until somebody looks.
#[tokio::test]
async fn whoever_looks_frees_what_lapsed() {
    let server = Server::start().await;
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
    server.raw().await.lapse(clients[0].id).await;
    assert_eq!(table.expire(clients[0].id, STAMP).len(), 1);
    for (client, place) in [(3, 4), (2, 3), (1, 1)] {
        let outcome = clients[client].session().status(&claims[place]).await;
        let outcome = outcome.unwrap();
        assert_eq!(is_waiting(outcome), place == 4, "{outcome:?}");
    }
    let expected = |granted: bool| {
        let entries = table.claims();
        let entries = entries.filter(|entry| entry.token.is_some() == granted);
        entries.map(|entry| entry.id).collect()
    };
    let seen = backend.inspect(&name("n")).await.unwrap();
    assert_eq!(ids(&seen), (expected(true), expected(false)));
}
