//! Known-bad variants of the code, so that the conformance suite can show that it catches them.
//!
//! Without the feature `mutants` [`is_on`] is a constant `false`, and with it all are off until the
//! environment variable [`VARIABLE`] names one. A mutant is chosen once in a process and handed down
//! to the processes that it starts.

/// The environment variable that switches a mutant on, by its [`Mutant::name`].
pub const VARIABLE: &str = "DLOCK_MUTANT";

/// What is broken, and the guarantee that it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mutant {
    /// ATOM-B: a withdraw frees whoever holds the lock, not the claim that it names.
    UncheckedRelease,
    /// LIVE-B: the deadline counts from the reply to a renewal, not from its sending.
    DeadlineFromReply,
    /// WAKE: a push that only says "look" is taken for a grant.
    HintIsGrant,
    /// ONCE: a request does not test whether its claim was withdrawn before it arrived.
    ForgottenWithdraw,
    /// CANCEL: dropping an acquire that waits leaves its claim in the store.
    LeakedClaim,
    /// ATOM-A: the rows of PR and CW change places in the table.
    SwappedTable,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 6] = [
        Mutant::UncheckedRelease,
        Mutant::DeadlineFromReply,
        Mutant::HintIsGrant,
        Mutant::ForgottenWithdraw,
        Mutant::LeakedClaim,
        Mutant::SwappedTable,
    ];

    /// The name by which [`VARIABLE`] switches it on.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Mutant::UncheckedRelease => "unchecked-release",
            Mutant::DeadlineFromReply => "deadline-from-reply",
            Mutant::HintIsGrant => "hint-is-grant",
            Mutant::ForgottenWithdraw => "forgotten-withdraw",
            Mutant::LeakedClaim => "leaked-claim",
            Mutant::SwappedTable => "swapped-table",
        }
    }
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
        let found = Mutant::ALL.into_iter().find(|mutant| mutant.name() == name);
        assert!(found.is_some(), "{VARIABLE}={name}: no such mutant");
        found
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
