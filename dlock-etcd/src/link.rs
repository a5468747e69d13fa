//! The connection in use: to one member of the cluster at a time.
//!
//! A connection is made when it is first needed, and replaced when it breaks, when its member says
//! that it cannot serve, or when nobody has been answered on it for too long; the next one is to
//! another member, if there is one. It is made in the background: who gives up waiting for it has it
//! the next time. Nothing is ever sent a second time, but for a request that was refused because the
//! login had expired. All else is the core's decision (ONCE).

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dlock_core::{SharedConnection, StoreError, StoreErrorKind};
use etcd_client::{Txn, TxnResponse};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::error::answered;
use crate::options::{Address, EtcdOptions};
use crate::transport::{Dialer, Wire};

/// How long a member has to answer before the next one is tried beside it.
const STAGGER: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Link {
    members: Arc<Members>,
    seat: SharedConnection<Arc<Wire>>,
}

#[derive(Debug)]
struct Members {
    dialer: Dialer,
    /// Never empty.
    addresses: Vec<Address>,
    /// Counts the attempts to connect: each begins at another member.
    turn: AtomicUsize,
}

impl Link {
    pub(crate) fn new(options: &EtcdOptions, dialer: Dialer) -> Self {
        let members = Members {
            dialer,
            addresses: options.endpoints.clone(),
            turn: AtomicUsize::new(0),
        };
        Self {
            members: Arc::new(members),
            seat: SharedConnection::new(),
        }
    }

    pub(crate) fn dialer(&self) -> &Dialer {
        &self.members.dialer
    }

    /// Sends a transaction.
    pub(crate) async fn txn(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        self.call(|wire| {
            let mut kv = wire.kv.clone();
            async move { kv.txn(txn).await }
        })
        .await
    }

    /// Sends something over the connection in use, and says what its failure means.
    pub(crate) async fn call<T, F>(&self, send: impl FnOnce(&Wire) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let wire = self.wire().await?;
        let request = send(&wire);
        let leave = || {
            tracing::debug!(?wire, "no answer; going on to another connection");
            wire.abandon();
        };
        let answer = wire.patience.wait(request, leave).await;
        let result = answer.map_err(answered);
        if result.as_ref().is_err_and(is_members_fault) {
            wire.abandon();
        }
        result
    }

    /// A usable connection.
    pub(crate) async fn wire(&self) -> Result<Arc<Wire>, StoreError> {
        let dial = || {
            let members = Arc::clone(&self.members);
            async move { members.dial().await.map(Arc::new) }
        };
        self.seat.get(|wire| wire.is_usable(), dial).await
    }
}

impl Members {
    /// A connection to whichever member answers first. They are tried one after the other, but
    /// without waiting long for one that is silent.
    async fn dial(&self) -> Result<Wire, StoreError> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = (0..self.addresses.len())
            .zip(0u32..)
            .map(|(place, delay)| async move {
                tokio::time::sleep(STAGGER * delay).await;
                let member = &self.addresses[(first + place) % self.addresses.len()];
                self.dialer.dial(member).await
            });
        let mut dialed: FuturesUnordered<_> = in_turn.collect();
        let mut fault: Option<StoreError> = None;
        while let Some(result) = dialed.next().await {
            match result {
                Ok(wire) => {
                    tracing::debug!(?wire, "connected");
                    return Ok(wire);
                }
                // What will not pass by itself says more than that somebody is down.
                Err(next) if next.kind() == StoreErrorKind::Refused => fault = Some(next),
                Err(next) => fault = fault.or(Some(next)),
            }
        }
        Err(fault.unwrap_or_else(|| StoreError::unavailable("there is no member")))
    }
}

/// Whether another member may do better.
pub(crate) fn is_members_fault(fault: &StoreError) -> bool {
    matches!(
        fault.kind(),
        StoreErrorKind::Ambiguous | StoreErrorKind::Unavailable
    )
}

/// Gives up after a while: a silent member must not stop the pushes.
pub(crate) async fn patient<T>(
    patience: Duration,
    attempt: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let answer = tokio::time::timeout(patience, attempt).await;
    answer.unwrap_or_else(|_| {
        let fault = format!("no answer within {patience:?}");
        Err(StoreError::unavailable(fault))
    })
}
