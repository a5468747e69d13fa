//! What three replicas do, and one server does not: erased renewals, checks that are not atomic, and
//! TTLs that get lost.

// Helpers belong to the tests, but stand outside of them.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::Message;
use dlock_core::{
    Attempts, Backend, Claim, FencingToken, Mode, Outcome, Push, SessionId, StoreErrorKind, Wait,
};
use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::{Value, json};
use support::cluster::Cluster;
use support::{Client, LIMIT, Raw, is_granted, name, until};

const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
const TTL: Duration = Duration::from_secs(1);

/// LIVE-A, LIVE-B: no renewal that was acknowledged disappears before its TTL is over, also over
/// changes of the stream's leader. Servers with `subject_delete_marker_ttl` erase some that come when
/// the lease is running out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_renewals_stay() {
    const SESSIONS: usize = 40;
    const LEADERS: usize = 3;
    const LASTING: Duration = Duration::from_secs(6);
    let cluster = Cluster::start().await;
    let backends = cluster.connect_all().await;
    let (over, checked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let renewing = join_all((0..SESSIONS).map(async |number| {
        let node = number % backends.len();
        let raw = cluster.raw(node).await;
        while !over.load(Ordering::SeqCst) {
            // One that a slow election has cost its lease is replaced.
            let opened = Client::open_as(SessionId::random(), &backends[node], TTL);
            if let Ok(Ok(client)) = tokio::time::timeout(TTL, opened).await {
                let seen = renew(&client, &raw, number % 2 == 1, &over).await;
                checked.fetch_add(seen, Ordering::SeqCst);
            }
        }
    }));
    let leading = async {
        let raw = cluster.raw(0).await;
        let start = Instant::now();
        for _ in 0..LEADERS {
            tokio::time::sleep(LASTING / (LEADERS as u32 + 1)).await;
            let before = Cluster::leader(&raw).await;
            raw.try_api("STREAM.LEADER.STEPDOWN", json!({})).await;
            until("another server leads", async || {
                let now = Cluster::leader(&raw).await;
                now.is_some() && now != before
            })
            .await;
        }
        tokio::time::sleep(LASTING.saturating_sub(start.elapsed())).await;
        over.store(true, Ordering::SeqCst);
    };
    tokio::join!(renewing, leading);
    let checked = checked.into_inner();
    eprintln!("{checked} renewals were looked after");
    assert!(checked >= SESSIONS, "{checked}");
}

/// Renews a session until it is `over`, or until its lease may have run out; in time, or too late for
/// its deadline, but perhaps not for the server. Says how many of its renewals were seen to stay.
async fn renew(client: &Client, raw: &Raw, late: bool, over: &AtomicBool) -> usize {
    let subject = raw.subject(&format!("sessions.{}", client.id));
    let query = json!({ "last_by_subj": subject });
    let mut checked = 0;
    let mut last = 0;
    // When the last one that was acknowledged was sent.
    let mut acknowledged: Option<Instant> = None;
    while !over.load(Ordering::SeqCst) {
        let sent = Instant::now();
        // Given up as the core does.
        let renewal = tokio::time::timeout(TTL / 4, client.session().renew()).await;
        match renewal {
            Ok(Ok(_)) => acknowledged = Some(sent),
            Ok(Err(fault)) if fault.kind() == StoreErrorKind::Lapsed => {
                let since = acknowledged.map(|sent| sent.elapsed());
                assert!(since.is_none_or(|since| since >= TTL), "erased: {since:?}");
                return checked;
            }
            _ => {
                tokio::time::sleep(TTL / 20).await;
                continue;
            }
        }
        // The key stays for as long as the TTL lasts, and is a newer one than before.
        let before = last;
        loop {
            let found = raw.try_api("STREAM.MSG.GET", query.clone()).await;
            let sequence = found["message"]["seq"].as_u64().unwrap_or(0);
            let known = found["message"].is_object() || found["error"]["err_code"] == 10_037;
            let age = sent.elapsed();
            if sequence > before {
                checked += usize::from(last == before);
                last = sequence;
            } else if known && age < TTL && age > TTL / 2 {
                panic!("a renewal is gone after {age:?}: {found}");
            }
            if age > TTL * 2 / 3 || !late && age > TTL / 3 {
                break;
            }
            tokio::time::sleep(TTL / 10).await;
        }
        if late {
            // At about this time the server looks for what has run out.
            let pause = TTL.mul_f64(1.0 + 0.15 * fastrand::f64());
            tokio::time::sleep(pause.saturating_sub(sent.elapsed())).await;
        }
    }
    checked
}

/// What the clients themselves believe to hold.
#[derive(Default)]
struct Held {
    now: Vec<(FencingToken, Mode)>,
    tokens: HashSet<FencingToken>,
    overlaps: usize,
}

