//! What went wrong, in words.

use std::fmt;

/// Words for the user: what was done, and why it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault(String);

/// What a measure, a store or a contestant comes to.
pub(crate) type Verdict<T = ()> = Result<T, Fault>;

impl Fault {
    pub(crate) fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Fault {
    /// With its causes: many libraries say in the first line only that something failed.
    fn from(error: E) -> Self {
        let mut words = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let more = inner.to_string();
            if !words.contains(&more) {
                words = format!("{words}: {more}");
            }
            cause = inner.source();
        }
        Self(words)
    }
}

/// Says what was being done.
pub(crate) trait Context<T> {
    fn doing(self, what: impl fmt::Display) -> Verdict<T>;
}

impl<T, E: Into<Fault>> Context<T> for Result<T, E> {
    fn doing(self, what: impl fmt::Display) -> Verdict<T> {
        self.map_err(|error| Fault(format!("{what}: {}", error.into())))
    }
}
