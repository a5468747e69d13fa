//! Properties of the lock table under random histories. The rules are written out here a second
//! time, naively, over every pair of claims.

use proptest::prelude::*;

use super::*;

/// One step of a history. Claims and sessions are small numbers, so that they meet often.
#[derive(Clone, Debug)]
enum Step {
    Request { session: u8, number: u8, mode: Mode },
    Withdraw { session: u8, number: u8 },
    Expire { session: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let mode = (0..Mode::ALL.len()).prop_map(|index| Mode::ALL[index]);
    prop_oneof![
        6 => (0..4u8, 0..6u8, mode)
            .prop_map(|(session, number, mode)| Step::Request { session, number, mode }),
        5 => (0..4u8, 0..6u8).prop_map(|(session, number)| Step::Withdraw { session, number }),
        1 => (0..4u8).prop_map(|session| Step::Expire { session }),
    ]
}

fn id(session: u8, number: u8) -> ClaimId {
    ClaimId {
        session: u128::from(session).into(),
        number: number.into(),
    }
}

fn owner() -> Owner {
    Owner {
        host: "host".into(),
        pid: 1,
        label: String::new(),
    }
}

fn apply(table: &mut LockTable, step: &Step, stamp: Stamp) -> Vec<Granted> {
    match *step {
        Step::Request {
            session,
            number,
            mode,
        } => {
            let id = id(session, number);
            let known = table.get(id).is_some();
            let token = table.request(id, mode, &owner(), stamp);
            token
                .filter(|_| !known)
                .map(|token| Granted { id, token })
                .into_iter()
                .collect()
        }
        Step::Withdraw { session, number } => table.withdraw(id(session, number), stamp),
        Step::Expire { session } => table.expire(u128::from(session).into(), stamp),
    }
}

proptest! {
    #[test]
    fn the_contract_holds_after_every_step(
        steps in prop::collection::vec(step(), 1..80),
        clock_steps_back in any::<bool>(),
    ) {
        let mut table = LockTable::default();
        let mut newest = [FencingToken::from_order(0); 6];
        for (at, step) in (1u64..).zip(&steps) {
            let order = if clock_steps_back { 1_000 - at } else { at };
            let before: Vec<ClaimId> = table.claims().map(|entry| entry.id).collect();
            let granted = apply(&mut table, step, Stamp { order, millis: at });
            let claims: Vec<&Entry> = table.claims().collect();

            for (place, claim) in claims.iter().enumerate() {
                // ATOM-A, FAIR: granted exactly when compatible with all that are ahead.
                let free = claims[..place].iter().all(|ahead| ahead.mode.compatible(claim.mode));
                prop_assert_eq!(claim.token.is_some(), free, "{:?} at {}", claim, place);
                // Nothing waits without a blocker.
                prop_assert_eq!(table.blockers(claim.id).next().is_none(), free);
                let behind = claims[place + 1..].iter().any(|behind| {
                    behind.id.session != claim.id.session && !behind.mode.compatible(claim.mode)
                });
                prop_assert_eq!(table.is_contended(claim.id), behind);
            }
            // FAIR: the order of arrival is kept, and is the order of the tickets.
            prop_assert!(claims.windows(2).all(|pair| pair[0].ticket < pair[1].ticket));
            let kept: Vec<ClaimId> = claims.iter().map(|entry| entry.id).collect();
            let stayed: Vec<ClaimId> =
                before.iter().copied().filter(|id| kept.contains(id)).collect();
            prop_assert_eq!(&kept[..stayed.len()], &stayed[..]);
            // What was taken out is gone.
            match *step {
                Step::Withdraw { session, number } => {
                    prop_assert!(!kept.contains(&id(session, number)));
                }
                Step::Expire { session } => {
                    prop_assert!(kept.iter().all(|k| k.session != u128::from(session).into()));
                }
                Step::Request { session, number, .. } => {
                    prop_assert!(kept.contains(&id(session, number)));
                }
            }
            // FENCE: a grant's token is above that of every conflicting grant before it.
            for grant in granted {
                let entry = table.get(grant.id).expect("a granted claim is there");
                prop_assert_eq!(entry.token, Some(grant.token));
                for mode in Mode::ALL {
                    if !mode.compatible(entry.mode) {
                        prop_assert!(grant.token > newest[mode.index()]);
                    }
                }
                let mine = &mut newest[entry.mode.index()];
                *mine = grant.token.max(*mine);
            }
        }
    }

    /// ONCE, ATOM-B: every step a second time changes nothing.
    #[test]
    fn every_step_is_idempotent(steps in prop::collection::vec(step(), 1..40)) {
        let mut table = LockTable::default();
        for (at, step) in (1u64..).zip(&steps) {
            let stamp = Stamp { order: at, millis: at };
            apply(&mut table, step, stamp);
            let once = table.clone();
            let granted = apply(&mut table, step, stamp);
            prop_assert!(granted.is_empty());
            prop_assert_eq!(&table, &once);
        }
    }

    #[test]
    fn a_table_is_kept_as_json(steps in prop::collection::vec(step(), 1..20)) {
        let mut table = LockTable::default();
        for (at, step) in (1u64..).zip(&steps) {
            apply(&mut table, step, Stamp { order: at, millis: at });
        }
        let text = serde_json::to_string(&table).unwrap();
        prop_assert_eq!(serde_json::from_str::<LockTable>(&text).unwrap(), table);
    }
}

#[test]
fn compatible_claims_behind_a_conflicting_one_wait_their_turn() {
    let mut table = LockTable::default();
    let stamp = Stamp {
        order: 1,
        millis: 0,
    };
    let mut ask = |number, mode| {
        table
            .request(id(0, number), mode, &owner(), stamp)
            .is_some()
    };
    assert!(ask(1, Mode::ProtectedRead));
    assert!(!ask(2, Mode::Exclusive));
    assert!(!ask(3, Mode::ProtectedRead), "it would overtake the writer");
    assert!(ask(4, Mode::Null));
    assert!(
        table
            .withdraw(id(0, 1), stamp)
            .iter()
            .map(|g| g.id)
            .eq([id(0, 2)])
    );
    assert!(
        table
            .withdraw(id(0, 2), stamp)
            .iter()
            .map(|g| g.id)
            .eq([id(0, 3)])
    );
}

/// What somebody else has written into a store is a table only if it can go on from there.
#[test]
fn a_table_that_cannot_be_is_not_read() {
    let entry = |ticket: u64, token: u64| {
        let owner = serde_json::to_value(Owner::this_process()).unwrap();
        let id = ClaimId {
            session: SessionId::from(1),
            number: ticket,
        };
        serde_json::json!({
            "id": id, "mode": "EX", "owner": owner, "ticket": ticket,
            "token": (token > 0).then(|| FencingToken::from_order(token)), "since": 0,
        })
    };
    let read = |last: u64, claims: &[serde_json::Value]| {
        let table = serde_json::json!({ "claims": claims, "last": last });
        serde_json::from_value::<LockTable>(table)
    };
    let stamp = Stamp {
        order: 1,
        millis: 0,
    };
    let mut table = read(7, &[entry(3, 4), entry(5, 0)]).unwrap();
    assert_eq!(table.expire(SessionId::from(1), stamp), []);
    let mut table = read(GREATEST_LAST, &[]).unwrap();
    let id = ClaimId {
        session: SessionId::from(1),
        number: 1,
    };
    let granted = table.request(id, Mode::Exclusive, &Owner::this_process(), stamp);
    assert!(granted.is_some());
    for (last, claims, why) in [
        (u64::MAX, vec![], "out of range"),
        (1 << 53, vec![], "out of range"),
        (9, vec![entry(5, 0), entry(3, 4)], "order of their tickets"),
        (9, vec![entry(5, 0), entry(5, 0)], "order of their tickets"),
        (4, vec![entry(5, 0)], "greater than its last"),
        (8, vec![entry(5, 9)], "greater than its last"),
    ] {
        let error = read(last, &claims).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}
