//! [`JetStream`]: the backend, and what its sessions share.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use dlock_core::table::{Entry, LockTable};
use dlock_core::{
    Backend, Capabilities, ClaimSnapshot, Error, LockName, LockSnapshot, Mailbox, Mode, Opened,
    Reach, SessionId, SessionTerms, StoreError,
};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::json;

use crate::bucket::{self, Checked, in_use};
use crate::connect;
use crate::documents::Document;
use crate::error::answered;
use crate::keys::Layout;
use crate::leases::Observed;
use crate::link::{Ask, Link};
use crate::options::JetStreamOptions;
use crate::server_time::ServerTime;
use crate::session::JetStreamSession;

/// How many reads are under way at once where many are to be made.
const AT_ONCE: usize = 32;

/// One namespace of a NATS server or cluster.
///
/// ```no_run
/// # async fn example() -> Result<(), dlock_core::Error> {
/// use dlock_jetstream::{JetStream, JetStreamOptions};
///
/// let jetstream = JetStream::connect(JetStreamOptions::new("localhost", 4222)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct JetStream(Arc<Store>);

/// What the sessions of one connection share.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) link: Link,
    pub(crate) layout: Layout,
    pub(crate) time: ServerTime,
    pub(crate) observed: Observed,
    /// As the user asked.
    replicas: Option<u32>,
    checked: Checked,
}

impl JetStream {
    /// Connects, makes the namespace's bucket if it is missing, and checks that locks are safe in it.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for settings, of the options, the server or the bucket, that cannot be;
    /// [`Error::Store`] when no server can be reached or it refuses.
    ///
    /// # Cancel safety
    ///
    /// Dropping it closes what it had opened. A bucket that it has made stays.
    pub async fn connect(options: JetStreamOptions) -> Result<JetStream, Error> {
        let layout = Layout::new(&options.namespace);
        let time = ServerTime::default();
        let (link, checked) = connect::connect(&options, &layout, &time).await?;
        Ok(JetStream(Arc::new(Store {
            link,
            layout,
            time,
            observed: Observed::default(),
            replicas: options.replicas,
            checked,
        })))
    }
}

#[async_trait]
impl Backend for JetStream {
    fn kind(&self) -> &'static str {
        "jetstream"
    }

    fn capabilities(&self) -> Capabilities {
        let Checked {
            replicas, storage, ..
        } = &self.0.checked;
        Capabilities {
            modes: &Mode::ALL,
            min_ttl: Duration::from_secs(1),
            slack: Duration::from_millis(1500),
            reach: Reach::Network,
            durability: match replicas {
                1 => format!("the stream's acknowledgement from 1 replica, {storage} storage"),
                more => format!(
                    "the stream's acknowledgement from a majority of {more} replicas, {storage} storage"
                ),
            },
        }
    }

    async fn open(&self, terms: &SessionTerms, mailbox: Mailbox) -> Result<Opened, StoreError> {
        let session = JetStreamSession::open(&self.0, terms, mailbox).await?;
        Ok(Opened {
            ttl: session.ttl(),
            session: Arc::new(session),
        })
    }

    async fn inspect(&self, name: &LockName) -> Result<LockSnapshot, StoreError> {
        let subject = self.0.layout.lock(name);
        let stored = self.0.link.get(&subject, Ask::Leader).await?;
        let table = Document::read(&subject, stored.as_ref())?.table;
        let alive = self.0.alive(&table).await?;
        let claims = table.claims().filter(|claim| alive[&claim.id.session]);
        let (holders, waiters) = claims
            .map(snapshot)
            .partition(|claim| claim.token.is_some());
        Ok(LockSnapshot {
            name: name.clone(),
            holders,
            waiters,
        })
    }

    async fn names(&self) -> Result<Vec<LockName>, StoreError> {
        let subjects = self.0.subjects(&self.0.layout.locks()).await?;
        let in_use = subjects.into_iter().map(|subject| async move {
            let stored = self.0.link.get(&subject, Ask::Leader).await?;
            let table = Document::read(&subject, stored.as_ref())?.table;
            let used = self.0.alive(&table).await?.into_values().any(|alive| alive);
            Ok(used.then(|| self.0.layout.name_of(&subject)).flatten())
        });
        let names = stream::iter(in_use).buffer_unordered(AT_ONCE);
        names
            .try_filter_map(|name| async move { Ok(name) })
            .try_collect()
            .await
    }
}

impl Store {
    /// Makes sure that the bucket is still there and as it was: its data may have been lost, and the
    /// bucket made anew with other settings.
    pub(crate) async fn confirm_bucket(&self) -> Result<(), StoreError> {
        let Self {
            link, layout, time, ..
        } = self;
        let checked = bucket::ensure(link, layout, self.replicas, time).await;
        checked.map(drop).map_err(in_use)
    }

    /// Which of the sessions in this table live, as far as can be seen.
    async fn alive(&self, table: &LockTable) -> Result<HashMap<SessionId, bool>, StoreError> {
        let sessions: BTreeMap<SessionId, ()> =
            table.claims().map(|claim| (claim.id.session, ())).collect();
        let seen = sessions.into_keys().map(|id| async move {
            let alive = self.seems_alive(id).await?;
            Ok((id, alive))
        });
        stream::iter(seen)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// The subjects of the bucket that match this one and have a message.
    async fn subjects(&self, filter: &str) -> Result<Vec<String>, StoreError> {
        #[derive(Deserialize)]
        struct Page {
            state: State,
            #[serde(default)]
            total: usize,
        }
        #[derive(Deserialize)]
        struct State {
            #[serde(default)]
            subjects: BTreeMap<String, u64>,
        }
        let mut found = Vec::new();
        loop {
            let query = json!({ "subjects_filter": filter, "offset": found.len() });
            let page = self.link.api::<Page>("STREAM.INFO", &query).await?;
            let page = page.map_err(|error| answered(&error))?;
            let last = page.state.subjects.is_empty();
            found.extend(page.state.subjects.into_keys());
            if last || found.len() >= page.total {
                return Ok(found);
            }
        }
    }
}

fn snapshot(claim: &Entry) -> ClaimSnapshot {
    ClaimSnapshot {
        id: claim.id,
        mode: claim.mode,
        owner: claim.owner.clone(),
        since: SystemTime::UNIX_EPOCH + Duration::from_millis(claim.since),
        token: claim.token,
        kept: false,
    }
}
