//! Everything that can go wrong, in words that say what to do.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::{ClaimSnapshot, InvalidName, LockName, Mode};

/// What a user's call can fail with.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is no lock name or namespace.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The client cannot be set up like this.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The lock was not granted in the time that the request allowed. It is withdrawn.
    #[error(transparent)]
    Timeout(#[from] Box<TimedOut>),
    /// The session that the lock or the request belonged to is over, and the lock with it.
    #[error(transparent)]
    Lost(#[from] LockLost),
    /// The store failed or refused.
    #[error("{}{backend}: {doing}: {source}", for_lock(.name))]
    Store {
        /// The backend's [`kind`](crate::Backend::kind).
        backend: &'static str,
        /// The lock, where it was about one.
        name: Option<LockName>,
        /// What was tried.
        doing: &'static str,
        /// What happened.
        source: StoreError,
    },
    /// The store cannot grant this mode.
    #[error("lock {name}: {backend} cannot grant mode {mode}; it can grant {}", modes(.granted))]
    UnsupportedMode {
        /// The backend's [`kind`](crate::Backend::kind).
        backend: &'static str,
        /// The lock.
        name: LockName,
        /// The mode that was asked for.
        mode: Mode,
        /// The modes that it grants.
        granted: &'static [Mode],
    },
    /// The client was closed.
    #[error("the client is closed; connect a new one")]
    Closed,
}

fn for_lock(name: &Option<LockName>) -> String {
    name.as_ref()
        .map(|name| format!("lock {name}: "))
        .unwrap_or_default()
}

fn modes(modes: &[Mode]) -> String {
    modes
        .iter()
        .map(|mode| mode.code())
        .collect::<Vec<_>>()
        .join(", ")
}

/// A request that took longer than it was allowed to.
#[derive(Clone, Debug, thiserror::Error)]
#[error("lock {name}: not granted in {mode} after {waited:.1?}; {}{}", held_by(.holders), first_in_line(.next))]
pub struct TimedOut {
    /// The lock.
    pub name: LockName,
    /// The mode that was asked for.
    pub mode: Mode,
    /// How long the request waited.
    pub waited: Duration,
    /// Who held the lock when the time was up, as far as the store could say in a moment.
    pub holders: Vec<ClaimSnapshot>,
    /// Who was first in the queue then, this request left out.
    pub next: Option<ClaimSnapshot>,
}

fn first_in_line(next: &Option<ClaimSnapshot>) -> String {
    let next = next
        .as_ref()
        .map(|next| format!("; next is {} in {}", next.owner, next.mode));
    next.unwrap_or_default()
}

fn held_by(holders: &[ClaimSnapshot]) -> String {
    const SHOWN: usize = 3;
    if holders.is_empty() {
        return "who holds it is not known".to_owned();
    }
    let shown: Vec<String> = holders
        .iter()
        .take(SHOWN)
        .map(|holder| format!("{} in {}", holder.owner, holder.mode))
        .collect();
    let more = holders.len().saturating_sub(SHOWN);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("held by {}{more}", shown.join(", "))
}

/// A lock that is no longer held, or will not be granted any more, because its session is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("lock {name}: {reason}")]
pub struct LockLost {
    /// The lock.
    pub name: LockName,
    /// Why.
    pub reason: LossReason,
}

/// Why a session ended before its client wished it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LossReason {
    /// Its time ran out: this process, or the machine, was stalled for too long to renew it.
    Expired,
    /// Renewals went unanswered until its time ran out.
    StoreUnreachable,
    /// The store ended it before its time: an operator did, or the store lost its data.
    Revoked,
    /// The client was closed while locks were held.
    Closed,
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LossReason::Expired => {
                "lost: its lease expired, because this process was stalled for too long to renew it"
            }
            LossReason::StoreUnreachable => {
                "lost: the store could not be reached until its lease expired"
            }
            LossReason::Revoked => {
                "lost: the store ended its session before its time (an operator, or lost data)"
            }
            LossReason::Closed => "lost: the client was closed while it was held",
        })
    }
}

/// A setting that cannot be: what was wrong, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {fault}; {remedy}")]
pub struct ConfigError {
    /// The setting, as the user named it.
    pub what: String,
    /// What is wrong with it.
    pub fault: String,
    /// What is allowed, or what to do.
    pub remedy: String,
}

impl ConfigError {
    /// What was wrong, and what is allowed.
    pub fn new(
        what: impl Into<String>,
        fault: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            what: what.into(),
            fault: fault.into(),
            remedy: remedy.into(),
        }
    }
}

/// What a backend's call can fail with: what happened, and what the core may conclude from it.
#[derive(Clone, Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    message: String,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// What may be concluded from a [`StoreError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// No answer: it may or may not have taken effect. The core asks again by the claim's id (ONCE).
    Ambiguous,
    /// It did not take effect, and may succeed later: the store is loading, or elects a leader.
    Unavailable,
    /// It did not take effect, and will not by itself: a wrong password, a read-only replica.
    Refused,
    /// The session's lease is gone.
    Lapsed,
    /// It took effect, but not with the durability that was asked for (HONEST).
    Unconfirmed,
}

impl StoreError {
    /// [`StoreErrorKind::Ambiguous`].
    pub fn ambiguous(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Ambiguous, message)
    }

    /// [`StoreErrorKind::Unavailable`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Unavailable, message)
    }

    /// [`StoreErrorKind::Refused`].
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Refused, message)
    }

    /// [`StoreErrorKind::Lapsed`].
    #[must_use]
    pub fn lapsed() -> Self {
        Self::new(StoreErrorKind::Lapsed, "the session's lease is gone")
    }

    /// [`StoreErrorKind::Unconfirmed`].
    pub fn unconfirmed(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Unconfirmed, message)
    }

    fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// The same error, with what caused it. The cause's text must not hold a password.
    #[must_use]
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// What may be concluded from it.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether it says that nothing was done, and nothing can happen any more.
    #[must_use]
    pub fn never_took_effect(&self) -> bool {
        matches!(
            self.kind,
            StoreErrorKind::Refused | StoreErrorKind::Unavailable
        )
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for StoreError {}
