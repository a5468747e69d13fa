//! The suite catches known-bad variants of the code: each one, on each store, makes the case fail that
//! is named here, and without it that case passes.

use std::process::{Command, Output};

use dlock_core::mutants::{Mutant, VARIABLE};

/// What a mutant breaks, and the cases that must catch it.
struct Catch {
    mutant: Mutant,
    guarantee: &'static str,
    filter: &'static str,
}

/// Every mutant, once.
const CATCHES: [Catch; 6] = [
    Catch {
        mutant: Mutant::UncheckedRelease,
        guarantee: "ATOM-B: a release frees no other's lock",
        filter: "ATOM-B/late-release",
    },
    Catch {
        mutant: Mutant::DeadlineFromReply,
        guarantee: "LIVE-B: the deadline counts from the sending of a renewal",
        filter: "LIVE-B/slow-replies",
    },
    Catch {
        mutant: Mutant::HintIsGrant,
        guarantee: "WAKE: a hint is no grant",
        filter: "WAKE/false-hints",
    },
    Catch {
        mutant: Mutant::ForgottenWithdraw,
        guarantee: "ONCE: a claim once withdrawn stays withdrawn",
        filter: "ONCE/late-request/free",
    },
    Catch {
        mutant: Mutant::LeakedClaim,
        guarantee: "CANCEL: a dropped acquire leaves no claim",
        filter: "CANCEL/every-await/held",
    },
    Catch {
        mutant: Mutant::SwappedTable,
        guarantee: "ATOM-A: the table of modes",
        filter: "ATOM-A/CW-beside-PR",
    },
];

fn run(backend: &str, filter: &str, mutant: Option<Mutant>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dlock-conformance"));
    command.args(["run", "--backend", backend, "--filter", filter]);
    command.env_remove(VARIABLE);
    if let Some(mutant) = mutant {
        command.env(VARIABLE, mutant.name());
    }
    command.output().expect("the runner starts")
}

fn last_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().last().unwrap_or_default().to_owned()
}

fn check(backend: &str) {
    for mutant in Mutant::ALL {
        let of_it: Vec<&Catch> = CATCHES
            .iter()
            .filter(|catch| catch.mutant == mutant)
            .collect();
        let [catch] = of_it[..] else {
            panic!("{mutant:?} is not in the table exactly once");
        };
        let broken = run(backend, catch.filter, Some(mutant));
        assert!(
            !broken.status.success() && last_line(&broken).starts_with("0 passed, 1 failed"),
            "{}: {mutant:?} on {backend} is not caught by {}:\n{}{}",
            catch.guarantee,
            catch.filter,
            String::from_utf8_lossy(&broken.stdout),
            String::from_utf8_lossy(&broken.stderr),
        );
    }
    let filters: Vec<&str> = CATCHES.iter().map(|catch| catch.filter).collect();
    let sound = run(backend, &filters.join("|"), None);
    assert!(
        sound.status.success(),
        "without a mutant, on {backend}:\n{}",
        String::from_utf8_lossy(&sound.stdout)
    );
}

#[test]
fn on_memory() {
    check("memory");
}

#[cfg(feature = "redis")]
#[test]
fn on_redis() {
    check("redis");
}

#[cfg(feature = "etcd")]
#[test]
fn on_etcd() {
    check("etcd");
}

#[cfg(feature = "jetstream")]
#[test]
fn on_jetstream() {
    check("jetstream");
}
