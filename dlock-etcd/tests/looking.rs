//! Looks at claims that wait.

// Helpers belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

mod support;

use dlock_core::{Claim, Mode, Outcome, Push};
use support::{Client, LONG, Server, asks, is_granted, is_waiting, withdraw};

async fn looks(client: &Client, claim: &Claim) -> Outcome {
    client.session().status(claim).await.unwrap()
}

/// Comes back when it is pushed that the claim is granted. What was pushed before that is of claims that a
/// look has seen first.
async fn granted(client: &mut Client, claim: &Claim) {
    while !matches!(client.push().await, Push::Granted(id, _) if id == claim.id) {}
}

/// Whoever leaves, a look finds who is ahead then, and the grant (FAIR).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_ahead_changes() {
    let server = Server::start().await;
    let backend = server.connect("/ahead").await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Client::open(&backend, LONG).await);
    }
    let [holder, first, second, last] = &mut clients[..] else {
        unreachable!()
    };
    let (held, _) = asks(holder, Mode::ProtectedRead).await;
    let (reads, outcome) = asks(first, Mode::ProtectedRead).await;
    assert!(is_granted(outcome));
    let (writes, outcome) = asks(second, Mode::Exclusive).await;
    assert!(is_waiting(outcome));
    let (waits, outcome) = asks(last, Mode::ProtectedWrite).await;
    assert!(is_waiting(outcome));
    for (client, gone) in [(&*second, &writes), (&*first, &reads)] {
        assert!(is_waiting(looks(last, &waits).await));
        withdraw(client, gone).await;
        assert!(is_waiting(looks(last, &waits).await));
    }
    withdraw(holder, &held).await;
    let granted = looks(last, &waits).await;
    assert!(is_granted(granted));
    assert_eq!(looks(last, &waits).await, granted);
    withdraw(last, &waits).await;
    assert_eq!(looks(last, &waits).await, Outcome::Absent);
}

/// The key of the claim ahead may be another claim's by then, which is behind (FAIR).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_ahead_that_is_used_again() {
    let server = Server::start().await;
    let backend = server.connect("/again").await.unwrap();
    let mut holder = Client::open(&backend, LONG).await;
    let mut waiter = Client::open(&backend, LONG).await;
    for round in 0..40 {
        let (held, outcome) = asks(&mut holder, Mode::Exclusive).await;
        assert!(is_granted(outcome));
        let (waits, outcome) = asks(&mut waiter, Mode::Exclusive).await;
        assert!(is_waiting(outcome));
        withdraw(&holder, &held).await;
        let (again, outcome) = asks(&mut holder, Mode::Exclusive).await;
        assert!(is_waiting(outcome));
        match round % 2 {
            // Nothing need be pushed then.
            0 => assert!(is_granted(looks(&waiter, &waits).await)),
            _ => granted(&mut waiter, &waits).await,
        }
        withdraw(&waiter, &waits).await;
        granted(&mut holder, &again).await;
        withdraw(&holder, &again).await;
    }
}

/// As long as the claim before it is there, the server reads that one, the waiting one and the session, and
/// no queue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_does_not_read_the_queue() {
    const LOOKS: u64 = 50;
    let server = Server::start().await;
    let backend = server.connect("/queue").await.unwrap();
    let mut client = Client::open(&backend, LONG).await;
    asks(&mut client, Mode::Exclusive).await;
    asks(&mut client, Mode::ProtectedRead).await;
    let (last, _) = asks(&mut client, Mode::Exclusive).await;
    let ranges = async || server.metrics().await.sum("etcd_mvcc_range_total", "");
    let before = ranges().await;
    for _ in 0..LOOKS {
        assert!(is_waiting(looks(&client, &last).await));
    }
    let read = ranges().await - before;
    // The watches of the three looked, too.
    assert!(
        read >= 3 * LOOKS,
        "{read} reads are too few for {LOOKS} looks"
    );
    assert!(read <= 3 * LOOKS + 20, "{read} reads for {LOOKS} looks");
}
