//! The gate by itself, below a coordinator whose tasks share nothing: what is asked of the store, in which
//! order, and what is told to whom.

use super::gate::LOOK_AT_LEAST_EVERY;
use super::gate::LOOK_AT_MOST_EVERY;
use super::*;
use crate::{Attempts, ClaimId, LockName, Owner};

pub(super) const NOW: Moment = Moment::since_zero(Duration::from_secs(100));
pub(super) const APART: Rules = Rules {
    hand_over: false,
    share: false,
    keep: Duration::ZERO,
    listen: false,
    replace: false,
    order_step: 1,
};

pub(super) struct Caller {
    pub(super) reply: Option<Reply>,
}

impl Caller {
    pub(super) fn answer(&mut self) -> Option<Answer> {
        match self.reply.take()? {
            Reply::Now(answer) => Some(answer),
            Reply::Later(mut answer) => match answer.try_recv() {
                Ok(answer) => Some(answer),
                Err(_) => {
                    self.reply = Some(Reply::Later(answer));
                    None
                }
            },
        }
    }

    /// `None`: not answered. `Some(None)`: taken.
    pub(super) fn token(&mut self) -> Option<Option<FencingToken>> {
        let answer = self.answer()?.expect("no failure");
        Some(answer.map(|granted| granted.token))
    }
}

pub(super) fn coordinator(rules: Rules) -> Coordinator {
    let (first, longest) = (Duration::from_millis(10), Duration::from_millis(100));
    let numbers = Arc::new(AtomicU64::new(1000));
    Coordinator::new(Backoff { first, longest }, rules, numbers)
}

pub(super) fn ask_in(
    coordinator: &mut Coordinator,
    number: Number,
    (mode, wait): (Mode, Wait),
    now: Moment,
) -> Caller {
    let claim = || Claim {
        id: ClaimId {
            session: 1.into(),
            number,
        },
        name: LockName::new("lock").unwrap(),
        mode,
        owner: Owner::this_process(),
    };
    let reply = coordinator.request((number, mode, wait), claim, now);
    Caller { reply: Some(reply) }
}

fn ask(coordinator: &mut Coordinator, number: Number, wait: Wait) -> Caller {
    ask_in(coordinator, number, (Mode::Exclusive, wait), NOW)
}

/// The operation that is to be performed now.
pub(super) fn perform(coordinator: &mut Coordinator, now: Moment) -> Operation {
    match coordinator.next(now) {
        Next::Perform(operation) => operation,
        other => panic!("nothing to perform: {other:?}"),
    }
}

/// What is asked of the store now, in words, answered with `result`.
pub(super) fn exchange(
    coordinator: &mut Coordinator,
    now: Moment,
    result: Result<Outcome, StoreError>,
) -> (&'static str, Number) {
    let operation = perform(coordinator, now);
    coordinator.answered(&operation, result, now);
    let number = operation.claim().id.number;
    match operation {
        Operation::Request(..) => ("request", number),
        Operation::Look(_) => ("look", number),
        Operation::Listen(_) => ("listen", number),
        Operation::Withdraw(_, Attempts::Answered) => ("withdraw", number),
        Operation::Withdraw(_, Attempts::Unanswered) => ("withdraw with a mark", number),
        Operation::Replace(..) => ("replace", number),
    }
}

pub(super) fn token() -> FencingToken {
    FencingToken::from_order(7)
}

pub(super) const GRANTED: Outcome = Outcome::Granted {
    token: FencingToken::from_order(7),
};
pub(super) const WAITING: Outcome = Outcome::Waiting { look_after: None };
pub(super) const LATER: Moment = Moment::since_zero(Duration::from_secs(200));

/// The input gate: one operation at a time, requests in their order.
#[test]
fn one_operation_is_on_its_way_and_requests_keep_their_order() {
    let mut gate = coordinator(APART);
    let _callers: Vec<Caller> = (1..=3).map(|n| ask(&mut gate, n, Wait::InTurn)).collect();
    let first = perform(&mut gate, NOW);
    assert!(
        matches!(gate.next(NOW), Next::Nothing),
        "a second one while the first is on its way"
    );
    gate.answered(&first, Ok(WAITING), NOW);
    assert_eq!(exchange(&mut gate, NOW, Ok(WAITING)), ("request", 2));
    assert_eq!(exchange(&mut gate, NOW, Ok(WAITING)), ("request", 3));
    assert!(matches!(gate.next(NOW), Next::At(at) if at == NOW + LOOK_AT_LEAST_EVERY));
}

