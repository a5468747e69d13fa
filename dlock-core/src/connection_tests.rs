use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

use super::*;
use crate::StoreErrorKind;

/// Numbers the dials, and lets them end when it is told to.
#[derive(Clone, Default)]
struct Network {
    begun: Arc<AtomicUsize>,
    /// How many of the first dials fail.
    failing: usize,
    go: Arc<Notify>,
    alive: Arc<()>,
}

impl Network {
    fn dial(&self) -> impl Future<Output = Result<usize, StoreError>> + Send + 'static {
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let network = self.clone();
        async move {
            let _alive = &network.alive;
            network.go.notified().await;
            match number > network.failing {
                true => Ok(number),
                false => Err(StoreError::unavailable(format!("dial {number}"))),
            }
        }
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// Whether a dial is under way. There must be no other clone of this.
    fn is_dialing(&self) -> bool {
        Arc::strong_count(&self.alive) > 1
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// LIVE-B: or else a slow network would leave nobody a connection, ever.
#[tokio::test]
async fn a_dial_outlives_those_who_waited_for_it() {
    let (place, network) = (SharedConnection::new(), Network::default());
    let attempt = place.get(|_| true, || network.dial());
    assert!(attempt.now_or_never().is_none());
    settle().await;
    network.go.notify_one();
    settle().await;
    let next = place.get(|_| true, || network.dial());
    assert_eq!(next.now_or_never().unwrap().unwrap(), 1);
    assert_eq!(network.begun(), 1);
}

#[tokio::test]
async fn all_who_come_meanwhile_share_one_dial_also_if_one_of_them_is_not_polled() {
    let (place, network) = (Arc::new(SharedConnection::new()), Network::default());
    let mut kept = Box::pin(place.get(|_| true, || network.dial()));
    assert!((&mut kept).now_or_never().is_none());
    let others: Vec<_> = (0..5)
        .map(|_| {
            let (place, network) = (Arc::clone(&place), network.clone());
            tokio::spawn(async move { place.get(|_| true, || network.dial()).await })
        })
        .collect();
    settle().await;
    network.go.notify_one();
    for other in others {
        assert_eq!(other.await.unwrap().unwrap(), 1);
    }
    assert_eq!(network.begun(), 1);
    drop(kept);
}

#[tokio::test]
async fn one_that_cannot_be_used_is_replaced() {
    let (place, network) = (SharedConnection::holding(0), Network::default());
    assert_eq!(place.get(|_| true, || network.dial()).await.unwrap(), 0);
    network.go.notify_one();
    let next = place.get(|number| *number > 0, || network.dial()).await;
    assert_eq!(next.unwrap(), 1);
    assert_eq!(place.get(|_| true, || network.dial()).await.unwrap(), 1);
}

/// The failure of an older dial says how things were; that of one's own is an answer.
#[tokio::test]
async fn who_joined_a_dial_that_failed_waits_for_one_more() {
    for (failing, expected) in [(1, Ok(2)), (2, Err("dial 2".to_owned()))] {
        let place = Arc::new(SharedConnection::new());
        let network = Network {
            failing,
            ..Network::default()
        };
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let (place, network) = (Arc::clone(&place), network.clone());
                tokio::spawn(async move { place.get(|_| true, || network.dial()).await })
            })
            .collect();
        for dial in 1..=2 {
            settle().await;
            assert_eq!(network.begun(), dial);
            network.go.notify_one();
        }
        let mut results = Vec::new();
        for waiting in waiting {
            let result = tokio::time::timeout(Duration::from_secs(10), waiting).await;
            let result = result.expect("not for ever").unwrap();
            results.push(result.map_err(|fault| fault.to_string()));
        }
        assert_eq!(results[0], Err("dial 1".to_owned()), "its own");
        assert_eq!(results[1..], [expected.clone(), expected]);
        assert_eq!(network.begun(), 2);
    }
}

/// CANCEL: nothing is left that would go on for ever.
#[tokio::test]
async fn the_dial_ends_with_its_place() {
    let (place, network) = (SharedConnection::new(), Network::default());
    let attempt = place.get(|_| true, || network.dial());
    assert!(attempt.now_or_never().is_none());
    settle().await;
    assert!(network.is_dialing());
    drop(place);
    settle().await;
    assert!(!network.is_dialing());
}

#[test]
fn a_runtime_that_is_shut_down_leaves_the_place_to_the_next_one() {
    let (place, network) = (Arc::new(SharedConnection::new()), Network::default());
    let first = runtime();
    first.block_on(async {
        let attempt = place.get(|_| true, || network.dial());
        assert!(attempt.now_or_never().is_none());
        settle().await;
    });
    let second = runtime();
    let waiting = second.spawn({
        let (place, network) = (Arc::clone(&place), network.clone());
        async move { place.get(|_| true, || network.dial()).await }
    });
    second.block_on(settle());
    drop(first);
    let found = second.block_on(async {
        settle().await;
        network.go.notify_one();
        tokio::time::timeout(Duration::from_secs(10), waiting).await
    });
    assert_eq!(found.unwrap().unwrap().unwrap(), 2);
    // The other way round: nobody waited when it was shut down.
    let abandoned = SharedConnection::new();
    second.block_on(async {
        let attempt = abandoned.get(|_| true, || network.dial());
        assert!(attempt.now_or_never().is_none());
    });
    drop(second);
    let third = runtime();
    let found = third.block_on(async {
        network.go.notify_one();
        let attempt = abandoned.get(|_| true, || network.dial());
        tokio::time::timeout(Duration::from_secs(10), attempt).await
    });
    assert_eq!(found.unwrap().unwrap(), 4);
}

#[tokio::test]
async fn a_dial_that_panics_is_an_error() {
    let place = SharedConnection::<u32>::new();
    let attempt = place.get(|_| true, || async { panic!("as a test wants it") });
    let fault = attempt.await.unwrap_err();
    assert_eq!(fault.kind(), StoreErrorKind::Unavailable);
    assert_eq!(place.get(|_| true, || async { Ok(1) }).await.unwrap(), 1);
}
