use dlock_core::{ClaimId, FencingToken, Inbox, LockName, Mode, Owner, Push, SessionId};
use futures_util::FutureExt;

use super::*;
use crate::keys::{Layout, Slot};
use crate::link::Link;
use crate::options::EtcdOptions;
use crate::transport::Dialer;

const SESSION: u128 = 1;

fn claim(session: u128, number: u64) -> Claim {
    Claim {
        id: ClaimId {
            session: SessionId::from(session),
            number,
        },
        name: LockName::new("n").unwrap(),
        mode: Mode::Exclusive,
        owner: Owner::this_process(),
    }
}

/// A listener whose claim 7 waits for one of another session alone, on a stream of which nothing has been
/// heard; the store is out of reach.
struct Scene {
    link: Arc<Link>,
    listener: Listener,
    inbox: Inbox,
    session: WatchId,
    ahead: WatchId,
}

impl Scene {
    fn new(session_ahead: u128) -> Self {
        Self::at(1, session_ahead)
    }

    /// With the store at this port.
    fn at(port: u16, session_ahead: u128) -> Self {
        let mut options = EtcdOptions::new("127.0.0.1", port);
        options.connect_timeout = PATIENCE / 4;
        let link = Arc::new(Link::new(&options, Dialer::new(&options).unwrap()));
        let layout = Layout::new(options.namespace.clone());
        let ahead = Slot {
            session: SessionId::from(session_ahead),
            number: 0,
        };
        let nearest = layout.slot(&LockName::new("n").unwrap(), Mode::Exclusive, ahead);
        let claims = Claims::unopened(Arc::clone(&link), layout, SessionId::from(SESSION));
        let (mailbox, inbox) = Mailbox::new();
        let (_, orders) = mpsc::unbounded_channel();
        let mut listener = Listener::new(Arc::new(claims), mailbox, orders);
        let session = listener.new_watch(Subject::Session);
        listener.obey(Order::WatchOver(Box::new(Waiter {
            claim: claim(SESSION, 7),
            place: Place {
                ticket: 9,
                token: FencingToken::from_order(9),
            },
            ahead: Ahead {
                nearest: nearest.into_bytes(),
                ticket: 3,
                sole: true,
                seen: 9,
            },
        })));
        let ahead = listener.last_watch;
        Self {
            link,
            listener,
            inbox,
            session,
            ahead,
        }
    }

    /// Listens for a claim: its watch, and where the answer comes.
    fn listens(&mut self) -> (WatchId, oneshot::Receiver<()>) {
        let (asker, answer) = oneshot::channel();
        let listened = Listened {
            claim: claim(SESSION, 8),
            ticket: 3,
            asker,
        };
        self.listener.obey(Order::Listen(Box::new(listened)));
        (self.listener.last_watch, answer)
    }

    fn pushed(&mut self) -> Option<Push> {
        self.inbox.next().now_or_never().flatten()
    }
}

fn granted() -> Option<Push> {
    let id = claim(SESSION, 7).id;
    Some(Push::Granted(id, FencingToken::from_order(9)))
}

/// ATOM-A, WAKE: an event is a grant only where the session's end would have been heard first.
#[test]
fn an_event_is_a_grant_while_the_session_is_known_to_stand() {
    for (session_ahead, stands, is_granted) in [
        (SESSION + 1, true, true),
        (SESSION + 1, false, false),
        (SESSION, true, false),
    ] {
        let mut scene = Scene::new(session_ahead);
        if stands {
            let looked = Looked::Session(scene.session, Ok(true));
            assert!(scene.listener.looked(looked).is_ok());
        }
        scene.listener.gone(scene.ahead, Seen::Event);
        assert_eq!(scene.pushed(), granted().filter(|_| is_granted));
        assert_eq!(scene.listener.looks.is_empty(), is_granted, "or a look");
    }
}

#[test]
fn what_a_look_has_seen_is_a_grant() {
    let mut scene = Scene::new(SESSION);
    let looked = Looked::Ahead(scene.ahead, Ok(false));
    assert!(scene.listener.looked(looked).is_ok());
    assert_eq!(scene.pushed(), granted());
}

