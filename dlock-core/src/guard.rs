//! A guard: a lock that is held, until it is released, dropped or lost.

use std::time::Duration;

use tracing::{Instrument, debug_span};

use crate::session::Held;
use crate::{Error, FencingToken, LockLost, LockName, LossReason, Mode, metrics};

/// A lock that is held. Dropping it releases it in the background; [`release`](Guard::release) waits
/// until the store has confirmed it.
///
/// **A lock with a lease can be lost** while its holder works: when the store cannot be reached, or the
/// process is stalled, for longer than the lease lasts. The guard tells ([`lost`](Guard::lost),
/// [`is_held`](Guard::is_held)) before the store could grant the lock to anyone else (LIVE-B). A holder
/// whose process was stalled past its deadline may believe for a moment that it still holds; that is
/// what [tokens](Guard::token) are for: the resource refuses the one that came too late
/// ([`Fence`](crate::Fence)).
#[derive(Debug)]
#[must_use = "a guard that is dropped at once releases its lock at once"]
pub struct Guard {
    held: Held,
    mode: Mode,
    backend: &'static str,
}

impl Guard {
    pub(crate) fn new(held: Held, mode: Mode, backend: &'static str) -> Self {
        Self {
            held,
            mode,
            backend,
        }
    }

    /// The lock's name.
    #[must_use]
    pub fn name(&self) -> &LockName {
        self.held.name()
    }

    /// The mode in which it is held.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The fencing token: show it to the resource with every access, reads included.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.held.token()
    }

    /// Whether the lock is surely held now. Reads the clock and nothing else.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held.lease().ended().is_none()
    }

    /// How long it will surely be held without another renewal; zero once it is lost. Renewals go on
    /// in the background, so this rises again and again while all is well.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.held.lease().remaining()
    }

    /// Whether the store has said that another session waits behind this lock in a mode that
    /// conflicts. A hint for a holder that can stop early; it may come late or not at all.
    #[must_use]
    pub fn is_contended(&self) -> bool {
        self.held.is_contended()
    }

    /// Returns when the lock is lost, and why; never while it is held.
    ///
    /// # Cancel safety
    ///
    /// Dropping it does nothing.
    pub async fn lost(&self) -> LossReason {
        self.held.lease().lost().await
    }

    /// Does the work while the lock is held, and stops it (by dropping it) when the lock is lost.
    ///
    /// # Errors
    ///
    /// [`LockLost`] when the lock was lost before the work was done.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the work. The guard stays.
    pub async fn protect<T>(&self, work: impl Future<Output = T>) -> Result<T, LockLost> {
        tokio::select! {
            biased;
            reason = self.lost() => Err(LockLost { name: self.name().clone(), reason }),
            result = work => Ok(result),
        }
    }

    /// Releases the lock, and returns when another task of this process has it or the store has confirmed
    /// that it is free. It is tried until it succeeds or the session's lease is over (ATOM-B). With
    /// [`keep`](crate::ClientOptions::keep) the process may have it for a while still.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] when the lock was lost before it could be released: somebody else may have
    /// held it since. It is free all the same.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the release goes on in the background.
    pub async fn release(mut self) -> Result<(), Error> {
        let (backend, lock, mode, token) = (self.backend, self.name(), self.mode, self.token());
        let span = debug_span!("release", backend, %lock, %mode, token = token.get());
        let released = self.held.left().instrument(span).await;
        released.map_err(|reason| {
            let name = self.name().clone();
            Error::Lost(LockLost { name, reason })
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        metrics::held(self.backend, self.mode, || self.held.time());
        // After a release that was awaited this finds nothing to do.
        self.held.leave();
    }
}
