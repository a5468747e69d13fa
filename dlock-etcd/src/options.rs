//! What a user chooses: [`EtcdOptions`], as a builder. Their URL is read in `options_url`.

use std::fmt;
use std::time::Duration;

use dlock_core::url::Secret;
use dlock_core::{ConfigError, Namespace, Tls};

/// Where the cluster is, and how it is used.
///
/// ```
/// use dlock_core::Namespace;
/// use dlock_core::url::StoreUrl;
/// use dlock_etcd::EtcdOptions;
///
/// let built = EtcdOptions::new("localhost", 2379).namespace(Namespace::new("jobs")?);
/// let mut url = StoreUrl::parse("etcd://localhost:2379/jobs")?;
/// let read = EtcdOptions::from_url(&mut url)?;
/// url.finish()?; // refuses options that nobody knows
/// assert_eq!(built, read);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct EtcdOptions {
    pub(crate) endpoints: Vec<Address>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) tls: Option<Tls>,
    pub(crate) namespace: Namespace,
    pub(crate) connect_timeout: Duration,
}

/// One member's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// A name or an address; an IPv6 address without its brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl EtcdOptions {
    /// The port of etcd for its clients.
    pub const PORT: u16 = 2379;

    /// One member, without a password, the namespace `default`.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            endpoints: vec![Address {
                host: host.into(),
                port,
            }],
            user: None,
            password: None,
            tls: None,
            namespace: Namespace::default(),
            connect_timeout: Duration::from_secs(5),
        }
    }

    /// Another member of the same cluster. One of them is used at a time; when it fails, the next.
    pub fn endpoint(mut self, host: impl Into<String>, port: u16) -> Self {
        self.endpoints.push(Address {
            host: host.into(),
            port,
        });
        self
    }

    /// The user.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// The user's password.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(Secret::new(password));
        self
    }

    /// Encrypts the connections.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Whose locks they are.
    pub fn namespace(mut self, namespace: Namespace) -> Self {
        self.namespace = namespace;
        self
    }

    /// How long making a connection may take: 5 s unless another time is chosen.
    pub fn connect_timeout(mut self, time: Duration) -> Self {
        self.connect_timeout = time;
        self
    }

    /// Refuses what cannot be, however it was set.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let remedy = "give both, or neither";
        match (&self.user, &self.password) {
            (Some(_), None) => return Err(ConfigError::new("user", "it has no password", remedy)),
            (None, Some(_)) => return Err(ConfigError::new("password", "it has no user", remedy)),
            _ => {}
        }
        if self.connect_timeout.is_zero() {
            return Err(ConfigError::new(
                "option connect_timeout",
                "it is zero",
                "choose a time",
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
