//! Sessions, claims and their owners: who wants which lock.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{LockName, Mode};

/// A session's identity: 128 random bits, minted by the client.
///
/// It prints as 32 hexadecimal digits, and stores keep it so.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId(u128);

impl SessionId {
    /// A new one, from the operating system's random source.
    ///
    /// # Panics
    ///
    /// When the operating system has no random source: two sessions of one identity would share
    /// their locks.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
        Self(u128::from_be_bytes(bytes))
    }
}

impl From<u128> for SessionId {
    fn from(bits: u128) -> Self {
        Self(bits)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// A claim's identity: its session, and its number among that session's claims. It is minted before
/// anything is sent, so that a request can be repeated, asked about and withdrawn by it (ONCE).
///
/// It prints as the session's 32 digits, a dash, and the number as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClaimId {
    /// The session that the claim lives and dies with.
    pub session: SessionId,
    /// Counts the session's claims, from 1.
    pub number: u64,
}

impl fmt::Display for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.session, self.number)
    }
}

impl fmt::Debug for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClaimId({self})")
    }
}

/// A text from a store that is no session's or claim's identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no identity of a session or a claim")]
pub struct InvalidId(String);

/// Exactly `digits` lower-case hexadecimal digits: what is printed reads back, and nothing else.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let plain = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (text.len() == digits && text.bytes().all(plain))
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
}

impl FromStr for SessionId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        hex(text, 32)
            .map(Self)
            .ok_or_else(|| InvalidId(text.to_owned()))
    }
}

impl FromStr for ClaimId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (session, number) = text.split_once('-')?;
            let number = u64::try_from(hex(number, 16)?).ok()?;
            Some(Self {
                session: session.parse().ok()?,
                number,
            })
        };
        parse().ok_or_else(|| InvalidId(text.to_owned()))
    }
}

macro_rules! as_text {
    ($kind:ident) => {
        impl TryFrom<String> for $kind {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }
        impl From<$kind> for String {
            fn from(id: $kind) -> String {
                id.to_string()
            }
        }
    };
}
as_text!(SessionId);
as_text!(ClaimId);

/// Who made a claim, for people who look at the locks: nothing is decided by it.
///
/// ```
/// use dlock_core::Owner;
///
/// let owner = Owner::this_process().labelled("nightly report");
/// assert_eq!(owner.pid, std::process::id());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The name of the host, as the host knows itself.
    pub host: String,
    /// The process id on that host.
    pub pid: u32,
    /// What the user called it; empty where no label was given. At most [`Owner::MAX_LABEL`] bytes.
    pub label: String,
}

impl Owner {
    /// The longest label, in bytes. A longer one is cut: it is a note, and a claim should stay small.
    pub const MAX_LABEL: usize = 256;

    /// This process, without a label.
    #[must_use]
    pub fn this_process() -> Self {
        Self {
            host: gethostname::gethostname().to_string_lossy().into_owned(),
            pid: std::process::id(),
            label: String::new(),
        }
    }

    /// The same owner under this label.
    #[must_use]
    pub fn labelled(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        let mut end = self.label.len().min(Self::MAX_LABEL);
        while !self.label.is_char_boundary(end) {
            end -= 1;
        }
        self.label.truncate(end);
        self
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.pid)?;
        if !self.label.is_empty() {
            write!(f, " ({})", self.label)?;
        }
        Ok(())
    }
}

/// One request for one lock in one mode, as a backend sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The claim's identity. A backend that is shown the same one twice has one claim.
    pub id: ClaimId,
    /// The lock.
    pub name: LockName,
    /// The mode that is asked for.
    pub mode: Mode,
    /// Who asks.
    pub owner: Owner,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_read_back_and_nothing_else_does() {
        let id = ClaimId {
            session: SessionId::random(),
            number: 17,
        };
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().len(), 49);
        assert_ne!(SessionId::random(), SessionId::random());
        let upper = id.to_string().to_uppercase();
        for bad in [
            "",
            "-",
            "12-1",
            &id.session.to_string(),
            &upper,
            &format!("{id}0"),
            "+1",
        ] {
            assert!(bad.parse::<ClaimId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_long_label_is_cut_between_characters() {
        let owner = Owner::this_process().labelled("ü".repeat(200));
        assert_eq!(owner.label, "ü".repeat(128));
    }
}
