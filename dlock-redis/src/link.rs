//! The connections in use: to one server, or to the nodes of a cluster.
//!
//! A call goes to the node that serves its slot, over a connection that is made when it is first
//! needed and replaced when it is broken or when nobody has been answered on it for too long. Both
//! connections and the cluster's map are made in the background: who gives up waiting for them has
//! them the next time.
//! Nothing is ever sent a second time unless the server said that it did nothing: it does not know
//! the script, or it serves the slot no more. All else is the core's decision (ONCE).

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dlock_core::{SharedConnection, StoreError, StoreErrorKind};
use futures_util::future::select_ok;
use redis::aio::PubSub;
use redis::{Cmd, RedisError, ServerErrorKind, Value};

use crate::cluster::{Map, redirection};
use crate::error::answered;
use crate::options::{Address, RedisOptions, Topology};
use crate::scripts::Script;
use crate::transport::{Dialer, Wire};

/// Which of a node's connections a call uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Answered promptly: heartbeats among them.
    Prompt,
    /// For `WAIT`, which holds up all that is sent behind it.
    Confirming,
}

/// About how many bytes a word of a call has: what is set aside for it at once.
const USUAL_WORD: usize = 48;

/// How often the server may send a call elsewhere, or ask for the script, before that is an error.
const REDIRECTIONS: usize = 8;

#[derive(Debug)]
pub(crate) struct Link {
    /// The nodes that the user gave.
    nodes: Vec<Address>,
    topology: Topology,
    map: SharedConnection<Arc<Known>>,
    wires: Arc<Wires>,
    /// Counts subscriptions, to spread them over the nodes.
    turn: AtomicUsize,
}

/// The connections for commands, to each node.
#[derive(Debug)]
struct Wires {
    dialer: Arc<Dialer>,
    seats: Mutex<HashMap<Address, Arc<Seats>>>,
}

/// A node's connections.
#[derive(Debug, Default)]
struct Seats {
    prompt: SharedConnection<Arc<Wire>>,
    confirming: SharedConnection<Arc<Wire>>,
}

/// What is known of the cluster, until something says that it is out of date.
#[derive(Debug)]
struct Known(Mutex<Option<Map>>);

/// A script call, ready to be sent.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) slot: u16,
    pub(crate) lane: Lane,
    pub(crate) script: &'a Script,
    pub(crate) keys: Vec<String>,
    pub(crate) args: Vec<String>,
    /// A command that must follow it on the same connection.
    pub(crate) then: Option<Cmd>,
}

impl Link {
    pub(crate) fn new(options: &RedisOptions, dialer: Dialer) -> Self {
        let wires = Wires {
            dialer: Arc::new(dialer),
            seats: Mutex::default(),
        };
        Self {
            nodes: options.nodes.clone(),
            topology: options.topology,
            map: SharedConnection::new(),
            wires: Arc::new(wires),
            turn: AtomicUsize::new(0),
        }
    }

    pub(crate) fn dialer(&self) -> &Dialer {
        &self.wires.dialer
    }

    /// Calls a script, and returns its reply and that of the command after it.
    pub(crate) async fn call(&self, call: &Call<'_>) -> Result<(Value, Option<Value>), StoreError> {
        let words = 3 + call.keys.len() + call.args.len();
        let mut command = Cmd::with_capacity(words, words * USUAL_WORD);
        command
            .arg("EVALSHA")
            .arg(&call.script.hash)
            .arg(call.keys.len())
            .arg(&call.keys)
            .arg(&call.args);
        let mut commands = vec![&command];
        commands.extend(&call.then);
        let mut replies = self
            .redirected(call.slot, call.lane, &commands, Some(call.script))
            .await?
            .into_iter();
        Ok((replies.next().unwrap_or(Value::Nil), replies.next()))
    }

    /// Sends a command about a key in this slot.
    pub(crate) async fn command(&self, slot: u16, command: &Cmd) -> Result<Value, StoreError> {
        let replies = self
            .redirected(slot, Lane::Prompt, &[command], None)
            .await?;
        Ok(replies.into_iter().next().unwrap_or(Value::Nil))
    }

