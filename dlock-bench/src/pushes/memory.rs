//! In this process: a message from one task to another.

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{Ear, Push, ear};
use crate::fault::{Fault, Verdict};

struct Sent {
    sender: mpsc::UnboundedSender<()>,
    ear: Ear,
}

pub(super) fn connect() -> Box<dyn Push> {
    let (sender, mut messages) = mpsc::unbounded_channel();
    let (drum, ear) = ear();
    tokio::spawn(async move { while messages.recv().await.is_some() && drum.beat() {} });
    Box::new(Sent { sender, ear })
}

#[async_trait]
impl Push for Sent {
    async fn write(&mut self) -> Verdict {
        self.sender.send(()).map_err(|_| Fault::new("nobody hears"))
    }

    fn heard(&mut self) -> &mut Ear {
        &mut self.ear
    }
}