#[test]
fn a_release_goes_before_a_crowd_of_requests() {
    let mut gate = coordinator(APART);
    let mut holder = ask(&mut gate, 1, Wait::InTurn);
    exchange(&mut gate, NOW, Ok(GRANTED));
    assert_eq!(holder.token(), Some(Some(token())));
    let _crowd: Vec<Caller> = (2..50).map(|n| ask(&mut gate, n, Wait::InTurn)).collect();
    assert!(gate.release(1, NOW).is_some());
    assert_eq!(
        exchange(&mut gate, NOW, Ok(Outcome::Absent)),
        ("withdraw", 1)
    );
    assert_eq!(gate.take_gone(), [1]);
}

/// CANCEL: what was never sent needs no withdraw.
#[test]
fn a_request_that_was_dropped_before_it_was_sent_is_just_gone() {
    let mut gate = coordinator(APART);
    drop(ask(&mut gate, 1, Wait::InTurn));
    gate.cancel(1, NOW);
    assert!(gate.is_idle() && matches!(gate.next(NOW), Next::Nothing));
}

/// CANCEL, ONCE: dropped on its way and never answered: withdrawn with a mark.
#[test]
fn a_request_that_was_dropped_on_its_way_is_withdrawn_after_its_answer() {
    for (result, expected) in [
        (Ok(GRANTED), ("withdraw", 1)),
        (Ok(WAITING), ("withdraw", 1)),
        (
            Err(StoreError::ambiguous("lost")),
            ("withdraw with a mark", 1),
        ),
        (Err(StoreError::unconfirmed("alone")), ("withdraw", 1)),
    ] {
        let mut gate = coordinator(APART);
        let mut caller = ask(&mut gate, 1, Wait::InTurn);
        let request = perform(&mut gate, NOW);
        gate.cancel(1, NOW);
        assert!(
            matches!(gate.next(NOW), Next::Nothing),
            "the request is still on its way"
        );
        gate.answered(&request, result, NOW);
        assert!(caller.answer().is_none());
        assert_eq!(exchange(&mut gate, NOW, Ok(Outcome::Absent)), expected);
        assert!(gate.is_idle());
    }
    for result in [Ok(Outcome::Absent), Err(StoreError::refused("no"))] {
        let mut gate = coordinator(APART);
        ask(&mut gate, 1, Wait::Never);
        let request = perform(&mut gate, NOW);
        gate.cancel(1, NOW);
        gate.answered(&request, result, NOW);
        assert!(gate.is_idle(), "there is nothing to withdraw");
    }
}

/// ONCE: no outcome is guessed; the earlier copy is not forgotten.
#[test]
fn an_unanswered_request_is_repeated_and_leaves_with_a_mark() {
    let mut gate = coordinator(APART);
    let mut caller = ask(&mut gate, 1, Wait::InTurn);
    exchange(&mut gate, NOW, Err(StoreError::ambiguous("lost")));
    assert!(caller.answer().is_none());
    assert!(
        matches!(gate.next(NOW), Next::At(at) if at > NOW),
        "it is not repeated at once"
    );
    assert_eq!(exchange(&mut gate, LATER, Ok(GRANTED)), ("request", 1));
    assert_eq!(caller.token(), Some(Some(token())));
    gate.release(1, NOW);
    assert_eq!(
        exchange(&mut gate, LATER, Ok(Outcome::Absent)),
        ("withdraw with a mark", 1)
    );
}

/// ONCE: a try that is answered "taken" after an unanswered attempt still has a copy on its way.
#[test]
fn a_try_that_was_repeated_is_withdrawn_although_it_was_not_granted() {
    let mut gate = coordinator(APART);
    let mut caller = ask(&mut gate, 1, Wait::Never);
    exchange(&mut gate, NOW, Err(StoreError::ambiguous("lost")));
    exchange(&mut gate, LATER, Ok(Outcome::Absent));
    assert_eq!(caller.token(), Some(None));
    assert_eq!(
        exchange(&mut gate, LATER, Ok(Outcome::Absent)),
        ("withdraw with a mark", 1)
    );
    assert!(gate.is_idle());
}

