//! Hand-over, sharing and keeping: who is served from whose claim, and what that costs the store.

use super::gate_tests::{
    APART, Caller, GRANTED, LATER, NOW, WAITING, ask_in, coordinator, exchange, token,
};
use super::*;
use Mode::{ConcurrentRead, Exclusive, ProtectedRead};
use Wait::{InTurn, Never};

const TOGETHER: Rules = Rules {
    hand_over: true,
    share: true,
    keep: Duration::ZERO,
    listen: false,
    replace: false,
    order_step: 1,
};
const KEEPING: Rules = Rules {
    keep: Duration::from_millis(200),
    ..TOGETHER
};
const SOON: Moment = Moment::since_zero(Duration::from_millis(100_001));
const ABSENT: Result<Outcome, StoreError> = Ok(Outcome::Absent);

fn lock(coordinator: &mut Coordinator, number: Number) -> Caller {
    ask_in(coordinator, number, (Exclusive, InTurn), NOW)
}

/// The turn and the token of a request that is granted.
fn granted(caller: &mut Caller) -> (Number, u64) {
    let answer = caller.answer().expect("an answer").expect("no failure");
    let granted = answer.expect("it is not taken");
    (granted.turn, granted.token.get() - token().get())
}

/// A coordinator with one exclusive claim that is granted.
fn held(rules: Rules) -> (Coordinator, Number) {
    let mut coordinator = coordinator(rules);
    let mut holder = lock(&mut coordinator, 1);
    exchange(&mut coordinator, NOW, Ok(GRANTED));
    let (turn, local) = granted(&mut holder);
    assert_eq!(local, 0);
    (coordinator, turn)
}

fn asks_nothing(coordinator: &mut Coordinator) -> bool {
    !matches!(coordinator.next(SOON), Next::Perform(_))
}

/// FAIR, FENCE: first come first served, with the next token, and the store is not asked.
#[test]
fn a_claim_is_passed_on_in_order_and_without_the_store() {
    let (mut one, turn) = held(TOGETHER);
    let mut callers: Vec<Caller> = (2..=4).map(|n| lock(&mut one, n)).collect();
    assert!(asks_nothing(&mut one));
    for (caller, local) in callers.iter_mut().zip(1..) {
        assert!(caller.answer().is_none());
        assert!(one.release(turn, SOON).is_none());
        assert_eq!(granted(caller), (turn, local));
        assert!(asks_nothing(&mut one));
    }
    let mut confirmation = one.release(turn, SOON).expect("nobody is left");
    assert_eq!(exchange(&mut one, SOON, ABSENT), ("withdraw", 1));
    assert_eq!(confirmation.try_recv(), Ok(Ok(())));
    assert!(one.is_idle());
}

/// FENCE: when the tokens of a grant are used up, the claim goes back. The store says how many there are.
#[test]
fn a_claim_goes_back_when_its_tokens_are_used_up() {
    for order_step in [1, 16] {
        let (mut one, turn) = held(Rules {
            order_step,
            ..TOGETHER
        });
        for local in 1..1024 * order_step {
            let mut next = lock(&mut one, local + 1);
            assert!(one.release(turn, SOON).is_none());
            assert_eq!(granted(&mut next), (turn, local));
        }
        let mut next = lock(&mut one, 20_000);
        assert!(one.release(turn, SOON).is_some());
        assert_eq!(exchange(&mut one, SOON, ABSENT), ("withdraw", 1));
        let (asked, number) = exchange(&mut one, SOON, Ok(GRANTED));
        assert_eq!((asked, granted(&mut next)), ("request", (number, 0)));
    }
}

/// FENCE, CANCEL: those who have gone use up no tokens, however many they are.
#[test]
fn those_who_have_gone_use_up_no_tokens() {
    let (mut one, turn) = held(TOGETHER);
    for number in 2..2000 {
        lock(&mut one, number).reply = None;
    }
    let mut next = lock(&mut one, 2000);
    assert!(one.release(turn, SOON).is_none());
    assert_eq!(granted(&mut next), (turn, 1));
}

/// FAIR: whoever came before another session waited is served before it, and whoever came later has a
/// place in the store behind it.
#[test]
fn those_who_came_before_another_session_go_first() {
    let (mut one, turn) = held(TOGETHER);
    let mut before: Vec<Caller> = (2..=3).map(|n| lock(&mut one, n)).collect();
    one.push_contended(turn, SOON);
    assert!(asks_nothing(&mut one));
    let mut after = lock(&mut one, 4);
    assert_eq!(exchange(&mut one, SOON, Ok(WAITING)), ("request", 4));
    // However long they hold it.
    for (caller, local) in before.iter_mut().zip(1..) {
        assert!(one.release(turn, LATER).is_none());
        assert_eq!(granted(caller), (turn, local));
    }
    assert!(one.release(turn, LATER).is_some());
    assert_eq!(exchange(&mut one, LATER, ABSENT), ("withdraw", 1));
    assert!(after.answer().is_none());
    one.push_granted(4, token(), LATER);
    assert_eq!(granted(&mut after), (4, 0));
}

