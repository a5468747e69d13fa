//! LIVE-A: the end of a lease is the end of its session.

use dlock_core::{
    Claim, ClaimId, LockName, Mailbox, Mode, Owner, SessionId, SessionTerms, StoreErrorKind, Wait,
};

use super::fair::waiting;
use crate::case::{Case, Pace};
use crate::raw::token;
use crate::scene::{LIMIT, SHORT, Scene, within};
use crate::{Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "LIVE-A/late-renewal",
            "A renewal that comes after the lease has run out does not bring the session back",
            late_renewal,
        )
        .pace(Pace::Timed),
    ]
}

/// Without the core, which would not renew a lease that is over.
async fn late_renewal(scene: Scene) -> Verdict {
    let lock = scene.lock("late");
    let other = scene.client("other").await?;
    let link = scene.link().await?;
    let owner = Owner::this_process().labelled("late");
    let terms = SessionTerms {
        id: SessionId::random(),
        ttl: SHORT.max(link.backend.capabilities().min_ttl),
        owner: owner.clone(),
    };
    // Its other end is kept, so that the store's pushes have somewhere to go.
    let (mailbox, _inbox) = Mailbox::new();
    let opening = link.backend.open(&terms, mailbox);
    let opened = within(LIMIT, "opening a session", opening).await??;
    let claim = Claim {
        id: ClaimId {
            session: terms.id,
            number: 1,
        },
        name: LockName::new(&*lock)?,
        mode: Mode::Exclusive,
        owner,
    };
    let requested = opened.session.request(&claim, Wait::InTurn);
    let first = token(within(LIMIT, "a request", requested).await??)?;
    let asking = other.ask(&lock, Mode::Exclusive);
    waiting(&scene, &other, &lock, 1).await?;
    scene.history().note("late", "does not renew its lease");
    let bound = scene.bound(opened.ttl).await?;
    let theirs = asking.granted(bound + LIMIT).await?;
    ensure!(
        theirs.token()? > first,
        "FENCE: token {} after {first}",
        theirs.token()?
    );
    for _ in 0..2 {
        let renewed = within(LIMIT, "a late renewal", opened.session.renew()).await?;
        ensure!(
            matches!(&renewed, Err(fault) if fault.kind() == StoreErrorKind::Lapsed),
            "a renewal of a lease that has run out: {renewed:?}"
        );
    }
    let requested = opened.session.request(&claim, Wait::Never);
    let again = within(LIMIT, "a late request", requested).await?;
    ensure!(
        again.is_err(),
        "a session that is over was answered {again:?}"
    );
    let seen = other.client().inspect(&lock).await?;
    ensure!(
        seen.holders.len() == 1 && seen.waiters.is_empty() && theirs.is_held(),
        "a session that is over has changed the lock: {}",
        crate::scene::described(&seen)
    );
    theirs.release().await
}
