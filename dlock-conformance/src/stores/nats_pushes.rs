//! Counts the pushes that the clients of a NATS server send each other, by a subscription of the
//! suite's own: the server's counters do not tell them from other messages.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::container::in_background;
use crate::scene::{LIMIT, within};
use crate::{Context, Failure, Verdict};

/// Counts what is pushed to any session, from the first reading on.
#[derive(Debug, Default)]
pub(super) struct PushCounter {
    listening: Mutex<Option<Listening>>,
}

/// A subscription to one server.
#[derive(Clone, Debug)]
struct Listening {
    server: String,
    seen: Arc<AtomicU64>,
    rounds: tokio::sync::mpsc::UnboundedSender<oneshot::Sender<()>>,
}

impl PushCounter {
    /// How many pushes the server at this address has passed on since the first reading.
    pub(super) async fn count(&self, server: &str) -> Verdict<u64> {
        let known = self
            .listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let listening = match known {
            Some(known) if known.server == server && !known.rounds.is_closed() => known,
            _ => {
                let server = server.to_owned();
                let new = in_background(async move { listen(server).await }).await??;
                *self
                    .listening
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = Some(new.clone());
                new
            }
        };
        // What the server had passed on before has arrived when it answers.
        let (done, answered) = oneshot::channel();
        let gone = || Failure::new("the subscription to the pushes has ended");
        listening.rounds.send(done).map_err(|_| gone())?;
        within(LIMIT, "the server answers a ping", answered)
            .await?
            .map_err(|_| gone())?;
        Ok(listening.seen.load(Ordering::Acquire))
    }
}

async fn listen(server: String) -> Verdict<Listening> {
    let stream = TcpStream::connect(&server).await.because(&server)?;
    let (read, mut write) = stream.into_split();
    let hello = b"CONNECT {\"verbose\":false}\r\nSUB dlock.> 1\r\n";
    write.write_all(hello).await.because(&server)?;
    let seen = Arc::new(AtomicU64::new(0));
    let (rounds, mut asked) = tokio::sync::mpsc::unbounded_channel::<oneshot::Sender<()>>();
    let counted = Arc::clone(&seen);
    tokio::spawn(async move {
        let mut read = BufReader::new(read);
        let mut line = String::new();
        let mut waiting = std::collections::VecDeque::new();
        loop {
            tokio::select! {
                round = asked.recv() => match round {
                    Some(done) => {
                        waiting.push_back(done);
                        if write.write_all(b"PING\r\n").await.is_err() {
                            return;
                        }
                    }
                    None => return,
                },
                // A half-read line stays in `line`.
                got = read.read_line(&mut line) => {
                    if !matches!(got, Ok(length) if length > 0) {
                        return;
                    }
                    let words: Vec<&str> = line.split_whitespace().collect();
                    match words[..] {
                        ["PING"] => {
                            let ponged = write.write_all(b"PONG\r\n").await;
                            if ponged.is_err() {
                                return;
                            }
                        }
                        ["PONG"] => drop(waiting.pop_front().map(|done| done.send(()))),
                        ["MSG" | "HMSG", .., length] => {
                            counted.fetch_add(1, Ordering::AcqRel);
                            let Ok(length) = length.parse::<usize>() else { return };
                            let mut body = vec![0; length + 2];
                            if read.read_exact(&mut body).await.is_err() {
                                return;
                            }
                        }
                        _ => {}
                    }
                    line.clear();
                }
            }
        }
    });
    Ok(Listening {
        server,
        seen,
        rounds,
    })
}
