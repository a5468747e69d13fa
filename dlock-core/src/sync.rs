//! What the tasks of one process share their state with, named in one place: the package
//! `dlock-interleavings` builds this crate once more, with primitives at which it chooses who goes on.
//! (Tokio's it replaces by the name of the dependency.)

#[cfg(not(shuttle))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64},
};

#[cfg(shuttle)]
pub(crate) use shuttle::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64},
};
