//! The first look: locks in this process's memory, no server needed.
//!
//! `cargo run --example quickstart`
//!
//! It shows a wait and a hand-over, readers side by side, a lock that is lost because its store went
//! silent, and a resource that refuses the token of the holder who came too late.

use std::time::{Duration, Instant};

use dlock::memory::{Fault, MemoryStore};
use dlock::{Client, Fence, Guard, Mode, Ttl};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    let story = Story(Instant::now());
    // One store, two clients, as two processes would have them on Redis. A real program writes
    // `dlock::connect("redis://localhost:6379?ttl=10s")`; the short lease is for the impatient.
    let store = MemoryStore::new();
    let (to_alice, ttl) = (store.link(), Ttl::new(Duration::from_secs(1))?);
    let alice = Client::builder(to_alice.clone())
        .label("alice")
        .ttl(ttl)
        .connect()
        .await?;
    let bob = Client::builder(store.link())
        .label("bob")
        .ttl(ttl)
        .connect()
        .await?;

    story.chapter("a wait and a hand-over");
    let guard = alice.lock("report").await?;
    story.tell(&format!("alice holds report, token {}", guard.token()));
    if bob.lock("report").try_now().await?.is_none() {
        story.tell("bob tries: taken");
    }
    let impatient = bob.lock("report").timeout(Duration::from_millis(100)).await;
    story.tell(&format!(
        "bob waits 100 ms: {}",
        impatient.err().ok_or("bob got the lock")?
    ));
    let waiter = tokio::spawn({
        let bob = bob.clone();
        async move { bob.lock("report").await }
    });
    until(async || Ok(alice.inspect("report").await?.waiters.len() == 1)).await?;
    story.tell("bob waits in the queue; alice releases");
    guard.release().await?;
    let guard = waiter.await??;
    story.tell(&format!("bob holds report, token {}", guard.token()));
    guard.release().await?;

    story.chapter("readers side by side");
    let first = alice.lock("catalogue").mode(Mode::ProtectedRead).await?;
    let second = bob.lock("catalogue").mode(Mode::ProtectedRead).await?;
    let held = alice.inspect("catalogue").await?.holders.len();
    story.tell(&format!(
        "{held} readers hold catalogue in {}",
        first.mode()
    ));
    drop((first, second));

    story.chapter("a lost lock, and a stale token refused");
    let mut resource = Fence::new(); // a real resource keeps it with its data
    let stale = alice.lock("ledger").await?;
    resource.admit(stale.mode(), stale.token())?;
    story.tell(&format!(
        "alice writes to ledger with token {}",
        stale.token()
    ));
    to_alice.set(Fault::Silent);
    story.tell("the network between alice and the store goes silent");
    let waiting = bob.lock("ledger");
    let (told, guard) = tokio::join!(lose(&story, &stale), waiting);
    told?;
    let guard = guard?;
    story.tell(&format!("bob holds ledger, token {}", guard.token()));
    resource.admit(guard.mode(), guard.token())?;
    let refused = resource
        .admit(stale.mode(), stale.token())
        .err()
        .ok_or("nothing was refused")?;
    story.tell(&format!("alice writes all the same: {refused}"));
    guard.release().await?;
    Ok(())
}

/// Works under the lock until it is lost.
async fn lose(story: &Story, guard: &Guard) -> Result<()> {
    let work = guard
        .protect(tokio::time::sleep(Duration::from_secs(60)))
        .await;
    story.tell(&format!(
        "alice's work is stopped: {}",
        work.err().ok_or("nothing was lost")?
    ));
    Ok(())
}

/// Waits until something is so.
async fn until(so: impl AsyncFn() -> Result<bool>) -> Result<()> {
    while !so().await? {
        tokio::task::yield_now().await;
    }
    Ok(())
}

struct Story(Instant);

impl Story {
    fn chapter(&self, title: &str) {
        println!("\n{title}");
    }

    fn tell(&self, line: &str) {
        println!("{:>6} ms  {line}", self.0.elapsed().as_millis());
    }
}
