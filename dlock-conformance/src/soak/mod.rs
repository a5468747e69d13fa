//! Fault runs: workers in processes of their own, a resource in another, and a nemesis that breaks what it
//! can, for as long as one likes. Then the [checker](crate::check) gives its verdicts.
//!
//! ```text
//!            nemesis: kills, freezes, cuts off, slows down, wipes
//!               │                    │                   │
//!   p0 … pN: four tasks each ──► network of each ──► the servers
//!               │
//!               └──► the resource: a number for each lock, behind a Fence
//! ```
//!
//! Tasks take the same few locks in all modes and in every way: they wait, try, give up, drop their
//! acquires, keep locks past their loss, go on with a stale token. They print each call and return, each
//! look at a guard, each release; the resource prints each access that it has let in. All times are read
//! on one clock that the processes share, in an order that makes them certain: the time of a look is read
//! *before* the guard is asked.
//!
//! A run fails when a verdict is against it, when something is left in the store after it, when work does
//! not go on after the last fault, and when it did too little to show anything. The seed decides which faults
//! come, on whom and for how long; it cannot decide what the machine does meanwhile.

mod crew;
mod ledger;
mod lines;
mod nemesis;
mod plan;
mod resource;
mod summary;
mod work;

pub(crate) use resource::serve;
pub use summary::Summary;
pub(crate) use work::Work;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use dlock_core::{Client, Mode};
use tokio::sync::Mutex;

use crew::{Crew, Orders};
use ledger::Ledger;
use nemesis::{Nemesis, work_goes_on};
use plan::{Abilities, Lane, Plan};

use crate::check::Hold;
use crate::scene::LIMIT;
use crate::sharing::Sharing;
use crate::target::{Need, Target};
use crate::{Context, Failure, Verdict, check, ensure};

/// How a fault run is run.
#[derive(Clone, Debug, Args)]
pub struct SoakOptions {
    /// For how long
    #[arg(long, default_value_t = 5.0)]
    pub minutes: f64,
    /// Decides which faults come; a random one is chosen and printed unless it is given
    #[arg(long)]
    pub seed: Option<u64>,
    /// How many worker processes there are
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..=64))]
    pub workers: u16,
    /// How many locks they share
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub locks: u16,
    /// Whether the clients pass on, share and keep claims
    #[arg(long, value_enum, default_value_t)]
    pub sharing: Sharing,
    /// Write a JUnit report
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Write the summary as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Where to draw what a failing run shows
    #[arg(long, value_name = "FILE", default_value = "soak.svg")]
    pub timeline: PathBuf,
}

/// Tasks in each worker.
const TASKS: u32 = 4;
/// The lease of each worker, unless the store's shortest one is longer.
const TTL: Duration = Duration::from_secs(2);
/// How long it may take a server that goes on until it knows what the others have done.
const GOES_ON: Duration = Duration::from_secs(1);
/// Grants that show that work goes on.
const GRANTS: usize = 50;

/// Runs it, and returns what came of it.
///
/// # Errors
///
/// A [`Failure`] when the run itself breaks down: what it finds is in the summary.
pub async fn run(target: Arc<dyn Target>, options: &SoakOptions) -> Verdict<Summary> {
    if let Some(reason) = target.lacks(Need::Processes) {
        return Err(Failure::new(format!("no fault runs here: {reason}")));
    }
    ensure!(
        options.minutes > 0.0 && options.minutes.is_finite(),
        "--minutes must be more than 0"
    );
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    let run = format!("{:06x}", fastrand::u32(..) >> 8);
    let locks: Vec<String> = (0..options.locks)
        .map(|n| format!("soak-{run}-{n}"))
        .collect();
    // The first link starts the store.
    let link = target.link().await.because("connecting to the store")?;
    let ttl = TTL.max(link.backend.capabilities().min_ttl);
    println!(
        "{} for {} min, seed {seed}: {} workers with {TASKS} tasks each, leases of {ttl:?}",
        target.name(),
        options.minutes,
        options.workers
    );
    let client = Client::builder(link.backend).connect().await?;
    let ledger = Arc::new(Ledger::new(locks.clone()));
    let (resource, address) = crew::resource(target.as_ref(), &ledger).await?;
    let orders = Orders {
        seed,
        tasks: TASKS,
        ttl,
        resource: address,
        locks: locks.clone(),
    };
    let count = usize::from(options.workers);
    let crew = Crew::start(Arc::clone(&target), Arc::clone(&ledger), orders, count).await?;
    let crew = Arc::new(Mutex::new(crew));

    let time = Duration::from_secs_f64(options.minutes * 60.0);
    let until = Instant::now() + time;
    let abilities = abilities(target.as_ref(), &*crew.lock().await);
    let lane = |lane| Nemesis {
        plan: Plan::new(lane, seed, abilities, ttl),
        target: Arc::clone(&target),
        crew: Arc::clone(&crew),
        ledger: Arc::clone(&ledger),
        half: until - time / 2,
        until,
    };
    let progress = tokio::spawn(progress(Arc::clone(&ledger), Instant::now()));
    let raged = tokio::try_join!(lane(Lane::Workers).rage(), lane(Lane::Servers).rage());
    progress.abort();
    println!();
    let quiet = match raged {
        Err(failure) => Err(failure),
        Ok(_) => end_quietly(&ledger, &crew, &client, &locks).await,
    };
    crew::close(resource).await?;
    let took = ledger.now();
    let excuses = Excuses::of(target.as_ref(), &ledger, ttl);
    let holds = ledger.holds();
    let findings = check::holds(&holds, |earlier, later| excuses.find(earlier, later));
    let effect = check::accesses(&ledger.accesses());
    let summary = Summary::new(summary::Run {
        target: target.name().to_owned(),
        seed,
        took,
        workers: count,
        ledger: &ledger,
        holds: &holds,
        findings,
        effect,
        quiet,
    });
    Ok(summary)
}

