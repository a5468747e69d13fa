//! Rules of the house that a machine can check.

// The helpers below belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const LONGEST_FILE: usize = 600;

/// The declared minimum Rust version is the true one: that of the dependency which asks for most.
/// (What of the standard library is used is checked against it by clippy's `incompatible_msrv`.)
#[test]
fn the_minimum_rust_version_is_that_of_the_newest_dependency() {
    // For this platform alone: the dependencies of others need not even be downloaded.
    let rustc = Command::new("rustc").arg("-vV").output().unwrap().stdout;
    let rustc = String::from_utf8(rustc).unwrap();
    let host = rustc
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--all-features"])
        .args(["--filter-platform", host])
        .current_dir(ROOT)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let version = |package: &serde_json::Value| -> Option<Vec<u32>> {
        let parts = package["rust_version"].as_str()?.split('.');
        let mut parts: Vec<u32> = parts.map(|part| part.parse().unwrap()).collect();
        parts.resize(3, 0);
        Some(parts)
    };
    let (ours, theirs): (Vec<_>, Vec<_>) = packages
        .iter()
        .partition(|package| package["source"].is_null());
    let needed = theirs.into_iter().filter_map(version).max().unwrap();
    for package in ours {
        assert_eq!(
            version(package),
            Some(needed.clone()),
            "{}",
            package["name"]
        );
    }
}

#[test]
fn no_file_is_too_long_to_read() {
    for file in sources(Path::new(ROOT), &["rs", "lua"]) {
        let lines = std::fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= LONGEST_FILE, "{}: {lines} lines", file.display());
    }
}

/// A backend is little work, as the documentation says.
#[test]
fn the_example_of_a_backend_is_short() {
    let file = Path::new(ROOT).join("examples/own-backend/src/backend.rs");
    let lines = std::fs::read_to_string(file).unwrap().lines().count();
    assert!(lines < 300, "{lines} lines");
}

/// A skipped test is reported by the suite with its reason, never by an attribute.
#[test]
fn no_test_is_switched_off() {
    let attribute = concat!("#[", "ignore");
    for file in sources(Path::new(ROOT), &["rs"]) {
        assert!(
            !std::fs::read_to_string(&file).unwrap().contains(attribute),
            "{}",
            file.display()
        );
    }
}

fn sources(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                found.extend(sources(&path, extensions));
            }
        } else if extensions
            .iter()
            .any(|extension| path.extension().is_some_and(|e| e == *extension))
        {
            found.push(path);
        }
    }
    found
}
