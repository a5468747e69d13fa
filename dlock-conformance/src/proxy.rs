//! A TCP proxy on this machine that stands between one client and its store, so that a case can
//! break the network between the two.
//!
//! Each connection has two pumps. A pump reads as fast as it can and notes when the bytes may go
//! on; the condition of the path is looked at when they are *due*, so bytes that are under way when
//! the path is cut are lost, as on a real network. Lost bytes leave a hole in the stream: such a
//! connection never carries anything again, and is reset once its direction is open again, as a
//! router would that has forgotten it.
//!
//! *Held* bytes are not lost: they, and all that follow them on their connection, arrive when they
//! are delivered, also if the client has closed its side by then. That is the packet which a
//! network delivers after the client gave up (ONCE). They keep their distance in time: a server that
//! is told in one breath of a request and of its sender's giving it up may well do nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::target::{Condition, Path};
use crate::weather::{Direction, Kept, Weather};

/// The proxy. Dropping it closes it and all of its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    kept: Arc<AtomicUsize>,
    acceptor: JoinHandle<()>,
}

/// What becomes of bytes that are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Pass,
    Vanish,
}

/// How one direction of a connection ended.
enum End {
    /// Its sender closed it, and its receiver was told.
    Closed,
    /// Bytes were lost: nothing can follow them.
    Hole,
}

impl Proxy {
    /// A proxy in front of `store`, which is a host and a port.
    ///
    /// # Errors
    ///
    /// When no local port can be had.
    pub async fn start(store: String) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (weather, watched) = watch::channel(Weather::default());
        let kept = Arc::new(AtomicUsize::new(0));
        let acceptor = tokio::spawn(accept(listener, store, watched, Arc::clone(&kept)));
        Ok(Self {
            address,
            weather,
            kept,
            acceptor,
        })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

impl Path for Proxy {
    fn set(&self, condition: Condition) {
        self.weather
            .send_modify(|weather| weather.condition = condition);
    }

    fn kept(&self) -> usize {
        self.kept.load(Ordering::Acquire)
    }

    fn deliver(&self) {
        self.weather.send_modify(|weather| weather.deliveries += 1);
    }
}

/// A path to several servers: what happens to one of them happens to all.
impl Path for Vec<Proxy> {
    fn set(&self, condition: Condition) {
        self.iter().for_each(|proxy| proxy.set(condition));
    }

    fn kept(&self) -> usize {
        self.iter().map(Path::kept).sum()
    }

    fn deliver(&self) {
        self.iter().for_each(Path::deliver);
    }
}

async fn accept(
    listener: TcpListener,
    store: String,
    weather: watch::Receiver<Weather>,
    kept: Arc<AtomicUsize>,
) {
    // The connections end with this task, and so with the proxy.
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        if weather.borrow().condition == Condition::Refused {
            continue;
        }
        let (store, weather, kept) = (store.clone(), weather.clone(), Arc::clone(&kept));
        connections.spawn(async move {
            // A store that refuses is a client that is hung up on.
            let Ok(server) = TcpStream::connect(&store).await else {
                return;
            };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            carry(client, server, weather, kept).await;
        });
    }
}

/// Carries one connection until both directions have ended, or it is reset.
async fn carry(
    client: TcpStream,
    server: TcpStream,
    mut weather: watch::Receiver<Weather>,
    kept: Arc<AtomicUsize>,
) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let pump = |direction| Pump {
        direction,
        stuck: None,
        delivered: None,
        weather: weather.clone(),
        kept: Arc::clone(&kept),
    };
    let requests = pump(Direction::ToStore).run(from_client, to_server);
    let replies = pump(Direction::FromStore).run(from_server, to_client);
    let reset = async {
        while weather.changed().await.is_ok() {
            if weather.borrow_and_update().condition == Condition::Refused {
                return;
            }
        }
    };
    tokio::select! {
        () = both(requests, replies) => {}
        () = reset => {}
    }
}

