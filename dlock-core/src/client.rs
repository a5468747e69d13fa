//! The client: what a program holds to take locks on one store.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::task::JoinSet;

use crate::coordinator::{LONGEST_KEPT, Rules};
use crate::request::Request;
use crate::session::Session;
use crate::sync::{Mutex, MutexGuard};
use crate::url::StoreUrl;
use crate::{
    Backend, Capabilities, Clock, ConfigError, Error, LockName, LockSnapshot, Mode, Moment, Owner,
    StoreError, SystemClock, Ttl, attempt,
};

/// Takes locks on one store. Clones are the same client.
///
/// A client keeps one lease with its store, however many locks it holds. When the last clone and the
/// last guard are gone, what is left is freed and the lease ended in the background;
/// [`close`](Client::close) does it and waits.
///
/// ```
/// use dlock_core::{Client, Mode, memory::MemoryStore};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let client = Client::builder(MemoryStore::new().link()).connect().await?;
/// let guard = client.lock("invoices").await?;
/// assert!(client.lock("invoices").mode(Mode::ProtectedRead).try_now().await?.is_none());
/// guard.release().await?;
/// # Ok::<(), dlock_core::Error>(()) }).unwrap();
/// ```
///
/// # Metrics and traces
///
/// With the feature `metrics`, through the facade of that name. None is labelled by lock name: names
/// are the user's data, and without bound.
///
/// | name | kind | labels |
/// | --- | --- | --- |
/// | `dlock_acquires_total` | counter | `backend`, `mode`, `outcome`: granted, taken, timeout, failed |
/// | `dlock_acquire_seconds` | histogram: from the call to its outcome | the same |
/// | `dlock_held_seconds` | histogram: from the grant to the release or drop | `backend`, `mode` |
/// | `dlock_renewals_total` | counter | `backend`, `outcome`: ok, failed |
/// | `dlock_sessions_lost_total` | counter | `backend`, `reason` |
///
/// Spans, at level debug: `acquire`, `release` and `renew`, and for each exchange with the store
/// `request`, `look` and `withdraw`, with the fields `backend`, `lock`, `mode` and `token`. A lost lock is a
/// warning.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    backend: Arc<dyn Backend>,
    /// Those that the store grants. Asked for once: its capabilities are made anew each time.
    pub(crate) modes: &'static [Mode],
    options: ClientOptions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) owner: Owner,
    session: Mutex<Slot>,
}

/// The session in use.
#[derive(Debug)]
enum Slot {
    /// None yet, or none that could be opened.
    Empty,
    /// Somebody has asked for one: all who need it wait for the same.
    Opening(Shared<BoxFuture<'static, Result<Session, StoreError>>>),
    Open(Session),
    Closed,
}

/// What somebody who needs a session found in the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// An opening that somebody else had begun.
    Begun,
}

/// The options that mean the same on every store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// How long the lease lasts without a renewal.
    pub ttl: Ttl,
    /// What this client is called in [`inspect`](Client::inspect) and in errors; may be empty.
    pub label: String,
    /// Whether a lock that is released goes to the next task of this process that waits for the same
    /// mode, without the store, while no other session is known to wait for it.
    pub hand_over: bool,
    /// Whether tasks of this process that ask for the same mode share one claim in the store, where the
    /// mode is compatible with itself (NL, CR, CW and PR).
    pub share: bool,
    /// How long a claim stays with the process after the last guard has gone, if no other session waits
    /// for it: to take the same lock again in that time costs no store operation. A try of another
    /// session finds the lock taken meanwhile. None, unless chosen; at most a second.
    pub keep: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            ttl: Ttl::default(),
            label: String::new(),
            hand_over: true,
            share: true,
            keep: Duration::ZERO,
        }
    }
}

