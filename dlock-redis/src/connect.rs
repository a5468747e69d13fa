//! Connecting: what is checked before anybody relies on the server, and the namespace's record.

use std::collections::HashMap;

use dlock_core::{ConfigError, Error, Namespace, StoreError};
use redis::Value;
use serde::{Deserialize, Serialize};

use crate::confirm::Confirm;
use crate::error::answered;
use crate::keys::{Layout, format_record};
use crate::link::{Lane, Link};
use crate::options::{Address, RedisOptions, Topology};
use crate::transport::Dialer;

/// The version of the key layout. Clients of different versions must not share a namespace.
const FORMAT: u32 = 2;

/// What all clients of a namespace agree on, as it is kept in the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    format: u32,
    partitions: u32,
}

/// A checked connection and the namespace's layout.
pub(crate) async fn connect(options: &RedisOptions) -> Result<(Link, Layout), Error> {
    options.check()?;
    let link = Link::new(options, Dialer::new(options)?);
    let within = link.dialer().timeout() * 2;
    let checked = async {
        for node in link.masters().await.map_err(store)? {
            check_server(&link, &node, options).await?;
        }
        agree(&link, options).await
    };
    let partitions = tokio::time::timeout(within, checked)
        .await
        .unwrap_or_else(|_| {
            Err(store(StoreError::unavailable(format!(
                "{}: no answer within {within:?}",
                options.nodes[0]
            ))))
        })?;
    let layout = Layout::new(options.namespace.clone(), partitions);
    Ok((link, layout))
}

fn store(source: StoreError) -> Error {
    Error::Store {
        backend: "redis",
        name: None,
        doing: "connect",
        source,
    }
}

async fn check_server(link: &Link, node: &Address, options: &RedisOptions) -> Result<(), Error> {
    let wire = link.wire(node, Lane::Prompt).await.map_err(store)?;
    let replies = wire
        .exchange(&[&redis::cmd("INFO")])
        .await
        .map_err(|fault| store(answered(fault)))?;
    let reply = replies.into_iter().next().unwrap_or(Value::Nil);
    let reply = reply
        .extract_error()
        .map_err(|fault| store(answered(fault)))?;
    let Value::BulkString(text) = reply else {
        let fault = format!("{node} does not answer INFO like a Redis");
        return Err(store(StoreError::refused(fault)));
    };
    let text = String::from_utf8_lossy(&text);
    let info = Info(
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .collect(),
    );
    info.check(node, options)
}

/// What the server says of itself.
struct Info<'a>(HashMap<&'a str, &'a str>);

impl Info<'_> {
    fn get(&self, field: &str) -> &str {
        self.0.get(field).copied().unwrap_or_default()
    }

    fn check(&self, node: &Address, options: &RedisOptions) -> Result<(), Error> {
        let refuse = |what: String, remedy: &str| {
            Err(Error::Config(ConfigError::new(
                format!("{node}"),
                what,
                remedy,
            )))
        };
        if !self.is_new_enough() {
            return refuse(
                format!("its version is {}", self.get("redis_version")),
                "dlock needs Redis 7.0 or Valkey 7.2, or newer",
            );
        }
        match (self.get("cluster_enabled") == "1", options.topology) {
            (true, Topology::Standalone) => {
                return refuse("it is a node of a cluster".into(), "set cluster=true");
            }
            (false, Topology::Cluster) => {
                let remedy = "leave out cluster=true, and name one host alone";
                return refuse("it is not a node of a cluster".into(), remedy);
            }
            _ => {}
        }
        if self.get("role") == "slave" {
            let (host, port) = (self.get("master_host"), self.get("master_port"));
            return refuse(
                format!("it is a read-only replica of {host}:{port}"),
                "connect to the master",
            );
        }
        let policy = self.get("maxmemory_policy");
        if self.get("maxmemory") != "0" && policy != "noeviction" {
            return refuse(
                format!("its maxmemory-policy {policy} may delete a lock that somebody holds"),
                "set maxmemory-policy to noeviction, or use a server of its own for locks",
            );
        }
        match options.confirm {
            Confirm::Disk { .. } if !self.is_at_least(7, 2) => refuse(
                "option waitaof: its version lacks WAITAOF".into(),
                "it needs Redis 7.2 or Valkey 7.2, or newer; or use wait=N",
            ),
            Confirm::Disk { local: 1, .. } if self.get("aof_enabled") != "1" => refuse(
                "option waitaof: its append-only file is off".into(),
                "set appendonly to yes, or use wait=N",
            ),
            _ => Ok(()),
        }
    }

    /// Valkey gives 7.2 as the version of Redis that it is compatible with, and its first one was that.
    fn is_new_enough(&self) -> bool {
        self.is_at_least(7, 0)
    }

    fn is_at_least(&self, major: u32, minor: u32) -> bool {
        let mut parts = self.get("redis_version").split('.').map(str::parse::<u32>);
        let mut part = || parts.next().and_then(Result::ok).unwrap_or(0);
        (part(), part()) >= (major, minor)
    }
}

