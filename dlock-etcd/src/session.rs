//! A session: one lease, and a key that stands as long as it does. The server deletes all that is bound to a
//! lease which nobody renews (LIVE-A).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dlock_core::mutants::{Mutant, is_on};
use dlock_core::{
    Attempts, Claim, Mailbox, Outcome, Session, SessionTerms, StoreError, StoreErrorKind, Wait,
};

use crate::backend::Store;
use crate::base;
use crate::claims::{Claims, State};
use crate::keys::conflicting;
use crate::link::Link;
use crate::pushes::{Pushes, Waiter};

/// How long ending the lease of a session that could not be opened may take.
const TIDYING: Duration = Duration::from_millis(500);

/// A session on etcd.
#[derive(Debug)]
pub(crate) struct EtcdSession {
    claims: Arc<Claims>,
    pushes: Pushes,
    ttl: Duration,
}

impl EtcdSession {
    pub(crate) async fn open(
        store: &Store,
        terms: &SessionTerms,
        mailbox: Mailbox,
    ) -> Result<Self, StoreError> {
        let asked = i64::try_from(terms.ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
        let granted = store.link.call(|wire| {
            let mut lease = wire.lease.clone();
            async move { lease.grant(asked, None).await }
        });
        let granted = granted.await?;
        let seconds = u64::try_from(granted.ttl()).unwrap_or(0);
        let (lease, header) = (granted.id(), granted.header());
        let revision = header.map_or(0, |header| header.revision());
        let opened = Claims::open(&store.link, &store.layout, terms, lease, revision).await;
        let claims = match opened {
            Ok(claims) => Arc::new(claims),
            Err(fault) => {
                // Nobody will renew it, but it may be a long one.
                let revoked = tokio::time::timeout(TIDYING, revoke(&store.link, lease)).await;
                tracing::debug!(?revoked, "a session could not be opened");
                return Err(fault);
            }
        };
        Ok(Self {
            pushes: Pushes::start(Arc::clone(&claims), mailbox),
            claims,
            ttl: Duration::from_secs(seconds),
        })
    }

    /// As the server granted it: at least what was asked for, in whole seconds. It stays so for as long
    /// as the lease stands.
    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Tells the core how the claim stands, and has a waiting one watched over.
    fn outcome(&self, claim: &Claim, state: State) -> Outcome {
        match state {
            State::Granted(place) => {
                self.pushes.arrived(claim.id.number);
                Outcome::Granted { token: place.token }
            }
            State::Waiting(place, ahead) => {
                self.pushes.watch_over(Waiter {
                    claim: claim.clone(),
                    place,
                    ahead,
                });
                // A lease that runs out deletes its keys, which is an event like any other.
                Outcome::Waiting { look_after: None }
            }
            State::Absent => {
                self.pushes.forget(claim.id.number);
                Outcome::Absent
            }
        }
    }
}

#[async_trait]
impl Session for EtcdSession {
    /// Each renewal has a stream of its own: no answer to one that was given up can be taken for the
    /// answer to a later one, from whose sending the deadline counts (LIVE-B).
    async fn renew(&self) -> Result<Duration, StoreError> {
        let id = self.claims.lease();
        let renewed = self.claims.link().call(|wire| {
            let mut lease = wire.lease.clone();
            // It returns after the first answer, and fails if that has no time left.
            async move { lease.keep_alive(id).await.map(drop) }
        });
        match renewed.await {
            Err(fault)
                if fault.kind() == StoreErrorKind::Lapsed && is_on(Mutant::RevivedSession) =>
            {
                Ok(self.ttl)
            }
            renewed => renewed.map(|()| self.ttl),
        }
    }

    async fn request(&self, claim: &Claim, wait: Wait) -> Result<Outcome, StoreError> {
        let state = self.claims.request(claim, wait).await?;
        Ok(self.outcome(claim, state))
    }

    async fn status(&self, claim: &Claim) -> Result<Outcome, StoreError> {
        let state = self.claims.look(claim).await?;
        Ok(self.outcome(claim, state))
    }

    async fn listen(&self, claim: &Claim) -> Result<(), StoreError> {
        if conflicting(claim.mode).next().is_none() {
            return Ok(());
        }
        let ticket = self.claims.ticket(claim);
        let unknown = || StoreError::refused(format!("{} is not known to be granted", claim.name));
        let ticket = ticket.ok_or_else(unknown)?;
        self.pushes.listen(claim.clone(), ticket).await
    }

    async fn withdraw(&self, claim: &Claim, attempts: Attempts) -> Result<(), StoreError> {
        self.pushes.forget(claim.id.number);
        self.claims.withdraw(claim, attempts).await
    }

    fn replaces(&self) -> bool {
        true
    }

    async fn replace(&self, leaving: &Claim, claim: &Claim) -> Result<Outcome, StoreError> {
        self.pushes.forget(leaving.id.number);
        let state = self.claims.replace(leaving, claim).await?;
        Ok(self.outcome(claim, state))
    }

    fn order_step(&self) -> u64 {
        base::STEP
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.pushes.stop();
        match revoke(self.claims.link(), self.claims.lease()).await {
            Err(fault) if fault.kind() == StoreErrorKind::Lapsed => Ok(()),
            revoked => revoked,
        }
    }
}

/// Ends a lease, and with it all that is bound to it.
async fn revoke(link: &Link, id: i64) -> Result<(), StoreError> {
    let revoked = link.call(|wire| {
        let mut lease = wire.lease.clone();
        async move { lease.revoke(id).await }
    });
    revoked.await.map(drop)
}
