//! HONEST: contention is a value, and what cannot be is an error that names it.

use std::time::Duration;

use dlock_core::memory::MemoryStore;
use dlock_core::url::StoreUrl;
use dlock_core::{Client, Error, Mode, Ttl};

use super::fair::waiting;
use crate::case::Case;
use crate::scene::{GRACE, LIMIT, LONG, Scene, within};
use crate::wrap::Limited;
use crate::{Failure, Verdict, ensure, stores};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "HONEST/try",
            "A try on a held lock says so at once and changes nothing; on a free one it is granted",
            try_now,
        ),
        Case::new(
            "HONEST/time-out",
            "A request that times out says how long it waited and who holds the lock, and leaves nothing",
            time_out,
        ),
        Case::new(
            "HONEST/unsupported-mode",
            "A mode that the backend cannot grant is an error that names it and those it can",
            unsupported_mode,
        ),
        Case::new(
            "HONEST/short-ttl",
            "A lease shorter than the backend can keep is refused when connecting",
            short_ttl,
        ),
        Case::new(
            "HONEST/impossible-names",
            "An empty name, one of 513 bytes and one with a NUL are errors before anything is sent",
            impossible_names,
        ),
        Case::new(
            "HONEST/unknown-option",
            "An option that no store knows is an error that names it and those that there are",
            |_| unknown_option(),
        ),
    ]
}

async fn try_now(scene: Scene) -> Verdict {
    let (lock, free) = (scene.lock("held"), scene.lock("free"));
    let (holder, other) = (scene.client("holder").await?, scene.client("other").await?);
    let held = holder.lock(&lock, Mode::Exclusive).await?;
    let before = holder.client().inspect(&lock).await?;
    for mode in Mode::ALL.into_iter().skip(1) {
        let start = scene.history().now();
        let tried = other.try_lock(&lock, mode).await?;
        let took = scene.history().now() - start;
        ensure!(tried.is_none(), "a try was granted {mode} beside EX");
        ensure!(took < GRACE, "a try took {took:?}");
    }
    let after = holder.client().inspect(&lock).await?;
    ensure!(
        before == after,
        "refused tries changed the lock:\n{before:?}\n{after:?}"
    );
    let free_guard = other.try_lock(&free, Mode::Exclusive).await?;
    let free_guard = free_guard.ok_or_else(|| Failure::new("a try on a free lock was refused"))?;
    held.release().await?;
    free_guard.release().await?;
    // Nothing of the refused tries may turn up later either.
    scene.until_free(holder.client(), &lock, LIMIT).await?;
    let again = other.try_lock(&lock, Mode::Exclusive).await?;
    let again = again.ok_or_else(|| Failure::new("a try was refused after the release"))?;
    again.release().await
}

async fn time_out(scene: Scene) -> Verdict {
    // It asks who holds the lock for a tenth of it: enough for a busy store.
    const TIMEOUT: Duration = Duration::from_secs(4);
    let lock = scene.lock("busy");
    let (holder, other) = (scene.client("holder").await?, scene.client("other").await?);
    let held = holder.lock(&lock, Mode::ProtectedWrite).await?;
    let start = scene.history().now();
    let asking = other.client().lock(&lock).mode(Mode::ConcurrentWrite);
    let result = within(LIMIT, "a request times out", asking.timeout(TIMEOUT)).await?;
    let took = scene.history().now() - start;
    let error = match result {
        Err(Error::Timeout(error)) => error,
        other => return Err(Failure::new(format!("expected a time-out, got {other:?}"))),
    };
    let text = error.to_string();
    ensure!(
        took >= TIMEOUT && took < TIMEOUT + GRACE,
        "it was to wait {TIMEOUT:?}, and returned after {took:?}"
    );
    ensure!(
        error.name.as_str() == lock && error.mode == Mode::ConcurrentWrite,
        "the error is about another request: {text}"
    );
    ensure!(
        error.waited >= TIMEOUT && error.waited <= took,
        "it says that it waited {:?}, and returned after {took:?}",
        error.waited
    );
    ensure!(
        error.holders.len() == 1
            && error.holders[0].owner.label == "holder"
            && text.contains("holder"),
        "it does not say who holds the lock: {text}"
    );
    // Below the lease: it was withdrawn, it did not lapse.
    waiting(&scene, &holder, &lock, 0).await?;
    ensure!(held.is_held(), "the holder lost its lock");
    held.release().await?;
    scene.until_free(holder.client(), &lock, LIMIT).await
}

async fn unsupported_mode(scene: Scene) -> Verdict {
    let limited = scene.client_through("limited", LONG, |inner| {
        std::sync::Arc::new(Limited::new(inner))
    });
    let limited = limited.await?;
    let lock = scene.lock("limited");
    let asked = limited.client().lock(&lock).mode(Mode::ProtectedRead);
    match within(LIMIT, "the refusal", asked).await? {
        Err(error @ Error::UnsupportedMode { .. }) => {
            let text = error.to_string();
            ensure!(
                text.contains("PR") && text.contains("EX") && text.contains(&lock),
                "the error does not name the mode, the lock and what is possible: {text}"
            );
        }
        other => return Err(Failure::new(format!("expected a refusal, got {other:?}"))),
    }
    limited.lock(&lock, Mode::Exclusive).await?.release().await
}

async fn short_ttl(scene: Scene) -> Verdict {
    let limited = Limited::new(scene.link().await?.backend);
    let least = dlock_core::Backend::capabilities(&limited).min_ttl;
    let short = Ttl::new(least - Duration::from_millis(1))?;
    match Client::builder(limited).ttl(short).connect().await {
        Err(Error::Config(error)) => {
            let text = error.to_string();
            ensure!(
                text.contains("ttl"),
                "the error does not name the option: {text}"
            );
            Ok(())
        }
        other => Err(Failure::new(format!("expected a refusal, got {other:?}"))),
    }
}

/// Nothing is connected to: it is the same for every store.
async fn unknown_option() -> Verdict {
    let mut urls = vec!["memory://"];
    if cfg!(feature = "redis") {
        urls.push("redis://localhost");
    }
    if cfg!(feature = "etcd") {
        urls.push("etcd://localhost");
    }
    if cfg!(feature = "jetstream") {
        urls.push("nats://localhost");
    }
    for url in urls {
        // One letter more, and it would be one that is known.
        let wrong = format!("{url}?namespac=a");
        let refused = match url {
            "memory://" => {
                let mut parsed = StoreUrl::parse(&wrong)?;
                MemoryStore::from_url(&mut parsed).and_then(|_| parsed.finish())
            }
            _ => stores::at_url(&wrong).map(drop),
        };
        let text = match refused {
            Err(error) => error.to_string(),
            Ok(()) => return Err(Failure::new(format!("{wrong} is taken for granted"))),
        };
        ensure!(
            text.contains("namespac:") && text.contains("namespace"),
            "{wrong}: the error does not name the option, and what is possible: {text}"
        );
    }
    Ok(())
}

async fn impossible_names(scene: Scene) -> Verdict {
    let client = scene.client("client").await?;
    for name in ["", &"x".repeat(513), "a\0b"] {
        let locked = within(LIMIT, "the refusal", client.client().lock(name)).await?;
        ensure!(
            matches!(locked, Err(Error::Name(_))),
            "{name:?}: {locked:?}"
        );
        let seen = client.client().inspect(name).await;
        ensure!(matches!(seen, Err(Error::Name(_))), "{name:?}: {seen:?}");
    }
    Ok(())
}
