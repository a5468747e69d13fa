//! Servers in containers, and sessions on them, for this crate's tests.

// Each test file uses a part of it, and helpers count as no test.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod cluster;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use async_nats::{HeaderMap, Subscriber};
use dlock_core::url::StoreUrl;
use dlock_core::{
    Backend, Claim, ClaimId, Error, Inbox, LockName, LockSnapshot, Mailbox, Mode, Opened, Outcome,
    Owner, Push, Session, SessionId, SessionTerms, StoreError,
};
use dlock_jetstream::{JetStream, JetStreamOptions};
use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};
use testcontainers::core::wait::LogWaitStrategy;
use testcontainers::core::{IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Long enough for a loaded machine, short enough to notice that something never comes.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
pub(crate) const LONG: Duration = Duration::from_secs(600);

const IMAGE: (&str, &str) = ("nats", "2.15");
const PORT: u16 = 4222;

/// A server in a container, which goes with this value.
pub(crate) struct Server {
    pub(crate) port: u16,
    container: ContainerAsync<GenericImage>,
    /// After the container: its end is watched, too.
    _watchdog: Watchdog,
}

/// Ends all tests, and says which one stood still, if it is not dropped in time: sessions without the core
/// around them have no limits of their own.
struct Watchdog {
    _alive: mpsc::Sender<()>,
}

impl Watchdog {
    const LIMIT: Duration = Duration::from_secs(300);

    /// To be called from the test's own thread, which has its name.
    fn start() -> Self {
        let test = std::thread::current().name().unwrap_or("?").to_owned();
        let (alive, ends) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            if ends.recv_timeout(Self::LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("{test} stands still: not done after {:?}", Self::LIMIT);
                std::process::abort();
            }
        });
        Self { _alive: alive }
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(&["-js", "-sd", "/data"], &[]).await
    }

    /// One with this configuration, and these files.
    pub(crate) async fn configured(config: &str, files: &[(&str, &String)]) -> Self {
        let config = config.to_owned();
        let mut all = vec![("/nats.conf", &config)];
        all.extend_from_slice(files);
        Self::start_with(&["-c", "/nats.conf"], &all).await
    }

    pub(crate) async fn start_with(options: &[&str], files: &[(&str, &String)]) -> Self {
        Self::run(request(options, files)).await
    }

    async fn run(request: ContainerRequest<GenericImage>) -> Self {
        let _watchdog = Watchdog::start();
        let container = request.start().await.unwrap();
        let port = container.get_host_port_ipv4(PORT).await.unwrap();
        Self {
            port,
            container,
            _watchdog,
        }
    }

    /// Connects by URL: `rest` stands behind the port.
    pub(crate) async fn connect(&self, rest: &str) -> Result<JetStream, Error> {
        self.connect_as("nats", "", rest).await
    }

    pub(crate) async fn connect_as(
        &self,
        scheme: &str,
        login: &str,
        rest: &str,
    ) -> Result<JetStream, Error> {
        connect(&format!("{scheme}://{login}127.0.0.1:{}{rest}", self.port)).await
    }

    /// A connection for looking behind the scenes, in the namespace `default`.
    pub(crate) async fn raw(&self) -> Raw {
        let address = format!("127.0.0.1:{}", self.port);
        Raw {
            client: async_nats::connect(address).await.unwrap(),
            bucket: "dlock-default".into(),
        }
    }
}

/// A server with these options and files, on a port of this machine alone.
fn request(options: &[&str], files: &[(&str, &String)]) -> ContainerRequest<GenericImage> {
    let ready = LogWaitStrategy::stderr("Server is ready");
    let mut request = GenericImage::new(IMAGE.0, IMAGE.1)
        .with_wait_for(WaitFor::log(ready))
        .with_mapped_port(0, PORT.tcp())
        .with_cmd(options.iter().copied())
        .with_host_config_modifier(|host| {
            let bindings = (host.port_bindings.iter_mut()).flat_map(|map| map.values_mut());
            for binding in bindings.flatten().flatten() {
                binding.host_ip = Some("127.0.0.1".to_owned());
            }
        });
    for (path, text) in files {
        request = request.with_copy_to(*path, text.as_bytes().to_vec());
    }
    request
}

pub(crate) async fn connect(url: &str) -> Result<JetStream, Error> {
    let mut url = StoreUrl::parse(url)?;
    let options = JetStreamOptions::from_url(&mut url)?;
    url.finish()?;
    JetStream::connect(options).await
}

/// A bare connection, and the bucket that it looks at.
pub(crate) struct Raw {
    pub(crate) client: async_nats::Client,
    pub(crate) bucket: String,
}

/// A message of the bucket.
pub(crate) struct Found {
    pub(crate) sequence: u64,
    pub(crate) headers: HeaderMap,
    pub(crate) value: Value,
}

