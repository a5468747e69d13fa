//! What a user chooses: [`RedisOptions`], as a builder. Their URL is read in `options_url`.

use std::fmt;
use std::time::Duration;

use dlock_core::url::Secret;
use dlock_core::{ConfigError, Namespace, Tls};

use crate::confirm::Confirm;
use crate::keys::Layout;

/// Where the server is, and how it is used.
///
/// ```
/// use dlock_redis::RedisOptions;
/// use dlock_core::url::StoreUrl;
///
/// let built = RedisOptions::new("localhost", 6379).database(2);
/// let mut url = StoreUrl::parse("redis://localhost:6379/2")?;
/// let read = RedisOptions::from_url(&mut url)?;
/// url.finish()?; // refuses options that nobody knows
/// assert_eq!(built, read);
/// # Ok::<(), dlock_core::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct RedisOptions {
    pub(crate) nodes: Vec<Address>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) database: u32,
    pub(crate) tls: Option<Tls>,
    pub(crate) namespace: Namespace,
    pub(crate) partitions: Option<u32>,
    pub(crate) topology: Topology,
    pub(crate) confirm: Confirm,
    pub(crate) connect_timeout: Duration,
}

/// One server's address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Address {
    /// A name or an address; an IPv6 address without its brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// How the servers belong together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Topology {
    /// One server, with replicas or without.
    #[default]
    Standalone,
    /// A Redis Cluster; the nodes given are where its map is asked for.
    Cluster,
}

impl RedisOptions {
    /// The port of Redis and Valkey.
    pub const PORT: u16 = 6379;

    /// One server, without a password, database 0, the namespace `default`.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            nodes: vec![Address {
                host: host.into(),
                port,
            }],
            user: None,
            password: None,
            database: 0,
            tls: None,
            namespace: Namespace::default(),
            partitions: None,
            topology: Topology::Standalone,
            confirm: Confirm::Reply,
            connect_timeout: Duration::from_secs(5),
        }
    }

    /// Another node of the same Redis Cluster, to ask for its map. Makes it a cluster.
    pub fn node(mut self, host: impl Into<String>, port: u16) -> Self {
        self.nodes.push(Address {
            host: host.into(),
            port,
        });
        self.topology = Topology::Cluster;
        self
    }

    /// One server, or a Redis Cluster.
    pub fn topology(mut self, topology: Topology) -> Self {
        self.topology = topology;
        self
    }

    /// The user, if it is not `default`.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// The user's password.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(Secret::new(password));
        self
    }

    /// The number of the database. A cluster has 0 alone.
    pub fn database(mut self, number: u32) -> Self {
        self.database = number;
        self
    }

    /// Encrypts the connections.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Whose locks they are.
    pub fn namespace(mut self, namespace: Namespace) -> Self {
        self.namespace = namespace;
        self
    }

    /// Over how many partitions the names of this namespace spread: 1 to 1024. Without it, as many
    /// as the namespace has; a new namespace gets 1 on one server and 16 on a cluster.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// Reports a grant only when so many replicas have it (`WAIT`). A grant that too few have in
    /// that time is an error.
    pub fn wait_replicas(mut self, replicas: u32, within: Duration) -> Self {
        self.confirm = Confirm::Replicas { replicas, within };
        self
    }

    /// Reports a grant only when it is in the append-only file of the server itself (`local` is 1;
    /// otherwise 0) and of so many replicas (`WAITAOF`).
    pub fn wait_aof(mut self, local: u32, replicas: u32, within: Duration) -> Self {
        self.confirm = Confirm::Disk {
            local,
            replicas,
            within,
        };
        self
    }

    /// How long making a connection may take: 5 s unless another time is chosen.
    pub fn connect_timeout(mut self, time: Duration) -> Self {
        self.connect_timeout = time;
        self
    }

    /// Refuses what cannot be, however it was set.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let fault =
            |what: &str, fault: String, remedy: &str| Err(ConfigError::new(what, fault, remedy));
        if let Some(count) = self.partitions
            && !(1..=Layout::MAX_PARTITIONS).contains(&count)
        {
            let remedy = "it is a number from 1 to 1024";
            return fault(
                "option partitions",
                format!("{count} is out of range"),
                remedy,
            );
        }
        if self.user.is_some() && self.password.is_none() {
            let remedy = "give one, or leave out the user";
            return fault("user", "it has no password".into(), remedy);
        }
        if self.topology == Topology::Cluster && self.database != 0 {
            let remedy = "leave it out";
            return fault(
                "database",
                "a Redis Cluster has database 0 alone".into(),
                remedy,
            );
        }
        if self.topology == Topology::Standalone && self.nodes.len() > 1 {
            let remedy = "several hosts are nodes of one cluster; leave out cluster=false";
            return fault("option cluster", "there are several hosts".into(), remedy);
        }
        if self.connect_timeout.is_zero() {
            return fault(
                "option connect_timeout",
                "it is zero".into(),
                "choose a time",
            );
        }
        match self.confirm {
            Confirm::Reply => Ok(()),
            Confirm::Replicas { within, .. } | Confirm::Disk { within, .. }
                if within.as_millis() == 0 =>
            {
                let remedy = "choose at least a millisecond";
                fault("option wait_timeout", "it is zero".into(), remedy)
            }
            Confirm::Replicas { replicas: 0, .. } => {
                let remedy =
                    "it is a number of replicas, at least 1; leave it out to wait for none";
                fault("option wait", "it is zero".into(), remedy)
            }
            Confirm::Disk { local, .. } if local > 1 => {
                let remedy = "LOCAL is 0 or 1: there is one such server";
                fault("option waitaof", format!("LOCAL is {local}"), remedy)
            }
            Confirm::Disk {
                local: 0,
                replicas: 0,
                ..
            } => {
                let remedy =
                    "one of LOCAL and REPLICAS is at least 1; leave it out to wait for none";
                fault("option waitaof", "both are zero".into(), remedy)
            }
            Confirm::Replicas { .. } | Confirm::Disk { .. } => Ok(()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
