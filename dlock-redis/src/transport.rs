//! Connections: TCP or TLS, logged in, and ready for commands or for a subscription.
//!
//! TLS is set up here and not by the client library, for two reasons. That one takes rustls's
//! process-wide cryptography, and panics in a program that has none or several; here it is always
//! `ring`. And it reads the operating system's certificates for each connection, also where the
//! user named the one authority to trust, and fails when any of them cannot be read.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dlock_core::mutants::{Mutant, is_on};
use dlock_core::{ConfigError, Patience, StoreError, StoreErrorKind, Tls};
use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, RedisError, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use crate::error;
use crate::options::{Address, RedisOptions};

/// How many commands may wait in a connection's channel before their callers do.
const QUEUED: usize = 1024;

/// After how long the client library would give up an answer by itself.
const LIBRARY_TIMEOUT: Duration = Duration::from_millis(500);

/// A task that ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Task(JoinHandle<()>);

impl Task {
    pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Makes connections.
pub(crate) struct Dialer {
    login: RedisConnectionInfo,
    tls: Option<TlsConnector>,
    timeout: Duration,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the login: it holds the password.
        f.debug_struct("Dialer")
            .field("encrypted", &self.tls.is_some())
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Dialer {
    /// Reads the files that TLS needs.
    pub(crate) fn new(options: &RedisOptions) -> Result<Self, ConfigError> {
        let mut login = RedisConnectionInfo::default()
            .set_db(options.database.into())
            .set_lib_name("dlock", env!("CARGO_PKG_VERSION"));
        if let Some(user) = &options.user {
            login = login.set_username(user);
        }
        if let Some(password) = &options.password {
            login = login.set_password(password.reveal());
        }
        Ok(Self {
            login,
            tls: options.tls.as_ref().map(connector).transpose()?,
            timeout: options.connect_timeout,
        })
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A connection for commands.
    pub(crate) async fn wire(&self, address: &Address) -> Result<Wire, StoreError> {
        let config = AsyncConnectionConfig::new()
            // The core gives up an attempt by dropping it; the library's own 500 ms would make a
            // slow answer look like none.
            .set_response_timeout(is_on(Mutant::LibraryTimeout).then_some(LIBRARY_TIMEOUT))
            .set_pipeline_buffer_size(QUEUED);
        let work = async {
            let stream = self.stream(address).await?;
            MultiplexedConnection::new_with_config(&self.login, stream, config)
                .await
                .map_err(|fault| self.no_login(address, fault))
        };
        let start = Instant::now();
        let (connection, driver) = self.in_time(address, work).await?;
        Ok(Wire {
            connection,
            driver: Task::spawn(driver),
            broken: AtomicBool::new(false),
            patience: Patience::new(start.elapsed(), self.timeout),
        })
    }

    /// A connection that has subscribed to this channel.
    pub(crate) async fn subscribe(
        &self,
        address: &Address,
        channel: &str,
    ) -> Result<PubSub, StoreError> {
        let work = async {
            let stream = self.stream(address).await?;
            let login = async {
                let mut subscription = PubSub::new(&self.login, stream).await?;
                subscription.subscribe(channel).await?;
                Ok(subscription)
            };
            login.await.map_err(|fault| self.no_login(address, fault))
        };
        self.in_time(address, work).await
    }

    async fn in_time<T>(
        &self,
        address: &Address,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        tokio::time::timeout(self.timeout, work)
            .await
            .unwrap_or_else(|_| {
                // A server without TLS waits for the rest of what it takes for a command.
                let hint = match self.tls {
                    Some(_) => " (if it is no TLS port, leave out TLS: redis://)",
                    None => "",
                };
                Err(StoreError::unavailable(format!(
                    "cannot connect to {address}: no answer within {:?}{hint}",
                    self.timeout
                )))
            })
    }

    async fn stream(&self, address: &Address) -> Result<Box<dyn Stream>, StoreError> {
        let failed =
            |fault| StoreError::unavailable(format!("cannot connect to {address}: {fault}"));
        let tcp = TcpStream::connect((address.host.as_str(), address.port))
            .await
            .map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(tcp));
        };
        let name = ServerName::try_from(address.host.clone()).map_err(|fault| {
            StoreError::refused(format!("{address}: no name for a certificate: {fault}"))
        })?;
        match tls.connect(name, tcp).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(fault) => Err(tls_fault(address, &fault).unwrap_or_else(|| failed(fault))),
        }
    }

