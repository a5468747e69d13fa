//! The suite catches known-bad variants of the code: each one, on each store that has the code, makes
//! the case fail that is named here, and without it that case passes.
//!
//! The table in `docs/PROOF.md` is the one of this file.

use std::fmt::Write as _;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use dlock_core::mutants::{Mutant, VARIABLE};

/// Which case must catch a mutant, and on which stores.
struct Catch {
    mutant: Mutant,
    backends: &'static [&'static str],
    case: &'static str,
}

const fn caught(mutant: Mutant, backends: &'static [&'static str], case: &'static str) -> Catch {
    Catch {
        mutant,
        backends,
        case,
    }
}

const ALL: &[&str] = &["memory", "redis", "etcd", "jetstream"];
const SERVERS: &[&str] = &["redis", "etcd", "jetstream"];
/// Where a request is compared with holders and waiters apart: etcd derives who holds from the queue.
const APART: &[&str] = &["memory", "redis", "jetstream"];
/// Where a claim's owner is told unasked that others wait.
const TELLING: &[&str] = &["memory", "redis", "jetstream"];
/// What is broken has nothing to do with the store.
const CORE: &[&str] = &["memory", "redis"];
/// Where only the core knows which attempts went unanswered: on JetStream every withdraw of a claim
/// that was once sent is a write, which defeats a late request.
const TOLD: &[&str] = &["memory", "redis", "etcd"];

/// Every mutant, once.
const CATCHES: &[Catch] = &[
    // The ones that take longest come first: they run beside all the others.
    caught(Mutant::DeadlineFromReply, ALL, "LIVE-B/slow-replies"),
    caught(Mutant::UnsweptClaims, ALL, "LIVE-A/crashed-holder"),
    caught(Mutant::LostTtl, &["jetstream"], "LIVE-A/crashed-holder"),
    caught(Mutant::LeakedClaim, ALL, "CANCEL/every-await/held"),
    caught(
        Mutant::NeverLooks,
        ALL,
        "WAKE/pushes-suppressed-and-holder-crashed",
    ),
    caught(Mutant::ForgottenWithdraw, ALL, "ONCE/late-request/free"),
    caught(Mutant::GuessedOutcome, TOLD, "ONCE/late-request/held"),
    caught(Mutant::LibraryTimeout, &["redis"], "ONCE/slow-answers"),
    caught(Mutant::LateDeadline, ALL, "LIVE-B/cut-to-store"),
    caught(Mutant::RevivedSession, SERVERS, "LIVE-A/late-renewal"),
    caught(Mutant::NoOutputGate, ALL, "LIVE-B/stalled-at-the-grant"),
    caught(Mutant::NoMargin, ALL, "LIVE-B/margin"),
    caught(
        Mutant::SingleWithdraw,
        ALL,
        "ATOM-B/release-without-a-network",
    ),
    caught(
        Mutant::HalfReplacement,
        ALL,
        "ATOM-B/given-back-and-asked-for-anew-without-a-network",
    ),
    caught(Mutant::UncheckedRelease, ALL, "ATOM-B/late-release"),
    caught(Mutant::HintIsGrant, ALL, "WAKE/false-hints"),
    caught(Mutant::RepeatedClaim, ALL, "ONCE/repeated-request"),
    caught(Mutant::SwappedTable, ALL, "ATOM-A/CW-beside-PR"),
    caught(Mutant::Overtaking, APART, "FAIR/nobody-overtakes"),
    caught(Mutant::Hoarding, TELLING, "FAIR/hand-over-is-bounded"),
    caught(
        Mutant::SharedPastWriter,
        CORE,
        "FAIR/shared-not-past-a-writer",
    ),
    caught(Mutant::SameToken, CORE, "FENCE/handed-over"),
    caught(Mutant::KeptFromTasks, CORE, "FAIR/kept-is-given-back"),
    caught(Mutant::TokensFromZero, ALL, "FENCE/another-kind-of-store"),
    caught(Mutant::IgnoredOption, ALL, "HONEST/unknown-option"),
    caught(Mutant::UnconfirmedPush, &["redis"], "COMMITTED/unconfirmed"),
    caught(
        Mutant::EventIsGrant,
        &["etcd"],
        "FAIR/the-last-of-several-holders",
    ),
    caught(
        Mutant::BlindWatch,
        &["etcd"],
        "WAKE/release-before-the-watch",
    ),
    caught(Mutant::PastWatch, &["etcd"], "WAKE/prompt-hand-over"),
    caught(Mutant::BlindWrite, &["jetstream"], "ATOM-A/out-of-date"),
    caught(Mutant::DeleteMarkers, &["jetstream"], "HONEST/try"),
];