/// FAIR: those who came later are served early a bounded number of times.
#[test]
fn a_contended_claim_is_lent_a_bounded_number_of_times() {
    let (mut one, turn) = held(TOGETHER);
    one.push_contended(turn, NOW);
    let mut first = lock(&mut one, 2);
    assert_eq!(exchange(&mut one, NOW, Ok(WAITING)), ("request", 2));
    assert!(one.release(turn, SOON).is_none());
    assert_eq!(granted(&mut first), (turn, 1));
    for local in 2..=64 {
        let mut next = lock(&mut one, local + 1);
        assert!(one.release(turn, SOON).is_none());
        assert_eq!(granted(&mut next), (turn, local));
        assert!(asks_nothing(&mut one), "they share one place");
    }
    let mut next = lock(&mut one, 100);
    assert!(one.release(turn, SOON).is_some(), "64 times");
    assert_eq!(exchange(&mut one, SOON, ABSENT), ("withdraw", 1));
    one.push_granted(2, token(), SOON);
    assert_eq!(granted(&mut next), (2, 0));
}

/// FAIR: and for a bounded time. The place that was taken for those who were served is given up.
#[test]
fn a_contended_claim_is_lent_for_a_bounded_time() {
    for (later, lent) in [
        (Duration::from_millis(9), true),
        (Duration::from_millis(10), false),
    ] {
        let (mut one, turn) = held(TOGETHER);
        one.push_contended(turn, NOW);
        let mut next = lock(&mut one, 2);
        exchange(&mut one, NOW, Ok(WAITING));
        assert_eq!(one.release(turn, NOW + later).is_none(), lent);
        assert_eq!(next.answer().is_some(), lent);
        if lent {
            assert!(one.release(turn, NOW + later).is_some());
            assert_eq!(exchange(&mut one, SOON, ABSENT), ("withdraw", 1));
            assert_eq!(exchange(&mut one, SOON, ABSENT), ("withdraw", 2));
            assert!(one.is_idle());
        }
    }
}

/// WAKE: a lost push does not keep another session waiting for ever.
#[test]
fn without_news_a_claim_goes_back_after_a_second() {
    let (mut one, turn) = held(TOGETHER);
    let mut next = lock(&mut one, 2);
    let later = NOW + Duration::from_secs(1);
    assert!(one.release(turn, later).is_some());
    assert_eq!(exchange(&mut one, later, ABSENT), ("withdraw", 1));
    assert!(next.answer().is_none());
    assert_eq!(exchange(&mut one, later, Ok(GRANTED)).0, "request");
    assert_eq!(granted(&mut next).1, 0);
}

/// FAIR: those who joined a claim that waited may have come after the session that waits behind it.
#[test]
fn those_who_joined_a_waiting_claim_are_not_known_to_come_first() {
    let mut one = coordinator(TOGETHER);
    let mut callers: Vec<Caller> = (1..=3).map(|n| lock(&mut one, n)).collect();
    assert_eq!(exchange(&mut one, NOW, Ok(WAITING)), ("request", 1));
    assert!(asks_nothing(&mut one), "one place for all");
    one.push_granted(1, token(), SOON);
    one.push_contended(1, SOON);
    assert_eq!(granted(&mut callers[0]), (1, 0));
    assert_eq!(exchange(&mut one, SOON, Ok(WAITING)).0, "request");
    let late = SOON + Duration::from_millis(10);
    assert!(one.release(1, late).is_some());
    assert_eq!(exchange(&mut one, late, ABSENT), ("withdraw", 1));
    assert!(callers[1].answer().is_none() && callers[2].answer().is_none());
}

/// CANCEL: who has gone is passed over; what was granted to nobody goes back.
#[test]
fn those_who_have_gone_are_passed_over() {
    let (mut one, turn) = held(TOGETHER);
    let mut callers: Vec<Caller> = (2..=4).map(|n| lock(&mut one, n)).collect();
    one.cancel(2, SOON);
    callers[1].reply = None; // its end is closed, and the news is still to come
    assert!(one.release(turn, SOON).is_none());
    assert_eq!(granted(&mut callers[2]).0, turn);
    one.cancel(3, SOON);
    one.release(turn, SOON);
    assert_eq!(exchange(&mut one, SOON, ABSENT), ("withdraw", 1));

    let mut waiting = lock(&mut one, 5);
    exchange(&mut one, SOON, Ok(WAITING));
    waiting.reply = None;
    one.push_granted(5, token(), SOON);
    assert_eq!(exchange(&mut one, SOON, ABSENT), ("withdraw", 5));
    assert!(one.is_idle());
}

