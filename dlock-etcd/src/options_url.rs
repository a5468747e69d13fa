//! [`EtcdOptions`] as a URL.

use dlock_core::url::StoreUrl;
use dlock_core::{ConfigError, InvalidName, Namespace, Tls};

use crate::options::{Address, EtcdOptions};

impl EtcdOptions {
    /// Reads `etcd://user:password@host:port,host:port/namespace?option=value`. The schemes are `etcd`,
    /// and `etcds` with TLS; several hosts are members of one cluster.
    ///
    /// | option | what | see |
    /// | --- | --- | --- |
    /// | `namespace` | whose locks they are, if it is not the path | [`namespace`](Self::namespace) |
    /// | `connect_timeout` | a time | [`connect_timeout`](Self::connect_timeout) |
    /// | `ca`, `cert`, `key` | PEM files | [`Tls`] |
    ///
    /// Options that it does not know stay in `url`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when a part of the URL cannot be.
    pub fn from_url(url: &mut StoreUrl) -> Result<Self, ConfigError> {
        if !matches!(url.scheme(), "etcd" | "etcds") {
            return Err(ConfigError::new(
                "store URL: its scheme",
                format!("{}:// is no etcd", url.scheme()),
                "it is etcd, or etcds (with TLS)",
            ));
        }
        let mut endpoints = url.hosts().iter().map(|host| Address {
            host: host.name.clone(),
            port: host.port.unwrap_or(Self::PORT),
        });
        let Some(first) = endpoints.next() else {
            return Err(ConfigError::new(
                "store URL: its host",
                "there is none",
                "it reads etcd://host:port",
            ));
        };
        let mut options = Self::new(first.host, first.port);
        options.endpoints.extend(endpoints);
        options.user = url.user().map(str::to_owned);
        options.password = url.password().cloned();
        options.tls = Tls::from_url(url, "etcds")?;
        if let Some(namespace) = read_namespace(url)? {
            options.namespace = namespace;
        }
        if let Some(time) = url.take_duration("connect_timeout")? {
            options.connect_timeout = time;
        }
        options.check()?;
        Ok(options)
    }
}

/// The path or the option; both only if they say the same.
fn read_namespace(url: &mut StoreUrl) -> Result<Option<Namespace>, ConfigError> {
    let option = url.take_namespace()?;
    if url.path().is_empty() {
        return Ok(option);
    }
    let path: Namespace = url.path().parse().map_err(|fault: InvalidName| {
        let remedy = "it is a namespace, such as etcd://host/jobs";
        ConfigError::new("store URL: its path", fault.to_string(), remedy)
    })?;
    if let Some(other) = option.filter(|option| *option != path) {
        return Err(ConfigError::new(
            "option namespace",
            format!("it is {other}, and the path is {path}"),
            "give one of them",
        ));
    }
    Ok(Some(path))
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