    /// The replies to `commands`, of which the first may be redirected. Its errors are this one's.
    async fn redirected(
        &self,
        slot: u16,
        lane: Lane,
        commands: &[&Cmd],
        script: Option<&Script>,
    ) -> Result<Vec<Value>, StoreError> {
        // None but a cluster has a map.
        let known = match self.topology {
            Topology::Standalone => None,
            Topology::Cluster => Some(self.known().await?),
        };
        let mut node = match &known {
            None => Cow::Borrowed(&self.nodes[0]),
            Some(known) => Cow::Owned(known.master(slot)?),
        };
        let forget_map = || {
            if let Some(known) = &known {
                known.forget();
            }
        };
        let mut is_asked = false;
        for _ in 0..REDIRECTIONS {
            // Where none can be made, the node may have left the cluster.
            let wire = self.wire(&node, lane).await;
            let wire = wire.inspect_err(|_| forget_map())?;
            let asking = is_asked.then(|| redis::cmd("ASKING"));
            let mut sent = Vec::with_capacity(1 + commands.len());
            sent.extend(&asking);
            sent.extend_from_slice(commands);
            let replies = match wire.exchange(&sent).await {
                Ok(replies) => replies,
                Err(fault) => {
                    forget_map();
                    return Err(answered(fault));
                }
            };
            let mut replies = replies.into_iter().skip(usize::from(is_asked));
            let fault = match replies.next().unwrap_or(Value::Nil).extract_error() {
                Ok(first) => return Ok(std::iter::once(first).chain(replies).collect()),
                Err(fault) => fault,
            };
            match (server_error(&fault), script, &known) {
                // A server that was restarted, or another one after a failover.
                (Some(ServerErrorKind::NoScript), Some(script), _) => load(&wire, script).await?,
                (Some(ServerErrorKind::Moved), _, Some(known)) => {
                    let to = redirection(&fault, &node).ok_or_else(|| answered(fault))?;
                    is_asked = false;
                    known.moved(slot, to.clone());
                    node = Cow::Owned(to);
                }
                (Some(ServerErrorKind::Ask), _, Some(_)) => {
                    let to = redirection(&fault, &node).ok_or_else(|| answered(fault))?;
                    is_asked = true;
                    node = Cow::Owned(to);
                }
                (Some(ServerErrorKind::Moved | ServerErrorKind::Ask), _, None) => {
                    return Err(StoreError::refused(format!(
                        "{node} is a node of a Redis Cluster; set cluster=true"
                    )));
                }
                (kind, ..) => {
                    // After a failover it is another server that takes writes.
                    if kind == Some(ServerErrorKind::ReadOnly) {
                        wire.abandon();
                    }
                    let fault = answered(fault);
                    if fault.kind() == StoreErrorKind::Unavailable {
                        forget_map();
                    }
                    return Err(fault);
                }
            }
        }
        forget_map();
        Err(StoreError::unavailable(format!(
            "{node}: redirected {REDIRECTIONS} times; the cluster is changing"
        )))
    }

    /// Subscribes to a channel, at one of the nodes: a cluster passes messages on to all of them.
    /// Another try meets another one.
    pub(crate) async fn subscribe(&self, channel: &str) -> Result<PubSub, StoreError> {
        let nodes = self.masters().await?;
        let node = &nodes[self.turn.fetch_add(1, Ordering::Relaxed) % nodes.len()];
        self.dialer().subscribe(node, channel).await
    }

    /// Every node that takes writes. Never empty.
    pub(crate) async fn masters(&self) -> Result<Vec<Address>, StoreError> {
        match self.topology {
            Topology::Standalone => Ok(self.nodes.clone()),
            Topology::Cluster => self.known().await?.masters(),
        }
    }

    /// A usable connection to this node.
    pub(crate) async fn wire(&self, node: &Address, lane: Lane) -> Result<Arc<Wire>, StoreError> {
        self.wires.get(node, lane).await
    }

    /// The map; asks for it when there is none.
    async fn known(&self) -> Result<Arc<Known>, StoreError> {
        let ask = || {
            let mut nodes = self.nodes.clone();
            nodes.extend(self.wires.connected());
            nodes.sort();
            nodes.dedup();
            Arc::clone(&self.wires).ask_for_map(nodes)
        };
        self.map.get(|known| known.map().is_some(), ask).await
    }
}

