//! Connections: to one member each, logged in, and known to serve.
//!
//! The client library can spread its requests over several members by itself. Not here: it would go
//! on sending some of them to a member that has frozen. A connection has one member, and
//! [`Link`](crate::link::Link) goes on to the next.

use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use dlock_core::url::Secret;
use dlock_core::{ConfigError, Patience, StoreError, Tls};
use etcd_client::{
    Certificate, Client, ConnectOptions, Identity, KvClient, LeaseClient, TlsOptions, WatchClient,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::error;
use crate::options::{Address, EtcdOptions};

/// An answer may list many thousand claims.
const LARGEST_ANSWER: usize = 256 << 20;

/// A task that ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Task(JoinHandle<()>);

impl Task {
    pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Makes connections.
pub(crate) struct Dialer {
    login: Option<(String, Secret)>,
    tls: Option<TlsOptions>,
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

impl Dialer {
    /// Reads the files that TLS needs.
    pub(crate) fn new(options: &EtcdOptions) -> Result<Self, ConfigError> {
        let login = options.user.clone().zip(options.password.clone());
        Ok(Self {
            login,
            tls: options.tls.as_ref().map(tls_options).transpose()?,
            timeout: options.connect_timeout,
        })
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A connection to a member that serves: it answers, votes, and knows a leader.
    pub(crate) async fn dial(&self, address: &Address) -> Result<Wire, StoreError> {
        let dialed = tokio::time::timeout(self.timeout, self.dial_at_leisure(address)).await;
        dialed.unwrap_or_else(|_| {
            let within = self.timeout;
            Err(StoreError::unavailable(format!(
                "cannot connect to {address}: no answer within {within:?}"
            )))
        })
    }

    async fn dial_at_leisure(&self, address: &Address) -> Result<Wire, StoreError> {
        let start = Instant::now();
        let encrypted = self.tls.is_some();
        let fault = |fault| error::dialing(address, encrypted, fault);
        let mut options = ConnectOptions::new()
            .with_connect_timeout(self.timeout)
            // A member without a leader says so, and the next one is asked; it also ends its watches.
            .with_require_leader(true)
            // A refused token means that nothing was done: asking again with a new one is no guess.
            .with_auto_token_refresh(true);
        if let Some((user, password)) = &self.login {
            options = options.with_user(user, password.reveal());
        }
        let scheme = if encrypted { "https" } else { "http" };
        if let Some(tls) = &self.tls {
            options = options.with_tls(tls.clone().domain_name(address.host.clone()));
        }
        let endpoint = format!("{scheme}://{address}");
        let connected = Client::connect([endpoint], Some(options)).await;
        let mut client = connected.map_err(fault)?;
        let version = match client.status().await {
            Ok(status) => {
                let not_serving =
                    |why: &str| Err(StoreError::unavailable(format!("{address} {why}")));
                if status.is_learner() {
                    return not_serving("is a learner, which serves no clients");
                }
                if status.leader() == 0 {
                    return not_serving("knows no leader");
                }
                Some(status.version().to_owned())
            }
            // Some versions tell this to administrators alone; what does not serve says so later.
            Err(refusal) if error::is_denied(&refusal) => None,
            Err(refusal) => return Err(fault(refusal)),
        };
        Ok(Wire {
            kv: client.kv_client().max_decoding_message_size(LARGEST_ANSWER),
            lease: client.lease_client(),
            watch: client.watch_client(),
            member: address.to_string(),
            version,
            suspect: watch::Sender::new(false),
            patience: Patience::new(start.elapsed(), self.timeout),
        })
    }
}

fn tls_options(tls: &Tls) -> Result<TlsOptions, ConfigError> {
    // Files that hold something else would be found out only as a failed handshake.
    let read = |option: &str, file: &std::path::Path, kind: &str| {
        let text = Tls::read(option, file)?;
        let is_there = String::from_utf8_lossy(&text).contains(kind);
        if is_there {
            return Ok(text);
        }
        Err(Tls::unreadable(
            option,
            file,
            format!("there is no {kind} in it"),
        ))
    };
    let mut options = TlsOptions::new();
    options = match tls.ca_file() {
        Some(file) => {
            options.ca_certificate(Certificate::from_pem(read("ca", file, "CERTIFICATE")?))
        }
        None => options.with_native_roots(),
    };
    if let Some((certificate, key)) = tls.identity_files() {
        let certificate = read("cert", certificate, "CERTIFICATE")?;
        let key = read("key", key, "PRIVATE KEY")?;
        options = options.identity(Identity::from_pem(certificate, key));
    }
    Ok(options)
}

/// A connection to one member.
pub(crate) struct Wire {
    pub(crate) kv: KvClient,
    pub(crate) lease: LeaseClient,
    pub(crate) watch: WatchClient,
    /// Its address.
    pub(crate) member: String,
    /// What the server says of itself, unless it keeps that from this user. Servers that do are newer than
    /// 3.5.27 and 3.6.8.
    pub(crate) version: Option<String>,
    /// Whether somebody waited in vain, or was told that the member cannot serve.
    suspect: watch::Sender<bool>,
    /// With a member that does not answer.
    pub(crate) patience: Patience,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("member", &self.member)
            .field("version", &self.version)
            .field("usable", &self.is_usable())
            .finish_non_exhaustive()
    }
}

impl Wire {
    pub(crate) fn is_usable(&self) -> bool {
        !*self.suspect.borrow()
    }

    /// Nobody shall use it for anything new.
    pub(crate) fn abandon(&self) {
        self.suspect.send_replace(true);
    }

    /// Returns when it was abandoned.
    pub(crate) async fn abandoned(&self) {
        let mut suspect = self.suspect.subscribe();
        // It cannot fail while the sender is borrowed.
        let _ = suspect.wait_for(|suspect| *suspect).await;
    }
}
