//! The connection, and the few requests of JetStream's protocol that a lock needs.
//!
//! They are sent as they stand in the protocol (ADR-1, ADR-8, ADR-31 and ADR-43 of NATS) and not
//! through the client's key-value interface: that one drops a TTL when it creates a key again, has no
//! update with a TTL, and makes three round trips of a create.
//!
//! Nothing is ever sent a second time here: that is the core's decision (ONCE). A connection on which
//! nobody has been answered for too long may be dead, so it is replaced. That is made in the background:
//! who gives up waiting for it has it the next time. What the old one has buffered may still arrive.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use async_nats::client::Request;
use async_nats::connection::State;
use async_nats::{HeaderMap, Message, RequestErrorKind, Subscriber};
use dlock_core::mutants::{Mutant, is_on};
use dlock_core::{SharedConnection, StoreError};
use futures_util::FutureExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::broadcast;

use crate::bucket::in_use;
use crate::connect::{Dialer, Wire};
use crate::error::{ApiError, answered, denied, strange, unanswered};
use crate::server_time;

/// How long a server where nobody answers is kept.
const LONELY: Duration = Duration::from_millis(300);
/// How often a connection that is being made again is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// The header of a message that stands for a deleted key in a key-value bucket.
const OPERATION: &str = "KV-Operation";

#[derive(Debug)]
pub(crate) struct Link {
    dialer: Arc<Dialer>,
    seat: SharedConnection<Arc<Wire>>,
    /// The name of the bucket's stream.
    stream: String,
}

/// A message of the bucket.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// Its place in the stream.
    pub(crate) sequence: u64,
    /// When the server stored it: microseconds since 1970.
    pub(crate) at: u64,
    pub(crate) payload: Vec<u8>,
    /// Whether it only says that somebody has deleted the key by hand (`nats kv del`).
    pub(crate) deleted: bool,
}

/// What became of a compare-and-set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It is committed, with this sequence.
    Stored(u64),
    /// Nothing was done: the subject has another last sequence.
    Overtaken,
    /// Nothing was done: another write to the subject is under way.
    InFlight,
}

/// Whom to ask for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Any replica. It may lag behind.
    Anyone,
    /// The stream's leader.
    Leader,
}

#[derive(Deserialize)]
struct Acknowledgement {
    error: Option<ApiError>,
    #[serde(default)]
    seq: u64,
}

#[derive(Deserialize)]
struct Found {
    message: Option<FoundMessage>,
}

#[derive(Deserialize)]
struct FoundMessage {
    seq: u64,
    time: String,
    #[serde(default)]
    data: String,
    #[serde(default)]
    hdrs: String,
}

impl Link {
    pub(crate) fn new(dialer: Dialer, first: Wire, stream: String) -> Self {
        Self {
            dialer: Arc::new(dialer),
            seat: SharedConnection::holding(Arc::new(first)),
            stream,
        }
    }

