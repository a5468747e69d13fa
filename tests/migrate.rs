//! The `migrate` example: the same program, by URL alone, does the same on every store.
#![cfg(all(feature = "redis", feature = "etcd", feature = "jetstream"))]
#![allow(clippy::unwrap_used)]

mod support;

use support::{Store, example};

#[tokio::test(flavor = "multi_thread")]
async fn every_store_does_the_same_and_tokens_rise_over_the_moves() {
    let (redis, etcd, nats) = tokio::join!(Store::redis(), Store::etcd(), Store::jetstream());
    let urls = [
        "memory://migrate".to_owned(),
        redis.url(),
        etcd.url(),
        nats.url(),
        redis.url(),
        "memory://migrate-back".to_owned(),
    ];
    let mut migrate = example("migrate");
    migrate.args(urls);
    let run = tokio::task::spawn_blocking(move || migrate.output().unwrap());
    let output = run.await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{said}");
    assert!(
        text.starts_with("on memory:\n  alice holds ledger"),
        "{text}"
    );
    for kind in ["redis", "etcd", "jetstream", "redis", "memory"] {
        assert!(text.contains(&format!("on {kind}: the same")), "{text}");
    }
    assert!(text.contains("beside EX: NL\n"), "{text}");
}
