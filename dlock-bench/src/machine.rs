//! The machine: its processors, its clock, and what this process has used of it.

use std::fs;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use crate::fault::{Context, Fault, Verdict};

/// Which processors the server and the clients have.
#[derive(Clone, Debug)]
pub(crate) struct Split {
    /// In docker's words, such as `0-1`.
    pub(crate) server: String,
    clients: Vec<usize>,
}

impl Split {
    /// Halves what this process may use. With one processor there is nothing to halve.
    pub(crate) fn of_this_machine() -> Option<Self> {
        let allowed = sched_getaffinity(None).ok()?;
        let all: Vec<usize> = (0..CpuSet::MAX_CPU)
            .filter(|cpu| allowed.is_set(*cpu))
            .collect();
        let (server, clients) = all.split_at(all.len() / 2);
        let server: Vec<String> = server.iter().map(ToString::to_string).collect();
        (!server.is_empty()).then(|| Self {
            server: server.join(","),
            clients: clients.to_vec(),
        })
    }

    /// Binds this thread, and all threads and processes that it starts from now on.
    pub(crate) fn bind_clients(&self) -> Verdict {
        let mut cpus = CpuSet::new();
        self.clients.iter().for_each(|cpu| cpus.set(*cpu));
        sched_setaffinity(None, &cpus).doing("binding the clients to their processors")
    }

    pub(crate) fn words(&self) -> String {
        let clients: Vec<String> = self.clients.iter().map(ToString::to_string).collect();
        format!(
            "server on processor {}, clients on {}",
            self.server,
            clients.join(",")
        )
    }
}

/// Lets this thread run on every processor that the system allows it, whatever it was bound to.
pub(crate) fn unbind_thread() {
    let mut cpus = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|cpu| cpus.set(cpu));
    // Where it is not possible, it stays as it is.
    let _ = sched_setaffinity(None, &cpus);
}

/// Nanoseconds on the clock that all processes of this machine share.
pub(crate) fn now() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// Processor time that this process has used, of the user and of the system.
pub(crate) fn cpu_time() -> Duration {
    Duration::from_nanos(nanoseconds(ClockId::ProcessCPUTime))
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let nanoseconds = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    u64::try_from(nanoseconds).unwrap_or(0)
}

/// The memory that this process has resident, in bytes.
pub(crate) fn resident() -> Verdict<u64> {
    let status = fs::read_to_string("/proc/self/status").doing("reading this process's memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    let kilobytes = kilobytes.ok_or_else(|| Fault::new("this system does not tell VmRSS"))?;
    Ok(kilobytes * 1024)
}

/// What the processor calls itself, and how many there are.
pub(crate) fn words() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    // Not those that this thread is bound to.
    let count = info
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    format!("{} × {model}", count.max(1))
}
