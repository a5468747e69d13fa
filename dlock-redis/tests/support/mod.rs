//! Servers in containers, and sessions on them, for this crate's tests.

// Each test file uses a part of it, and helpers count as no test.
#![allow(dead_code, clippy::unwrap_used)]

use std::time::{Duration, Instant};

use dlock_core::url::StoreUrl;
use dlock_core::{
    Backend, Claim, ClaimId, Error, Inbox, LockName, LockSnapshot, Mailbox, Mode, Opened, Outcome,
    Owner, Push, Session, SessionId, SessionTerms,
};
use dlock_redis::{Redis, RedisOptions};
use futures_util::{FutureExt, StreamExt};
use testcontainers::core::wait::LogWaitStrategy;
use testcontainers::core::{ExecCommand, IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};

/// Long enough for a loaded machine, short enough to notice that something never comes.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// One server of each kind that is supported: the oldest Redis, a new one, and Valkey.
pub(crate) const IMAGES: [(&str, &str); 3] =
    [("redis", "8.0"), ("redis", "7.0"), ("valkey/valkey", "9.1")];

/// A server in a container, which goes with this value.
pub(crate) struct Server {
    pub(crate) port: u16,
    container: ContainerAsync<GenericImage>,
}

impl Server {
    /// A server whose memory alone is its store, started with these settings too.
    pub(crate) async fn start(image: (&str, &str), settings: &[&str]) -> Self {
        Self::start_with(image, settings, &[]).await
    }

    /// The same, with these files in it.
    pub(crate) async fn start_with(
        (image, tag): (&str, &str),
        settings: &[&str],
        files: &[(&str, &String)],
    ) -> Self {
        let mut command = vec!["--save", ""];
        command.extend_from_slice(settings);
        let ready = LogWaitStrategy::stdout("Ready to accept connections");
        let mut request = GenericImage::new(image, tag)
            .with_exposed_port(6379.tcp())
            .with_wait_for(WaitFor::log(ready))
            .with_cmd(command);
        for (path, text) in files {
            request = request.with_copy_to(*path, text.as_bytes().to_vec());
        }
        let container = request.start().await.unwrap();
        let port = container.get_host_port_ipv4(6379).await.unwrap();
        Self { port, container }
    }

    pub(crate) async fn redis() -> Self {
        Self::start(IMAGES[0], &[]).await
    }

    pub(crate) fn options(&self) -> RedisOptions {
        RedisOptions::new("127.0.0.1", self.port)
    }

    /// Connects by URL: `rest` stands behind the port.
    pub(crate) async fn connect(&self, rest: &str) -> Result<Redis, Error> {
        self.connect_as("redis", "", rest).await
    }

    pub(crate) async fn connect_as(
        &self,
        scheme: &str,
        login: &str,
        rest: &str,
    ) -> Result<Redis, Error> {
        connect(&format!("{scheme}://{login}127.0.0.1:{}{rest}", self.port)).await
    }

    /// Runs a program in the container, and waits for its end.
    pub(crate) async fn exec(&self, command: &[&str]) -> String {
        exec(&self.container, command).await
    }

    pub(crate) async fn pause(&self) {
        self.container.pause().await.unwrap();
    }

    pub(crate) async fn unpause(&self) {
        self.container.unpause().await.unwrap();
    }

    /// A connection for looking behind the scenes.
    pub(crate) async fn raw(&self) -> Raw {
        Raw::to(self.port).await
    }
}

/// A Redis Cluster of three nodes without replicas, in one container that has the host's network:
/// a cluster's nodes tell their own addresses.
pub(crate) struct Cluster {
    pub(crate) ports: [u16; 3],
    _container: ContainerAsync<GenericImage>,
}

impl Cluster {
    pub(crate) async fn start((image, tag): (&str, &str)) -> Self {
        let kind = image.rsplit('/').next().unwrap();
        let ports = free_ports::<6>();
        let [first, second, third, buses @ ..] = ports;
        let nodes: Vec<String> = [first, second, third]
            .iter()
            .zip(buses)
            .map(|(port, bus)| {
                format!(
                    "{kind}-server --port {port} --cluster-port {bus} --bind 127.0.0.1 --save '' \
                     --cluster-enabled yes --cluster-config-file {port}.conf &"
                )
            })
            .collect();
        let script = format!("cd /tmp; {} wait", nodes.join(" "));
        let ready = LogWaitStrategy::stdout("Ready to accept connections").with_times(3);
        let container = GenericImage::new(image, tag)
            .with_wait_for(WaitFor::log(ready))
            .with_network("host")
            .with_cmd(["sh", "-c", &script])
            .start()
            .await
            .unwrap();
        let create = format!(
            "{kind}-cli --cluster create 127.0.0.1:{first} 127.0.0.1:{second} 127.0.0.1:{third} \
             --cluster-yes"
        );
        exec(&container, &["sh", "-c", &create]).await;
        let ports = [first, second, third];
        for port in ports {
            let mut node = Raw::to(port).await;
            until("the cluster works", async || {
                let info: String = node.run(&["CLUSTER", "INFO"]).await;
                info.contains("cluster_state:ok")
            })
            .await;
        }
        messages_pass(&ports).await;
        Self {
            ports,
            _container: container,
        }
    }
}

