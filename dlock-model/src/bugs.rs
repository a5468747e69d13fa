//! Known-bad variants of the protocols. A property that has never failed proves nothing: each of these is
//! found by at least one.

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A withdraw takes out whoever holds the lock, not the claim that it names.
    UncheckedWithdraw,
    /// A late request for a withdrawn claim is not refused.
    ForgottenWithdraw,
    /// The deadline counts from the answer to a renewal, not from its sending.
    DeadlineFromReply,
    /// A request that was given up counts as granted.
    GuessedOutcome,
    /// Nobody looks by itself: a grant whose push is lost stays unheard of.
    NeverLooks,
    /// A network that delivers a call twice, the second time after the first was answered: what Redis and
    /// etcd rely on a connection not to do. JetStream does not mind.
    RepeatedCalls,
    /// Redis: a request is compared with the holders alone, and goes past those who wait.
    Barging,
    /// Redis, JetStream: the last number goes with the last claim.
    ForgottenNumbers,
    /// etcd: the end of the nearest claim ahead is a grant, whoever else is ahead.
    EventIsGrant,
    /// etcd: the same, though the session may have ended before.
    UnseenEnd,
    /// etcd: a token is made of the base as it is now, not as it was at the ticket.
    BaseAsOfNow,
    /// etcd: nobody looks by itself, and not after a watch has begun either.
    BlindWatch,
    /// JetStream: a session's claims are removed before its death mark is committed.
    UnprovenDeath,
    /// JetStream: a document is written whatever has been written since it was read.
    UncheckedWrite,
    /// JetStream: a grant is told when it is sent to be written, not when that is acknowledged.
    ToldBeforeCommit,
    /// JetStream: a knock counts though the claim that it is for was withdrawn.
    LateKnock,
}
