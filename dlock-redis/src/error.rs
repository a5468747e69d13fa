//! What an error of the server or of the connection means for a claim.
//!
//! What may be concluded decides what the core does next, so each code of the server is mapped
//! deliberately. An answer of the server says that nothing was done: a script is refused before its
//! first write. No answer says nothing at all (ONCE).

use dlock_core::StoreError;
use redis::{ErrorKind, RedisError};

/// The meaning of an error in answer to something that was sent.
pub(crate) fn answered(error: RedisError) -> StoreError {
    let Some(code) = error.code().map(str::to_owned) else {
        return match error.kind() {
            ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => {
                StoreError::refused(error.to_string())
            }
            _ => StoreError::ambiguous(format!("no answer: {error}")),
        };
    };
    let text = match error.detail() {
        Some(detail) => format!("{code} {detail}"),
        None => code.clone(),
    };
    match remedy(&code, &text) {
        (Passes::ByItself, remedy) => StoreError::unavailable(format!("{remedy} ({text})")),
        (Passes::Never, remedy) => StoreError::refused(format!("{remedy} ({text})")),
    }
}

/// The meaning of an error while a connection was being made: nothing had been sent yet.
pub(crate) fn dialing(address: &impl std::fmt::Display, error: RedisError) -> StoreError {
    if error.kind() == ErrorKind::AuthenticationFailed {
        // The client library keeps the server's words to itself.
        return StoreError::refused(format!(
            "{address} refused the user or the password; check both"
        ));
    }
    let detail = error.detail().unwrap_or_default();
    if detail.contains("DB index is out of range") {
        return StoreError::refused(format!(
            "{address} has no such database; choose one below its setting 'databases'"
        ));
    }
    if detail.contains("SELECT is not allowed in cluster mode") {
        return StoreError::refused(format!(
            "{address} is a node of a Redis Cluster, which has database 0 alone; \
             leave the database out and set cluster=true"
        ));
    }
    if detail.contains("NOAUTH") || detail.contains("Authentication required") {
        return StoreError::refused(format!("{address} asks for a password; {NEEDS_PASSWORD}"));
    }
    if error.code().is_some() {
        return answered(error);
    }
    StoreError::unavailable(format!("cannot connect to {address}: {error}"))
}

const NEEDS_PASSWORD: &str = "give one (redis://user:password@host)";

enum Passes {
    ByItself,
    Never,
}

/// Whether an error passes without anybody's doing, and what it means or what to do about it.
fn remedy(code: &str, text: &str) -> (Passes, &'static str) {
    use Passes::{ByItself, Never};
    match code {
        "LOADING" => (ByItself, "the server is loading its data"),
        "CLUSTERDOWN" => (ByItself, "the cluster lacks a node for the lock"),
        "MASTERDOWN" => (ByItself, "the replica has lost its master"),
        "TRYAGAIN" => (
            ByItself,
            "the lock is moving to another node of the cluster",
        ),
        "MOVED" | "ASK" => (
            ByItself,
            "the lock has moved to another node of the cluster",
        ),
        "NOREPLICAS" => (
            ByItself,
            "the server has too few replicas for its setting min-replicas-to-write",
        ),
        "BUSY" => (ByItself, "the server is busy with somebody's long script"),
        // After a failover; the next attempt uses a new connection, to whoever is the master then.
        "READONLY" => (ByItself, "the server has become a read-only replica"),
        "NOSCRIPT" => (ByItself, "the server keeps forgetting the scripts"),
        "OOM" => (
            Never,
            "the server is out of memory; raise its maxmemory or free some of it",
        ),
        "MISCONF" => (
            Never,
            "the server cannot save its data, and refuses writes until it can; see its log",
        ),
        "NOAUTH" | "WRONGPASS" => (
            Never,
            "the server refused the user or the password; check both",
        ),
        "NOPERM" => (
            Never,
            "the user lacks a permission; it needs the keys dlock:*, the channels dlock:*, and the \
             commands of the categories @scripting, @sortedset, @string, @pubsub and @connection, \
             and INFO, TIME, and on a cluster CLUSTER and ASKING",
        ),
        "CROSSSLOT" => (Never, "the server does not support hash tags"),
        "WRONGTYPE" => (
            Never,
            "somebody else uses the keys dlock:*; choose another namespace",
        ),
        "ERR" if text.contains("max number of clients") => {
            (ByItself, "the server has no connection to spare")
        }
        "ERR" if text.contains("cluster support disabled") => (
            Never,
            "it is not a node of a cluster; leave out cluster=true, and name one host alone",
        ),
        "ERR" if text.contains("unknown command") => (
            Never,
            "the server lacks a command; dlock needs Redis 7.0 or Valkey 7.2, or newer",
        ),
        _ => (Never, "the server refused"),
    }
}

#[cfg(test)]
mod tests {
    use dlock_core::StoreErrorKind;

    use super::*;

    fn server(line: &str) -> RedisError {
        redis::parse_redis_value(format!("-{line}\r\n").as_bytes())
            .and_then(redis::Value::extract_error)
            .unwrap_err()
    }

    #[test]
    fn what_passes_by_itself_is_unavailable_and_what_does_not_is_refused() {
        use StoreErrorKind::{Refused, Unavailable};
        for (line, kind) in [
            (
                "LOADING Redis is loading the dataset in memory",
                Unavailable,
            ),
            ("CLUSTERDOWN The cluster is down", Unavailable),
            ("MASTERDOWN Link with MASTER is down", Unavailable),
            (
                "TRYAGAIN Multiple keys request during rehashing of slot",
                Unavailable,
            ),
            ("MOVED 1 127.0.0.1:1", Unavailable),
            ("ASK 1 127.0.0.1:1", Unavailable),
            ("NOREPLICAS Not enough good replicas to write.", Unavailable),
            ("BUSY Redis is busy running a script.", Unavailable),
            (
                "READONLY You can't write against a read only replica.",
                Unavailable,
            ),
            ("NOSCRIPT No matching script.", Unavailable),
            ("ERR max number of clients reached", Unavailable),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                Refused,
            ),
            ("MISCONF Redis is configured to save RDB snapshots", Refused),
            ("NOAUTH Authentication required.", Refused),
            ("WRONGPASS invalid username-password pair", Refused),
            (
                "NOPERM User x has no permissions to run the 'evalsha' command",
                Refused,
            ),
            (
                "CROSSSLOT Keys in request don't hash to the same slot",
                Refused,
            ),
            ("WRONGTYPE Operation against a key", Refused),
            ("ERR unknown command 'EVALSHA'", Refused),
            ("ERR user_script:1: anything", Refused),
        ] {
            let error = answered(server(line));
            assert_eq!(error.kind(), kind, "{line}");
            assert!(
                error.to_string().contains(line.split(' ').next().unwrap()),
                "{error}"
            );
        }
    }

    #[test]
    fn no_answer_is_ambiguous_but_no_connection_is_not() {
        let broken = || RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!(answered(broken()).kind(), StoreErrorKind::Ambiguous);
        let error = dialing(&"host:1", broken());
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        assert!(error.to_string().contains("host:1"), "{error}");
    }
}
