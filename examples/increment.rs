//! Many processes, one counter in a file, one lock; one of them is killed while it holds the lock.
//!
//! `cargo run --release --features redis --example increment -- --url redis://localhost:6379`
//!
//! Each process adds one to the counter again and again: it reads the number, and then writes the next
//! one, in two accesses that only the lock keeps together. Without it, two processes would read the
//! same number and one of their turns would be lost. Each access shows its fencing token to the file's
//! [`Fence`], so that a process that was stalled past its lease could not write either.
//!
//! The run fails unless the final count is exact.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use dlock::{Client, Error, Fence, Guard, Reach};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Parser)]
struct Args {
    /// The store, for example redis://localhost:6379?ttl=2s
    #[arg(long)]
    url: String,
    /// How many processes take turns; the first of them is killed half-way
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=1000))]
    processes: u32,
    /// How many turns each of them takes
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..))]
    rounds: u32,

    #[command(flatten)]
    worker: Worker,
}

#[derive(clap::Args)]
struct Worker {
    #[arg(long, hide = true)]
    counter: Option<PathBuf>,
    #[arg(long, hide = true)]
    victim: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.worker.counter {
        Some(counter) => work(&args, &Counter(counter)).await,
        None => lead(&args).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("increment: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What a worker says last: how many turns it has had.
const HOLDING: &str = "holding after";
const DONE: &str = "done after";

/// Takes turns. The victim stops half-way, with the lock in its hands.
async fn work(args: &Args, counter: &Counter<'_>) -> Result<()> {
    let client = connect(&args.url).await?;
    let name = counter.0.to_string_lossy();
    let rounds = if args.worker.victim {
        args.rounds / 2
    } else {
        args.rounds
    };
    let mut turns = 0;
    while turns < rounds {
        let guard = take(&client, &name).await?;
        let number = counter.read(&guard);
        if number
            .and_then(|number| counter.write(&guard, number + 1))
            .is_ok()
        {
            turns += 1;
        }
        // A lock that was lost at the end of its turn is free all the same.
        let _ = guard.release().await;
    }
    if args.worker.victim {
        let _guard = take(&client, &name).await?;
        println!("{HOLDING} {turns}");
        std::future::pending::<()>().await;
    }
    println!("{DONE} {turns}");
    Ok(())
}

/// A store that is out of reach, because it elects a leader, say, may come back.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

/// The store was there a moment ago.
async fn connect(url: &str) -> Result<Client> {
    let start = Instant::now();
    loop {
        match dlock::connect(url).await {
            Ok(client) => return Ok(client),
            Err(Error::Store { .. }) if start.elapsed() < PATIENCE => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes the lock.
async fn take(client: &Client, name: &str) -> Result<Guard> {
    let start = Instant::now();
    loop {
        match client.lock(name).await {
            Ok(guard) => return Ok(guard),
            Err(Error::Lost(_)) => {} // the next request opens another session
            Err(Error::Store { .. }) if start.elapsed() < PATIENCE => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Starts the processes, kills the victim, and counts.
async fn lead(args: &Args) -> Result<()> {
    let client = dlock::connect(&args.url).await?;
    if client.capabilities().reach == Reach::Process {
        return Err(format!(
            "{} lives in one process, and this example starts {}: several processes cannot share \
             that store; give the URL of one behind a network, such as redis://localhost:6379",
            client.kind(),
            args.processes
        )
        .into());
    }
    let path = std::env::temp_dir().join(format!("dlock-increment-{}", std::process::id()));
    let counter = Counter(&path);
    counter.create()?;
    let started = Instant::now();
    let turns = run(args, &path).await;
    let state = counter.state();
    std::fs::remove_file(&path)?;
    report(args, &turns?, state?.number, started.elapsed(), &client).await
}

async fn run(args: &Args, counter: &Path) -> Result<HashMap<u32, u32>> {
    let mut workers = tokio::task::JoinSet::new();
    for number in 0..args.processes {
        let mut worker = start(args, counter, number == 0)?;
        workers.spawn(async move { Ok((number, finish(&mut worker).await?)) });
    }
    let mut turns = HashMap::new();
    while let Some(finished) = workers.join_next().await {
        let (number, had) = finished
            .map_err(Box::from)
            .and_then(|result: Result<_>| result)?;
        turns.insert(number, had);
    }
    Ok(turns)
}

fn start(args: &Args, counter: &Path, victim: bool) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--url", &args.url, "--rounds", &args.rounds.to_string()]);
    command
        .arg("--counter")
        .arg(counter)
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    if victim {
        command.arg("--victim");
    }
    Ok(command.spawn()?)
}

/// Waits for a worker's last word. One that then holds the lock is killed: no clean-up, no farewell.
async fn finish(worker: &mut Child) -> Result<u32> {
    let output = worker.stdout.take().ok_or("no output to read")?;
    let line = BufReader::new(output).lines().next_line().await?;
    let line = line.ok_or("a worker ended without a word")?;
    if let Some(turns) = line.strip_prefix(HOLDING) {
        worker.kill().await?; // SIGKILL
        return Ok(turns.trim().parse()?);
    }
    let turns = line
        .strip_prefix(DONE)
        .ok_or_else(|| format!("a worker said {line:?}"))?;
    worker.wait().await?;
    Ok(turns.trim().parse()?)
}

async fn report(
    args: &Args,
    turns: &HashMap<u32, u32>,
    count: u64,
    took: Duration,
    client: &Client,
) -> Result<()> {
    println!("process  turns");
    for number in 0..args.processes {
        let had = turns.get(&number).copied().unwrap_or_default();
        let note = if number == 0 {
            "  killed while it held the lock"
        } else {
            ""
        };
        println!("{number:>7}  {had:>5}{note}");
    }
    let expected =
        u64::from(args.processes - 1) * u64::from(args.rounds) + u64::from(args.rounds / 2);
    let rate = count as f64 / took.as_secs_f64();
    println!(
        "{count} turns in {took:.1?} on {} ({rate:.0} a second)",
        client.kind()
    );
    if count != expected {
        return Err(format!("the counter should be {expected}: turns were lost or doubled").into());
    }
    println!("the counter is exact");
    Ok(())
}

/// The resource: a file with a number and the fence that guards it.
struct Counter<'a>(&'a Path);

#[derive(Default, Serialize, Deserialize)]
struct State {
    number: u64,
    fence: Fence,
}

impl Counter<'_> {
    fn create(&self) -> Result<()> {
        Ok(std::fs::write(
            self.0,
            serde_json::to_string(&State::default())?,
        )?)
    }

    fn read(&self, guard: &Guard) -> Result<u64> {
        self.access(guard, |_| {})
    }

    fn write(&self, guard: &Guard, number: u64) -> Result<u64> {
        self.access(guard, |state| state.number = number)
    }

    /// One access: the token is checked and the number read or changed in one step. The file lock
    /// makes that step atomic, and is given up before the next access.
    fn access(&self, guard: &Guard, change: impl FnOnce(&mut State)) -> Result<u64> {
        let mut file = OpenOptions::new().read(true).write(true).open(self.0)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
        let mut state = load(&mut file)?;
        state.fence.admit(guard.mode(), guard.token())?;
        change(&mut state);
        file.rewind()?;
        file.set_len(0)?;
        file.write_all(serde_json::to_string(&state)?.as_bytes())?;
        Ok(state.number)
    }

    fn state(&self) -> Result<State> {
        load(&mut File::open(self.0)?)
    }
}

fn load(file: &mut File) -> Result<State> {
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}
