//! The client on the in-memory store, with the clock moved by hand: what a session does when.

// The helpers below belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use dlock_core::memory::{Fault, MemoryLink, MemoryStore};
use dlock_core::{Client, Error, Guard, LossReason, ManualClock, Mode, Ttl};

const TTL: Duration = Duration::from_secs(10);

struct World {
    clock: ManualClock,
    store: MemoryStore,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::new();
        let store = MemoryStore::with_clock(Arc::new(clock.clone()));
        Self { clock, store }
    }

    async fn client(&self) -> (Client, MemoryLink) {
        let link = self.store.link();
        let builder = Client::builder(link.clone()).clock(Arc::new(self.clock.clone()));
        (
            builder.ttl(Ttl::new(TTL).unwrap()).connect().await.unwrap(),
            link,
        )
    }

    /// Lets time pass in small steps, and everybody act in each.
    async fn pass(&self, time: Duration) {
        const STEP: Duration = Duration::from_millis(100);
        for _ in 0..time.as_millis() / STEP.as_millis() {
            self.clock.advance(STEP);
            settle().await;
        }
    }
}

/// Lets every task run until it waits.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn lost(result: Result<Guard, Error>) -> LossReason {
    match result.unwrap_err() {
        Error::Lost(lost) => lost.reason,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_held_lock_is_renewed_at_a_third_of_the_ttl() {
    let world = World::new();
    let (client, _) = world.client().await;
    let guard = client.lock("a").await.unwrap();
    world.pass(TTL * 10).await;
    assert!(guard.is_held() && guard.remaining() > TTL / 2);
    let renewals = world.store.operations().renewals;
    assert!(
        (30..=34).contains(&renewals),
        "{renewals} renewals in ten TTLs"
    );
}

/// LIVE-B: told before the store frees it; a new session serves new requests.
#[tokio::test]
async fn a_holder_that_is_cut_off_is_told_first_and_comes_back_with_a_new_session() {
    for fault in [Fault::Silent, Fault::LostReplies, Fault::Unreachable] {
        let world = World::new();
        let (client, link) = world.client().await;
        let (other, _) = world.client().await;
        let guard = client.lock("a").await.unwrap();
        link.set(fault);
        let waiter = tokio::spawn(async move { other.lock("a").await });
        while guard.is_held() {
            assert!(!waiter.is_finished(), "two holders");
            world.pass(Duration::from_millis(100)).await;
        }
        assert_eq!(guard.lost().await, LossReason::StoreUnreachable);
        assert_eq!(guard.remaining(), Duration::ZERO);
        assert!(guard.protect(std::future::pending::<()>()).await.is_err());
        world.pass(TTL * 2).await;
        let second = waiter.await.unwrap().unwrap();
        assert!(second.token() > guard.token());
        link.clear();
        drop(second);
        let again = client.lock("a").await.unwrap();
        assert!(again.is_held() && !guard.is_held());
    }
}

#[tokio::test]
async fn a_stalled_process_is_told_at_once_when_it_goes_on() {
    let world = World::new();
    let (client, _) = world.client().await;
    let guard = client.lock("a").await.unwrap();
    world.clock.advance(TTL); // nobody ran meanwhile
    assert!(!guard.is_held());
    assert_eq!(guard.lost().await, LossReason::Expired);
    assert_eq!(lost_at_release(guard).await, LossReason::Expired);
    client.lock("a").await.unwrap().release().await.unwrap();
}

async fn lost_at_release(guard: Guard) -> LossReason {
    match guard.release().await.unwrap_err() {
        Error::Lost(lost) => lost.reason,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn what_the_store_ends_before_its_time_was_revoked() {
    let world = World::new();
    let (client, link) = world.client().await;
    let guard = client.lock("a").await.unwrap();
    link.expire_sessions();
    world.pass(TTL / 2).await;
    assert_eq!(guard.lost().await, LossReason::Revoked);
    let second = client.lock("a").await.unwrap();
    world.store.wipe();
    world.pass(TTL / 2).await;
    assert_eq!(second.lost().await, LossReason::Revoked);
    assert!(client.lock("a").await.unwrap().token() > second.token());
}

#[tokio::test]
async fn a_request_that_waits_when_its_session_is_lost_is_told() {
    let world = World::new();
    let (client, _) = world.client().await;
    let (other, link) = world.client().await;
    let _guard = client.lock("a").await.unwrap();
    let waiter = tokio::spawn(async move { other.lock("a").await });
    settle().await;
    link.expire_sessions();
    world.pass(TTL).await;
    assert_eq!(lost(waiter.await.unwrap()), LossReason::Revoked);
    let (observer, _) = world.client().await;
    assert!(observer.inspect("a").await.unwrap().waiters.is_empty());
}

/// A blip that is shorter than the lease is seen by nobody.
#[tokio::test]
async fn a_short_outage_is_ridden_out() {
    let world = World::new();
    let (client, link) = world.client().await;
    let guard = client.lock("a").await.unwrap();
    for fault in [Fault::Unreachable, Fault::Silent, Fault::LostReplies] {
        link.set(fault);
        let waiter = tokio::spawn({
            let client = client.clone();
            async move { client.lock("b").await }
        });
        world.pass(TTL / 2).await;
        assert!(!waiter.is_finished() && guard.is_held());
        link.clear();
        world.pass(TTL / 2).await;
        waiter.await.unwrap().unwrap().release().await.unwrap();
    }
}

#[tokio::test]
async fn a_time_out_says_how_long_and_who() {
    let world = World::new();
    let (client, _) = world.client().await;
    let (other, _) = world.client().await;
    let _guard = client.lock("a").label("the nightly report").await.unwrap();
    let waiter = tokio::spawn({
        let other = other.clone();
        async move {
            other
                .lock("a")
                .mode(Mode::ProtectedRead)
                .timeout(TTL / 2)
                .await
        }
    });
    settle().await;
    world.pass(TTL / 2).await;
    let Error::Timeout(error) = waiter.await.unwrap().unwrap_err() else {
        panic!()
    };
    assert_eq!((error.waited, error.holders.len()), (TTL / 2, 1));
    assert!(
        error.to_string().contains("the nightly report) in EX"),
        "{error}"
    );
    settle().await;
    assert!(other.inspect("a").await.unwrap().waiters.is_empty());
}

#[tokio::test]
async fn close_frees_everything_and_tells_the_guards() {
    let world = World::new();
    let (client, _) = world.client().await;
    let (other, _) = world.client().await;
    let guard = client.lock("a").await.unwrap();
    drop(client.lock("b").await.unwrap());
    client.close(TTL).await.unwrap();
    assert!(other.names().await.unwrap().is_empty());
    assert_eq!(guard.lost().await, LossReason::Closed);
    assert!(matches!(client.lock("a").await, Err(Error::Closed)));
    client.close(TTL).await.unwrap();
}

#[tokio::test]
async fn close_gives_up_at_its_limit_and_says_so() {
    let world = World::new();
    let (client, link) = world.client().await;
    let _guard = client.lock("a").await.unwrap();
    link.set(Fault::Unreachable);
    let closing = tokio::spawn({
        let client = client.clone();
        async move { client.close(Duration::from_secs(3)).await }
    });
    settle().await;
    world.pass(Duration::from_secs(4)).await;
    let error = closing.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("close the session"), "{error}");
    world.pass(TTL).await;
    assert!(world.store.link().names_now().await.is_empty());
}

/// The store's own list, for a test that has no client left.
trait Names {
    async fn names_now(&self) -> Vec<dlock_core::LockName>;
}

impl Names for MemoryLink {
    async fn names_now(&self) -> Vec<dlock_core::LockName> {
        dlock_core::Backend::names(self).await.unwrap()
    }
}

/// Nothing is lost by asking again in another session, so the user need not do it.
#[tokio::test]
async fn the_first_request_after_the_store_lost_the_session_opens_another_one() {
    let world = World::new();
    let (client, link) = world.client().await;
    world.store.wipe();
    client.lock("a").await.unwrap().release().await.unwrap();
    link.expire_sessions();
    assert!(client.lock("a").try_now().await.unwrap().is_some());
}

#[tokio::test]
async fn a_session_that_ended_before_it_was_used_is_not_used() {
    let world = World::new();
    let (client, link) = world.client().await;
    world.clock.advance(TTL);
    settle().await;
    link.set(Fault::Held);
    let begun = tokio::spawn({
        let client = client.clone();
        async move { client.lock("a").await }
    });
    settle().await;
    begun.abort();
    link.clear();
    link.deliver_held();
    settle().await;
    world.clock.advance(TTL * 2);
    world.pass(TTL).await;
    assert!(client.lock("a").await.unwrap().is_held());
}

#[tokio::test]
async fn close_keeps_to_its_limit_when_nobody_answers() {
    let world = World::new();
    let (client, link) = world.client().await;
    let _guard = client.lock("a").await.unwrap();
    link.set(Fault::Silent);
    let closing = tokio::spawn(async move { client.close(Duration::from_millis(300)).await });
    settle().await;
    world.pass(Duration::from_millis(500)).await;
    assert!(closing.is_finished());
    assert!(closing.await.unwrap().is_err());
}

#[tokio::test]
async fn a_client_that_is_closed_while_it_opens_a_session_grants_nothing() {
    let world = World::new();
    let (client, link) = world.client().await;
    world.clock.advance(TTL);
    settle().await;
    link.set(Fault::Held);
    let asked = tokio::spawn({
        let client = client.clone();
        async move { client.lock("a").await }
    });
    settle().await;
    let closing = tokio::spawn({
        let client = client.clone();
        async move { client.close(TTL).await }
    });
    settle().await;
    closing.abort();
    link.clear();
    link.deliver_held();
    assert!(matches!(asked.await.unwrap(), Err(Error::Closed)));
    settle().await;
    assert_eq!(
        world.store.operations().closes,
        2,
        "the lost session, and the one that opened late"
    );
}

#[tokio::test]
async fn a_time_out_names_holders_that_are_compatible_and_who_is_next() {
    let world = World::new();
    let (client, _) = world.client().await;
    let _reader = client
        .lock("a")
        .label("reader")
        .mode(Mode::ProtectedRead)
        .await
        .unwrap();
    let writer = tokio::spawn({
        let client = client.clone();
        async move { client.lock("a").label("writer").await }
    });
    settle().await;
    let blocked = tokio::spawn({
        let client = client.clone();
        async move {
            client
                .lock("a")
                .mode(Mode::ProtectedRead)
                .timeout(TTL / 10)
                .await
        }
    });
    settle().await;
    world.pass(TTL / 10).await;
    let error = blocked.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("(reader) in PR; next is"), "{error}");
    assert!(error.contains("(writer) in EX"), "{error}");
    writer.abort();
}

#[tokio::test]
async fn a_holder_is_told_that_somebody_else_waits_and_not_of_its_own_process() {
    let world = World::new();
    let (client, _) = world.client().await;
    let (other, _) = world.client().await;
    let guard = client.lock("a").await.unwrap();
    let ask = |asker: &Client| {
        let asker = asker.clone();
        tokio::spawn(async move { asker.lock("a").await })
    };
    let mine = ask(&client);
    settle().await;
    assert!(!guard.is_contended());
    let theirs = ask(&other);
    settle().await;
    assert!(guard.is_contended());
    drop(guard);
    assert!(mine.await.unwrap().unwrap().is_contended());
    drop(theirs.await.unwrap().unwrap());
}

/// CANCEL: the last handle gone, the session ends by itself.
#[tokio::test]
async fn a_client_that_is_dropped_ends_its_session_once_its_guards_are_gone() {
    let world = World::new();
    let (client, _) = world.client().await;
    let guard = client.lock("a").await.unwrap();
    drop(client);
    world.pass(TTL * 2).await;
    assert!(guard.is_held(), "a guard keeps its session alive");
    drop(guard);
    settle().await;
    assert_eq!(world.store.operations().closes, 1);
    let renewals = world.store.operations().renewals;
    world.pass(TTL).await;
    assert_eq!(
        world.store.operations().renewals,
        renewals,
        "nobody renews any more"
    );
}

#[test]
fn a_guard_is_dropped_outside_a_runtime_and_after_it() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_time()
        .build()
        .unwrap();
    let store = MemoryStore::new();
    let (client, first, second) = runtime.block_on(async {
        let client = Client::builder(store.link()).connect().await.unwrap();
        (
            client.clone(),
            client.lock("a").await.unwrap(),
            client.lock("b").await.unwrap(),
        )
    });
    drop(first);
    runtime.block_on(async { client.lock("a").await.unwrap().release().await.unwrap() });
    drop(runtime);
    assert!(!second.is_held(), "nobody renews it any more");
    drop(second);
    drop(client);
}