impl Known {
    fn map(&self) -> MutexGuard<'_, Option<Map>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn masters(&self) -> Result<Vec<Address>, StoreError> {
        let masters = self.map().as_ref().map(Map::masters);
        masters.ok_or_else(changing)
    }

    fn master(&self, slot: u16) -> Result<Address, StoreError> {
        let mut map = self.map();
        let master = map.as_ref().ok_or_else(changing)?.master(slot).cloned();
        master.ok_or_else(|| {
            *map = None;
            StoreError::unavailable(format!("the cluster lacks a node for the hash slot {slot}"))
        })
    }

    fn moved(&self, slot: u16, node: Address) {
        if let Some(map) = self.map().as_mut() {
            map.moved(slot, node);
        }
    }

    fn forget(&self) {
        *self.map() = None;
    }
}

impl Wires {
    async fn get(&self, node: &Address, lane: Lane) -> Result<Arc<Wire>, StoreError> {
        let seats = self.seats_of(node);
        let seat = match lane {
            Lane::Prompt => &seats.prompt,
            Lane::Confirming => &seats.confirming,
        };
        let dial = || {
            let (dialer, node) = (Arc::clone(&self.dialer), node.clone());
            async move { dialer.wire(&node).await.map(Arc::new) }
        };
        seat.get(|wire| wire.is_usable(), dial).await
    }

    fn seats_of(&self, node: &Address) -> Arc<Seats> {
        let mut all = self.seats();
        if let Some(seats) = all.get(node) {
            return Arc::clone(seats);
        }
        Arc::clone(all.entry(node.clone()).or_default())
    }

    fn seats(&self) -> MutexGuard<'_, HashMap<Address, Arc<Seats>>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connected(&self) -> Vec<Address> {
        self.seats().keys().cloned().collect()
    }

    /// Whoever answers first is believed: a node that is behind redirects.
    async fn ask_for_map(self: Arc<Self>, nodes: Vec<Address>) -> Result<Arc<Known>, StoreError> {
        let asked = nodes.iter().map(|node| Box::pin(self.ask_node(node)));
        let (found, _) = select_ok(asked).await?;
        let masters = found.masters();
        // Connections to nodes that have left close once nothing is on its way on them.
        self.seats().retain(|node, _| masters.contains(node));
        Ok(Arc::new(Known(Mutex::new(Some(found)))))
    }

    async fn ask_node(&self, node: &Address) -> Result<Map, StoreError> {
        let wire = self.get(node, Lane::Prompt).await?;
        let mut question = redis::cmd("CLUSTER");
        question.arg("SLOTS");
        // Everybody waits for this one, and nobody gives it up.
        let within = self.dialer.timeout();
        let replies = tokio::time::timeout(within, wire.exchange(&[&question])).await;
        let mut replies = replies
            .map_err(|_| StoreError::unavailable(format!("{node}: no answer within {within:?}")))?
            .map_err(answered)?;
        let reply = replies.pop().unwrap_or(Value::Nil);
        let map = Map::parse(reply.extract_error().map_err(answered)?, node);
        map.filter(|map| !map.masters().is_empty()).ok_or_else(|| {
            StoreError::unavailable(format!("{node} knows no node that serves anything"))
        })
    }
}

/// Somebody has just found out that the map is out of date.
fn changing() -> StoreError {
    StoreError::unavailable("the cluster is changing")
}

fn server_error(fault: &RedisError) -> Option<ServerErrorKind> {
    match fault.kind() {
        redis::ErrorKind::Server(kind) => Some(kind),
        _ => None,
    }
}

async fn load(wire: &Wire, script: &Script) -> Result<(), StoreError> {
    let mut command = redis::cmd("SCRIPT");
    command.arg("LOAD").arg(&script.text);
    let replies = wire.exchange(&[&command]).await.map_err(answered)?;
    for reply in replies {
        reply.extract_error().map_err(answered)?;
    }
    Ok(())
}