/// Waits until what is published at any node reaches those who listen at any other: nodes ignore the
/// messages of nodes that they have not got to know yet, for a while after the cluster was made.
async fn messages_pass(ports: &[u16]) {
    for at in ports {
        let client = redis::Client::open(format!("redis://127.0.0.1:{at}/")).unwrap();
        let (mut sink, mut messages) = client.get_async_pubsub().await.unwrap().split();
        for from in ports {
            let channel = format!("from-{from}");
            sink.subscribe(&channel).await.unwrap();
            let mut node = Raw::to(*from).await;
            until("a message passes", async || {
                let _: i64 = node.run(&["PUBLISH", &channel, "hello"]).await;
                let wait = tokio::time::timeout(Duration::from_millis(50), messages.next());
                wait.await.is_ok()
            })
            .await;
            sink.unsubscribe(&channel).await.unwrap();
            while messages.next().now_or_never().flatten().is_some() {}
        }
    }
}

/// Ports that nobody listens on now.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let sockets = [(); N].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    sockets.map(|socket| socket.local_addr().unwrap().port())
}

async fn exec(container: &ContainerAsync<GenericImage>, command: &[&str]) -> String {
    let run = ExecCommand::new(command.iter().copied());
    let mut run = container.exec(run).await.unwrap();
    let out = String::from_utf8(run.stdout_to_vec().await.unwrap()).unwrap();
    let err = String::from_utf8(run.stderr_to_vec().await.unwrap()).unwrap();
    let code = run.exit_code().await.unwrap();
    assert_eq!(code, Some(0), "{command:?}: {out}{err}");
    out
}

pub(crate) async fn connect(url: &str) -> Result<Redis, Error> {
    let mut url = StoreUrl::parse(url)?;
    let options = RedisOptions::from_url(&mut url)?;
    url.finish()?;
    Redis::connect(options).await
}

/// A bare connection.
#[derive(Clone)]
pub(crate) struct Raw(redis::aio::MultiplexedConnection);

impl Raw {
    pub(crate) async fn to(port: u16) -> Self {
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
        Self(client.get_multiplexed_async_connection().await.unwrap())
    }

    /// Sends the words of a command, and reads the reply as `T`.
    pub(crate) async fn run<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> T {
        self.try_run(words).await.unwrap()
    }

    pub(crate) async fn try_run<T: redis::FromRedisValue>(
        &mut self,
        words: &[&str],
    ) -> redis::RedisResult<T> {
        let mut command = redis::Cmd::new();
        command.arg(words);
        command.query_async(&mut self.0).await
    }

    /// Makes the session's leases lapse, as if it had not renewed them.
    pub(crate) async fn lapse(&mut self, tag: &str, session: SessionId) {
        let (seconds, _): (i64, i64) = self.run(&["TIME"]).await;
        let lapsed = (seconds * 1000 - 1).to_string();
        let key = format!("dlock:{{{tag}}}:leases");
        let _: i64 = self
            .run(&["ZADD", &key, "XX", &lapsed, &session.to_string()])
            .await;
    }
}

/// A session, and how a test speaks to it.
pub(crate) struct Client {
    pub(crate) id: SessionId,
    pub(crate) opened: Opened,
    pub(crate) inbox: Inbox,
    claims: u64,
}

impl Client {
    pub(crate) async fn open(backend: &Redis, ttl: Duration) -> Self {
        let (mailbox, inbox) = Mailbox::new();
        let terms = SessionTerms {
            id: SessionId::random(),
            ttl,
            owner: Owner::this_process(),
        };
        Self {
            id: terms.id,
            opened: backend.open(&terms, mailbox).await.unwrap(),
            inbox,
            claims: 0,
        }
    }

    pub(crate) fn session(&self) -> &dyn Session {
        &*self.opened.session
    }

    /// A new claim, not sent to anybody.
    pub(crate) fn claim(&mut self, name: &str, mode: Mode) -> Claim {
        self.claims += 1;
        Claim {
            id: ClaimId {
                session: self.id,
                number: self.claims,
            },
            name: LockName::new(name).unwrap(),
            mode,
            owner: Owner::this_process().labelled("a label with \"quotes\" and\nlines"),
        }
    }

    /// The next push; fails when none comes.
    pub(crate) async fn push(&mut self) -> Push {
        tokio::time::timeout(LIMIT, self.inbox.next())
            .await
            .expect("a push comes")
            .expect("the mailbox lives")
    }
}

pub(crate) fn name(text: &str) -> LockName {
    LockName::new(text).unwrap()
}

pub(crate) fn is_granted(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Granted { .. })
}

pub(crate) fn is_waiting(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Waiting { .. })
}

/// The claims of a lock in the order of arrival of each kind: holders, waiters.
pub(crate) fn ids(snapshot: &LockSnapshot) -> (Vec<ClaimId>, Vec<ClaimId>) {
    let ids = |claims: &[dlock_core::ClaimSnapshot]| claims.iter().map(|claim| claim.id).collect();
    (ids(&snapshot.holders), ids(&snapshot.waiters))
}

/// Waits until the condition holds.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < LIMIT, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
