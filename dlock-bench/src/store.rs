//! Which store is measured, and where it is.

use std::fmt;

use clap::ValueEnum;
use dlock::url::StoreUrl;
use serde::{Deserialize, Serialize};

use crate::fault::{Context, Fault, Verdict};

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Store {
    /// Redis 8.
    Redis,
    /// Valkey 9.
    Valkey,
    /// etcd.
    Etcd,
    /// NATS JetStream.
    Jetstream,
    /// This process's memory.
    Memory,
}

impl Store {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Valkey => "valkey",
            Self::Etcd => "etcd",
            Self::Jetstream => "jetstream",
            Self::Memory => "memory",
        }
    }

    pub(crate) const fn is_redis(self) -> bool {
        matches!(self, Self::Redis | Self::Valkey)
    }

    pub(crate) const fn has_network(self) -> bool {
        !matches!(self, Self::Memory)
    }

    const fn scheme(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Valkey => "valkey",
            Self::Etcd => "etcd",
            Self::Jetstream => "nats",
            Self::Memory => "memory",
        }
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Redis | Self::Valkey => 6379,
            Self::Etcd => 2379,
            Self::Jetstream => 4222,
            Self::Memory => 0,
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a store is. Everybody who is measured connects by it, each in its own way.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) store: Store,
    /// For dlock.
    pub(crate) url: String,
    /// `host:port`, for everybody else.
    pub(crate) address: String,
    pub(crate) login: Option<(String, String)>,
    /// Where the server tells of itself over HTTP, if it does elsewhere than at `address`.
    pub(crate) monitor: Option<String>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the URL: it may hold a password.
        write!(f, "{} at {}", self.store, self.address)
    }
}

impl Place {
    /// A server of this machine.
    pub(crate) fn local(store: Store, port: u16, monitor: Option<u16>) -> Self {
        let address = format!("127.0.0.1:{port}");
        Self {
            store,
            url: format!("{}://{address}", store.scheme()),
            address,
            login: None,
            monitor: monitor.map(|port| format!("127.0.0.1:{port}")),
        }
    }

    /// This process's memory.
    pub(crate) fn memory() -> Self {
        Self {
            store: Store::Memory,
            url: "memory://bench".to_owned(),
            address: "this process".to_owned(),
            login: None,
            monitor: None,
        }
    }

    /// A running deployment.
    pub(crate) fn at_url(store: Store, url: &str, monitor: Option<String>) -> Verdict<Self> {
        let parsed = StoreUrl::parse(url).doing("--url")?;
        if parsed.scheme() != store.scheme() {
            let (scheme, wanted) = (parsed.scheme(), store.scheme());
            return Err(Fault::new(format!(
                "--url: {scheme}:// is no {store}; it is {wanted}://host:port (without TLS)"
            )));
        }
        let [host] = parsed.hosts() else {
            return Err(Fault::new(
                "--url: give one host, such as redis://host:port",
            ));
        };
        let port = host.port.unwrap_or(store.default_port());
        let login = parsed.password().map(|password| {
            let user = parsed.user().unwrap_or_default().to_owned();
            (user, password.reveal().to_owned())
        });
        Ok(Self {
            store,
            url: url.to_owned(),
            address: format!("{}:{port}", host.name),
            login,
            monitor,
        })
    }

    /// dlock's URL with one more option.
    pub(crate) fn url_with(&self, option: &str) -> String {
        let joint = if self.url.contains('?') { '&' } else { '?' };
        format!("{}{joint}{option}", self.url)
    }

    /// Where the server's counters are read over HTTP.
    pub(crate) fn counters_at(&self) -> &str {
        self.monitor.as_deref().unwrap_or(&self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_must_be_one_of_the_store() {
        let place = Place::at_url(Store::Redis, "redis://u:secret@h:7000/1?ttl=5s", None).unwrap();
        assert_eq!(place.address, "h:7000");
        assert!(!format!("{place:?}").contains("secret"));
        assert_eq!(
            place.url_with("x=1"),
            "redis://u:secret@h:7000/1?ttl=5s&x=1"
        );
        let at = |store, url| Place::at_url(store, url, None).map_err(|fault| fault.to_string());
        assert_eq!(at(Store::Etcd, "etcd://h").unwrap().address, "h:2379");
        assert!(
            at(Store::Etcd, "redis://h")
                .unwrap_err()
                .contains("is no etcd")
        );
        assert!(
            at(Store::Redis, "redis://a,b")
                .unwrap_err()
                .contains("one host")
        );
    }
}
