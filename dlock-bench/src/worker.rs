//! A contender in a process of its own: the bench executes itself again as one.
//!
//! A worker connects and prints `ready`. At the line `go` on its input it takes turns, and at `stop` it prints
//! them, a line each, then `end`. So every process has connected before the first begins, and their output does
//! not disturb them. Or it is told each step: at `ask` it asks, and prints the time when it was granted; at
//! `release` it releases, and prints the time when it called that.

use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, Stdin};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;

use crate::contestants::{self, Contestant, How, Locker};
use crate::crowd::contend;
use crate::fault::{Context, Fault, Verdict};
use crate::machine;
use crate::peers::redis_py;
use crate::store::{Place, Store};
use crate::turns::Turn;

/// The environment variable with dlock's URL: arguments can be read by everybody.
const URL: &str = "DLOCK_BENCH_URL";

/// What a worker does.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) place: Place,
    /// The lock.
    pub(crate) name: String,
}

/// A [`Task`] as arguments.
#[derive(Debug, Parser)]
pub(crate) struct WorkerArgs {
    #[arg(long)]
    store: Store,
    #[arg(long)]
    who: String,
    #[arg(long)]
    name: String,
}

/// A worker, as its parent sees it.
pub(crate) struct Worker {
    /// Ends with this.
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    /// Starts one, and waits until it has connected.
    pub(crate) async fn start(who: &Contestant, task: &Task) -> Verdict<Self> {
        let mut command = match who.how {
            How::Here(_) => own_command(who, task)?,
            How::Python => redis_py::command(task),
        };
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().doing("starting a worker")?;
        let missing = || Fault::new("the worker has no input or output");
        let input = child.stdin.take().ok_or_else(missing)?;
        let output = BufReader::new(child.stdout.take().ok_or_else(missing)?).lines();
        let mut worker = Self {
            _child: child,
            input,
            output,
        };
        worker.expect("ready").await?;
        Ok(worker)
    }

    pub(crate) async fn say(&mut self, word: &str) -> Verdict {
        let line = format!("{word}\n");
        self.input.write_all(line.as_bytes()).await?;
        Ok(self.input.flush().await?)
    }

    async fn line(&mut self) -> Verdict<String> {
        let limit = Duration::from_secs(30);
        let line = tokio::time::timeout(limit, self.output.next_line()).await;
        let line = line.doing("waiting for a worker")??;
        line.ok_or_else(|| Fault::new("a worker has ended early"))
    }

    /// The time that it tells after `ask` or `release`.
    pub(crate) async fn time(&mut self) -> Verdict<u64> {
        let line = self.line().await?;
        line.parse()
            .map_err(|_| Fault::new(format!("a worker said {line:?}")))
    }

    async fn expect(&mut self, word: &str) -> Verdict {
        match self.line().await? {
            line if line == word => Ok(()),
            other => Err(Fault::new(format!("a worker said {other:?}"))),
        }
    }

    /// Its turns, after `stop`.
    pub(crate) async fn turns(mut self) -> Verdict<Vec<Turn>> {
        let mut turns = Vec::new();
        loop {
            let line = self.line().await?;
            if line == "end" {
                return Ok(turns);
            }
            turns.push(parse(&line).ok_or_else(|| Fault::new(line))?);
        }
    }
}

fn own_command(who: &Contestant, task: &Task) -> Verdict<Command> {
    let program = std::env::current_exe().doing("finding this program")?;
    let mut command = Command::new(program);
    command
        .args(["worker", "--store", task.place.store.name()])
        .args(["--who", who.name, "--name", &task.name])
        .env(URL, &task.place.url);
    Ok(command)
}

/// The worker's side.
pub(crate) async fn run(args: WorkerArgs) -> Verdict {
    let url = std::env::var(URL).doing("a worker is started by `compare` alone")?;
    let place = Place::at_url(args.store, &url, None)?;
    let all = contestants::all(args.store);
    let who = all.iter().find(|who| who.name == args.who);
    let who = who.ok_or_else(|| Fault::new(format!("there is no {:?}", args.who)))?;
    let client = match who.client(&place).await {
        Ok(client) => client,
        Err(fault) => {
            println!("{fault}");
            return Err(fault);
        }
    };
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    println!("ready");
    let done = match input.next_line().await?.as_deref() {
        Some("go") => by_itself(&client, &args.name, &mut input).await,
        first => step_by_step(&*client, &args.name, first.map(str::to_owned), &mut input).await,
    };
    if let Err(fault) = done {
        println!("{fault}");
    }
    client.close().await;
    Ok(())
}

type Input = Lines<BufReader<Stdin>>;

async fn by_itself(client: &Arc<dyn Locker>, name: &str, input: &mut Input) -> Verdict {
    let (stop, stopped) = watch::channel(false);
    let (shared, lock) = (Arc::clone(client), name.to_owned());
    let work = tokio::spawn(async move { contend(&*shared, &lock, stopped, Arc::default()).await });
    input.next_line().await?;
    stop.send_replace(true);
    let lines = work.await??.into_iter();
    let mut text: String = lines
        .map(|turn| format!("{} {} {}\n", turn.asked, turn.granted, turn.releasing))
        .collect();
    text.push_str("end\n");
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

async fn step_by_step(
    client: &dyn Locker,
    name: &str,
    first: Option<String>,
    input: &mut Input,
) -> Verdict {
    let mut held = None;
    let mut step = first;
    while let Some(word) = step {
        let time = match (word.as_str(), held.take()) {
            ("ask", None) => {
                held = Some(client.lock(name).await?);
                machine::now()
            }
            ("release", Some(mine)) => {
                let now = machine::now();
                mine.release().await?;
                now
            }
            _ => return Err(Fault::new(format!("a worker was told {word:?}"))),
        };
        println!("{time}");
        step = input.next_line().await?;
    }
    Ok(())
}

fn parse(line: &str) -> Option<Turn> {
    let mut numbers = line.split(' ').map(|number| number.parse().ok());
    Some(Turn {
        asked: numbers.next()??,
        granted: numbers.next()??,
        releasing: numbers.next()??,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_three_numbers() {
        let turn = Turn {
            asked: 1,
            granted: 2,
            releasing: 3,
        };
        assert_eq!(parse("1 2 3"), Some(turn));
        assert_eq!(parse("1 2"), None);
        assert_eq!(parse("connection refused"), None);
    }
}
