//! What the library tells an operator: spans with their fields, a warning for a lost lock, metrics.

// The helpers below belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dlock_core::memory::{Fault, MemoryStore};
use dlock_core::{Client, Ttl};
use tracing_subscriber::fmt::format::FmtSpan;

/// A text that a subscriber writes and a test reads.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A lock is taken and released, another one is lost.
async fn some_work() {
    let link = MemoryStore::new().link();
    let ttl = Ttl::new(Duration::from_millis(300)).unwrap();
    let client = Client::builder(link.clone())
        .ttl(ttl)
        .connect()
        .await
        .unwrap();
    client.lock("first").await.unwrap().release().await.unwrap();
    assert!(client.lock("first").try_now().await.unwrap().is_some());
    let guard = client.lock("second").await.unwrap();
    assert!(client.lock("second").try_now().await.unwrap().is_none());
    link.set(Fault::Silent);
    guard.lost().await;
    // The session's task tells the operator; it runs on this thread, after this one waits.
    tokio::time::sleep(Duration::from_millis(50)).await;
}

fn run() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(some_work());
}

/// One test, because what is wanted of a span is remembered for the whole process.
#[test]
fn an_operator_sees_spans_a_warning_and_metrics() {
    spans_have_the_fields_by_which_an_operator_searches();
    #[cfg(feature = "metrics")]
    metrics_count_what_happened_and_are_not_labelled_by_name();
}

fn spans_have_the_fields_by_which_an_operator_searches() {
    let written = Written::default();
    let writer = written.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, run);
    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    for expected in [
        r#"acquire{backend="memory" lock=first mode=EX token="#,
        r#"release{backend="memory" lock=first mode=EX token="#,
        r#"renew{backend="memory"}"#,
        r#"request{backend="memory" lock=second mode=EX}"#,
        r#"lock lost backend="memory" lock=second mode=EX reason=lost: the store could not be reached"#,
    ] {
        assert!(text.contains(expected), "no {expected} in\n{text}");
    }
    let warnings: Vec<&str> = text
        .lines()
        .filter(|line| line.contains(" WARN "))
        .collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

#[cfg(feature = "metrics")]
fn metrics_count_what_happened_and_are_not_labelled_by_name() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, run);
    let mut seen = Vec::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let labels: Vec<String> = key
            .key()
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        let number = match value {
            DebugValue::Counter(number) => number,
            DebugValue::Histogram(samples) => samples.len() as u64,
            DebugValue::Gauge(_) => panic!("no gauge is documented"),
        };
        seen.push((format!("{} {}", key.key().name(), labels.join(" ")), number));
    }
    for (expected, number) in [
        (
            "dlock_acquires_total backend=memory mode=EX outcome=granted",
            3,
        ),
        (
            "dlock_acquires_total backend=memory mode=EX outcome=taken",
            1,
        ),
        (
            "dlock_acquire_seconds backend=memory mode=EX outcome=granted",
            3,
        ),
        ("dlock_held_seconds backend=memory mode=EX", 3),
        (
            "dlock_sessions_lost_total backend=memory reason=unreachable",
            1,
        ),
    ] {
        assert!(
            seen.contains(&(expected.to_owned(), number)),
            "no {expected} {number} in {seen:#?}"
        );
    }
    assert!(
        seen.iter()
            .any(|(name, _)| name == "dlock_renewals_total backend=memory outcome=failed")
    );
    assert!(
        !seen
            .iter()
            .any(|(name, _)| name.contains("=first") || name.contains("=second"))
    );
}
