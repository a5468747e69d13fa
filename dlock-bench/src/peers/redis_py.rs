//! redis-py's lock, in Python, as a process of its own that speaks the protocol of [`crate::worker`].

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::contestants::{Contestant, How, Role};
use crate::fault::{Context, Fault, Verdict};
use crate::worker::Task;

pub(crate) const CONTESTANT: Contestant = Contestant {
    name: "redis-py",
    role: Role::Peer,
    sends_commands: true,
    looks_after: Duration::from_millis(100),
    not_for_tasks: None,
    how: How::Python,
};

const PROGRAM: &str = include_str!("redis_lock.py");

/// The Python to use: one in a virtual environment can be named by this variable.
fn python() -> String {
    std::env::var("DLOCK_BENCH_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

/// Whether it can run; if not, the error says why.
pub(crate) async fn check() -> Verdict {
    let python = python();
    let mut command = Command::new(&python);
    command.args(["-c", "import redis.lock"]);
    let done = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await;
    if done.doing(&python)?.success() {
        return Ok(());
    }
    Err(Fault::new(format!(
        "{python} has no redis-py (pip install redis, in an environment that DLOCK_BENCH_PYTHON may name)"
    )))
}

/// The worker's command.
pub(crate) fn command(task: &Task) -> Command {
    let mut command = Command::new(python());
    command.args(["-u", "-c", PROGRAM, &task.place.address, &task.name]);
    if let Some((user, password)) = &task.place.login {
        command.env("DLOCK_BENCH_USER", user);
        command.env("DLOCK_BENCH_PASSWORD", password);
    }
    command
}
