//! Runs each fuzz target for a moment on its seeds and on mutations of them, so that none can rot.

// Helpers belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

const TIME: Duration = Duration::from_secs(1);
const LONGEST: usize = 4096;

#[test]
fn url() {
    run("url", dlock_fuzz::url);
}

#[test]
fn document() {
    run("document", dlock_fuzz::document);
}

#[test]
fn names() {
    run("names", dlock_fuzz::names);
}

fn run(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(target);
    let seeds = std::fs::read_dir(folder).unwrap();
    let mut inputs: Vec<Vec<u8>> = seeds
        .map(|seed| std::fs::read(seed.unwrap().path()).unwrap())
        .collect();
    assert!(!inputs.is_empty(), "no seeds");
    inputs.push(Vec::new());
    for input in &inputs {
        attempt(body, input);
    }
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed() < TIME {
        let mut input = fastrand::choice(&inputs).unwrap().clone();
        for _ in 0..fastrand::usize(1..6) {
            mutate(&mut input, fastrand::choice(&inputs).unwrap());
        }
        input.truncate(LONGEST);
        attempt(body, &input);
        count += 1;
    }
    println!("{target}: {count} inputs");
}

/// Says which input it was that panicked: saved as a file, it is a seed.
fn attempt(body: fn(&[u8]), input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(input))) {
        eprintln!("the input was b\"{}\"", input.escape_ascii());
        resume_unwind(panic);
    }
}

/// Changes a byte, or puts in, takes out or doubles a few; or puts in a part of another input.
fn mutate(input: &mut Vec<u8>, other: &[u8]) {
    let at = fastrand::usize(0..=input.len());
    let end = (at + fastrand::usize(0..16)).min(input.len());
    match fastrand::u8(0..6) {
        0 if at < input.len() => input[at] = fastrand::u8(..),
        1 if at < input.len() => input[at] ^= 1 << fastrand::u8(0..8),
        2 => input.insert(at, fastrand::u8(..)),
        3 => drop(input.drain(at..end)),
        4 => {
            let part = input[at..end].to_vec();
            input.splice(at..at, part);
        }
        _ if !other.is_empty() => {
            let from = fastrand::usize(0..other.len());
            let to = (from + fastrand::usize(1..32)).min(other.len());
            input.splice(at..end, other[from..to].iter().copied());
        }
        _ => {}
    }
}