impl ClientOptions {
    /// Takes the options `ttl`, `label`, `hand_over`, `share` and `keep` of a store URL.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when one does not read or is out of range.
    pub fn from_url(url: &mut StoreUrl) -> Result<Self, ConfigError> {
        let ttl = url
            .take_duration("ttl")?
            .map(Ttl::new)
            .transpose()?
            .unwrap_or_default();
        let default = Self::default();
        let keep = url.take_duration("keep")?.unwrap_or(default.keep);
        Ok(Self {
            ttl,
            label: url.take("label").unwrap_or_default(),
            hand_over: flag(url, "hand_over")?.unwrap_or(default.hand_over),
            share: flag(url, "share")?.unwrap_or(default.share),
            keep,
        })
    }

    /// What a client can do with these.
    fn check(&self) -> Result<(), ConfigError> {
        if self.keep <= LONGEST_KEPT {
            return Ok(());
        }
        Err(ConfigError::new(
            "option keep",
            format!("{:?} is too long", self.keep),
            format!("a claim is kept for {LONGEST_KEPT:?} at most"),
        ))
    }

    fn rules(&self) -> Rules {
        Rules {
            hand_over: self.hand_over,
            share: self.share,
            keep: self.keep,
            // Its session knows.
            listen: false,
            replace: false,
            order_step: 1,
        }
    }
}

fn flag(url: &mut StoreUrl, option: &str) -> Result<Option<bool>, ConfigError> {
    url.take_parsed(option, "true or false")
}

/// Sets up a [`Client`].
#[derive(Debug)]
#[must_use = "a builder does nothing until it connects"]
pub struct ClientBuilder {
    backend: Arc<dyn Backend>,
    options: ClientOptions,
    clock: Arc<dyn Clock>,
}

impl ClientBuilder {
    /// Sets all options at once.
    pub fn options(mut self, options: ClientOptions) -> Self {
        self.options = options;
        self
    }

    /// How long the lease lasts without a renewal. 10 s unless chosen.
    pub fn ttl(mut self, ttl: Ttl) -> Self {
        self.options.ttl = ttl;
        self
    }

    /// What this client is called in [`inspect`](Client::inspect) and in errors.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.options.label = label.into();
        self
    }

    /// Whether a lock that is released goes to the next task of this process that waits for the same
    /// mode, without the store ([`ClientOptions::hand_over`]). It does unless switched off.
    pub fn hand_over(mut self, hand_over: bool) -> Self {
        self.options.hand_over = hand_over;
        self
    }

    /// Whether tasks of this process share one claim in a mode that is compatible with itself
    /// ([`ClientOptions::share`]). They do unless that is switched off.
    pub fn share(mut self, share: bool) -> Self {
        self.options.share = share;
        self
    }

    /// How long a claim stays with the process after the last release ([`ClientOptions::keep`]). Not at
    /// all unless chosen.
    pub fn keep(mut self, keep: Duration) -> Self {
        self.options.keep = keep;
        self
    }

    /// Reads the time elsewhere: for tests.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Opens the first session, so that a store that cannot be used is known at once. Must be called
    /// in a Tokio runtime with its timer enabled; the session's task lives there.
    ///
    /// This session, and each that takes the place of a lost one, is tried again for a TTL (at least 5 s,
    /// at most 10 s) while the store is out of reach for the moment.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when the TTL is shorter than the store can do or a claim is to be kept for more
    /// than a second, [`Error::Store`] when the store
    /// cannot be reached or refuses.
    pub async fn connect(self) -> Result<Client, Error> {
        let Capabilities {
            min_ttl: least,
            modes,
            ..
        } = self.backend.capabilities();
        if self.options.ttl.get() < least {
            return Err(Error::Config(ConfigError::new(
                "option ttl",
                format!(
                    "{} is shorter than {} can do",
                    self.options.ttl,
                    self.backend.kind()
                ),
                format!("it is at least {least:?} there"),
            )));
        }
        self.options.check().map_err(Error::Config)?;
        let client = Client {
            inner: Arc::new(Inner {
                owner: Owner::this_process().labelled(self.options.label.clone()),
                backend: self.backend,
                modes,
                options: self.options,
                clock: self.clock,
                session: Mutex::new(Slot::Empty),
            }),
        };
        client.inner.session("open a session", None).await?;
        Ok(client)
    }
}

