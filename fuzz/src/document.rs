//! The document of a lock on JetStream.

use dlock_core::table::{LockTable, Stamp};
use dlock_core::{ClaimId, Mode, Owner, SessionId, StoreErrorKind};
use dlock_jetstream::fuzzing::{read, write};

const SUBJECT: &str = "$KV.dlock-default.locks.n";

/// Any bytes are a lock table, or an error that says where they stand; and what is written reads back,
/// whatever happens to a lock, that one or an empty one.
pub fn document(data: &[u8]) {
    match read(SUBJECT, data) {
        Ok(table) => {
            reads_back(&table);
            operations(table, data);
        }
        Err(error) => {
            assert_eq!(error.kind(), StoreErrorKind::Refused);
            assert!(error.to_string().contains(SUBJECT), "{error}");
        }
    }
    operations(LockTable::default(), data);
}

fn operations(mut table: LockTable, data: &[u8]) {
    let mut rest = data;
    // Each step is an operation, whose claim it is, its mode, the time that goes by, and a label.
    while let [step, who, mode, time, tail @ ..] = rest {
        let (label, tail) = tail.split_at(tail.len().min(usize::from(step / 4)));
        rest = tail;
        let session = SessionId::from(u128::from(who / 8) << 120);
        let id = ClaimId {
            session,
            number: u64::from(who % 8),
        };
        let millis = 1_767_225_600_000 + u64::from(*time);
        let stamp = Stamp {
            order: millis * 1000,
            millis,
        };
        match step % 4 {
            0 => drop(table.withdraw(id, stamp)),
            1 => drop(table.expire(session, stamp)),
            _ => {
                let owner = Owner {
                    host: crate::text(label).to_owned(),
                    pid: u32::from(*who),
                    label: String::new(),
                };
                let owner = owner.labelled(String::from_utf8_lossy(label));
                let mode = Mode::ALL[usize::from(*mode) % Mode::ALL.len()];
                let _ = table.request(id, mode, &owner, stamp);
            }
        }
        reads_back(&table);
    }
}

fn reads_back(table: &LockTable) {
    let written = write(table);
    let read = written.and_then(|written| read(SUBJECT, &written));
    assert_eq!(read.ok().as_ref(), Some(table));
}
