//! Three servers that keep three replicas.

use std::time::Duration;

use dlock_jetstream::JetStream;
use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::json;
use testcontainers::ImageExt;

use super::{Ear, Raw, Server, connect, request, until};

const COUNT: usize = 3;
/// A server forgets a route that has died soon.
const CONFIG: &str = "cluster { ping_interval: 1s, ping_max: 2 }\n";

/// Three servers in containers, which go with this value.
pub(crate) struct Cluster {
    servers: Vec<Server>,
}

impl Cluster {
    /// Starts the servers, and waits until each has a replica of the namespace's bucket.
    pub(crate) async fn start() -> Self {
        // Names of containers and networks are shared with everything else on the engine.
        let network = format!("dlock-replicas-{:08x}", fastrand::u32(..));
        let host = |number| format!("{network}-{number}");
        let routes: Vec<String> = (0..COUNT)
            .map(|number| format!("nats://{}:6222", host(number)))
            .collect();
        let routes = format!("--routes={}", routes.join(","));
        let config = CONFIG.to_owned();
        let servers = join_all((0..COUNT).map(async |number| {
            let own = format!("--name={}", host(number));
            let options = [
                "-js",
                "--store_dir=/data",
                "--config=/nats.conf",
                "--cluster_name=dlock",
                "--cluster=nats://0.0.0.0:6222",
                "--no_advertise",
                &routes,
                &own,
            ];
            let request = request(&options, &[("/nats.conf", &config)])
                .with_network(&network)
                .with_container_name(host(number));
            Server::run(request).await
        }))
        .await;
        let cluster = Self { servers };
        until("the servers make a bucket", async || {
            let url = cluster.url(0);
            connect(&url).await.is_ok()
        })
        .await;
        cluster.settled().await;
        cluster
    }

    pub(crate) fn count(&self) -> usize {
        self.servers.len()
    }

    fn url(&self, node: usize) -> String {
        format!("nats://127.0.0.1:{}?replicas=3", self.servers[node].port)
    }

    /// A connection to one server, which does not tell of the others.
    pub(crate) async fn connect(&self, node: usize) -> JetStream {
        connect(&self.url(node)).await.unwrap()
    }

    /// One connection to each server.
    pub(crate) async fn connect_all(&self) -> Vec<JetStream> {
        join_all((0..self.count()).map(|node| self.connect(node))).await
    }

    /// For looking at what this server's own replica has.
    pub(crate) async fn raw(&self, node: usize) -> Raw {
        self.servers[node].raw().await
    }

    /// Waits until the stream has a leader and no replica lags behind.
    pub(crate) async fn settled(&self) {
        let raw = self.raw(0).await;
        until("the replicas are current", async || {
            let info = raw.try_api("STREAM.INFO", json!({})).await;
            let cluster = &info["cluster"];
            let replicas = cluster["replicas"].as_array();
            cluster["leader"].is_string()
                && replicas.is_some_and(|replicas| {
                    replicas.len() == COUNT - 1
                        && replicas.iter().all(|replica| replica["current"] == true)
                })
        })
        .await;
    }

    /// Who leads the stream, if anybody answers.
    pub(crate) async fn leader(raw: &Raw) -> Option<String> {
        let info = raw.try_api("STREAM.INFO", json!({})).await;
        info["cluster"]["leader"].as_str().map(str::to_owned)
    }

    /// Everything that clients of all servers send from now on, heard at the first one.
    pub(crate) async fn listen(&self) -> Ear {
        let raw = self.raw(0).await;
        let ear = raw.listen().await;
        // The servers tell each other of subscriptions in their order.
        let mut last = raw.client.subscribe("listening").await.unwrap();
        for node in 0..self.count() {
            let other = self.raw(node).await;
            until("the servers know who listens", async || {
                other.client.publish("listening", "".into()).await.unwrap();
                let heard = tokio::time::timeout(Duration::from_millis(100), last.next());
                heard.await.is_ok()
            })
            .await;
        }
        ear
    }
}
