//! COMMITTED, HONEST: with `wait` and `waitaof` a grant is reported only when it is as durable as was
//! asked for, however the claim came by it, and heartbeats do not wait behind that.

// Helpers belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use dlock_core::{Attempts, Backend, Claim, Mode, Push, Session, StoreErrorKind, Wait};
use support::{Client, IMAGES, Server, is_granted, is_waiting, until};

const LONG: Duration = Duration::from_secs(600);

/// A server and one replica of it, in the same container.
async fn with_replica(image: (&str, &str)) -> Server {
    let server = Server::start(image, &["--repl-diskless-sync-delay", "0"]).await;
    let program = if image.0 == "redis" {
        "redis-server"
    } else {
        "valkey-server"
    };
    let command = [
        program,
        "--port",
        "6380",
        "--replicaof",
        "127.0.0.1",
        "6379",
        "--daemonize",
        "yes",
        "--pidfile",
        "/tmp/replica.pid",
        "--dir",
        "/tmp",
        "--save",
        "",
    ];
    server.exec(&command).await;
    let mut raw = server.raw().await;
    until("the replica follows", async || {
        let info: String = raw.run(&["INFO", "replication"]).await;
        info.contains("state=online")
    })
    .await;
    server
}

async fn unconfirmed(session: &dyn Session, claim: &Claim) {
    for asked_again in [false, true] {
        let fault = if asked_again {
            session.status(claim).await.unwrap_err()
        } else {
            session.request(claim, Wait::InTurn).await.unwrap_err()
        };
        assert_eq!(fault.kind(), StoreErrorKind::Unconfirmed);
        let text = fault.to_string();
        assert!(
            text.contains("1 replicas were to have it") && text.contains("0 did"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn replicas_confirm_what_is_granted() {
    for image in IMAGES {
        let server = with_replica(image).await;
        let backend = server.connect("?wait=1&wait_timeout=1s").await.unwrap();
        assert!(
            backend
                .capabilities()
                .durability
                .contains("1 of its replicas")
        );
        let mut holder = Client::open(&backend, LONG).await;
        let mut waiter = Client::open(&backend, LONG).await;
        let held = holder.claim("n", Mode::Exclusive);
        assert!(is_granted(
            holder.session().request(&held, Wait::InTurn).await.unwrap()
        ));
        let wanted = waiter.claim("n", Mode::Exclusive);
        assert!(is_waiting(
            waiter
                .session()
                .request(&wanted, Wait::InTurn)
                .await
                .unwrap()
        ));
        holder
            .session()
            .withdraw(&held, Attempts::Answered)
            .await
            .unwrap();
        // A push says only that there is something to look at.
        assert_eq!(waiter.push().await, Push::Changed(wanted.id));
        assert!(is_granted(waiter.session().status(&wanted).await.unwrap()));

        // The replica stops, and its connection stays.
        server
            .exec(&["sh", "-c", "kill -STOP $(cat /tmp/replica.pid)"])
            .await;
        let again = waiter.claim("m", Mode::Exclusive);
        let start = Instant::now();
        let (heartbeat, ()) = tokio::join!(
            async {
                tokio::time::sleep(Duration::from_millis(200)).await;
                waiter.session().renew().await.unwrap();
                start.elapsed()
            },
            unconfirmed(waiter.session(), &again),
        );
        assert!(heartbeat < Duration::from_millis(900), "{heartbeat:?}");
        assert!(start.elapsed() >= Duration::from_secs(2));
        // This one was confirmed before. It wrote nothing since, but the question does.
        let fault = waiter.session().status(&wanted).await.unwrap_err();
        assert_eq!(fault.kind(), StoreErrorKind::Unconfirmed);
        // What is not granted needs no confirmation.
        let tried = holder.claim("n", Mode::Exclusive);
        holder.session().request(&tried, Wait::Never).await.unwrap();

        server
            .exec(&["sh", "-c", "kill -CONT $(cat /tmp/replica.pid)"])
            .await;
        assert!(is_granted(waiter.session().status(&again).await.unwrap()));
        holder.session().close().await.unwrap();
        waiter.session().close().await.unwrap();
    }
}

/// A promotion's grant was written by the releaser's connection: the one who was granted confirms it
/// by a write of its own.
#[tokio::test]
async fn whoever_is_granted_by_another_s_release_confirms_it_itself() {
    let server = with_replica(IMAGES[0]).await;
    let backend = server.connect("?wait=1&wait_timeout=300ms").await.unwrap();
    let mut holder = Client::open(&backend, LONG).await;
    // The waiter has connections of its own.
    let elsewhere = server.connect("?wait=1&wait_timeout=300ms").await.unwrap();
    let mut waiter = Client::open(&elsewhere, LONG).await;
    let held = holder.claim("n", Mode::Exclusive);
    holder.session().request(&held, Wait::InTurn).await.unwrap();
    let wanted = waiter.claim("n", Mode::Exclusive);
    assert!(is_waiting(
        waiter
            .session()
            .request(&wanted, Wait::InTurn)
            .await
            .unwrap()
    ));
    server
        .exec(&["sh", "-c", "kill -STOP $(cat /tmp/replica.pid)"])
        .await;
    holder
        .session()
        .withdraw(&held, Attempts::Answered)
        .await
        .unwrap();
    assert_eq!(waiter.push().await, Push::Changed(wanted.id));
    let fault = waiter.session().status(&wanted).await.unwrap_err();
    assert_eq!(fault.kind(), StoreErrorKind::Unconfirmed);
    server
        .exec(&["sh", "-c", "kill -CONT $(cat /tmp/replica.pid)"])
        .await;
    until("it is confirmed", async || {
        waiter.session().status(&wanted).await.is_ok_and(is_granted)
    })
    .await;
}

#[tokio::test]
async fn the_append_only_file_confirms_what_is_granted() {
    for image in [IMAGES[0], IMAGES[2]] {
        let server = Server::start(image, &["--appendonly", "yes"]).await;
        let backend = server.connect("?waitaof=1,0").await.unwrap();
        let mut client = Client::open(&backend, LONG).await;
        let claim = client.claim("n", Mode::Exclusive);
        assert!(is_granted(
            client.session().request(&claim, Wait::Never).await.unwrap()
        ));
        let backend = server
            .connect("?waitaof=1,1&wait_timeout=200ms")
            .await
            .unwrap();
        let mut client = Client::open(&backend, LONG).await;
        let claim = client.claim("m", Mode::Exclusive);
        let fault = client
            .session()
            .request(&claim, Wait::Never)
            .await
            .unwrap_err();
        assert_eq!(fault.kind(), StoreErrorKind::Unconfirmed);
        assert!(fault.to_string().contains("0 did"), "{fault}");
        // It is granted all the same, so it must be withdrawn.
        client
            .session()
            .withdraw(&claim, Attempts::Answered)
            .await
            .unwrap();
        assert!(backend.inspect(&claim.name).await.unwrap().is_free());
    }
}
