//! One server in a container: how it is reached, and how it is harmed.

use std::time::{Duration, Instant};

use dlock_core::async_trait;

use super::container::Server;
use super::deployment::{proxied, proxied_worker};
use super::open::backend_at;
use crate::target::{Harm, Link, Nodes, Worker};
use crate::{Failure, Verdict};

/// How long it may take to serve clients again.
const WHOLE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A server that has no others beside it.
#[derive(Clone, Debug)]
pub(super) struct OneServer {
    pub(super) server: Server,
    /// Inside of the container, for clients.
    pub(super) port: u16,
    pub(super) scheme: &'static str,
}

impl OneServer {
    /// Where clients reach it. Starts it if it is not running.
    pub(super) async fn address(&self) -> Verdict<String> {
        self.server.start().await?;
        self.server.address(self.port)
    }

    pub(super) fn url(&self, host: &str) -> String {
        format!("{}://{host}", self.scheme)
    }

    pub(super) async fn link(&self) -> Verdict<Link> {
        proxied(&[self.address().await?], |proxy| self.url(proxy)).await
    }

    pub(super) async fn worker(&self) -> Verdict<Worker> {
        proxied_worker(&[self.address().await?], |proxy| self.url(proxy)).await
    }
}

#[async_trait]
impl Nodes for OneServer {
    fn count(&self) -> usize {
        1
    }

    async fn leader(&self) -> Verdict<usize> {
        Ok(0)
    }

    async fn harm(&self, _: usize, harm: Harm) -> Verdict {
        match harm {
            Harm::Killed => self.server.kill().await,
            Harm::Frozen => self.server.freeze(true).await,
            Harm::CutOff => Err(Failure::new("one server has no others to be cut off from")),
        }
    }

    async fn heal(&self, _: usize, harm: Harm) -> Verdict {
        match harm {
            Harm::Killed => self.server.revive().await,
            Harm::Frozen => self.server.freeze(false).await,
            Harm::CutOff => Ok(()),
        }
    }

    async fn whole(&self) -> Verdict {
        let url = self.url(&self.server.address(self.port)?);
        let start = Instant::now();
        loop {
            match backend_at(&url).await {
                Ok(_) => return Ok(()),
                Err(failure) if start.elapsed() > WHOLE => return Err(failure),
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    fn election(&self) -> Duration {
        Duration::ZERO
    }
}