impl Raw {
    pub(crate) fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.bucket)
    }

    /// The last message of a key.
    pub(crate) async fn get(&self, key: &str) -> Option<Found> {
        let subject = self.subject(key);
        let api = format!("$JS.API.DIRECT.GET.KV_{}.{subject}", self.bucket);
        let reply = self.client.request(api, "".into()).await.unwrap();
        if reply.status.is_some() {
            return None;
        }
        let headers = reply.headers.unwrap();
        let sequence = headers.get("Nats-Sequence").unwrap().as_str();
        Some(Found {
            sequence: sequence.parse().unwrap(),
            value: serde_json::from_slice(&reply.payload).unwrap(),
            headers,
        })
    }

    /// Writes a key, and returns the server's answer.
    pub(crate) async fn put(&self, key: &str, headers: &[(&str, &str)], value: Vec<u8>) -> Value {
        let mut map = HeaderMap::new();
        for (name, text) in headers {
            map.insert(*name, *text);
        }
        self.put_with(&self.subject(key), map, value).await
    }

    pub(crate) async fn put_with(
        &self,
        subject: &str,
        headers: HeaderMap,
        value: Vec<u8>,
    ) -> Value {
        let sent = self
            .client
            .request_with_headers(subject.to_owned(), headers, value.into());
        serde_json::from_slice(&sent.await.unwrap().payload).unwrap()
    }

    /// A request about the bucket's stream.
    pub(crate) async fn api(&self, what: &str, query: Value) -> Value {
        let subject = format!("$JS.API.{what}.KV_{}", self.bucket);
        let sent = self.client.request(subject, query.to_string().into());
        serde_json::from_slice(&sent.await.unwrap().payload).unwrap()
    }

    /// The same where nobody may answer: then it is nothing.
    pub(crate) async fn try_api(&self, what: &str, query: Value) -> Value {
        let subject = format!("$JS.API.{what}.KV_{}", self.bucket);
        let sent = self.client.request(subject, query.to_string().into());
        let answer = tokio::time::timeout(Duration::from_secs(1), sent).await;
        let payload = answer
            .ok()
            .and_then(Result::ok)
            .map(|answer| answer.payload);
        serde_json::from_slice(&payload.unwrap_or_default()).unwrap_or_default()
    }

    /// Deletes a session's key, as if its TTL had run out.
    pub(crate) async fn lapse(&self, session: SessionId) {
        let filter = self.subject(&format!("sessions.{session}"));
        let done = self.api("STREAM.PURGE", json!({ "filter": filter })).await;
        assert_eq!(done["success"], true, "{done}");
    }

    /// Everything that clients send from now on to write or to read.
    pub(crate) async fn listen(&self) -> Ear {
        let writes = self.client.subscribe(self.subject(">")).await.unwrap();
        let reads = self.client.subscribe("$JS.API.>").await.unwrap();
        self.client.flush().await.unwrap();
        Ear { writes, reads }
    }
}

/// Hears what clients send to the server.
pub(crate) struct Ear {
    pub(crate) writes: Subscriber,
    pub(crate) reads: Subscriber,
}

impl Ear {
    /// How many writes and reads were sent since it was last asked.
    pub(crate) async fn count(&mut self, raw: &Raw) -> (usize, usize) {
        // What was sent before is heard before the answer to this.
        raw.client.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut counts = (0, 0);
        while self.writes.next().now_or_never().flatten().is_some() {
            counts.0 += 1;
        }
        while self.reads.next().now_or_never().flatten().is_some() {
            counts.1 += 1;
        }
        counts
    }
}

/// A way to a server on which answers can be lost.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    deaf: Arc<AtomicBool>,
}

impl Proxy {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let deaf = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&deaf);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
                });
                let flag = Arc::clone(&flag);
                // A connection that has missed something stays silent.
                tokio::spawn(async move {
                    let mut bytes = vec![0; 65_536];
                    let mut missed = false;
                    while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
                        missed |= flag.load(Ordering::SeqCst);
                        if !missed && to_client.write_all(&bytes[..count]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { port: own, deaf }
    }

    pub(crate) fn lose_answers(&self, lose: bool) {
        self.deaf.store(lose, Ordering::SeqCst);
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
    pub(crate) async fn open(backend: &JetStream, ttl: Duration) -> Self {
        let opened = Self::open_as(SessionId::random(), backend, ttl).await;
        opened.unwrap()
    }

    pub(crate) async fn open_as(
        id: SessionId,
        backend: &JetStream,
        ttl: Duration,
    ) -> Result<Self, StoreError> {
        let (mailbox, inbox) = Mailbox::new();
        let terms = SessionTerms {
            id,
            ttl,
            owner: Owner::this_process(),
        };
        Ok(Self {
            id,
            opened: backend.open(&terms, mailbox).await?,
            inbox,
            claims: 0,
        })
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

    /// Looks at a waiting claim, when it should be looked at, until it is granted.
    pub(crate) async fn wait(&self, claim: &Claim, mut outcome: Outcome) -> u32 {
        let mut looks = 0;
        while let Outcome::Waiting { look_after } = outcome {
            tokio::time::sleep(look_after.unwrap()).await;
            looks += 1;
            outcome = self.session().status(claim).await.unwrap();
        }
        assert!(is_granted(outcome));
        looks
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
