//! What a case works with: clients of the store under test, locks of its own, and its history.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dlock_core::{Backend, Client, ClientBuilder, LockSnapshot, Ttl};

use crate::actor::Actor;
use crate::history::History;
use crate::sharing::Sharing;
use crate::target::{Condition, Link, Path, Target};
use crate::wrap::Wire;
use crate::{Context, Failure, Verdict};

/// A lease for cases that are not about leases: none of theirs runs out by accident, so that what is
/// seen to be freed was freed by what the case is about.
pub const LONG: Duration = Duration::from_secs(30);

/// A lease for cases about leases.
pub const SHORT: Duration = Duration::from_secs(1);

/// What need not happen at once, but must happen: far more than any operation takes, far less than
/// [`LONG`].
pub const LIMIT: Duration = Duration::from_secs(10);

/// What a push brings, or an answer: below the few seconds after which every waiter looks by itself.
pub const PROMPT: Duration = Duration::from_secs(3);

/// What the suite adds to every bound of the contract for the scheduling of a busy machine.
pub const GRACE: Duration = Duration::from_secs(1);

/// The stage of one case. Clones are the same.
#[derive(Clone, Debug)]
pub struct Scene {
    target: Arc<dyn Target>,
    history: History,
    /// At the beginning of every lock name of this case, so that cases do not meet on one store.
    prefix: Arc<str>,
    /// Every link's network stays up until the case is over, also when its client is gone.
    paths: Arc<Mutex<Vec<Arc<dyn Path>>>>,
}

impl Scene {
    /// A stage for one case on this target.
    #[must_use]
    pub fn new(target: Arc<dyn Target>, history: History) -> Self {
        let prefix = format!("{:012x}", fastrand::u64(..) >> 16).into();
        Self {
            target,
            history,
            prefix,
            paths: Arc::default(),
        }
    }

    /// The store under test.
    #[must_use]
    pub fn target(&self) -> &Arc<dyn Target> {
        &self.target
    }

