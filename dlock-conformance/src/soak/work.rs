//! A worker's side of a fault run: tasks that take locks in every way, use what they protect, and print what
//! happened.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dlock_core::{Client, Error, Guard, Mode};
use fastrand::Rng;
use tokio::task::JoinSet;

use super::lines::{Ending, Line, Miss, now};
use super::resource::{Access, Badge, Use};
use crate::worker::say;
use crate::{Context, Failure, Verdict};

/// How often each mode is asked for.
const MODES: [(Mode, u32); 6] = [
    (Mode::Null, 1),
    (Mode::ConcurrentRead, 2),
    (Mode::ConcurrentWrite, 3),
    (Mode::ProtectedRead, 4),
    (Mode::ProtectedWrite, 3),
    (Mode::Exclusive, 5),
];

/// A task that failed rests for so long: the store may be gone.
const REST: Duration = Duration::from_millis(20);

/// What a worker is told to do, in words separated by blanks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Brief {
    pub(super) process: u32,
    pub(super) seed: u64,
    pub(super) tasks: u32,
    pub(super) resource: SocketAddr,
    /// The longest that a lock is kept on purpose.
    pub(super) longest: Duration,
    pub(super) locks: Vec<String>,
}

impl Brief {
    pub(super) fn to_words(&self) -> String {
        format!(
            "{} {} {} {} {} {}",
            self.process,
            self.seed,
            self.tasks,
            self.resource,
            self.longest.as_millis(),
            self.locks.join(" ")
        )
    }

    pub(super) fn from_words(words: &[&str]) -> Verdict<Self> {
        let [process, seed, tasks, resource, longest, ref locks @ ..] = words[..] else {
            return Err(Failure::new("a brief has more words"));
        };
        Ok(Self {
            process: process.parse()?,
            seed: seed.parse()?,
            tasks: tasks.parse()?,
            resource: resource.parse()?,
            longest: Duration::from_millis(longest.parse()?),
            locks: locks.iter().map(|lock| (*lock).to_owned()).collect(),
        })
    }
}

/// The tasks at work.
#[derive(Debug)]
pub(crate) struct Work {
    tasks: JoinSet<Verdict>,
    over: Arc<AtomicBool>,
    client: Client,
}

impl Work {
    /// Starts them as the words of the order say.
    pub(crate) fn start(client: Client, order: &[&str]) -> Verdict<Self> {
        let brief = Arc::new(Brief::from_words(order)?);
        let (over, ops) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let mut tasks = JoinSet::new();
        for task in 0..brief.tasks {
            let hand = Hand {
                brief: Arc::clone(&brief),
                task,
                client: client.clone(),
                random: Rng::with_seed(brief.seed.wrapping_add(u64::from(task))),
                ops: Arc::clone(&ops),
                over: Arc::clone(&over),
            };
            tasks.spawn(hand.work());
        }
        Ok(Self {
            tasks,
            over,
            client,
        })
    }

    /// Lets each task come to its end, and closes the client.
    pub(crate) async fn stop(mut self, limit: Duration) -> Verdict {
        self.over.store(true, Ordering::Relaxed);
        let ending = async {
            while let Some(ended) = self.tasks.join_next().await {
                ended.because("a task")??;
            }
            Ok(())
        };
        let ended = tokio::time::timeout(limit, ending).await;
        ended.unwrap_or_else(|_| Err(Failure::new("a task does not come to its end")))?;
        Ok(self.client.close(limit).await?)
    }
}

/// One task.
struct Hand {
    brief: Arc<Brief>,
    task: u32,
    client: Client,
    random: Rng,
    ops: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Hand {
    async fn work(mut self) -> Verdict {
        let mut access = Access::connect(self.brief.resource).await?;
        while !self.over.load(Ordering::Relaxed) {
            let (lock, mode) = (self.random.usize(..self.brief.locks.len()), self.mode());
            let op = self.ops.fetch_add(1, Ordering::Relaxed);
            let (task, at) = (self.task, now());
            print(Line::Ask {
                op,
                task,
                lock,
                mode,
                at,
            });
            match self.acquire(lock, mode).await {
                Ok(guard) => self.hold(op, lock, guard, &mut access).await?,
                Err(why) => {
                    print(Line::Not { op, at: now(), why });
                    if matches!(why, Miss::Failed | Miss::Lost) {
                        tokio::time::sleep(REST).await;
                    }
                }
            }
        }
        Ok(())
    }

    fn mode(&mut self) -> Mode {
        let all: u32 = MODES.iter().map(|(_, weight)| weight).sum();
        let mut draw = self.random.u32(..all);
        for (mode, weight) in MODES {
            if draw < weight {
                return mode;
            }
            draw -= weight;
        }
        Mode::Exclusive
    }

    fn millis(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.random.u64(..=most))
    }

