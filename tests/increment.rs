//! The `increment` example as a user runs it: on a real Redis, and where it cannot run.
#![cfg(feature = "redis")]
// The helpers below belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::{Command, Output};

use testcontainers::core::{IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{GenericImage, ImageExt};

/// Cargo builds the examples before it runs the tests, into a folder beside theirs.
fn increment(url: &str) -> Output {
    let test = std::env::current_exe().unwrap();
    let folder: PathBuf = test.parent().and_then(|deps| deps.parent()).unwrap().into();
    let mut example = Command::new(folder.join("examples").join("increment"));
    example
        .args(["--url", url, "--processes", "8", "--rounds", "50"])
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_processes_and_a_kill_leave_an_exact_count() {
    let redis = GenericImage::new("redis", "8.0")
        .with_exposed_port(6379.tcp())
        .with_wait_for(WaitFor::message_on_stdout("Ready to accept connections"))
        .with_cmd(["redis-server", "--save", ""])
        .start()
        .await
        .unwrap();
    let port = redis.get_host_port_ipv4(6379.tcp()).await.unwrap();
    let url = format!("redis://127.0.0.1:{port}?ttl=1s");
    let output = tokio::task::spawn_blocking(move || increment(&url))
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        text.contains("0     25  killed while it held the lock"),
        "{text}"
    );
    assert!(
        text.contains("375 turns") && text.contains("the counter is exact"),
        "{text}"
    );
}

#[test]
fn a_store_of_one_process_is_refused() {
    let output = increment("memory://");
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("several processes cannot share that store"),
        "{text}"
    );
}