/// ATOM-B: a withdraw is tried until it is confirmed, and only then told.
#[test]
fn a_withdraw_is_retried_until_it_is_confirmed() {
    let mut gate = coordinator(APART);
    let _holder = ask(&mut gate, 1, Wait::InTurn);
    exchange(&mut gate, NOW, Ok(GRANTED));
    let mut confirmation = gate.release(1, NOW).expect("it is withdrawn");
    let errors = [
        StoreError::ambiguous("lost"),
        StoreError::unavailable("loading"),
    ];
    let mut now = NOW;
    for error in errors
        .into_iter()
        .chain([StoreError::refused("out of memory")])
    {
        assert_eq!(exchange(&mut gate, now, Err(error)), ("withdraw", 1));
        assert!(confirmation.try_recv().is_err());
        assert!(matches!(gate.next(now), Next::At(at) if at > now));
        assert!(!gate.is_drained());
        now = now + Duration::from_secs(1);
    }
    assert_eq!(
        exchange(&mut gate, now, Ok(Outcome::Absent)),
        ("withdraw", 1)
    );
    assert_eq!(confirmation.try_recv(), Ok(Ok(())));
    assert!(gate.is_drained());
}

#[test]
fn a_push_may_be_faster_than_the_answer() {
    let mut gate = coordinator(APART);
    let mut caller = ask(&mut gate, 1, Wait::InTurn);
    let request = perform(&mut gate, NOW);
    gate.push_granted(1, token(), NOW);
    assert_eq!(caller.token(), Some(Some(token())));
    gate.answered(&request, Ok(WAITING), NOW);
    assert!(
        matches!(gate.next(LATER), Next::Nothing),
        "it waits no more"
    );
    assert_eq!(gate.held().count(), 1);
}

/// WAKE: a hint is a reason to look, and nothing else.
#[test]
fn a_hint_is_looked_into() {
    let mut gate = coordinator(APART);
    let mut caller = ask(&mut gate, 1, Wait::InTurn);
    let request = perform(&mut gate, NOW);
    gate.push_changed(1, NOW); // before the answer
    gate.answered(&request, Ok(WAITING), NOW);
    assert_eq!(exchange(&mut gate, NOW, Ok(WAITING)), ("look", 1));
    assert!(matches!(gate.next(NOW), Next::At(_)));
    gate.push_changed(1, NOW); // while it waits
    assert!(caller.answer().is_none());
    assert_eq!(exchange(&mut gate, NOW, Ok(GRANTED)), ("look", 1));
    assert_eq!(caller.token(), Some(Some(token())));
    gate.push_changed(1, NOW); // and when it is granted
    gate.push_granted(9, token(), NOW); // or is not known
    assert!(matches!(gate.next(LATER), Next::Nothing));
}

/// WAKE: it looks when the store says, and at least every few seconds.
#[test]
fn a_waiting_claim_is_looked_at_in_time() {
    let soon = Duration::from_millis(50);
    for (look_after, expected) in [
        (Some(soon), soon),
        (Some(Duration::ZERO), LOOK_AT_MOST_EVERY),
        (None, LOOK_AT_LEAST_EVERY),
        (Some(Duration::from_secs(3600)), LOOK_AT_LEAST_EVERY),
    ] {
        let mut gate = coordinator(APART);
        let _caller = ask(&mut gate, 1, Wait::InTurn);
        exchange(&mut gate, NOW, Ok(Outcome::Waiting { look_after }));
        assert!(matches!(gate.next(NOW), Next::At(at) if at == NOW + expected));
        assert_eq!(
            exchange(&mut gate, NOW + expected, Ok(WAITING)),
            ("look", 1)
        );
    }
}

#[test]
fn a_claim_that_the_store_does_not_have_is_asked_for_again() {
    let mut gate = coordinator(APART);
    let _caller = ask(&mut gate, 1, Wait::InTurn);
    exchange(&mut gate, NOW, Ok(WAITING));
    assert_eq!(exchange(&mut gate, LATER, Ok(Outcome::Absent)), ("look", 1));
    assert!(
        matches!(gate.next(LATER), Next::At(_)),
        "not without a pause"
    );
    let later = LATER + Duration::from_secs(1);
    assert_eq!(exchange(&mut gate, later, Ok(GRANTED)), ("request", 1));
}

