//! A run: starts the store, lets every measure run in each round, and prints what came of it.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::bench::Bench;
use crate::cli::{CompareArgs, block_on};
use crate::contestants;
use crate::fault::{Context, Fault, Verdict};
use crate::machine::{self, Split};
use crate::measures::Measure;
use crate::plan::Plan;
use crate::print;
use crate::server::{self, Disk, Server};
use crate::sheet::{About, Sheet};
use crate::store::{Place, Store};
use clap::ValueEnum;

pub(crate) fn compare(args: CompareArgs) -> Verdict {
    if args.store == Store::Memory && args.url.is_some() {
        return Err(Fault::new("--url: the store in memory is in this process"));
    }
    if let Some(file) = &args.json {
        // Rather now than after an hour.
        fs::write(file, "").doing(format!("--json {}", file.display()))?;
    }
    let split = (args.store.has_network() && args.url.is_none())
        .then(Split::of_this_machine)
        .flatten();
    // Before the runtime's threads are there, so that they are bound too.
    split.as_ref().map_or(Ok(()), Split::bind_clients)?;
    let json = args.json.clone();
    let sheet = block_on(measured(args, split))?;
    print::print(&sheet);
    if let Some(file) = json {
        let text = serde_json::to_string_pretty(&sheet)?;
        fs::write(&file, text).doing(format!("--json {}", file.display()))?;
    }
    Ok(())
}

async fn measured(args: CompareArgs, split: Option<Split>) -> Verdict<Sheet> {
    let plan = if args.quick {
        Plan::quick()
    } else {
        Plan::full()
    };
    let usual = if args.quick { 2 } else { 5 };
    let rounds = args.rounds.map_or(usual, usize::from);
    let measures: Vec<Measure> = Measure::value_variants()
        .iter()
        .filter(|measure| args.only.is_empty() || args.only.contains(measure))
        .copied()
        .collect();
    let mut servers = Vec::new();
    let (place, durable) = places(&args, &measures, split.as_ref(), &mut servers).await?;
    // If dlock does not reach the store, nobody need try.
    let client = dlock::connect(&place.url).await?;
    let _ = client.close(Duration::from_secs(5)).await;
    let about = About {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: command(&args, rounds),
        machine: machine::words(),
        placement: placement(&args, split.as_ref()),
        size: if args.quick { "quick" } else { "full" }.to_owned(),
        rounds,
        when: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
    };
    let sheet = Sheet::new(args.store, about);
    let contestants = contestants::all(args.store);
    let mut bench = Bench::new(plan, place, durable, contestants, sheet);
    bench.progress.rounds = rounds;
    bench.check().await;
    for round in 0..rounds {
        bench.sheet.round = round;
        for measure in &measures {
            measure.run(&mut bench).await;
        }
    }
    bench.progress.done();
    for server in servers {
        server.stop().await?;
    }
    Ok(bench.sheet)
}

/// Where the store is, and the same with every write on its disk.
async fn places(
    args: &CompareArgs,
    measures: &[Measure],
    split: Option<&Split>,
    servers: &mut Vec<Server>,
) -> Verdict<(Place, Verdict<Place>)> {
    let none = || Err(Fault::new("there is one server, at --url"));
    if args.store == Store::Memory {
        return Ok((Place::memory(), none()));
    }
    if let Some(url) = &args.url {
        let place = Place::at_url(args.store, url, args.monitor.clone())?;
        return Ok((place, none()));
    }
    let server = Server::start(args.store, Disk::Usual, split).await?;
    let place = server.place.clone();
    servers.push(server);
    if !args.store.is_redis() || !measures.contains(&Measure::Free) {
        return Ok((place, none()));
    }
    let durable = Server::start(args.store, Disk::Always, split).await?;
    let durable_place = durable.place.clone();
    servers.push(durable);
    Ok((place, Ok(durable_place)))
}

/// The same run once more. An address may hold a password, and is left out.
fn command(args: &CompareArgs, rounds: usize) -> String {
    let mut words = format!("dlock-bench compare --store {}", args.store);
    if args.url.is_some() {
        words.push_str(" --url …");
    }
    if args.quick {
        words.push_str(" --quick");
    }
    for measure in args.only.iter().filter_map(ValueEnum::to_possible_value) {
        words.push_str(&format!(" --only {}", measure.get_name()));
    }
    format!("{words} --rounds {rounds}")
}

fn placement(args: &CompareArgs, split: Option<&Split>) -> String {
    match (args.store, &args.url, split) {
        (Store::Memory, ..) => "in one process".to_owned(),
        (_, Some(_), _) => "a running deployment; nothing is bound to a processor".to_owned(),
        (store, None, split) => {
            let bound = split.map_or("one processor for all".to_owned(), Split::words);
            let image = server::image(store);
            format!("{image} in a container on the host's network; {bound}")
        }
    }
}
