//! Backends around a backend: faults and observers between the core and any store.

mod deaf;
mod gossip;
mod limited;
mod wire;

pub use deaf::Deaf;
pub use gossip::Gossip;
pub use limited::Limited;
pub use wire::Wire;

use dlock_core::{Inbox, Mailbox, Push};

/// A mailbox for the backend inside; what arrives in it is handed to `hear`, in order, until the
/// backend lets go of it.
fn overhear(hear: impl Fn(Push) + Send + 'static) -> Mailbox {
    let (inner, mut inbox): (Mailbox, Inbox) = Mailbox::new();
    tokio::spawn(async move {
        while let Some(push) = inbox.next().await {
            hear(push);
        }
    });
    inner
}