impl Client {
    /// Begins to set up a client on this backend.
    pub fn builder(backend: impl Backend) -> ClientBuilder {
        ClientBuilder {
            backend: Arc::new(backend),
            options: ClientOptions::default(),
            clock: Arc::new(SystemClock),
        }
    }

    /// Asks for a lock: exclusively, and waiting for its turn, unless the request says otherwise. The
    /// request is sent when it is awaited.
    pub fn lock(&self, name: impl AsRef<str>) -> Request<'_> {
        Request::new(&self.inner, LockName::new(name), Mode::Exclusive)
    }

    /// Who holds this lock and who waits for it, in their order.
    ///
    /// # Errors
    ///
    /// [`Error::Name`], or [`Error::Store`] when the store cannot be reached.
    pub async fn inspect(&self, name: impl AsRef<str>) -> Result<LockSnapshot, Error> {
        let name = LockName::new(name)?;
        self.inner.inspect(&name).await
    }

    /// The names of the locks in use in the client's namespace (somebody holds them or waits for
    /// them), sorted.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when the store cannot be reached.
    pub async fn names(&self) -> Result<Vec<LockName>, Error> {
        let inner = &self.inner;
        let names = |backend: Arc<dyn Backend>| async move { backend.names().await };
        let listed = inner.ask(names).await;
        let mut names = listed.map_err(|error| inner.failed("list the locks", None, error))?;
        names.sort();
        Ok(names)
    }

    /// Ends the session and frees everything that the client holds or waits for, within a limit.
    /// Withdraws that are under way are waited for; then guards that are still held are told
    /// [`LossReason::Closed`](crate::LossReason::Closed). Further requests fail with
    /// [`Error::Closed`].
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when the store did not confirm it in time. What is left there lapses with the
    /// lease.
    ///
    /// # Cancel safety
    ///
    /// Once polled, it goes on in the background.
    pub async fn close(&self, limit: Duration) -> Result<(), Error> {
        let slot = {
            let mut slot = self.inner.slot();
            std::mem::replace(&mut *slot, Slot::Closed)
        };
        // In a task of its own: it goes on when this is dropped.
        let closing = tokio::spawn(async move {
            let session = match slot {
                Slot::Empty | Slot::Closed => return Ok(()),
                Slot::Open(session) => session,
                Slot::Opening(opening) => match opening.await {
                    Ok(session) => session,
                    Err(_) => return Ok(()),
                },
            };
            session.close(limit).await
        });
        let clock = &self.inner.clock;
        let closed = tokio::select! {
            biased;
            // A task that ended without a word went down with its runtime.
            joined = closing => joined.unwrap_or(Ok(())),
            // The attempt that is on its way when the time is up ends a moment after it.
            () = clock.sleep_until(clock.now() + limit + Duration::from_millis(100)) => {
                Err(StoreError::ambiguous(format!("no answer within {limit:?}")))
            }
        };
        closed.map_err(|error| self.inner.failed("close the session", None, error))
    }

    /// What the store is called in errors, spans and metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    /// What the store can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.inner.backend.capabilities()
    }
}

