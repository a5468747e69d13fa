//! The watches of a session: a task that turns what happens in the store into pushes.
//!
//! One stream serves the whole session. One watch on it is on the session's own key: when that goes,
//! the session is over, and the core hears it at once. Each waiting claim has one more, on the nearest
//! of the conflicting claims ahead of it. So a release wakes those alone who wait for it. Granted claims
//! have none, but for those that the core asks to be told about: see [`listening`](crate::listening).
//!
//! A watch begins *at the present*. One that began at the revision of the request would miss nothing,
//! but the server serves those of the past every 100 ms only. So once the server has confirmed the
//! watch, the claim ahead is looked at once: if it is there now, its deletion will be an event. Nor is that
//! needed where nothing was written between the request and the watch, as the revision of the server's
//! confirmation tells: it never says less than the one after which the watch begins.
//!
//! When a claim goes that was the only one ahead, nothing else can stand in the way: claims come in at
//! the end, and one that is gone never returns. Then the event is the grant (WAKE), and nobody asks the
//! store. Otherwise a look finds out who else is ahead.
//!
//! The event is no grant where the session may have ended before it. That is so until the session has
//! been seen to stand since its own watch began: from then on, its end is an event that comes first. And
//! it is so when the claim that went is the session's own: the session's end deletes both in one
//! revision, and the events of one revision come in any order.
//!
//! The stream may break, its member may be given up, and a watch that fell behind may be cut off by a
//! compaction. Then watches are made anew, and each claim ahead is looked at once more. If all that
//! fails, the core still looks by itself.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dlock_core::mutants::{Mutant, is_on};
use dlock_core::{Claim, LossReason, Mailbox, StoreError, StoreErrorKind};
use etcd_client::{Event, EventType, WatchOptions, WatchRequestSender, WatchResponse};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};

use crate::claims::{Claims, Place, State};
use crate::error::answered;
use crate::link::{is_members_fault, patient};
use crate::listening::{Listened, Listening, arrivals};
use crate::transport::{Task, Wire};
use crate::txns::Ahead;

/// How long to wait before the first new try to watch, doubled each time up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// How long a member has to answer a look, or to begin a stream: longer where to connect took long.
const PATIENCE: Duration = Duration::from_secs(2);

/// The session's watches. The task ends with this value.
#[derive(Debug)]
pub(crate) struct Pushes {
    orders: mpsc::UnboundedSender<Order>,
    task: Mutex<Option<Task>>,
}

/// A claim that waits, and for whom.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) claim: Claim,
    pub(crate) place: Place,
    pub(crate) ahead: Ahead,
}

#[derive(Debug)]
enum Order {
    WatchOver(Box<Waiter>),
    Listen(Box<Listened>),
    Arrived(u64),
    Forget(u64),
}

impl Pushes {
    pub(crate) fn start(claims: Arc<Claims>, mailbox: Mailbox) -> Self {
        let (orders, received) = mpsc::unbounded_channel();
        let listener = Listener::new(claims, mailbox, received);
        Self {
            orders,
            task: Mutex::new(Some(Task::spawn(listener.run()))),
        }
    }

    /// Pushes when the claim is granted. Nothing changes if its claim ahead is watched already.
    pub(crate) fn watch_over(&self, waiter: Waiter) {
        // It cannot fail before the task has ended, and then nobody is to be told any more.
        let _ = self.orders.send(Order::WatchOver(Box::new(waiter)));
    }

    /// Returns once it is certain that it is pushed when the granted claim is contended.
    pub(crate) async fn listen(&self, claim: Claim, ticket: i64) -> Result<(), StoreError> {
        let (asker, answer) = oneshot::channel();
        let listened = Listened {
            claim,
            ticket,
            asker,
        };
        // Where the task has ended, the asker goes with the order.
        let _ = self.orders.send(Order::Listen(Box::new(listened)));
        let unknown = |_| StoreError::unavailable("the watches broke: others may wait unseen");
        answer.await.map_err(unknown)
    }

