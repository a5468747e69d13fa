//! What workers and the resource print, a line for each event, and how it is read back.
//!
//! Times are microseconds on the clock that all processes of the machine share.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use dlock_core::{Clock, FencingToken, Mode, Moment, SystemClock};

use crate::{Failure, Verdict};

/// The time on the clock that all processes of the machine share, where there are fault runs.
pub(super) fn now() -> Duration {
    SystemClock.now().since(Moment::default())
}

/// Something that happened in a worker. The number is that of the acquire, in its process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A task is about to ask for a lock, which is named by its place in the list.
    Ask {
        op: u64,
        task: u32,
        lock: usize,
        mode: Mode,
        at: Duration,
    },
    /// The acquire returned a guard, which said at this time that it was held; or never did.
    Got {
        op: u64,
        token: FencingToken,
        at: Option<Duration>,
    },
    /// The guard said at this time that it was still held.
    Saw { op: u64, at: Duration },
    /// The acquire came to nothing.
    Not { op: u64, at: Duration, why: Miss },
    /// The guard was released, dropped, or found to be lost.
    End { op: u64, at: Duration, how: Ending },
    /// The resource refused the token.
    Stale { op: u64 },
    /// The resource let this access in. It is the resource that prints it.
    In {
        process: u32,
        op: u64,
        lock: usize,
        mode: Mode,
        token: FencingToken,
        at: Duration,
        before: u64,
        after: u64,
    },
    /// What cannot be, in words.
    Wrong(String),
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$each:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(super) enum $name { $($(#[$each])* $variant),+ }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($name::$variant => $word),+ })
            }
        }

        impl FromStr for $name {
            type Err = Failure;

            fn from_str(word: &str) -> Verdict<Self> {
                match word {
                    $($word => Ok($name::$variant),)+
                    _ => Err(Failure::new(format!("no {}: {word:?}", stringify!($name)))),
                }
            }
        }
    };
}

words! {
    /// Why an acquire came to nothing.
    Miss {
        /// A try found the lock taken.
        Taken = "taken",
        /// Its own limit was over.
        TimedOut = "timed-out",
        /// The task dropped it.
        Dropped = "dropped",
        /// The session was lost.
        Lost = "lost",
        /// The store failed.
        Failed = "failed",
    }
}

words! {
    /// How a hold ended.
    Ending {
        /// A release that was confirmed.
        Released = "released",
        /// A release that failed: the session was over by then.
        Unreleased = "unreleased",
        /// The guard was dropped.
        Dropped = "dropped",
        /// The guard said that it was lost.
        Lost = "lost",
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = Duration::as_micros;
        match self {
            Line::Ask {
                op,
                task,
                lock,
                mode,
                at,
            } => write!(f, "ask {op} {task} {lock} {mode} {}", micros(at)),
            Line::Got { op, token, at } => match at {
                Some(at) => write!(f, "got {op} {} {}", token.get(), micros(at)),
                None => write!(f, "got {op} {} -", token.get()),
            },
            Line::Saw { op, at } => write!(f, "saw {op} {}", micros(at)),
            Line::Not { op, at, why } => write!(f, "not {op} {} {why}", micros(at)),
            Line::End { op, at, how } => write!(f, "end {op} {} {how}", micros(at)),
            Line::Stale { op } => write!(f, "stale {op}"),
            Line::In {
                process,
                op,
                lock,
                mode,
                token,
                at,
                before,
                after,
            } => write!(
                f,
                "in {process} {op} {lock} {mode} {} {} {before} {after}",
                token.get(),
                micros(at)
            ),
            Line::Wrong(words) => write!(f, "wrong {}", words.replace('\n', " ")),
        }
    }
}

impl FromStr for Line {
    type Err = Failure;

    fn from_str(line: &str) -> Verdict<Self> {
        if let Some(words) = line.strip_prefix("wrong ") {
            return Ok(Line::Wrong(words.to_owned()));
        }
        let words: Vec<&str> = line.split(' ').collect();
        Ok(match words[..] {
            ["ask", op, task, lock, mode, at] => Line::Ask {
                op: op.parse()?,
                task: task.parse()?,
                lock: lock.parse()?,
                mode: mode.parse()?,
                at: time(at)?,
            },
            ["got", op, token, at] => Line::Got {
                op: op.parse()?,
                token: self::token(token)?,
                at: (at != "-").then(|| time(at)).transpose()?,
            },
            ["saw", op, at] => Line::Saw {
                op: op.parse()?,
                at: time(at)?,
            },
            ["not", op, at, why] => Line::Not {
                op: op.parse()?,
                at: time(at)?,
                why: why.parse()?,
            },
            ["end", op, at, how] => Line::End {
                op: op.parse()?,
                at: time(at)?,
                how: how.parse()?,
            },
            ["stale", op] => Line::Stale { op: op.parse()? },
            ["in", process, op, lock, mode, token, at, before, after] => Line::In {
                process: process.parse()?,
                op: op.parse()?,
                lock: lock.parse()?,
                mode: mode.parse()?,
                token: self::token(token)?,
                at: time(at)?,
                before: before.parse()?,
                after: after.parse()?,
            },
            _ => return Err(Failure::new(format!("not a line of a fault run: {line:?}"))),
        })
    }
}

fn time(micros: &str) -> Verdict<Duration> {
    Ok(Duration::from_micros(micros.parse()?))
}

fn token(number: &str) -> Verdict<FencingToken> {
    Ok(FencingToken::try_from(number.parse::<u64>()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_back() {
        let (op, lock, at) = (7, 2, Duration::from_micros(1_234_567));
        let (mode, token) = (Mode::ConcurrentWrite, FencingToken::from_order(9));
        let lines = [
            Line::Ask {
                op,
                task: 3,
                lock,
                mode,
                at,
            },
            Line::Got {
                op,
                token,
                at: Some(at),
            },
            Line::Got {
                op,
                token,
                at: None,
            },
            Line::Saw { op, at },
            Line::Not {
                op,
                at,
                why: Miss::TimedOut,
            },
            Line::End {
                op,
                at,
                how: Ending::Unreleased,
            },
            Line::Stale { op },
            Line::In {
                process: 1,
                op,
                lock,
                mode,
                token,
                at,
                before: 4,
                after: 5,
            },
            Line::Wrong("two words".into()),
        ];
        for line in lines {
            let text = line.to_string();
            assert_eq!(text.parse::<Line>().unwrap(), line, "{text}");
        }
        for bad in ["", "ask", "got 1 2", "not 1 2 perhaps", "end x 1 lost"] {
            assert!(bad.parse::<Line>().is_err(), "{bad}");
        }
    }
}