    /// A connection that stands. What is sent without one would lie in a buffer, and go out whenever
    /// there is one again.
    async fn wire(&self) -> Result<Arc<Wire>, StoreError> {
        loop {
            let dial = || {
                let dialer = Arc::clone(&self.dialer);
                async move { dialer.dial().await.map(Arc::new).map_err(in_use) }
            };
            let wire = self.seat.get(|wire| !wire.has_ended(), dial).await?;
            while !wire.has_ended() {
                if wire.is_usable() {
                    return Ok(wire);
                }
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// Writes to the subject if its last sequence is this one; 0 is "there is none" (ATOM-A). The
    /// message goes by itself after `ttl`, in seconds.
    pub(crate) async fn put(
        &self,
        subject: &str,
        expected: u64,
        payload: Vec<u8>,
        ttl: Option<u64>,
    ) -> Result<Put, StoreError> {
        let mut headers = HeaderMap::new();
        if !is_on(Mutant::BlindWrite) {
            headers.insert("Nats-Expected-Last-Subject-Sequence", expected.to_string());
        }
        if let Some(seconds) = ttl.filter(|_| expected == 0 || !is_on(Mutant::LostTtl)) {
            headers.insert("Nats-TTL", seconds.to_string());
        }
        let reply = self
            .ask(Ask::Leader, subject, Some(headers), payload)
            .await?;
        let reply: Acknowledgement = read(subject, &reply.payload)?;
        match reply.error {
            None => Ok(Put::Stored(reply.seq)),
            Some(error) if error.err_code == ApiError::OVERTAKEN => Ok(Put::Overtaken),
            Some(error) if error.err_code == ApiError::IN_FLIGHT => Ok(Put::InFlight),
            Some(error) => Err(answered(&error)),
        }
    }

    /// The last message on the subject.
    pub(crate) async fn get(&self, subject: &str, ask: Ask) -> Result<Option<Stored>, StoreError> {
        match ask {
            Ask::Anyone => self.get_from_anyone(subject).await,
            Ask::Leader => self.get_from_leader(subject).await,
        }
    }

    async fn get_from_anyone(&self, subject: &str) -> Result<Option<Stored>, StoreError> {
        let api = format!("$JS.API.DIRECT.GET.{}.{subject}", self.stream);
        let reply = self.ask(Ask::Anyone, &api, None, Vec::new()).await?;
        match reply.status.map(|status| status.as_u16()) {
            None => {}
            Some(404) => return Ok(None),
            Some(status) => {
                let words = reply.description.unwrap_or_default();
                let fault = format!("{subject} cannot be read: {words} (status {status})");
                return Err(StoreError::unavailable(fault));
            }
        }
        let header = |name: &str| {
            let value = reply.headers.as_ref()?.get(name)?;
            Some(value.as_str().to_owned())
        };
        let stored = || {
            Some(Stored {
                sequence: header("Nats-Sequence")?.parse().ok()?,
                at: server_time::parse(&header("Nats-Time-Stamp")?)?,
                payload: reply.payload.to_vec(),
                deleted: header(OPERATION).is_some_and(|operation| deletes(&operation)),
            })
        };
        stored()
            .map(Some)
            .ok_or_else(|| strange(subject, b"a message without its sequence"))
    }

    async fn get_from_leader(&self, subject: &str) -> Result<Option<Stored>, StoreError> {
        let query = serde_json::json!({ "last_by_subj": subject });
        let found: Result<Found, ApiError> = self.api("STREAM.MSG.GET", &query).await?;
        let message = match found {
            Ok(found) => found.message,
            Err(error) if error.err_code == ApiError::NO_MESSAGE => None,
            Err(error) => return Err(answered(&error)),
        };
        let Some(message) = message else {
            return Ok(None);
        };
        let stored = || {
            Some(Stored {
                sequence: message.seq,
                at: server_time::parse(&message.time)?,
                payload: base64(&message.data)?,
                deleted: String::from_utf8(base64(&message.hdrs)?)
                    .ok()?
                    .lines()
                    .filter_map(|line| line.split_once(':'))
                    .any(|(header, value)| header == OPERATION && deletes(value.trim())),
            })
        };
        stored()
            .map(Some)
            .ok_or_else(|| strange(subject, message.data.as_bytes()))
    }

    /// A request about the bucket's stream: the answer, or the error that is one.
    pub(crate) async fn api<T: DeserializeOwned>(
        &self,
        what: &str,
        query: &serde_json::Value,
    ) -> Result<Result<T, ApiError>, StoreError> {
        #[derive(Deserialize)]
        struct Failed {
            error: ApiError,
        }
        let subject = format!("$JS.API.{what}.{}", self.stream);
        let query = query.to_string().into_bytes();
        let reply = self.ask(Ask::Leader, &subject, None, query).await?;
        if let Ok(failed) = serde_json::from_slice::<Failed>(&reply.payload) {
            return Ok(Err(failed.error));
        }
        read(&subject, &reply.payload).map(Ok)
    }

    /// How long a message may be, with its headers.
    pub(crate) async fn most_bytes(&self) -> Result<usize, StoreError> {
        Ok(self.wire().await?.client.max_payload())
    }

    /// Sends a message that nobody confirms. It is a courtesy: whoever misses it looks by himself
    /// (WAKE).
    pub(crate) async fn tell(&self, subject: String, payload: Vec<u8>) {
        let Ok(wire) = self.wire().await else {
            return;
        };
        if let Err(fault) = wire.client.publish(subject, payload.into()).await {
            tracing::debug!(%fault, "a message was not sent");
        }
    }

    pub(crate) async fn subscribe(&self, subject: String) -> Result<Subscriber, StoreError> {
        let subscribed = self.wire().await?.client.subscribe(subject).await;
        subscribed.map_err(|fault| StoreError::unavailable("cannot subscribe").because(fault))
    }

    /// Sends a request and waits for the answer, for as long as the caller does.
    async fn ask(
        &self,
        whom: Ask,
        subject: &str,
        headers: Option<HeaderMap>,
        payload: Vec<u8>,
    ) -> Result<Message, StoreError> {
        let wire = self.wire().await?;
        let mut denials = self.dialer.denials.subscribe();
        let mut request = Request::new().payload(payload.into()).timeout(None);
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        let answer = wire.client.send_request(subject.to_owned(), request);
        let quoted = format!("{subject:?}");
        let concerns = |words: &str| words.contains(&quoted) || words.contains("_INBOX");
        let answer = async {
            tokio::select! {
                answer = answer => Ok(answer),
                words = next(&mut denials, concerns) => Err(denied(&words)),
            }
        };
        let connection = wire.connection();
        let patience = wire.patience(connection);
        let leave = || {
            tracing::debug!("requests go unanswered; connecting again");
            wire.leave(connection);
        };
        let answer = match whom {
            Ask::Anyone => patience.of_anyone.wait(answer, leave).await?,
            Ask::Leader => {
                let answer = patience.of_leader.wait(answer, leave).await;
                patience.of_anyone.heard();
                answer?
            }
        };
        answer.map_err(|error| {
            if error.kind() == RequestErrorKind::NoResponders && self.dialer.has_choice() {
                wire.leave_soon();
            }
            unanswered(&error)
        })
    }
}

impl Wire {
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// The number of the connection that is in use.
    fn connection(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }

    /// Whether what is sent now goes over a connection that nobody has given up.
    fn is_usable(&self) -> bool {
        self.client.connection_state() == State::Connected
            && self.given_up.load(Ordering::Relaxed) != self.connection()
    }

    /// Connects again: to another server, where there are several. Once for each connection, however
    /// many have reason to.
    fn leave(&self, connection: u64) {
        if connection == self.connection() && self.is_usable() {
            // It is a message to the client library's task, and there is room for it.
            if let Some(Ok(())) = self.client.force_reconnect().now_or_never() {
                self.given_up.store(connection, Ordering::Relaxed);
            }
        }
    }

    /// This server knows nobody who answers. It may be cut off from the others, which do; or there is
    /// none anywhere while they elect a leader, so it is not left at once.
    fn leave_soon(&self) {
        let connection = self.connection();
        let mut lonely = self.lonely.lock().unwrap_or_else(PoisonError::into_inner);
        match *lonely {
            Some((since, of)) if of == connection => {
                if since.elapsed() > LONELY {
                    tracing::debug!("nobody answers here; connecting again");
                    self.leave(connection);
                }
            }
            _ => *lonely = Some((Instant::now(), connection)),
        }
    }
}

/// The next denial that concerns a request.
async fn next(
    denials: &mut broadcast::Receiver<String>,
    concerns: impl Fn(&str) -> bool,
) -> String {
    loop {
        match denials.recv().await {
            Ok(words) if concerns(&words) => return words,
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

fn read<T: DeserializeOwned>(subject: &str, payload: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(payload).map_err(|_| strange(subject, payload))
}

fn deletes(operation: &str) -> bool {
    matches!(operation, "DEL" | "PURGE")
}

/// Standard base64 with padding (RFC 4648), as the server writes a message's data.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').bytes();
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_its_specification() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(base64(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        assert_eq!(base64("Zm9v!"), None);
        assert_eq!(base64("/+8="), Some(vec![0xFF, 0xEF]));
    }
}
