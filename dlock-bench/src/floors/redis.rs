//! Redis: `SET NX PX`, and a script that compares and deletes, called by its hash.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, Script,
};

use super::{Once, TryLocker};
use crate::contestants::{Contestant, FLOOR, Held, Role, TTL};
use crate::fault::{Context, Fault, Verdict};
use crate::store::Place;

pub(crate) const CONTESTANT: Contestant = Contestant::new(FLOOR, Role::Floor, |place| {
    Box::pin(async move { Ok(Arc::new(Once(SetNx::connect(&place).await?)) as _) })
});

const DELETE_MINE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// The usual lock on Redis.
pub(crate) struct SetNx {
    connection: MultiplexedConnection,
    delete: Arc<Script>,
    /// Owners are numbered: the bench is not attacked by its clients.
    owner: AtomicU64,
}

struct Key {
    connection: MultiplexedConnection,
    delete: Arc<Script>,
    name: String,
    owner: String,
}

impl SetNx {
    pub(crate) async fn connect(place: &Place) -> Verdict<Self> {
        Ok(Self {
            connection: connection(place).await?,
            delete: Arc::new(Script::new(DELETE_MINE)),
            owner: AtomicU64::new(crate::machine::now()),
        })
    }
}

/// A connection to Redis.
pub(crate) async fn connection(place: &Place) -> Verdict<MultiplexedConnection> {
    // As dlock: no limit of the library's own, which would make a slow answer look like none.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let client = client(place)?;
    let connected = client.get_multiplexed_async_connection_with_config(&config);
    connected
        .await
        .doing(format!("connecting to {}", place.address))
}

/// How the bench itself reaches the server. Without Nagle's delay, as dlock does.
pub(crate) fn client(place: &Place) -> Verdict<redis::Client> {
    let (host, port) = place
        .address
        .rsplit_once(':')
        .ok_or_else(|| Fault::new("the address has no port"))?;
    let port = port.parse().doing("the address's port")?;
    let mut login = RedisConnectionInfo::default();
    if let Some((user, password)) = &place.login {
        login = login.set_password(password);
        if !user.is_empty() {
            login = login.set_username(user);
        }
    }
    let info = ConnectionAddr::Tcp(host.to_owned(), port)
        .into_connection_info()?
        .set_redis_settings(login)
        .set_tcp_settings(TcpSettings::default().set_nodelay(true));
    Ok(redis::Client::open(info)?)
}

#[async_trait]
impl TryLocker for SetNx {
    async fn try_lock(&self, name: &str) -> Verdict<Option<Box<dyn Held>>> {
        let owner = self.owner.fetch_add(1, Ordering::Relaxed).to_string();
        let mut connection = self.connection.clone();
        let set: Option<String> = redis::cmd("SET")
            .arg(name)
            .arg(&owner)
            .arg("NX")
            .arg("PX")
            .arg(TTL.as_millis() as u64)
            .query_async(&mut connection)
            .await?;
        Ok(set.map(|_| {
            Box::new(Key {
                connection,
                delete: Arc::clone(&self.delete),
                name: name.to_owned(),
                owner,
            }) as _
        }))
    }
}

#[async_trait]
impl Held for Key {
    async fn release(mut self: Box<Self>) -> Verdict {
        let mut call = self.delete.key(&self.name);
        let deleted: i64 = call
            .arg(&self.owner)
            .invoke_async(&mut self.connection)
            .await?;
        if deleted == 0 {
            return Err(Fault::new("the key had gone before its release"));
        }
        Ok(())
    }
}