impl Held {
    fn grant(&mut self, token: FencingToken, mode: Mode) {
        for (_, other) in &self.now {
            assert!(other.compatible(mode), "ATOM-A: {other} and {mode}");
        }
        self.overlaps += usize::from(!self.now.is_empty());
        assert!(self.tokens.insert(token), "{token} was given out twice");
        self.now.push((token, mode));
    }

    fn release(&mut self, token: FencingToken) {
        self.now.retain(|(held, _)| *held != token);
    }
}

/// ATOM-A, FENCE: a crowd on different servers asks for one lock at the same time. Conflicting
/// claims are never held together, and every write was checked on its own exact subject: servers do
/// not check wildcards atomically.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_on_different_servers_shares_one_lock() {
    const CROWD: usize = 15;
    const ROUNDS: usize = 4;
    const LONG: Duration = Duration::from_secs(60);
    const MODES: [Mode; 5] = [
        Mode::Exclusive,
        Mode::ProtectedWrite,
        Mode::ConcurrentWrite,
        Mode::ProtectedRead,
        Mode::Exclusive,
    ];
    let cluster = Cluster::start().await;
    let backends = cluster.connect_all().await;
    let mut ear = cluster.listen().await;
    let mut clients = Vec::new();
    for number in 0..CROWD {
        clients.push(Client::open(&backends[number % backends.len()], LONG).await);
    }
    let held = Arc::new(Mutex::new(Held::default()));
    let together = Arc::new(tokio::sync::Barrier::new(CROWD));
    join_all(
        clients
            .into_iter()
            .enumerate()
            .map(async |(number, client)| {
                let (held, together) = (Arc::clone(&held), Arc::clone(&together));
                tokio::spawn(async move {
                    let mut client = client;
                    for round in 0..ROUNDS {
                        together.wait().await;
                        let claim = client.claim("n", MODES[(number + round) % MODES.len()]);
                        // A try first, which may be granted as well.
                        let tried = client.session().request(&claim, Wait::Never).await.unwrap();
                        let asked = match tried {
                            Outcome::Absent => client.session().request(&claim, Wait::InTurn).await,
                            tried => Ok(tried),
                        };
                        let token = granted(&mut client, &claim, asked.unwrap()).await;
                        held.lock().unwrap().grant(token, claim.mode);
                        tokio::time::sleep(Duration::from_millis(2)).await;
                        held.lock().unwrap().release(token);
                        let released = client.session().withdraw(&claim, Attempts::Answered);
                        released.await.unwrap();
                    }
                    client.session().close().await.unwrap();
                })
                .await
                .unwrap();
            }),
    )
    .await;
    {
        let held = held.lock().unwrap();
        assert_eq!(held.tokens.len(), CROWD * ROUNDS);
        eprintln!("{} grants beside others", held.overlaps);
    }
    let snapshot = backends[0].inspect(&name("n")).await.unwrap();
    assert!(snapshot.is_free());

    let writes = heard(&mut ear).await;
    let (mut locks, mut sessions) = (0, 0);
    for write in &writes {
        assert_is_checked(write);
        let subject = write.subject.as_str();
        locks += usize::from(subject.ends_with(".locks.n"));
        sessions += usize::from(subject.contains(".sessions."));
    }
    // A request and a release of each, and what opening and closing write.
    assert!(locks >= 2 * CROWD * ROUNDS, "{locks}");
    assert!(sessions >= 2 * CROWD, "{sessions}");
}

/// The token of a claim: from the answer, a push or a look.
async fn granted(client: &mut Client, claim: &Claim, mut outcome: Outcome) -> FencingToken {
    let start = Instant::now();
    loop {
        match outcome {
            Outcome::Granted { token } => return token,
            Outcome::Absent => panic!("{claim:?} is not there"),
            Outcome::Waiting { .. } => {}
        }
        assert!(start.elapsed() < LIMIT * 2, "{claim:?} waits for ever");
        let push = tokio::time::timeout(Duration::from_secs(2), client.inbox.next());
        match push.await {
            Ok(Some(Push::Granted(id, token))) if id == claim.id => return token,
            Ok(_) => {}
            Err(_) => outcome = client.session().status(claim).await.unwrap(),
        }
    }
}

/// The writes that clients have sent so far.
async fn heard(ear: &mut support::Ear) -> Vec<Message> {
    let mut writes = Vec::new();
    // What is on its way from the other servers comes, too.
    while let Ok(Some(write)) =
        tokio::time::timeout(Duration::from_millis(300), ear.writes.next()).await
    {
        writes.push(write);
    }
    writes
}

/// The write is a compare-and-set on the subject that it is sent to, and nothing else.
fn assert_is_checked(write: &Message) {
    let subject = write.subject.as_str();
    assert!(!subject.contains(['*', '>']), "{subject}");
    let headers = write.headers.as_ref().unwrap();
    let expected = headers.get(EXPECTED).unwrap().as_str();
    assert!(expected.parse::<u64>().is_ok(), "{subject}: {expected}");
    for (header, values) in headers.iter() {
        let header = header.to_string();
        assert_eq!(values.len(), 1, "{subject}: {header}");
        assert!(
            [EXPECTED, "Nats-TTL"].contains(&header.as_str()),
            "{subject}: {header}"
        );
    }
}

