//! etcd: a server in a container, and a cluster of three.

use std::sync::Arc;
use std::time::Duration;

use dlock_core::async_trait;

use super::cluster::{Cluster, Kind};
use super::container::{Recipe, Server};
use super::http::{get, sum};
use super::one::OneServer;
use crate::target::{Counts, Link, Meter, Need, Nodes, Prices, Target, Worker};
use crate::{Verdict, ensure};

const IMAGE: &str = "quay.io/coreos/etcd";
const TAG: &str = "v3.5.30";
const SCHEME: &str = "etcd";
const CLIENTS: u16 = 2379;
const PEERS: u16 = 2380;
const ONE_DURABILITY: &str = "every grant is committed by a majority, or there is none";

/// An etcd server in a container, started when the first case needs it.
#[derive(Clone, Debug)]
pub struct EtcdServer {
    name: String,
    one: OneServer,
}

impl Default for EtcdServer {
    fn default() -> Self {
        let hosts = ["127.0.0.1".to_owned()];
        Self {
            name: format!("etcd-{}", TAG.trim_start_matches('v')),
            one: OneServer {
                server: Server::new(recipe(&hosts, 0)),
                port: CLIENTS,
                scheme: SCHEME,
            },
        }
    }
}

/// A cluster of three.
pub(super) fn cluster() -> Cluster {
    Cluster::new(Kind {
        name: "etcd-cluster",
        recipe,
        url,
        client_port: CLIENTS,
        http_port: CLIENTS,
        health: "/health",
        role: "/metrics",
        leads: |metrics, _| sum(metrics, "etcd_server_is_leader", |_| true) == 1,
        settled: |metrics, _| sum(metrics, "etcd_server_has_leader", |_| true) == 1,
        // Twice the time-out of an election, whose length is random, and one more for a split vote.
        election: Duration::from_secs(3),
        // https://github.com/etcd-io/etcd/issues/15247, of which 3.5.30 mends a part: a leader that has
        // just ticked again takes itself for the leader still.
        ends_renewed_leases: true,
        one_durability: ONE_DURABILITY,
    })
}

fn recipe(hosts: &[String], own: usize) -> Recipe {
    let host = &hosts[own];
    let peers: Vec<String> = hosts
        .iter()
        .map(|host| format!("{host}=http://{host}:{PEERS}"))
        .collect();
    let options = [
        ("name", host.clone()),
        ("data-dir", "/data/etcd".into()),
        ("listen-client-urls", format!("http://0.0.0.0:{CLIENTS}")),
        ("advertise-client-urls", format!("http://{host}:{CLIENTS}")),
        ("listen-peer-urls", format!("http://0.0.0.0:{PEERS}")),
        (
            "initial-advertise-peer-urls",
            format!("http://{host}:{PEERS}"),
        ),
        ("initial-cluster", peers.join(",")),
    ];
    let options = options.map(|(option, value)| format!("--{option}={value}"));
    Recipe {
        name: format!("etcd {TAG}"),
        image: IMAGE,
        tag: TAG.to_owned(),
        command: ["etcd".to_owned()].into_iter().chain(options).collect(),
        ready: "ready to serve client requests",
        ports: vec![CLIENTS],
        file: None,
        network: None,
    }
}

fn url(hosts: &str) -> String {
    format!("{SCHEME}://{hosts}")
}

#[async_trait]
impl Target for EtcdServer {
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
            Need::Steps => "it does not count the steps of a transaction",
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
impl Meter for EtcdServer {
    /// From the server's metrics. A request is a message that the server received for its keys or
    /// its leases; setting up a watch is none. A push is an event that it sent to a watch.
    async fn read(&self) -> Verdict<Counts> {
        let metrics = get(&self.one.address().await?, "/metrics").await?;
        let requests = sum(&metrics, "grpc_server_msg_received_total", |labels| {
            ["etcdserverpb.KV", "etcdserverpb.Lease"]
                .iter()
                .any(|service| labels.contains(&format!("grpc_service=\"{service}\"")))
        });
        ensure!(
            requests > 0,
            "the server's metrics do not count its requests"
        );
        let total = |name| sum(&metrics, name, |_| true);
        Ok(Counts {
            requests,
            pushes: total("etcd_debugging_mvcc_events_total"),
            changes: Some(total("etcd_mvcc_put_total") + total("etcd_mvcc_delete_total")),
            steps: None,
        })
    }

    fn prices(&self) -> Prices {
        Prices {
            acquire: 1,
            first_acquire: 1,
            // The transaction. A look too, if something is written before the watch is there.
            enqueue: 1,
            take_over: 0,
            // A look: the last of those ahead has gone, and perhaps not the others.
            take_over_in_a_queue: 1,
            release: 1,
            anew: 1,
            refused_try: 1,
            heartbeat: 1,
        }
    }
}