/// FAIR: while the oldest request waits to be repeated, no younger one goes before it.
#[test]
fn requests_keep_their_order_over_a_failure() {
    let mut gate = coordinator(APART);
    let _callers: Vec<Caller> = (1..=2).map(|n| ask(&mut gate, n, Wait::InTurn)).collect();
    exchange(&mut gate, NOW, Err(StoreError::unavailable("loading")));
    assert!(matches!(gate.next(NOW), Next::At(at) if at > NOW));
    assert_eq!(exchange(&mut gate, LATER, Ok(WAITING)), ("request", 1));
    assert_eq!(exchange(&mut gate, LATER, Ok(WAITING)), ("request", 2));
}

#[test]
fn a_try_that_the_store_queues_all_the_same_is_taken_and_withdrawn() {
    let mut gate = coordinator(APART);
    let mut caller = ask(&mut gate, 1, Wait::Never);
    exchange(&mut gate, NOW, Ok(WAITING));
    assert_eq!(caller.token(), Some(None));
    assert_eq!(
        exchange(&mut gate, NOW, Ok(Outcome::Absent)),
        ("withdraw", 1)
    );
}

#[test]
fn a_refusal_is_told_and_what_may_have_taken_effect_is_withdrawn() {
    let mut gate = coordinator(APART);
    let mut caller = ask(&mut gate, 1, Wait::InTurn);
    exchange(&mut gate, NOW, Err(StoreError::refused("out of memory")));
    assert!(matches!(caller.answer(), Some(Err(Failure::Store(_)))));
    assert!(gate.is_idle());
    let mut caller = ask(&mut gate, 2, Wait::InTurn);
    exchange(&mut gate, NOW, Err(StoreError::unconfirmed("no replica")));
    assert!(matches!(caller.answer(), Some(Err(Failure::Store(_)))));
    assert_eq!(
        exchange(&mut gate, NOW, Ok(Outcome::Absent)),
        ("withdraw", 2)
    );
}

#[test]
fn when_the_session_is_lost_everybody_is_told() {
    let mut gate = coordinator(APART);
    let mut waiting = ask(&mut gate, 1, Wait::InTurn);
    let mut holder = ask(&mut gate, 2, Wait::InTurn);
    exchange(&mut gate, NOW, Ok(WAITING));
    exchange(&mut gate, NOW, Ok(GRANTED));
    let Some(Ok(Some(held))) = holder.answer() else {
        panic!("it is not granted");
    };
    gate.push_contended(2, NOW);
    assert!(held.contended.load(Ordering::Relaxed));
    let mut confirmation = gate.release(2, NOW).expect("it is withdrawn");
    gate.lost(LossReason::Expired);
    assert!(matches!(
        waiting.answer(),
        Some(Err(Failure::Lost(LossReason::Expired)))
    ));
    assert_eq!(confirmation.try_recv(), Ok(Err(LossReason::Expired)));
}

/// A waiting claim that is hinted at all the time does not keep requests back.
#[test]
fn hints_do_not_starve_requests() {
    let mut gate = coordinator(APART);
    let _hinted = ask(&mut gate, 1, Wait::InTurn);
    exchange(&mut gate, NOW, Ok(WAITING));
    let _second = ask(&mut gate, 2, Wait::InTurn);
    gate.push_changed(1, LATER);
    assert_eq!(exchange(&mut gate, LATER, Ok(WAITING)), ("request", 2));
    assert_eq!(exchange(&mut gate, LATER, Ok(WAITING)), ("look", 1));
}

/// A lock that is given back and asked for anew, at a store that can do both in one operation. Returns
/// who asks anew, and the confirmation that the first claim has gone.
fn given_back_and_asked_for(gate: &mut Coordinator) -> (Caller, Confirmation) {
    let _holder = ask(gate, 1, Wait::InTurn);
    exchange(gate, NOW, Ok(GRANTED));
    let confirmation = gate.release(1, NOW).expect("it is withdrawn");
    (ask(gate, 2, Wait::InTurn), confirmation)
}

const REPLACING: Rules = Rules {
    replace: true,
    ..APART
};

