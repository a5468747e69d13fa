//! The connection in use: to one member of the cluster at a time.
//!
//! A connection is made when it is first needed, and replaced when it breaks, when its member says
//! that it cannot serve, or when somebody gave up waiting for an answer on it; the next one is to
//! another member, if there is one. Nothing is ever sent a second time, but for a request that was
//! refused because the login had expired. All else is the core's decision (ONCE).

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dlock_core::{StoreError, StoreErrorKind};
use etcd_client::{Txn, TxnResponse};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::error::answered;
use crate::options::{Address, EtcdOptions};
use crate::transport::{Dialer, Trust, Wire};

/// How long a member has to answer before the next one is tried beside it.
const STAGGER: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Link {
    dialer: Dialer,
    /// Never empty.
    members: Vec<Address>,
    /// Who finds no usable connection makes it, and the others wait for that.
    seat: tokio::sync::Mutex<Option<Arc<Wire>>>,
    /// Counts the attempts to connect: each begins at another member.
    turn: AtomicUsize,
}

impl Link {
    pub(crate) fn new(options: &EtcdOptions, dialer: Dialer) -> Self {
        Self {
            dialer,
            members: options.endpoints.clone(),
            seat: tokio::sync::Mutex::default(),
            turn: AtomicUsize::new(0),
        }
    }

    pub(crate) fn dialer(&self) -> &Dialer {
        &self.dialer
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
        let trust = Trust::in_answers_of(&wire);
        let result = send(&wire).await.map_err(answered);
        match &result {
            Err(fault) if is_members_fault(fault) => wire.abandon(),
            _ => trust.keep(),
        }
        result
    }

    /// A usable connection.
    pub(crate) async fn wire(&self) -> Result<Arc<Wire>, StoreError> {
        let mut seat = self.seat.lock().await;
        if let Some(wire) = seat.as_ref().filter(|wire| wire.is_usable()) {
            return Ok(Arc::clone(wire));
        }
        *seat = None;
        let wire = Arc::new(self.dial().await?);
        tracing::debug!(?wire, "connected");
        *seat = Some(Arc::clone(&wire));
        Ok(wire)
    }

    /// A connection to whichever member answers first. They are tried one after the other, but
    /// without waiting long for one that is silent.
    async fn dial(&self) -> Result<Wire, StoreError> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = (0..self.members.len())
            .zip(0u32..)
            .map(|(place, delay)| async move {
                tokio::time::sleep(STAGGER * delay).await;
                let member = &self.members[(first + place) % self.members.len()];
                self.dialer.dial(member).await
            });
        let mut dialed: FuturesUnordered<_> = in_turn.collect();
        let mut fault: Option<StoreError> = None;
        while let Some(result) = dialed.next().await {
            match result {
                Ok(wire) => return Ok(wire),
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
