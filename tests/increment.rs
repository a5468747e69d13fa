//! The `increment` example as a user runs it: on real stores, on clusters that lose their servers in
//! turn, and where it cannot run.
#![cfg(all(feature = "redis", feature = "etcd", feature = "jetstream"))]
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Output;
use std::sync::Arc;

use support::{Store, example};

async fn increment(url: String, rounds: u32) -> Output {
    let mut increment = example("increment");
    increment.args(["--url", &url, "--processes", "8"]);
    increment.args(["--rounds", &rounds.to_string()]);
    let run = tokio::task::spawn_blocking(move || increment.output().unwrap());
    run.await.unwrap()
}

/// Every turn counted once, also those of the process that was killed.
fn is_exact(output: &Output, rounds: u32) {
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{said}");
    assert!(text.contains("killed while it held the lock"), "{text}");
    let turns = 7 * rounds + rounds / 2;
    assert!(text.contains(&format!("{turns} turns")), "{text}");
    assert!(text.contains("the counter is exact"), "{text}");
}

async fn eight_processes_and_a_kill(store: Store) {
    is_exact(&increment(store.url(), 50).await, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_exact_on_redis() {
    eight_processes_and_a_kill(Store::redis().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_exact_on_etcd() {
    eight_processes_and_a_kill(Store::etcd().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_exact_on_jetstream() {
    eight_processes_and_a_kill(Store::jetstream().await).await;
}

/// Again and again, until each server was killed and is back.
async fn servers_are_killed(store: Store) {
    let store = Arc::new(store);
    let all_of_them = Arc::clone(&store);
    let killing = tokio::spawn(async move { all_of_them.kill_each_in_turn().await });
    while !killing.is_finished() {
        is_exact(&increment(store.url(), 100).await, 100);
    }
    killing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_exact_on_an_etcd_cluster_whose_servers_are_killed() {
    servers_are_killed(Store::etcd_cluster().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_exact_on_a_jetstream_cluster_whose_servers_are_killed() {
    servers_are_killed(Store::jetstream_cluster().await).await;
}

#[tokio::test]
async fn a_store_of_one_process_is_refused() {
    let output = increment("memory://".to_owned(), 50).await;
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("several processes cannot share that store"),
        "{text}"
    );
}
