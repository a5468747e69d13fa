//! Redis and Valkey: servers in containers, and deployments at a URL.
//!
//! A container's port is bound to this machine alone. In front of each link stands a proxy of its
//! own.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use dlock_core::url::{Secret, StoreUrl};
use dlock_core::{Backend, ConfigError, async_trait};
use dlock_redis::{Redis, RedisOptions};
use testcontainers::core::{IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

use super::resp::command;
use crate::proxy::Proxy;
use crate::target::{Counts, Link, Meter, Need, Prices, Target};
use crate::{Context, Failure, Verdict, worker};

const PORT: u16 = 6379;

/// A Redis or Valkey server in a container, started when the first case needs it.
#[derive(Clone, Debug)]
pub struct RedisServer {
    name: String,
    image: &'static str,
    tag: String,
    scheme: &'static str,
    container: Arc<Mutex<Option<Container>>>,
    /// Where it listens, once it does.
    address: Arc<std::sync::OnceLock<String>>,
}

type Container = ContainerAsync<GenericImage>;

impl RedisServer {
    /// Redis of this version, such as `8.0`.
    #[must_use]
    pub fn redis(version: &str) -> Self {
        Self::new("redis", "redis", version, "redis")
    }

    /// Valkey.
    #[must_use]
    pub fn valkey() -> Self {
        Self::new("valkey", "valkey/valkey", "9.1", "valkey")
    }

    fn new(name: &str, image: &'static str, tag: &str, scheme: &'static str) -> Self {
        Self {
            name: format!("{name}-{tag}"),
            image,
            tag: tag.to_owned(),
            scheme,
            container: Arc::default(),
            address: Arc::default(),
        }
    }

    /// Where it listens. Starts it if it is not running.
    async fn address(&self) -> Verdict<String> {
        let mut container = self.container.lock().await;
        if let Some(address) = self.address.get() {
            return Ok(address.clone());
        }
        let (image, tag) = (self.image, self.tag.clone());
        let started = in_background(start(image, tag)).await?;
        let (started, address) = started.because(format!("starting {}", self.name))?;
        *container = Some(started);
        Ok(self.address.get_or_init(|| address).clone())
    }

    fn running(&self) -> Verdict<&str> {
        let address = self.address.get().map(String::as_str);
        address.ok_or_else(|| Failure::new(format!("{} is not running", self.name)))
    }

    fn url(&self, address: &str) -> String {
        format!("{}://{address}", self.scheme)
    }
}

async fn start(
    image: &'static str,
    tag: String,
) -> Result<(Container, String), testcontainers::TestcontainersError> {
    let container = GenericImage::new(image, &tag)
        .with_wait_for(WaitFor::message_on_stdout("Ready to accept connections"))
        .with_mapped_port(0, PORT.tcp())
        // No snapshots: they would set the counter of changes back.
        .with_cmd(["--save", "", "--maxclients", "20000"])
        .with_startup_timeout(Duration::from_secs(60))
        .with_host_config_modifier(|host| {
            let bindings = host
                .port_bindings
                .iter_mut()
                .flat_map(|map| map.values_mut());
            for binding in bindings.flatten().flatten() {
                binding.host_ip = Some("127.0.0.1".to_owned());
            }
        })
        .start()
        .await?;
    let port = container.get_host_port_ipv4(PORT.tcp()).await?;
    let host = container.get_host().await?;
    Ok((container, format!("{host}:{port}")))
}

/// Cases come and go with their runtimes; what belongs to a container stays in this one.
async fn in_background<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Verdict<T> {
    static RUNTIME: std::sync::OnceLock<Option<Runtime>> = std::sync::OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().ok()
    });
    let runtime = runtime.as_ref().ok_or_else(|| Failure::new("no runtime"))?;
    runtime.spawn(work).await.because("work on a container")
}

/// Connects to the server at this URL.
pub(super) async fn connect(url: &str) -> Verdict<Arc<dyn Backend>> {
    let mut url = StoreUrl::parse(url)?;
    let options = RedisOptions::from_url(&mut url)?;
    url.finish()?;
    Ok(Arc::new(Redis::connect(options).await?))
}

/// A link to the server at `address` through a proxy of its own.
async fn proxied(address: &str, url: impl FnOnce(&str) -> String) -> Verdict<Link> {
    let proxy = Proxy::start(address.to_owned()).await?;
    let backend = connect(&url(&proxy.address().to_string())).await?;
    Ok(Link {
        backend,
        path: Some(Arc::new(proxy)),
    })
}

/// This program, as a worker. The URL may hold a password, and arguments are for everybody to see.
fn worker_at(url: &str) -> Verdict<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(worker::ARGUMENT).env(worker::URL, url);
    Ok(command)
}

#[async_trait]
impl Target for RedisServer {
    fn name(&self) -> &str {
        &self.name
    }

    async fn link(&self) -> Verdict<Link> {
        let address = self.address().await?;
        proxied(&address, |proxy| self.url(proxy)).await
    }

    fn lacks(&self, need: Need) -> Option<String> {
        match need {
            Need::Processes if cfg!(not(unix)) => Some("there are no signals here".into()),
            Need::Processes | Need::Wipe | Need::Meter | Need::Steps | Need::Unconfirmable => None,
        }
    }