fn abilities(target: &dyn Target, crew: &Crew) -> Abilities {
    let nodes = match target.lacks(Need::Servers) {
        None => target.nodes().map(|nodes| nodes.count()).unwrap_or(0),
        Some(_) => 0,
    };
    Abilities {
        members: crew.count(),
        networks: crew.has_paths(),
        nodes,
        wipe: target.lacks(Need::Wipe).is_none() && nodes > 0,
        clocks: cfg!(feature = "mutants") && nodes > 0,
    }
}

/// Once nothing is broken any more: work goes on, everybody leaves, and nothing is left behind.
async fn end_quietly(
    ledger: &Ledger,
    crew: &Mutex<Crew>,
    client: &Client,
    locks: &[String],
) -> Verdict {
    work_goes_on(ledger, GRANTS)
        .await
        .because("LIVE-A: after the last fault")?;
    crew.lock().await.dismiss().await?;
    for lock in locks {
        let asked = client.lock(lock).mode(Mode::Exclusive).timeout(LIMIT).await;
        let guard = asked.because("ATOM-B: after everybody has left")?;
        guard.release().await?;
        let left = client.inspect(lock).await?;
        ensure!(
            left.is_free(),
            "CANCEL: left behind on {lock:?}: {}",
            crate::scene::described(&left)
        );
    }
    Ok(client.close(LIMIT).await?)
}

async fn progress(ledger: Arc<Ledger>, start: Instant) {
    let terminal = std::io::stdout().is_terminal();
    let every = Duration::from_secs(if terminal { 1 } else { 30 });
    loop {
        tokio::time::sleep(every).await;
        let (grants, faults) = ledger.so_far();
        let last = ledger.lock().faults.last().map(|fault| fault.what.clone());
        let line = format!(
            "{:>4} s: {grants} grants, {faults} faults; {}",
            start.elapsed().as_secs(),
            last.unwrap_or_default()
        );
        let mut out = std::io::stdout().lock();
        let text = if terminal {
            format!("\r\x1b[K{}", line.chars().take(110).collect::<String>())
        } else {
            format!("{line}\n")
        };
        // A reader that has gone wants no progress.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// What the contract does not promise, and what a store is known to do wrong: for how long two may
/// believe that they hold one lock.
struct Excuses(Vec<(Duration, Duration, &'static str)>);

impl Excuses {
    /// A store that has lost its data may grant what somebody holds, until that one's next heartbeat, which
    /// comes within a TTL. A server that ends leases which another one has renewed does so when it goes on
    /// after more than a TTL.
    fn of(target: &dyn Target, ledger: &Ledger, ttl: Duration) -> Self {
        let nodes = target.nodes();
        let ends_leases = nodes.is_ok_and(|nodes| nodes.ends_renewed_leases());
        let written = ledger.lock();
        let excuse = |fault: &ledger::Fault| match fault.kind {
            "data lost" => Some((fault.from, fault.until + ttl, "the store lost its data")),
            "server frozen" if ends_leases && fault.until > fault.from + ttl => Some((
                fault.from + ttl,
                fault.until + GOES_ON,
                "a server that had stood still for longer than a lease went on",
            )),
            _ => None,
        };
        Self(written.faults.iter().filter_map(excuse).collect())
    }

    fn find(&self, earlier: &Hold, later: &Hold) -> Option<String> {
        let (from, until) = (later.from, earlier.until);
        let covers = |(begin, end, _): &&(Duration, Duration, _)| from >= *begin && until <= *end;
        let (begin, _, what) = self.0.iter().find(covers)?;
        Some(format!(
            "{what}, at {:.3} s or soon after",
            begin.as_secs_f64()
        ))
    }
}