/// Until both directions are closed, or one of them can carry nothing any more.
async fn both(one: impl Future<Output = End>, other: impl Future<Output = End>) {
    let _ = tokio::try_join!(ok_if_closed(one), ok_if_closed(other));
}

async fn ok_if_closed(end: impl Future<Output = End>) -> Result<(), ()> {
    match end.await {
        End::Closed => Ok(()),
        End::Hole => Err(()),
    }
}

/// One direction of one connection.
struct Pump {
    direction: Direction,
    /// The delivery before which held bytes, and all that follow them, stay here.
    stuck: Option<u64>,
    /// The newest delivery.
    delivered: Option<Delivered>,
    weather: watch::Receiver<Weather>,
    kept: Arc<AtomicUsize>,
}

/// What was due before a delivery goes on as much later as the first that was held.
struct Delivered {
    at: Instant,
    late: Duration,
}

/// Bytes that a pump has read, and when they go on.
struct Chunk {
    due: Instant,
    bytes: Vec<u8>,
}

impl Pump {
    async fn run(mut self, from: OwnedReadHalf, to: OwnedWriteHalf) -> End {
        let (queue, due) = mpsc::unbounded_channel();
        let reader = read(from, queue, self.weather.clone(), self.direction);
        let (_, end) = tokio::join!(reader, self.write(due, to));
        end
    }

    async fn write(
        &mut self,
        mut due: mpsc::UnboundedReceiver<Chunk>,
        mut to: OwnedWriteHalf,
    ) -> End {
        while let Some(chunk) = due.recv().await {
            sleep_until(self.due(&chunk)).await;
            if self.fate(chunk.due).await == Fate::Vanish {
                due.close();
                return self.forgotten().await;
            }
            if to.write_all(&chunk.bytes).await.is_err() {
                return End::Closed;
            }
        }
        // The sender has closed its side. On a path that is cut nobody is told of that either.
        if self.fate(Instant::now()).await == Fate::Vanish {
            return self.forgotten().await;
        }
        let _ = to.shutdown().await;
        End::Closed
    }

    /// When these bytes go on, if nothing holds them now.
    fn due(&self, chunk: &Chunk) -> Instant {
        match &self.delivered {
            Some(delivered) if chunk.due < delivered.at => chunk.due + delivered.late,
            _ => chunk.due,
        }
    }

    /// What becomes of bytes that were due at this time; returns once they need not stay.
    async fn fate(&mut self, due: Instant) -> Fate {
        let mut held = None;
        loop {
            let weather = *self.weather.borrow_and_update();
            if weather.holds(self.direction) && self.stuck.is_none() {
                self.stuck = Some(weather.deliveries);
            }
            if self.stuck != Some(weather.deliveries) {
                if self.stuck.take().is_some() {
                    let at = Instant::now();
                    let late = at.saturating_duration_since(due);
                    self.delivered = Some(Delivered { at, late });
                }
                return if weather.loses(self.direction) {
                    Fate::Vanish
                } else {
                    Fate::Pass
                };
            }
            held.get_or_insert_with(|| Kept::one_more(&self.kept));
            if self.weather.changed().await.is_err() {
                return Fate::Vanish;
            }
        }
    }

    /// The stream has a hole. Returns, and so closes it, once the direction is open again.
    async fn forgotten(&mut self) -> End {
        while self.fate(Instant::now()).await == Fate::Vanish {
            if self.weather.changed().await.is_err() {
                break;
            }
        }
        End::Hole
    }
}

async fn read(
    mut from: OwnedReadHalf,
    queue: mpsc::UnboundedSender<Chunk>,
    weather: watch::Receiver<Weather>,
    direction: Direction,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let due = Instant::now() + weather.borrow().delay(direction);
        let bytes = buffer[..length].to_vec();
        if queue.send(Chunk { due, bytes }).is_err() {
            return;
        }
    }
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
