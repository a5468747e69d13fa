//! The command line, for the suite's own program and for one of your own ([`run`](crate::run)).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};

use crate::case::{Case, cases};
use crate::report::{Printer, Summary, failures, junit};
use crate::runner::{Finished, run_all};
use crate::sharing::Sharing;
use crate::soak::{self, SoakOptions};
use crate::target::Target;
use crate::{Context, Failure, Verdict, matrix, stores, worker};

/// Checks every guarantee of dlock against a store.
#[derive(Debug, Parser)]
#[command(name = "dlock-conformance", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the cases against a store in a container, or a running deployment
    Run {
        #[command(flatten)]
        store: Store,
        /// The version of Redis to start, such as 7.0
        #[arg(long, value_name = "VERSION", conflicts_with = "url")]
        redis_version: Option<String>,
        #[command(flatten)]
        options: RunOptions,
    },
    /// Let clients work while everything breaks, and check what they saw
    Soak {
        #[command(flatten)]
        store: Store,
        #[command(flatten)]
        options: SoakOptions,
    },
    /// List the cases, with what each one shows
    List,
    /// Print the support matrix as Markdown
    Matrix,
    /// Take a lock and obey orders on standard input: what the cases about crashes start and kill
    #[command(hide = true)]
    Worker,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Store {
    /// The store to start: memory, redis, redis-7, valkey, etcd, etcd-cluster, jetstream or
    /// jetstream-cluster
    #[arg(long)]
    backend: Option<String>,
    /// A running deployment; cases that would have to break it are ignored
    #[arg(long)]
    url: Option<String>,
}

/// How cases are run.
#[derive(Clone, Debug, Default, Args)]
pub struct RunOptions {
    /// Run only the cases whose name contains this text; a | separates several
    #[arg(long)]
    pub filter: Option<String>,
    /// Write a JUnit report
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Run all of it this many times in a row
    #[arg(long, default_value_t = 1, value_name = "TIMES")]
    pub repeat: u32,
    /// Whether the clients pass on, share and keep claims
    #[arg(long, value_enum, default_value_t)]
    pub sharing: Sharing,
}

/// Runs the suite's own program.
#[must_use]
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run {
            store,
            redis_version,
            options,
        } => store_of(store, redis_version).and_then(|target| run(target, &options)),
        Command::Soak { store, options } => {
            store_of(store, None).and_then(|target| soak(target, &options))
        }
        Command::List => {
            let cases = cases();
            let lines = cases
                .iter()
                .map(|case| format!("{}\n    {}\n", case.name(), case.what()));
            show(&lines.collect::<String>());
            Ok(ExitCode::SUCCESS)
        }
        Command::Matrix => block_on(matrix::ask_all()).map(|rows| {
            show(&matrix::markdown(&rows));
            ExitCode::SUCCESS
        }),
        Command::Worker => {
            let work = async {
                let url = std::env::var(worker::URL).because(worker::URL)?;
                worker::run(stores::backend_at(&url).await?).await
            };
            block_on(work).map(|()| ExitCode::SUCCESS)
        }
    };
    ended(done)
}

