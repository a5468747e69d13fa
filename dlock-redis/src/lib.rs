//! The Redis and Valkey backend of dlock.
mod backend;
mod cluster;
mod confirm;
mod connect;
mod error;
mod keys;
mod link;
mod options;
mod options_url;
mod pushes;
mod scripts;
mod session;
mod transport;

pub use backend::Redis;
pub use options::{RedisOptions, Tls, Topology};
