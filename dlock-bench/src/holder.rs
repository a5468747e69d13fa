//! A process that holds many locks: the bench executes itself again as one.

use std::process::Stdio;
use std::time::Duration;

use clap::Parser;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::fault::{Context, Fault, Verdict};
use crate::machine;

/// The environment variable with the URL: arguments can be read by everybody.
const URL: &str = "DLOCK_BENCH_URL";
/// So many requests are on their way at a time.
const AT_ONCE: usize = 64;

/// Which locks to hold.
#[derive(Debug, Parser)]
pub(crate) struct HolderArgs {
    #[arg(long)]
    prefix: String,
    #[arg(long)]
    count: usize,
}

/// A holder, as its parent sees it.
pub(crate) struct Holder {
    child: Child,
    memory: u64,
}

impl Holder {
    /// Comes back when it has all locks.
    pub(crate) async fn start(url: &str, prefix: &str, count: usize) -> Verdict<Self> {
        let program = std::env::current_exe().doing("finding this program")?;
        let mut child = Command::new(program)
            .args(["hold", "--prefix", prefix, "--count", &count.to_string()])
            .env(URL, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .doing("starting a holder")?;
        let output = child.stdout.take();
        let output = output.ok_or_else(|| Fault::new("the holder has no output"))?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).await?;
        let memory = line.trim().parse();
        let memory = memory.map_err(|_| Fault::new(format!("the holder said {line:?}")))?;
        Ok(Self { child, memory })
    }

    /// Lets it release its locks. It fails if it has lost one of them.
    pub(crate) async fn finish(mut self) -> Verdict {
        drop(self.child.stdin.take());
        let limit = Duration::from_secs(20);
        let ended = tokio::time::timeout(limit, self.child.wait()).await;
        let ended = ended.doing("waiting for the holder's end")??;
        if ended.success() {
            return Ok(());
        }
        Err(Fault::new(
            "the holder lost locks that it held, or could not close",
        ))
    }

    /// The bytes by which it has grown.
    pub(crate) fn memory(&self) -> u64 {
        self.memory
    }
}

/// The holder's side: it holds until its input ends.
pub(crate) async fn run(args: HolderArgs) -> Verdict {
    let url = std::env::var(URL).doing("a holder is started by `compare` alone")?;
    let taken = async {
        let client = dlock::connect(&url).await?;
        // What the first lock alone needs is not a lock's.
        let first = client.lock(format!("{}-first", args.prefix)).await?;
        first.release().await?;
        let before = machine::resident()?;
        let names = (0..args.count).map(|number| format!("{}-{number}", args.prefix));
        let asked = names.map(|name| {
            let client = client.clone();
            async move { client.lock(name).await }
        });
        let held: Vec<_> = stream::iter(asked)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        let grown = machine::resident()?.saturating_sub(before);
        Verdict::Ok((client, held, grown))
    };
    let (client, held, grown) = match taken.await {
        Ok(taken) => taken,
        Err(fault) => {
            println!("{fault}");
            return Err(fault);
        }
    };
    println!("{grown}");
    let mut end = Vec::new();
    tokio::io::stdin().read_to_end(&mut end).await?;
    let kept = held.iter().filter(|guard| guard.is_held()).count();
    client.close(Duration::from_secs(10)).await?;
    drop(held);
    if kept < args.count {
        return Err(Fault::new(format!(
            "{} of {} locks were lost",
            args.count - kept,
            args.count
        )));
    }
    Ok(())
}