#[test]
fn guards_in_a_shared_mode_share_a_claim() {
    let mut one = coordinator(TOGETHER);
    let read = (ProtectedRead, InTurn);
    let mut readers: Vec<Caller> = (1..=3).map(|n| ask_in(&mut one, n, read, NOW)).collect();
    exchange(&mut one, NOW, Ok(GRANTED));
    readers.push(ask_in(&mut one, 4, read, SOON));
    readers.push(ask_in(&mut one, 5, (ProtectedRead, Never), SOON));
    for reader in &mut readers {
        assert_eq!(granted(reader), (1, 0));
    }
    for _ in 1..readers.len() {
        assert!(one.release(1, SOON).is_none() && asks_nothing(&mut one));
    }
    assert!(one.release(1, SOON).is_some(), "the last one withdraws it");
    assert_eq!(exchange(&mut one, SOON, ABSENT), ("withdraw", 1));
}

/// FAIR: nobody joins past an earlier request that conflicts, of this process or of another.
#[test]
fn nobody_joins_past_a_writer() {
    let mut one = coordinator(TOGETHER);
    let read = (ProtectedRead, InTurn);
    let mut reader = ask_in(&mut one, 1, read, NOW);
    exchange(&mut one, NOW, Ok(GRANTED));
    granted(&mut reader);
    let mut writer = lock(&mut one, 2);
    exchange(&mut one, NOW, Ok(WAITING));
    let mut second = ask_in(&mut one, 3, read, NOW);
    assert_eq!(exchange(&mut one, NOW, Ok(WAITING)), ("request", 3));
    let mut third = ask_in(&mut one, 4, read, NOW);
    assert!(
        asks_nothing(&mut one),
        "behind the writer they wait together"
    );
    assert!(ask_in(&mut one, 5, (ProtectedRead, Never), NOW).token() == Some(None));
    one.release(1, NOW);
    assert_eq!(exchange(&mut one, NOW, ABSENT), ("withdraw", 1));
    one.push_granted(2, token(), NOW);
    assert_eq!(granted(&mut writer), (2, 0));
    one.release(2, NOW);
    assert_eq!(exchange(&mut one, NOW, ABSENT), ("withdraw", 2));
    one.push_granted(3, token(), NOW);
    assert_eq!(
        (granted(&mut second), granted(&mut third)),
        ((3, 0), (3, 0))
    );

    one.push_contended(3, NOW);
    let _late = ask_in(&mut one, 6, read, NOW);
    assert_eq!(exchange(&mut one, NOW, Ok(WAITING)), ("request", 6));
}

/// A process has at most one waiting claim in each mode, also where modes alternate.
#[test]
fn one_claim_waits_in_each_mode() {
    let (mut one, turn) = held(TOGETHER);
    one.push_contended(turn, NOW);
    let _waiting: Vec<Caller> = [ProtectedRead, Exclusive, ProtectedRead, Exclusive]
        .into_iter()
        .zip(2..)
        .map(|(mode, number)| ask_in(&mut one, number, (mode, InTurn), NOW))
        .collect();
    assert_eq!(exchange(&mut one, NOW, Ok(WAITING)), ("request", 2));
    assert_eq!(exchange(&mut one, NOW, Ok(WAITING)), ("request", 3));
    assert!(matches!(one.next(NOW), Next::At(_)), "only looks");
    one.push_granted(2, token(), NOW);
    assert_eq!(exchange(&mut one, NOW, Ok(WAITING)), ("request", 4));
}

#[test]
fn a_try_on_a_lock_of_the_same_process_is_answered_from_memory() {
    for rules in [APART, TOGETHER, KEEPING] {
        let (mut one, turn) = held(rules);
        for mode in [Exclusive, ProtectedRead] {
            assert_eq!(ask_in(&mut one, 7, (mode, Never), NOW).token(), Some(None));
        }
        assert!(asks_nothing(&mut one));
        // One that is compatible asks the store: others may be in its way.
        ask_in(&mut one, 8, (Mode::Null, Never), NOW);
        assert_eq!(exchange(&mut one, NOW, Ok(GRANTED)), ("request", 8));
        one.release(turn, NOW);
    }
}