/// LIVE-A: the key of a session has its TTL with each write and in each replica, also where there was
/// a key before. So it goes from all of them when its session has crashed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_lease_keeps_its_ttl() {
    let cluster = Cluster::start().await;
    let backends = cluster.connect_all().await;
    let mut raws = Vec::new();
    for node in 0..cluster.count() {
        raws.push(cluster.raw(node).await);
    }
    let mut ear = cluster.listen().await;
    let ttl = Duration::from_secs(3);
    let ttls = |key: String| {
        let raws = &raws;
        async move { join_all(raws.iter().map(|raw| stored(raw, &key))).await }
    };
    let id = SessionId::random();
    let key = format!("sessions.{id}");
    // Made, renewed, and made again where it was deleted: the name of a key that has gone is known to
    // the servers for a while.
    for backend in &backends[..2] {
        let client = Client::open_as(id, backend, ttl).await.unwrap();
        for renewal in 0..3 {
            if renewal > 0 {
                client.session().renew().await.unwrap();
            }
            until("all replicas have it, with its TTL", async || {
                let expected = Some(("alive".to_owned(), renewal, "3".to_owned()));
                let found = ttls(key.clone()).await;
                found.iter().all(|found| *found == expected)
            })
            .await;
        }
        raws[2].lapse(id).await;
    }
    // Where it was marked as dead it is not made again, before the mark has gone, too.
    for attempt in 0..3 {
        let opened = Client::open_as(id, &backends[0], ttl).await;
        match attempt {
            0 => opened.unwrap().session().close().await.unwrap(),
            1 => {
                assert_eq!(opened.err().map(|f| f.kind()), Some(StoreErrorKind::Lapsed));
                until("all replicas have the mark, with its TTL", async || {
                    let expected = Some(("dead".to_owned(), 0, "3600".to_owned()));
                    let found = ttls(key.clone()).await;
                    found.iter().all(|found| *found == expected)
                })
                .await;
                raws[1].lapse(id).await;
            }
            _ => drop(opened.unwrap()),
        }
    }
    // This one was left in the lurch, and so was one that holds a lock and is waited for.
    let mut crashed = Client::open(&backends[1], TTL).await;
    let held = crashed.claim("n", Mode::Exclusive);
    let outcome = crashed.session().request(&held, Wait::InTurn).await;
    assert!(is_granted(outcome.unwrap()));
    let other = format!("sessions.{}", crashed.id);
    drop(crashed);
    until("the keys have gone from all replicas", async || {
        let left = [ttls(key.clone()).await, ttls(other.clone()).await];
        left.iter().flatten().all(Option::is_none)
    })
    .await;
    // The mark is written where a key was.
    let mut next = Client::open(&backends[2], Duration::from_secs(60)).await;
    let wanted = next.claim("n", Mode::Exclusive);
    let outcome = next.session().request(&wanted, Wait::InTurn).await.unwrap();
    next.wait(&wanted, outcome).await;
    until("all replicas have the mark, with its TTL", async || {
        let expected = Some(("dead".to_owned(), 0, "3600".to_owned()));
        let found = ttls(other.clone()).await;
        found.iter().all(|found| *found == expected)
    })
    .await;
    let released = next.session().withdraw(&wanted, Attempts::Answered);
    released.await.unwrap();
    next.session().close().await.unwrap();

    for write in heard(&mut ear).await {
        assert_is_checked(&write);
        let value: Value = serde_json::from_slice(&write.payload).unwrap();
        let ttl = write.headers.as_ref().unwrap().get("Nats-TTL");
        let ttl = ttl.map(|ttl| ttl.as_str().to_owned());
        let expected = match value["state"].as_str() {
            Some("alive") => Some(value["ttl_ms"].as_u64().unwrap() / 1000),
            Some(_) => Some(3600),
            // A lock: one that is free goes after a day.
            None if value["claims"] == json!([]) => Some(86_400),
            None => None,
        };
        assert_eq!(ttl, expected.map(|ttl| ttl.to_string()), "{value}");
    }
}

/// What one server's replica has of a session's key: its state, the number of its renewals, and the
/// TTL of the message.
async fn stored(raw: &Raw, key: &str) -> Option<(String, u64, String)> {
    let found = raw.get(key).await?;
    let ttl = found.headers.get("Nats-TTL");
    Some((
        found.value["state"].as_str().unwrap().to_owned(),
        found.value["renewal"].as_u64().unwrap_or(0),
        ttl.map(|ttl| ttl.as_str().to_owned()).unwrap_or_default(),
    ))
}