    fn worker(&self) -> Verdict<Command> {
        worker_at(&self.url(self.running()?))
    }

    async fn wipe(&self) -> Verdict {
        command(&self.address().await?, "FLUSHALL").await?;
        Ok(())
    }

    fn meter(&self) -> Verdict<Arc<dyn Meter>> {
        Ok(Arc::new(self.clone()))
    }

    async fn unconfirmable(&self) -> Verdict<Link> {
        let address = self.address().await?;
        let url = |proxy: &str| format!("{}?wait=1&wait_timeout=100ms", self.url(proxy));
        proxied(&address, url).await
    }

    async fn stop(&self) -> Verdict {
        let Some(container) = self.container.lock().await.take() else {
            return Ok(());
        };
        let stopped = in_background(container.rm()).await?;
        stopped.because(format!("stopping {}", self.name))
    }
}

#[async_trait]
impl Meter for RedisServer {
    /// From `INFO commandstats`: what scripts call is counted there too, by its own name.
    async fn read(&self) -> Verdict<Counts> {
        const SCRIPTS: [&str; 6] = [
            "eval",
            "evalsha",
            "eval_ro",
            "evalsha_ro",
            "fcall",
            "fcall_ro",
        ];
        let address = self.address().await?;
        let mut counts = Counts {
            changes: Some(0),
            steps: Some(0),
            ..Counts::default()
        };
        for line in command(&address, "INFO commandstats").await?.lines() {
            let Some((name, stats)) = line
                .strip_prefix("cmdstat_")
                .and_then(|line| line.split_once(':'))
            else {
                continue;
            };
            let calls = stats
                .strip_prefix("calls=")
                .and_then(|rest| rest.split(',').next());
            let calls: u64 = calls.unwrap_or_default().parse().because(line)?;
            match name {
                "info" => {}
                "publish" | "spublish" => counts.pushes += calls,
                name if SCRIPTS.contains(&name) => counts.requests += calls,
                _ => counts.steps = counts.steps.map(|steps| steps + calls),
            }
        }
        for line in command(&address, "INFO persistence").await?.lines() {
            if let Some(changes) = line.strip_prefix("rdb_changes_since_last_save:") {
                counts.changes = Some(changes.trim().parse().because(line)?);
            }
        }
        Ok(counts)
    }

    fn prices(&self) -> Prices {
        Prices {
            acquire: 1,
            enqueue: 1,
            take_over: 0,
            release: 1,
            refused_try: 1,
            heartbeat: 1,
        }
    }
}

/// A deployment at a URL, which other people use too: nothing of it is broken.
#[derive(Clone, Debug)]
pub struct Deployment {
    url: Secret,
    /// The part of the URL that says where it is, when that is one host without TLS.
    address: Option<String>,
}

impl Deployment {
    /// The deployment at this URL.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when the URL cannot be.
    pub fn new(url: &str) -> Result<Self, ConfigError> {
        let mut parsed = StoreUrl::parse(url)?;
        let _ = RedisOptions::from_url(&mut parsed)?;
        let one_host = parsed.hosts().len() == 1;
        let plain =
            matches!(parsed.scheme(), "redis" | "valkey") && parsed.take("cluster").is_none();
        parsed.finish()?;
        Ok(Self {
            address: (plain && one_host).then(|| hosts_of(url).to_owned()),
            url: Secret::new(url),
        })
    }
}

/// The part of a store URL between the user and the path.
fn hosts_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split_once('?').map_or(rest, |(rest, _)| rest);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    rest.split_once('/').map_or(rest, |(hosts, _)| hosts)
}

#[async_trait]
impl Target for Deployment {
    fn name(&self) -> &str {
        "url"
    }

    async fn link(&self) -> Verdict<Link> {
        let Some(hosts) = &self.address else {
            let backend = connect(self.url.reveal()).await?;
            return Ok(Link {
                backend,
                path: None,
            });
        };
        let has_port = !hosts.ends_with(']') && hosts.contains(':');
        let address = if has_port {
            hosts.clone()
        } else {
            format!("{hosts}:{PORT}")
        };
        // The last one: a password may hold the same text.
        let url = self.url.reveal();
        let place = url.rfind(hosts).unwrap_or_default();
        let (before, after) = (&url[..place], &url[place + hosts.len()..]);
        proxied(&address, |proxy| format!("{before}{proxy}{after}")).await
    }

    fn lacks(&self, need: Need) -> Option<String> {
        let reason = match need {
            Need::Processes if cfg!(unix) => return None,
            Need::Processes => "there are no signals here",
            Need::Wipe => "it would lose the data of a deployment that is in use",
            Need::Meter | Need::Steps => "a deployment's counters count what others do, too",
            Need::Unconfirmable => "how many replicas it has is not known",
        };
        Some(reason.to_owned())
    }

    fn worker(&self) -> Verdict<Command> {
        worker_at(self.url.reveal())
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
        assert!(Deployment::new("redis://h?tll=1").is_err());
        assert_eq!(Deployment::new("rediss://h").unwrap().address, None);
        let deployment = Deployment::new("redis://:hunter2@h").unwrap();
        assert!(!format!("{deployment:?}").contains("hunter2"));
    }
}
