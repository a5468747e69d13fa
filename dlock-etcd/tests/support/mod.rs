//! Servers in containers, and sessions on them, for this crate's tests.

// Each test file uses a part of it, and helpers count as no test.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod proxy;

use std::time::{Duration, Instant};

use dlock_core::url::StoreUrl;
use dlock_core::{
    Attempts, Backend, Claim, ClaimId, Error, Inbox, LockName, LockSnapshot, Mailbox, Mode, Opened,
    Outcome, Owner, Push, Session, SessionId, SessionTerms, Wait,
};
use dlock_etcd::{Etcd, EtcdOptions};
use testcontainers::core::wait::LogWaitStrategy;
use testcontainers::core::{CmdWaitFor, ExecCommand, IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Long enough for a loaded machine, short enough to notice that something never comes.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
pub(crate) const LONG: Duration = Duration::from_secs(600);

const IMAGE: (&str, &str) = ("quay.io/coreos/etcd", "v3.5.30");
const PORT: u16 = 2379;
/// Where a restored server listens, beside the first one.
const RESTORED: u16 = 2389;
const BACKUP: &str = "--data-dir=/backup";
/// As which member of which cluster a server counts that is told nothing about that.
const IDENTITY: [&str; 3] = [
    "--name=default",
    "--initial-cluster=default=http://localhost:2380",
    "--initial-advertise-peer-urls=http://localhost:2380",
];

/// A server in a container, which goes with this value.
pub(crate) struct Server {
    pub(crate) port: u16,
    container: ContainerAsync<GenericImage>,
}

impl Server {
    /// One whose smallest lease is 1 s.
    pub(crate) async fn start() -> Self {
        Self::start_with("http", &[], &[]).await
    }

    /// The same, with these settings and files too.
    pub(crate) async fn start_with(
        scheme: &str,
        settings: &[&str],
        files: &[(&str, &String)],
    ) -> Self {
        let (listen, advertise) = (
            format!("--listen-client-urls={scheme}://0.0.0.0:{PORT}"),
            format!("--advertise-client-urls={scheme}://127.0.0.1:{PORT}"),
        );
        let mut command = vec![
            "etcd",
            &listen,
            &advertise,
            "--heartbeat-interval=100",
            "--election-timeout=500",
            // For the processes that set it up; its data dies with it.
            "--unsafe-no-fsync",
            "--logger=zap",
        ];
        command.extend_from_slice(settings);
        let ready = LogWaitStrategy::stderr("ready to serve client requests");
        let mut request = GenericImage::new(IMAGE.0, IMAGE.1)
            .with_wait_for(WaitFor::log(ready))
            .with_mapped_port(0, PORT.tcp())
            .with_mapped_port(0, RESTORED.tcp())
            .with_cmd(command)
            .with_host_config_modifier(|host| {
                let bindings = (host.port_bindings.iter_mut()).flat_map(|map| map.values_mut());
                for binding in bindings.flatten().flatten() {
                    binding.host_ip = Some("127.0.0.1".to_owned());
                }
            });
        for (path, text) in files {
            request = request.with_copy_to(*path, text.as_bytes().to_vec());
        }
        let container = request.start().await.unwrap();
        let port = container.get_host_port_ipv4(PORT).await.unwrap();
        Self { port, container }
    }

    /// Makes a backup, in the container.
    pub(crate) async fn back_up(&self) {
        // The server writes its database at intervals of 100 ms.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let database = "default.etcd/member/snap/db";
        let mut command = vec!["etcdutl", "snapshot", "restore", database];
        command.extend_from_slice(&["--skip-hash-check", BACKUP]);
        command.extend_from_slice(&IDENTITY);
        self.run(&command).await;
    }

    /// Starts a server on the backup, beside the first one and as the same member of the same cluster,
    /// and returns its port.
    pub(crate) async fn restore(&self) -> u16 {
        let listen = format!("--listen-client-urls=http://0.0.0.0:{RESTORED}");
        let advertise = format!("--advertise-client-urls=http://127.0.0.1:{RESTORED}");
        let mut command = vec!["etcd", BACKUP, &listen, &advertise, "--logger=zap"];
        command.push("--listen-peer-urls=http://localhost:2390");
        command.extend_from_slice(&IDENTITY);
        let ready = CmdWaitFor::message_on_stderr("ready to serve client requests");
        let command = ExecCommand::new(command).with_cmd_ready_condition(ready);
        self.container.exec(command).await.unwrap();
        self.container.get_host_port_ipv4(RESTORED).await.unwrap()
    }

    async fn run(&self, command: &[&str]) {
        let command = ExecCommand::new(command.to_vec());
        let done = command.with_cmd_ready_condition(CmdWaitFor::exit_code(0));
        self.container.exec(done).await.unwrap();
    }

    /// Connects by URL: `rest` stands behind the port.
    pub(crate) async fn connect(&self, rest: &str) -> Result<Etcd, Error> {
        connect(&format!("etcd://127.0.0.1:{}{rest}", self.port)).await
    }

    pub(crate) async fn pause(&self) {
        self.container.pause().await.unwrap();
    }

    pub(crate) async fn unpause(&self) {
        self.container.unpause().await.unwrap();
    }

    /// The server's own counters, by plain HTTP.
    pub(crate) async fn metrics(&self) -> Metrics {
        let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", self.port))
            .await
            .unwrap();
        let request = "GET /metrics HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\n\r\n";
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut text = Vec::new();
        socket.read_to_end(&mut text).await.unwrap();
        Metrics(String::from_utf8_lossy(&text).into_owned())
    }

    /// A client for looking behind the scenes.
    pub(crate) async fn raw(&self) -> etcd_client::Client {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        etcd_client::Client::connect([endpoint], None)
            .await
            .unwrap()
    }
}

pub(crate) struct Metrics(String);

impl Metrics {
    /// The sum of this metric over all its labels that hold `with`.
    pub(crate) fn sum(&self, name: &str, with: &str) -> u64 {
        let values = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            let whole = labels.is_empty() || labels.starts_with('{');
            (whole && labels.contains(with)).then(|| value.parse::<f64>().unwrap())
        });
        values.sum::<f64>() as u64
    }

    pub(crate) fn watchers(&self) -> u64 {
        self.sum("etcd_debugging_mvcc_watcher_total", "")
    }

    /// Transactions and other requests that were answered.
    pub(crate) fn requests(&self) -> u64 {
        self.sum("grpc_server_handled_total", "grpc_type=\"unary\"")
    }
}

pub(crate) async fn connect(url: &str) -> Result<Etcd, Error> {
    let mut url = StoreUrl::parse(url)?;
    let options = EtcdOptions::from_url(&mut url)?;
    url.finish()?;
    Etcd::connect(options).await
}

/// A session, and how a test speaks to it.
pub(crate) struct Client {
    pub(crate) id: SessionId,
    pub(crate) opened: Opened,
    pub(crate) inbox: Inbox,
    claims: u64,
}

impl Client {
    pub(crate) async fn open(backend: &Etcd, ttl: Duration) -> Self {
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

/// A new claim on the lock "n", and what it was answered.
pub(crate) async fn asks(client: &mut Client, mode: Mode) -> (Claim, Outcome) {
    let claim = client.claim("n", mode);
    let outcome = client.session().request(&claim, Wait::InTurn).await;
    (claim, outcome.unwrap())
}

pub(crate) async fn withdraw(client: &Client, claim: &Claim) {
    let session = client.session();
    session.withdraw(claim, Attempts::Answered).await.unwrap();
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
