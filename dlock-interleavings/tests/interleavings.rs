//! The client, the session's task and the coordinator in thousands of interleavings of their tasks.
//!
//! What the conformance suite cannot choose is who goes on when two may. Here it is chosen, at every
//! lock, channel and wake-up, over the in-memory store and a clock that moves by hand.

// Helpers belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

mod support;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::task::Poll;
use std::time::Duration;

use dlock_interleaved::memory::Fault;
use dlock_interleaved::{Client, Clock, Error, Guard, LossReason, Moment};
use support::{NAME, Scene, a_while, explore, random};
use tokio::task::yield_now;

/// More than the margin before the end of a lease of 10 s, and less than the lease.
const PAST_THE_DEADLINE: Duration = Duration::from_millis(9500);

/// Until here a session that is opened past the deadline of the first one surely stands.
fn past_the_next_deadline() -> Moment {
    Moment::default() + PAST_THE_DEADLINE + Duration::from_secs(9)
}

/// What a lock protects: it counts who is inside, and keeps the last token that it saw.
#[derive(Default)]
struct Resource {
    inside: AtomicUsize,
    last: AtomicU64,
}

impl Resource {
    async fn use_it(&self, guard: &Guard) {
        assert_eq!(self.inside.fetch_add(1, SeqCst), 0, "two are inside");
        let token = guard.token().get();
        assert!(
            self.last.swap(token, SeqCst) < token,
            "a token that does not rise"
        );
        yield_now().await;
        self.inside.fetch_sub(1, SeqCst);
    }
}

/// ATOM-A, FAIR, ATOM-B: whoever asks is served, one at a time, whether locks are released or dropped.
#[test]
fn tasks_of_one_client_are_never_inside_together() {
    explore(async |scene: Scene| {
        let (client, _) = scene.client().await;
        let resource = Arc::new(Resource::default());
        let tasks = [true, false, true].map(|release| {
            let (client, resource) = (client.clone(), resource.clone());
            tokio::spawn(async move {
                let guard = client.lock(NAME).await.unwrap();
                resource.use_it(&guard).await;
                if release {
                    guard.release().await.unwrap();
                }
            })
        });
        for task in tasks {
            task.await.unwrap();
        }
        scene.becomes_free().await;
    });
}

/// CANCEL: an acquire may be dropped wherever it is, and what follows it is served.
#[test]
fn a_dropped_acquire_leaves_nothing() {
    explore(async |scene: Scene| {
        let (client, _) = scene.client().await;
        let (other, _) = scene.client().await;
        let resource = Arc::new(Resource::default());
        let take = |client: &Client| {
            let (client, resource) = (client.clone(), resource.clone());
            tokio::spawn(async move {
                let guard = client.lock(NAME).await.unwrap();
                resource.use_it(&guard).await;
            })
        };
        let given_up = {
            let client = client.clone();
            tokio::spawn(async move { drop(client.lock(NAME).await) })
        };
        let served = [take(&client), take(&other)];
        a_while().await;
        given_up.abort();
        for task in served {
            task.await.unwrap();
        }
        scene.becomes_free().await;
    });
}

/// ATOM-B, WAKE: a release and the request of somebody else meet, and the lock changes hands.
#[test]
fn a_release_hands_over_to_whoever_asks_meanwhile() {
    explore(async |scene: Scene| {
        let (one, _) = scene.client().await;
        let (two, _) = scene.client().await;
        let guard = one.lock(NAME).await.unwrap();
        let first = guard.token();
        let asking = [one.clone(), two].map(|client| {
            tokio::spawn(async move {
                let guard = client.lock(NAME).await.unwrap();
                let token = guard.token();
                guard.release().await.unwrap();
                token
            })
        });
        guard.release().await.unwrap();
        let mut tokens = vec![first];
        for task in asking {
            tokens.push(task.await.unwrap());
        }
        assert!(tokens[1..].iter().all(|token| *token > first));
        tokens.dedup();
        assert_eq!(tokens.len(), 3);
        assert!(scene.is_free().await, "a release is confirmed by the store");
    });
}

