//! A program that moves from store to store by URL alone: nothing in it knows which one it is.
//!
//! `cargo run --features redis,jetstream --example migrate -- memory://moving redis://localhost:6379`
//!
//! It runs on each store in turn, shows what happens on the first, and whether the others do the
//! same. One resource lives through it all: its [`Fence`] refuses whoever comes with a token from
//! before the last move.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use dlock::{Client, Error, Fence, Mode};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[derive(Parser)]
struct Args {
    /// The stores, in the order of the moves, such as memory://moving or redis://localhost:6379
    #[arg(required = true)]
    urls: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Args::parse().urls).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("migrate: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every store behaved as the first.
async fn run(urls: &[String]) -> Result<bool> {
    let mut resource = Fence::new(); // a real resource keeps it with its data
    let mut first: Option<Vec<String>> = None;
    let mut alike = true;
    for url in urls {
        let alice = dlock::connect(url).await?;
        let bob = dlock::connect(url).await?;
        let kind = alice.kind();
        let told = program(&alice, &bob, &mut resource).await?;
        match &first {
            None => {
                println!("on {kind}:");
                told.iter().for_each(|line| println!("  {line}"));
                first = Some(told);
            }
            Some(expected) if *expected == told => println!("on {kind}: the same"),
            Some(_) => {
                alike = false;
                println!("on {kind} it differs:");
                told.iter().for_each(|line| println!("  {line}"));
            }
        }
    }
    Ok(alike)
}

/// What a user of locks does, told in words that hold on every store.
async fn program(alice: &Client, bob: &Client, resource: &mut Fence) -> Result<Vec<String>> {
    let mut told = Vec::new();
    let mut tell = |line: String| told.push(line);

    let guard = alice.lock("ledger").await?;
    resource.admit(guard.mode(), guard.token())?;
    tell("alice holds ledger, and the resource admits her".into());
    if bob.lock("ledger").try_now().await?.is_none() {
        tell("bob tries: taken".into());
    }
    match bob.lock("ledger").timeout(Duration::from_millis(200)).await {
        Err(Error::Timeout(late)) => tell(format!(
            "bob waits in vain: {} holds it",
            late.holders.len()
        )),
        other => tell(format!("bob waits, and then: {other:?}")),
    }

    let waiting = bob.lock("ledger");
    let (released, granted) = tokio::join!(
        async {
            while alice.inspect("ledger").await?.waiters.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let token = guard.token();
            guard.release().await?;
            Ok::<_, Error>(token)
        },
        waiting,
    );
    let (stale, guard) = (released?, granted?);
    tell("bob waits his turn, alice releases, bob holds ledger".into());
    resource.admit(guard.mode(), guard.token())?;
    if resource.admit(Mode::Exclusive, stale).is_err() {
        tell("the resource admits bob, and refuses alice's old token".into());
    }
    drop(guard);

    for first in Mode::ALL {
        let guard = alice.lock("catalogue").mode(first).await?;
        let mut beside = Vec::new();
        for second in Mode::ALL {
            let tried = bob.lock("catalogue").mode(second).try_now().await?;
            if let Some(guard) = tried {
                beside.push(second.code());
                guard.release().await?;
            }
        }
        tell(format!("beside {}: {}", first.code(), beside.join(" ")));
        guard.release().await?;
    }

    let snapshot = alice.inspect("catalogue").await?;
    tell(format!("catalogue is free: {}", snapshot.is_free()));
    alice.close(Duration::from_secs(5)).await?;
    bob.close(Duration::from_secs(5)).await?;
    Ok(told)
}
