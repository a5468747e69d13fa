//! The few commands that the suite itself sends to a Redis server: its counters, and `FLUSHALL`.
//! Not through a client library, whose own commands would be counted.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::{Context, Failure, Verdict};

/// Sends one command without spaces in its arguments, and returns the reply as text.
pub(super) async fn command(server: &str, command: &str) -> Verdict<String> {
    let doing = || format!("{command} on the server at {server}");
    let stream = TcpStream::connect(server).await.because(doing())?;
    let mut stream = BufReader::new(stream);
    let line = format!("{command}\r\n");
    stream.write_all(line.as_bytes()).await.because(doing())?;
    let mut head = String::new();
    stream.read_line(&mut head).await.because(doing())?;
    let head = head.trim_end();
    match head.split_at_checked(1) {
        Some(("+", status)) => Ok(status.to_owned()),
        Some(("$", length)) => {
            let length: usize = length.parse().because(doing())?;
            let mut reply = vec![0; length];
            stream.read_exact(&mut reply).await.because(doing())?;
            Ok(String::from_utf8_lossy(&reply).into_owned())
        }
        _ => Err(Failure::new(format!("{}: it said {head:?}", doing()))),
    }
}
