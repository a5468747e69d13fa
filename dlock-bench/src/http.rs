//! What a server tells over HTTP about itself.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fault::{Context, Fault, Verdict};

/// The body of the answer to `GET path`.
pub(crate) async fn get(server: &str, path: &str) -> Verdict<String> {
    let doing = format!("GET http://{server}{path}");
    let asking = async {
        let mut stream = TcpStream::connect(server).await?;
        // HTTP/1.0: the body ends where the connection does.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&reply).into_owned())
    };
    let reply = tokio::time::timeout(Duration::from_secs(5), asking).await;
    let reply = reply.doing(&doing)?.doing(&doing)?;
    let (head, body) = reply.split_once("\r\n\r\n").unwrap_or((&reply, ""));
    let status = head.lines().next().unwrap_or_default();
    if !status.contains(" 200") {
        return Err(Fault::new(format!("{doing}: it said {status:?}")));
    }
    Ok(body.to_owned())
}
