//! NATS JetStream: a server in a container, and a cluster of three.

use std::sync::Arc;
use std::time::Duration;

use dlock_core::async_trait;
use serde_json::Value;

use super::cluster::{Cluster, Kind};
use super::container::{Recipe, Server};
use super::http::get;
use super::nats_pushes::PushCounter;
use super::one::OneServer;
use crate::target::{Counts, Link, Meter, Need, Nodes, Prices, Target, Worker};
use crate::{Context, Failure, Verdict};

const IMAGE: &str = "nats";
const TAG: &str = "2.15";
const SCHEME: &str = "nats";
const CLIENTS: u16 = 4222;
const ROUTES: u16 = 6222;
const MONITOR: u16 = 8222;
const CONFIG: &str = "/dlock.conf";
/// A server holds on to a route that has died in silence, and refuses another one to the same server,
/// until its pings are unanswered: for a minute and more by default, also when the network is back.
const ROUTE_PINGS: &str = "cluster { ping_interval: 1s, ping_max: 2 }\n";
/// Where the server tells of its streams.
const STREAMS: &str = "/jsz?accounts=true&streams=true";
const ONE_DURABILITY: &str =
    "how many replicas acknowledge a grant is the bucket's, for all clients";

/// A NATS server with JetStream in a container, started when the first case needs it.
#[derive(Clone, Debug)]
pub struct JetStreamServer {
    name: String,
    one: OneServer,
    pushes: Arc<PushCounter>,
}

impl Default for JetStreamServer {
    fn default() -> Self {
        Self {
            name: format!("jetstream-{TAG}"),
            one: OneServer {
                server: Server::new(recipe(&["n1".to_owned()], 0)),
                port: CLIENTS,
                scheme: SCHEME,
            },
            pushes: Arc::default(),
        }
    }
}

/// A cluster of three, with three replicas.
pub(super) fn cluster() -> Cluster {
    Cluster::new(Kind {
        name: "jetstream-cluster",
        recipe,
        url: |hosts| format!("{SCHEME}://{hosts}?replicas=3"),
        client_port: CLIENTS,
        http_port: MONITOR,
        health: "/healthz",
        role: STREAMS,
        leads,
        settled,
        // The server's time-out of an election is random, from 4 s to 9 s.
        election: Duration::from_secs(10),
        ends_renewed_leases: false,
        one_durability: ONE_DURABILITY,
    })
}

fn recipe(hosts: &[String], own: usize) -> Recipe {
    let mut options = vec![
        "-js".to_owned(),
        "--store_dir=/data".to_owned(),
        format!("--name={}", hosts[own]),
        format!("--http_port={MONITOR}"),
    ];
    if hosts.len() > 1 {
        let routes = hosts.iter().map(|host| format!("nats://{host}:{ROUTES}"));
        options.extend([
            "--cluster_name=dlock".to_owned(),
            format!("--config={CONFIG}"),
            format!("--cluster=nats://0.0.0.0:{ROUTES}"),
            format!("--routes={}", routes.collect::<Vec<_>>().join(",")),
            // Clients stay behind their proxies.
            "--no_advertise".to_owned(),
        ]);
    }
    Recipe {
        name: format!("NATS {TAG}"),
        image: IMAGE,
        tag: TAG.to_owned(),
        command: options,
        ready: "Server is ready",
        ports: vec![CLIENTS, MONITOR],
        file: (hosts.len() > 1).then_some((CONFIG, ROUTE_PINGS)),
        network: None,
    }
}

/// Whether this host leads the stream of the locks, as it says itself.
fn leads(answer: &str, host: &str) -> bool {
    let streams = streams(answer);
    streams
        .iter()
        .any(|stream| stream["cluster"]["leader"] == host)
}

/// Whether the servers and each stream have a leader, and every replica of a stream that this host
/// leads has what it has. Of other streams it does not know.
fn settled(answer: &str, host: &str) -> bool {
    let names_leader = |of: &Value| {
        of["leader"]
            .as_str()
            .is_some_and(|leader| !leader.is_empty())
    };
    let all_current = |cluster: &Value| {
        let mut replicas = cluster["replicas"].as_array().into_iter().flatten();
        replicas.all(|replica| replica["current"] == true)
    };
    let servers: Value = serde_json::from_str(answer).unwrap_or_default();
    names_leader(&servers["meta_cluster"])
        && streams(answer).iter().all(|stream| {
            let cluster = &stream["cluster"];
            names_leader(cluster) && (cluster["leader"] != host || all_current(cluster))
        })
}

/// What [`STREAMS`] says of each stream.
fn streams(answer: &str) -> Vec<Value> {
    let mut answer: Value = serde_json::from_str(answer).unwrap_or_default();
    let accounts = answer["account_details"].as_array_mut();
    accounts
        .into_iter()
        .flatten()
        .filter_map(|account| account["stream_detail"].as_array_mut().map(std::mem::take))
        .flatten()
        .collect()
}

#[async_trait]
impl Target for JetStreamServer {
    fn name(&self) -> &str {
        &self.name
    }

    async fn link(&self) -> Verdict<Link> {
        self.one.link().await
    }

    fn lacks(&self, need: Need) -> Option<String> {
        let reason = match need {
            Need::Wipe | Need::Meter | Need::Servers => return None,
            Need::Processes if cfg!(unix) => return None,
            Need::Processes => "there are no signals here",
            Need::Steps => "it does not count the steps of a write",
            Need::Unconfirmable => ONE_DURABILITY,
            Need::Rollback => "it loses nothing that it has acknowledged",
            Need::Nodes => "it is one server",
        };
        Some(reason.to_owned())
    }

    async fn worker(&self) -> Verdict<Worker> {
        self.one.worker().await
    }

    fn nodes(&self) -> Verdict<Arc<dyn Nodes>> {
        Ok(Arc::new(self.one.clone()))
    }

    async fn wipe(&self) -> Verdict {
        self.one.server.replace().await
    }

    fn meter(&self) -> Verdict<Arc<dyn Meter>> {
        Ok(Arc::new(self.clone()))
    }

    async fn stop(&self) -> Verdict {
        self.one.server.stop().await
    }
}

#[async_trait]
impl Meter for JetStreamServer {
    /// From the server's monitoring: a request is a message that the server received from a client
    /// and that is no push. Pushes are counted by a subscription to all of them.
    async fn read(&self) -> Verdict<Counts> {
        let client = self.one.address().await?;
        let pushes = self.pushes.count(&client).await?;
        let monitor = self.one.server.address(MONITOR)?;
        let number = |answer: &str, field: &str| -> Verdict<u64> {
            let answer: Value = serde_json::from_str(answer).because("the server's monitoring")?;
            let number = answer[field].as_u64();
            number.ok_or_else(|| Failure::new(format!("the server's monitoring has no {field}")))
        };
        let received = number(&get(&monitor, "/varz").await?, "in_msgs")?;
        let streams = streams(&get(&monitor, STREAMS).await?);
        let written = streams
            .iter()
            .filter_map(|stream| stream["state"]["last_seq"].as_u64());
        Ok(Counts {
            requests: received.saturating_sub(pushes),
            pushes,
            changes: Some(written.sum()),
            steps: None,
        })
    }

    fn prices(&self) -> Prices {
        Prices {
            acquire: 1,
            // It reads the document first.
            first_acquire: 2,
            enqueue: 2,
            take_over: 0,
            take_over_in_a_queue: 0,
            release: 1,
            anew: 1,
            refused_try: 2,
            heartbeat: 1,
        }
    }
}