    fn no_login(&self, address: &Address, fault: RedisError) -> StoreError {
        let cause =
            std::error::Error::source(&fault).and_then(<dyn std::error::Error>::downcast_ref);
        // A server tells only after the handshake that it wants another certificate.
        if let Some(fault) = cause.and_then(|cause| tls_fault(address, cause)) {
            return fault;
        }
        let fault = error::dialing(address, fault);
        if self.tls.is_some() || fault.kind() != StoreErrorKind::Unavailable {
            return fault;
        }
        // A server that expects TLS closes a plain connection without a word.
        StoreError::unavailable(format!("{fault} (if it is a TLS port, use TLS: rediss://)"))
    }
}

/// What the other side says is no TLS, or not TLS that both can trust. It does not pass by itself.
fn tls_fault(address: &Address, fault: &std::io::Error) -> Option<StoreError> {
    let cause = fault.get_ref()?.downcast_ref::<rustls::Error>()?;
    let remedy = match cause {
        rustls::Error::AlertReceived(_) => {
            "the server does not trust this client; check cert=FILE and key=FILE"
        }
        _ => {
            "check that this is its TLS port, and that its certificate is for this name and from the \
             authority in ca=FILE"
        }
    };
    Some(StoreError::refused(format!(
        "no TLS connection to {address}: {cause}; {remedy}"
    )))
}

/// A connection for commands. Many may be on their way at once; they are answered in order.
#[derive(Debug)]
pub(crate) struct Wire {
    connection: MultiplexedConnection,
    /// Reads and writes. Dropping it closes the connection, whatever was still to be answered.
    driver: Task,
    broken: AtomicBool,
    patience: Patience,
}

impl Wire {
    /// Whether another command may be sent on it.
    pub(crate) fn is_usable(&self) -> bool {
        !self.broken.load(Ordering::Relaxed) && !self.driver.is_finished()
    }

    /// Makes it unusable for new commands. Those that are on their way may still be answered.
    pub(crate) fn abandon(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Sends commands together and returns their replies, errors of the server among them.
    ///
    /// The connection is abandoned when it fails; and when this future is dropped in a silence that has
    /// lasted for too long: then the way to the server may be stuck, and a withdraw must be able to
    /// overtake (CANCEL).
    pub(crate) async fn exchange(&self, commands: &[&Cmd]) -> Result<Vec<Value>, RedisError> {
        let mut connection = self.connection.clone();
        let exchange = async {
            // Mostly it is one, and needs no copy.
            if let [command] = commands {
                return Ok(vec![connection.send_packed_command(command).await?]);
            }
            let mut pipeline = redis::Pipeline::with_capacity(commands.len());
            for command in commands {
                pipeline.add_command((*command).clone());
            }
            connection
                .send_packed_commands(&pipeline, 0, commands.len())
                .await
        };
        let replies = self.patience.wait(exchange, || self.abandon()).await;
        if replies.is_err() {
            self.abandon();
        }
        replies
    }
}

fn connector(tls: &Tls) -> Result<TlsConnector, ConfigError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|fault| ConfigError::new("TLS", fault.to_string(), "this is a fault of dlock"))?
        .with_root_certificates(roots(tls.ca_file())?);
    let config = match tls.identity_files() {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates("cert", certificate)?;
            let secret = PrivateKeyDer::from_pem_file(key)
                .map_err(|fault| Tls::unreadable("key", key, fault))?;
            config
                .with_client_auth_cert(chain, secret)
                .map_err(|fault| {
                    let remedy = "the key must be the one of the certificate";
                    ConfigError::new("options cert and key", fault.to_string(), remedy)
                })?
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(file) => {
            for certificate in certificates("ca", file)? {
                roots
                    .add(certificate)
                    .map_err(|fault| Tls::unreadable("ca", file, fault))?;
            }
        }
        None => {
            // One that cannot be read does no harm as long as there are others.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(ConfigError::new(
            "TLS",
            "the operating system has no certificate authorities that can be read",
            "install them, or name the one to trust with ca=FILE",
        ));
    }
    Ok(roots)
}

fn certificates(what: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let read = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|fault| Tls::unreadable(what, file, fault))?;
    if read.is_empty() {
        return Err(Tls::unreadable(what, file, "it holds no certificate"));
    }
    Ok(read)
}
