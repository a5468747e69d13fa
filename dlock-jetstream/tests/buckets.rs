//! The namespace's bucket: how it is made, and what is refused.

// Helpers belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

mod support;

use dlock_core::{Attempts, Backend, Error, Mode, Outcome, StoreErrorKind, Wait};
use dlock_jetstream::JetStream;
use serde_json::{Value, json};
use support::{Client, LONG, Server, is_granted, name};

fn text(result: Result<JetStream, Error>) -> String {
    result.unwrap_err().to_string()
}

/// The bucket has the settings of a key-value bucket, and those that locks need; the keys are those
/// that people can read.
#[tokio::test]
async fn a_missing_bucket_is_made() {
    let server = Server::start().await;
    let backend = server.connect("").await.unwrap();
    let raw = server.raw().await;
    let info = raw.api("STREAM.INFO", json!({})).await;
    let expected = json!({
        "subjects": ["$KV.dlock-default.>"],
        "storage": "file",
        "num_replicas": 1,
        "max_msgs_per_subject": 1,
        "max_age": 0,
        "discard": "new",
        "deny_delete": true,
        "allow_rollup_hdrs": true,
        "allow_direct": true,
        "allow_msg_ttl": true,
    });
    for (setting, value) in expected.as_object().unwrap() {
        assert_eq!(&info["config"][setting], value, "{setting}");
    }
    assert_eq!(info["config"]["subject_delete_marker_ttl"], Value::Null);
    assert_eq!(
        raw.get("format").await.unwrap().value,
        json!({ "version": 1 })
    );
    let durability = backend.capabilities().durability;
    assert!(
        durability.contains("1 replica") && durability.contains("file"),
        "{durability}"
    );

    let mut client = Client::open(&backend, LONG).await;
    let claim = client.claim("a b/c.d", Mode::Exclusive);
    client
        .session()
        .request(&claim, Wait::InTurn)
        .await
        .unwrap();
    let document = raw.get("locks.a=20b/c=2Ed").await.unwrap().value;
    assert_eq!(document["claims"][0]["id"], claim.id.to_string());
    assert_eq!(document["claims"][0]["mode"], "EX");
    let lease = raw.get(&format!("sessions.{}", client.id)).await.unwrap();
    assert_eq!(lease.value["state"], "alive");
    assert_eq!(lease.value["ttl_ms"], 600_000);
    client.session().close().await.unwrap();
}

/// HONEST: each setting that would break a promise is named, with what to do about it.
#[tokio::test]
async fn a_bucket_with_wrong_settings_is_refused() {
    let server = Server::start().await;
    server.connect("").await.unwrap();
    let raw = server.raw().await;
    let config = raw.api("STREAM.INFO", json!({})).await["config"].clone();
    for (setting, value, expected) in [
        ("max_msgs_per_subject", json!(5), "--max-msgs-per-subject=1"),
        ("max_age", json!(600_000_000_000u64), "--max-age=0s"),
        (
            "subject_delete_marker_ttl",
            json!(5_000_000_000u64),
            "--subject-del-markers-ttl=0s",
        ),
        ("discard", json!("old"), "--discard=new"),
        ("allow_direct", json!(false), "--allow-direct"),
    ] {
        let mut wrong = config.clone();
        wrong[setting] = value;
        let answer = raw.api("STREAM.UPDATE", wrong).await;
        assert!(answer["error"].is_null(), "{answer}");
        let fault = text(server.connect("").await);
        assert!(
            fault.contains("bucket dlock-default")
                && fault.contains(setting)
                && fault.contains("nats stream edit KV_dlock-default")
                && fault.contains(expected),
            "{fault}"
        );
        // What it says is what helps.
        let answer = raw.api("STREAM.UPDATE", config.clone()).await;
        assert!(answer["error"].is_null(), "{answer}");
        server.connect("").await.unwrap();
    }
    let fault = text(server.connect("?replicas=3").await);
    assert!(
        fault.contains("option replicas") && fault.contains("has 1, not 3"),
        "{fault}"
    );
    // One that `nats kv add` makes.
    let mut plain = raw.api("STREAM.INFO", json!({})).await["config"].clone();
    plain["name"] = json!("KV_dlock-plain");
    plain["subjects"] = json!(["$KV.dlock-plain.>"]);
    plain["allow_msg_ttl"] = json!(false);
    let other = support::Raw {
        client: raw.client.clone(),
        bucket: "dlock-plain".into(),
    };
    other.api("STREAM.CREATE", plain).await;
    let fault = text(server.connect("/plain").await);
    assert!(
        fault.contains("allow_msg_ttl") && fault.contains("nats kv del dlock-plain"),
        "{fault}"
    );
}