    /// The claim no longer waits: it is granted.
    pub(crate) fn arrived(&self, claim: u64) {
        let _ = self.orders.send(Order::Arrived(claim));
    }

    /// The claim is no more.
    pub(crate) fn forget(&self, claim: u64) {
        let _ = self.orders.send(Order::Forget(claim));
    }

    /// No more pushes.
    pub(crate) fn stop(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        *task = None;
    }
}

/// The id of a watch on its stream. It is never used twice.
pub(crate) type WatchId = i64;

/// Whose watch it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Session,
    /// The waiting claim of this number.
    Claim(u64),
    /// The granted claim of this number, which is listened for.
    Listened(u64),
}

struct Listener {
    claims: Arc<Claims>,
    mailbox: Mailbox,
    orders: mpsc::UnboundedReceiver<Order>,
    /// By the number of the claim: the claim, and its watch while it has one.
    waiters: HashMap<u64, (Waiter, Option<WatchId>)>,
    /// Empty while there is no stream.
    listening: Listening,
    watches: HashMap<WatchId, Subject>,
    /// Whether the session was seen to stand since its watch began.
    stands: bool,
    /// How long the member of this stream has to answer.
    patience: Duration,
    last_watch: WatchId,
    /// What is still to be sent on the stream.
    outbox: VecDeque<Message>,
    /// Polled as long as there is a stream, and gone with it.
    looks: FuturesUnordered<BoxFuture<'static, Looked>>,
}

enum Message {
    Watch(WatchId, Vec<u8>),
    /// Of the claims whose keys begin so.
    WatchArrivals(WatchId, String),
    Cancel(WatchId),
}

/// What a look found, and the watch that called for it: if there is another one now, it is out of date.
enum Looked {
    Session(WatchId, Result<bool, StoreError>),
    Ahead(WatchId, Result<bool, StoreError>),
    Behind(WatchId, Result<Option<i64>, StoreError>),
    Claim(u64, Result<State, StoreError>),
}

/// How it is known that a claim is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// By its event.
    Event,
    /// By a look, which saw that the session stands, too.
    Look,
}

/// The session is over.
struct Over;

impl Listener {
    fn new(claims: Arc<Claims>, mailbox: Mailbox, orders: mpsc::UnboundedReceiver<Order>) -> Self {
        Self {
            listening: Listening::new(Arc::clone(&claims), mailbox.clone()),
            claims,
            mailbox,
            orders,
            waiters: HashMap::new(),
            watches: HashMap::new(),
            stands: false,
            patience: PATIENCE,
            last_watch: 0,
            outbox: VecDeque::new(),
            looks: FuturesUnordered::new(),
        }
    }

    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.listen(&mut pause).await {
                Ok(Over) => return,
                Err(fault) => tracing::debug!(%fault, "the watches broke; watching again"),
            }
            self.looks.clear();
            self.listening.all_unknown();
            self.sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Orders are heard meanwhile: who asks to be told of others shall not wait for a stream.
    async fn sleep(&mut self, pause: Duration) {
        let mut slept = std::pin::pin!(tokio::time::sleep(pause));
        loop {
            tokio::select! {
                () = &mut slept => return,
                Some(order) = self.orders.recv() => {
                    self.obey(order);
                    self.listening.all_unknown();
                    self.looks.clear();
                }
            }
        }
    }

    /// Listens to one stream, until it breaks.
    async fn listen(&mut self, pause: &mut Duration) -> Result<Over, StoreError> {
        // It gives up by itself.
        let wire = self.claims.link().wire().await?;
        let listened = self.listen_on(&wire, pause).await;
        // Only what failed: a task that ends with its session has nothing against the member.
        if listened.as_ref().is_err_and(is_members_fault) {
            wire.abandon();
        }
        listened
    }

