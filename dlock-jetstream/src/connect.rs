//! Connecting: the login, TLS, and what is checked before anybody relies on the servers.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::rustls::pki_types::pem::PemObject;
use async_nats::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use async_nats::rustls::{self, ClientConfig, RootCertStore};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr, ServerError};
use dlock_core::{ConfigError, Error, Patience, StoreError, Tls};
use tokio::sync::broadcast;

use crate::bucket::{self, Checked, store};
use crate::error::NO_JETSTREAM;
use crate::keys::Layout;
use crate::link::Link;
use crate::options::JetStreamOptions;
use crate::server_time::ServerTime;

/// How often a silent connection is asked for a sign of life. Two unanswered ones end it.
const PING: Duration = Duration::from_secs(2);
/// How many attempts the client library makes to replace a broken connection.
const ATTEMPTS: usize = 4;
/// The longest pause between two attempts to connect again.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// How long connecting waits for servers that elect a leader: they take 9 s at most.
const ELECTION: Duration = Duration::from_secs(10);
/// The first version of the server whose messages can have TTLs.
const OLDEST: (u32, u32) = (2, 11);

/// A checked connection and bucket.
pub(crate) async fn connect(
    options: &JetStreamOptions,
    layout: &Layout,
    time: &ServerTime,
) -> Result<(Link, Checked), Error> {
    options.check()?;
    let within = options.connects_within() * 2 + ELECTION;
    let checked = async {
        let dialer = Dialer::new(options.clone());
        let first = dialer.dial().await?;
        let server = first.client.server_info();
        check_version(&addresses(options), &server.version)?;
        if !server.jetstream && server.cluster.is_none() {
            return Err(store(StoreError::refused(NO_JETSTREAM)));
        }
        let link = Link::new(dialer, first, layout.stream());
        let until = Instant::now() + ELECTION;
        let checked = bucket::ensure_until(until, &link, layout, options.replicas, time).await?;
        checked.warn(layout.bucket());
        Ok((link, checked))
    };
    let timed = tokio::time::timeout(within, checked).await;
    timed.unwrap_or_else(|_| {
        let fault = format!("{}: no answer within {within:?}", addresses(options));
        Err(store(StoreError::unavailable(fault)))
    })
}

/// Makes connections.
#[derive(Debug)]
pub(crate) struct Dialer {
    options: JetStreamOptions,
    /// What the server says of subjects that the user may not use.
    pub(crate) denials: broadcast::Sender<String>,
}

/// A connection, which the client library replaces by itself for a short while.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) client: Client,
    /// Set when it has given that up.
    pub(crate) ended: Arc<AtomicBool>,
    /// The last of its connections, by its number, that was given up.
    pub(crate) given_up: AtomicU64,
    /// Since when nobody answers on which connection.
    pub(crate) lonely: Mutex<Option<(Instant, u64)>>,
    /// How long to wait for answers on the last of its connections, by its number.
    patience: Mutex<(u64, Arc<Answers>)>,
    making: Arc<Mutex<Making>>,
    connects_within: Duration,
}

/// On one connection there are two who may be silent.
#[derive(Debug)]
pub(crate) struct Answers {
    pub(crate) of_anyone: Patience,
    /// The answers of a replica say nothing about it.
    pub(crate) of_leader: Patience,
}

/// How long the client library took to make its last connection.
#[derive(Debug)]
struct Making {
    /// When it began the last attempt. Those that failed before say nothing about the network.
    begun: Instant,
    /// Unless it is still at it, or has not said yet that it is done.
    took: Option<Duration>,
}

impl Making {
    fn begin(&mut self, pause: Duration) {
        self.begun = Instant::now() + pause;
        self.took = None;
    }

