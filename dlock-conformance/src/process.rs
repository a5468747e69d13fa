//! The suite's side of a [worker](crate::worker): starts it, gives it orders, sends it signals.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::history::History;
use crate::scene::{LIMIT, Scene, within};
use crate::sharing::{self, Sharing};
use crate::target::{Path, Worker};
use crate::{Context, Failure, Verdict};

/// Another process that uses the store. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    who: String,
    child: Child,
    orders: ChildStdin,
    reports: Lines<BufReader<ChildStdout>>,
    history: History,
    /// The network between it and the store.
    _path: Option<Arc<dyn Path>>,
}

/// A signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGKILL: it ends where it stands.
    Kill,
    /// SIGSTOP: it stands still.
    Freeze,
    /// SIGCONT: it goes on.
    Thaw,
}

impl Process {
    /// Starts one, which connects with a lease of `ttl`.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when it cannot be started or cannot connect.
    pub async fn start(scene: &Scene, who: &str, ttl: Duration) -> Verdict<Self> {
        let Started {
            child,
            orders,
            reports,
            path,
        } = Started::new(scene.target().worker().await?)?;
        let mut process = Self {
            who: who.to_owned(),
            child,
            orders,
            reports,
            history: scene.history().clone(),
            _path: path,
        };
        process
            .order(&format!("connect {} {who}", ttl.as_millis()))
            .await?;
        process.report("connected", LIMIT).await?;
        Ok(process)
    }

    /// Gives it an order.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when it has ended.
    pub async fn order(&mut self, order: &str) -> Verdict {
        self.history.note(&*self.who, format!("is told to {order}"));
        let line = format!("{order}\n");
        let told = self.orders.write_all(line.as_bytes()).await;
        told.because(format!("ordering {} to {order}", self.who))
    }

    /// Its next report, without its first word, which must be this one.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when it reports something else, or nothing within the limit.
    pub async fn report(&mut self, word: &str, limit: Duration) -> Verdict<String> {
        let (first, rest) = self
            .any_report(limit)
            .await
            .because(format!("expecting {word:?}"))?;
        crate::ensure!(
            first == word,
            "{} reports {first} {rest}, and not {word:?}",
            self.who
        );
        Ok(rest)
    }

    /// Its next report: the first word, and the rest.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when it reports nothing within the limit.
    pub async fn any_report(&mut self, limit: Duration) -> Verdict<(String, String)> {
        let what = format!("{} reports", self.who);
        let line = within(limit, &what, self.reports.next_line())
            .await?
            .because(&what)?;
        let line = line.ok_or_else(|| Failure::new(format!("{}: it has ended", self.who)))?;
        self.history.note(&*self.who, format!("reports {line}"));
        let (first, rest) = line.split_once(' ').unwrap_or((&line, ""));
        Ok((first.to_owned(), rest.to_owned()))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when it has ended, or where there are no signals.
    pub fn signal(&mut self, signal: Signal) -> Verdict {
        self.history
            .note(&*self.who, format!("gets the signal {signal:?}"));
        send(&self.child, signal).because(&self.who)
    }
}

/// A worker that has just been started. It is killed when `child` is dropped.
pub(crate) struct Started {
    pub(crate) child: Child,
    pub(crate) orders: ChildStdin,
    pub(crate) reports: Lines<BufReader<ChildStdout>>,
    /// The network between it and the store, which must live as long as it does.
    pub(crate) path: Option<Arc<dyn Path>>,
}

impl Started {
    pub(crate) fn new(worker: Worker) -> Verdict<Self> {
        let mut command = tokio::process::Command::from(worker.command);
        let sharing = Sharing::of_this_process().name();
        let command = command.env(sharing::VARIABLE, sharing);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command
            .kill_on_drop(true)
            .spawn()
            .because("starting another process")?;
        let missing = || Failure::new("the other process has no pipes");
        let orders = child.stdin.take().ok_or_else(missing)?;
        let reports = child.stdout.take().ok_or_else(missing)?;
        Ok(Self {
            child,
            orders,
            reports: BufReader::new(reports).lines(),
            path: worker.path,
        })
    }
}

/// Sends a process that was started here a signal.
#[cfg(unix)]
pub(crate) fn send(process: &Child, signal: Signal) -> Verdict {
    use rustix::process::{Pid, kill_process};
    let signal = match signal {
        Signal::Kill => rustix::process::Signal::KILL,
        Signal::Freeze => rustix::process::Signal::STOP,
        Signal::Thaw => rustix::process::Signal::CONT,
    };
    let id = process.id().and_then(|id| i32::try_from(id).ok());
    let id = id.and_then(Pid::from_raw);
    let id = id.ok_or_else(|| Failure::new("it has ended"))?;
    kill_process(id, signal).because("sending a signal")
}

#[cfg(not(unix))]
pub(crate) fn send(_: &Child, _: Signal) -> Verdict {
    Err(Failure::new("there are no signals here"))
}
