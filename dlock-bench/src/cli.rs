//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::fault::{Context, Verdict};
use crate::holder::{self, HolderArgs};
use crate::measures::Measure;
use crate::store::Store;
use crate::worker::{self, WorkerArgs};
use crate::{report, run};

#[derive(Debug, Parser)]
#[command(
    name = "dlock-bench",
    about = "Measures dlock beside other locks",
    version
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures everything on one store.
    Compare(CompareArgs),
    /// Makes a page of results.
    Report(ReportArgs),
    #[command(hide = true)]
    Worker(WorkerArgs),
    #[command(hide = true)]
    Hold(HolderArgs),
}

/// What to measure.
#[derive(Debug, Parser)]
pub(crate) struct CompareArgs {
    /// The store. Unless --url says where it is, it is started in a container.
    #[arg(long)]
    pub(crate) store: Store,
    /// A running store, such as redis://host:port. Its processors are not separated from the clients'.
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// Where that nats-server tells its counters: host:port of its monitoring.
    #[arg(long, requires = "url", value_name = "HOST:PORT")]
    pub(crate) monitor: Option<String>,
    /// Small counts and two rounds: to see that everything works.
    #[arg(long)]
    pub(crate) quick: bool,
    /// How often everything is measured. 5 unless --quick.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) rounds: Option<u16>,
    /// Only this measure; may be given more than once.
    #[arg(long, value_name = "MEASURE")]
    pub(crate) only: Vec<Measure>,
    /// Writes the results into this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// What to report.
#[derive(Debug, Parser)]
pub(crate) struct ReportArgs {
    /// Results of `compare --json`.
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// The page. Its plots go into a directory `benchmarks` beside it.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

pub(crate) fn run() -> Verdict {
    match Cli::parse().command {
        Command::Compare(args) => run::compare(args),
        Command::Report(args) => report::write(&args),
        Command::Worker(args) => block_on(worker::run(args)),
        Command::Hold(args) => block_on(holder::run(args)),
    }
}

/// A runtime with as many threads as there are processors for this process. The work is a task like any other:
/// on the thread that waits for it, each step would have to wake another thread.
pub(crate) fn block_on<T: Send + 'static>(
    work: impl Future<Output = Verdict<T>> + Send + 'static,
) -> Verdict<T> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.enable_all().build().doing("starting the runtime")?;
    runtime.block_on(async { tokio::spawn(work).await.doing("the run's task")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(arguments: &[&str]) -> String {
        let all = ["dlock-bench"].iter().chain(arguments);
        Cli::try_parse_from(all).unwrap_err().to_string()
    }

    #[test]
    fn bad_arguments_are_named() {
        assert!(refused(&["compare"]).contains("--store"));
        assert!(refused(&["compare", "--store", "mysql"]).contains("possible values"));
        assert!(refused(&["compare", "--store", "etcd", "--rounds", "0"]).contains("1..=1000"));
        let unknown = ["compare", "--store", "etcd", "--only", "everything"];
        assert!(refused(&unknown).contains("hand-off"));
        assert!(refused(&["report", "--out", "x.md"]).contains("FILES"));
    }
}
