//! The `increment` example as a user runs it: on a real Redis, and where it cannot run.
#![cfg(feature = "redis")]
// The helpers below belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// A Redis in a container, by the engine's own command: whoever only wants to run an example of this
/// package should not have to build a client for container engines.
struct Redis {
    id: String,
}

impl Redis {
    async fn start() -> Self {
        let run = [
            "run",
            "--rm",
            "--detach",
            "--publish",
            "127.0.0.1::6379",
            "redis:8.0",
        ];
        let redis = Self { id: docker(&run) };
        let limit = Instant::now() + Duration::from_secs(30);
        while let Err(error) = dlock::connect(&redis.url()).await {
            assert!(Instant::now() < limit, "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        redis
    }

    fn url(&self) -> String {
        format!("redis://{}?ttl=1s", docker(&["port", &self.id, "6379/tcp"]))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["kill", &self.id]).output();
    }
}

fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Cargo builds the examples before it runs the tests, into a folder beside theirs.
fn increment(url: &str) -> Output {
    let test = std::env::current_exe().unwrap();
    let folder: PathBuf = test.parent().and_then(|deps| deps.parent()).unwrap().into();
    let mut example = Command::new(folder.join("examples").join("increment"));
    example
        .args(["--url", url, "--processes", "8", "--rounds", "50"])
        .output()
        .expect(
            "the example is built: `cargo test` does it, `cargo test --test increment` does not",
        )
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_processes_and_a_kill_leave_an_exact_count() {
    let redis = Redis::start().await;
    let url = redis.url();
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
