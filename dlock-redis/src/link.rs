//! The connections in use: to one server, or to the nodes of a cluster.
//!
//! A call goes to the node that serves its slot, over a connection that is made when it is first
//! needed and replaced when it is broken or when somebody gave up waiting for an answer on it.
//! Nothing is ever sent a second time unless the server said that it did nothing: it does not know
//! the script, or it serves the slot no more. All else is the core's decision (ONCE).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dlock_core::{StoreError, StoreErrorKind};
use futures_util::future::select_ok;
use redis::aio::PubSub;
use redis::{Cmd, RedisError, ServerErrorKind, Value};

use crate::cluster::{Map, redirection};
use crate::error::answered;
use crate::options::{Address, RedisOptions, Topology};
use crate::scripts::Script;
use crate::transport::{Dialer, Wire};

/// Which of a node's connections a call uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Answered promptly: heartbeats among them.
    Prompt,
    /// For `WAIT`, which holds up all that is sent behind it.
    Confirming,
}

/// How often the server may send a call elsewhere, or ask for the script, before that is an error.
const REDIRECTIONS: usize = 8;

#[derive(Debug)]
pub(crate) struct Link {
    dialer: Dialer,
    /// The nodes that the user gave.
    nodes: Vec<Address>,
    topology: Topology,
    map: tokio::sync::Mutex<Option<Map>>,
    wires: Mutex<HashMap<(Address, Lane), Arc<Seat>>>,
    /// Counts subscriptions, to spread them over the nodes.
    turn: AtomicUsize,
}