    fn took(&self) -> Duration {
        self.took.unwrap_or_else(|| self.begun.elapsed())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wire {
    /// How long to wait for answers on this connection, which is the one in use.
    pub(crate) fn patience(&self, connection: u64) -> Arc<Answers> {
        let mut last = locked(&self.patience);
        if last.0 != connection {
            let took = locked(&self.making).took();
            *last = (connection, Answers::on(took, self.connects_within));
        }
        Arc::clone(&last.1)
    }
}

impl Answers {
    fn on(took: Duration, at_most: Duration) -> Arc<Self> {
        Arc::new(Self {
            of_anyone: Patience::new(took, at_most),
            of_leader: Patience::new(took, at_most),
        })
    }
}

/// Owned by the client library's own task, and dropped when that ends.
struct Ended(Arc<AtomicBool>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Dialer {
    fn new(options: JetStreamOptions) -> Self {
        let (denials, _) = broadcast::channel(64);
        Self { options, denials }
    }

    /// Whether there may be another server to go to.
    pub(crate) fn has_choice(&self) -> bool {
        self.options.servers.len() > 1
    }

    pub(crate) async fn dial(&self) -> Result<Wire, Error> {
        let options = &self.options;
        let scheme = if options.tls.is_some() { "tls" } else { "nats" };
        let servers: Result<Vec<ServerAddr>, _> = (options.servers.iter())
            .map(|address| format!("{scheme}://{address}").parse())
            .collect();
        let servers = servers
            .map_err(|fault| ConfigError::new("host", fault.to_string(), "check its name"))?;
        let ended = Arc::new(AtomicBool::new(false));
        let making = Making {
            begun: Instant::now(),
            took: None,
        };
        let making = Arc::new(Mutex::new(making));
        let watched = (Ended(Arc::clone(&ended)), Arc::clone(&making));
        let client = client_options(options, self.denials.clone(), watched)?
            .connect(servers)
            .await
            .map_err(|fault| refused(options, &fault))?;
        let connects_within = options.connects_within();
        // No connection has this number.
        let patience = (0, Answers::on(Duration::ZERO, connects_within));
        Ok(Wire {
            client,
            ended,
            given_up: AtomicU64::new(0),
            lonely: Mutex::default(),
            patience: Mutex::new(patience),
            making,
            connects_within,
        })
    }
}

fn client_options(
    options: &JetStreamOptions,
    denials: broadcast::Sender<String>,
    (ended, making): (Ended, Arc<Mutex<Making>>),
) -> Result<ConnectOptions, Error> {
    // The library's task would go on for ever when nobody needs the connection any more. So it makes a
    // few attempts, and whoever needs one dials again.
    let attempts = ATTEMPTS.max(options.servers.len() + 1);
    let made = Arc::clone(&making);
    let mut client = ConnectOptions::new()
        .name("dlock")
        .connection_timeout(options.connects_within())
        .request_timeout(None)
        .ping_interval(PING)
        .max_reconnects(attempts)
        .reconnect_delay_callback(move |attempts| {
            let pause = pause_before(attempts);
            locked(&making).begin(pause);
            pause
        })
        .event_callback(move |event| {
            let _ = &ended;
            match event {
                Event::Connected => {
                    let mut made = locked(&made);
                    made.took = Some(made.begun.elapsed());
                }
                Event::ServerError(ServerError::Other(words))
                    if words.to_lowercase().contains("permissions violation") =>
                {
                    // Nobody waits for an answer just now.
                    let _ = denials.send(words);
                }
                _ => {}
            }
            async {}
        });
    if let (Some(user), Some(password)) = (&options.user, &options.password) {
        client = client.user_and_password(user.clone(), password.reveal().to_owned());
    }
    if let Some(token) = &options.token {
        client = client.token(token.reveal().to_owned());
    }
    if let Some(file) = &options.credentials {
        let text = read("creds", file)?;
        client = client
            .credentials(&text)
            .map_err(|_| unreadable("creds", file, "it holds no credentials of a user"))?;
    }
    if let Some(file) = &options.nkey {
        client = client.nkey(read("nkey", file)?.trim().to_owned());
    }
    if let Some(tls) = &options.tls {
        client = client.require_tls(true);
        Ok(client.tls_client_config(tls_config(tls)?))
    } else {
        // For a server that insists on TLS: it is trusted with nothing that nobody has asked for.
        Ok(client.tls_client_config(trusting(RootCertStore::empty())?.with_no_client_auth()))
    }
}

/// How long the client library waits before an attempt to connect again.
fn pause_before(attempts: usize) -> Duration {
    match attempts {
        0 | 1 => Duration::ZERO,
        more => {
            let doubled = Duration::from_millis(10) * (1 << more.min(10));
            let longest = doubled.min(LONGEST_PAUSE);
            longest.mul_f64(1.0 - fastrand::f64() / 2.0)
        }
    }
}

fn read(option: &str, file: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(file).map_err(|fault| unreadable(option, file, &fault.to_string()))
}

fn unreadable(option: &str, file: &Path, fault: &str) -> ConfigError {
    ConfigError::new(
        format!("option {option}"),
        format!("{}: {fault}", file.display()),
        "it is a file as nsc and nk write it, that this process may read",
    )
}

/// rustls with `ring`, whatever else the program has made the process's default.
fn trusting(
    roots: RootCertStore,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, ConfigError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|fault| ConfigError::new("TLS", fault.to_string(), "update the library"))?;
    Ok(builder.with_root_certificates(roots))
}

fn tls_config(tls: &Tls) -> Result<ClientConfig, ConfigError> {
    let mut roots = RootCertStore::empty();
    match tls.ca_file() {
        Some(file) => {
            for certificate in certificates("ca", file)? {
                roots
                    .add(certificate)
                    .map_err(|fault| Tls::unreadable("ca", file, fault))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let builder = trusting(roots)?;
    let Some((certificate, key_file)) = tls.identity_files() else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates("cert", certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&Tls::read("key", key_file)?)
        .map_err(|fault| Tls::unreadable("key", key_file, fault))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|fault| Tls::unreadable("cert", certificate, fault))
}

fn certificates(option: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let pem = Tls::read(option, file)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match read {
        Ok(read) if read.is_empty() => {
            Err(Tls::unreadable(option, file, "it holds no certificate"))
        }
        Ok(read) => Ok(read),
        Err(fault) => Err(Tls::unreadable(option, file, fault)),
    }
}

/// Why there is no connection, in words that say what to do.
fn refused(options: &JetStreamOptions, fault: &async_nats::ConnectError) -> Error {
    let addresses = addresses(options);
    let words = chain(fault);
    let lower = words.to_lowercase();
    let source = match fault.kind() {
        ConnectErrorKind::AuthorizationViolation => {
            let given = match options {
                JetStreamOptions { user: Some(_), .. } => "the user or the password; check both",
                JetStreamOptions { token: Some(_), .. } => "the token; check it",
                JetStreamOptions {
                    credentials: Some(_),
                    ..
                } => "the credentials; check creds",
                JetStreamOptions { nkey: Some(_), .. } => "the NKey; check nkey",
                _ => "a client without a login; give one (nats://user:password@host)",
            };
            StoreError::refused(format!("{addresses} refused {given}"))
        }
        ConnectErrorKind::Authentication => StoreError::refused(
            "the seed of the login cannot sign; check the file of creds or nkey",
        ),
        _ if lower.contains("certificate") && options.tls.is_none() => {
            StoreError::refused(format!(
                "{addresses} asks for TLS; write tls://, and ca=FILE if its authority is your own"
            ))
        }
        _ if lower.contains("certificate") => StoreError::refused(format!(
            "{addresses} has another certificate than was expected, or asks for one: {words}; \
             check ca, cert and key"
        )),
        _ if options.tls.is_some() && lower.contains("handshake") || lower.contains("corrupt") => {
            StoreError::refused(format!(
                "{addresses} does not speak TLS: {words}; write nats://, or enable TLS there"
            ))
        }
        _ => StoreError::unavailable(format!(
            "cannot connect to {addresses}: {words}; check the address, and that nats-server listens \
             there for clients"
        )),
    };
    store(source)
}

/// What went wrong, down to its first cause.
fn chain(fault: &dyn std::error::Error) -> String {
    let mut words = fault.to_string();
    let mut cause = fault.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = inner.source();
    }
    words
}

fn addresses(options: &JetStreamOptions) -> String {
    let all: Vec<String> = options.servers.iter().map(ToString::to_string).collect();
    all.join(", ")
}

fn check_version(address: &str, version: &str) -> Result<(), ConfigError> {
    let mut parts = version.split('.').map(str::parse::<u32>);
    let mut part = || parts.next().and_then(Result::ok).unwrap_or(0);
    if (part(), part()) >= OLDEST {
        return Ok(());
    }
    Err(ConfigError::new(
        address,
        format!("its version is {version}"),
        "dlock needs nats-server 2.11 or newer, whose messages can have TTLs",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HONEST: a server that cannot do it is told apart before anybody relies on it.
    #[test]
    fn an_old_server_is_refused() {
        for good in ["2.11.0", "2.15.1", "3.0.0", "2.12.0-RC.1"] {
            assert_eq!(check_version("n1", good), Ok(()), "{good}");
        }
        for old in ["2.10.29", "1.9.9", "x", ""] {
            let fault = check_version("n1", old).unwrap_err().to_string();
            assert!(fault.contains("2.11"), "{fault}");
        }
    }
}
