//! Clients that release a lock and ask for it again at once, and those who come to them from outside.

// Helpers belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use dlock_core::{Attempts, Backend, Mode, Push, Wait};
use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::Value;
use support::{Client, LONG, Server, ids, is_granted, is_waiting, name};

/// Takes and releases the lock until then, and says how often.
async fn turns(client: &mut Client, until: Instant) -> usize {
    let mut turns = 0;
    while Instant::now() < until {
        let claim = client.claim("n", Mode::Exclusive);
        let outcome = client.session().request(&claim, Wait::InTurn).await;
        if !is_granted(outcome.unwrap()) {
            while !matches!(client.push().await, Push::Granted(id, _) if id == claim.id) {}
        }
        let withdrawn = client.session().withdraw(&claim, Attempts::Answered).await;
        withdrawn.unwrap();
        turns += 1;
    }
    turns
}

/// FAIR: whoever knows the document needs one round trip for a write, and who comes needs two. All the same,
/// nobody is kept out.
#[tokio::test]
async fn everybody_who_comes_back_at_once_has_a_share() {
    let server = Server::start().await;
    for many in [2, 12] {
        let backends = join_all((0..many).map(|_| server.connect(""))).await;
        let clients = backends
            .iter()
            .map(|backend| Client::open(backend.as_ref().unwrap(), LONG));
        let mut clients = join_all(clients).await;
        let until = Instant::now() + Duration::from_secs(3);
        let turns = join_all(clients.iter_mut().map(|client| turns(client, until))).await;
        let (least, most) = (turns.iter().min().unwrap(), turns.iter().max().unwrap());
        assert!(*least >= 10 && least * 2 >= *most, "{turns:?}");
    }
}

/// ONCE: a knock that arrives when its claim was withdrawn lets nobody in.
#[tokio::test]
async fn a_knock_that_is_late_brings_no_claim_back() {
    let server = Server::start().await;
    let raw = server.raw().await;
    let (here, there) = (
        server.connect("").await.unwrap(),
        server.connect("").await.unwrap(),
    );
    let mut holder = Client::open(&here, LONG).await;
    let mut other = Client::open(&there, LONG).await;
    let channel = format!("dlock.default.s.{}", holder.id);
    let mut told = raw.client.subscribe(channel.clone()).await.unwrap();
    raw.client.flush().await.unwrap();

    // It knocks when it has just seen who got the lock. A slow machine may need several tries.
    let (held, wanted, knock) = loop {
        let mine = other.claim("n", Mode::Exclusive);
        assert!(is_granted(
            other.session().request(&mine, Wait::InTurn).await.unwrap()
        ));
        let held = holder.claim("n", Mode::Exclusive);
        assert!(is_waiting(
            holder.session().request(&held, Wait::InTurn).await.unwrap()
        ));
        other
            .session()
            .withdraw(&mine, Attempts::Answered)
            .await
            .unwrap();
        let wanted = other.claim("n", Mode::Exclusive);
        // The holder writes nothing, so it gets into the document by itself.
        assert!(is_waiting(
            other
                .session()
                .request(&wanted, Wait::InTurn)
                .await
                .unwrap()
        ));
        let knock = async {
            loop {
                let message = told.next().await.unwrap();
                let says: Value = serde_json::from_slice(&message.payload).unwrap();
                if says.get("knock").is_some() {
                    return message.payload;
                }
            }
        };
        if let Ok(knock) = tokio::time::timeout(Duration::from_millis(100), knock).await {
            break (held, wanted, knock);
        }
        for (client, claim) in [(&other, &wanted), (&holder, &held)] {
            client
                .session()
                .withdraw(claim, Attempts::Answered)
                .await
                .unwrap();
        }
    };

    other
        .session()
        .withdraw(&wanted, Attempts::Answered)
        .await
        .unwrap();
    let later = other.claim("n", Mode::Exclusive);
    other.session().request(&later, Wait::InTurn).await.unwrap();
    // Once more what it said, and of the claim that came later, too, as if it had come from elsewhere.
    let mut again: Value = serde_json::from_slice(&knock).unwrap();
    raw.client.publish(channel.clone(), knock).await.unwrap();
    let stranger = Client::open(&there, LONG).await.claim("n", Mode::Exclusive);
    again["knock"][1]["claim"] = Value::String(stranger.id.to_string());
    again["knock"][1]["seen"] = Value::from(u64::MAX >> 12);
    let text = serde_json::to_vec(&again).unwrap();
    raw.client.publish(channel, text.into()).await.unwrap();
    raw.client.flush().await.unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    holder
        .session()
        .withdraw(&held, Attempts::Answered)
        .await
        .unwrap();
    let seen = here.inspect(&name("n")).await.unwrap();
    // The stranger's is let in: so the other one was heard, too, and refused.
    assert_eq!(ids(&seen), (vec![later.id], vec![stranger.id]));
}