#[tokio::test]
async fn bad_names_and_short_ttls_are_errors_that_say_what_is_allowed() {
    let world = World::new();
    let (client, _) = world.client().await;
    let error = client.lock("").await.unwrap_err().to_string();
    assert!(error.contains("1 to 512 bytes"), "{error}");
    assert!(
        Ttl::new(Duration::from_millis(1))
            .unwrap_err()
            .to_string()
            .contains("20ms to 24h")
    );
}

/// A store that is out of reach for a moment, because it elects a leader, say, is waited for; one that
/// stays away is an error that says why.
#[tokio::test]
async fn opening_a_session_outlasts_a_short_outage() {
    let world = World::new();
    let (client, link) = world.client().await;
    world.clock.advance(TTL);
    settle().await;
    let ask = || {
        let client = client.clone();
        tokio::spawn(async move { client.lock("a").await })
    };
    link.set(Fault::Unreachable);
    let early = ask();
    world.pass(Duration::from_secs(8)).await;
    assert!(!early.is_finished());
    link.clear();
    world.pass(Duration::from_secs(1)).await;
    early.await.unwrap().unwrap().release().await.unwrap();

    link.set(Fault::Unreachable);
    world.clock.advance(TTL);
    settle().await;
    let late = ask();
    world.pass(Duration::from_secs(11)).await;
    assert!(late.is_finished());
    let error = late.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("out of reach"), "{error}");
}

/// A request that comes when the network is back does not fail with an opening of the outage.
#[tokio::test]
async fn an_opening_that_began_in_an_outage_fails_only_those_who_began_it() {
    let world = World::new();
    let (client, link) = world.client().await;
    world.clock.advance(TTL);
    settle().await;
    link.set(Fault::Silent);
    let ask = || {
        let client = client.clone();
        tokio::spawn(async move { client.lock("a").await })
    };
    let before = ask();
    // Into the last attempt of that opening.
    world.pass(Duration::from_secs(9)).await;
    link.clear();
    let after = ask();
    settle().await;
    assert!(!before.is_finished() && !after.is_finished());
    world.pass(TTL).await;
    assert!(matches!(before.await.unwrap(), Err(Error::Store { .. })));
    assert!(after.await.unwrap().unwrap().is_held());
}