/// How many partitions the namespace has: as its record says, which the first client makes.
async fn agree(link: &Link, options: &RedisOptions) -> Result<u32, Error> {
    let default = match options.topology {
        Topology::Standalone => 1,
        Topology::Cluster => 16,
    };
    let wanted = Record {
        format: FORMAT,
        partitions: options.partitions.unwrap_or(default),
    };
    let found = read_or_make(link, &options.namespace, wanted)
        .await
        .map_err(store)?;
    let namespace = &options.namespace;
    if found.format != FORMAT {
        return Err(Error::Config(ConfigError::new(
            format!("namespace {namespace}"),
            format!(
                "its data has format {}, and this version of dlock has {FORMAT}",
                found.format
            ),
            "use one version of dlock for all of its clients, or another namespace",
        )));
    }
    if options
        .partitions
        .is_some_and(|asked| asked != found.partitions)
    {
        return Err(Error::Config(ConfigError::new(
            "option partitions",
            format!(
                "the namespace {namespace} has {}, not {}",
                found.partitions, wanted.partitions
            ),
            "leave the option out, or use another namespace",
        )));
    }
    Ok(found.partitions)
}

async fn read_or_make(
    link: &Link,
    namespace: &Namespace,
    wanted: Record,
) -> Result<Record, StoreError> {
    let (key, slot) = format_record(namespace);
    let mut read = redis::cmd("GET");
    read.arg(&key);
    let mut found = link.command(slot, &read).await?;
    if found == Value::Nil {
        let text = serde_json::to_string(&wanted)
            .map_err(|fault| StoreError::refused("a record cannot be written").because(fault))?;
        let mut make = redis::cmd("SET");
        make.arg(&key).arg(text).arg("NX").arg("GET");
        // The first client's record stands: nil is the answer to whoever made it.
        found = link.command(slot, &make).await?;
    }
    match found {
        Value::Nil => Ok(wanted),
        Value::BulkString(text) => serde_json::from_slice(&text)
            .ok()
            .filter(|record: &Record| (1..=Layout::MAX_PARTITIONS).contains(&record.partitions))
            .ok_or_else(|| not_ours(&key)),
        _ => Err(not_ours(&key)),
    }
}

fn not_ours(key: &str) -> StoreError {
    StoreError::refused(format!(
        "the key {key} holds something that dlock did not write; choose another namespace"
    ))
}

/// Makes sure that the namespace still has this layout: its data may have been lost and made anew
/// by a client with other settings, and two layouts would grant one lock twice (ATOM-A).
pub(crate) async fn confirm_layout(link: &Link, layout: &Layout) -> Result<(), StoreError> {
    let wanted = Record {
        format: FORMAT,
        partitions: layout.count(),
    };
    let found = read_or_make(link, layout.namespace(), wanted).await?;
    if found == wanted {
        return Ok(());
    }
    Err(StoreError::refused(format!(
        "the namespace {} was made anew with {} partitions in format {}, not {} in {FORMAT}; \
         connect again",
        layout.namespace(),
        found.partitions,
        found.format,
        layout.count(),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(info: &str, options: &RedisOptions) -> Result<(), String> {
        let info = Info(
            info.lines()
                .filter_map(|line| line.split_once(':'))
                .collect(),
        );
        info.check(&options.nodes[0], options)
            .map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_server_that_cannot_keep_locks_is_refused() {
        let plain = RedisOptions::new("h", 1);
        let cluster = plain.clone().topology(Topology::Cluster);
        let second = std::time::Duration::from_secs(1);
        let disk = plain.clone().wait_aof(1, 0, second);
        let good = "redis_version:7.0.15\nmaxmemory:0\nmaxmemory_policy:allkeys-lru\n";
        assert_eq!(check(good, &plain), Ok(()));
        assert_eq!(
            check(
                "redis_version:8.0.1\nmaxmemory:5\nmaxmemory_policy:noeviction",
                &plain
            ),
            Ok(())
        );
        for (info, options, expected) in [
            (
                "redis_version:6.2.14",
                &plain,
                "6.2.14; dlock needs Redis 7.0 or Valkey 7.2",
            ),
            ("redis_version:x", &plain, "dlock needs"),
            (
                "redis_version:7.0.0\ncluster_enabled:1",
                &plain,
                "cluster=true",
            ),
            (good, &cluster, "leave out cluster=true"),
            (
                "redis_version:7.0.0\nrole:slave\nmaster_host:m\nmaster_port:6379",
                &plain,
                "replica of m:6379",
            ),
            (
                "redis_version:7.0.0\nmaxmemory:100\nmaxmemory_policy:allkeys-lru",
                &plain,
                "noeviction",
            ),
            (good, &disk, "Redis 7.2"),
            (
                "redis_version:7.2.0\naof_enabled:0\nmaxmemory:0",
                &disk,
                "appendonly",
            ),
        ] {
            let fault = check(info, options).unwrap_err();
            assert!(fault.contains(expected), "{info}: {fault}");
        }
    }
}
