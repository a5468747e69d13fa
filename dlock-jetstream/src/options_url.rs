//! [`JetStreamOptions`] as a URL.

use std::path::PathBuf;

use dlock_core::url::{Secret, StoreUrl};
use dlock_core::{ConfigError, InvalidName, Namespace, Tls};

use crate::options::{Address, JetStreamOptions};

impl JetStreamOptions {
    /// Reads `nats://user:password@host:port,host:port/namespace?option=value`. The schemes are `nats`,
    /// and `tls` with TLS; several hosts are servers of one cluster. A user without a password is a
    /// token: `nats://token@host`.
    ///
    /// | option | what | see |
    /// | --- | --- | --- |
    /// | `namespace` | whose locks they are, if the path does not say it | [`namespace`](Self::namespace) |
    /// | `replicas` | a number from 1 to 5 | [`replicas`](Self::replicas) |
    /// | `creds` | a credentials file | [`credentials_file`](Self::credentials_file) |
    /// | `nkey` | a file with an NKey's seed | [`nkey_file`](Self::nkey_file) |
    /// | `connect_timeout` | a time | [`connect_timeout`](Self::connect_timeout) |
    /// | `ca`, `cert`, `key` | PEM files | [`Tls`] |
    ///
    /// Options that it does not know stay in `url`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when a part of the URL cannot be.
    pub fn from_url(url: &mut StoreUrl) -> Result<Self, ConfigError> {
        if !matches!(url.scheme(), "nats" | "tls") {
            return Err(ConfigError::new(
                "store URL: its scheme",
                format!("{}:// is no NATS", url.scheme()),
                "it is nats, or tls (with TLS)",
            ));
        }
        let mut servers = url.hosts().iter().map(|host| Address {
            host: host.name.clone(),
            port: host.port.unwrap_or(Self::PORT),
        });
        let Some(first) = servers.next() else {
            return Err(ConfigError::new(
                "store URL: its host",
                "there is none",
                "it reads nats://host:port",
            ));
        };
        let mut options = Self::new(first.host, first.port);
        options.servers.extend(servers);
        match (url.user(), url.password()) {
            (Some(token), None) => options.token = Some(Secret::new(token)),
            (user, password) => {
                options.user = user.map(str::to_owned);
                options.password = password.cloned();
            }
        }
        options.credentials = url.take("creds").map(PathBuf::from);
        options.nkey = url.take("nkey").map(PathBuf::from);
        options.tls = Tls::from_url(url, "tls")?;
        options.replicas = url.take_parsed("replicas", "a number from 1 to 5")?;
        if let Some(namespace) = read_namespace(url)? {
            options.namespace = namespace;
        }
        if let Some(time) = url.take_duration("connect_timeout")? {
            options.connect_timeout = Some(time);
        }
        options.check()?;
        Ok(options)
    }
}

fn read_namespace(url: &mut StoreUrl) -> Result<Option<Namespace>, ConfigError> {
    let option = url.take_namespace()?;
    let path = url.path();
    if path.is_empty() {
        return Ok(option);
    }
    let namespace: Namespace = path.parse().map_err(|fault: InvalidName| {
        let remedy = "choose one of these characters";
        ConfigError::new("store URL: its path", fault.to_string(), remedy)
    })?;
    if option.is_some_and(|option| option != namespace) {
        return Err(ConfigError::new(
            "option namespace",
            "the path names another one",
            "give one of the two",
        ));
    }
    Ok(Some(namespace))
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
