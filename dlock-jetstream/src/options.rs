//! What a user chooses: [`JetStreamOptions`], as a builder. Their URL is read in `options_url`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use dlock_core::url::Secret;
use dlock_core::{ConfigError, Namespace, Tls};

/// Where the servers are, and how they are used.
///
/// ```
/// use dlock_jetstream::JetStreamOptions;
/// use dlock_core::Namespace;
/// use dlock_core::url::StoreUrl;
///
/// let built = JetStreamOptions::new("localhost", 4222).namespace(Namespace::new("jobs")?).replicas(3);
/// let mut url = StoreUrl::parse("nats://localhost:4222/jobs?replicas=3")?;
/// let read = JetStreamOptions::from_url(&mut url)?;
/// url.finish()?; // refuses options that nobody knows
/// assert_eq!(built, read);
/// # Ok::<(), dlock_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct JetStreamOptions {
    pub(crate) servers: Vec<Address>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) token: Option<Secret>,
    pub(crate) credentials: Option<PathBuf>,
    pub(crate) nkey: Option<PathBuf>,
    pub(crate) tls: Option<Tls>,
    pub(crate) namespace: Namespace,
    pub(crate) replicas: Option<u32>,
    pub(crate) connect_timeout: Option<Duration>,
}

/// One server's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// A name or an address; an IPv6 address without its brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl JetStreamOptions {
    /// The port of NATS.
    pub const PORT: u16 = 4222;

    /// One server, without a login, the namespace `default`.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            servers: vec![Address {
                host: host.into(),
                port,
            }],
            user: None,
            password: None,
            token: None,
            credentials: None,
            nkey: None,
            tls: None,
            namespace: Namespace::default(),
            replicas: None,
            connect_timeout: None,
        }
    }

    /// Another server of the same cluster. Those that the servers themselves name are used too.
    pub fn server(mut self, host: impl Into<String>, port: u16) -> Self {
        self.servers.push(Address {
            host: host.into(),
            port,
        });
        self
    }

    /// The user, who logs in with a password.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// The user's password.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(Secret::new(password));
        self
    }

    /// Logs in with the servers' token.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Secret::new(token));
        self
    }

    /// Logs in with a credentials file: a user's JWT and the seed of its NKey. It is read when
    /// connecting.
    pub fn credentials_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.credentials = Some(file.into());
        self
    }

    /// Logs in with an NKey, whose seed is in this file. It is read when connecting.
    pub fn nkey_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.nkey = Some(file.into());
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

    /// How many servers keep the namespace's bucket: 1 to 5, odd numbers make sense. Without it, as
    /// many as the bucket has; a new bucket gets 1.
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = Some(replicas);
        self
    }

    /// How long making a connection may take. Unless another time is chosen it is 5 s; with several
    /// servers 2 s for each, or else one that is frozen would keep a client from the others for too long.
    pub fn connect_timeout(mut self, time: Duration) -> Self {
        self.connect_timeout = Some(time);
        self
    }

    pub(crate) fn connects_within(&self) -> Duration {
        self.connect_timeout.unwrap_or(match self.servers.len() {
            0 | 1 => Duration::from_secs(5),
            _ => Duration::from_secs(2),
        })
    }

    /// Refuses what cannot be, however it was set.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let fault =
            |what: &str, fault: &str, remedy: &str| Err(ConfigError::new(what, fault, remedy));
        match (&self.user, &self.password) {
            (Some(_), None) => {
                return fault(
                    "user",
                    "it has no password",
                    "give one, or leave out the user",
                );
            }
            (None, Some(_)) => {
                return fault(
                    "password",
                    "it has no user",
                    "write nats://user:password@host",
                );
            }
            _ => {}
        }
        let logins = [
            self.user.is_some(),
            self.token.is_some(),
            self.credentials.is_some(),
            self.nkey.is_some(),
        ];
        if logins.into_iter().filter(|given| *given).count() > 1 {
            let remedy = "choose one of user and password, token, creds and nkey";
            return fault("login", "there are several", remedy);
        }
        if let Some(replicas) = self.replicas
            && !(1..=5).contains(&replicas)
        {
            let what = format!("{replicas} is out of range");
            return fault("option replicas", &what, "it is a number from 1 to 5");
        }
        if self.connects_within().is_zero() {
            return fault("option connect_timeout", "it is zero", "choose a time");
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
