//! Short fault runs: a sound one on each store, and one of a broken library that the checker finds out.

use std::path::PathBuf;
use std::process::{Command, Output};

use dlock_core::mutants::{Mutant, VARIABLE};

/// Where this run may write: files of other tests do not meet there.
fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn soak(backend: &str, minutes: &str, more: &[&str], mutant: Option<Mutant>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dlock-conformance"));
    command.args([
        "soak",
        "--backend",
        backend,
        "--minutes",
        minutes,
        "--seed",
        "1",
    ]);
    command.args(more).env_remove(VARIABLE);
    if let Some(mutant) = mutant {
        command.env(VARIABLE, mutant.name());
    }
    command.output().expect("the runner starts")
}

fn is_sound(backend: &str) {
    let (json, junit) = (
        file(&format!("{backend}.json")),
        file(&format!("{backend}.xml")),
    );
    let files = [&json, &junit].map(|file| file.to_str().expect("a path in UTF-8"));
    let more = ["--json", files[0], "--junit", files[1]];
    let run = soak(backend, "0.25", &more, None);
    let text = String::from_utf8_lossy(&run.stdout);
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{text}{errors}");
    let json = std::fs::read_to_string(json).expect("the summary");
    let summary: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    for at_least_one in ["grants", "hand_overs", "accesses", "faults_while_waiting"] {
        assert!(summary[at_least_one].as_u64() > Some(0), "{at_least_one}");
    }
    let junit = std::fs::read_to_string(junit).expect("the report");
    for verdict in ["store order", "belief", "effect", "liveness"] {
        assert!(junit.contains(&format!("soak/{verdict}")), "{verdict}");
    }
}

#[cfg(feature = "redis")]
#[test]
fn on_redis() {
    is_sound("redis");
}

#[cfg(feature = "etcd")]
#[test]
fn on_etcd() {
    is_sound("etcd");
}

#[cfg(feature = "jetstream")]
#[test]
fn on_jetstream() {
    is_sound("jetstream");
}

/// FENCE, ATOM-A: a table of modes with a mistake in it is found out by all three verdicts, and drawn.
#[cfg(feature = "redis")]
#[test]
fn a_broken_library_is_found_out() {
    let drawn = file("broken.svg");
    let more = ["--timeline", drawn.to_str().expect("a path in UTF-8")];
    let run = soak("redis", "0.1", &more, Some(Mutant::SwappedTable));
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(!run.status.success(), "{text}");
    for verdict in ["belief", "effect", "store order"] {
        assert!(text.contains(&format!("| {verdict} | FAILED |")), "{text}");
    }
    assert!(text.contains("the part of the history"), "{text}");
    let drawn = std::fs::read_to_string(drawn).expect("the timeline");
    assert!(drawn.contains("<svg") && drawn.contains("<g>"), "{drawn}");
}

#[test]
fn a_store_that_no_other_process_reaches_cannot_be_soaked() {
    let run = soak("memory", "0.1", &[], None);
    assert!(!run.status.success());
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(errors.contains("other processes"), "{errors}");
}
