//! The network: messages on their way, which may be lost, repeated, and delivered in any order.
//!
//! A *call* that its sender awaits is delivered at most once: that is what a connection gives, and what the
//! clients rely on when they take an answered request for one that cannot arrive any more. What arrives
//! twice are calls that were given up and asked again, answers, pushes and renewals.

use std::fmt::Debug;
use std::hash::Hash;

/// What a message says, in one of the protocols.
pub trait Body: Clone + Debug + Hash + Ord {
    /// The session that it is for; `None` for the store.
    fn recipient(&self) -> Option<u8>;
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Envelope<B> {
    /// The session whose operation on its way this belongs to.
    pub awaited_by: Option<u8>,
    /// For renewals and their answers: how many ticks ago the renewal was sent (LIVE-B).
    pub age: u8,
    /// What it says.
    pub body: B,
}

impl<B: Body> Envelope<B> {
    /// A message that belongs to no operation.
    pub fn new(body: B) -> Self {
        Self {
            awaited_by: None,
            age: 0,
            body,
        }
    }

    /// A call of this session's operation on its way, or the answer to it.
    pub fn awaited(session: u8, body: B) -> Self {
        Self {
            awaited_by: Some(session),
            ..Self::new(body)
        }
    }

    /// Whether it may arrive twice.
    pub(crate) fn may_be_repeated(&self) -> bool {
        self.awaited_by.is_none() || self.body.recipient().is_some()
    }
}

/// The messages on their way: a multiset, in order, so that equal states are the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Network<B>(Vec<Envelope<B>>);

impl<B> Default for Network<B> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<B: Body> Network<B> {
    /// Sends a message.
    pub fn send(&mut self, message: Envelope<B>) {
        let place = self.0.partition_point(|other| *other < message);
        self.0.insert(place, message);
    }

    /// Takes a message out.
    pub(crate) fn take(&mut self, message: &Envelope<B>) {
        if let Ok(place) = self.0.binary_search(message) {
            self.0.remove(place);
        }
    }

    /// All of them, equal ones beside each other.
    pub fn iter(&self) -> impl Iterator<Item = &Envelope<B>> {
        self.0.iter()
    }

    /// Nobody awaits the answer to this session's operation any more. Its call may still arrive.
    pub(crate) fn give_up(&mut self, session: u8) {
        self.0.retain(|message| {
            message.awaited_by != Some(session) || message.body.recipient().is_none()
        });
        self.change(|message| {
            if message.awaited_by == Some(session) {
                message.awaited_by = None;
            }
        });
    }

    /// The session listens no more.
    pub(crate) fn hang_up(&mut self, session: u8) {
        self.give_up(session);
        self.0
            .retain(|message| message.body.recipient() != Some(session));
    }

    pub(crate) fn change(&mut self, change: impl Fn(&mut Envelope<B>)) {
        self.0.iter_mut().for_each(change);
        self.0.sort_unstable();
    }
}