    async fn acquire(&mut self, lock: usize, mode: Mode) -> Result<Guard, Miss> {
        let (way, patience) = (self.random.u32(..20), self.millis(4 * self.brief.longest));
        let name = &self.brief.locks[lock];
        let request = self.client.lock(name).mode(mode);
        match way {
            0..3 => match request.try_now().await {
                Ok(guard) => guard.ok_or(Miss::Taken),
                Err(error) => Err(miss(&error)),
            },
            3..6 => {
                let limited = request.timeout(patience).await;
                limited.map_err(|error| miss(&error))
            }
            way => {
                // Some acquires are dropped early: while the request is on its way, or soon after.
                let patience = if way < 9 { patience / 200 } else { patience };
                match tokio::time::timeout(patience, request).await {
                    Ok(acquired) => acquired.map_err(|error| miss(&error)),
                    Err(_) => Err(Miss::Dropped),
                }
            }
        }
    }

    async fn hold(&mut self, op: u64, lock: usize, guard: Guard, access: &mut Access) -> Verdict {
        let badge = Badge {
            process: self.brief.process,
            op,
            lock,
            mode: guard.mode(),
            token: guard.token(),
        };
        // Before the look: at this time it was certainly held.
        let at = now();
        let at = guard.is_held().then_some(at);
        let token = badge.token;
        print(Line::Got { op, token, at });
        let heedless = self.random.u32(..4) == 0;
        for _ in 0..self.random.u32(1..4) {
            if !self.saw(op, &guard) && !heedless {
                break;
            }
            if !self.touch(badge, access).await? {
                break;
            }
            let pause = match self.random.u32(..40) {
                0 => self.brief.longest,
                _ => Duration::from_millis(2),
            };
            let pause = self.millis(pause);
            tokio::time::sleep(pause).await;
        }
        let at = now();
        let how = if !guard.is_held() {
            Ending::Lost
        } else if self.random.bool() {
            print(Line::Saw { op, at });
            match guard.release().await {
                Ok(()) => Ending::Released,
                Err(_) => Ending::Unreleased,
            }
        } else {
            print(Line::Saw { op, at });
            drop(guard);
            Ending::Dropped
        };
        print(Line::End { op, at: now(), how });
        Ok(())
    }

    /// Whether the guard says that it is held.
    fn saw(&self, op: u64, guard: &Guard) -> bool {
        let at = now();
        let is_held = guard.is_held();
        if is_held {
            print(Line::Saw { op, at });
        }
        is_held
    }

    /// Uses what the lock protects, as its mode allows. False if the token is stale.
    async fn touch(&mut self, badge: Badge, access: &mut Access) -> Verdict<bool> {
        let (first, then) = match badge.mode {
            Mode::Null => return Ok(true),
            Mode::ConcurrentWrite => (Use::Add, None),
            Mode::ConcurrentRead => (Use::Read, None),
            Mode::ProtectedRead => (Use::Read, Some(Mode::ProtectedRead)),
            mode => (Use::Read, Some(mode)),
        };
        let Some(value) = access.ask(badge, first).await? else {
            print(Line::Stale { op: badge.op });
            return Ok(false);
        };
        let Some(mode) = then else {
            return Ok(true);
        };
        let pause = self.millis(Duration::from_millis(1));
        tokio::time::sleep(pause).await;
        let second = match mode {
            Mode::ProtectedRead => Use::Read,
            _ => Use::WriteAfter(value),
        };
        match access.ask(badge, second).await? {
            None => {
                print(Line::Stale { op: badge.op });
                Ok(false)
            }
            // Whether it is still the same, the checker sees.
            Some(_) => Ok(true),
        }
    }
}

fn miss(error: &Error) -> Miss {
    match error {
        Error::Timeout(_) => Miss::TimedOut,
        Error::Lost(_) => Miss::Lost,
        _ => Miss::Failed,
    }
}

fn print(line: Line) {
    say(&line.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brief_is_read_back() {
        let brief = Brief {
            process: 2,
            seed: u64::MAX,
            tasks: 3,
            resource: "127.0.0.1:9".parse().unwrap(),
            longest: Duration::from_millis(250),
            locks: vec!["a".into(), "b/c".into()],
        };
        let words = brief.to_words();
        let words: Vec<&str> = words.split(' ').collect();
        assert_eq!(Brief::from_words(&words).unwrap(), brief);
        assert!(Brief::from_words(&words[..3]).is_err());
    }
}
