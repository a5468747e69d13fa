//! The order of grants in the store, and the tokens that it leaves room for.

// Helpers belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use dlock_core::{Attempts, Mode, Outcome, Wait};
use support::{Client, Server, is_waiting};

const LONG: Duration = Duration::from_secs(600);

/// FENCE: a grant has room for hand-overs within its process, also where the order is ahead of the clock.
#[tokio::test]
async fn grants_are_so_far_apart_as_the_core_is_told() {
    let server = Server::redis().await;
    let backend = server.connect("?partitions=1").await.unwrap();
    let mut client = Client::open(&backend, LONG).await;
    let (step, ahead) = (client.session().order_step(), 1 << 52);
    let mut raw = server.raw().await;
    let key = "dlock:{default.0}:last";
    let () = raw.run(&["SET", key, &format!("{ahead:016}")]).await;
    let mut last = ahead;
    let mut rises = |outcome: Outcome| {
        let Outcome::Granted { token } = outcome else {
            panic!("{outcome:?}");
        };
        assert!(
            token.order() >= last + step,
            "{} after {last}",
            token.order()
        );
        last = token.order();
    };
    for _ in 0..3 {
        let [first, second] = [(); 2].map(|()| client.claim("n", Mode::Exclusive));
        let session = client.session();
        rises(session.request(&first, Wait::InTurn).await.unwrap());
        let behind = session.request(&second, Wait::InTurn).await.unwrap();
        assert!(is_waiting(behind));
        session.withdraw(&first, Attempts::Answered).await.unwrap();
        rises(session.status(&second).await.unwrap());
        session.withdraw(&second, Attempts::Answered).await.unwrap();
    }
}