/// ATOM-B, FAIR, CANCEL: clients that drop a guard and ask for the lock anew at once, which may be one operation,
/// are never inside together, and one of them may give up wherever it is.
#[test]
fn clients_give_a_lock_back_and_ask_anew() {
    static REPLACED: AtomicU64 = AtomicU64::new(0);
    explore(async |scene: Scene| {
        let resource = Arc::new(Resource::default());
        let (client, _) = scene.client().await;
        let first = client.lock(NAME).await.unwrap();
        let mut tasks = Vec::new();
        for _ in 0..2 {
            let ((client, _), resource) = (scene.client().await, resource.clone());
            tasks.push(tokio::spawn(async move {
                for _ in 0..3 {
                    let guard = client.lock(NAME).await.unwrap();
                    resource.use_it(&guard).await;
                }
            }));
        }
        // The scenario keeps the client: what is left behind is not freed with its session.
        let gives_up = tokio::spawn({
            let client = client.clone();
            async move {
                drop(first);
                drop(client.lock(NAME).await);
            }
        });
        a_while().await;
        gives_up.abort();
        for task in tasks {
            task.await.unwrap();
        }
        scene.becomes_free().await;
        drop(client);
        REPLACED.fetch_add(scene.store.operations().replacements, SeqCst);
    });
    assert!(REPLACED.load(SeqCst) > 1000, "{REPLACED:?} replacements");
}

/// LIVE-B, the output gate: once the deadline has passed nobody gets a guard of that session, and the
/// lock is soon free for others.
#[test]
fn nothing_is_granted_past_the_deadline() {
    explore(async |scene: Scene| {
        let (client, _) = scene.client().await;
        let (other, _) = scene.client().await;
        let passed = Arc::new(AtomicBool::new(false));
        let asking = {
            let (passed, clock) = (passed.clone(), scene.clock.clone());
            tokio::spawn(async move {
                let mut request = client.lock(NAME).into_future();
                let taken = poll_fn(|context| {
                    let late = passed.load(SeqCst);
                    let polled = request.as_mut().poll(context);
                    if let Poll::Ready(Ok(guard)) = &polled {
                        // If it is not of another session, which is opened after the clock has moved.
                        let held = guard.is_held() || clock.now() >= past_the_next_deadline();
                        assert!(!late || held, "granted past the deadline");
                    }
                    polled
                });
                if let Err(error) = taken.await {
                    assert!(matches!(error, Error::Lost(_)), "{error}");
                }
            })
        };
        a_while().await;
        scene.clock.advance(PAST_THE_DEADLINE);
        passed.store(true, SeqCst);
        let next = tokio::spawn(async move {
            // Its session is over too, or about to be: it asks in another one.
            while let Err(error) = other.lock(NAME).await {
                assert!(matches!(error, Error::Lost(_)), "{error}");
            }
        });
        while !(next.is_finished() && asking.is_finished()) {
            // What the first session could not free any more lapses.
            scene.clock.advance(Duration::from_millis(100));
            yield_now().await;
        }
        next.await.unwrap();
        asking.await.unwrap();
        // A session that is abandoned just before its deadline has no time left to be closed: it lapses.
        scene.clock.advance(Duration::from_secs(10));
        scene.becomes_free().await;
    });
}