    /// The case's history.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// A text that no other case uses in its lock names.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The name of a lock of this case.
    #[must_use]
    pub fn lock(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// One more client process's way to the store, with a network that can be broken.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when the store cannot be reached.
    pub async fn link(&self) -> Verdict<Link> {
        let link = self
            .target
            .link()
            .await
            .because("connecting to the store")?;
        Ok(self.kept(match link.path {
            Some(_) => link,
            None => Wire::link(link.backend),
        }))
    }

    fn kept(&self, link: Link) -> Link {
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        paths.extend(link.path.clone());
        link
    }

    /// A client with a [`LONG`] lease, on a link of its own.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when it cannot connect.
    pub async fn client(&self, who: &str) -> Verdict<Actor> {
        self.client_for(who, LONG).await
    }

    /// A client with a [`SHORT`] lease (or the shortest that the store can do, if that is longer),
    /// on a link of its own.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when it cannot connect.
    pub async fn brief_client(&self, who: &str) -> Verdict<Actor> {
        self.client_for(who, SHORT).await
    }

    /// A client with a lease of `ttl` (or the shortest that the store can do, if that is longer).
    ///
    /// # Errors
    ///
    /// A [`Failure`] when it cannot connect.
    pub async fn client_for(&self, who: &str, ttl: Duration) -> Verdict<Actor> {
        self.client_over(who, ttl, self.link().await?).await
    }

    /// A client over this link.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when it cannot connect.
    pub async fn client_over(&self, who: &str, ttl: Duration, link: Link) -> Verdict<Actor> {
        let sharing = Sharing::of_this_process();
        self.client_set_up(who, ttl, link, |builder| sharing.set_up(builder))
            .await
    }

    /// A client with a [`LONG`] lease whose tasks pass claims on and share them, however the others of
    /// the run are set up, and keep them for as long as this.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when it cannot connect.
    pub async fn keeping_client(&self, who: &str, keep: Duration) -> Verdict<Actor> {
        let link = self.link().await?;
        self.client_set_up(who, LONG, link, |builder| builder.keep(keep))
            .await
    }

    /// A client with a lease of `ttl` each of whose requests has a claim of its own, however the others
    /// of the run are set up.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when it cannot connect.
    pub async fn apart_client(&self, who: &str, ttl: Duration) -> Verdict<Actor> {
        let link = self.link().await?;
        self.client_set_up(who, ttl, link, |builder| Sharing::Off.set_up(builder))
            .await
    }

    async fn client_set_up(
        &self,
        who: &str,
        ttl: Duration,
        link: Link,
        set_up: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Verdict<Actor> {
        let ttl = ttl.max(link.backend.capabilities().min_ttl);
        let ttl = Ttl::new(ttl).because("a lease's length")?;
        let builder = Client::builder(Arc::clone(&link.backend))
            .ttl(ttl)
            .label(who);
        let connecting = set_up(builder).connect();
        let client = within(LIMIT, format!("{who} connects"), connecting).await?;
        let client = client.because(format!("{who} connects"))?;
        self.history
            .note(who, format!("connected, with a lease of {ttl}"));
        Ok(Actor::new(
            who,
            client,
            link,
            ttl.get(),
            self.history.clone(),
        ))
    }

    /// The same client with another backend around its link.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when it cannot connect.
    pub async fn client_through(
        &self,
        who: &str,
        ttl: Duration,
        wrap: impl FnOnce(Arc<dyn Backend>) -> Arc<dyn Backend>,
    ) -> Verdict<Actor> {
        let Link { backend, path } = self.link().await?;
        let link = Link {
            backend: wrap(backend),
            path,
        };
        self.client_over(who, ttl, link).await
    }

    /// Changes the condition of a client's network.
    ///
    /// # Errors
    ///
    /// A [`Failure`] when the link has no path.
    pub fn set(&self, link: &Link, who: &str, condition: Condition) -> Verdict {
        let path = link.path.as_ref();
        let path = path.ok_or_else(|| Failure::new("this link's network cannot be broken"))?;
        self.history
            .note("network", format!("{who}'s path is {condition}"));
        path.set(condition);
        Ok(())
    }

    /// After how long a lock of a client that died with this lease must be free (LIVE-A).
    ///
    /// # Errors
    ///
    /// A [`Failure`] when the store cannot be reached.
    pub async fn bound(&self, ttl: Duration) -> Verdict<Duration> {
        let slack = self.target.link().await?.backend.capabilities().slack;
        Ok(ttl + slack + GRACE)
    }

    /// Looks at a lock through `client` until it is as wanted.
    ///
    /// # Errors
    ///
    /// A [`Failure`] with the last look when it does not become so in time.
    pub async fn until(
        &self,
        client: &Client,
        lock: &str,
        limit: Duration,
        wanted: &str,
        is_so: impl Fn(&LockSnapshot) -> bool,
    ) -> Verdict<LockSnapshot> {
        let start = self.history.now();
        loop {
            let snapshot = client.inspect(lock).await.because("inspect")?;
            if is_so(&snapshot) {
                return Ok(snapshot);
            }
            if self.history.now() - start > limit {
                return Err(Failure::new(format!(
                    "lock {lock:?}: {wanted}: not within {limit:?}; {}",
                    described(&snapshot)
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until nobody holds this lock or waits for it.
    ///
    /// # Errors
    ///
    /// A [`Failure`] that says who does when the time is up.
    pub async fn until_free(&self, client: &Client, lock: &str, limit: Duration) -> Verdict {
        self.until(client, lock, limit, "free", LockSnapshot::is_free)
            .await?;
        Ok(())
    }
}

/// How often a condition is looked at that nobody announces.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Waits until the condition holds.
///
/// # Errors
///
/// A [`Failure`] when it does not within the limit.
pub async fn eventually(
    limit: Duration,
    wanted: impl std::fmt::Display,
    is_so: impl Fn() -> bool,
) -> Verdict {
    let start = std::time::Instant::now();
    while !is_so() {
        crate::ensure!(start.elapsed() < limit, "{wanted}: not within {limit:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// The future's output.
///
/// # Errors
///
/// A [`Failure`] when it is not ready within the limit.
pub async fn within<T>(
    limit: Duration,
    what: impl std::fmt::Display,
    future: impl IntoFuture<Output = T>,
) -> Verdict<T> {
    match tokio::time::timeout(limit, future).await {
        Ok(output) => Ok(output),
        Err(_) => Err(Failure::new(format!("{what}: not within {limit:?}"))),
    }
}

/// A look at a lock, in one line.
#[must_use]
pub fn described(snapshot: &LockSnapshot) -> String {
    let list = |claims: &[dlock_core::ClaimSnapshot]| {
        let each = claims
            .iter()
            .map(|claim| format!("{} {}", claim.owner.label, claim.mode));
        each.collect::<Vec<_>>().join(", ")
    };
    format!(
        "held by [{}], waiting [{}]",
        list(&snapshot.holders),
        list(&snapshot.waiters)
    )
}