    async fn listen_on(&mut self, wire: &Wire, pause: &mut Duration) -> Result<Over, StoreError> {
        self.watches.clear();
        self.outbox.clear();
        self.stands = false;
        self.patience = PATIENCE.max(wire.patience.lasts());
        let first = self.new_watch(Subject::Session);
        let (key, mut client) = (self.claims.session_key(), wire.watch.clone());
        let began = patient(self.patience, async {
            // Its notices tell an idle session how far the store has come.
            let options = options(first).with_progress_notify();
            let watched = client.watch(key, Some(options)).await;
            watched.map_err(answered)
        });
        let (mut requests, mut responses) = began.await?.split();
        let waiting: Vec<u64> = self.waiters.keys().copied().collect();
        for claim in waiting {
            self.watch(claim);
        }
        loop {
            tokio::select! {
                () = wire.abandoned() => {
                    return Err(StoreError::unavailable("its member was given up"));
                }
                response = responses.message() => match response.map_err(answered)? {
                    Some(response) => {
                        if self.hear(&response)?.is_some() {
                            return Ok(Over);
                        }
                    }
                    None => return Err(StoreError::unavailable("the stream ended")),
                },
                // Not awaited elsewhere: the server may wait for its answers to be read first.
                sent = send(&mut requests, self.outbox.front()), if !self.outbox.is_empty() => {
                    sent?;
                    self.outbox.pop_front();
                }
                Some(looked) = self.looks.next() => {
                    if self.looked(looked)?.is_some() {
                        return Ok(Over);
                    }
                    if self.stands {
                        *pause = FIRST_PAUSE;
                    }
                }
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return Ok(Over),
                },
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Arrived(claim) => self.waits_no_more(claim),
            Order::Forget(claim) => {
                self.waits_no_more(claim);
                let watch = self.listening.forget(claim);
                self.unwatch(watch);
            }
            // Who asked has given up, and does not ask again.
            Order::Listen(listened) if listened.asker.is_closed() => {}
            Order::Listen(listened) => {
                let claim = listened.claim.id.number;
                let before = self.listening.forget(claim);
                self.unwatch(before);
                let watch = self.new_watch(Subject::Listened(claim));
                let lock = self.claims.lock_key(&listened.claim.name);
                self.outbox.push_back(Message::WatchArrivals(watch, lock));
                self.listening.add(*listened, watch);
                self.look_behind(watch, claim);
            }
            Order::WatchOver(waiter) => {
                let claim = waiter.claim.id.number;
                match self.waiters.get_mut(&claim) {
                    Some((known, Some(_))) if known.ahead.ticket == waiter.ahead.ticket => {
                        // Once it is the only one, it stays so: claims come in at the end.
                        known.ahead.sole |= waiter.ahead.sole;
                        known.ahead.seen = known.ahead.seen.max(waiter.ahead.seen);
                    }
                    _ => {
                        self.waits_no_more(claim);
                        self.waiters.insert(claim, (*waiter, None));
                        self.watch(claim);
                    }
                }
            }
        }
    }

    fn new_watch(&mut self, subject: Subject) -> WatchId {
        self.last_watch += 1;
        self.watches.insert(self.last_watch, subject);
        self.last_watch
    }

    /// Watches the claim ahead of this one.
    fn watch(&mut self, claim: u64) {
        let id = self.new_watch(Subject::Claim(claim));
        if let Some((waiter, watch)) = self.waiters.get_mut(&claim) {
            *watch = Some(id);
            let key = waiter.ahead.nearest.clone();
            self.outbox.push_back(Message::Watch(id, key));
        }
    }

    fn waits_no_more(&mut self, claim: u64) {
        if let Some((_, watch)) = self.waiters.remove(&claim) {
            self.unwatch(watch);
        }
    }

    fn unwatch(&mut self, watch: Option<WatchId>) {
        if let Some(watch) = watch.filter(|watch| self.watches.remove(watch).is_some()) {
            self.outbox.push_back(Message::Cancel(watch));
        }
    }