#[test]
fn a_kept_claim_is_taken_again_without_the_store() {
    let (mut one, turn) = held(KEEPING);
    for local in 1..100 {
        assert!(one.release(turn, SOON).is_none());
        assert!(one.is_kept(turn) && one.held().count() == 0);
        assert_eq!(granted(&mut lock(&mut one, local + 1)), (turn, local));
        assert!(!one.is_kept(turn) && asks_nothing(&mut one));
    }
    assert!(one.release(turn, NOW).is_none());
    assert!(one.take_stirred(), "somebody has to see to its end");
    let end = NOW + Duration::from_millis(200);
    assert!(matches!(one.next(SOON), Next::At(at) if at == end));
    assert_eq!(exchange(&mut one, end, ABSENT), ("withdraw", 1));
    assert!(one.is_idle());
}

#[test]
fn the_end_of_a_kept_claim_is_announced_once() {
    let (mut one, turn) = held(KEEPING);
    one.take_stirred();
    one.release(turn, NOW);
    assert!(one.take_stirred());
    one.next(NOW);
    for number in 2..5 {
        granted(&mut lock(&mut one, number));
        one.release(turn, SOON);
        assert!(!one.take_stirred());
    }
}

#[test]
fn the_end_of_a_kept_claim_is_announced_again_after_a_look_that_found_it_in_use() {
    let (mut one, turn) = held(KEEPING);
    one.release(turn, NOW);
    granted(&mut lock(&mut one, 2));
    assert!(matches!(one.next(NOW), Next::Nothing));
    one.take_stirred();
    one.release(turn, SOON);
    assert!(one.take_stirred(), "nobody would see to its end");
}

/// FAIR: a claim that nobody uses stands in nobody's way.
#[test]
fn a_kept_claim_goes_back_when_somebody_else_needs_the_lock() {
    let (mut one, turn) = held(KEEPING);
    one.release(turn, NOW);
    one.push_contended(turn, NOW);
    assert_eq!(exchange(&mut one, NOW, ABSENT), ("withdraw", 1));

    for wait in [InTurn, Never] {
        let (mut one, turn) = held(KEEPING);
        one.release(turn, NOW);
        let mut other = ask_in(&mut one, 2, (ConcurrentRead, wait), NOW);
        assert_eq!(exchange(&mut one, NOW, ABSENT), ("withdraw", 1));
        assert_eq!(exchange(&mut one, NOW, Ok(GRANTED)), ("request", 2));
        granted(&mut other);
    }
    // Contended while it was held: it is not kept at all.
    let (mut one, turn) = held(KEEPING);
    one.push_contended(turn, NOW);
    assert!(one.release(turn, NOW).is_some());
}

/// WAKE: keeping ends a second after the grant, whatever is heard.
#[test]
fn a_claim_is_not_kept_for_ever() {
    let (mut one, turn) = held(KEEPING);
    let late = NOW + Duration::from_millis(900);
    assert!(one.release(turn, late).is_none());
    let mut again = lock(&mut one, 2);
    granted(&mut again);
    let later = NOW + Duration::from_millis(1000);
    assert!(one.release(turn, later).is_some());
}

#[test]
fn a_lost_session_is_told_to_those_who_wait_locally() {
    let (mut one, turn) = held(TOGETHER);
    let mut local = lock(&mut one, 2);
    one.push_contended(turn, NOW);
    let mut queued = lock(&mut one, 3);
    exchange(&mut one, NOW, Ok(WAITING));
    one.lost(LossReason::Expired);
    // It had no place of its own in the store: nothing is lost by asking again.
    assert!(matches!(local.answer(), Some(Err(Failure::NeverPlaced(_)))));
    assert!(matches!(queued.answer(), Some(Err(Failure::Lost(_)))));
}

/// A refusal is told to all who share the claim.
#[test]
fn a_refusal_is_told_to_all() {
    let mut one = coordinator(TOGETHER);
    let mut callers: Vec<Caller> = (1..=2).map(|n| lock(&mut one, n)).collect();
    exchange(&mut one, NOW, Err(StoreError::refused("no")));
    for caller in &mut callers {
        assert!(matches!(caller.answer(), Some(Err(Failure::Store(_)))));
    }
    assert!(one.is_idle());
}

const LISTENING: Rules = Rules {
    listen: true,
    ..TOGETHER
};

