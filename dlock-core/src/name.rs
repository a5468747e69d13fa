//! Lock names and namespaces: what is locked, and whose locks they are.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What is locked: a non-empty UTF-8 string of at most 512 bytes without NUL.
///
/// Two names that differ in one byte never conflict, on any store: `a` and `a/b`, `A` and `a`, and
/// names that contain a store's own separators are all different locks.
///
/// ```
/// use dlock_core::LockName;
///
/// assert_eq!(LockName::new("invoices/2026").unwrap().as_str(), "invoices/2026");
/// assert!(LockName::new("").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LockName(Arc<str>);

impl LockName {
    /// The longest name, in bytes of UTF-8.
    pub const MAX_BYTES: usize = 512;

    /// Checks the text and keeps it.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] when it is empty, too long, or holds a NUL.
    pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidName> {
        let name = name.as_ref();
        let fault = if name.is_empty() {
            "it is empty"
        } else if name.len() > Self::MAX_BYTES {
            "it is too long"
        } else if name.contains('\0') {
            "it holds a NUL"
        } else {
            return Ok(Self(name.into()));
        };
        Err(InvalidName {
            what: "lock name",
            name: name.chars().take(80).collect(),
            bytes: name.len(),
            fault,
            allowed: "1 to 512 bytes of UTF-8 without NUL",
        })
    }

    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whose locks they are: the part of a store in which lock names live. Clients in different
/// namespaces never meet.
///
/// 1 to 64 of the characters `A`–`Z`, `a`–`z`, `0`–`9`, `.`, `_` and `-`, so that every store can
/// keep it as it is. The default is `default`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// Checks the text and keeps it.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] when it is empty, too long, or holds another character.
    pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidName> {
        let name = name.as_ref();
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let fault = if name.is_empty() {
            "it is empty"
        } else if name.len() > 64 {
            "it is too long"
        } else if !name.chars().all(known) {
            "it holds another character"
        } else {
            return Ok(Self(name.into()));
        };
        Err(InvalidName {
            what: "namespace",
            name: name.chars().take(80).collect(),
            bytes: name.len(),
            fault,
            allowed: "1 to 64 of the characters A-Z, a-z, 0-9, '.', '_' and '-'",
        })
    }

    /// The namespace as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self("default".into())
    }
}

/// A lock name or a namespace that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} ({bytes} bytes) is no {what}: {fault}; allowed are {allowed}")]
pub struct InvalidName {
    what: &'static str,
    /// The beginning of it: a name that is refused for its length is not repeated whole.
    name: String,
    bytes: usize,
    fault: &'static str,
    allowed: &'static str,
}

/// What both kinds of name share: they read and print as the text that they are.
macro_rules! text {
    ($kind:ident) => {
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl FromStr for $kind {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }
        impl TryFrom<String> for $kind {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }
        impl From<$kind> for String {
            fn from(name: $kind) -> String {
                name.0.as_ref().to_owned()
            }
        }
        impl Borrow<str> for $kind {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl AsRef<str> for $kind {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}
text!(LockName);
text!(Namespace);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_to_512_bytes_without_nul() {
        for good in [
            "a",
            "a/b",
            "A",
            " ",
            "ümläut",
            "{tag}",
            "*",
            &"x".repeat(512),
        ] {
            assert_eq!(LockName::new(good).unwrap().as_str(), good);
        }
        for (bad, fault) in [
            ("", "empty"),
            ("a\0b", "NUL"),
            (&"x".repeat(513), "too long"),
            (&"ü".repeat(257), "too long"),
        ] {
            let error = LockName::new(bad).unwrap_err().to_string();
            assert!(
                error.contains(fault) && error.contains("1 to 512 bytes"),
                "{error}"
            );
            assert!(error.len() < 400, "a long name is not repeated whole");
        }
    }

    #[test]
    fn a_namespace_is_plain_text() {
        assert_eq!(Namespace::default().as_str(), "default");
        assert!(Namespace::new("team-a.jobs_1").is_ok());
        for bad in ["", "a b", "a/b", "{a}", &"x".repeat(65)] {
            assert!(Namespace::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn serde_checks_what_it_reads() {
        assert_eq!(
            serde_json::from_str::<LockName>("\"a\"").unwrap().as_str(),
            "a"
        );
        assert!(serde_json::from_str::<LockName>("\"\"").is_err());
    }
}