impl Inner {
    pub(crate) fn kind(&self) -> &'static str {
        self.backend.kind()
    }

    /// The session for a new request at this moment, if there is one that stands.
    pub(crate) fn standing(&self, now: Moment) -> Option<Session> {
        match &*self.slot() {
            Slot::Open(session) if session.lease().ended_at(now).is_none() => Some(session.clone()),
            _ => None,
        }
    }

    /// The session for a new request: the one that stands, or another one.
    pub(crate) async fn session(
        &self,
        doing: &'static str,
        name: Option<&LockName>,
    ) -> Result<Session, Error> {
        let mut is_last = false;
        loop {
            let (opening, found) = {
                let mut slot = self.slot();
                match &*slot {
                    Slot::Closed => return Err(Error::Closed),
                    Slot::Open(session) if session.lease().ended().is_none() => {
                        return Ok(session.clone());
                    }
                    Slot::Opening(opening) => (opening.clone(), Found::Begun),
                    Slot::Open(_) | Slot::Empty => {
                        let opening = self.open();
                        *slot = Slot::Opening(opening.clone());
                        (opening, Found::Nothing)
                    }
                }
            };
            let opened = opening.clone().await;
            let mut slot = self.slot();
            match &*slot {
                Slot::Closed => return Err(Error::Closed),
                // The first to come here settles it; a later round may have begun meanwhile.
                Slot::Opening(current) if current.ptr_eq(&opening) => {
                    *slot = match &opened {
                        Ok(session) => Slot::Open(session.clone()),
                        Err(_) => Slot::Empty,
                    };
                }
                _ => {}
            }
            let usable = matches!(&opened, Ok(session) if session.lease().ended().is_none());
            if usable || found == Found::Nothing || is_last {
                return opened.map_err(|error| self.failed(doing, name, error));
            }
            // One that somebody else had begun says how things were before this request: when it comes
            // to nothing, one more is waited for.
            is_last = true;
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session in a task of its own: it goes on when the request that began it is dropped, and
    /// nobody has to be polled for the others to get on.
    fn open(&self) -> Shared<BoxFuture<'static, Result<Session, StoreError>>> {
        let backend = self.backend.clone();
        let (clock, owner) = (self.clock.clone(), self.owner.clone());
        let (ttl, rules) = (self.options.ttl.get(), self.options.rules());
        let opening =
            tokio::spawn(async move { Session::open(&*backend, clock, ttl, owner, rules).await });
        opening
            .map(|joined| ended(joined.map(Some)))
            .boxed()
            .shared()
    }

    pub(crate) async fn inspect(&self, name: &LockName) -> Result<LockSnapshot, Error> {
        let asked = name.clone();
        let inspect = |backend: Arc<dyn Backend>| async move { backend.inspect(&asked).await };
        let snapshot = self.ask(inspect).await;
        let mut snapshot = snapshot.map_err(|error| self.failed("inspect", Some(name), error))?;
        let session = match &*self.slot() {
            Slot::Open(session) => Some(session.clone()),
            _ => None,
        };
        if let Some(session) = session {
            for holder in &mut snapshot.holders {
                holder.kept = session.is_kept(name, holder.id);
            }
        }
        Ok(snapshot)
    }

    /// One attempt, in a task of its own, which ends when this is dropped: a user may keep a future
    /// without polling it, and others may have to wait for what it has begun (a connection, say).
    async fn ask<T, F>(&self, ask: impl FnOnce(Arc<dyn Backend>) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let limit = attempt::limit(self.options.ttl.get()).max(Duration::from_secs(1));
        let (clock, attempt) = (self.clock.clone(), ask(self.backend.clone()));
        let mut task = JoinSet::new();
        task.spawn(async move { attempt::within(&*clock, limit, attempt).await });
        ended(task.join_next().await.transpose())
    }

    pub(crate) fn failed(
        &self,
        doing: &'static str,
        name: Option<&LockName>,
        source: StoreError,
    ) -> Error {
        Error::Store {
            backend: self.kind(),
            name: name.cloned(),
            doing,
            source,
        }
    }
}

/// What a task with an attempt came to; `None` is a task that its runtime has swept away.
fn ended<T>(
    joined: Result<Option<Result<T, StoreError>>, tokio::task::JoinError>,
) -> Result<T, StoreError> {
    match joined {
        Ok(Some(result)) => result,
        Err(error) if error.is_panic() => Err(StoreError::ambiguous("the backend panicked")),
        Ok(None) | Err(_) => Err(StoreError::unavailable(
            "the client's runtime has shut down",
        )),
    }
}