/// HONEST: more replicas than servers.
#[tokio::test]
async fn replicas_that_cannot_be_had_are_refused() {
    let server = Server::start().await;
    let fault = text(server.connect("?replicas=3").await);
    assert!(fault.contains("replicas"), "{fault}");
}

/// A bucket in memory is allowed, and said to be what it is.
#[tokio::test]
async fn a_bucket_in_memory_says_so() {
    let server = Server::start().await;
    server.connect("/other").await.unwrap();
    let raw = support::Raw {
        client: server.raw().await.client,
        bucket: "dlock-other".into(),
    };
    let mut config = raw.api("STREAM.INFO", json!({})).await["config"].clone();
    raw.api("STREAM.DELETE", json!({})).await;
    config["storage"] = json!("memory");
    raw.api("STREAM.CREATE", config).await;
    let backend = server.connect("/other").await.unwrap();
    assert!(backend.capabilities().durability.contains("memory storage"));
}

/// Clients of different versions, and strangers.
#[tokio::test]
async fn what_this_version_did_not_write_is_refused() {
    let server = Server::start().await;
    let backend = server.connect("").await.unwrap();
    let raw = server.raw().await;
    let mut client = Client::open(&backend, LONG).await;
    raw.put("locks.n", &[], b"[1]".to_vec()).await;
    let claim = client.claim("n", Mode::Exclusive);
    let fault = client
        .session()
        .request(&claim, Wait::InTurn)
        .await
        .unwrap_err();
    assert_eq!(fault.kind(), StoreErrorKind::Refused);
    assert!(
        fault.to_string().contains("locks.n") && fault.to_string().contains("[1]"),
        "{fault}"
    );
    raw.put("format", &[], b"{\"version\":2}".to_vec()).await;
    let fault = text(server.connect("").await);
    assert!(
        fault.contains("format 2") && fault.contains("has 1"),
        "{fault}"
    );
    raw.put("format", &[], b"something".to_vec()).await;
    let fault = text(server.connect("").await);
    assert!(fault.contains("did not write"), "{fault}");
}

/// LIVE-B: a bucket that is deleted takes its sessions with it, and the next session makes it anew.
#[tokio::test]
async fn a_bucket_that_was_lost_ends_its_sessions() {
    let server = Server::start().await;
    let backend = server.connect("").await.unwrap();
    let raw = server.raw().await;
    let mut client = Client::open(&backend, LONG).await;
    let held = client.claim("n", Mode::Exclusive);
    let outcome = client.session().request(&held, Wait::InTurn).await.unwrap();
    assert!(is_granted(outcome));
    raw.api("STREAM.DELETE", json!({})).await;
    let fault = client.session().renew().await.unwrap_err();
    assert_eq!(fault.kind(), StoreErrorKind::Lapsed);
    let mut other = Client::open(&backend, LONG).await;
    let claim = other.claim("n", Mode::Exclusive);
    assert!(is_granted(
        other.session().request(&claim, Wait::InTurn).await.unwrap()
    ));
    other
        .session()
        .withdraw(&claim, Attempts::Answered)
        .await
        .unwrap();
    assert!(backend.inspect(&name("n")).await.unwrap().is_free());
}

/// ATOM-A: a session of a bucket that was lost remembers a document. That never passes for one of the
/// bucket that was made anew.
#[tokio::test]
async fn what_is_remembered_of_a_lost_bucket_overwrites_nothing() {
    let server = Server::start().await;
    let backend = server.connect("").await.unwrap();
    let raw = server.raw().await;
    let mut old = Client::open(&backend, LONG).await;
    for _ in 0..4 {
        let claim = old.claim("n", Mode::Exclusive);
        old.session().request(&claim, Wait::InTurn).await.unwrap();
        let released = old.session().withdraw(&claim, Attempts::Answered);
        released.await.unwrap();
    }
    let remembered = raw.get("locks.n").await.unwrap().sequence;
    raw.api("STREAM.DELETE", json!({})).await;
    let again = server.connect("").await.unwrap();
    let mut new = Client::open(&again, LONG).await;
    // Up to where the remembered document stood.
    let last = async || raw.api("STREAM.INFO", json!({})).await["state"]["last_seq"].as_u64();
    while last().await.unwrap() + 1 < remembered {
        new.session().renew().await.unwrap();
    }
    let held = new.claim("n", Mode::Exclusive);
    let outcome = new.session().request(&held, Wait::InTurn).await.unwrap();
    assert!(is_granted(outcome));
    let claim = old.claim("n", Mode::Exclusive);
    let outcome = old.session().request(&claim, Wait::InTurn).await;
    assert!(
        !matches!(outcome, Ok(Outcome::Granted { .. })),
        "{outcome:?}"
    );
    let seen = backend.inspect(&name("n")).await.unwrap();
    assert!(seen.holders.iter().any(|holder| holder.id == held.id));
}
