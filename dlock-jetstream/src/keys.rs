//! The key layout: which subjects a namespace, its locks and its sessions live on.
//!
//! A namespace is one key-value bucket: the stream `KV_<bucket>` with the subjects `$KV.<bucket>.>`.
//!
//! | key | what |
//! | --- | --- |
//! | `format` | what all clients of the namespace agree on |
//! | `locks.<name>` | one lock's document |
//! | `sessions.<session>` | one session's lease, or its death mark |
//!
//! Both encodings are one to one, so two namespaces or two names never share a key. A bucket's name
//! may hold letters, digits, `-` and `_`: a `.` becomes `_d` and a `_` becomes `__`. A key may also
//! hold `/` and `=`, and dots that part its words: each byte of a lock's name that is no letter, digit,
//! `-`, `_` or `/` becomes `=` and two hexadecimal digits, so `a.b` is `locks.a=2Eb`.

use std::fmt::Write;

use dlock_core::{LockName, Namespace, SessionId};

/// What every bucket of this library begins with.
const PREFIX: &str = "dlock-";

/// The namespace's keys.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    bucket: String,
}

impl Layout {
    pub(crate) fn new(namespace: &Namespace) -> Self {
        let mut bucket = PREFIX.to_owned();
        for c in namespace.as_str().chars() {
            match c {
                '.' => bucket.push_str("_d"),
                '_' => bucket.push_str("__"),
                other => bucket.push(other),
            }
        }
        Self { bucket }
    }

    pub(crate) fn bucket(&self) -> &str {
        &self.bucket
    }

    pub(crate) fn stream(&self) -> String {
        format!("KV_{}", self.bucket)
    }

    /// All of the bucket's subjects.
    pub(crate) fn subjects(&self) -> String {
        self.subject(">")
    }

    fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.bucket)
    }

    pub(crate) fn format(&self) -> String {
        self.subject("format")
    }

    pub(crate) fn lock(&self, name: &LockName) -> String {
        self.subject(&format!("locks.{}", encoded(name)))
    }

    /// The subjects of all locks.
    pub(crate) fn locks(&self) -> String {
        self.subject("locks.>")
    }

    /// The lock that lives on this subject.
    pub(crate) fn name_of(&self, subject: &str) -> Option<LockName> {
        let locks = self.locks();
        let prefix = locks.trim_end_matches('>');
        decoded(subject.strip_prefix(prefix)?)
    }

    pub(crate) fn session(&self, id: SessionId) -> String {
        self.subject(&format!("sessions.{id}"))
    }

    /// Where a session listens for messages. Not in the bucket: nothing keeps them.
    pub(crate) fn channel(&self, id: SessionId) -> String {
        let namespace = self.bucket.strip_prefix(PREFIX).unwrap_or_default();
        format!("dlock.{namespace}.s.{id}")
    }
}

fn encoded(name: &LockName) -> String {
    let mut key = String::with_capacity(name.as_str().len());
    for byte in name.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'/') {
            key.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(key, "={byte:02X}");
        }
    }
    key
}

fn decoded(key: &str) -> Option<LockName> {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'=' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    let name = LockName::new(String::from_utf8(bytes).ok()?).ok()?;
    // What another program has written in another way is no lock of ours.
    (encoded(&name) == key).then_some(name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn layout(namespace: &str) -> Layout {
        Layout::new(&Namespace::new(namespace).unwrap())
    }

    #[test]
    fn namespaces_never_meet_and_are_valid_buckets() {
        let namespaces = [
            "a", "A", "a.b", "a_b", "a_d", "a.d", "a_.", "a._", "a__", "a..", ".", "_", "__", "-",
        ];
        let buckets: HashSet<String> = namespaces
            .iter()
            .map(|namespace| layout(namespace).bucket().to_owned())
            .collect();
        assert_eq!(buckets.len(), namespaces.len());
        for bucket in buckets {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            assert!(bucket.chars().all(plain), "{bucket}");
        }
        assert_eq!(layout("team-a.jobs").stream(), "KV_dlock-team-a_djobs");
    }

    #[test]
    fn names_never_meet_are_valid_keys_and_read_back() {
        let long = "ü".repeat(256);
        let names = [
            "a", "A", "a/b", "a.b", "a=2Eb", "..", ".", "=", " ", "*", ">", "ü", "$KV", "a b",
            "\n", "{a}", &long,
        ];
        let layout = layout("default");
        let mut seen = HashSet::new();
        for text in names {
            let name = LockName::new(text).unwrap();
            let subject = layout.lock(&name);
            let key = subject.strip_prefix("$KV.dlock-default.").unwrap();
            let known = |c: char| c.is_ascii_alphanumeric() || "-/_=.".contains(c);
            assert!(key.chars().all(known), "{key}");
            assert_eq!(key.split('.').count(), 2, "{key}");
            assert_eq!(layout.name_of(&subject), Some(name));
            assert!(seen.insert(subject), "{text}");
        }
        for strange in [
            "$KV.dlock-default.locks.a=",
            "$KV.dlock-default.locks.=FF",
            "$KV.dlock-default.locks.=+A",
            "$KV.dlock-default.locks.=2e",
            "$KV.dlock-default.locks.=61",
            "$KV.dlock-default.locks.a.b",
            "locks.a",
        ] {
            assert_eq!(layout.name_of(strange), None);
        }
    }

    /// Changing this would let two versions of the library grant one lock twice.
    #[test]
    fn names_stay_where_they_are() {
        let layout = layout("default");
        let name = LockName::new("nightly report/1.2").unwrap();
        assert_eq!(
            layout.lock(&name),
            "$KV.dlock-default.locks.nightly=20report/1=2E2"
        );
    }
}