    fn hear(&mut self, response: &WatchResponse) -> Result<Option<Over>, StoreError> {
        let id = response.watch_id();
        self.claims.hear_of(response.header());
        if response.canceled() {
            let (revision, reason) = (response.compact_revision(), response.cancel_reason());
            if response.created() {
                let text = format!("the server refused a watch: {reason}");
                // Its login may have expired: the next connection has a new one.
                return Err(StoreError::unavailable(text));
            }
            // Otherwise it is one that nobody wants any more.
            return match self.watches.get(&id) {
                None => Ok(None),
                Some(Subject::Session) => {
                    let text = format!("a watch was cut off at revision {revision}: {reason}");
                    Err(StoreError::unavailable(text))
                }
                Some(Subject::Claim(claim)) => {
                    let claim = *claim;
                    self.watches.remove(&id);
                    self.watch(claim);
                    Ok(None)
                }
                Some(Subject::Listened(claim)) => {
                    let claim = *claim;
                    self.watches.remove(&id);
                    self.listening.unknown(claim);
                    Ok(None)
                }
            };
        }
        let Some(subject) = self.watches.get(&id).copied() else {
            return Ok(None);
        };
        if response.created() {
            let unknown = || StoreError::unavailable("a watch that begins nobody knows where");
            let header = response.header().ok_or_else(unknown)?;
            self.began(id, subject, header.revision());
        }
        let events = response.events();
        match subject {
            Subject::Listened(claim) => {
                let watch = self.listening.hear(claim, events);
                self.unwatch(watch);
                Ok(None)
            }
            Subject::Session => {
                let ends = |event: &Event| event.event_type() == EventType::Delete;
                Ok(events.iter().any(ends).then(|| {
                    self.mailbox.lost(LossReason::Revoked);
                    Over
                }))
            }
            Subject::Claim(claim) => {
                let waiter = self.waiters.get(&claim);
                if waiter.is_some_and(|(waiter, _)| waiter.ahead.ends_in(events)) {
                    self.gone(id, Seen::Event);
                }
                Ok(None)
            }
        }
    }

