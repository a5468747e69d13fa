//! The suite, on this store: `cargo run`, or `cargo run -- soak --minutes 1`.

mod backend;
mod server;

use std::process::{Command, ExitCode};

use backend::OwnBackend;
use dlock_conformance::target::{Link, Need, Target, Worker};
use dlock_conformance::{Verdict, cli, worker};
use dlock_core::async_trait;

const SERVER: &str = "OWN_BACKEND_SERVER";

#[derive(Debug)]
struct Own(OwnBackend);

#[async_trait]
impl Target for Own {
    fn name(&self) -> &str {
        "own"
    }

    async fn link(&self) -> Verdict<Link> {
        Ok(Link::new(self.0.clone()))
    }

    fn lacks(&self, need: Need) -> Option<String> {
        match need {
            Need::Processes | Need::Wipe => None,
            _ => Some(format!("this example has no {need}")),
        }
    }

    /// This program, as a worker.
    async fn worker(&self) -> Verdict<Worker> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(worker::ARGUMENT).env(SERVER, &self.0.server);
        Ok(Worker::new(command))
    }

    async fn wipe(&self) -> Verdict {
        Ok(backend::wipe(&self.0).await?)
    }
}

fn main() -> ExitCode {
    if let Ok(server) = std::env::var(SERVER) {
        let done = cli::block_on(async { worker::run(OwnBackend { server }).await });
        return ExitCode::from(u8::from(done.is_err()));
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let server = listener.local_addr().expect("its address").to_string();
    std::thread::spawn(move || {
        cli::block_on(async {
            listener.set_nonblocking(true)?;
            server::serve(tokio::net::TcpListener::from_std(listener)?).await;
            Ok(())
        })
    });
    dlock_conformance::run(Own(OwnBackend { server }))
}
