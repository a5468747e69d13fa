//! Three servers in containers on a network of their own.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dlock_core::async_trait;
use futures_util::future::try_join_all;
use tokio::sync::OnceCell;

use super::container::{Recipe, Server};
use super::deployment::{proxied, proxied_worker};
use super::{http, network};
use crate::target::{Harm, Link, Need, Nodes, Target, Worker};
use crate::{Failure, Verdict, ensure};

const COUNT: usize = 3;
/// How long a cluster may take to become whole.
const WHOLE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What is particular to a kind of store.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// Node `own` of these hosts.
    pub(super) recipe: fn(hosts: &[String], own: usize) -> Recipe,
    pub(super) url: fn(hosts: &str) -> String,
    pub(super) client_port: u16,
    /// Where its health and its counters are had.
    pub(super) http_port: u16,
    /// Answers with success when the node takes part.
    pub(super) health: &'static str,
    /// Answers with what `leads` reads.
    pub(super) role: &'static str,
    /// Whether this node leads.
    pub(super) leads: fn(role: &str, host: &str) -> bool,
    /// Whether this node knows a leader, and no node that it knows of lags behind.
    pub(super) settled: fn(role: &str, host: &str) -> bool,
    pub(super) election: Duration,
    pub(super) ends_renewed_leases: bool,
    /// Why every grant has the same durability.
    pub(super) one_durability: &'static str,
}

/// Three servers of one kind.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    kind: Kind,
    network: String,
    hosts: Vec<String>,
    servers: Vec<Server>,
    /// Each server's address in the network, once they run.
    started: OnceCell<Vec<Option<String>>>,
}

impl Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cluster").field(&self.0.kind.name).finish()
    }
}

impl Cluster {
    pub(super) fn new(kind: Kind) -> Self {
        // Names of containers and networks are shared with everything else on the engine.
        let network = format!("dlock-{:08x}", fastrand::u32(..));
        let hosts: Vec<String> = (1..=COUNT)
            .map(|number| format!("{network}-{number}"))
            .collect();
        let server = |own| {
            let recipe = (kind.recipe)(&hosts, own);
            Server::new(Recipe {
                network: Some((network.clone(), hosts[own].clone())),
                ..recipe
            })
        };
        let servers = (0..COUNT).map(server).collect();
        Self(Arc::new(Inner {
            kind,
            network,
            hosts,
            servers,
            started: OnceCell::new(),
        }))
    }

    async fn start(&self) -> Verdict {
        let inner = &self.0;
        let starting = || async {
            network::create(&inner.network).await?;
            try_join_all(inner.servers.iter().map(Server::start)).await?;
            let mut addresses = Vec::new();
            for server in &inner.servers {
                addresses.push(network::address(&inner.network, server.id().await?).await?);
            }
            for (server, address) in inner.servers.iter().zip(&addresses) {
                // An address that was asked for stays, also when all are killed and started again.
                network::disconnect(&inner.network, server.id().await?).await?;
                network::connect(&inner.network, server.id().await?, address.clone()).await?;
                // Its ports on this machine stay when it is cut off from the others.
                network::connect(network::BRIDGE, server.id().await?, None).await?;
            }
            self.whole().await?;
            Ok::<_, Failure>(addresses)
        };
        inner.started.get_or_try_init(starting).await?;
        Ok(())
    }

    /// Waits until this node takes part.
    async fn healthy(&self, node: usize) -> Verdict {
        let Kind {
            http_port,
            health,
            role,
            settled,
            ..
        } = self.0.kind;
        let address = self.0.servers[node].address(http_port)?;
        let look = || async {
            http::get(&address, health).await?;
            let role = http::get(&address, role).await?;
            ensure!(
                settled(&role, &self.0.hosts[node]),
                "it knows no leader, or one that lags behind"
            );
            Ok(())
        };
        let start = Instant::now();
        while let Err(failure) = look().await {
            ensure!(
                start.elapsed() < WHOLE,
                "node {node} does not take part: {failure}"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    fn addresses(&self) -> Verdict<Vec<String>> {
        let servers = self.0.servers.iter();
        servers
            .map(|server| server.address(self.0.kind.client_port))
            .collect()
    }
}

#[async_trait]
impl Target for Cluster {
    fn name(&self) -> &str {
        self.0.kind.name
    }

    async fn link(&self) -> Verdict<Link> {
        self.start().await?;
        proxied(&self.addresses()?, self.0.kind.url).await
    }

    fn lacks(&self, need: Need) -> Option<String> {
        let reason = match need {
            Need::Servers | Need::Nodes => return None,
            Need::Processes if cfg!(unix) => return None,
            Need::Processes => "there are no signals here",
            Need::Wipe | Need::Rollback => "a cluster is what keeps data",
            Need::Meter | Need::Steps => "its servers' counters count what they do for each other",
            Need::Unconfirmable => self.0.kind.one_durability,
        };
        Some(reason.to_owned())
    }

    async fn worker(&self) -> Verdict<Worker> {
        proxied_worker(&self.addresses()?, self.0.kind.url).await
    }

    fn nodes(&self) -> Verdict<Arc<dyn Nodes>> {
        Ok(Arc::new(self.clone()))
    }

    async fn stop(&self) -> Verdict {
        for server in &self.0.servers {
            server.stop().await?;
        }
        if self.0.started.initialized() {
            network::remove(&self.0.network).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Nodes for Cluster {
    fn count(&self) -> usize {
        COUNT
    }

    async fn leader(&self) -> Verdict<usize> {
        let Kind {
            http_port,
            role,
            leads,
            ..
        } = self.0.kind;
        let start = Instant::now();
        while start.elapsed() < WHOLE {
            for (node, server) in self.0.servers.iter().enumerate() {
                let answer = http::get(&server.address(http_port)?, role).await?;
                if leads(&answer, &self.0.hosts[node]) {
                    return Ok(node);
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(Failure::new("no node leads"))
    }

    async fn harm(&self, node: usize, harm: Harm) -> Verdict {
        let server = &self.0.servers[node];
        match harm {
            Harm::Killed => server.kill().await,
            Harm::Frozen => server.freeze(true).await,
            Harm::CutOff => network::disconnect(&self.0.network, server.id().await?).await,
        }
    }

    async fn heal(&self, node: usize, harm: Harm) -> Verdict {
        let server = &self.0.servers[node];
        match harm {
            Harm::Killed => server.revive().await,
            Harm::Frozen => server.freeze(false).await,
            Harm::CutOff => {
                let addresses = self.0.started.get();
                let address = addresses.and_then(|all| all.get(node).cloned().flatten());
                network::connect(&self.0.network, server.id().await?, address).await
            }
        }
    }

    async fn whole(&self) -> Verdict {
        for node in 0..COUNT {
            self.healthy(node).await?;
        }
        Ok(())
    }

    fn ends_renewed_leases(&self) -> bool {
        self.0.kind.ends_renewed_leases
    }

    fn election(&self) -> Duration {
        self.0.kind.election
    }
}
