//! docs follow
pub mod failure;
pub mod history;
pub mod proxy;
pub mod target;
mod weather;
pub mod wrap;
pub use failure::{Context, Failure, Verdict};
