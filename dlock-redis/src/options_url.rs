//! [`RedisOptions`] as a URL.

use std::time::Duration;

use dlock_core::url::StoreUrl;
use dlock_core::{ConfigError, Tls};

use crate::confirm::Confirm;
use crate::options::{Address, RedisOptions, Topology};

const WAIT_TIMEOUT: Duration = Duration::from_secs(1);

impl RedisOptions {
    /// Reads `redis://user:password@host:port/database?option=value`. The schemes are `redis` and
    /// `valkey`, and `rediss` and `valkeys` with TLS; several hosts are nodes of one cluster.
    ///
    /// | option | what | see |
    /// | --- | --- | --- |
    /// | `namespace` | whose locks they are | [`namespace`](Self::namespace) |
    /// | `partitions` | a number from 1 to 1024 | [`partitions`](Self::partitions) |
    /// | `cluster` | `true` or `false` | [`topology`](Self::topology) |
    /// | `wait` | a number of replicas | [`wait_replicas`](Self::wait_replicas) |
    /// | `waitaof` | `LOCAL,REPLICAS`, such as `1,0` | [`wait_aof`](Self::wait_aof) |
    /// | `wait_timeout` | a time, 1 s without it | both of them |
    /// | `connect_timeout` | a time | [`connect_timeout`](Self::connect_timeout) |
    /// | `ca`, `cert`, `key` | PEM files | [`Tls`] |
    ///
    /// Options that it does not know stay in `url`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when a part of the URL cannot be.
    pub fn from_url(url: &mut StoreUrl) -> Result<Self, ConfigError> {
        let encrypted = match url.scheme() {
            "redis" | "rediss" => "rediss",
            "valkey" | "valkeys" => "valkeys",
            other => {
                return Err(ConfigError::new(
                    "store URL: its scheme",
                    format!("{other}:// is no Redis"),
                    "it is redis, rediss (with TLS), valkey or valkeys",
                ));
            }
        };
        let mut nodes = url.hosts().iter().map(|host| Address {
            host: host.name.clone(),
            port: host.port.unwrap_or(Self::PORT),
        });
        let Some(first) = nodes.next() else {
            return Err(ConfigError::new(
                "store URL: its host",
                "there is none",
                "it reads redis://host:port",
            ));
        };
        let mut options = Self::new(first.host, first.port);
        options.nodes.extend(nodes);
        options.user = url.user().map(str::to_owned);
        options.password = url.password().cloned();
        options.database = read_database(url.path())?;
        options.topology = read_topology(url, options.nodes.len())?;
        options.tls = Tls::from_url(url, encrypted)?;
        options.confirm = read_confirm(url)?;
        options.partitions = url.take_parsed("partitions", "a number from 1 to 1024")?;
        if let Some(namespace) = url.take_namespace()? {
            options.namespace = namespace;
        }
        if let Some(time) = url.take_duration("connect_timeout")? {
            options.connect_timeout = time;
        }
        options.check()?;
        Ok(options)
    }
}

fn read_database(path: &str) -> Result<u32, ConfigError> {
    if path.is_empty() {
        return Ok(0);
    }
    path.parse().map_err(|_| {
        ConfigError::new(
            "store URL: its path",
            format!("{path:?} is no database"),
            "it is the number of a database, such as redis://host/2",
        )
    })
}

fn read_topology(url: &mut StoreUrl, hosts: usize) -> Result<Topology, ConfigError> {
    Ok(match url.take_parsed("cluster", "true or false")? {
        Some(true) => Topology::Cluster,
        Some(false) => Topology::Standalone,
        None if hosts > 1 => Topology::Cluster,
        None => Topology::Standalone,
    })
}

fn read_confirm(url: &mut StoreUrl) -> Result<Confirm, ConfigError> {
    let replicas: Option<u32> = url.take_parsed("wait", "a number of replicas")?;
    let disk: Option<Pair> = url.take_parsed("waitaof", "LOCAL,REPLICAS, such as 1,0 or 1,1")?;
    let chosen = url.take_duration("wait_timeout")?;
    let within = chosen.unwrap_or(WAIT_TIMEOUT);
    match (replicas, disk) {
        (Some(_), Some(_)) => Err(ConfigError::new(
            "options wait and waitaof",
            "both are given",
            "choose one: waitaof waits for more",
        )),
        (Some(replicas), None) => Ok(Confirm::Replicas { replicas, within }),
        (None, Some(Pair(local, replicas))) => Ok(Confirm::Disk {
            local,
            replicas,
            within,
        }),
        (None, None) if chosen.is_some() => Err(ConfigError::new(
            "option wait_timeout",
            "there is nothing to wait for",
            "give wait or waitaof too, or leave it out",
        )),
        (None, None) => Ok(Confirm::Reply),
    }
}

/// `LOCAL,REPLICAS`.
struct Pair(u32, u32);

impl std::str::FromStr for Pair {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (local, replicas) = text.split_once(',').ok_or(())?;
        let number = |text: &str| text.trim().parse().map_err(drop);
        Ok(Self(number(local)?, number(replicas)?))
    }
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
