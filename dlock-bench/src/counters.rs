//! What the servers count by themselves: requests, pushes, commits and bytes.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio::sync::OnceCell;

use crate::fault::{Context, Fault, Verdict};
use crate::floors::redis::connection;
use crate::http::get;
use crate::pushes::jetstream::PushCounter;
use crate::store::{Place, Store};

/// What a server has done so far, or between two readings.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    /// Requests of clients.
    pub(crate) requests: f64,
    /// Messages that wake somebody who waits.
    pub(crate) pushes: f64,
    /// Entries of etcd's log.
    pub(crate) commits: Option<f64>,
    /// To and from the clients.
    pub(crate) bytes: f64,
}

impl Counts {
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            requests: self.requests - before.requests,
            pushes: self.pushes - before.pushes,
            commits: self
                .commits
                .zip(before.commits)
                .map(|(now, then)| now - then),
            bytes: self.bytes - before.bytes,
        }
    }
}

/// Reads a server's counters, over a connection of its own.
#[derive(Debug)]
pub(crate) struct Meter {
    place: Place,
    redis: OnceCell<redis::aio::MultiplexedConnection>,
    pushes: OnceCell<PushCounter>,
}

impl Meter {
    pub(crate) fn new(place: Place) -> Self {
        Self {
            place,
            redis: OnceCell::new(),
            pushes: OnceCell::new(),
        }
    }

    /// The counters now. `set_is_sent` says whether whoever is measured sends `SET` as such: a server counts a
    /// command in a script and one of its own alike.
    ///
    /// # Errors
    ///
    /// [`Fault`] that says why the store does not tell.
    pub(crate) async fn read(&self, set_is_sent: bool) -> Verdict<Counts> {
        match self.place.store {
            Store::Redis | Store::Valkey => self.redis(set_is_sent).await,
            Store::Etcd => self.etcd().await,
            Store::Jetstream => self.jetstream().await,
            Store::Memory => Err(Fault::new("the store in memory counts nothing")),
        }
    }

    async fn redis(&self, set_is_sent: bool) -> Verdict<Counts> {
        let connect = || connection(&self.place);
        let mut connection = self.redis.get_or_try_init(connect).await?.clone();
        let info: String = redis::cmd("INFO")
            .arg("everything")
            .query_async(&mut connection)
            .await?;
        Ok(of_redis(&info, set_is_sent))
    }

    /// A request is a message that the server received for its keys, its leases or its locks; setting up a
    /// watch is none. A push is an event that it sent to a watch.
    async fn etcd(&self) -> Verdict<Counts> {
        let metrics = get(self.place.counters_at(), "/metrics").await?;
        let asked = |labels: &str| {
            ["etcdserverpb.KV", "etcdserverpb.Lease", "v3lockpb.Lock"]
                .iter()
                .any(|service| labels.contains(&format!("grpc_service=\"{service}\"")))
        };
        let total = |name| sum(&metrics, name, |_| true);
        Ok(Counts {
            requests: sum(&metrics, "grpc_server_msg_received_total", asked),
            pushes: total("etcd_debugging_mvcc_events_total"),
            commits: Some(total("etcd_server_proposals_committed_total")),
            bytes: total("etcd_network_client_grpc_received_bytes_total")
                + total("etcd_network_client_grpc_sent_bytes_total"),
        })
    }

    /// A request is a message from a client that is no push.
    async fn jetstream(&self) -> Verdict<Counts> {
        if self.place.monitor.is_none() {
            return Err(Fault::new(
                "nats-server tells its counters at its monitoring port: give --monitor host:port",
            ));
        }
        let listen = || PushCounter::listen(&self.place);
        let (pushes, own) = self.pushes.get_or_try_init(listen).await?.count().await?;
        let answer = get(self.place.counters_at(), "/varz").await?;
        let answer: Value = serde_json::from_str(&answer).doing("the server's monitoring")?;
        let number = |field: &str| {
            let missing = || Fault::new(format!("the server's monitoring has no {field}"));
            answer[field].as_f64().ok_or_else(missing)
        };
        Ok(Counts {
            requests: number("in_msgs")? - pushes - own,
            pushes,
            commits: None,
            bytes: number("in_bytes")? + number("out_bytes")?,
        })
    }
}

/// From `INFO`: scripts count as one request, and the commands in them not at all.
fn of_redis(info: &str, set_is_sent: bool) -> Counts {
    let mut fields = BTreeMap::new();
    for line in info.lines() {
        if let Some((name, value)) = line.split_once(':') {
            fields.insert(name, value.trim());
        }
    }
    let calls = |command: &str| {
        let stats = fields.get(format!("cmdstat_{command}").as_str());
        let calls = stats.and_then(|stats| stats.strip_prefix("calls=")?.split(',').next());
        calls.and_then(|calls| calls.parse().ok()).unwrap_or(0.0)
    };
    let scripts = [
        "eval",
        "evalsha",
        "eval_ro",
        "evalsha_ro",
        "fcall",
        "fcall_ro",
    ];
    let number = |name: &str| fields.get(name).and_then(|value| value.parse().ok());
    let bytes = ["total_net_input_bytes", "total_net_output_bytes"];
    Counts {
        requests: scripts.map(calls).iter().sum::<f64>()
            + if set_is_sent { calls("set") } else { 0.0 },
        pushes: calls("publish") + calls("spublish"),
        commits: None,
        bytes: bytes.map(|name| number(name).unwrap_or(0.0)).iter().sum(),
    }
}

/// A counter in the Prometheus text format, summed over the label sets that are wanted.
fn sum(metrics: &str, name: &str, wanted: impl Fn(&str) -> bool) -> f64 {
    let values = metrics.lines().filter_map(|line| {
        let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
        // Not another counter whose name begins the same.
        let exact = labels.is_empty() || labels.starts_with('{');
        (exact && wanted(labels)).then(|| value.parse::<f64>().ok())?
    });
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_inside_of_scripts_are_no_requests() {
        let info = "# Commandstats\r\ncmdstat_evalsha:calls=7,usec=9\r\ncmdstat_set:calls=5,usec=1\r\n\
                    cmdstat_get:calls=7,usec=1\r\ncmdstat_publish:calls=3,usec=1\r\n\
                    total_net_input_bytes:100\r\ntotal_net_output_bytes:23\r\n";
        let counts = of_redis(info, true);
        assert_eq!(
            (counts.requests, counts.pushes, counts.bytes),
            (12.0, 3.0, 123.0)
        );
        assert_eq!(of_redis(info, false).requests, 7.0);
    }

    #[test]
    fn counters_are_summed_by_label() {
        let text = "# HELP a counts\na{m=\"x\"} 2\na{m=\"y\"} 1e+01\na_b{m=\"x\"} 5\nc 7\n";
        assert_eq!(sum(text, "a", |_| true), 12.0);
        assert_eq!(sum(text, "a", |labels| labels.contains("\"x\"")), 2.0);
        assert_eq!(sum(text, "c", |_| true), 7.0);
    }
}
