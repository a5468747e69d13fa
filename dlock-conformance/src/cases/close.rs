//! ATOM-B: closing a client frees all that it holds and waits for.

use dlock_core::{Error, LossReason, Mode};

use super::fair::waiting;
use crate::case::Case;
use crate::scene::{LIMIT, PROMPT, Scene, within};
use crate::{Failure, Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "ATOM-B/close",
            "Closing a client frees its locks, ends its waits and tells its guards",
            close,
        ),
        Case::new(
            "ATOM-B/the-last-handle",
            "Dropping a client's last handle and guard frees everything",
            last_handle,
        ),
    ]
}

async fn close(scene: Scene) -> Verdict {
    let (one, two, three) = (scene.lock("one"), scene.lock("two"), scene.lock("three"));
    let (closing, other) = (scene.client("closing").await?, scene.client("other").await?);
    let first = closing.lock(&one, Mode::Exclusive).await?;
    let second = closing.lock(&two, Mode::ProtectedRead).await?;
    let theirs = other.lock(&three, Mode::Exclusive).await?;
    let waits = closing.ask(&three, Mode::Exclusive);
    waiting(&scene, &other, &three, 1).await?;
    let after = other.ask(&one, Mode::Exclusive);
    waiting(&scene, &other, &one, 1).await?;

    let work = closing.clone();
    // Its guards are dropped only after the close: the close itself must free them.
    let ended = tokio::spawn(async move {
        let reasons = (first.lost(LIMIT).await?, second.lost(LIMIT).await?);
        let held = first.is_held() || second.is_held();
        Verdict::Ok((reasons, held, first, second))
    });
    scene.history().note("closing", "closes");
    within(LIMIT, "close", work.client().close(LIMIT)).await??;
    let (reasons, held, first, second) = within(LIMIT, "the guards are told", ended).await???;
    ensure!(
        reasons == (LossReason::Closed, LossReason::Closed) && !held,
        "the guards were told {reasons:?}, held: {held}"
    );
    let now_other = after.granted(PROMPT).await?;
    match waits.result(PROMPT).await? {
        Err(Error::Closed | Error::Lost(_)) => {}
        unexpected => return Err(Failure::new(format!("the wait ended with {unexpected:?}"))),
    }
    waiting(&scene, &other, &three, 0).await?;
    scene.until_free(other.client(), &two, PROMPT).await?;
    let more = within(LIMIT, "a refusal", closing.client().lock(&two)).await?;
    ensure!(
        matches!(more, Err(Error::Closed)),
        "a closed client was told {more:?}"
    );
    drop((first, second));
    ensure!(
        now_other.is_held(),
        "a guard of the closed client freed somebody else's lock"
    );
    theirs.release().await?;
    now_other.release().await?;
    // A second close has nothing to do.
    within(LIMIT, "close again", closing.client().close(LIMIT)).await??;
    Ok(())
}

async fn last_handle(scene: Scene) -> Verdict {
    let (one, two) = (scene.lock("one"), scene.lock("two"));
    let (leaving, other) = (scene.client("leaving").await?, scene.client("other").await?);
    let first = leaving.lock(&one, Mode::Exclusive).await?;
    let second = leaving.lock(&two, Mode::Exclusive).await?;
    scene.history().note("leaving", "drops its client");
    drop(leaving);
    ensure!(
        first.is_held() && second.is_held(),
        "the guards do not outlive the client"
    );
    drop(first);
    drop(second);
    scene.until_free(other.client(), &one, LIMIT).await?;
    scene.until_free(other.client(), &two, LIMIT).await
}
