//! How durable a grant must be before it is reported (COMMITTED).
//!
//! `WAIT` and `WAITAOF` count the replicas that have what *their own connection* wrote, and hold up
//! all that is sent behind them. So a script that grants and its `WAIT` go together over a
//! connection of their own, and a script that finds a claim granted by somebody else's call writes
//! something itself.

use std::time::Duration;

use dlock_core::StoreError;
use redis::{Cmd, Value};

use crate::error::answered;

/// What a grant waits for before it is reported (COMMITTED).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Confirm {
    /// The script's reply.
    Reply,
    /// `WAIT`: so many replicas have it in memory.
    Replicas { replicas: u32, within: Duration },
    /// `WAITAOF`: the server itself (`local` is 1) and so many replicas have it on disk.
    Disk {
        local: u32,
        replicas: u32,
        within: Duration,
    },
}

impl Confirm {
    /// HONEST: an attempt that is given up while the replicas are waited for could never succeed.
    pub(crate) fn fits(self, attempt: Duration) -> Result<(), StoreError> {
        match self {
            Confirm::Replicas { within, .. } | Confirm::Disk { within, .. }
                if within >= attempt =>
            {
                Err(StoreError::refused(format!(
                    "option wait_timeout: {within:?} is too long for this TTL, with which an attempt \
                     takes at most {attempt:?}; shorten it, or lengthen the TTL"
                )))
            }
            _ => Ok(()),
        }
    }

    /// For the support matrix.
    pub(crate) fn in_words(self) -> String {
        match self {
            Confirm::Reply => "the server has it in memory".to_owned(),
            Confirm::Replicas { replicas, .. } => {
                format!("the server and {replicas} of its replicas have it in memory")
            }
            Confirm::Disk {
                local, replicas, ..
            } => match (local, replicas) {
                (0, _) => format!("{replicas} replicas have it in their append-only files"),
                (_, 0) => "the server has it in its append-only file".to_owned(),
                _ => format!("the server and {replicas} replicas have it in append-only files"),
            },
        }
    }

    /// What makes the server hold its answer until a grant is as durable as was asked for.
    pub(crate) fn command(self) -> Option<Cmd> {
        let mut command = Cmd::new();
        match self {
            Confirm::Reply => return None,
            Confirm::Replicas { replicas, within } => command
                .arg("WAIT")
                .arg(replicas)
                .arg(within.as_millis().to_string()),
            Confirm::Disk {
                local,
                replicas,
                within,
            } => command
                .arg("WAITAOF")
                .arg(local)
                .arg(replicas)
                .arg(within.as_millis().to_string()),
        };
        Some(command)
    }

    /// COMMITTED, HONEST: too few is an error that says how many.
    pub(crate) fn check(self, reply: Option<Value>) -> Result<(), StoreError> {
        let reply = reply.unwrap_or(Value::Nil).extract_error();
        let reply = reply.map_err(|fault| {
            let fault = answered(fault);
            StoreError::unconfirmed(format!("granted, but the replicas were not asked: {fault}"))
        })?;
        let enough =
            |got: &Value, asked: u32| matches!(got, Value::Int(got) if *got >= asked.into());
        let (fine, asked, within) = match self {
            Confirm::Reply => return Ok(()),
            Confirm::Replicas { replicas, within } => (
                enough(&reply, replicas),
                format!("{replicas} replicas"),
                within,
            ),
            Confirm::Disk {
                local,
                replicas,
                within,
            } => {
                let fine = match &reply {
                    Value::Array(got) => {
                        matches!(&got[..], [here, there] if enough(here, local) && enough(there, replicas))
                    }
                    _ => false,
                };
                let asked =
                    format!("the append-only files of {local} servers and {replicas} replicas");
                (fine, asked, within)
            }
        };
        if fine {
            return Ok(());
        }
        let got = match reply {
            Value::Int(got) => got.to_string(),
            Value::Array(got) => got
                .iter()
                .map(|part| match part {
                    Value::Int(part) => part.to_string(),
                    other => format!("{other:?}"),
                })
                .collect::<Vec<_>>()
                .join(" and "),
            other => format!("{other:?}"),
        };
        Err(StoreError::unconfirmed(format!(
            "granted, but not as durably as was asked: {asked} were to have it within {within:?}, and \
         {got} did"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_no_attempt_could_outlast_is_refused() {
        let confirm = Confirm::Replicas {
            replicas: 1,
            within: Duration::from_secs(1),
        };
        assert!(confirm.fits(Duration::from_millis(1001)).is_ok());
        let error = confirm
            .fits(Duration::from_secs(1))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("wait_timeout") && error.contains("lengthen the TTL"),
            "{error}"
        );
        assert!(Confirm::Reply.fits(Duration::ZERO).is_ok());
    }
}