/// A session of which nobody knows whether it stands is asked about again, on a new stream.
#[test]
fn a_failed_look_at_the_session_breaks_the_stream() {
    let unknown = || Err(StoreError::unavailable("no answer"));
    let mut scene = Scene::new(SESSION);
    let looked = Looked::Session(scene.session, unknown());
    assert!(scene.listener.looked(looked).is_err());
    let of_an_older_stream = Looked::Session(scene.session - 1, unknown());
    assert!(scene.listener.looked(of_an_older_stream).is_ok());
    assert!(!scene.listener.stands);
    for over in [Ok(false), Err(StoreError::lapsed())] {
        let looked = scene.listener.looked(Looked::Session(scene.session, over));
        assert!(matches!(looked, Ok(Some(Over))));
        assert_eq!(scene.pushed(), Some(Push::Lost(LossReason::Revoked)));
    }
}

/// FAIR: nothing is passed on where a look at who waits has failed; and one for an earlier watch says nothing.
#[test]
fn a_failed_look_behind_a_claim_counts_as_contended() {
    let unknown = || Err(StoreError::unavailable("no answer"));
    let mut scene = Scene::new(SESSION + 1);
    let (watch, mut answer) = scene.listens();
    let earlier = Looked::Behind(watch - 1, unknown());
    assert!(scene.listener.looked(earlier).is_ok());
    assert_eq!(scene.pushed(), None);
    let looked = Looked::Behind(watch, unknown());
    assert!(scene.listener.looked(looked).is_ok());
    assert_eq!(scene.pushed(), Some(Push::Contended(claim(SESSION, 8).id)));
    assert!(answer.try_recv().is_err(), "it is not known");
    let last = scene.listener.outbox.back();
    assert!(matches!(last, Some(Message::Cancel(id)) if *id == watch));
    let over = Looked::Behind(watch, Err(StoreError::lapsed()));
    assert!(matches!(scene.listener.looked(over), Ok(Some(Over))));
    assert_eq!(scene.pushed(), Some(Push::Lost(LossReason::Revoked)));
}

/// WAKE: whatever is written between the request and the watch may be the end of the claim ahead.
#[test]
fn the_claim_ahead_is_looked_at_if_something_was_written_before_the_watch() {
    for (begins, is_looked_at) in [(8, false), (9, false), (10, true)] {
        let mut scene = Scene::new(SESSION + 1);
        let (watch, subject) = (scene.ahead, Subject::Claim(7));
        scene.listener.began(watch, subject, begins);
        assert_eq!(!scene.listener.looks.is_empty(), is_looked_at, "{begins}");
    }
}

/// FAIR: who comes between the look and the watch is seen by neither: then another look is made, before the
/// answer is given.
#[test]
fn nothing_is_left_out_between_look_and_watch() {
    for (begins, looks_first) in [(8, true), (8, false), (9, true), (10, true), (10, false)] {
        let mut scene = Scene::new(SESSION + 1);
        let (watch, mut answer) = scene.listens();
        assert_eq!(scene.listener.looks.len(), 1, "it is not waited for");
        let began = |scene: &mut Scene| {
            (scene.listener).began(watch, Subject::Listened(8), begins);
        };
        let looked = |scene: &mut Scene, revision| {
            let looked = Looked::Behind(watch, Ok(Some(revision)));
            assert!(scene.listener.looked(looked).is_ok());
        };
        if looks_first {
            looked(&mut scene, 9);
            assert!(answer.try_recv().is_err());
            began(&mut scene);
        } else {
            began(&mut scene);
            assert!(answer.try_recv().is_err());
            looked(&mut scene, 9);
        }
        let is_left_out = begins > 9;
        assert_eq!(scene.listener.looks.len(), 1 + usize::from(is_left_out));
        assert_eq!(answer.try_recv().is_err(), is_left_out, "{begins}");
        if is_left_out {
            looked(&mut scene, 11);
            assert_eq!(answer.try_recv(), Ok(()));
        }
        assert_eq!(scene.pushed(), None);
    }
}

/// LIVE-A, ATOM-B: a look that is making the connection when the stream breaks keeps nobody from it, although
/// it is polled no more.
#[tokio::test]
async fn a_look_of_a_broken_stream_holds_nobody_up() {
    // It takes connections, and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut scene = Scene::at(silent.local_addr().unwrap().port(), SESSION + 1);
    scene.listener.gone(scene.ahead, Seen::Event);
    assert!(scene.listener.looks.next().now_or_never().is_none());
    let another = scene.link.wire();
    let mut another = std::pin::pin!(another);
    assert!((&mut another).now_or_never().is_none());
    let listening = tokio::spawn(scene.listener.run());
    let refused = tokio::time::timeout(PATIENCE * 10, another).await;
    assert!(refused.expect("a turn").is_err());
    assert!(!listening.is_finished());
}