    /// The server has confirmed the watch, which tells of all that comes after this revision. What it is on
    /// may have gone before that.
    fn began(&mut self, id: WatchId, subject: Subject, begins: i64) {
        let (claims, patience) = (Arc::clone(&self.claims), self.patience);
        let look: BoxFuture<'static, Looked> = match subject {
            Subject::Session => Box::pin(async move {
                Looked::Session(id, patient(patience, claims.session_stands()).await)
            }),
            Subject::Claim(_) if is_on(Mutant::BlindWatch) => return,
            Subject::Claim(claim) => {
                let Some((waiter, _)) = self.waiters.get(&claim) else {
                    return;
                };
                if waiter.ahead.seen >= begins {
                    return;
                }
                let ahead = waiter.ahead.clone();
                Box::pin(async move {
                    Looked::Ahead(id, patient(patience, claims.is_there(&ahead)).await)
                })
            }
            Subject::Listened(claim) => {
                self.listening.begins(claim, begins);
                return self.settle(id, claim);
            }
        };
        self.looks.push(look);
    }

    /// Looks who waits behind a claim that is listened for.
    fn look_behind(&mut self, watch: WatchId, claim: u64) {
        if let Some(look) = self.listening.look(claim) {
            let look = patient(self.patience, look);
            let look = async move { Looked::Behind(watch, look.await) };
            self.looks.push(Box::pin(look));
        }
    }

    fn settle(&mut self, watch: WatchId, claim: u64) {
        if self.listening.settle(claim) {
            self.look_behind(watch, claim);
        }
    }

    fn looked(&mut self, looked: Looked) -> Result<Option<Over>, StoreError> {
        match looked {
            Looked::Session(watch, Ok(true)) => self.stands |= self.watches.contains_key(&watch),
            Looked::Ahead(_, Ok(true)) => {}
            Looked::Ahead(watch, Ok(false)) => self.gone(watch, Seen::Look),
            Looked::Ahead(watch, Err(fault)) => {
                if let Some(Subject::Claim(claim)) = self.watches.get(&watch) {
                    return Ok(self.unsure(*claim, &fault));
                }
            }
            Looked::Behind(_, Err(fault)) if fault.kind() == StoreErrorKind::Lapsed => {
                self.mailbox.lost(LossReason::Revoked);
                return Ok(Some(Over));
            }
            Looked::Behind(watch, found) => {
                if let Some(Subject::Listened(claim)) = self.watches.get(&watch).copied() {
                    let over = self.listening.looked(claim, found);
                    self.unwatch(over);
                    self.settle(watch, claim);
                }
            }
            Looked::Claim(claim, Ok(state)) => self.found(claim, state),
            Looked::Claim(claim, Err(fault)) => return Ok(self.unsure(claim, &fault)),
            // It is asked again, on a new stream. A heartbeat would not find out whether the store has gone
            // back in time.
            Looked::Session(watch, Err(fault)) if fault.kind() != StoreErrorKind::Lapsed => {
                if self.watches.contains_key(&watch) {
                    return Err(fault);
                }
            }
            Looked::Session(..) => {
                self.mailbox.lost(LossReason::Revoked);
                return Ok(Some(Over));
            }
        }
        Ok(None)
    }

    /// The claim that this watch was on is gone.
    fn gone(&mut self, watch: WatchId, seen: Seen) {
        let Some(Subject::Claim(claim)) = self.watches.get(&watch).copied() else {
            return;
        };
        self.unwatch(Some(watch));
        let Some((waiter, watch)) = self.waiters.get_mut(&claim) else {
            return;
        };
        *watch = None;
        let session_stood = match seen {
            Seen::Look => true,
            Seen::Event => self.stands && !self.claims.is_own(&waiter.ahead.nearest),
        };
        if (waiter.ahead.sole || is_on(Mutant::EventIsGrant)) && session_stood {
            return self.granted(claim);
        }
        let (claims, asked) = (Arc::clone(&self.claims), waiter.claim.clone());
        let patience = self.patience;
        self.looks.push(Box::pin(async move {
            Looked::Claim(claim, patient(patience, claims.look(&asked)).await)
        }));
    }

    fn granted(&mut self, claim: u64) {
        if let Some((waiter, _)) = self.waiters.get(&claim) {
            self.mailbox.granted(waiter.claim.id, waiter.place.token);
        }
        self.waits_no_more(claim);
    }

    /// What a look at a waiting claim found, after the claim ahead of it had gone.
    fn found(&mut self, claim: u64, state: State) {
        // If it is watched again, something newer is known of it.
        let Some((waiter, None)) = self.waiters.get_mut(&claim) else {
            return;
        };
        match state {
            State::Granted(_) => self.granted(claim),
            State::Waiting(_, ahead) => {
                waiter.ahead = ahead;
                self.watch(claim);
            }
            State::Absent => {
                self.mailbox.changed(waiter.claim.id);
                self.waits_no_more(claim);
            }
        }
    }

    /// Nothing is known: the core shall look. If the claim still waits then, it is watched again.
    fn unsure(&mut self, claim: u64, fault: &StoreError) -> Option<Over> {
        if fault.kind() == StoreErrorKind::Lapsed {
            self.mailbox.lost(LossReason::Revoked);
            return Some(Over);
        }
        tracing::debug!(%fault, "cannot see how a waiting claim stands");
        if let Some((waiter, _)) = self.waiters.get(&claim) {
            self.mailbox.changed(waiter.claim.id);
        }
        self.waits_no_more(claim);
        None
    }
}

fn options(id: WatchId) -> WatchOptions {
    WatchOptions::new().with_watch_id(id)
}

async fn send(
    requests: &mut WatchRequestSender,
    message: Option<&Message>,
) -> Result<(), StoreError> {
    let sent = match message {
        None => return Ok(()),
        Some(Message::Watch(id, key)) => {
            let options = match is_on(Mutant::PastWatch) {
                true => options(*id).with_start_revision(1),
                false => options(*id),
            };
            requests.watch(key.clone(), Some(options)).await
        }
        Some(Message::WatchArrivals(id, lock)) => {
            let options = arrivals(options(*id));
            requests.watch(lock.clone(), Some(options)).await
        }
        Some(Message::Cancel(id)) => requests.cancel(*id).await,
    };
    sent.map_err(answered)
}

#[cfg(test)]
#[path = "pushes_tests.rs"]
mod tests;
