//! Measures dlock beside the least that each store needs for a lock, and beside other locks.
//!
//! ```text
//! dlock-bench compare --store redis                     starts the store in a container, measures everything
//! dlock-bench compare --store etcd --quick              in about a minute, to see that everything works
//! dlock-bench compare --store jetstream --json jetstream.json
//! dlock-bench report *.json --out docs/BENCHMARKS.md    the page, with plots beside it
//! ```
//!
//! # What the numbers mean
//!
//! Everything that is compared runs in turns in one run: each round lets all contestants do the same at each
//! point before it goes on, and begins with another one. A ratio is taken within a round, and the median of the
//! rounds is reported. So what slows the machine down for a while slows both down, and ratios say more than
//! times.
//!
//! The server runs on one half of the processors, the clients on the other, on the host's network.
//!
//! What cannot be measured is reported with the reason. No number is made up.

mod bench;
mod cli;
mod contestants;
mod counters;
mod crowd;
mod duet;
mod fault;
mod floors;
mod growth;
mod holder;
mod http;
mod machine;
mod measures;
mod peers;
mod plan;
mod plot;
mod print;
mod progress;
mod pushes;
mod report;
mod run;
mod server;
mod sheet;
mod stats;
mod store;
mod targets;
mod turns;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("dlock-bench: {fault}");
            ExitCode::FAILURE
        }
    }
}
