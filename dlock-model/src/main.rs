//! The large models: `cargo run --release -p dlock-model`, some minutes.
//!
//! Arguments name the shapes to be checked: `redis`, `etcd`, `jetstream`; all, if there are none. It fails if
//! a property does not hold.

use std::process::ExitCode;

use dlock_core::Mode::{ConcurrentWrite, Exclusive, ProtectedRead};
use dlock_model::cases::{check, lock, try_lock};
use dlock_model::etcd::Etcd;
use dlock_model::jetstream::JetStream;
use dlock_model::redis::Redis;
use dlock_model::{Faults, LockModel, Shape, Wish};

const NONE: Faults = Faults::NONE;

fn main() -> ExitCode {
    let shapes: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |shape: &str| shapes.is_empty() || shapes.iter().any(|name| name == shape);
    let mut hold = true;
    if wanted("redis") {
        hold &= run::<Redis>("redis", common());
    }
    if wanted("etcd") {
        hold &= run::<Etcd>("etcd", etcd());
    }
    if wanted("jetstream") {
        hold &= run::<JetStream>("jetstream", jetstream());
    }
    match hold {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// What a case is about, what its clients want, and what goes wrong.
type Case = (&'static str, Vec<Wish>, Faults);

fn run<S: Shape>(shape: &str, cases: Vec<Case>) -> bool {
    let mut hold = true;
    for (what, plan, faults) in cases {
        let verdict = check(LockModel::<S>::new(plan, faults));
        println!(
            "{shape}: {what}: {} unique states, depth {}, {:.0?}",
            verdict.states, verdict.depth, verdict.time
        );
        for (property, holds) in &verdict.properties {
            // Not every case has a crash to take over from.
            let is_example = property.contains(' ');
            match (is_example, holds) {
                (false, true) => println!("  {property}: holds"),
                (false, false) => println!("  {property}: VIOLATED"),
                (true, true) => println!("  {property}: seen"),
                (true, false) if faults.crash > 0 => println!("  {property}: NEVER SEEN"),
                (true, false) => {}
            }
            hold &= *holds || is_example && faults.crash == 0;
        }
        for trace in verdict.traces {
            println!("{trace}");
        }
    }
    hold
}

/// What every shape is put through.
fn common() -> Vec<Case> {
    vec![
        (
            "messages lost, late and repeated, and a caller that leaves",
            vec![lock(0, Exclusive), lock(1, ProtectedRead)],
            Faults {
                give_up: 2,
                cancel: 1,
                lose: 1,
                repeat: 1,
                early_looks: 1,
                ..NONE
            },
        ),
        (
            "a crash, a client that is cut off, and messages lost and late",
            vec![lock(0, Exclusive), lock(1, Exclusive)],
            Faults {
                crash: 1,
                ticks: 3,
                lapses: 1,
                lose: 1,
                give_up: 1,
                ..NONE
            },
        ),
        (
            "four claims in three modes, with a crash and a caller that leaves",
            vec![
                lock(0, ProtectedRead),
                lock(1, ConcurrentWrite),
                lock(2, Exclusive),
                try_lock(2, ProtectedRead),
            ],
            Faults {
                crash: 1,
                cancel: 1,
                ..NONE
            },
        ),
    ]
}

/// The watches make many more states of each thing that happens, so less of it does; but streams break, too,
/// and an operator ends a session.
fn etcd() -> Vec<Case> {
    vec![
        (
            "messages lost, late and repeated, and a caller that leaves",
            vec![lock(0, Exclusive), lock(1, ProtectedRead)],
            Faults {
                give_up: 1,
                cancel: 1,
                lose: 1,
                repeat: 1,
                ..NONE
            },
        ),
        (
            "a crash, a client that is cut off, and broken streams",
            vec![lock(0, Exclusive), lock(1, Exclusive)],
            Faults {
                crash: 1,
                ticks: 2,
                lapses: 1,
                lose: 1,
                breaks: 1,
                ..NONE
            },
        ),
        (
            "three modes, and a caller that leaves",
            vec![
                lock(0, ProtectedRead),
                lock(1, ConcurrentWrite),
                lock(2, Exclusive),
            ],
            Faults { cancel: 1, ..NONE },
        ),
        (
            "two claims of one session, and a session ended from outside",
            vec![
                lock(0, Exclusive),
                lock(0, Exclusive),
                lock(1, ProtectedRead),
            ],
            Faults {
                revokes: 1,
                breaks: 1,
                ..NONE
            },
        ),
    ]
}

/// Reads are out of date, too.
fn jetstream() -> Vec<Case> {
    let mut cases = common();
    cases[0].2.stale = 1;
    cases[1].0 = "a crash, a client that is cut off, and a message lost";
    cases[1].2 = Faults {
        crash: 1,
        ticks: 2,
        lapses: 1,
        lose: 1,
        stale: 1,
        ..NONE
    };
    cases[2].1.pop();
    cases[2].0 = "three modes, with a crash and a caller that leaves";
    cases.push((
        "knocks that are lost, late and repeated, with a crash and a caller that leaves",
        vec![lock(0, Exclusive), lock(1, Exclusive)],
        Faults {
            knocks: 2,
            crash: 1,
            cancel: 1,
            lose: 1,
            repeat: 1,
            ..NONE
        },
    ));
    cases
}