/// How many processes work side by side on one backend. Most of their time they wait.
const AT_ONCE: usize = 3;

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

/// What is wrong, if the mutant is not caught.
fn escaped(backend: &str, Catch { mutant, case, .. }: &Catch) -> Option<String> {
    let broken = run(backend, case, Some(*mutant));
    let is_caught =
        !broken.status.success() && last_line(&broken).starts_with("0 passed, 1 failed");
    (!is_caught).then(|| {
        format!(
            "{}: {mutant:?} on {backend} is not caught by {case}:\n{}{}",
            mutant.what(),
            String::from_utf8_lossy(&broken.stdout),
            String::from_utf8_lossy(&broken.stderr),
        )
    })
}

/// What is wrong, if a case fails without a mutant.
fn unsound(backend: &str, catches: &[&Catch]) -> Option<String> {
    let mut cases: Vec<&str> = catches.iter().map(|catch| catch.case).collect();
    cases.sort_unstable();
    cases.dedup();
    let sound = run(backend, &cases.join("|"), None);
    let passed = format!("{} passed, 0 failed", cases.len());
    let is_sound = sound.status.success() && last_line(&sound).starts_with(&passed);
    (!is_sound).then(|| {
        format!(
            "without a mutant, on {backend}:\n{}{}",
            String::from_utf8_lossy(&sound.stdout),
            String::from_utf8_lossy(&sound.stderr),
        )
    })
}

fn check(backend: &str) {
    let here = |catch: &&Catch| catch.backends.contains(&backend);
    let catches: Vec<&Catch> = CATCHES.iter().filter(here).collect();
    // By itself: it is about time, and nothing but a busy machine may be in its way.
    let unsound = unsound(backend, &catches);
    assert!(unsound.is_none(), "{}", unsound.unwrap_or_default());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut faults = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(catch) = catches.get(place) else {
                return faults;
            };
            faults.extend(escaped(backend, catch));
        }
    };
    let faults: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        let faults = workers.into_iter().map(|worker| worker.join());
        faults
            .flat_map(|faults| faults.expect("a worker panicked"))
            .collect()
    });
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

/// The table of mutants, as Markdown.
fn table() -> String {
    let mut text = String::from(
        "| mutant | guarantee | what is broken | stores | caught by |\n\
         | --- | --- | --- | --- | --- |\n",
    );
    for mutant in Mutant::ALL {
        for catch in CATCHES.iter().filter(|catch| catch.mutant == *mutant) {
            let (rule, what) = mutant.what().split_once(": ").expect("a rule, and how");
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "| `{}` | {rule} | {what} | {} | `{}` |",
                mutant.name(),
                catch.backends.join(", "),
                catch.case
            );
        }
    }
    text
}

#[test]
fn every_mutant_is_in_the_table_once_and_breaks_a_rule() {
    for mutant in Mutant::ALL {
        let of_it = CATCHES.iter().filter(|catch| catch.mutant == *mutant);
        assert_eq!(of_it.count(), 1, "{mutant:?}");
        let same_name = |other: &&Mutant| other.name() == mutant.name();
        assert_eq!(Mutant::ALL.iter().filter(same_name).count(), 1);
    }
    assert_eq!(table().lines().count(), 2 + Mutant::ALL.len());
}

#[test]
fn the_table_is_the_one_in_the_documentation() {
    let written = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/PROOF.md"));
    let written = written.expect("docs/PROOF.md");
    let (_, rest) = written.split_once("<!-- mutants -->\n").expect("a mark");
    let (written, _) = rest.split_once("<!-- /mutants -->").expect("a mark");
    let table = table();
    assert!(written == table, "this is the right one:\n{table}");
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
