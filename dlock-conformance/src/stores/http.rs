//! What the suite itself asks a server over HTTP: its counters and its health.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::scene::within;
use crate::{Context, Verdict, ensure};

/// Far more than a server takes that is alive.
const LIMIT: Duration = Duration::from_secs(2);

/// The body of the answer to `GET path`.
pub(super) async fn get(server: &str, path: &str) -> Verdict<String> {
    let doing = format!("GET {path} from {server}");
    let asking = async {
        let mut stream = TcpStream::connect(server).await?;
        // HTTP/1.0: the body ends where the connection does.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&reply).into_owned())
    };
    let reply = within(LIMIT, &doing, asking).await?.because(&doing)?;
    let (head, body) = reply.split_once("\r\n\r\n").unwrap_or((&reply, ""));
    let status = head.lines().next().unwrap_or_default();
    ensure!(
        status.contains(" 200"),
        "{doing}: it said {status:?}: {body}"
    );
    Ok(body.to_owned())
}

/// The value of a counter in the Prometheus text format, summed over the label sets that are wanted.
#[cfg(feature = "etcd")]
pub(super) fn sum(metrics: &str, name: &str, wanted: impl Fn(&str) -> bool) -> u64 {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        // Not another counter whose name begins the same.
        let exact = labels.is_empty() || labels.starts_with('{');
        (exact && wanted(labels)).then(|| value.parse::<f64>().ok())?
    });
    values.sum::<f64>() as u64
}

#[cfg(all(test, feature = "etcd"))]
mod tests {
    use super::sum;

    #[test]
    fn counters_are_summed_by_label() {
        let text = "# HELP a counts\na{m=\"x\"} 2\na{m=\"y\"} 1e+01\na_b{m=\"x\"} 5\nc 7\n";
        assert_eq!(sum(text, "a", |_| true), 12);
        assert_eq!(sum(text, "a", |labels| labels.contains("\"x\"")), 2);
        assert_eq!(sum(text, "c", |_| true), 7);
    }
}
