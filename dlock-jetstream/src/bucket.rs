//! The namespace's bucket: made when it is missing, checked when it is there.
//!
//! A setting that would break a promise is an error that names it and the command that mends it
//! (HONEST). One that only weakens what a crash of servers leaves is a warning.

use std::time::{Duration, Instant, SystemTime};

use dlock_core::mutants::{Mutant, is_on};
use dlock_core::{ConfigError, Error, StoreError, StoreErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::{ApiError, answered, strange};
use crate::keys::Layout;
use crate::link::{Ask, Link, Put};
use crate::server_time::{self, ServerTime};

/// The version of the key layout. Clients of different versions must not share a namespace.
const FORMAT: u32 = 1;
/// How long one attempt to find or make the bucket may take.
const ATTEMPT: Duration = Duration::from_secs(2);
/// How long to wait before asking again for a bucket without a leader.
const PAUSE: Duration = Duration::from_millis(100);

/// What all clients of a namespace agree on, as it is kept in the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Format {
    version: u32,
}

/// What is known of a bucket after it was checked.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    /// How many servers keep it.
    pub(crate) replicas: u32,
    /// Where: `file` or `memory`.
    pub(crate) storage: String,
    /// Whether it has more servers to choose from than one.
    is_clustered: bool,
}

/// The answer to `STREAM.INFO` and `STREAM.CREATE`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Info {
    config: Config,
    #[serde(default)]
    cluster: Cluster,
    #[serde(default)]
    ts: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Config {
    #[serde(default)]
    subjects: Vec<String>,
    storage: String,
    discard: String,
    num_replicas: u32,
    #[serde(default)]
    max_msgs_per_subject: i64,
    #[serde(default)]
    max_age: u64,
    #[serde(default)]
    subject_delete_marker_ttl: u64,
    #[serde(default)]
    allow_msg_ttl: bool,
    #[serde(default)]
    allow_direct: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Cluster {
    /// Absent where there is one server alone.
    name: Option<String>,
}

/// [`ensure`], again and again until then while the servers elect a leader.
pub(crate) async fn ensure_until(
    until: Instant,
    link: &Link,
    layout: &Layout,
    replicas: Option<u32>,
    time: &ServerTime,
) -> Result<Checked, Error> {
    loop {
        let checked = ensure(link, layout, replicas, time).await;
        let may_pass = matches!(&checked, Err(Error::Store { source, .. })
            if source.kind() == StoreErrorKind::Unavailable);
        if !may_pass || Instant::now() + PAUSE >= until {
            return checked;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Makes sure that the bucket is there and as it must be. One attempt, which also leaves a server that
/// does not answer.
pub(crate) async fn ensure(
    link: &Link,
    layout: &Layout,
    replicas: Option<u32>,
    time: &ServerTime,
) -> Result<Checked, Error> {
    let attempt = ensure_at_leisure(link, layout, replicas, time);
    let timed = tokio::time::timeout(ATTEMPT, attempt).await;
    timed.unwrap_or_else(|_| {
        let fault = format!("no answer within {ATTEMPT:?}");
        Err(store(StoreError::unavailable(fault)))
    })
}

async fn ensure_at_leisure(
    link: &Link,
    layout: &Layout,
    replicas: Option<u32>,
    time: &ServerTime,
) -> Result<Checked, Error> {
    let asked = Instant::now();
    let info = match link
        .api::<Info>("STREAM.INFO", &json!({}))
        .await
        .map_err(store)?
    {
        Ok(info) => info,
        Err(error) if error.err_code == ApiError::NO_STREAM => make(link, layout, replicas).await?,
        Err(error) => return Err(store(answered(&error))),
    };
    let now = server_time::parse(&info.ts).ok_or_else(|| {
        let fault = "the server does not say what time it is";
        store(StoreError::refused(fault))
    })?;
    time.hear(asked, now);
    info.check(layout, replicas)?;
    agree(link, layout).await?;
    Ok(Checked {
        replicas: info.config.num_replicas,
        storage: info.config.storage,
        is_clustered: info.cluster.name.is_some(),
    })
}

/// The settings of a key-value bucket, with TTLs of single messages. No `subject_delete_marker_ttl`:
/// with it, three replicas were seen to erase renewals that they had acknowledged. Its sequences begin
/// with the time: a bucket that is made after one that was lost uses none of that one's again, or
/// a client that remembers a document of the lost one could overwrite another's (ATOM-A).
async fn make(link: &Link, layout: &Layout, replicas: Option<u32>) -> Result<Info, Error> {
    let now = dlock_core::wall_clock().duration_since(SystemTime::UNIX_EPOCH);
    let first = now.map_or(1, |since| since.as_micros());
    let mut config = json!({
        "name": layout.stream(),
        "description": "Locks of dlock",
        "subjects": [layout.subjects()],
        "storage": "file",
        "num_replicas": replicas.unwrap_or(1),
        "first_seq": u64::try_from(first).unwrap_or(1),
        "max_msgs_per_subject": 1,
        "max_msgs": -1,
        "max_bytes": -1,
        "discard": "new",
        "deny_delete": true,
        "allow_rollup_hdrs": true,
        "allow_direct": true,
        "allow_msg_ttl": true,
    });
    if is_on(Mutant::DeleteMarkers) {
        config["subject_delete_marker_ttl"] = json!(1_000_000_000_u64);
    }
    let made = link.api("STREAM.CREATE", &config).await.map_err(store)?;
    let info = match made {
        Ok(info) => info,
        // Another client was quicker, with other settings: they are checked next.
        Err(error) if error.err_code == ApiError::NAME_IN_USE => {
            let found = link.api("STREAM.INFO", &json!({})).await.map_err(store)?;
            found.map_err(|error| store(answered(&error)))?
        }
        Err(error) => return Err(store(answered(&error))),
    };
    tracing::debug!(bucket = layout.bucket(), "made the bucket");
    Ok(info)
}

impl Info {
    fn check(&self, layout: &Layout, replicas: Option<u32>) -> Result<(), ConfigError> {
        let config = &self.config;
        let stream = layout.stream();
        let fault = |what: &str, fault: String, change: &str| {
            let remedy = format!("nats stream edit {stream} {change}");
            Err(ConfigError::new(what, fault, remedy))
        };
        let bucket = |words: String, change: &str| {
            fault(&format!("bucket {}", layout.bucket()), words, change)
        };
        if config.max_msgs_per_subject != 1 {
            let kept = config.max_msgs_per_subject;
            let words = format!("its history (max_msgs_per_subject) is {kept}, and must be 1");
            return bucket(words, "--max-msgs-per-subject=1");
        }
        if !config.allow_msg_ttl {
            let words = "it does not allow TTLs of single messages (allow_msg_ttl)".to_owned();
            let remedy = format!(
                "nats stream edit {stream} --interactive, and set allow_msg_ttl to true; or remove the \
                 bucket while nobody uses it (nats kv del {name}), and it is made as it must be",
                name = layout.bucket(),
            );
            return Err(ConfigError::new(
                format!("bucket {}", layout.bucket()),
                words,
                remedy,
            ));
        }
        if config.max_age != 0 {
            let words = "its max_age would delete a lock that somebody holds".to_owned();
            return bucket(words, "--max-age=0s");
        }
        if config.subject_delete_marker_ttl != 0 {
            let words = "with subject_delete_marker_ttl its replicas may erase what they \
                         acknowledged";
            return bucket(words.to_owned(), "--subject-del-markers-ttl=0s");
        }
        if config.discard != "new" {
            let words = "it discards old messages when it is full, a lock in use among them";
            return bucket(words.to_owned(), "--discard=new");
        }
        if !config.allow_direct {
            let words = "it does not allow direct reads (allow_direct)".to_owned();
            return bucket(words, "--allow-direct");
        }
        if config.subjects != [layout.subjects()] {
            let words = format!("its subjects are {:?}", config.subjects);
            return bucket(words, &format!("--subjects='{}'", layout.subjects()));
        }
        match replicas {
            Some(asked) if asked != config.num_replicas => fault(
                "option replicas",
                format!(
                    "the bucket {} has {}, not {asked}",
                    layout.bucket(),
                    config.num_replicas
                ),
                &format!("--replicas={asked}; or leave the option out"),
            ),
            _ => Ok(()),
        }
    }
}

impl Checked {
    /// Tells the log what is allowed, and should be known.
    pub(crate) fn warn(&self, bucket: &str) {
        if self.replicas == 1 && self.is_clustered {
            tracing::warn!(
                bucket,
                "one server of the cluster alone keeps the locks (replicas is 1): they cannot be used \
                 while it is down, and are lost with it"
            );
        }
        if self.storage != "file" {
            tracing::warn!(
                bucket,
                "the locks are kept in memory alone: they are lost when the servers restart"
            );
        }
    }
}

/// Whether the bucket is gone, and not merely out of reach.
pub(crate) async fn is_gone(link: &Link) -> Result<bool, StoreError> {
    let info = link.api::<Info>("STREAM.INFO", &json!({})).await?;
    Ok(info.is_err_and(|error| error.err_code == ApiError::NO_STREAM))
}

/// The record of the layout's version, which the first client writes.
async fn agree(link: &Link, layout: &Layout) -> Result<(), Error> {
    let subject = layout.format();
    let ours = Format { version: FORMAT };
    let mut found = link.get(&subject, Ask::Anyone).await.map_err(store)?;
    if found.is_none() {
        let text = serde_json::to_vec(&ours).unwrap_or_default();
        if let Put::Stored(_) = link.put(&subject, 0, text, None).await.map_err(store)? {
            return Ok(());
        }
        found = link.get(&subject, Ask::Leader).await.map_err(store)?;
    }
    let Some(found) = found else {
        let fault = "the bucket's format is being written by another client";
        return Err(store(StoreError::unavailable(fault)));
    };
    let theirs: Format = serde_json::from_slice(&found.payload)
        .map_err(|_| store(strange(&subject, &found.payload)))?;
    if theirs == ours {
        return Ok(());
    }
    Err(Error::Config(ConfigError::new(
        format!("bucket {}", layout.bucket()),
        format!(
            "its data has format {}, and this version of dlock has {FORMAT}",
            theirs.version
        ),
        "use one version of dlock for all of its clients, or another namespace",
    )))
}

pub(crate) fn store(source: StoreError) -> Error {
    Error::Store {
        backend: "jetstream",
        name: None,
        doing: "connect",
        source,
    }
}

/// An error of connecting, for somebody who is connected already.
pub(crate) fn in_use(error: Error) -> StoreError {
    match error {
        Error::Store { source, .. } => source,
        other => StoreError::refused(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use dlock_core::Namespace;

    use super::*;

    const GOOD: &str = r#"{"ts":"2026-11-21T14:54:13Z","config":{"subjects":["$KV.dlock-a.>"],
        "storage":"file","discard":"new","num_replicas":1,"max_msgs_per_subject":1,"max_age":0,
        "allow_msg_ttl":true,"allow_direct":true}}"#;

    fn check(info: &str, replicas: Option<u32>) -> Result<(), String> {
        let info: Info = serde_json::from_str(info).unwrap();
        let layout = Layout::new(&Namespace::new("a").unwrap());
        info.check(&layout, replicas)
            .map_err(|fault| fault.to_string())
    }

    /// HONEST: each wrong setting is named, with the command that mends it.
    #[test]
    fn a_bucket_that_cannot_keep_locks_is_refused() {
        assert_eq!(check(GOOD, None), Ok(()));
        assert_eq!(check(GOOD, Some(1)), Ok(()));
        for (right, wrong, expected) in [
            (
                "subject\":1",
                "subject\":5",
                "KV_dlock-a --max-msgs-per-subject=1",
            ),
            ("ttl\":true", "ttl\":false", "nats kv del dlock-a"),
            ("age\":0", "age\":5", "--max-age=0s"),
            (
                "\"max_age\"",
                "\"subject_delete_marker_ttl\":5,\"max_age\"",
                "--subject-del-markers-ttl=0s",
            ),
            ("\"new\"", "\"old\"", "--discard=new"),
            ("direct\":true", "direct\":false", "--allow-direct"),
            ("dlock-a.>", "dlock-b.>", "--subjects='$KV.dlock-a.>'"),
        ] {
            let fault = check(&GOOD.replace(right, wrong), None).unwrap_err();
            assert!(fault.contains(expected), "{fault}");
            assert!(fault.starts_with("bucket dlock-a: "), "{fault}");
        }
        let fault = check(GOOD, Some(3)).unwrap_err();
        assert!(
            fault.contains("has 1, not 3") && fault.contains("--replicas=3"),
            "{fault}"
        );
    }
}
