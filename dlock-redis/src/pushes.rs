//! The subscription of a session: a task that passes the scripts' messages on to the mailbox.
//!
//! A message is published by the script that grants, so it is sent after the commit (WAKE). It may
//! be lost; then the core's own re-check finds the grant. A silent connection is asked for a sign
//! of life, or else a lost one would cost that time at every hand-off.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use dlock_core::{ClaimId, FencingToken, Mailbox};
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use redis::aio::{PubSub, PubSubSink};

use crate::link::Link;

/// What a message that a claim is granted counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grants {
    /// The grant.
    Proof,
    /// A hint: the replicas must confirm it first (COMMITTED).
    Hint,
}

/// How often a silent subscription is asked for a sign of life, and how long it has to give one.
const PING: Duration = Duration::from_secs(10);
/// How long to wait before the first new try to subscribe, doubled each time up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Passes messages on for ever, over new connections as old ones break.
pub(crate) async fn forward(
    link: Arc<Link>,
    channel: String,
    mut subscription: PubSub,
    grants: Grants,
    mailbox: Mailbox,
) {
    loop {
        let (sink, mut messages) = subscription.split();
        let mut silence = pin!(silence(sink));
        while let Either::Left((Some(message), _)) = select(messages.next(), &mut silence).await {
            pass_on(message.get_payload_bytes(), grants, &mailbox);
        }
        tracing::debug!(channel, "the subscription broke; subscribing again");
        let mut pause = FIRST_PAUSE;
        subscription = loop {
            match link.subscribe(&channel).await {
                Ok(subscription) => break subscription,
                Err(fault) => tracing::debug!(channel, %fault, "cannot subscribe"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
    }
}

/// Returns when the connection gives no sign of life.
async fn silence(mut sink: PubSubSink) {
    loop {
        tokio::time::sleep(PING).await;
        match tokio::time::timeout(PING, sink.ping::<redis::Value>()).await {
            Ok(Ok(_)) => {}
            _ => return,
        }
    }
}

/// `granted <claim> <order>`, with ` contended` behind it or without, or `contended <claim>`.
/// Anything else is not ours.
fn pass_on(message: &[u8], grants: Grants, mailbox: &Mailbox) {
    let text = String::from_utf8_lossy(message);
    let words: Vec<&str> = text.split(' ').collect();
    let [what, claim, ref rest @ ..] = words[..] else {
        return;
    };
    let Ok(claim) = claim.parse::<ClaimId>() else {
        return;
    };
    match (what, rest) {
        ("contended", []) => mailbox.contended(claim),
        ("granted", [order, behind @ ..]) => {
            let order = order.parse().ok().filter(|order| *order < 1 << 53);
            match (grants, order) {
                (Grants::Proof, Some(order)) => {
                    mailbox.granted(claim, FencingToken::from_order(order));
                }
                _ => mailbox.changed(claim),
            }
            if behind == ["contended"] {
                mailbox.contended(claim);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use dlock_core::{Push, SessionId};

    use super::*;

    #[tokio::test]
    async fn messages_become_pushes() {
        let claim = ClaimId {
            session: SessionId::random(),
            number: 7,
        };
        let granted = Push::Granted(claim, FencingToken::from_order(5));
        for (message, grants, expected) in [
            (format!("granted {claim} 5"), Grants::Proof, vec![granted]),
            (
                format!("granted {claim} 5 contended"),
                Grants::Proof,
                vec![granted, Push::Contended(claim)],
            ),
            (
                format!("granted {claim} 5"),
                Grants::Hint,
                vec![Push::Changed(claim)],
            ),
            (
                format!("granted {claim} x"),
                Grants::Proof,
                vec![Push::Changed(claim)],
            ),
            (
                format!("granted {claim} 9007199254740992"),
                Grants::Proof,
                vec![Push::Changed(claim)],
            ),
            (
                format!("contended {claim}"),
                Grants::Hint,
                vec![Push::Contended(claim)],
            ),
            (format!("removed {claim}"), Grants::Proof, vec![]),
            ("granted x 5".into(), Grants::Proof, vec![]),
            (String::new(), Grants::Proof, vec![]),
        ] {
            let (mailbox, mut inbox) = Mailbox::new();
            pass_on(message.as_bytes(), grants, &mailbox);
            drop(mailbox);
            let mut pushes = Vec::new();
            while let Some(push) = inbox.next().await {
                pushes.push(push);
            }
            assert_eq!(pushes, expected, "{message}");
        }
    }
}