/// LIVE-B, LIVE-A: whoever cannot reach the store knows of its loss before the next one has the lock,
/// wherever a renewal is at that time.
#[test]
fn a_holder_knows_before_the_next_one_is_granted() {
    explore(async |scene: Scene| {
        let (holder, link) = scene.client().await;
        let (waiter, _) = scene.client().await;
        let guard = Arc::new(holder.lock(NAME).await.unwrap());
        let waiting = {
            let guard = guard.clone();
            tokio::spawn(async move {
                let next = loop {
                    // The scheduler may keep the waiter too from renewing, or from opening in time.
                    if let Ok(next) = waiter.lock(NAME).await {
                        break next;
                    }
                };
                assert!(!guard.is_held(), "two hold the lock");
                assert!(next.token() > guard.token());
            })
        };
        let cut = tokio::spawn(async move {
            a_while().await;
            link.set(Fault::Silent);
        });
        let time_goes_by = async || {
            for _ in 0..10 {
                scene.clock.advance(Duration::from_millis(1700));
                for _ in 0..random(4) {
                    yield_now().await;
                }
            }
        };
        time_goes_by().await;
        cut.await.unwrap();
        time_goes_by().await;
        while !waiting.is_finished() {
            // Slowly now, for the waiter: an opening that failed is tried again after a time.
            scene.clock.advance(Duration::from_millis(100));
            yield_now().await;
        }
        waiting.await.unwrap();
        let reason = guard.lost().await;
        let expected = [LossReason::Expired, LossReason::StoreUnreachable];
        assert!(expected.contains(&reason), "{reason}");
    });
}

/// A client that is closed while somebody asks: the one that asks gets a lock of which it is told that
/// it is lost, or an error, and nothing is left.
#[test]
fn closing_and_asking_may_meet() {
    explore(async |scene: Scene| {
        let (client, _) = scene.client().await;
        let asking = [true, false].map(|keep| {
            let client = client.clone();
            tokio::spawn(async move {
                match client.lock(NAME).await {
                    Ok(guard) if keep => assert_eq!(guard.lost().await, LossReason::Closed),
                    Ok(guard) => drop(guard),
                    Err(Error::Closed) => {}
                    Err(Error::Lost(lost)) => assert_eq!(lost.reason, LossReason::Closed),
                    Err(error) => panic!("{error}"),
                }
            })
        });
        a_while().await;
        client.close(Duration::from_secs(1)).await.unwrap();
        assert!(scene.is_free().await, "closed, and something is left");
        for task in asking {
            task.await.unwrap();
        }
        assert!(scene.is_free().await, "something came after the end");
    });
}

/// The same while a lost session is replaced: the one that opens is closed as well.
#[test]
fn closing_and_opening_may_meet() {
    explore(async |scene: Scene| {
        let (client, _) = scene.client().await;
        scene.clock.advance(PAST_THE_DEADLINE);
        let asking = {
            let client = client.clone();
            tokio::spawn(async move {
                if let Ok(guard) = client.lock(NAME).await {
                    assert_eq!(guard.lost().await, LossReason::Closed);
                }
            })
        };
        a_while().await;
        client.close(Duration::from_secs(1)).await.unwrap();
        asking.await.unwrap();
        scene.becomes_free().await;
    });
}

/// ATOM-B: a guard is dropped and another one released while their session ends. Both find an end, and
/// the locks are free.
#[test]
fn guards_may_go_while_their_session_ends() {
    explore(async |scene: Scene| {
        let (client, link) = scene.client().await;
        let guard = client.lock(NAME).await.unwrap();
        let second = client.lock("m").await.unwrap();
        let ending = tokio::spawn(async move {
            a_while().await;
            match random(3) {
                0 => drop(client),
                1 => link.expire_sessions(),
                _ => client.close(Duration::from_secs(1)).await.unwrap(),
            }
        });
        let dropping = tokio::spawn(async move {
            a_while().await;
            drop(guard);
        });
        match second.release().await {
            Ok(()) => {}
            Err(Error::Lost(lost)) => {
                let expected = [LossReason::Closed, LossReason::Revoked];
                assert!(expected.contains(&lost.reason), "{lost}");
            }
            Err(error) => panic!("{error}"),
        }
        dropping.await.unwrap();
        ending.await.unwrap();
        scene.becomes_free().await;
    });
}
