use super::*;

fn hold(mode: Mode, order: u64, from: u64, until: u64) -> Hold {
    Hold {
        who: format!("w{order}"),
        lock: "lock".into(),
        mode,
        token: FencingToken::from_order(order),
        asked: None,
        from: Duration::from_millis(from),
        until: Duration::from_millis(until),
    }
}

fn never(_: &Hold, _: &Hold) -> Option<String> {
    None
}

fn found(all: &[Hold]) -> Vec<Rule> {
    let findings = holds(all, never);
    findings.violations.iter().map(|found| found.rule).collect()
}

#[test]
fn an_overlap_of_conflicting_holds_is_found_and_of_others_is_none() {
    let read = |order, from, until| hold(Mode::ProtectedRead, order, from, until);
    let write = |order, from, until| hold(Mode::Exclusive, order, from, until);
    assert_eq!(found(&[read(1, 0, 9), read(2, 1, 8), write(3, 9, 10)]), []);
    assert_eq!(
        found(&[read(1, 0, 9), read(2, 1, 2), write(3, 8, 10)]),
        [Rule::Belief]
    );
    // One that stands long is compared with all that come while it does.
    assert_eq!(
        found(&[write(1, 0, 100), hold(Mode::Null, 2, 5, 6), read(3, 50, 51)]),
        [Rule::Belief]
    );
    let mut elsewhere = write(2, 0, 9);
    elsewhere.lock = "another".into();
    assert_eq!(found(&[write(1, 0, 9), elsewhere]), []);
}

#[test]
fn an_excused_overlap_is_listed() {
    let all = [
        hold(Mode::Exclusive, 1, 0, 9),
        hold(Mode::Exclusive, 2, 5, 6),
    ];
    let findings = holds(&all, |_, later| {
        (later.from == Duration::from_millis(5)).then(|| "the data were lost".into())
    });
    assert!(findings.violations.is_empty());
    assert!(findings.excused[0].contains("the data were lost"));
}

#[test]
fn a_token_that_does_not_rise_is_found() {
    let write = |order, from| hold(Mode::Exclusive, order, from, from);
    assert_eq!(found(&[write(2, 0), hold(Mode::Null, 1, 1, 1)]), []);
    assert_eq!(found(&[write(2, 0), write(2, 1)]), [Rule::StoreOrder]);
    // Also behind others in modes of their own.
    let all = [
        hold(Mode::ProtectedRead, 7, 0, 1),
        write(8, 2),
        hold(Mode::ProtectedRead, 9, 3, 4),
        write(8, 5),
    ];
    assert_eq!(found(&all), [Rule::StoreOrder]);
}

fn access(mode: Mode, order: u64, before: u64, after: u64) -> Access {
    Access {
        who: "w".into(),
        lock: "lock".into(),
        mode,
        token: FencingToken::from_order(order),
        at: Duration::ZERO,
        before,
        after,
    }
}

#[test]
fn a_stale_access_and_a_lost_update_are_found() {
    let writes = |order, before, after| access(Mode::ConcurrentWrite, order, before, after);
    let sound = [
        writes(2, 0, 1),
        writes(1, 1, 2),
        access(Mode::Exclusive, 3, 2, 3),
        access(Mode::Null, 1, 3, 3),
    ];
    assert!(accesses(&sound).is_empty());
    let mut stale = sound.to_vec();
    stale.push(writes(2, 3, 4));
    assert_eq!(accesses(&stale).len(), 1);
    let mut lost = sound.to_vec();
    lost.push(access(Mode::Exclusive, 4, 2, 3));
    let found = accesses(&lost);
    assert!(found[0].text.contains("lost"), "{}", found[0].text);
}

#[test]
fn a_change_under_a_reader_is_found() {
    let reads = |order, value| access(Mode::ProtectedRead, order, value, value);
    let add = access(Mode::ConcurrentWrite, 2, 0, 1);
    assert!(accesses(&[reads(1, 0), reads(1, 0), add.clone(), reads(3, 1)]).is_empty());
    // Stale as well, since the reader's token is the smaller one.
    let found = accesses(&[reads(1, 0), add.clone(), reads(1, 1)]);
    assert!(found.iter().any(|found| found.text.contains("has changed")));
    // A reader that sees what others add sees nothing wrong.
    let free = |value| access(Mode::ConcurrentRead, 1, value, value);
    assert!(accesses(&[free(0), add, free(1)]).is_empty());
}
