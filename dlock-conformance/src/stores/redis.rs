//! Redis and Valkey, in containers.

use std::sync::Arc;

use dlock_core::async_trait;

use super::container::{Recipe, Server};
use super::deployment::proxied;
use super::one::OneServer;
use super::resp::command;
use crate::target::{Counts, Link, Meter, Need, Nodes, Prices, Target, Worker};
use crate::{Context, Verdict};

const PORT: u16 = 6379;

/// A Redis or Valkey server in a container, started when the first case needs it.
#[derive(Clone, Debug)]
pub struct RedisServer {
    name: String,
    one: OneServer,
}

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
        let name = format!("{name}-{tag}");
        // No snapshots: they would set the counter of changes back. A log of all writes instead, so that
        // a server that is killed and started again has lost nothing.
        let command = [
            "--save",
            "",
            "--appendonly",
            "yes",
            "--maxclients",
            "20000",
            "--enable-debug-command",
            "yes",
        ];
        let server = Server::new(Recipe {
            name: name.clone(),
            image,
            tag: tag.to_owned(),
            command: command.map(str::to_owned).to_vec(),
            ready: "Ready to accept connections",
            ports: vec![PORT],
            file: None,
            network: None,
        });
        Self {
            name,
            one: OneServer {
                server,
                port: PORT,
                scheme,
            },
        }
    }
}

#[async_trait]
impl Target for RedisServer {
    fn name(&self) -> &str {
        &self.name
    }

    async fn link(&self) -> Verdict<Link> {
        self.one.link().await
    }

    fn lacks(&self, need: Need) -> Option<String> {
        match need {
            Need::Processes if cfg!(not(unix)) => Some("there are no signals here".into()),
            Need::Processes
            | Need::Wipe
            | Need::Rollback
            | Need::Meter
            | Need::Steps
            | Need::Unconfirmable
            | Need::Servers => None,
            Need::Nodes => Some("it is one server".into()),
        }
    }

    async fn worker(&self) -> Verdict<Worker> {
        self.one.worker().await
    }

    fn nodes(&self) -> Verdict<Arc<dyn Nodes>> {
        Ok(Arc::new(self.one.clone()))
    }

    async fn wipe(&self) -> Verdict {
        command(&self.one.address().await?, "FLUSHALL").await?;
        Ok(())
    }

    /// On disk, where [`fail_over`](Self::fail_over) finds it.
    async fn keep_copy(&self) -> Verdict {
        command(&self.one.address().await?, "SAVE").await?;
        Ok(())
    }

    async fn fail_over(&self) -> Verdict {
        command(&self.one.address().await?, "DEBUG RELOAD NOSAVE").await?;
        Ok(())
    }

    fn meter(&self) -> Verdict<Arc<dyn Meter>> {
        Ok(Arc::new(self.clone()))
    }

    async fn unconfirmable(&self) -> Verdict<Link> {
        let url = |proxy: &str| format!("{}?wait=1&wait_timeout=100ms", self.one.url(proxy));
        proxied(&[self.one.address().await?], url).await
    }

    async fn stop(&self) -> Verdict {
        self.one.server.stop().await
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
        let address = self.one.address().await?;
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
            first_acquire: 1,
            enqueue: 1,
            take_over: 0,
            take_over_in_a_queue: 0,
            release: 1,
            anew: 1,
            refused_try: 1,
            heartbeat: 1,
        }
    }
}