/// FAIR: where the store tells only if it is asked to, it is asked before a claim is passed on. If nobody
/// else waits, those who asked meanwhile need no place of their own.
#[test]
fn a_store_that_does_not_tell_unasked_is_asked_before_a_claim_is_passed_on() {
    let (mut one, turn) = held(LISTENING);
    let mut first = lock(&mut one, 2);
    let mut second = lock(&mut one, 3);
    let listen = exchange(&mut one, NOW, Ok(WAITING));
    assert_eq!(listen, ("listen", turn));
    assert!(asks_nothing(&mut one));
    // And what is heard then counts as everywhere: these two came first.
    one.push_contended(turn, SOON);
    let _third = lock(&mut one, 4);
    assert_eq!(exchange(&mut one, SOON, Ok(WAITING)), ("request", 4));
    for (caller, local) in [(&mut first, 1), (&mut second, 2)] {
        assert!(one.release(turn, LATER).is_none());
        assert_eq!(granted(caller), (turn, local));
    }
    assert!(one.release(turn, LATER).is_some());
}

/// FAIR: if it will not tell, or somebody else does wait, they have a place of their own, and the claim is
/// passed on as if somebody waited.
#[test]
fn a_store_that_cannot_tell_is_as_one_that_says_that_others_wait() {
    for is_told in [false, true] {
        let (mut one, turn) = held(LISTENING);
        let mut first = lock(&mut one, 2);
        let Next::Perform(listen) = one.next(NOW) else {
            panic!("the store is asked");
        };
        if is_told {
            one.push_contended(turn, NOW);
            one.answered(&listen, Ok(WAITING), NOW);
        } else {
            one.answered(&listen, Err(StoreError::unavailable("no")), NOW);
        }
        assert_eq!(exchange(&mut one, NOW, Ok(WAITING)), ("request", 2));
        assert!(one.release(turn, SOON).is_none());
        assert_eq!(granted(&mut first), (turn, 1));
        let _second = lock(&mut one, 3);
        let late = NOW + Duration::from_millis(10);
        assert!(one.release(turn, late).is_some());
    }
}

/// A claim that was lent as often as it may be while the store is asked whether others wait, and now
/// stays for the two who wait here; and what the store is asked.
fn staying() -> (Coordinator, Number, Operation, [Caller; 2]) {
    let (mut one, turn) = held(LISTENING);
    let mut waiter = lock(&mut one, 2);
    let Next::Perform(listen) = one.next(NOW) else {
        panic!("the store is asked");
    };
    for local in 1..=64 {
        assert!(one.release(turn, NOW).is_none());
        assert_eq!(granted(&mut waiter), (turn, local));
        waiter = lock(&mut one, local + 2);
    }
    assert!(one.release(turn, NOW).is_none());
    let late = lock(&mut one, 70);
    assert!(waiter.answer().is_none() && one.is_kept(turn) && asks_nothing(&mut one));
    (one, turn, listen, [waiter, late])
}

/// Those of the process who wait are let wait for the store's answer, rather than that the claim goes
/// back before it is known to be nobody else's.
#[test]
fn a_claim_stays_until_the_store_says_that_nobody_else_waits() {
    let (mut one, turn, listen, waiters) = staying();
    one.answered(&listen, Ok(WAITING), SOON);
    for (mut waiter, local) in waiters.into_iter().zip(65..) {
        assert_eq!(granted(&mut waiter), (turn, local));
        assert_eq!(one.release(turn, SOON).is_none(), local == 65);
    }
}

/// FAIR: it stays no longer than that, and for ten milliseconds at most.
#[test]
fn a_claim_stays_no_longer_than_others_may_have_to_wait() {
    let no = || Err(StoreError::unavailable("no"));
    type Ending = fn(&mut Coordinator, Number) -> Option<Caller>;
    let endings: [Ending; 4] = [
        // Somebody else does wait; the store does not tell; it does not answer in time; and somebody
        // here cannot be served from it.
        |one, turn| {
            one.push_contended(turn, SOON);
            None
        },
        |_, _| None,
        |one, _| {
            let end = NOW + Duration::from_millis(10);
            assert!(matches!(one.next(SOON), Next::At(at) if at == end));
            one.next(end);
            None
        },
        |one, _| Some(ask_in(one, 80, (ProtectedRead, InTurn), SOON)),
    ];
    for (index, ending) in endings.into_iter().enumerate() {
        let (mut one, turn, listen, [mut first, _late]) = staying();
        let _other = ending(&mut one, turn);
        assert_eq!(one.is_kept(turn), index == 1);
        one.answered(&listen, no(), LATER);
        assert_eq!(exchange(&mut one, LATER, ABSENT), ("withdraw", 1));
        assert_eq!(exchange(&mut one, LATER, Ok(GRANTED)), ("request", 2));
        assert_eq!(granted(&mut first), (2, 0));
    }
}
