//! What the locks protect in a fault run: a process of its own that keeps a number for each lock, behind a
//! [`Fence`], and lets nobody in whose token is stale. It prints each access that it has let in.
//!
//! It answers on a port of this machine, a line for a line:
//!
//! | question | answer |
//! | --- | --- |
//! | `PROCESS OP LOCK MODE TOKEN read` | `ok VALUE` or `stale` |
//! | `PROCESS OP LOCK MODE TOKEN write BEFORE AFTER` | the same; it writes AFTER whatever there is |
//! | `PROCESS OP LOCK MODE TOKEN add` | the same; it adds one |

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use dlock_core::{Fence, FencingToken, Mode};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::lines::{Line, now};
use crate::worker::say;
use crate::{Context, Failure, Verdict};

/// What to do with the number behind a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Read,
    /// Write one more than what was read.
    WriteAfter(u64),
    Add,
}

/// Who asks, and with what right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Badge {
    pub(super) process: u32,
    pub(super) op: u64,
    pub(super) lock: usize,
    pub(super) mode: Mode,
    pub(super) token: FencingToken,
}

/// Serves until the process ends. Prints its port first.
pub(crate) async fn serve() -> Verdict {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    say(&format!("serves {}", listener.local_addr()?));
    let kept = Arc::new(Mutex::new(HashMap::new()));
    loop {
        let (client, _) = listener.accept().await?;
        client.set_nodelay(true)?;
        let kept = Arc::clone(&kept);
        tokio::spawn(async move {
            let (from, mut to) = client.into_split();
            let mut questions = BufReader::new(from).lines();
            // A worker that was killed hangs up.
            while let Ok(Some(question)) = questions.next_line().await {
                let answer = answer(&kept, &question).unwrap_or_else(|failure| {
                    let words = format!("the resource was asked {question:?}: {failure}");
                    say(&Line::Wrong(words).to_string());
                    "stale".to_owned()
                });
                if to
                    .write_all(format!("{answer}\n").as_bytes())
                    .await
                    .is_err()
                {
                    return;
                }
            }
        });
    }
}

type Kept = Mutex<HashMap<usize, (Fence, u64)>>;

fn answer(kept: &Kept, question: &str) -> Verdict<String> {
    let words: Vec<&str> = question.split(' ').collect();
    let [process, op, lock, mode, token, ref what @ ..] = words[..] else {
        return Err(Failure::new("too few words"));
    };
    let badge = Badge {
        process: process.parse()?,
        op: op.parse()?,
        lock: lock.parse()?,
        mode: mode.parse()?,
        token: FencingToken::try_from(token.parse::<u64>()?)?,
    };
    let what = match what {
        ["read"] => Use::Read,
        ["write", before] => Use::WriteAfter(before.parse()?),
        ["add"] => Use::Add,
        _ => return Err(Failure::new("no such use")),
    };
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    let (fence, value) = kept.entry(badge.lock).or_default();
    if fence.admit(badge.mode, badge.token).is_err() {
        return Ok("stale".to_owned());
    }
    let before = *value;
    let seen = match what {
        Use::Read => before,
        Use::Add => {
            *value += 1;
            before
        }
        Use::WriteAfter(read) => {
            *value = read + 1;
            read
        }
    };
    // Under the mutex: the lines stand in the order of the accesses.
    let line = Line::In {
        process: badge.process,
        op: badge.op,
        lock: badge.lock,
        mode: badge.mode,
        token: badge.token,
        at: now(),
        // A write over something else than what was read shows as a gap.
        before: seen,
        after: *value,
    };
    say(&line.to_string());
    Ok(format!("ok {before}"))
}

/// A worker's connection to the resource.
pub(super) struct Access {
    answers: tokio::io::Lines<BufReader<OwnedReadHalf>>,
    questions: OwnedWriteHalf,
}

impl Access {
    pub(super) async fn connect(resource: SocketAddr) -> Verdict<Self> {
        let stream = TcpStream::connect(resource)
            .await
            .because("connecting to the resource")?;
        stream.set_nodelay(true)?;
        let (from, questions) = stream.into_split();
        Ok(Self {
            answers: BufReader::new(from).lines(),
            questions,
        })
    }

    /// What there was before, or that the token is stale.
    pub(super) async fn ask(&mut self, badge: Badge, what: Use) -> Verdict<Option<u64>> {
        let Badge {
            process,
            op,
            lock,
            mode,
            token,
        } = badge;
        let what = match what {
            Use::Read => "read".to_owned(),
            Use::WriteAfter(read) => format!("write {read}"),
            Use::Add => "add".to_owned(),
        };
        let question = format!("{process} {op} {lock} {mode} {} {what}\n", token.get());
        self.questions.write_all(question.as_bytes()).await?;
        let answer = self.answers.next_line().await?;
        match answer.as_deref().map(|answer| answer.split_once(' ')) {
            Some(Some(("ok", value))) => Ok(Some(value.parse()?)),
            Some(None) => Ok(None),
            _ => Err(Failure::new("the resource has gone")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(kept: &Kept, mode: &str, order: u64, what: &str) -> String {
        let token = FencingToken::from_order(order).get();
        answer(kept, &format!("0 1 2 {mode} {token} {what}")).unwrap()
    }

    #[test]
    fn it_lets_nobody_in_whose_token_is_stale() {
        let kept = Kept::default();
        assert_eq!(question(&kept, "EX", 5, "read"), "ok 0");
        assert_eq!(question(&kept, "EX", 5, "write 0"), "ok 0");
        assert_eq!(question(&kept, "PR", 6, "read"), "ok 1");
        assert_eq!(question(&kept, "EX", 5, "write 1"), "stale");
        assert_eq!(question(&kept, "CW", 8, "add"), "ok 1");
        assert_eq!(question(&kept, "CW", 7, "add"), "ok 2");
        assert_eq!(question(&kept, "PR", 7, "read"), "stale");
        assert!(answer(&kept, "0 1 2 EX 3 burn").is_err());
        assert!(answer(&kept, "0 1").is_err());
    }
}
