//! How a case says that a promise was broken: a value with text, not a panic.

use std::fmt;

/// Why a case failed.
///
/// Every error turns into one with `?`; where an error alone would not say enough, use
/// [`Context::because`].
pub struct Failure(String);

/// What a case returns.
pub type Verdict<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure in these words.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

// No `std::error::Error` for it: with that, the conversion from every error could not exist.
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Says what was being done when an error came.
pub trait Context<T> {
    /// The error as a failure that begins with what was being done.
    ///
    /// # Errors
    ///
    /// Exactly when there was one.
    fn because(self, doing: impl fmt::Display) -> Verdict<T>;
}

impl<T, E: fmt::Display> Context<T> for Result<T, E> {
    fn because(self, doing: impl fmt::Display) -> Verdict<T> {
        self.map_err(|error| Failure(format!("{doing}: {error}")))
    }
}

/// Fails the case in these words unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($words:tt)+) => {
        if !$condition {
            return Err($crate::Failure::new(format!($($words)+)));
        }
    };
}