/// Where a connection is while there is one. Who finds none makes it, and the others wait for that.
type Seat = tokio::sync::Mutex<Option<Arc<Wire>>>;

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
        Self {
            dialer,
            nodes: options.nodes.clone(),
            topology: options.topology,
            map: tokio::sync::Mutex::default(),
            wires: Mutex::default(),
            turn: AtomicUsize::new(0),
        }
    }

    pub(crate) fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Calls a script, and returns its reply and that of the command after it.
    pub(crate) async fn call(&self, call: &Call<'_>) -> Result<(Value, Option<Value>), StoreError> {
        let mut command = redis::cmd("EVALSHA");
        command
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
        let asking = redis::cmd("ASKING");
        let mut node = self.master(slot).await?;
        let mut is_asked = false;
        for _ in 0..REDIRECTIONS {
            let wire = self.wire(&node, lane).await?;
            let mut sent = Vec::with_capacity(1 + commands.len());
            if is_asked {
                sent.push(&asking);
            }
            sent.extend_from_slice(commands);
            let replies = match wire.exchange(&sent).await {
                Ok(replies) => replies,
                Err(fault) => {
                    self.forget_map().await;
                    return Err(answered(fault));
                }
            };
            let mut replies = replies.into_iter().skip(usize::from(is_asked));
            let fault = match replies.next().unwrap_or(Value::Nil).extract_error() {
                Ok(first) => return Ok(std::iter::once(first).chain(replies).collect()),
                Err(fault) => fault,
            };
            match (server_error(&fault), script) {
                // A server that was restarted, or another one after a failover.
                (Some(ServerErrorKind::NoScript), Some(script)) => load(&wire, script).await?,
                (Some(ServerErrorKind::Moved), _) if self.topology == Topology::Cluster => {
                    node = redirection(&fault, &node).ok_or_else(|| answered(fault))?;
                    is_asked = false;
                    if let Some(map) = self.map.lock().await.as_mut() {
                        map.moved(slot, node.clone());
                    }
                }
                (Some(ServerErrorKind::Ask), _) if self.topology == Topology::Cluster => {
                    node = redirection(&fault, &node).ok_or_else(|| answered(fault))?;
                    is_asked = true;
                }
                (Some(ServerErrorKind::Moved | ServerErrorKind::Ask), _) => {
                    return Err(StoreError::refused(format!(
                        "{node} is a node of a Redis Cluster; set cluster=true"
                    )));
                }
                (kind, _) => {
                    // After a failover it is another server that takes writes.
                    if kind == Some(ServerErrorKind::ReadOnly) {
                        wire.abandon();
                    }
                    let fault = answered(fault);
                    if fault.kind() == StoreErrorKind::Unavailable {
                        self.forget_map().await;
                    }
                    return Err(fault);
                }
            }
        }
        self.forget_map().await;
        Err(StoreError::unavailable(format!(
            "{node}: redirected {REDIRECTIONS} times; the cluster is changing"
        )))
    }

    /// Subscribes to a channel, at one of the nodes: a cluster passes messages on to all of them.
    /// Another try meets another one.
    pub(crate) async fn subscribe(&self, channel: &str) -> Result<PubSub, StoreError> {
        let nodes = self.masters().await?;
        let node = &nodes[self.turn.fetch_add(1, Ordering::Relaxed) % nodes.len()];
        self.dialer.subscribe(node, channel).await
    }

    /// Every node that takes writes. Never empty.
    pub(crate) async fn masters(&self) -> Result<Vec<Address>, StoreError> {
        if self.topology == Topology::Standalone {
            return Ok(self.nodes.clone());
        }
        let mut map = self.map.lock().await;
        Ok(self.known_map(&mut map).await?.masters())
    }

    async fn master(&self, slot: u16) -> Result<Address, StoreError> {
        if self.topology == Topology::Standalone {
            return Ok(self.nodes[0].clone());
        }
        let mut map = self.map.lock().await;
        if let Some(master) = self.known_map(&mut map).await?.master(slot) {
            return Ok(master.clone());
        }
        *map = None;
        Err(StoreError::unavailable(format!(
            "the cluster lacks a node for the hash slot {slot}"
        )))
    }

    /// The map; asks for it when there is none. Whoever answers first is believed: a node that is
    /// behind redirects.
    async fn known_map<'a>(&self, map: &'a mut Option<Map>) -> Result<&'a Map, StoreError> {
        if map.is_none() {
            let mut nodes = self.nodes.clone();
            nodes.extend(self.connected());
            nodes.sort();
            nodes.dedup();
            let asked = nodes.iter().map(|node| Box::pin(self.ask_for_map(node)));
            let (found, _) = select_ok(asked).await?;
            let masters = found.masters();
            // Connections to nodes that have left close once nothing is on its way on them.
            self.wires
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .retain(|(node, _), _| masters.contains(node));
            *map = Some(found);
        }
        map.as_ref()
            .ok_or_else(|| StoreError::unavailable("the cluster has no map"))
    }

    async fn ask_for_map(&self, node: &Address) -> Result<Map, StoreError> {
        let wire = self.wire(node, Lane::Prompt).await?;
        let mut question = redis::cmd("CLUSTER");
        question.arg("SLOTS");
        let mut replies = wire.exchange(&[&question]).await.map_err(answered)?;
        let reply = replies.pop().unwrap_or(Value::Nil);
        let map = Map::parse(reply.extract_error().map_err(answered)?, node);
        map.filter(|map| !map.masters().is_empty()).ok_or_else(|| {
            StoreError::unavailable(format!("{node} knows no node that serves anything"))
        })
    }

    async fn forget_map(&self) {
        *self.map.lock().await = None;
    }

    fn connected(&self) -> Vec<Address> {
        let wires = self.wires.lock().unwrap_or_else(PoisonError::into_inner);
        wires.keys().map(|(node, _)| node.clone()).collect()
    }

    /// A usable connection to this node.
    pub(crate) async fn wire(&self, node: &Address, lane: Lane) -> Result<Arc<Wire>, StoreError> {
        let seat = {
            let mut wires = self.wires.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(wires.entry((node.clone(), lane)).or_default())
        };
        let mut seat = seat.lock().await;
        if let Some(wire) = seat.as_ref().filter(|wire| wire.is_usable()) {
            return Ok(Arc::clone(wire));
        }
        let wire = match self.dialer.wire(node).await {
            Ok(wire) => Arc::new(wire),
            Err(fault) => {
                *seat = None;
                // It may have left the cluster. Not waited for: whoever asks for the map holds it.
                if let Ok(mut map) = self.map.try_lock() {
                    *map = None;
                }
                return Err(fault);
            }
        };
        *seat = Some(Arc::clone(&wire));
        Ok(wire)
    }
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
