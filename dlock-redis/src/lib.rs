//! The Redis and Valkey backend of dlock.
mod backend;
mod cluster;
mod connect;
mod error;
mod keys;
mod link;
mod options;
mod pushes;
mod scripts;
mod session;
mod transport;

pub use backend::Redis;
pub use options::{RedisOptions, Tls, Topology};
