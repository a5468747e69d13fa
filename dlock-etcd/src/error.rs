//! What an error of the server or of the connection means for a claim.
//!
//! What may be concluded decides what the core does next, so each message of the server is mapped
//! deliberately. A server that refuses before it has proposed anything did nothing; whatever fails
//! later, or without an answer, says nothing at all (ONCE).

use std::error::Error as _;
use std::fmt::Display;

use dlock_core::StoreError;
use etcd_client::Error;

/// The meaning of an error in answer to something that was sent.
pub(crate) fn answered(fault: Error) -> StoreError {
    let Error::GRpcStatus(status) = &fault else {
        return match fault {
            // So the client library calls a keep-alive's answer with no time left.
            Error::LeaseKeepAliveError(text) if text == "lease not found" => StoreError::lapsed(),
            other => StoreError::ambiguous(format!("no answer: {other}")),
        };
    };
    let message = status.message();
    let Some((meaning, remedy)) = meaning(message) else {
        return StoreError::ambiguous(format!("no answer: {}", chain(&fault)));
    };
    let text = format!("{remedy} ({message})");
    match meaning {
        Meaning::Lapsed => StoreError::lapsed(),
        Meaning::NothingDone => StoreError::unavailable(text),
        Meaning::Unknown => StoreError::ambiguous(text),
        Meaning::Never => StoreError::refused(text),
        Meaning::DoneOrNever => StoreError::unconfirmed(text),
    }
}

/// The meaning of an error while a connection was being made: nothing had been sent yet.
pub(crate) fn dialing(address: &impl Display, encrypted: bool, fault: Error) -> StoreError {
    if let Error::GRpcStatus(status) = &fault
        && let Some((meaning, remedy)) = meaning(status.message())
    {
        let text = format!("{address}: {remedy} ({})", status.message());
        return match meaning {
            Meaning::Never => StoreError::refused(text),
            _ => StoreError::unavailable(text),
        };
    }
    let text = chain(&fault);
    let hint = hint(&text, encrypted);
    StoreError::unavailable(format!("cannot connect to {address}: {text}{hint}"))
}

/// What a user may have got wrong, where the connection was made and something else went wrong.
fn hint(text: &str, encrypted: bool) -> &'static str {
    let text = text.to_lowercase();
    let has = |part: &str| text.contains(part);
    if has("connection refused") || has("lookup") || has("unreachable") || has("timed out") {
        "; check the address, and that etcd listens there for clients"
    } else if has("certificate") {
        "; check the authority that is trusted (ca=), the host's name, and whether the server asks \
         for the client's certificate (cert=, key=)"
    } else if encrypted {
        "; if the server does not speak TLS, write etcd://; if it asks for the client's certificate, give \
         one (cert=, key=)"
    } else {
        "; if the server speaks TLS, write etcds:// (and see that it is an etcd)"
    }
}

/// Whether the server no longer has the past revision that was asked for.
pub(crate) fn is_compacted(fault: &Error) -> bool {
    matches!(fault, Error::GRpcStatus(status)
        if status.message().contains("required revision has been compacted"))
}

/// Whether the server refused because the user may not.
pub(crate) fn is_denied(fault: &Error) -> bool {
    matches!(fault, Error::GRpcStatus(status)
        if status.message() == "etcdserver: permission denied")
}

/// An error with all of its causes: the outer ones say little.
pub(crate) fn chain(fault: &Error) -> String {
    let mut text = match fault {
        Error::GRpcStatus(status) => status.message().to_owned(),
        other => other.to_string(),
    };
    let mut cause = match fault {
        Error::GRpcStatus(status) => status.source(),
        Error::TransportError(error) => error.source(),
        _ => None,
    };
    while let Some(error) = cause {
        let more = error.to_string();
        if more != "transport error" && !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// What an answer of the server says of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Lapsed,
    /// It did nothing, and may succeed later or at another member.
    NothingDone,
    /// It may have been committed all the same.
    Unknown,
    /// It did nothing, and will not by itself.
    Never,
    /// The one who fills up the server's space is told so after the commit, those after him before.
    /// The core tells the caller, and withdraws.
    DoneOrNever,
}

/// The server's words (`api/v3rpc/rpctypes/error.go`), and what to do about it. `None` for words that
/// are not the server's.
fn meaning(message: &str) -> Option<(Meaning, &'static str)> {
    use Meaning::{DoneOrNever, Lapsed, Never, NothingDone, Unknown};
    let message = message.strip_prefix("etcdserver: ")?;
    Some(match message {
        "requested lease not found" => (Lapsed, ""),
        // Found out before anything is proposed, because the client asks for a leader.
        "no leader" => (NothingDone, "the cluster has no leader"),
        "too many requests" => (NothingDone, "the server has too much to do"),
        "not capable" | "rpc not supported for learner" => {
            (NothingDone, "this member cannot serve clients yet")
        }
        "invalid auth token" | "revision of auth store is old" => {
            (NothingDone, "the server asks for a new login")
        }
        "mvcc: database space exceeded" => (
            DoneOrNever,
            "the server is out of space; compact and defragment it, or raise its \
             --quota-backend-bytes, and disarm the alarm",
        ),
        "corrupt cluster" => (Never, "the cluster's data is corrupt; see its log"),
        "permission denied" => (
            Never,
            "the user lacks a permission; it needs a role that may read and write the keys with the \
             prefix dlock/",
        ),
        "user name is empty" => (
            Never,
            "the server asks for a user; give one (etcd://user:password@host)",
        ),
        "authentication is not enabled" => (
            Never,
            "the server knows no users; leave out the user and the password",
        ),
        "request is too large" => (
            Never,
            "the server takes only smaller requests; raise its --max-request-bytes",
        ),
        text if text.starts_with("authentication failed") => (
            Never,
            "the server refused the user or the password; check both",
        ),
        text if text.starts_with("request timed out") => {
            (Unknown, "the server did not get it committed in time")
        }
        _ => (Unknown, "the server failed"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_certain_is_told_from_what_is_not() {
        for (message, expected) in [
            ("requested lease not found", Meaning::Lapsed),
            ("no leader", Meaning::NothingDone),
            ("invalid auth token", Meaning::NothingDone),
            ("too many requests", Meaning::NothingDone),
            ("leader changed", Meaning::Unknown),
            ("request timed out", Meaning::Unknown),
            (
                "request timed out, possibly due to previous leader failure",
                Meaning::Unknown,
            ),
            ("server stopped", Meaning::Unknown),
            ("something new", Meaning::Unknown),
            ("mvcc: database space exceeded", Meaning::DoneOrNever),
            ("permission denied", Meaning::Never),
            ("user name is empty", Meaning::Never),
            (
                "authentication failed, invalid user ID or password",
                Meaning::Never,
            ),
        ] {
            let (meaning, _) = meaning(&format!("etcdserver: {message}")).unwrap();
            assert_eq!(meaning, expected, "{message}");
        }
        assert!(meaning("transport error").is_none());
    }

    #[test]
    fn no_answer_is_ambiguous_but_no_connection_is_not() {
        use dlock_core::StoreErrorKind::{Ambiguous, Unavailable};
        let broken = || Error::IoError(std::io::ErrorKind::BrokenPipe.into());
        assert_eq!(answered(broken()).kind(), Ambiguous);
        let error = dialing(&"host:1", false, broken());
        assert_eq!(error.kind(), Unavailable);
        assert!(error.to_string().contains("host:1"), "{error}");
    }
}
