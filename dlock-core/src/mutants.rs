//! Known-bad variants of the code, so that the conformance suite can show that it catches them.
//!
//! Without the feature `mutants` [`is_on`] is a constant `false`, and with it all are off until the
//! environment variable [`VARIABLE`] names one. A mutant is chosen once in a process and handed down
//! to the processes that it starts.

/// The environment variable that switches a mutant on, by its [`Mutant::name`].
pub const VARIABLE: &str = "DLOCK_MUTANT";

/// Declares the mutants: each with its name, and what it breaks, which begins with the rule's id.
macro_rules! mutants {
    ($($mutant:ident $name:literal: $what:literal,)*) => {
        /// What is broken, and the guarantee that it breaks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Mutant {
            $(#[doc = $what] $mutant,)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &'static [Mutant] = &[$(Mutant::$mutant),*];

            /// The name by which [`VARIABLE`] switches it on.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Mutant::$mutant => $name,)*
                }
            }

            /// The id of the rule that it breaks, a colon, and how.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self {
                    $(Mutant::$mutant => $what,)*
                }
            }
        }
    };
}

mutants! {
    // Of the core, and of every backend that has the same thing to do.
    UncheckedRelease "unchecked-release":
        "ATOM-B: a withdraw frees whoever holds the lock, not the claim that it names.",
    SingleWithdraw "single-withdraw":
        "ATOM-B: a withdraw that fails is not repeated.",
    HalfReplacement "half-replacement":
        "ATOM-B: a claim that was to leave in the operation that requests another counts as gone if that fails.",
    DeadlineFromReply "deadline-from-reply":
        "LIVE-B: the deadline counts from the reply to a renewal, not from its sending.",
    NoMargin "no-margin":
        "LIVE-B: the deadline is the end of the lease itself, without a margin.",
    LateDeadline "late-deadline":
        "LIVE-B: the holder counts on its lease for four times its length.",
    NoOutputGate "no-output-gate":
        "LIVE-B: a grant that is heard of past the deadline is reported all the same.",
    HintIsGrant "hint-is-grant":
        "WAKE: a push that only says \"look\" is taken for a grant.",
    NeverLooks "never-looks":
        "WAKE: a waiter never looks by itself, and a grant whose push is lost stays unheard of.",
    ForgottenWithdraw "forgotten-withdraw":
        "ONCE: a request does not test whether its claim was withdrawn before it arrived.",
    GuessedOutcome "guessed-outcome":
        "ONCE: an attempt that was given up counts as one that never reached the store.",
    RepeatedClaim "repeated-claim":
        "ONCE: a request that is repeated is not known again, and makes a second claim.",
    LeakedClaim "leaked-claim":
        "CANCEL: dropping an acquire that waits leaves its claim in the store.",
    SwappedTable "swapped-table":
        "ATOM-A: the rows of PR and CW change places in the table.",
    Overtaking "overtaking":
        "FAIR: a request is compared with the holders alone, and goes past those who wait.",
    UnsweptClaims "unswept-claims":
        "LIVE-A: the claims of a session that has died stay where they are.",
    RevivedSession "revived-session":
        "LIVE-A: a renewal that comes after the lease has run out counts, and the session lives on.",
    TokensFromZero "tokens-from-zero":
        "FENCE: tokens count from zero, not on the scale of time.",
    IgnoredOption "ignored-option":
        "HONEST: an option in a store's URL that nobody knows is passed over in silence.",
    Hoarding "hoarding":
        "FAIR: a process passes its claim on among its tasks although another session waits.",
    SharedPastWriter "shared-past-writer":
        "FAIR: a request joins a claim of its process although an earlier one that conflicts waits.",
    SameToken "same-token":
        "FENCE: a claim that is passed on inside a process keeps its token.",
    KeptFromTasks "kept-from-tasks":
        "FAIR: a claim that is kept is not given back when a task of the same process needs another mode.",
    // Redis.
    UnconfirmedPush "unconfirmed-push":
        "COMMITTED: a push is a grant, although the replicas have not confirmed it.",
    LibraryTimeout "library-timeout":
        "ONCE: the client library's own limit of 500 ms ends an attempt, not the core's.",
    // etcd.
    EventIsGrant "event-is-grant":
        "ATOM-A: the end of the nearest claim ahead is a grant, whoever else is ahead.",
    BlindWatch "blind-watch":
        "WAKE: a claim that has gone before the watch on it began is not noticed.",
    PastWatch "past-watch":
        "WAKE: a watch begins in the past, which the server serves every 100 ms only.",
    // JetStream.
    BlindWrite "blind-write":
        "ATOM-A: a document is written whatever has been written since it was read.",
    LostTtl "lost-ttl":
        "LIVE-A: a key that is written again has no TTL, and nobody counts by a clock of his own.",
    DeleteMarkers "delete-markers":
        "HONEST: the bucket is made with delete markers, with which replicas erased renewals.",
}

/// Whether this process runs with that mutant. Never without the feature `mutants`.
#[cfg(not(feature = "mutants"))]
#[must_use]
#[inline]
pub const fn is_on(_: Mutant) -> bool {
    false
}

/// Whether this process runs with that mutant.
///
/// # Panics
///
/// When [`VARIABLE`] names no mutant: a test that switches on nothing would prove nothing.
#[cfg(feature = "mutants")]
#[must_use]
pub fn is_on(mutant: Mutant) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<Mutant>> = std::sync::OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var(VARIABLE).ok()?;
        let found = Mutant::ALL.iter().find(|mutant| mutant.name() == name);
        assert!(found.is_some(), "{VARIABLE}={name}: no such mutant");
        found.copied()
    }) == Some(mutant)
}

/// By how many milliseconds [`wall_clock`](crate::wall_clock) is ahead.
#[cfg(feature = "mutants")]
static AHEAD: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(0);

/// Sets this process's [`wall_clock`](crate::wall_clock) ahead by so many milliseconds, or back.
#[cfg(feature = "mutants")]
pub fn set_wall_clock_ahead(millis: i64) {
    AHEAD.store(millis, std::sync::atomic::Ordering::Relaxed);
}

#[cfg(feature = "mutants")]
pub(crate) fn jumped(time: std::time::SystemTime) -> std::time::SystemTime {
    let millis = AHEAD.load(std::sync::atomic::Ordering::Relaxed);
    let by = std::time::Duration::from_millis(millis.unsigned_abs());
    let jumped = if millis < 0 {
        time.checked_sub(by)
    } else {
        time.checked_add(by)
    };
    jumped.unwrap_or(time)
}