/// Prints a list, as far as the reader wants it: `… | head` closes the pipe early.
fn show(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn store_of(store: Store, redis_version: Option<String>) -> Verdict<Arc<dyn Target>> {
    match (store.backend.as_deref(), redis_version, store.url) {
        #[cfg(feature = "redis")]
        (Some("redis"), Some(version), _) => Ok(Arc::new(stores::RedisServer::redis(&version))),
        (_, Some(_), _) => Err(Failure::new("--redis-version needs --backend redis")),
        (Some(backend), ..) => Ok(stores::named(backend)?),
        (None, _, Some(url)) => Ok(stores::at_url(&url)?),
        (None, _, None) => Err(Failure::new("give --backend or --url")),
    }
}

/// Runs the cases on a target of your own, as the program's whole work: it takes the options of
/// [`RunOptions`] from the command line, prints what comes of each case, and returns the exit status.
#[must_use]
pub fn run_target(target: impl Target) -> ExitCode {
    #[derive(Debug, Parser)]
    #[command(about = "Checks every guarantee of dlock against a store")]
    struct Own {
        #[command(flatten)]
        options: RunOptions,
        #[command(subcommand)]
        instead: Option<Instead>,
    }
    #[derive(Debug, Subcommand)]
    enum Instead {
        /// Let clients work while everything breaks, and check what they saw
        Soak(SoakOptions),
    }
    let (own, target) = (Own::parse(), Arc::new(target));
    ended(match own.instead {
        Some(Instead::Soak(options)) => soak(target, &options),
        None => run(target, &own.options),
    })
}

fn ended(done: Verdict<ExitCode>) -> ExitCode {
    done.unwrap_or_else(|failure| {
        eprintln!("dlock-conformance: {failure}");
        ExitCode::FAILURE
    })
}

/// Runs the cases on a target, prints what comes of them, and ends what the target has started.
///
/// # Errors
///
/// A [`Failure`] when the filter fits no case, or the report cannot be written.
pub fn run(target: Arc<dyn Target>, options: &RunOptions) -> Verdict<ExitCode> {
    options.sharing.choose();
    let cases = fitting(options.filter.as_deref())?;
    let stopped = Stopped(Arc::clone(&target));
    let printer = Printer::new(cases.len() * options.repeat as usize);
    println!("running {} cases on {}", cases.len(), target.name());
    let mut finished: Vec<Finished> = Vec::new();
    for time in 1..=options.repeat {
        if options.repeat > 1 {
            println!("time {time} of {}", options.repeat);
        }
        finished.extend(run_all(&target, &cases, |event| printer.print(event)));
    }
    drop(stopped);
    if let Some(file) = &options.junit {
        write(file, &junit(&finished)?)?;
    }
    print!("{}", failures(&finished));
    let summary = Summary::of(&finished);
    println!("\n{summary}");
    Ok(ExitCode::from(u8::from(summary.failed > 0)))
}

/// Runs the clients of a fault run on a target, prints what came of it, and ends what the target has
/// started.
///
/// # Errors
///
/// A [`Failure`] when the run breaks down, or a report cannot be written.
pub fn soak(target: Arc<dyn Target>, options: &SoakOptions) -> Verdict<ExitCode> {
    options.sharing.choose();
    let stopped = Stopped(Arc::clone(&target));
    let summary = block_on(soak::run(target, options))?;
    drop(stopped);
    if let Some(file) = &options.junit {
        write(file, &junit(&summary.cases())?)?;
    }
    if let Some(file) = &options.json {
        write(file, &summary.json()?)?;
    }
    print!("{summary}");
    if let Some(drawn) = summary.timeline() {
        write(&options.timeline, drawn)?;
        println!("drawn in {}", options.timeline.display());
    }
    Ok(ExitCode::from(u8::from(!summary.is_sound())))
}

fn write(file: &Path, text: &str) -> Verdict {
    std::fs::write(file, text).because(format!("writing {}", file.display()))
}

fn fitting(filter: Option<&str>) -> Verdict<Vec<Case>> {
    let filter = filter.unwrap_or_default();
    let fits = |case: &Case| filter.split('|').any(|part| case.name().contains(part));
    let cases: Vec<Case> = cases().into_iter().filter(fits).collect();
    crate::ensure!(!cases.is_empty(), "no case has {filter:?} in its name");
    Ok(cases)
}

/// Stops the target when it is dropped, also by a panic.
struct Stopped(Arc<dyn Target>);

impl Drop for Stopped {
    fn drop(&mut self) {
        if let Err(failure) = block_on(self.0.stop()) {
            eprintln!("dlock-conformance: {failure}");
        }
    }
}

/// Runs the future in a runtime of its own.
///
/// # Errors
///
/// The future's own, or a [`Failure`] when there is no runtime.
pub fn block_on<T>(work: impl Future<Output = Verdict<T>>) -> Verdict<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(work)
}
