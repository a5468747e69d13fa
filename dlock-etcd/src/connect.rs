//! Connecting: what is checked before anybody relies on the server, and the namespace's record.

use std::time::{Duration, Instant};

use dlock_core::{ConfigError, Error, StoreError};
use etcd_client::{Compare, CompareOp, GetResponse, KeyValue, Txn, TxnOp, TxnOpResponse};
use serde::{Deserialize, Serialize};

use crate::keys::Layout;
use crate::link::{Link, is_members_fault};
use crate::options::EtcdOptions;
use crate::record::strange;
use crate::transport::Dialer;
use crate::version::{Verdict, Version};

/// The version of the key layout. Clients of different versions must not share a namespace.
const VERSION: u32 = 1;
/// How long to wait before the members are asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// What all clients of a namespace agree on, as it is kept in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Format {
    version: u32,
}

/// A checked connection and the namespace's layout.
pub(crate) async fn connect(options: &EtcdOptions) -> Result<(Link, Layout), Error> {
    options.check()?;
    let link = Link::new(options, Dialer::new(options)?);
    let layout = Layout::new(options.namespace.clone());
    let limit = link.dialer().timeout();
    let (until, is_alone) = (Instant::now() + limit * 2, options.endpoints.len() == 1);
    // While a cluster elects a leader, some requests are never answered, and a later one is.
    let patience = if is_alone { limit * 2 } else { limit / 2 };
    loop {
        let checked = tokio::time::timeout(patience, check(&link, &layout)).await;
        let checked = checked.unwrap_or_else(|_| {
            let fault = format!("{}: no answer within {patience:?}", options.endpoints[0]);
            Err(store(StoreError::unavailable(fault)))
        });
        match checked {
            Ok(()) => return Ok((link, layout)),
            Err(fault) if !is_alone && passes(&fault, until) => tokio::time::sleep(PAUSE).await,
            Err(fault) => return Err(fault),
        }
    }
}

async fn check(link: &Link, layout: &Layout) -> Result<(), Error> {
    let wire = link.wire().await.map_err(store)?;
    if let Some(version) = &wire.version {
        check_version(&wire.member, version)?;
    }
    agree(link, layout).await
}

/// Whether another member, or the same one a little later, may do better.
fn passes(fault: &Error, until: Instant) -> bool {
    let may_pass = matches!(fault, Error::Store { source, .. } if is_members_fault(source));
    may_pass && Instant::now() + PAUSE < until
}

fn store(source: StoreError) -> Error {
    Error::Store {
        backend: "etcd",
        name: None,
        doing: "connect",
        source,
    }
}

fn check_version(member: &str, text: &str) -> Result<(), Error> {
    let refuse = || {
        Error::Config(ConfigError::new(
            member,
            format!("its version is {text}"),
            "dlock needs etcd 3.5 or newer",
        ))
    };
    match Version::read(text).ok_or_else(refuse)?.verdict() {
        Verdict::Good => Ok(()),
        Verdict::Faulty(why) => {
            tracing::warn!(member, version = text, "{why}");
            Ok(())
        }
        Verdict::TooOld => Err(refuse()),
    }
}

/// Makes the namespace's record, or checks that it is as it should be.
async fn agree(link: &Link, layout: &Layout) -> Result<(), Error> {
    let key = layout.format();
    let absent = Compare::create_revision(key.clone(), CompareOp::Equal, 0);
    let made = Format::current().map_err(store)?;
    let txn = Txn::new()
        .when([absent])
        .and_then([TxnOp::put(key.clone(), made, None)])
        .or_else([TxnOp::get(key, None)]);
    let answer = link.txn(txn).await.map_err(store)?;
    if answer.succeeded() {
        return Ok(());
    }
    let found = gets(&answer.op_responses());
    let record = found.first().and_then(only);
    let record = record.ok_or_else(|| store(StoreError::unavailable("its record was deleted")))?;
    let found = Format::read(&record).map_err(store)?;
    found.fits(layout).map_err(Error::Config)
}

impl Format {
    /// This version's record.
    pub(crate) fn current() -> Result<String, StoreError> {
        serde_json::to_string(&Format { version: VERSION })
            .map_err(|fault| StoreError::refused("the record cannot be written").because(fault))
    }

    pub(crate) fn read(record: &KeyValue) -> Result<Self, StoreError> {
        serde_json::from_slice(record.value()).map_err(|_| strange(record.key()))
    }

    pub(crate) fn fits(self, layout: &Layout) -> Result<(), ConfigError> {
        if self.version == VERSION {
            return Ok(());
        }
        Err(ConfigError::new(
            format!("namespace {}", layout.namespace()),
            format!(
                "its data has format {}, and this version of dlock has {VERSION}",
                self.version
            ),
            "use one version of dlock for all of its clients, or another namespace",
        ))
    }
}

/// The answers to the reads among these operations.
pub(crate) fn gets(answers: &[TxnOpResponse]) -> Vec<GetResponse> {
    let get = |answer: &TxnOpResponse| match answer {
        TxnOpResponse::Get(get) => Some(get.clone()),
        _ => None,
    };
    answers.iter().filter_map(get).collect()
}

/// The one key that was read, if it is there.
pub(crate) fn only(answer: &GetResponse) -> Option<KeyValue> {
    answer.kvs().first().cloned()
}
