//! Every key that dlock writes to etcd.
//!
//! | key | what |
//! | --- | --- |
//! | `dlock/<namespace>/format` | JSON: the version of this layout |
//! | `dlock/<namespace>/base` | what is added to a revision to make a token, see [`base`](crate::base) |
//! | `dlock/<namespace>/sessions/<session>` | a session that stands: JSON, its owner |
//! | `dlock/<namespace>/locks/<name>/<mode>/<slot>` | a claim: JSON, see [`Record`](crate::record::Record) |
//! | `dlock/<namespace>/withdrawn/<claim>` | the mark of a claim that must not come back |
//!
//! A slot is a session's, and holds one of its claims after the other: see [`slots`](crate::slots).
//!
//! A namespace holds no slash, and in a lock's name it is percent-encoded: no range of keys of one
//! lock holds a key of another, and a person still recognizes the name.

use std::fmt;

use dlock_core::{ClaimId, LockName, Mode, Namespace, SessionId};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};

/// What would end a name in a key, start an escape, or could not be seen.
const ENCODED: &AsciiSet = &CONTROLS.add(b'/').add(b'%').add(b' ');

/// The namespace's keys.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    namespace: Namespace,
    /// `dlock/<namespace>/`.
    root: String,
}

impl Layout {
    pub(crate) fn new(namespace: Namespace) -> Self {
        let root = format!("dlock/{namespace}/");
        Self { namespace, root }
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(crate) fn format(&self) -> String {
        format!("{}format", self.root)
    }

    pub(crate) fn base(&self) -> String {
        format!("{}base", self.root)
    }

    pub(crate) fn session(&self, session: SessionId) -> String {
        format!("{}sessions/{session}", self.root)
    }

    pub(crate) fn withdrawn(&self, claim: ClaimId) -> String {
        format!("{}withdrawn/{claim}", self.root)
    }

    /// What the keys of all claims begin with.
    pub(crate) fn locks(&self) -> String {
        format!("{}locks/", self.root)
    }

    /// What the keys of a lock's claims begin with.
    pub(crate) fn lock(&self, name: &LockName) -> String {
        let name = utf8_percent_encode(name.as_str(), ENCODED);
        format!("{}locks/{name}/", self.root)
    }

    /// What the keys of a lock's claims in this mode begin with.
    pub(crate) fn mode(&self, name: &LockName, mode: Mode) -> String {
        format!("{}{}/", self.lock(name), mode.code())
    }

    /// The key of a claim that has this slot.
    pub(crate) fn slot(&self, name: &LockName, mode: Mode, slot: Slot) -> String {
        format!("{}{slot}", self.mode(name, mode))
    }

    /// Reads the key of a claim; `None` if it is none.
    pub(crate) fn read(&self, key: &[u8]) -> Option<(LockName, Mode, Slot)> {
        let rest = key.strip_prefix(self.locks().as_bytes())?;
        let mut parts = rest.split(|byte| *byte == b'/');
        let name = percent_decode(parts.next()?).decode_utf8().ok()?;
        let mode = std::str::from_utf8(parts.next()?).ok()?;
        let mode = Mode::ALL.into_iter().find(|known| known.code() == mode)?;
        let slot = Slot::read(std::str::from_utf8(parts.next()?).ok()?)?;
        let name = LockName::new(name).ok()?;
        // What another program has written in another way is no claim of ours.
        let ours = self.slot(&name, mode, slot);
        (ours.as_bytes() == key).then_some((name, mode, slot))
    }
}

/// Whose key it is, and which of them. It is written as a claim's identity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) session: SessionId,
    pub(crate) number: u64,
}

impl Slot {
    fn read(text: &str) -> Option<Self> {
        let ClaimId { session, number } = text.parse().ok()?;
        Some(Self { session, number })
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { session, number } = *self;
        ClaimId { session, number }.fmt(f)
    }
}

/// The modes that stand in each other's way.
pub(crate) fn conflicting(mode: Mode) -> impl Iterator<Item = Mode> {
    Mode::ALL
        .into_iter()
        .filter(move |other| !other.compatible(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::new(Namespace::new("team.a").unwrap())
    }

    fn slot() -> Slot {
        Slot {
            session: SessionId::random(),
            number: 7,
        }
    }

    fn name(text: &str) -> LockName {
        LockName::new(text).unwrap()
    }

    /// FAIR: names that differ never share a key, nor a range of keys.
    #[test]
    fn a_claim_s_key_reads_back_and_is_in_no_other_lock_s_range() {
        let names = [
            "a",
            "a/b",
            "a/",
            "/",
            "a%2Fb",
            "%",
            "a b",
            "ü",
            "A",
            "a\nb",
            "locks",
            "EX",
            "a/EX",
            "a0",
            "a\u{7f}",
            "..",
            "\u{10ffff}",
        ];
        for text in names {
            for mode in Mode::ALL {
                let slot = slot();
                let key = layout().slot(&name(text), mode, slot);
                let read = layout().read(key.as_bytes());
                assert_eq!(read, Some((name(text), mode, slot)), "{key}");
                for other in names.into_iter().filter(|other| *other != text) {
                    let range = layout().lock(&name(other));
                    assert!(!key.starts_with(&range), "{key} is in {range}");
                }
            }
        }
    }

    #[test]
    fn a_person_recognizes_the_name() {
        let slot = slot();
        let key = layout().slot(&name("invoices/2026: läte"), Mode::ProtectedRead, slot);
        let expected = format!("dlock/team.a/locks/invoices%2F2026:%20l%C3%A4te/PR/{slot}");
        assert_eq!(key, expected);
    }

    #[test]
    fn other_keys_are_no_claims() {
        let id = slot();
        for key in [
            "dlock/team.a/format".to_owned(),
            format!("dlock/team.b/locks/a/EX/{id}"),
            format!("dlock/team.a/locks/a/XX/{id}"),
            format!("dlock/team.a/locks/a/EX/{id}/"),
            format!("dlock/team.a/locks//EX/{id}"),
            format!("dlock/team.a/locks/%61/EX/{id}"),
            format!("dlock/team.a/locks/a%2f/EX/{id}"),
            format!("dlock/team.a/locks/%/EX/{id}"),
            "dlock/team.a/locks/a/EX/1".to_owned(),
            "dlock/team.a/locks/a".to_owned(),
        ] {
            assert_eq!(layout().read(key.as_bytes()), None, "{key}");
        }
    }

    #[test]
    fn the_longest_key_is_below_the_limits_of_a_page() {
        let longest = "\u{1}".repeat(LockName::MAX_BYTES);
        let key = layout().slot(&name(&longest), Mode::Exclusive, slot());
        assert!(key.len() < 2048);
    }
}
