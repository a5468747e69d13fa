//! The store: one value behind a port, which one client at a time may change, and a way to tell clients
//! something. Yours is a database.
//!
//! | line | answer |
//! | --- | --- |
//! | `begin` | `MICROS VALUE`: the server's clock, and the value, once no other transaction is under way |
//! | `commit VALUE`, then a tab, a name and a word for each who is to be told | `ok`, or `too late` |
//! | `listen NAME` | nothing; the connection gets the words that are told to that name |

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};

/// A client that stands still in its transaction loses it, so that all others can go on.
const PATIENCE: Duration = Duration::from_millis(300);

#[derive(Default)]
struct Kept {
    value: Mutex<String>,
    listeners: Mutex<HashMap<String, mpsc::UnboundedSender<String>>>,
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener) {
    let kept = Arc::new(Kept::default());
    while let Ok((client, _)) = listener.accept().await {
        let kept = Arc::clone(&kept);
        let _ = client.set_nodelay(true);
        tokio::spawn(async move {
            let (from, to) = client.into_split();
            // Whoever hangs up is gone, and so is the transaction.
            let _ = answer(&kept, BufReader::new(from).lines(), to).await;
        });
    }
}

type Asked = Lines<BufReader<OwnedReadHalf>>;

async fn answer(kept: &Kept, mut asked: Asked, mut to: OwnedWriteHalf) -> std::io::Result<()> {
    while let Some(line) = asked.next_line().await? {
        if let Some(name) = line.strip_prefix("listen ") {
            let (sender, mut words) = mpsc::unbounded_channel::<String>();
            kept.listeners.lock().await.insert(name.to_owned(), sender);
            while let Some(word) = words.recv().await {
                to.write_all(format!("{word}\n").as_bytes()).await?;
            }
            return Ok(());
        }
        let mut value = kept.value.lock().await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let begun = format!("{} {}\n", now.as_micros(), *value);
        to.write_all(begun.as_bytes()).await?;
        let Ok(commit) = tokio::time::timeout(PATIENCE, asked.next_line()).await else {
            drop(value);
            asked.next_line().await?;
            to.write_all(b"too late\n").await?;
            continue;
        };
        let commit = commit?.unwrap_or_default();
        let Some(commit) = commit.strip_prefix("commit ") else {
            return Ok(());
        };
        let mut parts = commit.split('\t');
        *value = parts.next().unwrap_or_default().to_owned();
        drop(value);
        to.write_all(b"ok\n").await?;
        // After the commit: a push before it would tell of what may never be (COMMITTED).
        let mut listeners = kept.listeners.lock().await;
        while let (Some(name), Some(word)) = (parts.next(), parts.next()) {
            let told = listeners.get(name).map(|sender| sender.send(word.to_owned()));
            if let Some(Err(_)) = told {
                listeners.remove(name);
            }
        }
    }
    Ok(())
}

/// One transaction at a time on one connection.
#[derive(Debug)]
pub struct Connection {
    answers: Asked,
    to: OwnedWriteHalf,
}

impl Connection {
    pub async fn open(server: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let (from, to) = stream.into_split();
        let answers = BufReader::new(from).lines();
        Ok(Self { answers, to })
    }

    pub async fn send(&mut self, line: &str) -> std::io::Result<()> {
        self.to.write_all(format!("{line}\n").as_bytes()).await
    }

    /// The next line; none when the server has hung up.
    pub async fn next(&mut self) -> std::io::Result<Option<String>> {
        self.answers.next_line().await
    }
}
