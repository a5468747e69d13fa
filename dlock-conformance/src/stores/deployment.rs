//! A deployment at a URL, which other people use too: nothing of it is broken.

use std::process::Command;
use std::sync::Arc;

use dlock_core::url::{Secret, StoreUrl};
use dlock_core::{ConfigError, async_trait};

use super::open::{backend_at, check, scheme_of};
use crate::proxy::Proxy;
use crate::target::{Link, Need, Path, Target, Worker};
use crate::{Verdict, worker};

/// A deployment at a URL, which other people use too: nothing of it is broken.
#[derive(Clone, Debug)]
pub struct Deployment {
    url: Secret,
    /// Where it is, when that is one host without TLS, which a proxy can stand in front of.
    host: Option<Host>,
}

/// The part of the URL that says where the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    /// As it is written in the URL.
    written: String,
    address: String,
}

impl Deployment {
    /// The deployment at this URL.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when the URL cannot be, or no backend that is compiled in knows its scheme.
    pub fn new(url: &str) -> Result<Self, ConfigError> {
        let parsed = check(url)?;
        let scheme = scheme_of(&parsed)?;
        let one_server = parsed.hosts().len() == 1 && !is_cluster(parsed);
        let host = (scheme.plain && one_server).then(|| {
            let written = hosts_of(url).to_owned();
            let has_port = !written.ends_with(']') && written.contains(':');
            let address = if has_port {
                written.clone()
            } else {
                format!("{written}:{}", scheme.port)
            };
            Host { written, address }
        });
        let url = Secret::new(url);
        Ok(Self { url, host })
    }

    /// The URL with a proxy in the place of the host.
    fn through(&self, host: &Host, proxy: &str) -> String {
        let url = self.url.reveal();
        // The last one: a password may hold the same text.
        let place = url.rfind(&host.written).unwrap_or_default();
        let (before, after) = (&url[..place], &url[place + host.written.len()..]);
        format!("{before}{proxy}{after}")
    }
}

/// Whether its nodes lead a client past a proxy.
fn is_cluster(mut url: StoreUrl) -> bool {
    url.take("cluster").is_some()
}

/// The part of a store URL between the user and the path.
fn hosts_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split_once('?').map_or(rest, |(rest, _)| rest);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    rest.split_once('/').map_or(rest, |(hosts, _)| hosts)
}

/// This program, as a worker. The URL may hold a password, and arguments are for everybody to see.
pub(super) fn worker_at(url: &str, path: Option<Arc<dyn Path>>) -> Verdict<Worker> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(worker::ARGUMENT).env(worker::URL, url);
    Ok(Worker { command, path })
}

/// A link to the servers at these addresses through a proxy for each. `url` makes the URL of the
/// hosts that it is given.
pub(super) async fn proxied(
    addresses: &[String],
    url: impl FnOnce(&str) -> String,
) -> Verdict<Link> {
    let (url, path) = path_to(addresses, url).await?;
    Ok(Link {
        backend: backend_at(&url).await?,
        path: Some(path),
    })
}

/// A worker behind a proxy for each of the servers at these addresses.
pub(super) async fn proxied_worker(
    addresses: &[String],
    url: impl FnOnce(&str) -> String,
) -> Verdict<Worker> {
    let (url, path) = path_to(addresses, url).await?;
    worker_at(&url, Some(path))
}

async fn path_to(
    addresses: &[String],
    url: impl FnOnce(&str) -> String,
) -> Verdict<(String, Arc<dyn Path>)> {
    let mut proxies = Vec::new();
    for address in addresses {
        proxies.push(Proxy::start(address.clone()).await?);
    }
    let hosts: Vec<String> = proxies
        .iter()
        .map(|proxy| proxy.address().to_string())
        .collect();
    Ok((url(&hosts.join(",")), Arc::new(proxies)))
}

#[async_trait]
impl Target for Deployment {
    fn name(&self) -> &str {
        "url"
    }

    async fn link(&self) -> Verdict<Link> {
        match &self.host {
            Some(host) => {
                let address = std::slice::from_ref(&host.address);
                proxied(address, |proxy| self.through(host, proxy)).await
            }
            None => Ok(Link {
                backend: backend_at(self.url.reveal()).await?,
                path: None,
            }),
        }
    }

    fn lacks(&self, need: Need) -> Option<String> {
        let reason = match need {
            Need::Processes if cfg!(unix) => return None,
            Need::Processes => "there are no signals here",
            Need::Wipe | Need::Rollback => "it would lose the data of a deployment that is in use",
            Need::Servers | Need::Nodes => "it would break a deployment that is in use",
            Need::Meter | Need::Steps => "a deployment's counters count what others do, too",
            Need::Unconfirmable => "how many replicas it has is not known",
        };
        Some(reason.to_owned())
    }

    async fn worker(&self) -> Verdict<Worker> {
        match &self.host {
            Some(host) => {
                let address = std::slice::from_ref(&host.address);
                proxied_worker(address, |proxy| self.through(host, proxy)).await
            }
            None => worker_at(self.url.reveal(), None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_in_a_url() {
        for (url, hosts) in [
            ("redis://h", "h"),
            ("redis://u:p@h:1/2?namespace=a", "h:1"),
            ("redis://:p/@[::1]:7", "[::1]:7"),
            ("redis://a,b:2/", "a,b:2"),
        ] {
            assert_eq!(hosts_of(url), hosts, "{url}");
        }
    }

    #[cfg(feature = "redis")]
    #[test]
    fn a_deployment_is_known_by_its_url() {
        assert!(Deployment::new("redis://h?tll=1").is_err());
        assert_eq!(Deployment::new("rediss://h").unwrap().host, None);
        assert_eq!(
            Deployment::new("redis://h?cluster=true").unwrap().host,
            None
        );
        let deployment = Deployment::new("redis://:hunter2@h").unwrap();
        let host = deployment.host.clone().unwrap();
        assert_eq!(host.address, "h:6379");
        assert!(!format!("{deployment:?}").contains("hunter2"));
        let error = Deployment::new("postgres://h").unwrap_err().to_string();
        assert!(error.contains("redis"), "{error}");
    }
}
