//! Nothing of the contract is left out: every store meets every case that it can, every case is met by some
//! store, and every rule has a case and code that names it.

use std::path::{Path, PathBuf};

use dlock_conformance::case::{RULES, cases};
use dlock_conformance::runner::ignored;
use dlock_conformance::stores::{BACKENDS, named};
use dlock_conformance::target::Need;

/// What each store lacks, and nothing else: a case that is ignored elsewhere is missing there.
const LACKS: [(&str, &[Need]); 8] = [
    (
        "memory",
        &[
            Need::Processes,
            Need::Rollback,
            Need::Steps,
            Need::Unconfirmable,
            Need::Servers,
            Need::Nodes,
        ],
    ),
    ("redis", &[Need::Nodes]),
    ("redis-7", &[Need::Nodes]),
    ("valkey", &[Need::Nodes]),
    ("etcd", ONE_SERVER),
    ("etcd-cluster", CLUSTER),
    ("jetstream", ONE_SERVER),
    ("jetstream-cluster", CLUSTER),
];

const ONE_SERVER: &[Need] = &[
    Need::Rollback,
    Need::Steps,
    Need::Unconfirmable,
    Need::Nodes,
];
const CLUSTER: &[Need] = &[
    Need::Wipe,
    Need::Rollback,
    Need::Meter,
    Need::Steps,
    Need::Unconfirmable,
];

#[cfg(all(unix, feature = "redis", feature = "etcd", feature = "jetstream"))]
#[test]
fn every_store_meets_every_case_that_it_can() {
    let known: Vec<&str> = LACKS.iter().map(|(name, _)| *name).collect();
    assert_eq!(known.len(), BACKENDS.len());
    for name in BACKENDS {
        let lacks = LACKS.iter().find(|(known, _)| known == name);
        let (_, lacks) = lacks.unwrap_or_else(|| panic!("{name} is not in the table"));
        let target = named(name).expect("one of the suite's own stores");
        for need in Need::ALL {
            assert_eq!(
                target.lacks(need).is_some(),
                lacks.contains(&need),
                "{name}: {need:?}"
            );
        }
    }
}

#[cfg(all(unix, feature = "redis", feature = "etcd", feature = "jetstream"))]
#[test]
fn every_case_is_met_by_some_store() {
    let targets: Vec<_> = BACKENDS
        .iter()
        .filter_map(|name| named(name).ok())
        .collect();
    for case in cases() {
        let met = targets
            .iter()
            .filter(|target| ignored(target.as_ref(), &case).is_none());
        assert!(met.count() > 0, "{} is met by no store", case.name());
    }
}

/// Those that a backend upholds, by the rules for writing one. The others are the core's work alone.
const OF_BACKENDS: [&str; 8] = [
    "LIVE-A",
    "ATOM-A",
    "ATOM-B",
    "FAIR",
    "FENCE",
    "WAKE",
    "ONCE",
    "COMMITTED",
];

#[test]
fn every_rule_is_named_by_the_code_that_upholds_it() {
    for rule in RULES {
        assert!(names("dlock-core", rule), "dlock-core: {rule}");
    }
    for rule in OF_BACKENDS {
        for of in ["dlock-redis", "dlock-etcd", "dlock-jetstream"] {
            assert!(names(of, rule), "{of}: {rule}");
        }
    }
}

/// Whether the code of this crate, without its tests, names the rule.
fn names(of: &str, rule: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let files = files(&root.join(of).join("src"));
    assert!(!files.is_empty(), "{of} has no sources");
    files.iter().any(|file| {
        let text = std::fs::read_to_string(file).expect("a source file");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        code.contains(rule)
    })
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_source = name.ends_with(".rs") || name.ends_with(".lua");
        if path.is_dir() {
            found.extend(files(&path));
        } else if is_source && !name.ends_with("_tests.rs") {
            found.push(path);
        }
    }
    found
}