#[test]
fn a_withdraw_and_the_next_request_are_one_operation_where_the_store_can_do_it() {
    let mut gate = coordinator(REPLACING);
    let (mut caller, mut confirmation) = given_back_and_asked_for(&mut gate);
    let _third = ask(&mut gate, 3, Wait::InTurn);
    let operation = perform(&mut gate, NOW);
    assert!(
        matches!(&operation, Operation::Replace(leaving, claim)
            if (leaving.id.number, claim.id.number) == (1, 2)),
        "{operation:?}"
    );
    assert!(matches!(gate.next(NOW), Next::Nothing));
    gate.answered(&operation, Ok(GRANTED), NOW);
    assert_eq!(confirmation.try_recv(), Ok(Ok(())));
    assert_eq!(caller.token(), Some(Some(token())));
    assert_eq!(exchange(&mut gate, NOW, Ok(WAITING)), ("request", 3));

    let mut gate = coordinator(APART);
    let _both = given_back_and_asked_for(&mut gate);
    let absent = Ok(Outcome::Absent);
    assert_eq!(exchange(&mut gate, NOW, absent), ("withdraw", 1));
    assert_eq!(exchange(&mut gate, NOW, Ok(GRANTED)), ("request", 2));
}

/// ATOM-B, ONCE: when the operation that was both has failed, each is asked for by itself, and whoever may
/// have been requested leaves with a mark.
#[test]
fn a_replacement_that_failed_is_withdrawn_and_asked_for_by_itself() {
    for (fault, leaves) in [
        (StoreError::ambiguous("lost"), "withdraw with a mark"),
        (StoreError::unavailable("loading"), "withdraw"),
    ] {
        let mut gate = coordinator(REPLACING);
        let (mut caller, mut confirmation) = given_back_and_asked_for(&mut gate);
        assert_eq!(exchange(&mut gate, NOW, Err(fault)), ("replace", 2));
        assert!(caller.answer().is_none() && confirmation.try_recv().is_err());
        let absent = Ok(Outcome::Absent);
        assert_eq!(exchange(&mut gate, LATER, absent), ("withdraw", 1));
        assert_eq!(confirmation.try_recv(), Ok(Ok(())));
        assert_eq!(exchange(&mut gate, LATER, Ok(GRANTED)), ("request", 2));
        assert_eq!(caller.token(), Some(Some(token())));
        gate.release(2, LATER);
        let absent = Ok(Outcome::Absent);
        assert_eq!(exchange(&mut gate, LATER, absent), (leaves, 2));
        assert!(gate.is_idle());
    }
}

/// A store that refuses the request has not withdrawn either.
#[test]
fn a_replacement_that_is_refused_frees_the_claim_all_the_same() {
    let mut gate = coordinator(REPLACING);
    let (mut caller, mut confirmation) = given_back_and_asked_for(&mut gate);
    let full = StoreError::refused("out of memory");
    assert_eq!(exchange(&mut gate, NOW, Err(full)), ("replace", 2));
    assert!(matches!(caller.answer(), Some(Err(Failure::Store(_)))));
    assert!(confirmation.try_recv().is_err());
    let absent = Ok(Outcome::Absent);
    assert_eq!(exchange(&mut gate, LATER, absent), ("withdraw", 1));
    assert_eq!(confirmation.try_recv(), Ok(Ok(())));
    assert!(gate.is_idle());
}

/// CANCEL: whoever leaves while the operation is on its way is withdrawn after its answer.
#[test]
fn who_leaves_while_it_replaces_is_withdrawn() {
    for (result, leaves) in [
        (Ok(WAITING), "withdraw"),
        (Err(StoreError::ambiguous("lost")), "withdraw with a mark"),
    ] {
        let mut gate = coordinator(REPLACING);
        let (mut caller, confirmation) = given_back_and_asked_for(&mut gate);
        let operation = perform(&mut gate, NOW);
        gate.cancel(2, NOW);
        let withdrawn = result.is_ok();
        gate.answered(&operation, result, NOW);
        assert!(caller.answer().is_none());
        let absent = Ok(Outcome::Absent);
        assert_eq!(exchange(&mut gate, NOW, absent), (leaves, 2));
        if !withdrawn {
            let absent = Ok(Outcome::Absent);
            assert_eq!(exchange(&mut gate, LATER, absent), ("withdraw", 1));
        }
        assert!(gate.is_idle());
        drop(confirmation);
    }
}

/// A hint about a claim that is on its way is not lost, whichever operation it is.
#[test]
fn a_hint_about_a_claim_that_replaces_is_looked_into() {
    let mut gate = coordinator(REPLACING);
    let (_caller, _confirmation) = given_back_and_asked_for(&mut gate);
    let operation = perform(&mut gate, NOW);
    gate.push_changed(2, NOW);
    gate.answered(&operation, Ok(WAITING), NOW);
    assert_eq!(exchange(&mut gate, NOW, Ok(WAITING)), ("look", 2));
}
